"""
Keep what lives long out of the garbage collector's sight.

Configuration, generations and code live until a reload replaces them or the process ends, so looking through them only lengthens pauses.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

__all__ = ["SettledMemory"]


class SettledMemory:
    """
    What `settle` has taken out of the collector's sight in this process, whatever was out of sight before included.

    `later` calls what it is given when others have had a turn; without it nobody waits for one.
    """

    LOOK_EVERY: Final = 100
    """After how many calls of `settle` is counted how much there is, which takes 5 ms for the 70,000 objects of a small configuration."""

    def __init__(self, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        self._later = later
        self._count = gc.get_freeze_count()
        self._calls = 0

    def settle(self) -> None:
        """
        Take everything that lives now out of sight, and let the collector look less often.

        It takes as long as looking through what has come since the last call. What was taken out of sight before is looked at again only if
        that has become twice as much, because it takes 70 ms for 1,000 routers. It hardly comes to that: what a reload replaces is freed
        without anybody looking, as long as it does not refer to itself.
        """
        if self._later is None:
            self._settle()
        else:
            self._later(self._settle)

    def _settle(self) -> None:
        self._calls += 1
        if self._count and not self._calls % self.LOOK_EVERY and gc.get_freeze_count() > 2 * self._count:
            gc.unfreeze()
            self._count = 0
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        if not self._count:
            self._count = gc.get_freeze_count()
