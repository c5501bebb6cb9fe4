"""
`example-bursts`: a strategy for servers that answer better when they are asked several times in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from twisted.plugin import IPlugin
from zope.interface import implementer

from a3sgw.interfaces import IBalancer, IBalancerFactory

if TYPE_CHECKING:
    from a3sgw.observe.record import Record
    from a3sgw.service.backend import Backend
    from a3sgw.service.roster import BalancerSettings

__all__ = ["Bursts", "BurstsFactory", "factory"]


@implementer(IBalancer)
class Bursts:
    """
    Each server in turn, for sixteen requests.
    """

    LENGTH: Final = 16

    def __init__(self) -> None:
        self._current: Backend | None = None
        self._left = 0

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return the server whose burst it is, or begin the burst of the next one.
        """
        current = self._current
        if current in candidates:
            if self._left:
                self._left -= 1
                return current
            at = (candidates.index(current) + 1) % len(candidates)
        else:
            at = 0
        self._current = candidates[at]
        self._left = self.LENGTH - 1
        return self._current


@implementer(IPlugin, IBalancerFactory)
class BurstsFactory:
    """
    What `strategy = "example-bursts"` means.
    """

    strategy = "example-bursts"

    def build(self, backends: Sequence[Backend], settings: BalancerSettings) -> Bursts:
        """
        Return a balancer of its own for each service.
        """
        return Bursts()


factory = BurstsFactory()
