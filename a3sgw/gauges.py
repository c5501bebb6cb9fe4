"""
How the parts of a generation stand now, as plain rows for the snapshot.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from a3sgw.interfaces import IStateSource
from a3sgw.observe.snapshot import BackendGauge, MiddlewareGauge
from a3sgw.service.service import Service

__all__ = ["backend_gauges", "middleware_gauges"]


def backend_gauges(services: Iterable[Service]) -> list[BackendGauge]:
    """
    Return a row for each backend of each service.
    """
    return [
        {
            "service": service.name,
            "url": backend.url,
            "up": backend.is_usable,
            "active": backend.in_flight,
            "idle": backend.pool.idle,
            "leased": backend.pool.leased,
        }
        for service in services
        for backend in service.backends
    ]


def middleware_gauges(parts: Mapping[Hashable, Any]) -> list[MiddlewareGauge]:
    """
    Return a row for each middleware among the parts of a generation that tells of itself.
    """
    rows: list[MiddlewareGauge] = []
    for key, part in parts.items():
        if isinstance(key, tuple) and key[0] == "middleware" and IStateSource.providedBy(part):
            _, config, noun, owner, *_ = key
            rows.append(
                {
                    "name": config.name,
                    "type": config.type,
                    "router": owner if noun == "router" else "",
                    "entrypoint": owner if noun == "entrypoint" else "",
                    "state": dict(part.describe()),
                }
            )
    return rows
