"""
`tcp-filter`: limit who connects to an entrypoint, and how many at a time.

It decides when a connection is accepted, before a byte is read, so neither a slow client nor a TLS handshake costs anything until then.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import attrs
from zope.interface import implementer

from a3sgw.address import AddressSet
from a3sgw.config.kinds import NETWORK, Integer
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import IConnectionGate, IStateSource
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.shared_slots import SharedCount

__all__ = ["TcpFilter", "TcpFilterConfig", "factory"]


@attrs.frozen(kw_only=True)
class TcpFilterConfig:
    """
    Limit who connects, and how many at a time. Give at least one attribute, and list it on an entrypoint, or on a tcp or udp router: when a
    request has found its router, the connection is there already. Over udp, every client that is known counts as a connection.

    The peer's own address counts, a proxy's or not, because nothing has been read yet, unless the proxy has told whom it speaks for by the
    PROXY protocol. Addresses are judged first: who is not allowed does not take a place. On an http entrypoint who is turned away is
    answered 403 or 503, elsewhere nothing. `gateway_connections_refused_total` counts them all, and for udp
    `gateway_udp_datagrams_dropped_total`. Each entrypoint and router that lists it counts for itself. A reload that changes these
    attributes begins to count anew; other reloads do not.
    """

    type: ClassVar[str] = "tcp-filter"
    example: ClassVar[str] = """
        middlewares "inside" {
          type            = "tcp-filter"
          max_connections = 500
          allowed_ips     = ["10.0.0.0/8", "fd00::/8"]
        }
        """

    name: str = label()
    max_connections: int | None = setting(
        Integer(maximum=2**32 - 1), "How many connections at a time; 0 lets nobody in, and without it there is no bound.", default=None
    )
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "Who may connect; without it everybody.", default=())

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        if self.max_connections is None and not self.allowed_ips:
            yield "", "filters nothing; give max_connections or allowed_ips"


@implementer(IConnectionGate, IStateSource)
class TcpFilter:
    """
    The filter of one entrypoint, with its count of open connections.
    """

    def __init__(self, config: TcpFilterConfig, surroundings: Surroundings) -> None:
        self._allowed = AddressSet(config.allowed_ips) if config.allowed_ips else None
        self._limit = config.max_connections
        self._open = 0
        arena = surroundings.arena
        self._shared = None if arena is None else SharedCount(arena, ("tcp-filter", surroundings.owner, config))

    def __repr__(self) -> str:
        return f"<TcpFilter {self._open} open, at most {self._limit}, for {self._allowed}>"

    def admit(self, peer_packed: bytes) -> Outcome | None:
        """
        Let a connection in and count it, or say why not.
        """
        if self._allowed is not None and not self._allowed.contains(peer_packed):
            return Outcome.ADDRESS_REFUSED
        if self._limit is not None and not self._has_room(self._limit):
            return Outcome.CONNECTION_LIMIT
        self._open += 1
        return None

    def connection_ended(self, peer_packed: bytes) -> None:
        """
        Make room for another.
        """
        self._open -= 1
        if self._shared is not None:
            self._shared.set(self._open)

    def _has_room(self, limit: int) -> bool:
        return self._open < limit if self._shared is None else self._shared.take(limit)

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return how many connections are open.
        """
        return {"connections": self._open}


factory = MiddlewareFactory(TcpFilterConfig, TcpFilter)
