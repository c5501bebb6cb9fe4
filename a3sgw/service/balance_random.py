"""
Strategies that leave it to chance.

Servers stand on a wheel, each on an arc as long as its weight. `random` spins it once. `p2c`, the power of two random choices, spins it
twice and takes the less busy of the two: far more even than chance alone (M. Mitzenmacher, "The Power of Two Choices in Randomized Load
Balancing", 2001), and unlike the very least busy one not the same for all gateways at once.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from zope.interface import implementer

from a3sgw.interfaces import IBalancer
from a3sgw.service.backend import Backend
from a3sgw.service.roster import BalancerSettings, Clockwork, Roster, Standing

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["PowerOfTwo", "Random", "Wheel"]


class Wheel:
    """
    The members of a roster on a wheel.
    """

    __slots__ = ("_ends", "_last", "_members", "_total", "_weights")

    def __init__(self, roster: Roster) -> None:
        self._members = roster.members
        self._weights = roster.weights
        self._ends = list(accumulate(roster.weights))
        self._total = self._ends[-1]
        self._last = len(self._ends) - 1

    def spin(self, chance: Callable[[], float]) -> Backend:
        """
        Return a member. `chance` gives a number from 0 to below 1.
        """
        return self._members[bisect_right(self._ends, chance() * self._total)]

    def spin_twice(self, chance: Callable[[], float]) -> Backend:
        """
        Return the one of two different members that has fewer exchanges in flight for its weight; of equals, the first.
        """
        ends = self._ends
        members = self._members
        one = bisect_right(ends, chance() * self._total)
        first = members[one]
        busy = first.in_flight
        if not busy:
            return first
        weights = self._weights
        weight = weights[one]
        place = chance() * (self._total - weight)
        # The first one's arc is taken out of the wheel.
        if place >= ends[one] - weight:
            place += weight
        # Bounded, because the sum may be rounded up to the total.
        other = bisect_right(ends, place, 0, self._last)
        second = members[other]
        return first if busy * weights[other] <= second.in_flight * weight else second


@implementer(IBalancer)
class Random:
    """
    Anyone, each as likely as its weight says.
    """

    __slots__ = ("_chance", "_standing")

    def __init__(self, backends: Sequence[Backend], settings: BalancerSettings, clockwork: Clockwork) -> None:
        self._chance = clockwork.random.random
        self._standing = Standing(Wheel, settings.slow_start, clockwork.seconds)

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return what the wheel shows.
        """
        return self._standing.get(candidates).spin(self._chance)


@implementer(IBalancer)
class PowerOfTwo:
    """
    The less busy of two that chance has picked.
    """

    __slots__ = ("_chance", "_standing")

    def __init__(self, backends: Sequence[Backend], settings: BalancerSettings, clockwork: Clockwork) -> None:
        self._chance = clockwork.random.random
        self._standing = Standing(Wheel, settings.slow_start, clockwork.seconds)

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return the better of two members.
        """
        return self._standing.get(candidates).spin_twice(self._chance)
