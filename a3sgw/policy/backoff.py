"""
Wait longer after each failure, and not at the same time as everybody else.

Those who failed together come back together if they all wait equally long; the more of the pause is left to chance, the better they are
spread ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import math
from random import Random

__all__ = ["Backoff"]


class Backoff:
    """
    Pauses of up to `initial` seconds, then `multiplier` times as much for each further attempt, but never more than `maximum`.

    The pause before retry number `attempt`, from 1, is

        top = min(maximum, initial * multiplier ** (attempt - 1))
        top - jitter * top * u      with u uniform in [0, 1)

    so it is above `(1 - jitter) * top` and `top` at most: anything up to it with a `jitter` of 1.0 ("full"), its upper half with 0.5
    ("equal"), exactly `top` with 0.0. An `initial` of 0 is no pause at all. An `initial` above `maximum` counts as `maximum`.
    """

    __slots__ = ("_growths", "initial", "jitter", "maximum", "multiplier")

    def __init__(self, initial: float, maximum: float, multiplier: float = 2.0, jitter: float = 1.0) -> None:
        for name, number, least in [("initial", initial, 0.0), ("maximum", maximum, 0.0), ("multiplier", multiplier, 1.0)]:
            if not (number >= least and math.isfinite(number)):
                raise ValueError(f"a back-off with {name} {number}; give {least:g} or more")
        if not 0 <= jitter <= 1:
            raise ValueError(f"a back-off with jitter {jitter}; give a part from 0 to 1")
        self.initial = min(initial, maximum)
        self.maximum = maximum
        self.multiplier = multiplier
        self.jitter = jitter
        # After so many growths the maximum is reached for certain. To count on would overflow in an outage that is long enough.
        self._growths = 0
        if self.initial > 0 and multiplier > 1:
            self._growths = math.ceil((math.log(maximum) - math.log(self.initial)) / math.log(multiplier)) + 1

    def __repr__(self) -> str:
        return f"<Backoff {self.initial:g} to {self.maximum:g} s, times {self.multiplier:g}, jitter {self.jitter:g}>"

    def delay(self, attempt: int, chance: Random) -> float:
        """
        Return the seconds to wait before retry number `attempt`, from 1.
        """
        growths = min(attempt - 1, self._growths)
        top = min(self.maximum, self.initial * self.multiplier**growths)
        return top - self.jitter * top * chance.random()
