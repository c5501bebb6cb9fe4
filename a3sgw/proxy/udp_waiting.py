"""
What waits of one UDP client while the name of its server is looked up, and whom its session tells.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

__all__ = ["MAX_KEPT_BYTES", "MAX_KEPT_DATAGRAMS", "Keeper", "Waiting"]

MAX_KEPT_DATAGRAMS: Final = 16
MAX_KEPT_BYTES: Final = 131072
"""So much of one client waits at most."""


class Keeper(Protocol):
    """
    Whoever let a session in: a door.
    """

    def session_ended(self, session: Any) -> None:
        """
        It is over.
        """

    def count_dropped(self, reason: str, count: int = 1) -> None:
        """
        Count datagrams that went nowhere.
        """

    def may_keep(self, size: int) -> bool:
        """
        Say whether so many bytes more may wait, of all clients together, and count them.
        """

    def kept_no_more(self, size: int) -> None:
        """
        So many bytes wait no longer.
        """


class Waiting:
    """
    The datagrams of one client that wait, in order.
    """

    __slots__ = ("_datagrams", "_keeper", "_size")

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._datagrams: list[bytes] = []
        self._size = 0

    def add(self, data: memoryview | bytes) -> bool:
        """
        Keep a copy of a datagram; tell whether there was room for it.
        """
        size = len(data)
        is_full = len(self._datagrams) >= MAX_KEPT_DATAGRAMS or self._size + size > MAX_KEPT_BYTES
        if is_full or not self._keeper.may_keep(size):
            return False
        self._size += size
        self._datagrams.append(bytes(data))
        return True

    def take(self) -> list[bytes]:
        """
        Return everything, and keep nothing.
        """
        datagrams, self._datagrams = self._datagrams, []
        size, self._size = self._size, 0
        self._keeper.kept_no_more(size)
        return datagrams
