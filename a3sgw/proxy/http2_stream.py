"""
The client's side of one exchange over HTTP/2: a stream.

A stream reads its request like any other and answers it. What an exchange does not take yet is not credited, so the client's window closes
like a valve; what the client does not take holds the exchange. A stream that fails costs itself, and never its neighbours.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IDownstream
from a3sgw.message import Field, RequestHead, ResponseHead
from a3sgw.net.caller import Caller
from a3sgw.net.deadline import NEVER
from a3sgw.proxy.date import date_line
from a3sgw.proxy.entrypoint import Entrypoint
from a3sgw.proxy.exchange import Exchange, new_request_id
from a3sgw.wire.grpc import GRPC
from a3sgw.wire.http1 import RequestLimits
from a3sgw.wire.http2 import ErrorCode, Fields, error_name
from a3sgw.wire.http2_head import read_request_fields, read_request_trailers, response_fields, trailer_fields

if TYPE_CHECKING:
    from a3sgw.proxy.http2_server import Http2Server

__all__ = ["CONNECTION_FULL", "CONNECTION_SLOW", "STREAM_SLOW", "Http2Stream", "RequestReader"]

RequestReader = Callable[[Fields, bool, bytes, RequestLimits], tuple[RequestHead, list[Field]]]
"""`wire.http2_head.read_request_fields`, or what reads other requests."""

STREAM_SLOW: Final = 1
"""The client has closed the window of the stream, or of the connection."""

CONNECTION_SLOW: Final = 2
"""The client does not read its connection."""

CONNECTION_FULL: Final = 4
"""Too much waits on all streams of the connection together."""

_ENDINGS: Final = frozenset([ErrorCode.NO_ERROR, ErrorCode.CANCEL])


def _refused_head(fields: Fields) -> RequestHead | None:
    """
    Return what can be said in the log of a request that was refused.
    """
    known = dict(fields[:8])
    method = known.get(b":method", b"")
    target = known.get(b":path") or known.get(b":authority")
    return RequestHead(method, target) if method and target else None


@implementer(IDownstream)
class Http2Stream:
    """
    One stream. `body_deadline` is when the next piece of the request must be here, `write_deadline` when the client must have taken more of
    the response; both are in the clock of the connection's stream, which watches them.
    """

    __slots__ = (
        "_connection",
        "_entrypoint",
        "_given",
        "_is_patient",
        "_owed",
        "_pausers",
        "_request_ended",
        "_slow",
        "_taken",
        "body_deadline",
        "exchange",
        "stream_id",
        "write_deadline",
    )

    def __init__(self, connection: Http2Server, stream_id: int, *, request_ended: bool) -> None:
        self._connection = connection
        self._entrypoint: Entrypoint = connection.current_entrypoint()
        self.stream_id = stream_id
        self._request_ended = request_ended
        self._pausers = 0
        self._owed = 0
        self._given = 0
        # In a call of gRPC either side may be silent for as long as it likes.
        self._is_patient = False
        self._taken = 0
        self._slow = 0
        self.body_deadline = NEVER
        self.write_deadline = NEVER
        self.exchange: Exchange | None = None

    def __repr__(self) -> str:
        return f"<Http2Stream {self.stream_id} with {self.exchange!r}>"

    @property
    def caller(self) -> Caller:
        """
        Who is at the other end.
        """
        return self._connection.caller

    # -- reading the request

    def head_received(self, fields: Fields, ended: bool, read: RequestReader = read_request_fields) -> None:
        """
        Begin the exchange of the request that `read` finds in `fields`.
        """
        started = monotonic()
        connection = self._connection
        entrypoint = self._entrypoint
        caller = connection.caller
        head: RequestHead | None = None
        try:
            # Behind a proxy that has ended TLS, `https` is true.
            head, forwarded = read(fields, ended, b"" if connection.is_trusted else caller.scheme, entrypoint.limits)
            forwarding = connection.forwarding
            if forwarded:
                forwarding = connection.judge_forwarding(forwarded)
                if connection.is_trusted:
                    head.forwarded = forwarded
            head.client = forwarding.client
            head.client_packed = forwarding.client_packed
        except ProtocolError as error:
            self._refuse(error, head or _refused_head(fields), started)
            return
        self.exchange = exchange = Exchange(entrypoint, self, caller.address, caller.scheme, started)
        exchange.protocol = b"HTTP/2.0"
        self._is_patient = head.grpc == GRPC
        if not ended:
            self._expect_body()
        exchange.begin(head, forwarding, b"", ended)

    def _refuse(self, error: ProtocolError, head: RequestHead | None, started: float) -> None:
        """
        Answer a request that never became an exchange's.
        """
        caller = self._connection.caller
        self.exchange = exchange = Exchange(self._entrypoint, self, caller.address, caller.scheme, started)
        if head is not None:
            head.client = head.client or caller.address
            head.request_id = head.request_id or new_request_id()
        exchange.protocol = b"HTTP/2.0"
        exchange.head = head
        exchange.detail = str(error)
        exchange.refuse(error.outcome)

    def _expect_body(self) -> None:
        if self._is_patient:
            return
        connection = self._connection
        self.body_deadline = connection.now() + self._entrypoint.timeouts.request_body
        connection.watch(self.body_deadline)

    def data_received(self, piece: bytes, ended: bool) -> None:
        """
        The next piece of the request's body arrived.
        """
        exchange = self.exchange
        if exchange is None or self._request_ended:
            # Answered already: whatever still comes is dropped.
            self._connection.session.credit(self.stream_id, len(piece))
            return
        if ended:
            self._request_ended = True
            self.body_deadline = NEVER
        elif not self._pausers and not self._is_patient:
            self.body_deadline = self._connection.now() + self._entrypoint.timeouts.request_body
        exchange.request_body_received(piece, ended, ())
        if self._pausers:
            self._owed += len(piece)
        else:
            self._connection.session.credit(self.stream_id, len(piece))

    def trailers_received(self, fields: Fields) -> None:
        """
        The request ended with trailers.
        """
        exchange = self.exchange
        if exchange is None or self._request_ended:
            return
        self._request_ended = True
        self.body_deadline = NEVER
        try:
            trailers = read_request_trailers(fields)
        except ProtocolError as error:
            exchange.request_refused(error.outcome, str(error))
            return
        exchange.request_body_received(b"", True, trailers)

    def hold_request(self, pauser: int) -> None:
        """
        Take no further request body for `pauser`: let the client's window run out.
        """
        self._pausers |= pauser
        self.body_deadline = NEVER

    def free_request(self, pauser: int) -> None:
        """
        Withdraw `pauser`.
        """
        if not self._pausers & pauser:
            return
        self._pausers &= ~pauser
        if self._pausers:
            return
        if self._owed:
            self._connection.session.credit(self.stream_id, self._owed)
            self._connection.touch()
            self._owed = 0
        if not self._request_ended and self.exchange is not None:
            self._expect_body()

    # -- sending the response

    def send_interim(self, head: ResponseHead) -> None:
        """
        Relay a 1xx response.
        """
        self._connection.session.send_interim(self.stream_id, response_fields(head, b""))
        self._connection.touch()

    def send_head(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        Send the final response's head with the first piece of its body.
        """
        connection = self._connection
        session = connection.session
        fields = response_fields(head, date_line()[6:])
        if piece:
            self._given += len(piece)
            session.send_head(self.stream_id, fields, False)
            session.send_data(self.stream_id, piece, ended)
        else:
            session.send_head(self.stream_id, fields, ended)
        if ended:
            self._response_ended()
        connection.touch()

    def send_body(self, piece: bytes, ended: bool) -> None:
        """
        Send the next piece of the body.
        """
        self._given += len(piece)
        self._connection.session.send_data(self.stream_id, piece, ended)
        if ended:
            self._response_ended()
        self._connection.touch()

    def send_end(self, trailers: Sequence[Field]) -> None:
        """
        End the body with trailers.
        """
        fields = trailer_fields(trailers)
        if fields:
            self._connection.session.send_trailers(self.stream_id, fields)
        else:
            self._connection.session.send_data(self.stream_id, b"", True)
        self._response_ended()
        self._connection.touch()

    def abort(self) -> None:
        """
        Reset the stream: the response is incomplete and the client must notice.
        """
        self.exchange = None
        self.body_deadline = NEVER
        self._connection.session.reset(self.stream_id, ErrorCode.INTERNAL_ERROR)
        self._connection.touch()

    def _response_ended(self) -> None:
        self.exchange = None
        if not self._request_ended:
            # RFC 9113 section 8.1: the rest of the request is not wanted, which is no error.
            self.body_deadline = NEVER
            self._connection.session.reset_when_sent(self.stream_id, ErrorCode.NO_ERROR)
        self._connection.response_ended(self)

    def stop(self) -> None:
        """
        End now: an exchange that has not been answered is told why, one that has is broken off.
        """
        if self.exchange is not None:
            self.exchange.request_refused(Outcome.SHUTTING_DOWN, "the time for draining is over")

    # -- what else the connection reports

    def slow(self, reason: int) -> None:
        """
        The client does not take the response, for one of the reasons above.
        """
        was_slow = self._slow
        self._slow |= reason
        if not was_slow and self.exchange is not None:
            self.exchange.downstream_congested()

    def drained(self, reason: int) -> None:
        """
        One of the reasons is gone.
        """
        was_slow = self._slow
        self._slow &= ~reason
        if was_slow and not self._slow and self.exchange is not None:
            self.exchange.downstream_drained()

    def closed(self, code: int) -> None:
        """
        The stream is gone.
        """
        if code not in _ENDINGS and self.exchange is not None:
            self.exchange.detail = f"HTTP/2 {error_name(code)}"
        self.lost(Outcome.CLIENT_CLOSED)

    def lost(self, outcome: Outcome) -> None:
        """
        The client is gone.
        """
        exchange = self.exchange
        self.exchange = None
        self.body_deadline = self.write_deadline = NEVER
        if exchange is not None:
            exchange.downstream_lost(outcome)

    def expect_progress(self) -> None:
        """
        Something waits for the client to take it.
        """
        if self.write_deadline is NEVER:
            connection = self._connection
            self._taken = self._given - connection.session.queued_on(self.stream_id)
            self.write_deadline = connection.now() + self._entrypoint.timeouts.write
            connection.watch(self.write_deadline)

    def check_time(self, now: float) -> None:
        """
        See whether one of the deadlines has passed.
        """
        if self.body_deadline <= now:
            self.body_deadline = NEVER
            if self.exchange is not None:
                self.exchange.request_refused(Outcome.REQUEST_TIMEOUT, "body")
        if self.write_deadline <= now:
            self.write_deadline = NEVER
            queued = self._connection.session.queued_on(self.stream_id)
            if self._given - queued == self._taken:
                self.lost(Outcome.CLIENT_STALLED)
                self._connection.session.reset(self.stream_id, ErrorCode.CANCEL)
                self._connection.touch()
            elif queued:
                self.expect_progress()
