"""
Long work in steps, between which others have their turn: generators that yield after each step and return what they come to.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

__all__ = ["finish"]

T = TypeVar("T")


def finish(steps: Generator[None, None, T]) -> T:
    """
    Go through all steps in one go, and return what they come to.
    """
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
