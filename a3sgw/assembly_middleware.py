"""
The middlewares of a generation: who has which, and which of the previous generation's live on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from a3sgw.assembly_parts import Kit, Parts, digest_of_files
from a3sgw.config.check_chain import written_out
from a3sgw.config.model import GatewayConfig
from a3sgw.middleware.chain import Chain, Link
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.service.service import Service

__all__ = ["Middlewares"]


class _Terms:
    """
    On what terms a middleware works: its configuration, with the files named there and the services it asks as they were. What it was is
    the same object in the next generation; so keys with it in them are cheap to look up.
    """

    __slots__ = ("config", "is_per_service", "name", "series")

    def __init__(self, config: Any, series: Any) -> None:
        self.config = config
        self.name: str = config.name
        self.is_per_service = bool(getattr(config, "is_per_service", False))
        self.series = series


class Middlewares:
    """
    The middlewares of a generation in the making.

    Each router and each entrypoint has one of its own, kept under its configuration, the content of the files named there, and the services
    it asks. Those of a type that keeps an account of services are one for each service, whichever routers lead to it.
    """

    def __init__(self, config: GatewayConfig, services: Mapping[str, Service], parts: Parts, kit: Kit) -> None:
        self._config = config
        self._services = services
        self._parts = parts
        self._kit = kit
        self._listed: dict[tuple[str, ...], list[_Terms]] = {}

    def links(self, noun: str, owner: str, names: Iterable[str], service: str | None = None) -> list[Link]:
        """
        Return the links for what the `noun` ("router" or "entrypoint") called `owner` lists, chains written out, on the way to `service`.
        """
        found = []
        for terms in self._terms(tuple(names)):
            whose = ("service", service) if service is not None and terms.is_per_service else (noun, owner)
            key = ("middleware", terms, *whose)
            middleware = self._parts.take(key, partial(self._build, terms.config, f'{whose[0]} "{whose[1]}"'))
            found.append(Link(terms.name, terms.config.type, middleware, terms.series))
        return found

    def _terms(self, names: tuple[str, ...]) -> list[_Terms]:
        """
        Return the terms of each of `names`, chains written out. Thousands of routers list the same few.
        """
        found = self._listed.get(names)
        if found is None:
            found = self._listed[names] = [self._terms_of(name) for name in written_out(names, self._config.middlewares)]
        return found

    def _terms_of(self, name: str) -> _Terms:
        config = self._config.middlewares[name]
        services = tuple(self._services[asked] for asked in _services_of(config))
        # Looked up once for each name: hashing a configuration for each router that lists it would be most of the work of a reload.
        key = ("terms", config, digest_of_files(config), services)
        return self._parts.take(key, lambda: _Terms(config, self._kit.metrics.middleware_series(name)))

    def differ_by_service(self, names: Iterable[str]) -> bool:
        """
        Say whether one of the middlewares called so, chains written out, is another on the way to another service.
        """
        return any(terms.is_per_service for terms in self._terms(tuple(names)))

    def chain(self, links: Sequence[Link]) -> Chain | None:
        """
        Return the chain of `links`, the same one for the same ones.
        """
        if not links:
            return None
        # Middlewares may be unhashable, but the parts keep them alive, so their identity is theirs alone.
        key = ("chain", tuple((link.name, id(link.middleware), id(link.series)) for link in links))
        return self._parts.take(key, lambda: Chain(links))

    def _build(self, config: Any, owner: str) -> Any:
        kit = self._kit
        surroundings = Surroundings(
            owner=owner,
            seconds=kit.dialer.deadlines.seconds,
            wall_clock=kit.wall_clock,
            reactor=kit.reactor,
            outbound=kit.outbound,
            destination_of=lambda name: kit.outbound.open_service(self._services[name]),
            in_thread=kit.in_thread,
            chance=kit.chance,
            arena=kit.arena,
            post=kit.post,
            shared=kit.share,
        )
        return kit.catalog.factories[config.type].build(config, surroundings)


def _services_of(config: Any) -> list[str]:
    named = [getattr(config, key) for key, noun in getattr(config, "names", {}).items() if noun == "service"]
    return [name for name in named if name is not None]
