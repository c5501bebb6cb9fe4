"""
One exchange: from a client's request head to the end of its response.

An exchange does not know the HTTP version on either side; it talks to an `IDownstream` and an `IUpstream`. It decides where the request
goes, what a failure means, and whether another attempt is allowed: only while no byte of a response has left, and only if the whole
request can be sent again. However it ends, `_finish` is its one end: the lease and the counters are given back there, and the record is
shown to the observers there.

Long because an exchange has two sides and every way they can fail each other is decided here, in sight of the others.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.errors import Outcome
from a3sgw.interfaces import IDownstream, IUpstream
from a3sgw.message import Field, LocalResponse, RequestHead, ResponseHead, make_field
from a3sgw.net.valve import CLIENT_SLOW, UPSTREAM_SLOW, WAITING_ROOM
from a3sgw.observe.record import Record
from a3sgw.proxy.entrypoint import Entrypoint
from a3sgw.proxy.forwarding import Forwarding
from a3sgw.service.backend import Backend
from a3sgw.service.service import Service
from a3sgw.wire.http1 import status_line

__all__ = ["Exchange", "new_request_id", "refusal"]

IDEMPOTENT: Final = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
"""The methods of RFC 9110 section 9.2.2: sending one twice does what sending it once does."""

_WAITING_BYTES: Final = 65536
_JSON: Final = make_field(b"Content-Type", b"application/json")
_RUN: Final = os.urandom(6).hex().encode()
_next_number = count(1).__next__


def new_request_id() -> bytes:
    """
    Return an identifier that no other request has: random digits for this process, then a number.
    """
    return b"%b%010x" % (_RUN, _next_number())


def refusal(outcome: Outcome, request_id: bytes) -> LocalResponse:
    """
    Return the gateway's own answer for `outcome`: JSON with the reason, and the same reason in `Proxy-Status` (RFC 9209).
    """
    assert outcome.status is not None
    fields = [_JSON, make_field(b"Proxy-Status", f'a3s-gateway; error={outcome.proxy_status}; details="{outcome.word}"'.encode("ascii"))]
    if outcome.status == 503:
        fields.append(make_field(b"Retry-After", b"1"))
    body = {"error": outcome.message, "reason": outcome.word, "request_id": request_id.decode("ascii")}
    return LocalResponse(outcome.status, fields, json.dumps(body).encode("ascii") + b"\n")


class Exchange(Record):
    """
    One request and its response.

    `request_ended` says that the whole request body has been received. `_replay` holds the body pieces sent so far while the request could
    still be sent again, `_pending` what has been received but could not be sent yet.
    """

    __slots__ = (
        "_client_is_slow",
        "_downstream",
        "_is_answered",
        "_is_waiting",
        "_pending",
        "_replay",
        "_replay_room",
        "_stale_retried",
        "_trailers",
        "_tried",
        "_upstream",
        "detail",
        "forwarding",
        "request_ended",
        "service",
    )

    _log = Logger()
    service: Service
    head: RequestHead | None

    def __init__(self, entrypoint: Entrypoint, downstream: IDownstream, peer: bytes, scheme: bytes, started: float) -> None:
        self.entrypoint = entrypoint
        self.peer = peer
        self.scheme = scheme
        self.protocol = b"HTTP/1.1"
        self.started = started
        self.head = None
        self.route = None
        self.backend = None
        self.outcome = None
        self.attempts = self.status = self.upstream_status = self.bytes_received = self.bytes_sent = 0
        self.leased = self.first_byte = self.ended = 0.0
        self.detail = ""
        self.request_ended = True
        self._downstream: Any = downstream
        self._upstream: Any = None
        self._client_is_slow = False
        self._is_answered = False
        self._is_waiting = False
        self._stale_retried = False
        self._pending = b""
        self._trailers: Sequence[Field] = ()
        self._replay: list[bytes] | None = None
        self._replay_room = 0
        self._tried: list[Backend] = []

    def __repr__(self) -> str:
        return f"<Exchange {self.head!r} to {self.backend!r}, attempt {self.attempts}>"

    # -- what the downstream reports

    def begin(self, head: RequestHead, forwarding: Forwarding, piece: bytes, ended: bool) -> None:
        """
        Take a request: its head and the first piece of its body, `ended` if there is no more.
        """
        self.head = head
        self.forwarding = forwarding
        self.request_ended = ended
        if piece:
            self.bytes_received = len(piece)
            self._pending = piece
        if not head.request_id:
            head.request_id = new_request_id()
        entrypoint: Entrypoint = self.entrypoint
        admin = entrypoint.admin
        if admin is not None and head.path.startswith(admin.prefix) and admin.admits(head, is_forwarded=forwarding.is_forwarded):
            self._ask(admin.ask(head))
            return
        route = entrypoint.table.match(head)
        if route is None:
            self.refuse(Outcome.NO_ROUTE)
            return
        self.route = route
        self.service = service = route.service
        if not ended:
            self._replay_room = service.settings.max_replay_bytes
        self._attempt()

    def request_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The next piece of the request body arrived.
        """
        self.bytes_received += len(piece)
        self.request_ended = ended
        self._trailers = trailers
        upstream = self._upstream
        if upstream is None:
            self._pending += piece
            if len(self._pending) >= _WAITING_BYTES and not ended:
                self._downstream.hold_request(WAITING_ROOM)
        else:
            self._send_piece(upstream, piece, ended)

    def downstream_lost(self, outcome: Outcome) -> None:
        """
        The client is gone, or its request broke off.
        """
        self._drop_upstream()
        self._finish(outcome)

    def request_refused(self, outcome: Outcome, detail: str) -> None:
        """
        The rest of the request is not acceptable: answer that if no answer has begun, else break off.
        """
        self.detail = detail
        self._drop_upstream()
        if self._is_answered:
            downstream = self._downstream
            self._finish(outcome)
            downstream.abort()
        else:
            self.refuse(outcome)

    def downstream_congested(self) -> None:
        """
        The client does not keep up with the response.
        """
        self._client_is_slow = True
        if self._upstream is not None:
            self._upstream.hold_response(CLIENT_SLOW)

    def downstream_drained(self) -> None:
        """
        The client has taken everything.
        """
        self._client_is_slow = False
        if self._upstream is not None:
            self._upstream.free_response(CLIENT_SLOW)

    # -- attempts

    def _attempt(self, *, fresh: bool = False) -> None:
        backend = self.service.choose(self, self._tried)
        if backend is None:
            self.refuse(Outcome.NO_BACKEND)
            return
        self._try(backend, fresh=fresh)

    def _try(self, backend: Backend, *, fresh: bool) -> None:
        self.backend = backend
        self.attempts += 1
        backend.in_flight += 1
        upstream = backend.pool.lease(self, fresh=fresh)
        head = self.head
        assert head is not None
        while upstream is not None and head.method not in IDEMPOTENT and upstream.was_used and upstream.is_stale():
            # This request must not be sent twice, so make sure of the connection before it is sent once.
            upstream.abort()
            upstream = backend.pool.lease(self)
        if upstream is None:
            # A waiting room; the pool keeps the time. Reading goes on until the room is full, so that a client that leaves is noticed.
            self._is_waiting = True
            return
        self.leased = self.started if self.attempts == 1 else monotonic()
        self._send(upstream)

    def upstream_leased(self, upstream: IUpstream) -> None:
        """
        The pool found a connection.
        """
        self._is_waiting = False
        self.leased = monotonic()
        self._downstream.free_request(WAITING_ROOM)
        self._send(upstream)

    def lease_failed(self, outcome: Outcome) -> None:
        """
        The pool found none: nothing was sent, so another backend may be tried whatever the request is.
        """
        self._is_waiting = False
        self._let_go_of_backend()
        assert self.backend is not None
        self._tried.append(self.backend)
        try:
            backend = self.service.choose(self, self._tried) if len(self._tried) < len(self.service.backends) else None
        except Exception:
            # A balancer may be a plugin, and nobody above us would answer the client.
            self._log.failure("bug in the balancer of service {name}", name=self.service.name)
            backend, outcome = None, Outcome.INTERNAL_ERROR
        if backend is None:
            self.refuse(outcome)
            return
        self.service.retries += 1
        self._try(backend, fresh=False)

    def _send(self, upstream: IUpstream) -> None:
        self._upstream = upstream
        replay = self._replay
        if replay is not None:
            # A second attempt: `_pending` came after what was sent before.
            piece = b"".join([*replay, self._pending])
            self._replay = None
        else:
            piece = self._pending
        self._pending = b""
        ended = self.request_ended
        if piece or not ended:
            self._replay = []
            self._replay_room = self.service.settings.max_replay_bytes
            self._remember(piece)
        trailers = self._trailers
        upstream.send_request(self, piece, ended and not trailers)
        if trailers and ended:
            upstream.send_end(trailers)
        if self._client_is_slow:
            # It has yet to take the response before this one.
            upstream.hold_response(CLIENT_SLOW)

    def _send_piece(self, upstream: IUpstream, piece: bytes, ended: bool) -> None:
        self._remember(piece)
        trailers = self._trailers
        if trailers:
            if piece:
                upstream.send_body(piece, False)
            upstream.send_end(trailers)
        else:
            upstream.send_body(piece, ended)

    def _remember(self, piece: bytes) -> None:
        if self._replay is not None and piece:
            self._replay_room -= len(piece)
            if self._replay_room < 0:
                self._replay = None
            else:
                self._replay.append(piece)

    def _may_send_again(self) -> bool:
        head = self.head
        assert head is not None
        return not self._is_answered and head.method in IDEMPOTENT and (self._replay is not None or not self.bytes_received)

    # -- what the upstream reports

    def interim_received(self, head: ResponseHead) -> None:
        """
        A 1xx response arrived.
        """
        self._downstream.send_interim(head)

    def head_received(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        The response arrived: its head and the first piece of its body. With `ended` the upstream has let go of the exchange already.
        """
        self.first_byte = monotonic()
        self.status = self.upstream_status = head.status
        self.bytes_sent = len(piece)
        self._is_answered = True
        self._replay = None
        downstream = self._downstream
        if ended:
            self._upstream = None
            self.ended = self.first_byte
            self._finish(Outcome.COMPLETED)
        downstream.send_head(head, piece, ended)

    def response_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The next piece of the response body arrived.
        """
        self.bytes_sent += len(piece)
        downstream = self._downstream
        if not ended:
            downstream.send_body(piece, False)
            return
        self._upstream = None
        self._finish(Outcome.COMPLETED)
        if trailers:
            if piece:
                downstream.send_body(piece, False)
            downstream.send_end(trailers)
        else:
            downstream.send_body(piece, True)

    def upstream_failed(self, outcome: Outcome, *, is_stale: bool, detail: str) -> None:
        """
        The upstream broke off and is gone. `is_stale` says that it was a pooled connection that had not answered anything.
        """
        self._upstream = None
        self.detail = detail
        if is_stale and not self._stale_retried and self._may_send_again():
            # The backend had closed it while it was idle; on a fresh connection the same backend will do.
            self._stale_retried = True
            self._let_go_of_backend()
            # What the lost connection did not take must not hold the next one up.
            self._downstream.free_request(UPSTREAM_SLOW)
            self.service.retries += 1
            assert self.backend is not None
            self._try(self.backend, fresh=True)
        elif self._is_answered:
            downstream = self._downstream
            self._finish(outcome)
            downstream.abort()
        else:
            self.refuse(outcome)

    def upstream_congested(self) -> None:
        """
        The backend does not keep up with the request body.
        """
        if not self.request_ended:
            self._downstream.hold_request(UPSTREAM_SLOW)

    def upstream_drained(self) -> None:
        """
        The backend has taken everything.
        """
        self._downstream.free_request(UPSTREAM_SLOW)

    # -- the gateway's own answers

    def _ask(self, answer: LocalResponse | Deferred[LocalResponse]) -> None:
        if isinstance(answer, LocalResponse):
            self.respond(answer, Outcome.DASHBOARD)
            return
        self._is_waiting = True

        def answered(response: LocalResponse) -> None:
            if self._downstream is not None:
                self.respond(response, Outcome.DASHBOARD)

        def failed(failure: Failure) -> None:
            self._log.failure("the gateway's own API failed", failure=failure)
            if self._downstream is not None:
                self.refuse(Outcome.INTERNAL_ERROR)

        answer.addCallbacks(answered, failed)

    def refuse(self, outcome: Outcome) -> None:
        """
        Answer with the gateway's own words for `outcome`.
        """
        self.respond(refusal(outcome, self.head.request_id if self.head is not None else b""), outcome)

    def respond(self, response: LocalResponse, outcome: Outcome) -> None:
        """
        Answer with `response` and end.
        """
        self._is_waiting = False
        self.status = response.status
        self._is_answered = True
        head = ResponseHead(response.status, status_line(response.status))
        head.fields = response.fields
        head.declared_length = head.length = len(response.body)
        piece = response.body
        if self.head is not None and self.head.method == b"HEAD":
            piece = b""
            head.length = 0
        self.bytes_sent = len(piece)
        downstream = self._downstream
        self._finish(outcome)
        downstream.send_head(head, piece, True)

    # -- the end

    def _drop_upstream(self) -> None:
        upstream = self._upstream
        if upstream is not None:
            self._upstream = None
            upstream.abort()
        elif self._is_waiting and self.backend is not None:
            self._is_waiting = False
            self.backend.pool.cancel(self)

    def _let_go_of_backend(self) -> None:
        backend = self.backend
        if backend is not None:
            backend.in_flight -= 1

    def _finish(self, outcome: Outcome) -> None:
        """
        The one end of every exchange. The caller tells the downstream afterwards.
        """
        if not self.ended:
            self.ended = monotonic()
        self.outcome = outcome
        backend = self.backend
        if backend is not None and backend not in self._tried:
            backend.in_flight -= 1
        self._downstream = None
        self._replay = None
        self._pending = b""
        self.entrypoint.observers.exchange_ended(self)
