"""
Copies of requests for a shadow service, whose answers are thrown away.

A `Mirror` decides which requests of a service are copied: an exact percentage, evenly spread. A `Copy` is one of them. It leaves with the
request as it is sent, after all middlewares, and follows its body piece by piece; the client and the server that answers notice nothing of
it. What a copy costs is bounded: how many there are, how much of a body waits for the shadow, and how long they take. Nobody ever waits
for one, and nothing is done for one before what the others wrote in the same event has been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import ILessee, IUpstream
from a3sgw.message import Field, ResponseHead, make_field, remove_fields
from a3sgw.net.deadline import Deadlines
from a3sgw.policy.split import Sampler
from a3sgw.proxy.forwarding import request_fields, request_lines
from a3sgw.proxy.lessee import Lessee
from a3sgw.service.backend import BackendAddress
from a3sgw.service.service import Service

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Copy", "Mirror", "MirrorTally"]

P = ParamSpec("P")

_MARK: Final = make_field(b"X-Shadow", b"true")


@attrs.define(slots=True)
class MirrorTally:
    """
    What became of the requests that were to be copied; each counts once, when that is known.

    `sent` were answered, whatever the answer. `skipped` found too many copies under way. `dropped` lagged too far behind. `failed` found no
    server, or none that answered in order and in time. `aborted` were not the shadow's fault: the request broke off before it was whole, or
    a reload changed the mirror.
    """

    sent: int = 0
    skipped: int = 0
    dropped: int = 0
    failed: int = 0
    aborted: int = 0


class Mirror:
    """
    The copies of one service's requests. `target` names the shadow service; neither its own mirror, nor its failover, nor its waiting room
    matter to copies.

    `later` begins a timed call. At most `max_in_flight` copies are under way, each for at most `timeout` seconds; of the body of each at
    most `max_body_bytes` wait, besides what its connection is sending.
    """

    _log = Logger()

    def __init__(
        self,
        target: str,
        sampler: Sampler,
        tally: MirrorTally,
        deadlines: Deadlines,
        later: Callable[..., Any],
        *,
        max_in_flight: int,
        max_body_bytes: int,
        timeout: float,
    ) -> None:
        self.target = target
        self.tally = tally
        self.max_in_flight = max_in_flight
        self.max_body_bytes = max_body_bytes
        self.timeout = timeout
        self._sampler = sampler
        self._deadlines = deadlines
        self._later = later
        self._shadow: Service | None = None
        self._copies: set[Copy] = set()
        self._waiting: list[Copy] = []

    def __repr__(self) -> str:
        return f"<Mirror to {self.target}, {self._sampler!r}, {len(self._copies)} under way>"

    def begin(self, services: Mapping[str, Service]) -> None:
        """
        Find the shadow among the services of a generation. Called after each reload.
        """
        self._shadow = services.get(self.target)

    def retire(self) -> None:
        """
        Give up what is under way, and copy nothing any more.
        """
        self._shadow = None
        for each in list(self._copies):
            each.abort()

    def copy(self, exchange: Exchange, piece: bytes, ended: bool, trailers: Sequence[Field]) -> Copy | None:
        """
        Return a copy of the request that `exchange` is sending, if there is to be one. Never raises.

        The copy begins like the request does, with `piece`; whatever is sent after it must be fed to the copy.
        """
        shadow = self._shadow
        if shadow is None or not self._sampler.take():
            return None
        if len(self._copies) >= self.max_in_flight:
            self.tally.skipped += 1
            return None
        made = Copy(self, shadow, exchange)
        self._copies.add(made)
        made.deadline = self._deadlines.seconds() + self.timeout
        self._deadlines.add(made)
        made.feed(piece, ended, trailers)
        if not self._waiting:
            self._later(0, self._start)
        self._waiting.append(made)
        return made

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.start()

    def ended(self, made: Copy) -> None:
        """
        One that is under way is over.
        """
        self._copies.discard(made)
        self._deadlines.discard(made)


def _fenced(method: Callable[Concatenate[Copy, P], None]) -> Callable[Concatenate[Copy, P], None]:
    """
    Let nothing that goes wrong with a copy reach the exchange, the pool or the connection which called it.
    """

    @wraps(method)
    def call(self: Copy, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            self.broke()

    return call


@implementer(ILessee)
class Copy(Lessee):
    """
    One request on its way to a shadow service.

    `_behind` is what was fed and could not be sent yet; `_owes` says that there is something to send, be it only the end of the body. The
    connection of a shadow that does not keep up takes no more than it was given before that showed, so no more than that and `_behind` is
    ever in memory. `_end` is the one end of every copy.
    """

    __slots__ = (
        "_behind",
        "_forwarding",
        "_is_congested",
        "_is_over",
        "_mirror",
        "_owes",
        "_request_ended",
        "_trailers",
        "deadline",
    )

    _log = Logger()

    def __init__(self, mirror: Mirror, shadow: Service, exchange: Exchange) -> None:
        head = exchange.head
        assert head is not None
        # Of what was sent nothing is kept.
        super().__init__(shadow, head, may_be_sent_twice=False)
        self.entrypoint = exchange.entrypoint
        self.peer = exchange.peer
        self.scheme = exchange.scheme
        self.protocol = exchange.protocol
        self.started = exchange.started
        self.deadline = 0.0
        self._forwarding = exchange.forwarding
        self._mirror = mirror
        self._behind = bytearray()
        self._owes = True
        self._is_congested = False
        self._is_over = False
        self._request_ended = False
        self._trailers: Sequence[Field] = ()

    # -- what the exchange says

    @_fenced
    def feed(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The client's request goes on with `piece`, and ends with `trailers` if it `ended`.
        """
        if self._is_over:
            return
        self._request_ended = ended
        self._trailers = trailers
        if self._upstream is not None and not self._is_congested:
            self._send_piece(piece)
            return
        self._owes = True
        if len(self._behind) + len(piece) > self._mirror.max_body_bytes:
            self._mirror.tally.dropped += 1
            self._end(Outcome.CLIENT_CLOSED, "the shadow takes the body too slowly")
        else:
            self._behind += piece

    @_fenced
    def exchange_ended(self) -> None:
        """
        There will be no more to feed. A request that is whole goes on without its exchange.
        """
        if not self._request_ended:
            self.abort()

    # -- what the mirror says

    @_fenced
    def start(self) -> None:
        """
        Look for a server.
        """
        if not self._is_over:
            assert self.head is not None
            self.head = copy(self.head)
            self.head.fields = list(self.head.fields)
            remove_fields(self.head.fields, b"x-shadow")
            self.head.fields.append(_MARK)
            self._choose_and_try(Outcome.NO_BACKEND)

    @_fenced
    def abort(self) -> None:
        """
        Give up what cannot be finished, through nobody's fault.
        """
        if not self._is_over:
            self._mirror.tally.aborted += 1
            self._end(Outcome.CLIENT_CLOSED, "given up")

    @_fenced
    def deadline_passed(self) -> None:
        """
        The time is over. That speaks against the server only if it was sent the whole request.
        """
        is_late = self._upstream is not None and not self._owes
        self._fail(Outcome.RESPONSE_TIMEOUT if is_late else Outcome.CLIENT_CLOSED, f"no whole answer within {self._mirror.timeout:g} s")

    # -- what the pool reports

    @_fenced
    def upstream_leased(self, upstream: IUpstream) -> None:
        """
        There is a connection.
        """
        super().upstream_leased(upstream)

    @_fenced
    def lease_failed(self, outcome: Outcome) -> None:
        """
        There is none.
        """
        super().lease_failed(outcome)

    def _send(self, upstream: IUpstream) -> None:
        piece = bytes(self._behind)
        self._behind.clear()
        self._owes = not self._request_ended
        ends = self._request_ended and not self._trailers
        upstream.send_request(self, piece, ends)
        if self._request_ended and not ends:
            upstream.send_end(self._trailers)

    # -- what the upstream reports

    def request_lines(self, address: BackendAddress) -> list[bytes]:
        """
        Return the request as HTTP/1 lines for the server at `address`, all but the framing of its body.
        """
        assert self.head is not None
        return request_lines(self.head, self._forwarding, address, pass_host_header=self.settings.pass_host_header)

    def request_fields(self, address: BackendAddress) -> list[tuple[bytes, bytes]]:
        """
        Return the request as HTTP/2 header fields for the server at `address`.
        """
        assert self.head is not None
        return request_fields(self.head, self._forwarding, address, pass_host_header=self.settings.pass_host_header)

    @_fenced
    def head_received(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        The answer arrived, or begins to.
        """
        if ended:
            # It may be somebody else's already.
            self._upstream = None
        self.upstream_status = head.status
        assert self.backend is not None
        self._end_watch(self.backend, Outcome.COMPLETED)
        if ended:
            self._answered()

    @_fenced
    def response_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The answer goes on.
        """
        if ended:
            self._upstream = None
            self._answered()

    @_fenced
    def upstream_failed(self, outcome: Outcome, *, is_stale: bool, detail: str) -> None:
        """
        The connection broke.
        """
        self._upstream = None
        # One that the server had closed while it was idle is no fault of it.
        self._fail(Outcome.CLIENT_CLOSED if is_stale else outcome, detail or outcome.message)

    @_fenced
    def upstream_congested(self) -> None:
        """
        The shadow does not keep up with the body. That is its own affair: the client is not held back.
        """
        self._is_congested = True

    @_fenced
    def upstream_drained(self) -> None:
        """
        The shadow has taken everything.
        """
        self._is_congested = False
        if self._owes:
            piece = bytes(self._behind)
            self._behind.clear()
            self._send_piece(piece)

    def _send_piece(self, piece: bytes) -> None:
        self._owes = not self._request_ended
        if self._trailers:
            if piece:
                self._upstream.send_body(piece, False)
            self._upstream.send_end(self._trailers)
        elif piece or self._request_ended:
            self._upstream.send_body(piece, self._request_ended)

    # -- the end

    def _answered(self) -> None:
        self._mirror.tally.sent += 1
        self._end(Outcome.COMPLETED, "")

    def _fail(self, outcome: Outcome, detail: str) -> None:
        self._mirror.tally.failed += 1
        self._end(outcome, detail)

    def broke(self) -> None:
        """
        There is a bug. It costs this copy, and is reported.
        """
        self._log.failure("bug in {copy!r}", copy=self)
        if not self._is_over:
            try:
                self._fail(Outcome.INTERNAL_ERROR, "bug")
            except Exception:
                self._log.failure("bug at the end of {copy!r}", copy=self)

    def _end(self, outcome: Outcome, detail: str) -> None:
        """
        Give everything back: nobody will call this copy any more but its exchange.
        """
        self._is_over = True
        if detail:
            self._log.debug("{copy!r} for {target} failed: {detail}", copy=self, target=self._mirror.target, detail=detail)
        self._mirror.ended(self)
        self._behind.clear()
        self._let_go(outcome)
