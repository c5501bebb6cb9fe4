"""
The server with the fewest exchanges in flight for its weight.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from a3sgw.interfaces import IBalancer
from a3sgw.service.backend import Backend
from a3sgw.service.least import Field, Scan, make_field
from a3sgw.service.roster import BalancerSettings, Clockwork, Roster, Standing, Turn

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["LeastConnections"]


class _Busy:
    """
    A backend whose load is its exchanges in flight, with the one in question, by its weight: what every one of them has to share.
    """

    __slots__ = ("_weight", "backend")

    def __init__(self, backend: Backend, weight: float) -> None:
        self.backend = backend
        self._weight = weight

    def load(self, more: int) -> float:
        return (self.backend.in_flight + more) / self._weight


@implementer(IBalancer)
class LeastConnections:
    """
    Fewest in flight, in proportion to weights; equals take turns.
    """

    __slots__ = ("_standing", "_turn")

    def __init__(self, backends: Sequence[Backend], settings: BalancerSettings, clockwork: Clockwork) -> None:
        self._turn = Turn(backends)
        self._standing: Standing[Field] = Standing(self._build, settings.slow_start, clockwork.seconds, self._build_once)

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return the least busy candidate.
        """
        return self._standing.get(candidates).choose()

    def _build(self, roster: Roster) -> Field:
        return make_field(_contenders(roster), self._turn)

    def _build_once(self, roster: Roster) -> Field:
        return Scan(_contenders(roster), self._turn)


def _contenders(roster: Roster) -> list[_Busy]:
    return [_Busy(backend, weight) for backend, weight in zip(roster.members, roster.weights, strict=True)]
