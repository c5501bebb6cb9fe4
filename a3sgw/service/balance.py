"""
Strategies for choosing a backend.

The first of them is here, and the catalog of all. The others are in the modules called `balance_…`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from random import Random as Chance
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs
from zope.interface import implementer

from a3sgw.interfaces import IBalancer, IBalancerFactory
from a3sgw.service.backend import Backend
from a3sgw.service.balance_hash import ConsistentHash
from a3sgw.service.balance_latency import LeastTime
from a3sgw.service.balance_least import LeastConnections
from a3sgw.service.balance_random import PowerOfTwo, Random
from a3sgw.service.balance_weighted import Weighted
from a3sgw.service.roster import BalancerSettings, Clockwork

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["STRATEGIES", "RoundRobin", "RoundRobinFactory", "StrategyFactory"]

_DEFAULTS: Final = BalancerSettings()
_CLOCKWORK: Final = Clockwork(monotonic, Chance())


@implementer(IBalancer)
class RoundRobin:
    """
    Each candidate in turn.

    The turn is remembered as a backend and not as a number, so that it is not skewed when candidates come and go.
    """

    __slots__ = ("_last", "_order")

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._order = {backend: position for position, backend in enumerate(backends)}
        self._last = -1

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return the first candidate behind the last one chosen, in configured order.
        """
        order = self._order
        if len(candidates) == len(order):
            # Most common case first: everybody is usable.
            last = self._last + 1
            if last >= len(candidates):
                last = 0
            self._last = last
            return candidates[last]
        at = bisect_right(candidates, self._last, key=order.__getitem__)
        chosen = candidates[at] if at < len(candidates) else candidates[0]
        self._last = order[chosen]
        return chosen


@implementer(IBalancerFactory)
class RoundRobinFactory:
    """
    Builds `round-robin`, the default.
    """

    strategy = "round-robin"

    def build(self, backends: Sequence[Backend], settings: BalancerSettings = _DEFAULTS) -> IBalancer:
        """
        Return a balancer that begins with the first backend.
        """
        if settings.slow_start > 0:
            return Weighted(backends, settings, _CLOCKWORK, heeds_weights=False)
        return RoundRobin(backends)


@implementer(IBalancerFactory)
@attrs.frozen
class StrategyFactory:
    """
    Builds the strategy of that name by calling `make` with backends, settings, and where to get time and chance from.
    """

    strategy: str
    make: Callable[[Sequence[Backend], BalancerSettings, Clockwork], IBalancer]
    clockwork: Clockwork = _CLOCKWORK

    def build(self, backends: Sequence[Backend], settings: BalancerSettings = _DEFAULTS) -> IBalancer:
        """
        Return a balancer for `backends`.
        """
        return self.make(backends, settings, self.clockwork)


STRATEGIES: Final[Mapping[str, RoundRobinFactory | StrategyFactory]] = {
    factory.strategy: factory
    for factory in (
        RoundRobinFactory(),
        StrategyFactory("weighted", Weighted),
        StrategyFactory("least-connections", LeastConnections),
        StrategyFactory("random", Random),
        StrategyFactory("p2c", PowerOfTwo),
        StrategyFactory("least-time", LeastTime),
        StrategyFactory("consistent-hash", ConsistentHash),
    )
}
