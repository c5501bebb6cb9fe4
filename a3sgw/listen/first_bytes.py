"""
A connection of which the first bytes decide what becomes of it.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from a3sgw.interfaces import IConnection, IReceiver
from a3sgw.net.caller import Caller

__all__ = ["FirstBytes"]


@implementer(IConnection, IReceiver)
class FirstBytes:
    """
    Keeps what arrives in `pending`, for at most `timeout` seconds. Whoever inherits looks at it in `look`, and hands the connection over or
    closes it; it also bounds how much that may be.
    """

    __slots__ = ("caller", "door", "pending", "stream")

    def __init__(self, door: Any, stream: Any, caller: Caller, timeout: float) -> None:
        self.door = door
        self.stream = stream
        self.caller = caller
        self.pending = b""
        stream.receiver = self
        stream.deadline = stream.now() + timeout

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} of {self.caller.address.decode()}, {len(self.pending)} bytes>"

    def look(self) -> None:
        """
        More has arrived.
        """
        raise NotImplementedError

    # -- what the stream reports

    def data_received(self, data: bytes) -> None:
        """
        Keep it, and look.
        """
        self.pending += data
        self.look()

    def eof_received(self) -> None:
        """
        The peer only wanted to know whether there is anybody, or leaves before it has said enough.
        """
        self.stream.close()

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The peer is gone, or was sent away.
        """
        self.door.connection_ended(self)

    def stream_congested(self) -> None:
        """
        Last words are short.
        """

    def stream_drained(self) -> None:
        """
        Last words are short.
        """

    def deadline_passed(self) -> None:
        """
        The peer has had its time.
        """
        self.stream.close()

    # -- what the door calls

    def exchange_count(self) -> int:
        """
        Return 0: nothing has begun.
        """
        return 0

    def drain(self) -> None:
        """
        Wait no longer than for somebody who has just been let in.
        """
        self.stream.deadline = min(self.stream.deadline, self.stream.now() + self.door.GRACE_SECONDS)

    def stop(self) -> None:
        """
        Send the peer away.
        """
        self.stream.close()
