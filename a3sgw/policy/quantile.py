"""
Estimate how long most requests take, from a stream of times and in bounded memory.

For hedging: a second request is worth its price only when the first has taken longer than most do, and what most do changes over the day.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import Final

__all__ = ["LatencyQuantile"]

_ERROR: Final = 0.04
_RATIO: Final = (1 + _ERROR) / (1 - _ERROR)
_LOG_RATIO: Final = math.log(_RATIO)
_SHORTEST: Final = 1e-4
_LONGEST: Final = 1e3
_BUCKETS: Final = math.ceil(math.log(_LONGEST / _SHORTEST) / _LOG_RATIO)
_RESCALE_AFTER: Final = 64.0


class LatencyQuantile:
    """
    Quantiles of recent latencies, right within 5 percent from 0.1 milliseconds to 1000 seconds; what lies outside counts as the bound.

    Times fall into buckets each of which is a constant factor wider than the one before, and the middle of a bucket is off by the same
    part everywhere (C. Masson et al., "DDSketch", 2019). Older times count less: half as much after each `half_life` seconds. Rather than
    shrinking what is there, each new time weighs more than the one before (G. Cormode et al., "Forward decay", 2009), and now and then all
    is scaled back.

    There is no answer while the times, as far as they still count, are fewer than `minimum`, or so few that the quantile would be the
    largest of them; so a service that gets few requests per half-life has no quantile, and one that has been idle soon has none either.
    """

    __slots__ = ("_half_life", "_minimum", "_origin", "_weights")

    def __init__(self, *, half_life: float = 60.0, minimum: int = 50) -> None:
        if half_life <= 0 or minimum < 1:
            raise ValueError(f"half_life must be positive and minimum at least 1, but they are {half_life:g} and {minimum}")
        self._half_life = half_life
        self._minimum = minimum
        # A time observed `n` half-lives after the origin weighs `2 ** n`.
        self._origin = 0.0
        self._weights = [0.0] * _BUCKETS

    def observe(self, seconds: float, now: float) -> None:
        """
        Count one latency. Takes constant time.
        """
        age = (now - self._origin) / self._half_life
        if age > _RESCALE_AFTER:
            self._rescale(now, age)
            age = 0.0
        if seconds > _SHORTEST:
            bucket = min(int(math.log(min(seconds, _LONGEST) / _SHORTEST) / _LOG_RATIO), _BUCKETS - 1)
        else:
            bucket = 0
        self._weights[bucket] += 2.0**age

    def quantile(self, q: float, now: float) -> float | None:
        """
        Return the time in seconds that the part `q` of latencies does not exceed, or `None` if too few are known.

        `q` lies between 0 and 1, both excluded. This looks at every bucket: ask once for many requests if the answer may be that old.
        """
        sums = list(accumulate(self._weights))
        known = sums[-1] * 2.0 ** -((now - self._origin) / self._half_life)
        # Rounding may leave the sums a trifle short of whole counts.
        if known * (1 + 1e-9) < max(self._minimum, 1 / (1 - q)):
            return None
        bucket = bisect_left(sums, sums[-1] * q * (1 - 1e-9))
        return _SHORTEST * _RATIO**bucket * (1 + _ERROR)

    def _rescale(self, now: float, age: float) -> None:
        factor = 2.0**-age
        self._weights = [weight * factor for weight in self._weights]
        self._origin = now
