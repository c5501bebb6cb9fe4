"""
Each server as often as its weight says, evenly spread.

A virtual clock counts choices. A server of weight `w` among weights that add up to `W` is owed one choice in each of its *periods*, which
are `W / w` choices long. It becomes eligible when its period starts, and of those that are eligible the one whose period ends first is
chosen, after which its next period starts where this one ended. That is worst-case fair weighted fair queueing (WF2Q+; J. Bennett and H.
Zhang, 1997) with requests for packets. Nobody is ever a whole choice ahead of its share or behind it, as can happen in nginx's smooth
weighted round-robin; and a choice costs a few operations on heaps, where nginx looks at every server.

What a server is owed, its *lag*, outlives changes of the candidates and of the weights.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from a3sgw.interfaces import IBalancer
from a3sgw.service.backend import Backend
from a3sgw.service.roster import BalancerSettings, Clockwork, Roster, make_roster
from a3sgw.service.slow_start import refresh_interval

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["Weighted"]

_LONGEST_RUN: Final = 1 << 16
"""After so many choices the clock begins at 0 again, before rounding errors add up."""


class _Schedule:
    """
    The periods of the members of a roster, told by their numbers in it. `lags` is what each is owed at the beginning, in choices.

    `_waiting` holds the starts of periods to come and `_ready` the ends of those that have started, each with its member's number. An entry
    that does not agree with `_starts` or `_ends` any more is void.
    """

    __slots__ = ("_ends", "_now", "_periods", "_ready", "_starts", "_waiting", "members", "numbers")

    def __init__(self, roster: Roster, lags: Mapping[Backend, float]) -> None:
        total = sum(roster.weights)
        owed = [lags.get(backend, 0.0) for backend in roster.members]
        self.members = roster.members
        self.numbers = {backend: number for number, backend in enumerate(roster.members)}
        self._periods = [total / weight for weight in roster.weights]
        self._starts = [-lag * period for lag, period in zip(owed, self._periods, strict=True)]
        self._ends = [start + period for start, period in zip(self._starts, self._periods, strict=True)]
        # Where the lags of all add up to nothing: nobody can be owed what nobody was given.
        self._now = -sum(owed)
        self._waiting = list(zip(self._starts, range(len(owed)), strict=True))
        self._ready: list[tuple[float, int]] = []
        heapify(self._waiting)

    @property
    def is_long(self) -> bool:
        """
        Whether the clock has run for long enough.
        """
        return self._now > _LONGEST_RUN

    def next(self) -> Backend:
        """
        Choose among all members.
        """
        ready = self._ready
        waiting = self._waiting
        ends = self._ends
        now = self._now
        while True:
            while waiting and waiting[0][0] <= now:
                start, number = heappop(waiting)
                if start == self._starts[number]:
                    heappush(ready, (ends[number], number))
            while ready:
                end, number = heappop(ready)
                if end == ends[number]:
                    self._advance(number, now)
                    return self.members[number]
            # Nobody is owed anything, because of rounding or of choices among some of them.
            now = waiting[0][0]

    def next_of(self, numbers: Sequence[int]) -> Backend:
        """
        Choose among the members with these numbers.
        """
        starts = self._starts
        ends = self._ends
        # As in `next`: when all of them have had more than their share, the clock goes on to where one has not.
        now = max(self._now, min(starts[number] for number in numbers))
        number = min((number for number in numbers if starts[number] <= now), key=ends.__getitem__)
        self._advance(number, now)
        return self.members[number]

    def _advance(self, number: int, now: float) -> None:
        """
        Count a choice and let the member's next period follow; but not if it is overdue, or who was kept from its turns by choices among
        others would have them all at once.
        """
        start = self._ends[number]
        if start < now - 1.0:
            start = now - 1.0
        self._starts[number] = start
        self._ends[number] = start + self._periods[number]
        heappush(self._waiting, (start, number))
        self._now = now + 1.0

    def lags(self) -> Iterable[tuple[Backend, float]]:
        """
        Give what each member is owed, in choices.
        """
        for backend, start, period in zip(self.members, self._starts, self._periods, strict=True):
            yield backend, min(max((self._now - start) / period, -1.0), 1.0)


@implementer(IBalancer)
class Weighted:
    """
    Smooth weighted round-robin. With `heeds_weights` false all weights are the same, which leaves slow start.
    """

    __slots__ = ("_candidates", "_due", "_heeds_weights", "_lags", "_schedule", "_seconds", "_slow_start")

    def __init__(
        self, backends: Sequence[Backend], settings: BalancerSettings, clockwork: Clockwork, *, heeds_weights: bool = True
    ) -> None:
        self._seconds = clockwork.seconds
        self._slow_start = settings.slow_start
        self._heeds_weights = heeds_weights
        self._lags: dict[Backend, float] = {}
        self._candidates: Sequence[Backend] = ()
        self._schedule: _Schedule | None = None
        self._due: float | None = None

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return the candidate whose turn it is.
        """
        schedule = self._schedule
        if schedule is None or candidates is not self._candidates:
            if type(candidates) is not tuple:
                return self._choose_once(candidates)
            schedule = self._begin(candidates)
        elif schedule.is_long or (self._due is not None and self._seconds() >= self._due):
            schedule = self._begin(candidates)
        return schedule.next()

    def _begin(self, candidates: Sequence[Backend]) -> _Schedule:
        if self._schedule is not None:
            self._lags.update(self._schedule.lags())
        now = self._seconds()
        roster = self._roster(candidates, now)
        self._candidates = candidates
        self._schedule = schedule = _Schedule(roster, self._lags)
        self._due = now + refresh_interval(self._slow_start) if roster.factors else None
        return schedule

    def _roster(self, candidates: Sequence[Backend], now: float) -> Roster:
        return make_roster(candidates, self._slow_start, now, heeds_weights=self._heeds_weights)

    def _choose_once(self, candidates: Sequence[Backend]) -> Backend:
        """
        Choose among some of those in force; if these are others, they are in force from now on.
        """
        schedule = self._schedule
        if schedule is not None and schedule.is_long:
            schedule = self._begin(self._candidates)
        members = self._roster(candidates, self._seconds()).members
        if schedule is not None and all(backend in schedule.numbers for backend in members):
            return schedule.next_of([schedule.numbers[backend] for backend in members])
        return self._begin(tuple(candidates)).next()
