"""
Machines whose memory several processes share.

A machine of `policy` remembers some numbers. Here they lie in a region of the arena as well, beside a version that grows with each change.
A worker that sees its own version there knows that what its machine remembers is still so, without a lock. For a change it takes the lock,
lets its machine remember what the region says, does what a machine of one process does, and writes that back. So nothing of what a machine
decides is written twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from a3sgw.policy.arena import Arena, Region

__all__ = ["Lock", "SharedMachine"]

T = TypeVar("T")


class Lock:
    """
    The lock of a region. Whoever has it may take it once more.
    """

    __slots__ = ("_depth", "_region")

    def __init__(self, region: Region) -> None:
        self._region = region
        self._depth = 0

    def __enter__(self) -> None:
        if not self._depth:
            self._region.lock()
        self._depth += 1

    def __exit__(self, *ignored: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._region.unlock()


class SharedMachine:
    """
    What a shared machine adds to one that has `remembered` and `remember`. All zeros must be what it remembers when it is new.
    """

    _lock: Lock
    _region: Region
    _seen: float
    _view: Any

    def remembered(self) -> list[float]:
        """
        Return all that it remembers: as so many numbers every time.
        """
        raise NotImplementedError

    def remember(self, numbers: Sequence[float]) -> None:
        """
        Remember that instead.
        """
        raise NotImplementedError

    def _share(self, arena: Arena, name: object, lock: Lock | None = None) -> None:
        """
        Share from now on, with others of the name. Machines that look at each other must have one `lock`.
        """
        size = 8 * (1 + len(self.remembered()))
        self._region = region = arena.take(name, size)
        self._view = region.view(0, size, "d")
        self._lock = Lock(region) if lock is None else lock
        self._seen = 0.0
        self._refresh()

    def _within(self, operation: Callable[[], T]) -> T:
        """
        Do something with what all remember.
        """
        with self._lock:
            self._load()
            result = operation()
            self._seen += 1
            self._view[1:] = memoryview(array("d", self.remembered()))
            # Last: whoever sees it sees all.
            self._view[0] = self._seen
            return result

    def _refresh(self) -> None:
        """
        Remember what another has changed.
        """
        if self._view[0] != self._seen:
            with self._lock:
                self._load()

    def _load(self) -> None:
        view = self._view
        if view[0] != self._seen:
            self._seen, *numbers = view
            self.remember(numbers)
