"""
A second attempt at a request whose answer takes unusually long.

`Hedging` is what a service knows about that: how long its answers usually take, and how many more attempts it can afford (J. Dean and L. A.
Barroso, "The Tail at Scale", 2013). A `Hedge` watches over one exchange: it waits for the time after which most are answered, sends the
request to another server, and lets the exchange go on with whichever answers first. The exchange stays the owner of its one attempt; when
the hedge's becomes that attempt, the hedge only passes on what its connection reports.

A hedge must not make anything worse. A client that is bound to a server is never sent to another; an error is no reason to give up a first
attempt that may yet go well; and what nobody wants any more is given up at once, and says nothing about its server.

Long because a race has two runners, and every way it can end is decided here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import ILessee, IUpstream
from a3sgw.message import IDEMPOTENT, Field, ResponseHead
from a3sgw.policy.budget import RetryBudget
from a3sgw.policy.quantile import LatencyQuantile
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.waiting import WaitingRoom

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange
    from a3sgw.proxy.passage import Passage

__all__ = ["Hedge", "HedgeTally", "Hedging"]


@attrs.define(slots=True)
class HedgeTally:
    """
    What became of second attempts: those that took the place of the first, because they were answered sooner or the first failed, and the
    others.
    """

    won: int = 0
    lost: int = 0


def _is_good(status: int) -> bool:
    """
    Tell whether an answer says more than that a server has too much to do, or is not well.
    """
    return status < 500 and status != 429


class Hedging:
    """
    The second attempts of one service.

    `quantile` is the part of answers that come before a second attempt, which is never made before `min_delay` seconds. While too few
    answers are known there is none. `budget` bounds how many there are. `seconds` is the monotonic clock, `later` begins a timed call.

    How long answers take is learnt from first attempts alone. One that is given up counts with the time it had: if it did not count, only
    quick ones would, and the quantile would sink with every hedge.
    """

    FRESH_SECONDS: Final = 1.0
    """How old the quantile may be, which takes a while to work out."""

    def __init__(
        self,
        quantile: float,
        min_delay: float,
        budget: RetryBudget,
        tally: HedgeTally,
        seconds: Callable[[], float],
        later: Callable[..., Any],
    ) -> None:
        self.tally = tally
        self.budget = budget
        self.seconds = seconds
        self._quantile = quantile
        self._min_delay = min_delay
        self._later = later
        self._latency = LatencyQuantile()
        self._delay: float | None = None
        self._fresh_until = float("-inf")

    def __repr__(self) -> str:
        return f"<Hedging after {self._delay} s, {self.budget!r}>"

    def begin(self, exchange: Exchange, passage: Passage | None) -> Hedge | None:
        """
        Watch over an exchange whose request has just been sent for the first time, if there may be a second attempt.
        """
        head = exchange.head
        if head is None or head.method not in IDEMPOTENT or exchange.binding is not None or len(exchange.service.backends) < 2:
            return None
        now = self.seconds()
        self.budget.request(now)
        hedge = Hedge(self, exchange, passage, now)
        delay = self.delay(now)
        if delay is not None:
            hedge.timer = self._later(delay, hedge.time_over)
        return hedge

    def delay(self, now: float) -> float | None:
        """
        Return how many seconds an answer may take before there is a second attempt, or `None` if that is not known.
        """
        if now >= self._fresh_until:
            self._fresh_until = now + self.FRESH_SECONDS
            usual = self._latency.quantile(self._quantile, now)
            self._delay = None if usual is None else max(usual, self._min_delay)
        return self._delay

    def observe(self, begun: float) -> None:
        """
        Count a first attempt that began then and has been answered now, or would at least have taken until now.
        """
        now = self.seconds()
        self._latency.observe(now - begun, now)


class _State(enum.Enum):
    """
    `WAITING` until the second attempt is made, if it ever is; `RACING` while there are two; `ADOPTED` when the exchange has taken over the
    second; `OVER` when there is none any more.
    """

    WAITING = "waiting"
    RACING = "racing"
    ADOPTED = "adopted"
    OVER = "over"


@implementer(ILessee)
class Hedge:
    """
    The second attempt of one exchange.

    `timer` ends the time that the first attempt has alone, if that is known. `backend`, `ticket`, `upstream` and `leased` are the
    attempt's, for the exchange to take over; `is_waiting` says that the pool has yet to find a connection.
    """

    __slots__ = (
        "_begun",
        "_exchange",
        "_hedging",
        "_passage",
        "_room",
        "_service",
        "_state",
        "backend",
        "connect_timeout",
        "head",
        "is_waiting",
        "leased",
        "response_header_timeout",
        "settings",
        "ticket",
        "timer",
        "upstream",
    )

    _log = Logger()

    def __init__(self, hedging: Hedging, exchange: Exchange, passage: Passage | None, begun: float) -> None:
        self._hedging = hedging
        self._exchange = exchange
        self._passage = passage
        self._begun: float | None = begun
        self._service = exchange.service
        self._state = _State.WAITING
        self.timer: Any = None
        self._room: WaitingRoom | None = None
        self.head = exchange.head
        self.settings = exchange.settings
        self.connect_timeout = exchange.connect_timeout
        self.response_header_timeout = exchange.response_header_timeout
        self.backend: Backend | None = None
        self.ticket = -1
        self.upstream: Any = None
        self.leased = 0.0
        self.is_waiting = False

    def __repr__(self) -> str:
        return f"<Hedge {self._state.value} of {self._exchange!r}>"

    # -- what the exchange says

    def answered(self, status: int) -> None:
        """
        The exchange has its answer. If that came from the first attempt, there is no need for another.
        """
        if _is_good(status):
            self._observe()
        self.close()

    def takes_over(self, outcome: Outcome) -> bool:
        """
        The first attempt ended with `outcome`: go on with the second, if it is under way. Tell whether it is.
        """
        if self._state is not _State.RACING:
            return False
        self._observe()
        self._win(outcome)
        return True

    def close(self) -> None:
        """
        Make no second attempt, and give it up if it is under way. The exchange answers for what it has taken over.
        """
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
        if self._state is _State.RACING:
            self._observe()
            self._lose(Outcome.CLIENT_CLOSED, 0)

    def cancel(self) -> None:
        """
        Wait for no connection any more, on behalf of an exchange that has taken over.
        """
        assert self.backend is not None
        self.backend.pool_for(self.head).cancel(self)

    # -- the second attempt

    def time_over(self) -> None:
        """
        The first attempt has had its time.
        """
        self.timer = None
        try:
            self._race()
        except Exception:
            # A balancer or a middleware may be a plugin, and the first attempt is doing nothing wrong.
            self._log.failure("bug in {hedge!r}", hedge=self)
            self.close()

    def _race(self) -> None:
        """
        Send the request once more, if that is possible and affordable.
        """
        exchange, service = self._exchange, self._service
        room = service.traits.room
        if exchange.service is not service or not exchange.may_be_hedged or (room is not None and not room.has_place):
            return
        others = exchange.others()
        if not others or not self._hedging.budget.try_spend(self._hedging.seconds()):
            return
        backend = service.choose(exchange, [each for each in service.backends if each not in others])
        if backend is None:
            return
        if room is not None:
            room.enter(exchange)
            self._room = room
        self._state = _State.RACING
        exchange.attempts += 1
        self.backend = backend
        backend.acquire()
        if backend.watch is not None:
            self.ticket = backend.watch.begin()
        if self._passage is not None:
            self._passage.attempt_begun(backend)
        pool = backend.pool_for(self.head)
        upstream = pool.lease(self)
        while upstream is not None and upstream.was_used and upstream.is_stale():
            # There is no third attempt to make good for a kept connection that is gone.
            upstream.abort()
            upstream = pool.lease(self)
        if upstream is None:
            self.is_waiting = True
        else:
            self.upstream_leased(upstream)

    def _observe(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            self._hedging.observe(begun)

    def _win(self, outcome: Outcome) -> None:
        """
        Take the place of the first attempt, which ended with `outcome`.
        """
        self._state = _State.ADOPTED
        self._hedging.tally.won += 1
        self._exchange.adopt(self, outcome)
        self._leave_room()

    def _lose(self, outcome: Outcome, status: int) -> None:
        self._state = _State.OVER
        self._hedging.tally.lost += 1
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()
        elif self.is_waiting:
            self.is_waiting = False
            self.cancel()
        backend = self.backend
        assert backend is not None
        backend.release()
        if self.ticket >= 0 and backend.watch is not None:
            backend.watch.end(self.ticket, outcome, status, monotonic() - self.leased if self.leased else 0.0)
        if self._passage is not None:
            self._passage.attempt_ended(backend, outcome, status)
        self._leave_room()

    def _leave_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            # Last, because whoever waits goes on at once.
            room.give_back()

    # -- what the pool reports

    def upstream_leased(self, upstream: IUpstream) -> None:
        """
        There is a connection.
        """
        self.is_waiting = False
        if self._state is _State.ADOPTED:
            self._exchange.upstream_leased(upstream)
            return
        self.upstream = upstream
        self.leased = monotonic()
        self._exchange.repeat(upstream, self)

    def lease_failed(self, outcome: Outcome) -> None:
        """
        There is none.
        """
        self.is_waiting = False
        if self._state is _State.ADOPTED:
            self._exchange.lease_failed(outcome)
        else:
            self._lose(outcome, 0)

    # -- what the upstream reports

    def request_lines(self, address: BackendAddress) -> list[bytes]:
        """
        Return the request as HTTP/1 lines.
        """
        return self._exchange.request_lines(address)

    def request_fields(self, address: BackendAddress) -> list[tuple[bytes, bytes]]:
        """
        Return the request as HTTP/2 header fields for the server at `address`.
        """
        return self._exchange.request_fields(address)

    def interim_received(self, head: ResponseHead) -> None:
        """
        A 1xx response decides nothing.
        """
        if self._state is _State.ADOPTED:
            self._exchange.interim_received(head)

    def head_received(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        The second attempt was answered. If it was the quicker one, and its answer is no worse than waiting, that is the answer.
        """
        if ended:
            # It may be somebody else's already.
            self.upstream = None
        if self._state is not _State.ADOPTED:
            if not _is_good(head.status):
                self._lose(Outcome.COMPLETED, head.status)
                return
            self._observe()
            self._win(Outcome.CLIENT_CLOSED)
        self._exchange.head_received(head, piece, ended)

    def response_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The answer goes on.
        """
        self._exchange.response_body_received(piece, ended, trailers)

    def upstream_failed(self, outcome: Outcome, *, is_stale: bool, detail: str) -> None:
        """
        The connection broke.
        """
        self.upstream = None
        if self._state is _State.ADOPTED:
            self._exchange.upstream_failed(outcome, is_stale=is_stale, detail=detail)
        else:
            # One that the server had closed while it was idle is no fault of it.
            self._lose(Outcome.CLIENT_CLOSED if is_stale else outcome, 0)

    def upstream_congested(self) -> None:
        """
        The whole request is in memory already; there is nothing to hold back.
        """

    def upstream_drained(self) -> None:
        """
        Nothing was held back.
        """
