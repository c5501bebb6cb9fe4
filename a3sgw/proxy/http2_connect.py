"""
A WebSocket over HTTP/2 (RFC 8441): one stream of a connection stands in for a connection.

The client asks with an extended CONNECT, which the exchange sees as the handshake that it would be over HTTP/1.1: rules, middlewares and
backends are the same. When the answer is a 101, the client is told 200, and from then on a `Http2Pipe` looks to the tunnel, or to the
middleware, like the stream of a connection of the client's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from a3sgw.errors import Outcome
from a3sgw.message import ResponseHead
from a3sgw.net.deadline import NEVER
from a3sgw.proxy.date import date_line
from a3sgw.proxy.http2_stream import Http2Stream, RequestReader
from a3sgw.wire.http1 import status_line
from a3sgw.wire.http2 import ErrorCode, Fields, error_name
from a3sgw.wire.http2_head import read_connect_fields, response_fields

if TYPE_CHECKING:
    from a3sgw.proxy.http2_server import Http2Server

__all__ = ["Http2Connect", "Http2Pipe"]

_ONLY_HTTP1: Final = frozenset([b"upgrade", b"sec-websocket-accept"])


class Http2Connect(Http2Stream):
    """
    A stream on which a client wants to speak another protocol. Until it may, what it sends waits, within its window.
    """

    __slots__ = ("_ahead", "_has_ended", "_pipe", "_switch")

    def __init__(self, connection: Http2Server, stream_id: int) -> None:
        # As an exchange sees it, there is no body.
        super().__init__(connection, stream_id, request_ended=True)
        self._ahead = b""
        self._has_ended = False
        self._pipe: Http2Pipe | None = None
        self._switch: Any = None

    def __repr__(self) -> str:
        return f"<Http2Connect {self.stream_id} with {self.exchange!r}>"

    def head_received(self, fields: Fields, ended: bool, read: RequestReader = read_connect_fields) -> None:
        """
        Begin the exchange.
        """
        super().head_received(fields, True, read)

    def data_received(self, piece: bytes, ended: bool) -> None:
        """
        The client sent something in the other protocol.
        """
        if self._pipe is not None:
            self._pipe.data_received(piece, ended)
        elif self.exchange is None:
            self._connection.session.credit(self.stream_id, len(piece))
        else:
            self._ahead += piece
            self._has_ended = ended

    def trailers_received(self, fields: Fields) -> None:
        """
        They mean nothing in the other protocol, but its end.
        """
        self.data_received(b"", True)

    def hand_over(self, head: ResponseHead, switch: Any) -> tuple[Http2Pipe, bytes]:
        """
        Tell the client that it may go on, and give the stream to whoever speaks the other protocol; see `Http1Server.hand_over`.
        """
        connection = self._connection
        answer = ResponseHead(200, status_line(200))
        answer.fields = [field for field in head.fields if field[0] not in _ONLY_HTTP1]
        answer.has_date = head.has_date
        connection.session.send_head(self.stream_id, response_fields(answer, date_line()[6:]), False)
        connection.touch()
        self._switch = switch
        self._pipe = pipe = Http2Pipe(self, connection)
        ahead, self._ahead = self._ahead, b""
        connection.session.credit(self.stream_id, len(ahead))
        if self._has_ended:
            self._entrypoint.later(0, pipe.data_received, b"", True)
        return pipe, ahead

    def tunnel_ended(self) -> None:
        """
        What was handed over is gone.
        """
        self.exchange = None
        self._switch = None

    def _response_ended(self) -> None:
        # An answer like any other: whatever the client wanted to say is not wanted.
        self._request_ended = False
        super()._response_ended()

    def stop(self) -> None:
        """
        The gateway stops.
        """
        if self._switch is not None:
            self._switch.stop()
        else:
            super().stop()

    # -- what else the connection reports

    def slow(self, reason: int) -> None:
        """
        The client does not take what was sent.
        """
        was_slow = self._slow
        super().slow(reason)
        if not was_slow and self._pipe is not None:
            self._pipe.congested()

    def drained(self, reason: int) -> None:
        """
        One of the reasons is gone.
        """
        was_slow = self._slow
        super().drained(reason)
        if was_slow and not self._slow and self._pipe is not None:
            self._pipe.drained()

    def closed(self, code: int) -> None:
        """
        The stream is gone.
        """
        if self._pipe is None:
            super().closed(code)
        else:
            self._pipe.lost(ConnectionError(f"HTTP/2 {error_name(code)}") if code else None)

    def lost(self, outcome: Outcome) -> None:
        """
        The client is gone.
        """
        if self._pipe is None:
            super().lost(outcome)
        else:
            self.body_deadline = self.write_deadline = NEVER
            self._pipe.lost(ConnectionError(outcome.message))

    def check_time(self, now: float) -> None:
        """
        See whether one of the deadlines has passed; that of the pipe stands where that of a body would.
        """
        if self._pipe is not None and self.body_deadline <= now:
            self.body_deadline = NEVER
            self._pipe.deadline_passed()
        super().check_time(now)


class Http2Pipe:
    """
    A stream of HTTP/2, in the form of a stream of its own; see `net.stream.Stream`.
    """

    __slots__ = ("_connection", "_ended_here", "_ended_there", "_is_closing", "_is_lost", "_owed", "_pausers", "_stream", "now", "receiver")

    _log = Logger()

    def __init__(self, stream: Http2Connect, connection: Http2Server) -> None:
        self._stream = stream
        self._connection = connection
        self._pausers = 0
        self._owed = 0
        self._ended_here = self._ended_there = self._is_closing = self._is_lost = False
        self.now = connection.now
        self.receiver: Any = None

    def __repr__(self) -> str:
        return f"<Http2Pipe {self._stream.stream_id} of {self._connection.caller!r}>"

    # -- as a stream

    @property
    def deadline(self) -> float:
        """
        When the receiver wants to be told of the time.
        """
        return self._stream.body_deadline

    @deadline.setter
    def deadline(self, moment: float) -> None:
        self._stream.body_deadline = moment
        self._connection.watch(moment)

    @property
    def is_congested(self) -> bool:
        """
        Whether the client does not take what was written.
        """
        return bool(self._stream._slow)

    @property
    def unsent(self) -> int:
        """
        How many bytes were written which have not left yet.
        """
        return self._connection.session.queued_on(self._stream.stream_id)

    def hold(self, pauser: int) -> None:
        """
        Let the client's window run out, on behalf of `pauser`.
        """
        self._pausers |= pauser

    def free(self, pauser: int) -> None:
        """
        Withdraw `pauser`.
        """
        self._pausers &= ~pauser
        if not self._pausers and self._owed:
            owed, self._owed = self._owed, 0
            self._credit(owed)

    def _credit(self, amount: int) -> None:
        self._connection.session.credit(self._stream.stream_id, amount)
        self._connection.touch()

    def write(self, data: bytes) -> None:
        """
        Send `data` at the end of the current event. Ignored once the stream is closing.
        """
        if not self._ended_here and not self._is_lost:
            self._stream._given += len(data)
            self._connection.session.send_data(self._stream.stream_id, data, False)
            self._connection.touch()

    def end_writing(self) -> None:
        """
        Tell the client, behind everything written so far, that nothing more will come.
        """
        if not self._ended_here and not self._is_lost:
            self._ended_here = True
            self._connection.session.send_data(self._stream.stream_id, b"", True)
            self._connection.touch()

    def close(self, *, linger: bool = False) -> None:
        """
        Close when everything written has been taken. What the client still sends is dropped.
        """
        if self._is_closing or self._is_lost:
            return
        self._is_closing = True
        self._pausers = 0
        self.end_writing()
        if not self._ended_there:
            self._connection.session.reset_when_sent(self._stream.stream_id, ErrorCode.NO_ERROR)
        self._connection.response_ended(self._stream)

    def abort(self) -> None:
        """
        Reset the stream, so that the client notices.
        """
        if not self._is_lost:
            self._connection.session.reset(self._stream.stream_id, ErrorCode.CANCEL)
            self._connection.touch()
            self.lost(None)

    # -- what the stream reports

    def data_received(self, piece: bytes, ended: bool) -> None:
        """
        The client sent something.
        """
        if self._is_closing or self._is_lost:
            self._credit(len(piece))
            self._ended_there = self._ended_there or ended
            return
        try:
            if piece:
                self.receiver.data_received(piece)
                if self._pausers:
                    self._owed += len(piece)
                else:
                    self._credit(len(piece))
            if ended and not self._ended_there and not self._is_lost:
                self._ended_there = True
                self.receiver.eof_received()
        except Exception as error:
            self._broken(error)

    def congested(self) -> None:
        """
        The client does not take what was written.
        """
        self._tell("stream_congested")

    def drained(self) -> None:
        """
        The client has taken enough.
        """
        self._tell("stream_drained")

    def deadline_passed(self) -> None:
        """
        The receiver's moment has come.
        """
        self._tell("deadline_passed")

    def _tell(self, what: str) -> None:
        try:
            if self.receiver is not None:
                getattr(self.receiver, what)()
        except Exception as error:
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        self._log.failure("bug on {pipe!r}", pipe=self)
        self._connection.session.reset(self._stream.stream_id, ErrorCode.INTERNAL_ERROR)
        self._connection.touch()
        self.lost(error)

    def lost(self, error: BaseException | None) -> None:
        """
        The stream is gone.
        """
        self._is_lost = True
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            try:
                receiver.stream_lost(error)
            except Exception:
                self._log.failure("bug on {pipe!r}", pipe=self)
