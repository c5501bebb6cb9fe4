"""
The backend's side of an exchange over HTTP/1.1.

A connection is leased for one exchange at a time. It writes the request, reads the response strictly, and decides alone whether it can be
used again: only if both messages ended where they said they would.

Long because a connection has one state, and asking, answering, leaving HTTP and breaking off all change it.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IReceiver, IUpstream
from a3sgw.message import Field, ResponseHead
from a3sgw.net.stream import Stream
from a3sgw.net.valve import WAITING_ROOM
from a3sgw.wire.body import BodyReader, chunk
from a3sgw.wire.handshake import protocols
from a3sgw.wire.http1 import CHUNKED, field_block, read_response_head, response_body_reader, upgrade_fields

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange
    from a3sgw.proxy.pool import Pool

__all__ = ["Http1Client"]

_MAX_HEAD_BYTES: Final = 65536
_BEGINNING: Final = b"HTTP/1."


class _Ahead(BodyReader):
    """
    Keeps what a backend sends in another protocol before anybody speaks it, in `data`. Little: middlewares that wait hold the stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def feed(self, data: bytes) -> bytes:
        """
        Keep `data`.
        """
        self.data += data
        return b""


@implementer(IReceiver, IUpstream)
class Http1Client:
    """
    One connection to a backend.

    `exchange` is `None` while it is idle. `was_used` says that it has carried a response before, and so may be stale.
    """

    __slots__ = (
        "_buffer",
        "_has_answered",
        "_is_chunking",
        "_may_reuse",
        "_pool",
        "_reader",
        "_request_ended",
        "_settings",
        "_stream",
        "exchange",
        "was_used",
    )

    _log = Logger()

    def __init__(self, stream: Stream, pool: Pool) -> None:
        self._stream = stream
        self._pool = pool
        self._settings: Any = None
        self._buffer = b""
        self._reader: BodyReader | None = None
        self._request_ended = False
        self._is_chunking = False
        self._has_answered = False
        self._may_reuse = False
        self.exchange: Exchange | None = None
        self.was_used = False

    def __repr__(self) -> str:
        return f"<Http1Client to {self._pool.backend.url} for {self.exchange!r} on {self._stream!r}>"

    # -- what the pool calls

    def rest(self, seconds: float) -> None:
        """
        Become idle, for at most `seconds`.
        """
        self._stream.deadline = self._stream.now() + seconds

    def close(self) -> None:
        """
        Close an idle connection.
        """
        self._stream.close()

    def is_spoilt(self) -> bool:
        """
        Say whether something nobody asked for has arrived on this idle connection, which it will end for in a moment.
        """
        return self._stream.has_arrived

    def is_stale(self) -> bool:
        """
        Say whether the backend has closed this idle connection a moment ago.
        """
        return self._stream.is_stale()

    # -- what the exchange calls

    def send_request(self, exchange: Exchange, piece: bytes, ended: bool) -> None:
        """
        Send the request head of `exchange` with the first piece of its body.
        """
        self.exchange = exchange
        self._settings = exchange.settings
        self._request_ended = ended
        self._has_answered = False
        self._is_chunking = False
        head = exchange.head
        assert head is not None
        lines = exchange.request_lines(self._pool.backend.address)
        if head.length == CHUNKED:
            lines.append(b"Transfer-Encoding: chunked")
            self._is_chunking = True
            if piece:
                piece = chunk(piece)
            if ended:
                piece += b"0\r\n\r\n"
        elif head.has_length:
            lines.append(b"Content-Length: %d" % head.length)
        if head.hop is not None:
            lines.append(head.hop.lines)
        lines.append(b"\r\n" + piece)
        self._stream.deadline = self._stream.now() + exchange.response_header_timeout
        self._stream.write(b"\r\n".join(lines))

    def send_body(self, piece: bytes, ended: bool) -> None:
        """
        Send the next piece of the request body.
        """
        self._request_ended = ended
        if self._is_chunking:
            piece = chunk(piece) if piece else b""
            if ended:
                piece += b"0\r\n\r\n"
        if not self._has_answered and self.exchange is not None:
            self._stream.deadline = self._stream.now() + self.exchange.response_header_timeout
        if piece:
            self._stream.write(piece)

    def send_end(self, trailers: Sequence[Field]) -> None:
        """
        End a chunked request body, with trailer fields.
        """
        self._request_ended = True
        if self._is_chunking:
            self._stream.write(b"0\r\n%b\r\n" % field_block(trailers))

    def abort(self) -> None:
        """
        Give the response up.
        """
        self.exchange = None
        self._reader = None
        self._pool.discard(self)
        self._stream.abort()

    def hold_response(self, pauser: int) -> None:
        """
        Read no further response for `pauser`.
        """
        self._stream.deadline = float("inf")
        self._stream.hold(pauser)

    def free_response(self, pauser: int) -> None:
        """
        Withdraw `pauser`.
        """
        self._stream.deadline = self._stream.now() + self._settings.idle_timeout
        self._stream.free(pauser)

    # -- what the stream calls

    def data_received(self, data: bytes) -> None:
        """
        The backend sent `data`.
        """
        exchange = self.exchange
        if exchange is None:
            # Nobody asked: whatever this is, it must not become the next response.
            self._stream.abort()
            return
        try:
            if self._reader is not None:
                self._body_received(self._reader, data)
            else:
                if self._buffer:
                    data = self._buffer + data
                    self._buffer = b""
                self._head_received(data)
        except ProtocolError as error:
            self._fail(error.outcome, str(error))
        except Exception:
            self._log.failure("bug in an exchange with {url}", url=self._pool.backend.url)
            # Once let go, the connection may serve another exchange, which has done nothing wrong.
            if self.exchange is exchange:
                self._fail(Outcome.INTERNAL_ERROR, "bug")

    def _head_received(self, data: bytes) -> None:
        """
        Take the head of an answer, after informational ones. Long because what is wrong with a head is told apart here.
        """
        exchange = self.exchange
        assert exchange is not None
        assert exchange.head is not None
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if not data.startswith(_BEGINNING[: len(data)]):
                    # What does not begin as an answer will not become one.
                    raise ProtocolError(Outcome.RESPONSE_MALFORMED, f"{data[:16]!r} is no answer")
                if len(data) > _MAX_HEAD_BYTES:
                    raise ProtocolError(Outcome.RESPONSE_HEADERS_TOO_LARGE)
                if b"\n\n" in data:
                    # A head that ends its lines with LF alone would never end for us.
                    raise ProtocolError(Outcome.RESPONSE_MALFORMED, "bare LF")
                self._buffer = data
                return
            if end > _MAX_HEAD_BYTES:
                raise ProtocolError(Outcome.RESPONSE_HEADERS_TOO_LARGE)
            head = read_response_head(data, end, exchange.head.method)
            end += 4
            if head.status >= 200:
                break
            if head.status == 101:
                self._protocol_switched(exchange, head, data, end)
                return
            exchange.interim_received(head)
            if self.exchange is not exchange:
                return
            data = data[end:]
            if not data:
                return
        self._has_answered = True
        self._may_reuse = head.keep_alive
        length = head.length
        arrived = len(data) - end
        if length == arrived:
            # Most common case first: all of it is here, or there is no body and nothing follows.
            self._complete(exchange, head, data[end:] if arrived else b"")
        elif length == 0:
            self._may_reuse = False
            self._complete(exchange, head, b"")
        else:
            self._begin_body(exchange, head, data[end:])

    def _protocol_switched(self, exchange: Exchange, head: ResponseHead, data: bytes, end: int) -> None:
        """
        The backend answered 101: what it sends from now on is not HTTP. `end` is where that begins.
        """
        assert exchange.head is not None
        fields = upgrade_fields(data, end - 4)
        agreed = {protocol for field in fields for protocol in protocols(field.value)}
        if not agreed or not agreed <= set(protocols(exchange.head.upgrade)):
            raise ProtocolError(Outcome.RESPONSE_UPGRADE_REFUSED)
        head.fields += fields
        self._has_answered = True
        self._may_reuse = False
        self._reader = ahead = _Ahead()
        ahead.feed(data[end:])
        self._stream.deadline = self._stream.now() + self._settings.idle_timeout
        exchange.protocol_switched(self, head)

    def hand_over(self) -> tuple[Any, bytes]:
        """
        Give the stream to whoever speaks the other protocol, with what was read of it already. It is leased until `tunnel_ended`.
        """
        ahead, self._reader = self._reader, None
        assert isinstance(ahead, _Ahead)
        self.exchange = None
        # A middleware may have kept the 101.
        self._stream.free(WAITING_ROOM)
        return self._stream, ahead.data

    def tunnel_ended(self) -> None:
        """
        The stream that was handed over is gone.
        """
        self._pool.discard(self)

    def _begin_body(self, exchange: Exchange, head: ResponseHead, data: bytes) -> None:
        reader = response_body_reader(head.length, head.nominated)
        piece = reader.feed(data) if data else b""
        if reader.ended and not reader.trailers:
            self._may_reuse = self._may_reuse and not reader.rest
            self._complete(exchange, head, piece)
            return
        self._reader = reader
        self._stream.deadline = self._stream.now() + self._settings.idle_timeout
        exchange.head_received(head, piece, False)
        if reader.ended and self.exchange is exchange:
            self._body_ended(exchange, reader, b"")

    def _body_received(self, reader: BodyReader, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        piece = reader.feed(data)
        if reader.ended:
            self._body_ended(exchange, reader, piece)
            return
        self._stream.deadline = self._stream.now() + self._settings.idle_timeout
        if piece:
            exchange.response_body_received(piece, False, ())

    def _complete(self, exchange: Exchange, head: ResponseHead, piece: bytes) -> None:
        self._let_go()
        exchange.head_received(head, piece, True)

    def _body_ended(self, exchange: Exchange, reader: BodyReader, piece: bytes) -> None:
        self._reader = None
        self._may_reuse = self._may_reuse and not reader.rest
        self._let_go()
        exchange.response_body_received(piece, True, reader.trailers)

    def _let_go(self) -> None:
        """
        The response is complete: return to the pool, or close if either message leaves the connection in doubt.
        """
        self.exchange = None
        self.was_used = True
        if self._may_reuse and self._request_ended and not self._stream.is_congested:
            self._pool.release(self)
        else:
            self._pool.discard(self)
            self._stream.close()

    def _fail(self, outcome: Outcome, detail: str) -> None:
        exchange = self.exchange
        if exchange is None:
            self._stream.abort()
            return
        # Only a close can be what it has not told us yet. A wrong answer, or none in time, is the backend's own.
        is_stale = outcome is Outcome.BACKEND_CLOSED and self.was_used
        self.exchange = None
        self._reader = None
        self._buffer = b""
        self._pool.discard(self)
        self._stream.abort()
        exchange.upstream_failed(outcome, is_stale=is_stale, detail=detail)

    def eof_received(self) -> None:
        """
        The backend will send nothing more.
        """
        exchange = self.exchange
        if exchange is None:
            self._stream.close()
            return
        reader = self._reader
        if reader is not None and reader.finish():
            self._may_reuse = False
            self._body_ended(exchange, reader, b"")
            return
        self._broken("end of stream")

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The connection is gone.
        """
        if self.exchange is None:
            self._pool.idle_lost(self)
        else:
            self._broken(str(error))

    def _broken(self, detail: str) -> None:
        if self._has_answered:
            self._fail(Outcome.RESPONSE_INCOMPLETE, detail)
        elif self._buffer:
            self._fail(Outcome.RESPONSE_MALFORMED, "the head broke off")
        else:
            self._fail(Outcome.BACKEND_CLOSED, detail)

    def stream_congested(self) -> None:
        """
        The backend does not keep up with the request body.
        """
        if self.exchange is not None:
            self.exchange.upstream_congested()

    def stream_drained(self) -> None:
        """
        The backend has taken everything.
        """
        if self.exchange is not None:
            self.exchange.upstream_drained()

    def deadline_passed(self) -> None:
        """
        The backend took too long, or this connection was idle long enough.
        """
        if self.exchange is None:
            self._stream.close()
        elif self._stream.is_congested:
            self._fail(Outcome.BACKEND_STALLED, "")
        elif self._has_answered:
            self._fail(Outcome.RESPONSE_IDLE, "")
        else:
            self._fail(Outcome.RESPONSE_TIMEOUT, "")
