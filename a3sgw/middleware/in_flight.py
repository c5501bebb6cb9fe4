"""
`in-flight`: limit how many requests are under way at a time, after a short queue if one is wanted.

A rate says how often a client may ask, this how much of the servers it may hold meanwhile: slow requests use up places as they should. A
place is taken when a request passes and given back when its exchange is over, however it ends; whoever waits is let in by the one that
leaves. There is no list of sources to grow: one is known only while a request of its own is under way.

Hot path: see docs/hot-path.md.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import ICompletionHook, IRequestHook, IStateSource
from a3sgw.message import LocalResponse, make_field
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.source import (
    ipv4_prefix_setting,
    ipv6_prefix_setting,
    key_reader,
    source_header_setting,
    source_problems,
    source_setting,
)
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.arena import fit_key
from a3sgw.policy.shared_slots import POLL_SECONDS, Counter, KeyCounter, SharedCount, SharedSlots, SharedTally
from a3sgw.policy.slots import Admission, Slots
from a3sgw.refusal import refusal

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["InFlight", "InFlightConfig", "factory"]

_DEFAULT_PATIENCE_MS: Final = 1000
_RETRY_AFTER: Final = make_field(b"Retry-After", b"1")


@attrs.frozen(kw_only=True)
class InFlightConfig:
    """
    Limit how many requests are under way at a time: those of a router all together, or those of each client, host or value of a header.
    Others wait in a queue, if there is one and it has room, or are answered 429 with `Retry-After`.

    A request is under way until its response has been sent, however long that takes; a WebSocket until it is closed. Each router, or
    entrypoint, that lists it counts for itself. `gateway_in_flight` and `gateway_in_flight_queued` show how it stands.
    """

    type: ClassVar[str] = "in-flight"
    example: ClassVar[str] = """
        middlewares "reports" {
          type             = "in-flight"
          amount           = 20
          queue_size       = 100
          queue_timeout_ms = 2000
        }
        """

    name: str = label()
    amount: int = setting(Integer(minimum=1, maximum=2**32 - 1), "How many requests at a time, for each source.")
    source: str = source_setting(default="router")
    header: str | None = source_header_setting()
    ipv4_prefix: int = ipv4_prefix_setting()
    ipv6_prefix: int = ipv6_prefix_setting()
    queue_size: int = setting(
        Integer(maximum=2**20), "How many more may wait for a place, for each source; the first come is let in first.", default=0
    )
    queue_timeout_ms: int | None = setting(
        Integer(minimum=1, maximum=60_000, unit="milliseconds"),
        f"How long one of them waits at most; without it, {_DEFAULT_PATIENCE_MS}.",
        default=None,
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        yield from source_problems(self)
        if self.queue_timeout_ms is not None and not self.queue_size:
            yield "queue_timeout_ms", "has queue_timeout_ms but no queue; give queue_size too"


class _Wait:
    """
    One request in a queue: what it waits for, and the timed call that will end that. `place` is its key and the places of its source.
    """

    __slots__ = ("call", "place", "result")

    def __init__(self, place: tuple[bytes, Slots[Exchange]], result: Deferred[LocalResponse | None], call: Any) -> None:
        self.place = place
        self.result = result
        self.call = call


@implementer(IRequestHook, ICompletionHook, IStateSource)
class InFlight:
    """
    The places of one router or entrypoint.

    Nothing is given up when it is retired: who is under way, or waits, ends as it began.
    """

    def __init__(self, config: InFlightConfig, surroundings: Surroundings) -> None:
        self._config = config
        self._patience = (config.queue_timeout_ms or _DEFAULT_PATIENCE_MS) / 1000
        self._later = surroundings.reactor.callLater
        self._key_of = key_reader(config)
        self._arena = surroundings.arena
        self._name = ("in-flight", surroundings.owner, config)
        self._tallies: tuple[SharedTally, SharedTally] | None = None
        if self._arena is not None and config.source != "router":
            self._tallies = (SharedTally(self._arena, self._name), SharedTally(self._arena, ("queue", self._name)))
        self._sources: dict[bytes, Slots[Exchange]] = {}
        # With one source for all there is no need to find it.
        self._only = (b"", self._make_slots(b"")) if config.source == "router" else None
        self._poll: Any = None
        self._waits: dict[Exchange, _Wait] = {}

    def __repr__(self) -> str:
        return f"<InFlight {self._config.name} of {self._config.amount} by {self._config.source}, {dict(self.describe())}>"

    def _make_slots(self, key: bytes) -> Slots[Exchange]:
        config = self._config
        if self._arena is None:
            return Slots(config.amount, max_waiting=config.queue_size)
        counters: tuple[Counter, Counter]
        if self._tallies is None:
            counters = (SharedCount(self._arena, self._name), SharedCount(self._arena, ("queue", self._name)))
        else:
            places, queue = self._tallies
            fit = fit_key(key, self._arena.secret)
            counters = (KeyCounter(places, fit), KeyCounter(queue, fit))
        return SharedSlots(config.amount, *counters, max_waiting=config.queue_size)

    def on_request(self, exchange: Exchange) -> LocalResponse | Deferred[LocalResponse | None] | None:
        """
        Take a place, or wait for one.
        """
        place = self._only or self._place_of(exchange)
        # The queue has no deadlines of its own: each wait is one timed call.
        admission = place[1].acquire(exchange, 0.0)
        if admission is Admission.ACQUIRED:
            exchange.notes[self] = place
            return None
        return self._wait(exchange, place) if admission is Admission.QUEUED else self._refusal(exchange)

    def on_complete(self, exchange: Exchange) -> None:
        """
        Give the place back.
        """
        self._give_back(exchange.notes[self])

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return how many requests are under way, and how many wait.
        """
        every = [self._only[1]] if self._only else self._sources.values()
        return {"in_flight": sum(slots.in_use for slots in every), "queued": sum(slots.waiting for slots in every)}

    def _place_of(self, exchange: Exchange) -> tuple[bytes, Slots[Exchange]]:
        assert exchange.head is not None
        key = self._key_of(exchange.head)
        slots = self._sources.get(key)
        if slots is None:
            slots = self._sources[key] = self._make_slots(key)
        return key, slots

    def _give_back(self, place: tuple[bytes, Slots[Exchange]]) -> None:
        successor = place[1].release()
        if successor is not None:
            self._admit_soon(successor)
        else:
            self._forget_idle(place)

    def _forget_idle(self, place: tuple[bytes, Slots[Exchange]]) -> None:
        key, slots = place
        if not slots.in_use and not slots.waiting and self._only is None:
            del self._sources[key]

    def _admit_soon(self, successor: Exchange) -> None:
        wait = self._waits[successor]
        wait.call.cancel()
        # In an event of its own: here another exchange is about to end, and many refused in a row would be as many calls deep.
        wait.call = self._later(0, self._admit, successor)

    def _look(self) -> None:
        """
        See whether places have come free in other workers.
        """
        self._poll = None
        for slots in {id(wait.place[1]): wait.place[1] for wait in self._waits.values()}.values():
            for successor in slots.resize(self._config.amount):
                self._admit_soon(successor)
        self._look_later()

    def _look_later(self) -> None:
        if self._arena is not None and self._waits and self._poll is None:
            self._poll = self._later(POLL_SECONDS, self._look)

    # -- waiting

    def _wait(self, exchange: Exchange, place: tuple[bytes, Slots[Exchange]]) -> Deferred[LocalResponse | None]:
        result: Deferred[LocalResponse | None] = Deferred(lambda _: self._leave(exchange))
        self._waits[exchange] = _Wait(place, result, self._later(self._patience, self._time_over, exchange))
        self._look_later()
        return result

    def _admit(self, exchange: Exchange) -> None:
        wait = self._waits.pop(exchange)
        exchange.notes[self] = wait.place
        wait.result.callback(None)

    def _time_over(self, exchange: Exchange) -> None:
        wait = self._waits.pop(exchange)
        wait.place[1].leave(exchange)
        self._forget_idle(wait.place)
        wait.result.callback(self._refusal(exchange))

    def _leave(self, exchange: Exchange) -> None:
        """
        The client of a waiting request is gone.
        """
        wait = self._waits.pop(exchange)
        wait.call.cancel()
        if wait.place[1].leave(exchange):
            self._forget_idle(wait.place)
        else:
            # It was given a place a moment ago.
            self._give_back(wait.place)

    def _refusal(self, exchange: Exchange) -> LocalResponse:
        assert exchange.head is not None
        return refusal(Outcome.IN_FLIGHT_LIMIT, exchange.head.request_id, (_RETRY_AFTER,))


factory = MiddlewareFactory(InFlightConfig, InFlight)
