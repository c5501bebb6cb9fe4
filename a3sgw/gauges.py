"""
How the parts of a generation stand now, as plain rows for the snapshot, and what the metrics need to know of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import attrs
from twisted.logger import Logger

from a3sgw.assembly import Generation
from a3sgw.interfaces import IStateSource
from a3sgw.observe.metrics import Metrics
from a3sgw.observe.snapshot import BackendGauge, MiddlewareGauge, ServiceGauge
from a3sgw.service.backend import Backend
from a3sgw.service.service import Service

__all__ = ["PastCounts", "backend_gauges", "certificate_gauges", "middleware_gauges", "retain_series", "service_gauges"]

_log = Logger()


def backend_gauges(services: Iterable[Service]) -> list[BackendGauge]:
    """
    Return a row for each backend of each service.
    """
    rows = []
    for service in services:
        turns: dict[tuple[str | None, str], int] = {}
        for backend in service.backends:
            who = (backend.revision, backend.url)
            turns[who] = turn = turns.get(who, 0) + 1
            rows.append(_backend_gauge(service.name, backend, turn))
    return rows


def _backend_gauge(service: str, backend: Backend, turn: int) -> BackendGauge:
    verdicts = backend.verdicts
    return {
        "service": service,
        "revision": backend.revision,
        "url": backend.url,
        "turn": turn,
        "weight": backend.weight,
        "up": backend.is_usable,
        "healthy": None if verdicts.probe is None else verdicts.probe.is_healthy,
        "in_service": None if verdicts.ejection is None else verdicts.ejection.is_in_service,
        "state": verdicts.words,
        "reason": verdicts.reason,
        "active": backend.in_flight,
        "idle": sum(pool.idle for pool in backend.pools),
        "leased": sum(pool.leased for pool in backend.pools),
    }


def certificate_gauges(parts: Mapping[Hashable, Any]) -> list[list[Any]]:
    """
    Return a row for each certificate of each entrypoint: whose it is, the names on it, and when it ends.
    """
    return [
        [key[1], names, end]
        for key, part in parts.items()
        if isinstance(key, tuple) and key[0] == "certificates"
        for names, end in part.expiries()
    ]


class PastCounts:
    """
    What services counted that a reload has replaced, by name, so that no count falls.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add_replaced(self, old: Mapping[str, Service], new: Mapping[str, Service]) -> None:
        """
        Keep the counts of the `old` services that are not among the `new` ones.
        """
        for name, service in old.items():
            if new.get(name) is not service:
                failovers, retries = self.of(name)
                self._counts[name] = (failovers + service.failovers, retries + service.retries)

    def of(self, name: str) -> tuple[int, int]:
        """
        Return the failovers and retries of former services called `name`.
        """
        return self._counts.get(name, (0, 0))


def service_gauges(services: Iterable[Service], past: PastCounts) -> list[ServiceGauge]:
    """
    Return a row for each service.
    """
    rows: list[ServiceGauge] = []
    for service in services:
        failovers, retries = past.of(service.name)
        traits = service.traits
        room = traits.room
        rows.append(
            {
                "service": service.name,
                "waiting": None if room is None else room.waiting,
                "in_use": None if room is None else room.in_use,
                "failovers": failovers + service.failovers,
                "retries": retries + service.retries,
                "copies": {} if traits.mirror is None else attrs.asdict(traits.mirror.tally),
                "hedges": {} if traits.hedging is None else attrs.asdict(traits.hedging.tally),
            }
        )
    return rows


def middleware_gauges(parts: Mapping[Hashable, Any]) -> list[MiddlewareGauge]:
    """
    Return a row for each middleware among the parts of a generation that tells of itself.
    """
    rows: list[MiddlewareGauge] = []
    for key, part in parts.items():
        if isinstance(key, tuple) and key[0] == "middleware" and IStateSource.providedBy(part):
            _, terms, noun, owner, *_ = key
            config = terms.config
            rows.append(
                {
                    "name": config.name,
                    "type": config.type,
                    "router": owner if noun == "router" else "",
                    "entrypoint": owner if noun == "entrypoint" else "",
                    "service": owner if noun == "service" else "",
                    "state": _state_of(part),
                }
            )
    return rows


def _state_of(middleware: Any) -> dict[str, str | int | float]:
    """
    Return what a middleware tells of itself. One of a plugin that cannot, or that tells something else, must not cost us all metrics.
    """
    try:
        return {key: value for key, value in middleware.describe().items() if isinstance(value, (str, int, float))}
    except Exception:
        _log.failure("bug in {middleware!r}", middleware=middleware)
        return {}


def retain_series(metrics: Metrics, generation: Generation) -> None:
    """
    Let the metrics forget every name that `generation` does not use.
    """
    config = generation.config
    metrics.retain(
        {(router.name, router.service) for router in config.routers.values()},
        {(service.name, backend.url) for service in generation.services.values() for backend in service.backends},
        {*generation.doors, *generation.udp_doors},
        config.middlewares.keys(),
        {(name, revision.name) for name, service in config.services.items() for revision in service.revisions},
    )
