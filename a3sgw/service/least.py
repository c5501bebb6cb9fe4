"""
Find the least of many loads that change all the time.

`Scan` looks at every contender, which is quickest for a few. `LoadIndex` keeps a heap for many, in which a contender's entry may be too low
but not too high: when load grows nothing need be done, because the entry is corrected when it comes to the top; when it falls, whoever
changes it says so through `Backend.load_changed`. If somebody forgets, a server gets less than it could take for a while, nothing worse.
Equals take turns in both.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import Final, Protocol

from a3sgw.service.backend import Backend
from a3sgw.service.follow import follow
from a3sgw.service.roster import Turn

__all__ = ["FEW", "Contender", "Field", "LoadIndex", "Scan", "make_field"]

FEW: Final = 16
"""How many contenders are looked at one by one."""


class Contender(Protocol):
    """
    One backend in a competition for the next exchange.
    """

    @property
    def backend(self) -> Backend:
        """
        Who would get it.
        """

    def load(self, more: int) -> float:
        """
        Return how loaded the backend would be with `more` exchanges in flight besides those it has; the least wins.
        """


class Field(Protocol):
    """
    Contenders, in a form that makes the choice quick.
    """

    def choose(self) -> Backend:
        """
        Return the least loaded.
        """


class Scan:
    """
    A few contenders. `turn` says who comes first among equals.
    """

    __slots__ = ("_begin", "_round", "_size", "_turn")

    def __init__(self, contenders: Sequence[Contender], turn: Turn) -> None:
        self._turn = turn
        self._size = len(contenders)
        # Twice, so that a round from anywhere is one slice.
        self._round = (*contenders, *contenders)
        self._begin = turn.begin([contender.backend for contender in contenders])

    def choose(self) -> Backend:
        """
        Return the least loaded backend.
        """
        begin = self._begin
        ring = self._round[begin : begin + self._size]
        best = ring[0]
        least = inf
        for contender in ring:
            load = contender.load(1)
            if load < least:
                least = load
                best = contender
        self._begin = (begin + ring.index(best) + 1) % self._size
        backend = best.backend
        self._turn.took(backend)
        return backend


class LoadIndex:
    """
    Many contenders, in a heap of entries: the load, a number that grows with each entry, so that who has waited longest is the first of
    equals, and the contender's place. Only the entry with the number in `_current` counts.
    """

    __slots__ = ("__weakref__", "_contenders", "_current", "_heap", "_loads", "_next_number", "_places", "_turn")

    def __init__(self, contenders: Sequence[Contender], turn: Turn) -> None:
        backends = [contender.backend for contender in contenders]
        begin = turn.begin(backends)
        self._turn = turn
        self._contenders = (*contenders[begin:], *contenders[:begin])
        self._places = {contender.backend: place for place, contender in enumerate(self._contenders)}
        self._loads = [contender.load(1) for contender in self._contenders]
        self._next_number = size = len(contenders)
        self._current = list(range(size))
        self._heap = list(zip(self._loads, range(size), range(size), strict=True))
        heapify(self._heap)
        follow(backends, self)

    def choose(self) -> Backend:
        """
        Return the least loaded backend.
        """
        heap = self._heap
        current = self._current
        while True:
            known, number, place = heap[0]
            if number != current[place]:
                heappop(heap)
                continue
            contender = self._contenders[place]
            load = contender.load(1)
            is_least = load <= known
            if is_least:
                # As it will be when the exchange has begun.
                load = contender.load(2)
            self._loads[place] = load
            current[place] = number = self._next_number
            self._next_number = number + 1
            heapreplace(heap, (load, number, place))
            if is_least:
                backend = contender.backend
                self._turn.took(backend)
                return backend

    def load_changed(self, backend: Backend) -> None:
        """
        Take note of the load of `backend`, if it fell.
        """
        place = self._places[backend]
        load = self._contenders[place].load(1)
        if load >= self._loads[place]:
            return
        self._loads[place] = load
        current = self._current
        current[place] = number = self._next_number
        self._next_number = number + 1
        heap = self._heap
        heappush(heap, (load, number, place))
        if len(heap) > 4 * len(current):
            # Most of them do not count any more.
            heap[:] = [entry for entry in heap if current[entry[2]] == entry[1]]
            heapify(heap)


def make_field(contenders: Sequence[Contender], turn: Turn) -> Field:
    """
    Return the contenders in the form that suits their number.
    """
    return Scan(contenders, turn) if len(contenders) <= FEW else LoadIndex(contenders, turn)
