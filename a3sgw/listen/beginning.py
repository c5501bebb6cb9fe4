"""
How the connections of a door begin.

A chain of steps is decided on when a door is planned. Each looks at what comes first, and hands the connection over to the next, which
serves it in the end: HTTP, or a tunnel. Where nothing stands before HTTP/1, there is just the one step here, and no other work.
"""

from __future__ import annotations

from typing import Any, Final

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning
from a3sgw.net.caller import Caller
from a3sgw.proxy.http1_server import Http1Server
from a3sgw.refusal import refusal
from a3sgw.wire.http1 import field_block, status_line

__all__ = ["Http1Beginning"]


def _goodbye(outcome: Outcome) -> bytes:
    response = refusal(outcome, b"")
    return b"%b\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status_line(response.status),
        field_block(response.fields),
        len(response.body),
        response.body,
    )


_GOODBYES: Final = {outcome.word: _goodbye(outcome) for outcome in Outcome if outcome.status is not None}


@implementer(IBeginning)
class Http1Beginning:
    """
    The last step where HTTP/1 is spoken.
    """

    def begin(self, door: Any, stream: Any, caller: Caller) -> Http1Server:
        """
        Serve the connection from its next byte.
        """
        stream.receiver = connection = Http1Server(stream, door, caller)
        return connection

    def goodbye(self, outcome: Outcome) -> bytes:
        """
        Answer before anything was asked.
        """
        # A plugin may give an outcome that has no answer.
        return _GOODBYES.get(outcome.word, b"")
