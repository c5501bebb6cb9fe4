"""
Time one piece of the data path.

A piece is called with a thousand inputs that differ, as the requests of a gateway do, and is first seen to give the right answer. The
processor time of the best of several repetitions counts, because noise only ever adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["INPUTS", "Piece", "Prepared", "time_piece"]

INPUTS = 1000

Prepared = tuple[Callable[[Any], Any], Sequence[Any], Callable[[Any], bool]]
"""The function to time, its inputs, and what a result must satisfy."""


@dataclass(frozen=True)
class Piece:
    """
    One piece. `without` prepares the same work without the piece, for one that cannot be called alone; its time is taken off.
    """

    name: str
    prepare: Callable[[], Prepared]
    without: Callable[[], Prepared] | None = None


class _Run:
    """
    A prepared function that was seen to be right, and how often it goes through its inputs in a measurement.
    """

    def __init__(self, name: str, prepared: Prepared, clock: Callable[[], float]) -> None:
        self._function, self._inputs, is_right = prepared
        self._clock = clock
        for given in self._inputs:
            if not is_right(self._function(given)):
                raise AssertionError(f"{name}: wrong result for {given!r:.200}")
        self._rounds = 1
        while self._time() < 0.02:
            self._rounds *= 2

    def _time(self) -> float:
        function, inputs = self._function, self._inputs
        began = self._clock()
        for _ in range(self._rounds):
            for given in inputs:
                function(given)
        return self._clock() - began

    def seconds_per_call(self) -> float:
        return self._time() / (self._rounds * len(self._inputs))


def time_piece(piece: Piece, repetitions: int, clock: Callable[[], float] = time.process_time) -> list[float]:
    """
    Return the seconds of one call in each repetition, in rising order. Raises `AssertionError` if a result is wrong.

    The loop itself is part of it, some 20 ns a call, unless the piece is a difference. What a difference is reckoned from is the best of
    the repetitions without the piece, which take turns with those with it.
    """
    run = _Run(piece.name, piece.prepare(), clock)
    if piece.without is None:
        return sorted(run.seconds_per_call() for _ in range(repetitions))
    other = _Run(f"{piece.name}, without it", piece.without(), clock)
    pairs = [(run.seconds_per_call(), other.seconds_per_call()) for _ in range(repetitions)]
    least = min(without for _, without in pairs)
    return sorted(whole - least for whole, _ in pairs)
