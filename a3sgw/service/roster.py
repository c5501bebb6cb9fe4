"""
Who may be chosen, and with which weights: what strategies that know weights go by.

The candidates of a service are the same tuple until somebody's health changes, and weights change only while a server warms up. So a
strategy builds whatever makes its choice quick once for a roster, and a `Standing` keeps that until the roster is another. A list of
candidates is a retry, or a service that leaves out busy servers: it is looked at once and forgotten, in time proportional to its length, as
was making it.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from random import Random
from typing import Generic, TypeVar

import attrs

from a3sgw.service.backend import Backend
from a3sgw.service.slow_start import refresh_interval, slow_start_factor

__all__ = ["BalancerSettings", "Clockwork", "Roster", "Standing", "Turn", "make_roster"]

T = TypeVar("T")


@attrs.frozen(slots=True)
class BalancerSettings:
    """
    What strategies can be told.

    `slow_start` is how many seconds a server takes to get its whole share after it became usable; 0.0 for none. The others are for
    `consistent-hash`: `hash_source` is what of a request decides (`client-ip`, `header`, `cookie`, `query` or `path`), `hash_name` the name
    of the header, cookie or parameter, and `max_load` how many times the average load a server may have.
    """

    slow_start: float = 0.0
    hash_source: str = "client-ip"
    hash_name: str = ""
    max_load: float = 1.25


@attrs.frozen(slots=True)
class Clockwork:
    """
    Where strategies get time and chance from. `seconds` is the clock of `Backend.usable_since`.
    """

    seconds: Callable[[], float]
    random: Random


@attrs.frozen(slots=True, eq=False)
class Roster:
    """
    `members` in configured order and their `weights`, all greater than 0. `factors` are what slow start has multiplied them by, empty if it
    has left all as they are. `now` is when that was so.
    """

    members: Sequence[Backend]
    weights: Sequence[float]
    factors: Sequence[float]
    now: float


def make_roster(candidates: Sequence[Backend], slow_start: float, now: float, *, heeds_weights: bool = True) -> Roster:
    """
    Return the roster for `candidates`. Those of weight 0 are left out, unless all are: then all have the same. With `heeds_weights` false
    all have the same anyway.
    """
    members: Sequence[Backend] = [backend for backend in candidates if backend.weight > 0] if heeds_weights else candidates
    weights: list[float]
    if members and heeds_weights:
        weights = [backend.weight for backend in members]
    else:
        members = candidates
        weights = [1] * len(members)
    factors: list[float] = []
    if slow_start > 0:
        factors = [slow_start_factor(now - backend.usable_since, slow_start) for backend in members]
        if min(factors) < 1.0:
            weights = [weight * factor for weight, factor in zip(weights, factors, strict=True)]
        else:
            factors = []
    return Roster(members, weights, factors, now)


class Standing(Generic[T]):
    """
    What a strategy has built for the candidates in force.

    `build` makes it from a roster. `build_once` makes what serves for one choice among candidates that are not in force; without it `build`
    does that too.
    """

    __slots__ = ("_build", "_build_once", "_built", "_candidates", "_due", "_seconds", "_slow_start")

    def __init__(
        self,
        build: Callable[[Roster], T],
        slow_start: float,
        seconds: Callable[[], float],
        build_once: Callable[[Roster], T] | None = None,
    ) -> None:
        self._build = build
        self._build_once = build if build_once is None else build_once
        self._slow_start = slow_start
        self._seconds = seconds
        self._candidates: Sequence[Backend] | None = None
        self._built: T | None = None
        self._due: float | None = None

    def get(self, candidates: Sequence[Backend]) -> T:
        """
        Return what was built for `candidates`, or build it.
        """
        # Most common case first.
        if candidates is self._candidates and (self._due is None or self._seconds() < self._due):
            return self._built  # type: ignore[return-value]
        now = self._seconds()
        roster = make_roster(candidates, self._slow_start, now)
        if type(candidates) is not tuple:
            return self._build_once(roster)
        self._built = None
        self._built = built = self._build(roster)
        self._candidates = candidates
        self._due = now + refresh_interval(self._slow_start) if roster.factors else None
        return built


class Turn:
    """
    Whose turn it is among equals. It is remembered as a place in the configured order, so that it is not skewed when candidates come and
    go.
    """

    __slots__ = ("_order", "last")

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._order = {backend: place for place, backend in enumerate(backends)}
        self.last = -1

    def begin(self, candidates: Sequence[Backend]) -> int:
        """
        Return which of `candidates` is the first behind the one that had its turn last.
        """
        at = bisect_right(candidates, self.last, key=self._order.__getitem__)
        return at if at < len(candidates) else 0

    def took(self, backend: Backend) -> None:
        """
        Go on behind `backend`.
        """
        self.last = self._order[backend]
