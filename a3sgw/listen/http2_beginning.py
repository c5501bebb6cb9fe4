"""
How HTTP/2 begins: because both sides agreed on it under TLS, or because the client knew before (RFC 9113 section 3).

On plain text it shares a port with HTTP/1. Only the first bytes of a connection tell; whatever does not begin as HTTP/2 is HTTP/1, as which
the connection counts until then. `Upgrade: h2c`, which RFC 9113 has given up, is not taken for anything.
"""

from __future__ import annotations

from typing import Any, Final

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning, IReceiver
from a3sgw.listen.beginning import Http1Beginning
from a3sgw.net.caller import Caller
from a3sgw.proxy.http1_server import Http1Server
from a3sgw.proxy.http2_server import Http2Server
from a3sgw.wire.http2 import PREFACE

__all__ = ["Http2Beginning", "HttpBeginning"]

_P: Final = 80


@implementer(IBeginning)
class Http2Beginning:
    """
    The last step where HTTP/2 is spoken, and nothing else.
    """

    def begin(self, door: Any, stream: Any, caller: Caller) -> Http2Server:
        """
        Serve the connection from its next byte.
        """
        stream.receiver = connection = Http2Server(stream, door, caller)
        return connection

    def goodbye(self, outcome: Outcome) -> bytes:
        """
        There are no words before anything was asked.
        """
        return b""


@implementer(IBeginning)
class HttpBeginning(Http1Beginning):
    """
    The last step where the client begins with HTTP/1 or HTTP/2 as it likes.
    """

    def begin(self, door: Any, stream: Any, caller: Caller) -> Http1Server:
        """
        Serve the connection as HTTP/1, unless its first bytes say otherwise.
        """
        server = super().begin(door, stream, caller)
        stream.receiver = FirstBytesOfHttp(server, door, stream, caller)
        return server


_HTTP2: Final = Http2Beginning()


@implementer(IReceiver)
class FirstBytesOfHttp:
    """
    Receives what comes first, and passes on all that it does not keep.
    """

    __slots__ = ("_caller", "_door", "_pending", "_server", "_stream")

    def __init__(self, server: Http1Server, door: Any, stream: Any, caller: Caller) -> None:
        self._server = server
        self._door = door
        self._stream = stream
        self._caller = caller
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        """
        Decide, or wait for more where the beginning could become either.
        """
        if data[0] == _P or self._pending:
            data = self._pending + data
            if data.startswith(PREFACE[: len(data)]):
                if len(data) < len(PREFACE):
                    if not self._pending:
                        self._stream.deadline = self._stream.now() + self._door.entrypoint.timeouts.request_header
                    self._pending = data
                else:
                    self._door.hand_over(self._server, _HTTP2, self._stream, self._caller, data)
                return
        self._stream.receiver = self._server
        self._server.data_received(data)

    def eof_received(self) -> None:
        """
        The client leaves.
        """
        self._server.eof_received()

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The connection is gone.
        """
        self._server.stream_lost(error)

    def stream_congested(self) -> None:
        """
        Nothing was written yet.
        """

    def stream_drained(self) -> None:
        """
        Nothing was written yet.
        """

    def deadline_passed(self) -> None:
        """
        The client took too long. What it has said so far is as good a request of HTTP/1 as any.
        """
        self._stream.receiver = self._server
        if self._pending:
            self._server.data_received(self._pending)
        self._server.deadline_passed()
