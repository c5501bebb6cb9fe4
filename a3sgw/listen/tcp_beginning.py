"""
How connections over tcp entrypoints begin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning
from a3sgw.net.caller import Caller
from a3sgw.proxy.tcp_connection import TcpConnection

__all__ = ["TcpBeginning"]


@implementer(IBeginning)
class TcpBeginning:
    """
    The last step where connections are passed on. `later` calls something in the reactor's next turn.
    """

    def __init__(self, later: Callable[..., None]) -> None:
        self._later = later

    def begin(self, door: Any, stream: Any, caller: Caller) -> TcpConnection:
        """
        Serve the connection; it may need nothing of what will arrive.
        """
        stream.receiver = connection = TcpConnection(stream, door, door.entrypoint, caller)
        self._later(connection.begin)
        return connection

    def goodbye(self, outcome: Outcome) -> bytes:
        """
        There are no words that every protocol would understand.
        """
        return b""
