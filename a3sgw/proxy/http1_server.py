"""
The client's side of exchanges over HTTP/1.0 and 1.1.

A connection serves one exchange at a time, in the order the requests came; what a client sends ahead is kept, within bounds, until it is
its turn. Whether the connection lives on is decided by both messages: the request was read to its end, the response said where it ends,
and neither side nor the gateway wants to stop.

Long because requests read and responses sent decide together what becomes of the one connection.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, Protocol

from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IConnection, IDownstream, IReceiver
from a3sgw.message import Field, RequestHead, ResponseHead
from a3sgw.net.caller import Caller
from a3sgw.net.deadline import NEVER
from a3sgw.net.stream import Stream
from a3sgw.net.valve import PIPELINE
from a3sgw.proxy.date import date_line
from a3sgw.proxy.entrypoint import Entrypoint
from a3sgw.proxy.exchange import Exchange, new_request_id
from a3sgw.proxy.forwarding import Forwarding, forwarding_for, judge_forwarding, resolve_forwarding
from a3sgw.wire.body import BodyReader, chunk
from a3sgw.wire.http1 import check_partial_request, field_block, read_request_head, request_body_reader

__all__ = ["Http1Server"]

_AHEAD_BYTES: Final = 65536
_SMALL_BODY: Final = 16384
_FORWARDINGS: Final = 1024
_VERSION: Final = b"1.1"


class _Door(Protocol):
    """
    What a connection needs of the door it came through.
    """

    GRACE_SECONDS: float
    entrypoint: Entrypoint
    is_draining: bool

    def connection_ended(self, connection: Any) -> None: ...


def _refused_head(data: bytes) -> RequestHead | None:
    """
    Return what can be said in the log of a request that was refused, if it has anything like a request line.
    """
    method, _, rest = data[: data.find(b"\r\n")].partition(b" ")
    target = rest.rpartition(b" ")[0]
    if not target or not method.isalpha():
        return None
    return RequestHead(method, target)


@implementer(IReceiver, IDownstream, IConnection)
class Http1Server:
    """
    One client connection.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_checked",
        "_closes",
        "_door",
        "_entrypoint",
        "_forwarding",
        "_is_ahead",
        "_is_chunking",
        "_is_serving",
        "_is_trusted",
        "_local_port",
        "_patience",
        "_peer",
        "_peer_packed",
        "_scheme",
        "_stream",
        "_upgrade",
        "caller",
        "exchange",
    )

    _log = Logger()

    def __init__(self, stream: Stream, door: _Door, caller: Caller) -> None:
        self._stream = stream
        self._door = door
        self.caller = caller
        self._peer = caller.address
        self._peer_packed = caller.packed
        self._scheme = caller.scheme
        self._local_port = caller.local_port
        self._buffer = b""
        self._checked = 0
        self._body: BodyReader | None = None
        self._closes = False
        self._is_ahead = False
        self._is_chunking = False
        self._is_serving = False
        self._upgrade: Any = None
        self.exchange: Exchange | None = None
        self._use_entrypoint(door.entrypoint)
        now = stream.now()
        stream.deadline = now + self._entrypoint.timeouts.idle
        # Until when the first request of a client that has just come is waited for, though the door closes.
        self._patience = now + door.GRACE_SECONDS

    def __repr__(self) -> str:
        return f"<Http1Server {self._peer.decode()} with {self.exchange!r} on {self._stream!r}>"

    def _use_entrypoint(self, entrypoint: Entrypoint) -> None:
        self._entrypoint = entrypoint
        self._is_trusted = entrypoint.trusted is not None and entrypoint.trusted.contains(self._peer_packed)
        self._forwarding = forwarding_for(self.caller, _VERSION)

    # -- reading requests

    def data_received(self, data: bytes) -> None:
        """
        The client sent `data`.
        """
        try:
            if self._body is not None:
                self._body_received(self._body, data)
            elif self.exchange is not None or self._stream.is_congested:
                # Sent ahead of its turn.
                self._buffer += data
                if len(self._buffer) > _AHEAD_BYTES:
                    self._is_ahead = True
                    self._stream.hold(PIPELINE)
            else:
                if self._buffer:
                    data = self._buffer + data
                self._serve(data)
        except Exception:
            self._crash()

    def _serve(self, data: bytes) -> None:
        """
        Begin the exchanges that `data` holds whole heads of, one after the other.
        """
        self._is_serving = True
        try:
            while data and self.exchange is None and not self._closes and not self._stream.is_congested:
                end = data.find(b"\r\n\r\n")
                if end <= 0:
                    rest = self._wait_for_head(data)
                    if rest is None:
                        # Kept in the buffer.
                        break
                    data = rest
                else:
                    self._checked = 0
                    data = self._begin_exchange(data, end)
            else:
                self._buffer = data
        except Exception:
            # Fenced here too, because the end of the exchange before may have led here.
            self._crash()
        finally:
            self._is_serving = False
        if self._closes:
            self._stream.close(linger=True)
        elif self._is_ahead and (self.exchange is None or self._body is not None or len(self._buffer) <= _AHEAD_BYTES):
            # There is room again, or a request whose head or body has yet to come.
            self._is_ahead = False
            self._stream.free(PIPELINE)

    def _wait_for_head(self, data: bytes) -> bytes | None:
        """
        Deal with a head that is not complete. Returns data to go on with, or `None` to wait or when the request was refused.
        """
        self._buffer = data
        if data.startswith(b"\r\n") and not self._checked:
            # RFC 9112 section 2.2: an empty line before a request is ignored.
            return data[2:]
        if data == b"\r":
            return None
        entrypoint = self._current_entrypoint()
        try:
            check_partial_request(data, self._checked, entrypoint.limits)
        except ProtocolError as error:
            self._refuse(error.outcome, str(error))
            return None
        if not self._checked:
            self._stream.deadline = self._stream.now() + entrypoint.timeouts.request_header
        self._checked = len(data)
        return None

    def _current_entrypoint(self) -> Entrypoint:
        entrypoint = self._door.entrypoint
        if entrypoint is not self._entrypoint:
            # A reload happened: this and every further request is served on its terms.
            self._use_entrypoint(entrypoint)
        return entrypoint

    def _begin_exchange(self, data: bytes, end: int) -> bytes:
        """
        Begin the exchange whose head is `data[:end]`; return what follows its request, which is also what is kept.

        Long because it is the one path of every request, and a call per step would be paid by each.
        """
        started = monotonic()
        entrypoint = self._current_entrypoint()
        body: BodyReader | None = None
        piece = b""
        head: RequestHead | None = None
        try:
            head, forwarded = read_request_head(data, end, entrypoint.limits)
            rest = data[end + 4 :]
            forwarding = self._forwarding
            if forwarded:
                forwarding = self._judge_forwarding(forwarded)
                if self._is_trusted:
                    head.forwarded = forwarded
            head.client = forwarding.client
            head.client_packed = forwarding.client_packed
            if head.target_scheme and head.target_scheme != self._scheme:
                raise ProtocolError(Outcome.MISDIRECTED)
            if head.length:
                body = request_body_reader(head.length, head.nominated)
                if rest:
                    piece = body.feed(rest)
                    rest = body.rest
        except ProtocolError as error:
            self._buffer = b""
            self._refuse(error.outcome, str(error), head or _refused_head(data), started)
            return b""
        # Before the exchange begins, because it may hand the connection over with all that has arrived.
        self._buffer = rest
        self._patience = 0.0
        self.exchange = exchange = Exchange(entrypoint, self, self._peer, self._scheme, started)
        if head.is_http10:
            exchange.protocol = b"HTTP/1.0"
        if body is None or body.ended:
            self._stream.deadline = NEVER
            if body is not None and body.trailers:
                # The head goes first, so that the trailers find somewhere to go.
                exchange.begin(head, forwarding, piece, False)
                if self.exchange is exchange:
                    exchange.request_body_received(b"", True, body.trailers)
            else:
                exchange.begin(head, forwarding, piece, True)
        else:
            self._body = body
            self._stream.deadline = self._stream.now() + entrypoint.timeouts.request_body
            exchange.begin(head, forwarding, piece, False)
        return self._buffer

    def _judge_forwarding(self, forwarded: list[Field]) -> Forwarding:
        if self._is_trusted:
            known = self._entrypoint.forwardings
            key = (self._peer, self._local_port, *[field[2] for field in forwarded])
            forwarding = known.get(key)
            if forwarding is None:
                trusted = self._entrypoint.trusted
                assert trusted is not None
                forwarding = resolve_forwarding(self._peer, self._peer_packed, self._scheme, self._local_port, trusted, forwarded)
                if len(known) >= _FORWARDINGS:
                    known.clear()
                known[key] = forwarding
            return forwarding
        # Not believed; only the fact that there is a proxy is remembered.
        return judge_forwarding(self.caller, _VERSION, None, {}, forwarded)

    def _body_received(self, body: BodyReader, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # Answered already and closing; the stream drops the rest.
            return
        try:
            piece = body.feed(data)
        except ProtocolError as error:
            self._closes = True
            exchange.request_refused(error.outcome, str(error))
            return
        if body.ended:
            self._body = None
            self._buffer = body.rest
            self._stream.deadline = NEVER
            exchange.request_body_received(piece, True, body.trailers)
        else:
            self._stream.deadline = self._stream.now() + self._entrypoint.timeouts.request_body
            if piece:
                exchange.request_body_received(piece, False, ())

    def _refuse(self, outcome: Outcome, detail: str, head: RequestHead | None = None, started: float | None = None) -> None:
        """
        Answer a request that never became an exchange's, and close.
        """
        self._closes = True
        if head is not None:
            head.client = head.client or self._peer
            head.request_id = head.request_id or new_request_id()
        self.exchange = exchange = Exchange(self._entrypoint, self, self._peer, self._scheme, monotonic() if started is None else started)
        exchange.head = head
        exchange.detail = detail
        exchange.refuse(outcome)

    def _crash(self) -> None:
        self._log.failure("bug in an exchange of {peer}", peer=self._peer)
        exchange = self.exchange
        self._closes = True
        if exchange is None:
            self._stream.abort()
        else:
            exchange.request_refused(Outcome.INTERNAL_ERROR, "bug")

    # -- sending responses

    def send_interim(self, head: ResponseHead) -> None:
        """
        Relay a 1xx response, unless the client speaks HTTP/1.0 and cannot read one.
        """
        exchange = self.exchange
        if exchange is not None and exchange.head is not None and not exchange.head.is_http10:
            self._stream.write(b"%b\r\n%b\r\n" % (head.status_line, field_block(head.fields)))

    def send_head(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        Send the final response's head with the first piece of its body.
        """
        exchange = self.exchange
        assert exchange is not None
        request = exchange.head
        lines = [head.status_line]
        lines += [field[2] for field in head.fields]
        if not head.has_date:
            lines.append(date_line())
        self._is_chunking = False
        is_http10 = request is not None and request.is_http10
        if head.length >= 0:
            if head.declared_length >= 0:
                lines.append(b"Content-Length: %d" % head.declared_length)
        elif is_http10:
            self._closes = True
        else:
            lines.append(b"Transfer-Encoding: chunked")
            self._is_chunking = True
            if piece:
                piece = chunk(piece)
            if ended:
                piece += b"0\r\n\r\n"
        if request is None or not request.keep_alive or self._body is not None or self._door.is_draining:
            self._closes = True
        if self._closes:
            lines.append(b"Connection: close")
        elif is_http10:
            lines.append(b"Connection: keep-alive")
        if len(piece) <= _SMALL_BODY:
            lines.append(b"\r\n" + piece)
            self._stream.write(b"\r\n".join(lines))
        else:
            lines.append(b"\r\n")
            self._stream.write(b"\r\n".join(lines))
            self._stream.write(piece)
        if ended:
            self._response_ended()

    def send_body(self, piece: bytes, ended: bool) -> None:
        """
        Send the next piece of the body.
        """
        if self._is_chunking:
            piece = chunk(piece) if piece else b""
            if ended:
                piece += b"0\r\n\r\n"
        if piece:
            self._stream.write(piece)
        if ended:
            self._response_ended()

    def send_end(self, trailers: Sequence[Field]) -> None:
        """
        End the body, with trailer fields where it is chunked.
        """
        if self._is_chunking:
            self._stream.write(b"0\r\n%b\r\n" % field_block(trailers))
        self._response_ended()

    def abort(self) -> None:
        """
        Reset the connection: the response is incomplete and the client must notice.
        """
        self.exchange = None
        self._stream.abort()

    def hand_over(self, head: ResponseHead, upgrade: Any) -> tuple[Stream, bytes]:
        """
        Send the 101 and give the stream to whoever speaks the other protocol, with what the client has sent of it already.

        `upgrade` is told to `stop`; this connection ends with `tunnel_ended`.
        """
        self._upgrade = upgrade
        self._stream.write(b"%b\r\n%bConnection: Upgrade\r\n\r\n" % (head.status_line, field_block(head.fields)))
        ahead, self._buffer = self._buffer, b""
        self._stream.free(PIPELINE)
        return self._stream, ahead

    def tunnel_ended(self) -> None:
        """
        The stream that was handed over is gone.
        """
        self._upgrade = None
        self.exchange = None
        self._door.connection_ended(self)

    def _response_ended(self) -> None:
        self.exchange = None
        if self._closes or self._body is not None or (self._door.is_draining and not self._buffer):
            self._closes = True
            if not self._is_serving:
                # What the client still sends must not make the kernel destroy our answer.
                self._stream.close(linger=True)
            return
        stream = self._stream
        stream.deadline = stream.now() + self._entrypoint.timeouts.idle
        if self._buffer and not self._is_serving and not stream.is_congested:
            self._serve(self._buffer)

    def hold_request(self, pauser: int) -> None:
        """
        Read no further request body for `pauser`.
        """
        self._stream.deadline = NEVER
        self._stream.hold(pauser)

    def free_request(self, pauser: int) -> None:
        """
        Withdraw `pauser`.
        """
        if self._body is not None:
            self._stream.deadline = self._stream.now() + self._entrypoint.timeouts.request_body
        self._stream.free(pauser)

    # -- what else the stream reports

    def eof_received(self) -> None:
        """
        The client will send nothing more: that ends its connection, and what was in progress with it.
        """
        self._ended(Outcome.CLIENT_CLOSED)
        self._stream.close()

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The connection is gone.
        """
        self._ended(Outcome.CLIENT_CLOSED)
        self._door.connection_ended(self)

    def _ended(self, outcome: Outcome) -> None:
        exchange = self.exchange
        self._closes = True
        self._body = None
        self._buffer = b""
        if exchange is not None:
            self.exchange = None
            exchange.downstream_lost(outcome)

    def stream_congested(self) -> None:
        """
        The client does not keep up with the response.
        """
        self._stream.deadline = self._stream.now() + self._entrypoint.timeouts.write
        if self.exchange is not None:
            self.exchange.downstream_congested()

    def stream_drained(self) -> None:
        """
        The client has taken everything.
        """
        stream = self._stream
        if self.exchange is not None:
            stream.deadline = NEVER if self._body is None else stream.now() + self._entrypoint.timeouts.request_body
            self.exchange.downstream_drained()
            return
        stream.deadline = stream.now() + self._entrypoint.timeouts.idle
        if self._buffer:
            self._serve(self._buffer)

    def deadline_passed(self) -> None:
        """
        The client took too long.
        """
        if self._stream.is_congested:
            self._ended(Outcome.CLIENT_STALLED)
            self._stream.abort()
        elif self._body is not None and self.exchange is not None:
            self._closes = True
            self.exchange.request_refused(Outcome.REQUEST_TIMEOUT, "body")
        elif self._checked:
            self._refuse(Outcome.REQUEST_TIMEOUT, "head", _refused_head(self._buffer))
        else:
            self._stream.close()

    # -- what the door calls

    def exchange_count(self) -> int:
        """
        Return 1 if an exchange is under way, else 0.
        """
        return int(self.exchange is not None)

    def drain(self) -> None:
        """
        End the connection when its exchange has ended, at once if it has none.

        Whoever has begun to ask goes on in its own time, and whoever came a moment ago may ask once: a client does not expect to be sent
        away unheard.
        """
        stream = self._stream
        if self.exchange is None:
            # A request may have arrived that the reactor has not shown us yet.
            stream.poll()
        if self.exchange is not None or not stream.is_open or self._checked or (self._buffer and stream.is_congested):
            return
        if stream.now() < self._patience:
            stream.deadline = self._patience
        else:
            self._closes = True
            stream.close()

    def stop(self) -> None:
        """
        End the connection now: an exchange that has not been answered is told why, one that has is broken off.
        """
        self._closes = True
        if self._upgrade is not None:
            self._upgrade.stop()
            return
        if self.exchange is not None:
            self.exchange.request_refused(Outcome.SHUTTING_DOWN, "the time for draining is over")
        self._stream.close()
