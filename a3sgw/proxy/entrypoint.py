"""
One generation's view of an entrypoint: all that its connections consult when a request arrives.

A door outlives many of these. A reload gives the door a new one between two events, and every connection's next request is served by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from a3sgw.address import AddressSet
from a3sgw.interfaces import IObserver
from a3sgw.message import LocalResponse, RequestHead
from a3sgw.observe.record import Record
from a3sgw.proxy.forwarding import Forwarding
from a3sgw.wire.http1 import RequestLimits
from a3sgw.wire.http2 import SessionLimits

__all__ = ["AdminGate", "Entrypoint", "EntrypointTimeouts", "Observers"]


@attrs.frozen(slots=True)
class EntrypointTimeouts:
    """
    How long clients may take, in seconds; the names are those of the configuration.
    """

    request_header: float = 10.0
    request_body: float = 60.0
    idle: float = 75.0
    write: float = 60.0


_LOOPBACK = AddressSet(["127.0.0.0/8", "::1"])


class AdminGate:
    """
    Decides which requests are for the gateway's own API, and passes them on.

    A request that came through a proxy is never from the loopback address, whatever it says (spec decision 5).
    """

    __slots__ = ("_allowed", "ask", "prefix")

    def __init__(
        self, prefix: bytes, allowed: AddressSet, ask: Callable[[RequestHead], LocalResponse | Deferred[LocalResponse]]
    ) -> None:
        self.prefix = prefix
        self.ask = ask
        self._allowed = allowed

    def admits(self, head: RequestHead, *, is_forwarded: bool) -> bool:
        """
        Say whether a request whose path begins with `prefix` is answered by the gateway; if not it is routed like any other.
        """
        after = head.path[len(self.prefix) : len(self.prefix) + 1]
        if after not in (b"", b"/"):
            return False
        if is_forwarded and _LOOPBACK.contains(head.client_packed):
            return False
        return self._allowed.contains(head.client_packed)


class Observers:
    """
    Everybody who reads records. One that raises is dropped and reported, and the exchange never notices.

    Records are shown a batch at a time, so that an observer's code runs warm over many of them: an exchange only adds itself to a list.
    Whoever wants to know what was observed calls `drain` first.
    """

    BATCH: Final = 64
    _log = Logger()

    def __init__(self, observers: Sequence[IObserver] = ()) -> None:
        self._ended: list[Record] = []
        self._calls: tuple[Callable[[Record], None], ...] = ()
        self.replace(observers)

    def replace(self, observers: Sequence[IObserver]) -> None:
        """
        Show what ended up to now to those who observed up to now, and from now on to `observers`.
        """
        self.drain()
        self._calls = tuple(observer.exchange_ended for observer in observers)

    def exchange_ended(self, record: Record) -> None:
        """
        Remember `record` until the next batch is shown.
        """
        ended = self._ended
        ended.append(record)
        if len(ended) >= self.BATCH:
            self.drain()

    def drain(self) -> None:
        """
        Show every record that has not been shown to each observer, in the order in which they ended.
        """
        ended, self._ended = self._ended, []
        for call in self._calls:
            try:
                for record in ended:
                    call(record)
            except Exception:
                self._calls = tuple(other for other in self._calls if other is not call)
                self._log.failure("observer {call} failed and is switched off", call=call)


@attrs.define(slots=True, eq=False)
class Entrypoint:
    """
    The table of routes and the terms for clients at one entrypoint, for one generation.

    `trusted` are the proxies whose forwarding fields are believed, `admin` the gate to the gateway's own API or what stands in its place.
    `later` begins a timed call, as `callLater` of a reactor does. `http2` are the terms of HTTP/2 connections.
    """

    name: str
    table: Any
    limits: RequestLimits
    timeouts: EntrypointTimeouts
    trusted: AddressSet | None
    admin: Any
    observers: Observers
    series: Any
    later: Callable[..., Any]
    http2: SessionLimits = attrs.field(factory=SessionLimits)
    forwardings: dict[tuple[bytes, ...], Forwarding] = attrs.field(factory=dict, init=False)
    """What trusted proxies said lately, and what became of it; bounded by whoever adds to it."""
