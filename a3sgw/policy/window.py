"""
Count what happened lately, in constant memory.

Time is cut into parts and each part has a number, so that counting costs the same however much happens. The price is that the window
slides by a part at a time: it holds everything of the last `seconds`, and up to a part more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["SlidingCount"]


class SlidingCount:
    """
    How many there were in the last `seconds`, to within one of `parts` equal parts of that time.

    `now` is in seconds of a monotonic clock; should it step back, what comes is counted as if it had stood.
    """

    __slots__ = ("_counts", "_part", "_parts_per_second", "_total", "seconds")

    def __init__(self, seconds: float, parts: int = 10) -> None:
        if not (seconds > 0 and math.isfinite(seconds)) or parts < 1:
            raise ValueError(f"a window of {seconds} seconds in {parts} parts; give a time above 0 and at least one part")
        self.seconds = seconds
        # One more than it has parts, because the present one has only begun.
        self._counts = [0] * (parts + 1)
        self._parts_per_second = parts / seconds
        self._part = 0
        self._total = 0

    def __repr__(self) -> str:
        return f"<SlidingCount {self._total} in {self.seconds:g} s>"

    def add(self, now: float) -> int:
        """
        Count one more and return how many there are.
        """
        part = int(now * self._parts_per_second)
        if part > self._part:
            self._slide(part)
        self._counts[self._part % len(self._counts)] += 1
        self._total += 1
        return self._total

    def total(self, now: float) -> int:
        """
        Return how many there are.
        """
        part = int(now * self._parts_per_second)
        if part > self._part:
            self._slide(part)
        return self._total

    def clear(self) -> None:
        """
        Forget all.
        """
        self._counts = [0] * len(self._counts)
        self._total = 0

    def remembered(self) -> list[float]:
        """
        Return all that it remembers, as so many numbers every time, for `remember`.
        """
        return [self._part, self._total, *self._counts]

    def remember(self, numbers: Sequence[float]) -> None:
        """
        Go on from what another remembered that was made like this one.
        """
        self._part, self._total, *self._counts = map(int, numbers)

    def _slide(self, part: int) -> None:
        counts = self._counts
        size = len(counts)
        if part - self._part >= size:
            self.clear()
        else:
            for passed in range(self._part + 1, part + 1):
                self._total -= counts[passed % size]
                counts[passed % size] = 0
        self._part = part
