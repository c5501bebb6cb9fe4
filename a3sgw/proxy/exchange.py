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

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.errors import Outcome
from a3sgw.interfaces import IDownstream, IUpstream
from a3sgw.message import IDEMPOTENT, Field, LocalResponse, RequestHead, ResponseHead, SwitchingResponse, get_field
from a3sgw.net.caller import Caller
from a3sgw.net.valve import CLIENT_SLOW, UPSTREAM_SLOW, WAITING_ROOM
from a3sgw.observe.record import Record
from a3sgw.policy.slots import Admission
from a3sgw.policy.sticky import Binding
from a3sgw.proxy.entrypoint import Entrypoint
from a3sgw.proxy.forwarding import Forwarding, request_fields, request_lines
from a3sgw.proxy.grpc import code_for, grpc_answer, status_fields
from a3sgw.proxy.passage import Passage
from a3sgw.proxy.upgrade import Takeover, Upgrade
from a3sgw.refusal import refusal
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.service import Service, ServiceSettings
from a3sgw.service.waiting import WaitingRoom
from a3sgw.wire.grpc import GRPC, parse_timeout
from a3sgw.wire.http1 import status_line
from a3sgw.wire.request_id import new_request_id

if TYPE_CHECKING:
    from a3sgw.proxy.hedge import Hedge
    from a3sgw.proxy.http1_client import Http1Client
    from a3sgw.proxy.mirror import Copy

__all__ = ["Exchange", "new_request_id"]

_WAITING_BYTES: Final = 65536
_LONGEST_DEADLINE: Final = 1e7
"""Seconds, some four months: a caller with a later deadline has none."""


class Exchange(Record):
    """
    One request and its response.

    `request_ended` says that the whole request body has been received. `_replay` holds the body pieces sent so far while the request could
    still be sent again, `_pending` what has been received but could not be sent yet. `_cancel_wait` ends the waiting for whatever is waited
    for. `_was_sent` says that an attempt came to sending; `_copy` is what followed it to a shadow service, and `_hedge` watches whether a
    second one is needed beside it. `_local_outcome` is why the answer is the gateway's own, if it is. `stale_retried` says that one of the
    `attempts` was lost on a kept connection that the backend had closed, and made good.

    For middlewares: `head`, `forwarding` and `response_header_timeout` (seconds for one attempt) may be changed until the request is sent;
    `notes` is for what they want to remember, by middleware.
    """

    __slots__ = (
        "_cancel_wait",
        "_client_is_slow",
        "_copy",
        "_downstream",
        "_hedge",
        "_holds_backend",
        "_is_answered",
        "_local_outcome",
        "_passage",
        "_pending",
        "_place",
        "_replay",
        "_replay_is_lost",
        "_replay_room",
        "_ticket",
        "_total_timer",
        "_trailers",
        "_tried",
        "_upstream",
        "_was_sent",
        "binding",
        "bound_service",
        "detail",
        "forwarding",
        "notes",
        "request_ended",
        "response_header_timeout",
        "service",
        "settings",
        "stale_retried",
    )

    _log = Logger()
    service: Service
    settings: ServiceSettings
    head: RequestHead | None
    notes: dict[Any, Any]
    response_header_timeout: float

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
        self.answered_by = self.revision = None
        self.attempts = self.passed = self.status = self.upstream_status = self.bytes_received = self.bytes_sent = 0
        self.leased = self.first_byte = self.ended = 0.0
        self.detail = ""
        self.request_ended = True
        self._downstream: Any = downstream
        self._upstream: Any = None
        self._copy: Copy | None = None
        self._hedge: Hedge | None = None
        self._was_sent = False
        self._client_is_slow = False
        self._cancel_wait: Callable[[], object] | None = None
        self._holds_backend = False
        self._place: WaitingRoom | None = None
        self._ticket = -1
        self._total_timer: Any = None
        self.stale_retried = False
        self.binding: Binding | None = None
        self.bound_service: Service | None = None
        self._is_answered = False
        self._local_outcome: Outcome | None = None
        self._passage: Passage | None = None
        self._pending = b""
        self._trailers: Sequence[Field] = ()
        self._replay: list[bytes] | None = None
        self._replay_is_lost = False
        self._replay_room = 0
        self._tried: list[Backend] = []

    def __repr__(self) -> str:
        return f"<Exchange {self.head!r} to {self.backend!r}, attempt {self.attempts}>"

    @property
    def caller(self) -> Caller:
        """
        Who is at the other end of the client's connection.
        """
        caller: Caller = self._downstream.caller
        return caller

    @property
    def connect_timeout(self) -> float:
        """
        How long a connection to a server may take to be made, or come free, in seconds.
        """
        return self.settings.connect_timeout

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
        self.service = route.service
        self.settings = settings = route.settings
        self.response_header_timeout = settings.response_header_timeout
        if settings.total_timeout is not None:
            self._total_timer = entrypoint.later(settings.total_timeout, self._total_time_over, Outcome.EXCHANGE_TIMEOUT)
        if head.grpc:
            self._heed_deadline(head)
        chain = route.chain
        if chain is None:
            self.choose_and_try()
        else:
            self.notes = {}
            self._passage = Passage(self, chain)
            self._passage.enter()

    def _heed_deadline(self, head: RequestHead) -> None:
        """
        Give the exchange no more time than the caller of a gRPC method has, and the server all of it to begin its answer.
        """
        timeout = parse_timeout(get_field(head.fields, b"grpc-timeout") or b"")
        if timeout is None:
            return
        if timeout > self.response_header_timeout:
            self.response_header_timeout = timeout
        total = self.settings.total_timeout
        if timeout > _LONGEST_DEADLINE or (total is not None and total <= timeout):
            return
        if self._total_timer is not None:
            self._total_timer.cancel()
        self._total_timer = self.entrypoint.later(timeout, self._total_time_over, Outcome.DEADLINE_EXCEEDED)

    def request_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The next piece of the request body arrived.
        """
        self.bytes_received += len(piece)
        self.request_ended = ended
        passage = self._passage
        if passage is not None:
            passed = passage.body_received(piece, ended)
            if passed is None:
                return
            piece = passed
            if trailers:
                trailers = passage.allowed_trailers(trailers)
        self._trailers = trailers
        upstream = self._upstream
        if upstream is None:
            self._pending += piece
            if len(self._pending) >= _WAITING_BYTES and not ended:
                self._downstream.hold_request(WAITING_ROOM)
        else:
            self._send_piece(upstream, piece, ended)
        if self._copy is not None:
            self._copy.feed(piece, ended, trailers)

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
        self._give_up(outcome)

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

    def choose_and_try(self) -> None:
        """
        Choose a server and send the request to it, or begin to wait for a connection.
        """
        backend = self._choose()
        if backend is not None:
            self._try(backend)

    def _choose(self) -> Backend | None:
        """
        Return the server for the next attempt; if there is none, answer that.
        """
        service = self.service
        room = service.traits.room
        if room is not None and self._place is not room and not self._has_place(room):
            return None
        passage = self._passage
        outcome = Outcome.NO_BACKEND
        excluded: Sequence[Backend] = ()
        if passage is not None and passage.judges_backends:
            excluded, outcome = passage.excluded(service.usable)
        backend = service.choose(self, [*self._tried, *excluded] if excluded else self._tried)
        if backend is None and self._tried:
            # Everybody has been tried once, and a middleware wants another round.
            self._tried = []
            backend = service.choose(self, excluded)
        if backend is None:
            if self._fails_over():
                return self._choose()
            self.refuse(outcome)
        return backend

    def _has_place(self, room: WaitingRoom) -> bool:
        """
        Take a place in the waiting room of the service; if there is none, go elsewhere, or begin to wait, or answer that.
        """
        if not room.has_place and self._fails_over():
            self.choose_and_try()
            return False
        admission = room.enter(self)
        if admission is Admission.ACQUIRED:
            self._place = room
            return True
        if admission is Admission.QUEUED:
            self._cancel_wait = partial(room.leave, self)
        elif self.service.can_serve:
            self.refuse(Outcome.BUFFER_FULL if room.waiting else Outcome.CONCURRENCY_LIMIT)
        else:
            self.refuse(Outcome.BUFFER_FULL if room.waiting else Outcome.NO_BACKEND)
        return False

    def place_given(self) -> None:
        """
        A place in the waiting room came free.
        """
        self._cancel_wait = None
        self._place = self.service.traits.room
        self._try_again(is_retry=False)

    def waited_in_vain(self, outcome: Outcome) -> None:
        """
        No place came free in time.
        """
        self._cancel_wait = None
        self.refuse(outcome)

    def _leave_place(self) -> None:
        place = self._place
        if place is not None:
            self._place = None
            place.give_back()

    def _fails_over(self) -> bool:
        """
        Go on with the service that steps in, if there is one that can serve; tell whether there is.
        """
        service = self.service
        other = service.next_to_serve()
        if other is None:
            return False
        service.failovers += 1
        self._leave_place()
        self.service = other
        self.settings = other.settings
        self.response_header_timeout = min(self.response_header_timeout, other.settings.response_header_timeout)
        self.revision = None
        self._tried = []
        return True

    def _try(self, backend: Backend) -> None:
        self.backend = backend
        backend.acquire()
        self._holds_backend = True
        if backend.watch is not None:
            self._ticket = backend.watch.begin()
        passage = self._passage
        if passage is not None and passage.judges_backends:
            passage.attempt_begun(backend)
        self._lease(backend, fresh=False)

    def _lease(self, backend: Backend, *, fresh: bool) -> None:
        self.attempts += 1
        head = self.head
        assert head is not None
        pool = backend.pool if not head.grpc else backend.pool_for(head)
        upstream = pool.lease(self, fresh=fresh)
        while upstream is not None and head.method not in IDEMPOTENT and upstream.was_used and upstream.is_stale():
            # This request must not be sent twice, so make sure of the connection before it is sent once.
            upstream.abort()
            upstream = pool.lease(self)
        if upstream is None:
            # A waiting room; the pool keeps the time. Reading goes on until the room is full, so that a client that leaves is noticed.
            self._cancel_wait = partial(pool.cancel, self)
            return
        self.leased = self.started if self.attempts == 1 else monotonic()
        self._send(upstream)

    def upstream_leased(self, upstream: IUpstream) -> None:
        """
        The pool found a connection.
        """
        self._cancel_wait = None
        self.leased = monotonic()
        self._send(upstream)

    def lease_failed(self, outcome: Outcome) -> None:
        """
        The pool found none: nothing was sent, so another backend may be tried whatever the request is.
        """
        self._cancel_wait = None
        if self._hedge is not None and self._hedge.takes_over(outcome):
            return
        assert self.backend is not None
        self._tried.append(self.backend)
        self._let_go_of_backend(outcome, 0)
        try:
            if len(self._tried) < len(self.service.backends):
                backend = self.service.choose(self, [*self._tried, *self._excluded()])
                if backend is not None:
                    self.service.retries += 1
                    self._try(backend)
                    return
            if self._fails_over():
                self.choose_and_try()
            elif not self._tries_again(outcome, 0):
                self.refuse(outcome)
        except Exception:
            # A balancer may be a plugin, and nobody above us would answer the client.
            self._log.failure("bug in the balancer of service {name}", name=self.service.name)
            self._give_up(Outcome.INTERNAL_ERROR)

    def _excluded(self) -> Sequence[Backend]:
        passage = self._passage
        return passage.excluded(self.service.usable)[0] if passage is not None and passage.judges_backends else ()

    def _tries_again(self, outcome: Outcome, status: int) -> bool:
        """
        After a failed attempt, ask the middlewares whether to repeat it, and begin to wait for that if one says so.
        """
        passage = self._passage
        if passage is None or self._is_answered or self._replay_is_lost:
            return False
        delay = passage.pause_before_next(outcome, status)
        if delay is None:
            return False
        self._drop_upstream()
        if self.backend is not None and self.backend not in self._tried:
            self._tried.append(self.backend)
        self._let_go_of_backend(outcome, status)
        # What the lost connection did not take must not hold the next one up.
        self._downstream.free_request(UPSTREAM_SLOW)
        self.upstream_status = 0
        self.first_byte = 0.0
        self._cancel_wait = self.entrypoint.later(delay, self._try_again).cancel
        return True

    def _try_again(self, *, is_retry: bool = True) -> None:
        self._cancel_wait = None
        self.service.retries += is_retry
        try:
            self.choose_and_try()
        except Exception:
            self._log.failure("bug in the balancer of service {name}", name=self.service.name)
            self._give_up(Outcome.INTERNAL_ERROR)

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
            self._replay_room = self.settings.max_replay_bytes
            self._remember(piece)
        trailers = self._trailers
        upstream.send_request(self, piece, ended and not trailers)
        if trailers and ended:
            upstream.send_end(trailers)
        if self._client_is_slow:
            # It has yet to take the response before this one.
            upstream.hold_response(CLIENT_SLOW)
        if not ended:
            self._downstream.free_request(WAITING_ROOM)
        if not self._was_sent:
            self._was_sent = True
            traits = self.service.traits
            if traits.mirror is not None and not self._upgrades:
                self._copy = traits.mirror.copy(self, piece, ended, trailers)
            if traits.hedging is not None and not self._upgrades:
                self._hedge = traits.hedging.begin(self, self._passage)

    @property
    def _upgrades(self) -> bool:
        # Whoever has two conversations in another protocol cannot give one up unnoticed.
        return self.head is not None and bool(self.head.upgrade)

    def request_lines(self, address: BackendAddress) -> list[bytes]:
        """
        Return the request as HTTP/1 lines for the server at `address`, all but the framing of its body.
        """
        head = self.head
        assert head is not None
        return request_lines(head, self.forwarding, address, pass_host_header=self.settings.pass_host_header)

    def request_fields(self, address: BackendAddress) -> list[tuple[bytes, bytes]]:
        """
        Return the request as HTTP/2 header fields for the server at `address`.
        """
        head = self.head
        assert head is not None
        return request_fields(head, self.forwarding, address, pass_host_header=self.settings.pass_host_header)

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
                self._replay_is_lost = True
            else:
                self._replay.append(piece)

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
        self.upstream_status = head.status
        if ended:
            self._upstream = None
            if self.head is not None and self.head.grpc:
                self._note_status(head.fields)
        if self._hedge is not None:
            self._hedge.answered(head.status)
        if self._ticket >= 0:
            self._end_watch(Outcome.COMPLETED, head.status)
        traits = self.service.traits
        if traits.sticky is not None and self.backend is not None:
            traits.sticky.bind(head, self.backend, self.binding, self.forwarding.scheme)
        passage = self._passage
        if head.status >= 400:
            if passage is not None and self._tries_again(Outcome.COMPLETED, head.status):
                return
            if head.status in traits.failover_statuses and self._goes_elsewhere(head.status):
                return
        if passage is None:
            self.send_response(head, piece, ended)
        else:
            passage.response_received(head, piece, ended)

    def protocol_switched(self, upstream: Http1Client, head: ResponseHead) -> None:
        """
        The response is a 101 that the request asked for: what follows it is not HTTP.
        """
        self._downstream = Upgrade(self, self._downstream, upstream)
        self.head_received(head, b"", False)

    def tunnel_begun(self) -> None:
        """
        The client was told; neither side reports to the exchange any more. What bounds an exchange does not bound a tunnel.
        """
        self._upstream = None
        if self._total_timer is not None:
            self._total_timer.cancel()
            self._total_timer = None

    def tunnel_ended(self, received: int, sent: int, outcome: Outcome) -> None:
        """
        The tunnel is over, after so many bytes from the client and from the backend.
        """
        if self._downstream is None:
            # A bug has ended the exchange before.
            return
        self.bytes_received = received
        self.bytes_sent = sent
        self._finish(outcome)

    def _goes_elsewhere(self, status: int) -> bool:
        """
        After an answer that the service does not want to give: ask the service that steps in, if the request may be repeated.
        """
        head = self.head
        assert head is not None
        if head.method not in IDEMPOTENT or self._is_answered or self._replay_is_lost or self.service.next_to_serve() is None:
            return False
        self._drop_upstream()
        self._let_go_of_backend(Outcome.COMPLETED, status)
        # What the lost connection did not take must not hold the next one up.
        self._downstream.free_request(UPSTREAM_SLOW)
        self.upstream_status = 0
        self.first_byte = 0.0
        self._fails_over()
        self.choose_and_try()
        return True

    def send_response(self, head: ResponseHead, piece: bytes, ended: bool, trailers: Sequence[Field] = ()) -> None:
        """
        Send the response, which every middleware has seen, to the client. `trailers` come only with one that was kept until it was whole.
        """
        self.status = head.status
        self.bytes_sent = len(piece)
        self._is_answered = True
        self._replay = None
        downstream = self._downstream
        if ended:
            self._finish(self._local_outcome or Outcome.COMPLETED)
        if trailers:
            downstream.send_head(head, piece, False)
            downstream.send_end(trailers)
        else:
            downstream.send_head(head, piece, ended)

    def response_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The next piece of the response body arrived.
        """
        if ended:
            self._upstream = None
            if trailers and self.head is not None and self.head.grpc:
                self._note_status(trailers)
        passage = self._passage
        if passage is not None:
            try:
                changed = passage.response_body_received(piece, ended, trailers)
            except Exception:
                self._log.failure("bug in a body filter")
                self._give_up(Outcome.INTERNAL_ERROR)
                return
            if changed is None or not (changed or ended):
                return
            piece = changed
            if passage.takes_trailers:
                trailers = ()
        self.bytes_sent += len(piece)
        downstream = self._downstream
        if not ended:
            downstream.send_body(piece, False)
            return
        self._finish(self._local_outcome or Outcome.COMPLETED)
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
        if self._hedge is not None and self._hedge.takes_over(Outcome.CLIENT_CLOSED if is_stale else outcome):
            return
        self.detail = detail
        head = self.head
        assert head is not None
        may_repeat = not self._is_answered and not self._replay_is_lost and not self.upstream_status
        if is_stale and not self.stale_retried and may_repeat and (head.method in IDEMPOTENT or not outcome.was_sent):
            # The backend had closed it while it was idle, which is no fault; on a fresh connection the same attempt goes on.
            self.stale_retried = True
            assert self.backend is not None
            # What the lost connection did not take must not hold the next one up.
            self._downstream.free_request(UPSTREAM_SLOW)
            self.service.retries += 1
            self._lease(self.backend, fresh=outcome.was_sent)
        elif not outcome.was_sent and may_repeat:
            # Nobody has looked at it, and here nobody will.
            self._downstream.free_request(UPSTREAM_SLOW)
            self.lease_failed(outcome)
        elif self.upstream_status or not self._tries_again(outcome, 0):
            # After its head a response is not taken back, though a hook may keep it yet.
            self._give_up(outcome)

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
            self.respond(answer, answer.outcome or Outcome.DASHBOARD)
            return

        def answered(response: LocalResponse) -> None:
            if self._downstream is not None:
                self.respond(response, Outcome.DASHBOARD)

        def failed(failure: Failure) -> None:
            self._log.failure("the gateway's own API failed", failure=failure)
            if self._downstream is not None:
                self.refuse(Outcome.INTERNAL_ERROR)

        answer.addCallbacks(answered, failed)

    def own_refusal(self, outcome: Outcome) -> LocalResponse:
        """
        Return the gateway's own words for `outcome`.
        """
        return refusal(outcome, self.head.request_id if self.head is not None else b"")

    def refuse(self, outcome: Outcome) -> None:
        """
        Answer with the gateway's own words for `outcome`.
        """
        self.respond(self.own_refusal(outcome), outcome)

    def respond(self, response: LocalResponse, outcome: Outcome) -> None:
        """
        Answer with `response` and end.
        """
        self._local_outcome = outcome
        if self._hedge is not None:
            self._hedge.close()
        head, piece = self._as_response(response)
        if self._passage is None:
            self.send_response(head, piece, True)
        else:
            self._passage.response_received(head, piece, True)

    def _as_response(self, response: LocalResponse) -> tuple[ResponseHead, bytes]:
        if self.head is not None and self.head.grpc and response.status >= 300:
            self.grpc_status = b"%d" % code_for(response.outcome, response.status)
            response = grpc_answer(self.head.grpc, response)
        head = ResponseHead(response.status, status_line(response.status))
        head.fields = response.fields
        head.has_date = any(field[0] == b"date" for field in response.fields)
        if response.status in (204, 304):
            # They have no body, whoever says so.
            return head, b""
        head.declared_length = head.length = len(response.body)
        if self.head is not None and self.head.method == b"HEAD":
            head.length = 0
            return head, b""
        return head, response.body

    def _give_up(self, outcome: Outcome) -> None:
        """
        Answer `outcome` if no answer has begun, else break off so that the client can tell.
        """
        self._drop_upstream()
        if self._is_answered:
            break_off = self._breaking_off(outcome)
            self._finish(outcome)
            break_off()
        else:
            if self._passage is not None:
                self._passage.stop_waiting()
            self.refuse(outcome)

    def _note_status(self, fields: Sequence[Field]) -> None:
        status = get_field(fields, b"grpc-status")
        if status is not None and status.isdigit():
            # As a number has it.
            self.grpc_status = b"%d" % int(status[:3])

    def _breaking_off(self, outcome: Outcome) -> Callable[[], object]:
        """
        Return how to end an answer that is not complete. A gRPC client expects a status after the body, which can say so.
        """
        downstream = self._downstream
        head = self.head
        if head is None or head.grpc != GRPC or self._local_outcome is not None:
            return downstream.abort  # type: ignore[no-any-return]
        trailers = status_fields(code_for(outcome, outcome.status or 500), outcome.message)
        self._note_status(trailers)
        passage = self._passage
        if passage is not None and passage.takes_trailers:
            return partial(downstream.send_body, passage.last_words(trailers), True)
        return partial(downstream.send_end, trailers) if self.protocol == b"HTTP/2.0" else downstream.abort

    # -- what middlewares cause

    @property
    def waiting_body(self) -> bytes:
        """
        What of the request's body has arrived and was not sent yet.
        """
        return self._pending

    @waiting_body.setter
    def waiting_body(self, body: bytes) -> None:
        self._pending = body

    def answer_instead(self, response: LocalResponse) -> None:
        """
        A middleware answers. If the response has begun already, break off.
        """
        outcome = response.outcome or Outcome.ANSWERED
        if self._is_answered:
            self._give_up(outcome)
        else:
            self._drop_upstream()
            if self._passage is not None:
                self._passage.stop_waiting()
            if isinstance(response, SwitchingResponse):
                self._take_over(response, outcome)
            else:
                self.respond(response, outcome)

    def _take_over(self, response: SwitchingResponse, outcome: Outcome) -> None:
        """
        A middleware answers 101 itself.
        """
        self._downstream = Takeover(self, self._downstream, response)
        self._local_outcome = outcome
        head = ResponseHead(response.status, status_line(response.status))
        head.fields = response.fields
        assert self._passage is not None
        self._passage.response_received(head, b"", False)

    def replace_response(self, response: LocalResponse) -> tuple[ResponseHead, bytes]:
        """
        A middleware puts `response` in the place of the one that came; give the upstream up if it is still sending.
        """
        self._drop_upstream()
        if response.outcome is not None:
            self._local_outcome = response.outcome
        return self._as_response(response)

    def hold_upstream(self) -> None:
        """
        A middleware makes the response wait.
        """
        if self._upstream is not None:
            self._upstream.hold_response(WAITING_ROOM)

    def free_upstream(self) -> None:
        """
        The response need not wait any longer.
        """
        if self._upstream is not None:
            self._upstream.free_response(WAITING_ROOM)

    def hook_failed(self, failure: Failure) -> None:
        """
        Something went wrong while nobody above could notice.
        """
        self._log.failure("bug in an exchange", failure=failure)
        if self._downstream is not None:
            self._give_up(Outcome.INTERNAL_ERROR)

    # -- what hedging causes

    @property
    def may_be_hedged(self) -> bool:
        """
        Whether the whole request could be sent once more, and nobody but the server lets the exchange wait.
        """
        return self.request_ended and not self._replay_is_lost and not self._client_is_slow

    def others(self) -> list[Backend]:
        """
        Return the servers that a second attempt, beside the one under way, could go to.
        """
        first = self.backend
        assert first is not None
        avoided = [first, *self._tried, *self._excluded()]
        return [backend for backend in self.service.usable if backend not in avoided and backend.revision == first.revision]

    def repeat(self, upstream: IUpstream, lessee: Hedge) -> None:
        """
        Send the whole request on `upstream`, whose reports go to `lessee`.
        """
        trailers = self._trailers
        upstream.send_request(lessee, b"".join([*(self._replay or ()), self._pending]), not trailers)
        if trailers:
            upstream.send_end(trailers)

    def adopt(self, hedge: Hedge, outcome: Outcome) -> None:
        """
        Go on with another attempt in the place of the one under way, which is given up or has ended with `outcome`.
        """
        self._drop_upstream()
        assert self.backend is not None
        self._tried.append(self.backend)
        self._let_go_of_backend(outcome, 0)
        # What the lost connection did not take must not hold the next request up.
        self._downstream.free_request(UPSTREAM_SLOW)
        self.backend, self._ticket, self.leased = hedge.backend, hedge.ticket, hedge.leased
        self._holds_backend = True
        self._upstream = hedge.upstream
        if hedge.is_waiting:
            self._cancel_wait = hedge.cancel
        elif self._client_is_slow and hedge.upstream is not None:
            hedge.upstream.hold_response(CLIENT_SLOW)

    # -- the end

    def _drop_upstream(self) -> None:
        if self._hedge is not None:
            self._hedge.close()
        upstream = self._upstream
        cancel = self._cancel_wait
        if upstream is not None:
            self._upstream = None
            upstream.abort()
        elif cancel is not None:
            self._cancel_wait = None
            cancel()

    def _let_go_of_backend(self, outcome: Outcome, status: int) -> None:
        backend = self.backend
        if self._holds_backend and backend is not None:
            self._holds_backend = False
            backend.release()
            if self._ticket >= 0:
                self._end_watch(outcome, status)
            passage = self._passage
            if passage is not None and passage.judges_backends:
                passage.attempt_ended(backend, outcome, status)

    def _end_watch(self, outcome: Outcome, status: int) -> None:
        backend, ticket = self.backend, self._ticket
        self._ticket = -1
        if backend is not None and backend.watch is not None:
            backend.watch.end(ticket, outcome, status, monotonic() - self.leased if status or outcome.was_sent else 0.0)

    def _total_time_over(self, outcome: Outcome) -> None:
        self._total_timer = None
        try:
            self._give_up(outcome)
        except Exception:
            self._log.failure("bug at the end of an exchange")

    def _finish(self, outcome: Outcome) -> None:
        """
        The one end of every exchange. The caller tells the downstream afterwards.
        """
        if not self.ended:
            self.ended = monotonic()
        self.outcome = outcome
        self._let_go_of_backend(outcome, self.upstream_status)
        if self._place is not None:
            self._leave_place()
        if self._total_timer is not None:
            self._total_timer.cancel()
        if self._copy is not None:
            self._copy.exchange_ended()
        passage = self._passage
        if passage is not None:
            passage.complete()
            # The two hold each other: else both would stay until the garbage collector comes, which costs more than the passage itself.
            self._passage = None
        self._hedge = None
        self._downstream = None
        self._replay = None
        self._pending = b""
        self.entrypoint.observers.exchange_ended(self)
