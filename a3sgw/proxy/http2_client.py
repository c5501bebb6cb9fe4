"""
The backend's side of exchanges over HTTP/2.

An `Http2Client` is one connection, shared by many exchanges; each of them holds an `Http2Upstream`, its stream, as it would hold a
connection over HTTP/1. What a stream reports goes to its exchange at once, and counts against its window until nobody holds the response
any more: so a slow client closes the window of its own stream, and of nobody else's.

A connection that lets an exchange wait for too long is doubted: it is asked for a sign of life, and gets no new streams until it has given
one.

Long because a connection and its streams end each other.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IReceiver, IUpstream
from a3sgw.message import Field
from a3sgw.net.deadline import NEVER, Deadlines
from a3sgw.wire.http2 import ErrorCode, Fields, Session, SessionLimits
from a3sgw.wire.http2_response import read_response, read_trailers, trailer_pairs

if TYPE_CHECKING:
    from a3sgw.proxy.http2_pool import Http2Pool

__all__ = ["Http2Client", "Http2Upstream"]

_STREAM_WINDOW: Final = 262144
_MAX_STREAMS: Final = 128
# The window of the connection is never the one that closes, or slow clients would hold up the others. A server opens no streams.
_LIMITS: Final = SessionLimits(
    max_concurrent_streams=0, stream_window=_STREAM_WINDOW, connection_window=_STREAM_WINDOW * _MAX_STREAMS, max_header_count=512
)

_UNKNOWN_CAPACITY: Final = 100
"""How many streams a backend is expected to take before it has said so (RFC 9113 section 6.5.2)."""

_NOT_LOOKED_AT: Final = frozenset([ErrorCode.REFUSED_STREAM, ErrorCode.HTTP_1_1_REQUIRED])


@implementer(IReceiver)
class Http2Client:
    """
    One connection to a backend.

    `is_settled` says that the backend has said how many streams it takes; before that, it is believed to take as many as last time.
    `is_leaving` says that no new streams will be opened; `has_served` that the connection has carried a response before, and so may be
    stale.
    """

    __slots__ = (
        "_awaits_life",
        "_heard",
        "_is_busy",
        "_is_dirty",
        "_is_gone",
        "_lent",
        "_pool",
        "deadlines",
        "fault",
        "has_served",
        "is_congested",
        "is_leaving",
        "is_settled",
        "session",
        "stream",
        "streams",
    )

    QUIET_SECONDS: Final = 310.0
    """After so long without a byte a connection in use is asked for a sign of life. gRPC servers resent it more often than every 300 s."""

    LIFE_SECONDS: Final = 10.0
    """How long a sign of life may take."""

    _log = Logger()

    def __init__(self, stream: Any, pool: Http2Pool, deadlines: Deadlines) -> None:
        self.stream = stream
        self.deadlines = deadlines
        self.session = Session(_Listener(self), is_server=False, limits=_LIMITS, now=stream.now())
        self.streams: dict[int, Http2Upstream] = {}
        self.fault: tuple[Outcome, str] | None = None
        self.has_served = False
        self.is_congested = False
        self.is_leaving = False
        self.is_settled = False
        self._pool = pool
        self._lent = 0
        self._is_busy = False
        self._is_dirty = False
        self._is_gone = False
        self._awaits_life = False
        self._heard = stream.now()

    def __repr__(self) -> str:
        state = "leaving" if self.is_leaving else "doubted" if self._awaits_life else "open"
        return f"<Http2Client to {self._pool.backend.url}, {self.in_use} streams, {state}, on {self.stream!r}>"

    # -- what the pool calls

    def start(self) -> None:
        """
        Begin to speak.
        """
        self.stream.deadline = self.stream.now() + self.QUIET_SECONDS
        self.stream.start()
        self.pump()

    @property
    def pool(self) -> Http2Pool:
        """
        Whose connection it is.
        """
        return self._pool

    @property
    def in_use(self) -> int:
        """
        How many streams are lent.
        """
        return len(self.streams) + self._lent

    @property
    def capacity(self) -> int:
        """
        How many streams there can be at a time.
        """
        return min(_MAX_STREAMS, self.session.peer_max_streams if self.is_settled else self._pool.last_capacity)

    @property
    def expected(self) -> int:
        """
        How many more streams there will probably be room for when the backend has said how many it takes.
        """
        return 0 if self.is_settled or self.is_leaving else _UNKNOWN_CAPACITY - self.in_use

    @property
    def has_room(self) -> bool:
        """
        Whether another stream can be lent.
        """
        return not (self.is_leaving or self._awaits_life) and self.in_use < self.capacity and self.session.can_open

    def lend(self) -> Http2Upstream:
        """
        Return a stream that has yet to be opened.
        """
        if not self.in_use:
            self.stream.deadline = self.stream.now() + self.QUIET_SECONDS
        self._lent += 1
        return Http2Upstream(self)

    def look(self) -> None:
        """
        Take notice of what has arrived already, which may be the end.
        """
        self.stream.poll()

    def rest(self, seconds: float) -> None:
        """
        Become idle, for at most `seconds`; less if the connection is doubted.
        """
        if not self._awaits_life:
            self.stream.deadline = self.stream.now() + seconds

    def close(self) -> None:
        """
        Close a connection without streams, of which the pool knows no more.
        """
        self.is_leaving = self._is_gone = True
        if not self._is_busy:
            self.session.go_away()
            self.stream.write(self.session.collect())
        self.session.forget()
        self.stream.close()

    # -- what streams call

    def open(self, upstream: Http2Upstream, fields: Fields, piece: bytes, ended: bool) -> int:
        """
        Send a request; return the number of its stream, or 0 if none can be opened.
        """
        self._lent -= 1
        session = self.session
        stream_id = 0 if session.is_over else session.open_stream(fields, ended and not piece)
        if stream_id:
            self.streams[stream_id] = upstream
            if piece:
                session.send_data(stream_id, piece, ended)
            self.pump()
        else:
            # Its numbers may be used up.
            self.is_leaving = True
        return stream_id

    def close_stream(self, stream_id: int, code: int) -> None:
        """
        A stream is not used any more; unless its end has come anyway, break it off with `code`.
        """
        if stream_id:
            del self.streams[stream_id]
            if code >= 0 or self.session.queued_on(stream_id):
                self.session.reset(stream_id, max(code, ErrorCode.NO_ERROR))
                self.pump()
        else:
            self._lent -= 1
        self._pool.stream_ended(self)

    def doubt(self) -> None:
        """
        An exchange has waited too long: ask for a sign of life, if that is not being done.
        """
        if not self._awaits_life and not self.session.is_over:
            self._awaits_life = True
            self.stream.deadline = self.stream.now() + self.LIFE_SECONDS
            self.session.ping()
            self.pump()

    def pump(self) -> None:
        """
        Send what the session has to say, at the end of this group of events.
        """
        if not self._is_dirty and not self._is_gone:
            self._is_dirty = True
            self.stream.flush_later(self)

    def flush(self) -> None:
        """
        Send what the session has to say; called by the flush queue, and never raises.
        """
        self._is_dirty = False
        if self._is_gone:
            return
        session = self.session
        self._is_busy = True
        try:
            while not self.is_congested and (said := session.collect()):
                self.stream.write(said)
        except Exception:
            self._log.failure("bug on {connection!r}", connection=self)
            self.stream.abort()
            return
        finally:
            self._is_busy = False
        if session.is_over:
            self._gone("the connection has ended")

    def _gone(self, detail: str) -> None:
        """
        The connection is over: so is every stream.
        """
        if self._is_gone:
            return
        self.is_leaving = self._is_gone = True
        outcome, detail = self.fault or (Outcome.BACKEND_CLOSED, detail)
        self.session.forget()
        streams, self.streams = self.streams, {}
        self.stream.close()
        self._pool.connection_lost(self, len(streams))
        for upstream in streams.values():
            upstream.fail(outcome, detail, is_stale=outcome is Outcome.BACKEND_CLOSED and self.has_served)

    # -- what the stream below calls

    def data_received(self, data: bytes) -> None:
        """
        The backend sent `data`.
        """
        if self._is_gone:
            return
        self._heard = self.stream.now()
        self._is_busy = True
        try:
            self.session.feed(data, self._heard)
        finally:
            self._is_busy = False
        self.pump()
        if self._awaits_life and not self._is_gone:
            self._awaits_life = False
            self.stream.deadline = self._heard + (self.QUIET_SECONDS if self.in_use else self._pool.settings.idle_timeout)
            self._pool.room_found(self)

    def eof_received(self) -> None:
        """
        The backend will send nothing more.
        """
        self._gone("end of stream")

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The connection is gone.
        """
        self._gone(str(error))

    def stream_congested(self) -> None:
        """
        The backend does not keep up.
        """
        self.is_congested = True
        for upstream in list(self.streams.values()):
            upstream.congested()

    def stream_drained(self) -> None:
        """
        The backend has taken everything.
        """
        self.is_congested = False
        self.pump()
        for upstream in list(self.streams.values()):
            upstream.drained()

    def deadline_passed(self) -> None:
        """
        The connection was idle long enough, or quiet for too long.
        """
        if self._awaits_life:
            self.fault = (Outcome.BACKEND_CLOSED, "no answer to a PING")
            self.stream.abort()
        elif not self.in_use:
            self._pool.connection_lost(self, 0)
            self.close()
        else:
            quiet = self.stream.now() - self._heard
            if quiet >= self.QUIET_SECONDS:
                self.doubt()
            else:
                self.stream.deadline = self.stream.now() + self.QUIET_SECONDS - quiet

    # -- what the session says

    def tell(self, stream_id: int, call: Callable[..., None], *arguments: Any) -> None:
        """
        Tell a stream, if it is still used. A bug in its exchange costs none of the others.
        """
        upstream = self.streams.get(stream_id)
        if upstream is None:
            return
        try:
            call(upstream, *arguments)
        except ProtocolError as error:
            upstream.give_up(error.outcome, str(error), ErrorCode.PROTOCOL_ERROR)
        except Exception:
            self._log.failure("bug in an exchange with {url}", url=self._pool.backend.url)
            upstream.give_up(Outcome.INTERNAL_ERROR, "bug", ErrorCode.INTERNAL_ERROR)

    def stream_closed(self, stream_id: int, code: int) -> None:
        """
        A stream is gone; if it is still used, that came too early.
        """
        upstream = self.streams.pop(stream_id, None)
        if upstream is None:
            self._pool.room_found(self)
            return
        outcome, is_stale = Outcome.BACKEND_CLOSED, False
        if code in _NOT_LOOKED_AT and not upstream.has_answered:
            outcome, is_stale = Outcome.STREAM_REFUSED, True
            if code == ErrorCode.HTTP_1_1_REQUIRED:
                self._pool.prefers_http1()
        elif code == ErrorCode.PROTOCOL_ERROR and not upstream.has_answered:
            outcome = Outcome.RESPONSE_MALFORMED
        self._pool.stream_ended(self)
        upstream.fail(outcome, f"the stream was closed with {_code_name(code)}", is_stale=is_stale)


def _code_name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return str(code)


class _Listener:
    """
    What a session says, on its way to the streams of a connection.
    """

    __slots__ = ("_client",)

    def __init__(self, client: Http2Client) -> None:
        self._client = client

    def head_received(self, stream_id: int, fields: Fields, ended: bool) -> None:
        self._client.tell(stream_id, Http2Upstream.head_received, fields, ended)

    def interim_received(self, stream_id: int, fields: Fields) -> None:
        self._client.tell(stream_id, Http2Upstream.interim_received, fields)

    def data_received(self, stream_id: int, piece: bytes, ended: bool) -> None:
        if stream_id in self._client.streams:
            self._client.tell(stream_id, Http2Upstream.body_received, piece, ended)
        else:
            self._client.session.credit(stream_id, len(piece))

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        self._client.tell(stream_id, Http2Upstream.trailers_received, fields)

    def stream_closed(self, stream_id: int, code: int) -> None:
        self._client.stream_closed(stream_id, code)

    def stream_congested(self, stream_id: int) -> None:
        self._client.tell(stream_id, Http2Upstream.blocked, True)

    def stream_drained(self, stream_id: int) -> None:
        self._client.tell(stream_id, Http2Upstream.blocked, False)

    def settings_received(self) -> None:
        self._client.is_settled = True
        self._client.pool.settled(self._client)

    def going_away(self, last_stream_id: int, code: int) -> None:
        self._client.is_leaving = True
        self._client.pool.leaving(self._client)

    def pong_received(self) -> None:
        """Any byte is a sign of life."""

    def fault_found(self, code: int, reason: str, *, is_fatal: bool) -> None:
        if is_fatal:
            self._client.fault = (Outcome.RESPONSE_MALFORMED, reason)

    def session_closed(self, code: int) -> None:
        """Found by `pump`."""


@implementer(IUpstream)
class Http2Upstream:
    """
    One stream, lent for one exchange.

    `stream_id` is 0 until the request is sent. `_pausers` are those who hold the response, `_owed` is how much of it has arrived meanwhile.
    `deadline` is for the sweep. The stream never was used before, so there is no need to ask whether it is stale.
    """

    __slots__ = (
        "_client",
        "_is_blocked",
        "_owed",
        "_pausers",
        "_request_ended",
        "_settings",
        "deadline",
        "exchange",
        "has_answered",
        "stream_id",
    )

    was_used: Final = False

    def __init__(self, client: Http2Client) -> None:
        self._client = client
        self._settings: Any = None
        self._request_ended = False
        self._is_blocked = False
        self._pausers = 0
        self._owed = 0
        self.deadline = NEVER
        self.exchange: Any = None
        self.has_answered = False
        self.stream_id = 0

    def __repr__(self) -> str:
        return f"<Http2Upstream {self.stream_id} for {self.exchange!r} of {self._client!r}>"

    def is_stale(self) -> bool:
        """
        Never: see `Http2Pool.lease`.
        """
        return False

    # -- what the exchange calls

    def send_request(self, exchange: Any, piece: bytes, ended: bool) -> None:
        """
        Send the request head of `exchange` with the first piece of its body.
        """
        client = self._client
        self.exchange = exchange
        self._settings = exchange.settings
        self._request_ended = ended
        self.deadline = client.stream.now() + exchange.response_header_timeout
        client.deadlines.add(self)
        self.stream_id = client.open(self, exchange.request_fields(client.pool.backend.address), piece, ended)
        if not self.stream_id:
            # Not while the exchange is sending.
            client.pool.later(self._cannot_open)
        elif client.is_congested:
            self.congested()

    def _cannot_open(self) -> None:
        self._client.pool.stream_ended(self._client)
        self.fail(Outcome.STREAM_REFUSED, "no stream can be opened", is_stale=True)

    def send_body(self, piece: bytes, ended: bool) -> None:
        """
        Send the next piece of the request body.
        """
        self._request_ended = ended
        client = self._client
        if self.stream_id and (piece or ended):
            client.session.send_data(self.stream_id, piece, ended)
            if self.exchange is not None and not self._pausers:
                # While there is something to read, silence is no fault.
                patience = self._settings.idle_timeout if self.has_answered else self.exchange.response_header_timeout
                self.deadline = client.stream.now() + patience
            client.pump()
            if client.is_congested:
                self.congested()

    def send_end(self, trailers: Sequence[Field]) -> None:
        """
        End the request body, with trailer fields.
        """
        self._request_ended = True
        if self.stream_id:
            self._client.session.send_trailers(self.stream_id, trailer_pairs(trailers))
            self._client.pump()

    def abort(self) -> None:
        """
        Give the response up.
        """
        self.exchange = None
        self._end(ErrorCode.CANCEL)

    def hold_response(self, pauser: int) -> None:
        """
        Let no more of the response come than the window has room for.
        """
        self._pausers |= pauser
        self.deadline = NEVER

    def free_response(self, pauser: int) -> None:
        """
        Withdraw `pauser`.
        """
        self._pausers &= ~pauser
        if not self._pausers:
            self.deadline = self._client.stream.now() + self._settings.idle_timeout
            if self._owed and self.stream_id:
                owed, self._owed = self._owed, 0
                self._client.session.credit(self.stream_id, owed)
                self._client.pump()

    # -- what the connection calls

    def head_received(self, fields: Fields, ended: bool) -> None:
        """
        The response began.
        """
        exchange = self.exchange
        head = read_response(fields, exchange.head.method, ended=ended)
        self.has_answered = True
        if ended:
            self._complete()
        elif not self._pausers:
            self.deadline = self._client.stream.now() + self._settings.idle_timeout
        exchange.head_received(head, b"", ended)

    def interim_received(self, fields: Fields) -> None:
        """
        A 1xx response arrived.
        """
        self.exchange.interim_received(read_response(fields, b"", ended=False))

    def body_received(self, piece: bytes, ended: bool) -> None:
        """
        The next piece of the response's body arrived.
        """
        exchange = self.exchange
        if ended:
            self._complete()
            exchange.response_body_received(piece, True, ())
            return
        if not self._pausers:
            self.deadline = self._client.stream.now() + self._settings.idle_timeout
        exchange.response_body_received(piece, False, ())
        if self._pausers:
            self._owed += len(piece)
        elif self.stream_id:
            self._client.session.credit(self.stream_id, len(piece))

    def trailers_received(self, fields: Fields) -> None:
        """
        The response ended with trailers.
        """
        exchange = self.exchange
        self._complete()
        exchange.response_body_received(b"", True, read_trailers(fields))

    def blocked(self, is_blocked: bool) -> None:
        """
        The backend closed the window for the request's body, or opened it again.
        """
        self._is_blocked = is_blocked
        if is_blocked:
            self.congested()
        elif not self._client.is_congested:
            self.drained()

    def congested(self) -> None:
        """
        Nothing more of the request's body can be taken now.
        """
        if self.exchange is not None and not self._request_ended:
            self.exchange.upstream_congested()

    def drained(self) -> None:
        """
        The connection takes more, and perhaps the stream does.
        """
        if self.exchange is not None and not self._is_blocked:
            self.exchange.upstream_drained()

    def deadline_passed(self) -> None:
        """
        The backend took too long.
        """
        if self._is_blocked or self._client.is_congested:
            outcome = Outcome.BACKEND_STALLED
        else:
            outcome = Outcome.RESPONSE_IDLE if self.has_answered else Outcome.RESPONSE_TIMEOUT
        # First, so that another attempt goes elsewhere.
        self._client.doubt()
        self.give_up(outcome, "", ErrorCode.CANCEL)

    def give_up(self, outcome: Outcome, detail: str, code: int) -> None:
        """
        Break the stream off, and say so.
        """
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._end(code)
            exchange.upstream_failed(outcome, is_stale=False, detail=detail)

    def fail(self, outcome: Outcome, detail: str, *, is_stale: bool) -> None:
        """
        The stream is gone.
        """
        exchange, self.exchange = self.exchange, None
        self.stream_id = 0
        self._client.deadlines.discard(self)
        if exchange is not None:
            if self.has_answered and outcome is Outcome.BACKEND_CLOSED:
                outcome = Outcome.RESPONSE_INCOMPLETE
            exchange.upstream_failed(outcome, is_stale=is_stale and not self.has_answered, detail=detail)

    def _complete(self) -> None:
        self.exchange = None
        self._client.has_served = True
        self._end(-1 if self._request_ended else ErrorCode.CANCEL)

    def _end(self, code: int) -> None:
        client = self._client
        client.deadlines.discard(self)
        stream_id, self.stream_id = self.stream_id, 0
        client.close_stream(stream_id, code)
