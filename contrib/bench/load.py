"""
What a load generator counted.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Load"]


@dataclass(frozen=True)
class Load:
    """
    What the load generator counted. Latencies are seconds.
    """

    seconds: float
    requests: int
    bytes: int
    p50: float
    p99: float
