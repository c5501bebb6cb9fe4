"""
Let the share of a new or recovered server grow slowly.

A server that has just started has cold caches and few connections; its whole share at once may push it over. So its weight is multiplied
by a factor that grows with the time for which it has been usable, evenly, from a tenth to one: what Envoy calls slow start, with an
aggression of 1 and a minimum of 10 %. If all servers are equally new the factors cancel out.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LEAST_FACTOR", "refresh_interval", "slow_start_factor"]

LEAST_FACTOR: Final = 0.1
"""A share that began at nothing would never warm anything up."""

_STEPS: Final = 32
_SHORTEST_STEP: Final = 0.05


def slow_start_factor(age: float, window: float) -> float:
    """
    Return what to multiply the weight of a server by that has been usable for `age` seconds, if slow start takes `window` seconds.
    """
    if age >= window:
        return 1.0
    return max(age / window, LEAST_FACTOR)


def refresh_interval(window: float) -> float:
    """
    Return after how many seconds weights should be looked at again while servers warm up: nobody sees finer steps than these.
    """
    return max(window / _STEPS, _SHORTEST_STEP)
