"""
Keep retries from making an outage worse.

A limit per request does not: when everything fails, three retries each are four times the load, on servers that already cannot bear it.
A budget does. Retries may be a part of the requests that come, so an outage is amplified by that part and no more, while the few failures
of good times are still all tried again. The idea is that of Finagle's `RetryBudget` and of Envoy's `retry_budget`; the defaults of Finagle
and linkerd are 20 percent and 10 a second in windows of 10 seconds.
"""

from __future__ import annotations

import math
from typing import Final

from a3sgw.policy.window import SlidingCount

__all__ = ["RetryBudget"]

_ROUNDING: Final = 1e-6


class RetryBudget:
    """
    Of the requests of the last `window` seconds `percent` percent (20.0 is a fifth) may be retried, and `min_per_second` more a second in
    any case, without which a service with few requests would never see a retry.

    What holds: in the first `t` seconds, with `n` requests, there are at most `percent / 100 * n + min_per_second * (t + window)` retries.
    For go back from the last retry by one window, from the last retry before that by another, and so on: these windows do not overlap, hold
    every retry, and each obeys the rule. That they are up to a tenth longer than `window`, see `SlidingCount`, changes nothing.

    `request` counts a request at the moment it is given; its retries are not requests.
    """

    __slots__ = ("_floor", "_requests", "_retries", "min_per_second", "percent", "request")

    def __init__(self, percent: float, min_per_second: float, window: float = 10.0) -> None:
        for name, number in [("percent", percent), ("min_per_second", min_per_second)]:
            if not (number >= 0 and math.isfinite(number)):
                raise ValueError(f"a retry budget with {name} {number}; give 0 or more")
        self.percent = percent
        self.min_per_second = min_per_second
        self._requests = SlidingCount(window)
        # Every request is counted: not by way of a method here.
        self.request: Final = self._requests.add
        self._retries = SlidingCount(window)
        # In hundredths of a retry, so that a percentage without fraction is counted without rounding.
        self._floor = min_per_second * window * 100 + _ROUNDING

    def __repr__(self) -> str:
        return f"<RetryBudget {self.percent:g} percent and {self.min_per_second:g}/s: {self._retries} of {self._requests}>"

    def try_spend(self, now: float) -> bool:
        """
        Tell whether one retry may be made now, and count it if so.
        """
        if (self._retries.total(now) + 1) * 100 > self.percent * self._requests.total(now) + self._floor:
            return False
        self._retries.add(now)
        return True
