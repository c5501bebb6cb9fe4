"""
Watch every deadline with one sweep.

A timed call per request costs more than parsing the request. Streams therefore only carry a stamp, `deadline`, and this sweep looks at all
of them twice a second; a deadline is met up to half a second late, which no timeout of the gateway minds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.logger import Logger

__all__ = ["NEVER", "Deadlines"]

NEVER: Final = float("inf")


class _Watched(Protocol):
    deadline: float

    def deadline_passed(self) -> None: ...


class Deadlines:
    """
    The set of everything that has a deadline.

    `add` and `discard` what is watched; `seconds` is the clock the stamps are in. When a deadline has passed it is set to `NEVER` and
    `deadline_passed` is called.
    """

    INTERVAL: Final = 0.5
    _log = Logger()

    def __init__(self, reactor: Any, seconds: Callable[[], float]) -> None:
        self._reactor = reactor
        self.seconds = seconds
        self._watched: set[_Watched] = set()
        self.add = self._watched.add
        self.discard = self._watched.discard
        self._call: Any = None

    def start(self) -> None:
        """
        Begin sweeping.
        """
        self._call = self._reactor.callLater(self.INTERVAL, self._sweep)

    def stop(self) -> None:
        """
        Stop sweeping.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def __len__(self) -> int:
        return len(self._watched)

    def watched(self) -> list[Any]:
        """
        Return everything that is watched now.
        """
        return list(self._watched)

    def _sweep(self) -> None:
        self._call = self._reactor.callLater(self.INTERVAL, self._sweep)
        now = self.seconds()
        for watched in [each for each in self._watched if each.deadline <= now]:
            # An earlier one of this sweep may have moved or discarded it.
            if watched.deadline <= now and watched in self._watched:
                self._tell(watched)

    def _tell(self, watched: _Watched) -> None:
        watched.deadline = NEVER
        try:
            watched.deadline_passed()
        except Exception:
            self._log.failure("a deadline could not be enforced on {watched!r}", watched=watched)

    def close(self) -> None:
        """
        Stop sweeping for good; what is still watched has its time cut short.
        """
        self.stop()
        for watched in list(self._watched):
            if watched in self._watched:
                self._tell(watched)
