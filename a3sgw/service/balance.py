"""
Strategies for choosing a backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from a3sgw.interfaces import IBalancer, IBalancerFactory
from a3sgw.service.backend import Backend

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["STRATEGIES", "RoundRobin", "RoundRobinFactory"]


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
        chosen = candidates[0]
        for candidate in candidates:
            if order[candidate] > self._last:
                chosen = candidate
                break
        self._last = order[chosen]
        return chosen


@implementer(IBalancerFactory)
class RoundRobinFactory:
    """
    Builds `round-robin`, the default.
    """

    strategy = "round-robin"

    def build(self, backends: Sequence[Backend]) -> RoundRobin:
        """
        Return a balancer that begins with the first backend.
        """
        return RoundRobin(backends)


STRATEGIES = {factory.strategy: factory for factory in (RoundRobinFactory(),)}
