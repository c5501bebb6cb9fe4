"""
What the session of a client's connection reports, stream by stream.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from a3sgw.proxy.http2_connect import Http2Connect
from a3sgw.proxy.http2_stream import STREAM_SLOW, Http2Stream
from a3sgw.wire.http2 import ErrorCode, Fields

if TYPE_CHECKING:
    from a3sgw.proxy.http2_server import Http2Server

__all__ = ["QUEUED_BYTES", "Http2Listener"]

QUEUED_BYTES: Final = 1 << 22
"""How much may wait to be sent on a connection. Beyond this no further stream is taken, and those that are there are held."""
_CONNECT: Final = (b":method", b"CONNECT")


class Http2Listener:
    """
    The listener of one session. It knows the streams, by their numbers.
    """

    __slots__ = ("_server", "streams")

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self.streams: dict[int, Http2Stream] = {}

    def head_received(self, stream_id: int, fields: Fields, ended: bool) -> None:
        """
        A request arrived.
        """
        server = self._server
        if server.session.queued > QUEUED_BYTES:
            # It was not looked at, and may be sent again.
            server.session.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        stream: Http2Stream
        if not ended and _CONNECT in fields[:5]:
            stream = Http2Connect(server, stream_id)
        else:
            stream = Http2Stream(server, stream_id, request_ended=ended)
        self.streams[stream_id] = stream
        server.guard(stream, stream.head_received, fields, ended)

    def interim_received(self, stream_id: int, fields: Fields) -> None:
        """
        Clients send none.
        """

    def data_received(self, stream_id: int, piece: bytes, ended: bool) -> None:
        """
        The next piece of a request's body arrived.
        """
        stream = self.streams.get(stream_id)
        if stream is None:
            self._server.session.credit(stream_id, len(piece))
        else:
            self._server.guard(stream, stream.data_received, piece, ended)

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        """
        A request ended with trailers.
        """
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._server.guard(stream, stream.trailers_received, fields)

    def stream_closed(self, stream_id: int, code: int) -> None:
        """
        A stream is gone.
        """
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._server.stream_closed(stream, code)

    def stream_congested(self, stream_id: int) -> None:
        """
        The client's window is closed.
        """
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._server.guard(stream, stream.slow, STREAM_SLOW)

    def stream_drained(self, stream_id: int) -> None:
        """
        The client's window was opened again, wide enough.
        """
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._server.guard(stream, stream.drained, STREAM_SLOW)

    def settings_received(self) -> None:
        """
        Nothing here depends on them.
        """

    def going_away(self, last_stream_id: int, code: int) -> None:
        """
        The client opens no further streams; the session ends with the last.
        """

    def pong_received(self) -> None:
        """
        The client knows that it should not open streams any more.
        """
        self._server.session.go_away()

    def fault_found(self, code: int, reason: str, *, is_fatal: bool) -> None:
        """
        The client broke the protocol.
        """
        self._server.fault_found(code, reason, is_fatal=is_fatal)

    def session_closed(self, code: int) -> None:
        """
        The session is over.
        """
        self._server.session_closed()
