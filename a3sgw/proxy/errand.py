"""
One request of the gateway's own.

An `Errand` takes the place of an exchange before a pool and its connections, so a request of the gateway's own is written, read, refused
and retried like any other, and its server is held to the same strict reading. What it has besides is one time limit for everything and a
bound on what it keeps in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from a3sgw.errors import Outcome, ProtocolError, UpstreamError
from a3sgw.interfaces import ILessee, IUpstream
from a3sgw.message import IDEMPOTENT, Field, LocalResponse, RequestHead, ResponseHead
from a3sgw.proxy.forwarding import framing_fields, pseudo_fields
from a3sgw.proxy.lessee import Choice, Lessee
from a3sgw.service.backend import BackendAddress
from a3sgw.wire.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOP_BY_HOP,
    HOST,
    LOOKALIKE,
    ONLY_TOKEN,
    REQUEST_KINDS,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    LineTable,
    only,
)

__all__ = ["Errand", "make_head"]

_LINES: Final = LineTable(REQUEST_KINDS)
_ONLY_TARGET: Final = only(bytes(range(33, 127)))
_OURS: Final = frozenset([CONNECTION, CONTENT_LENGTH, EXPECT, HOP_BY_HOP, HOST, LOOKALIKE, TE, TRANSFER_ENCODING, UPGRADE])
_ANNOUNCE_BODY: Final = frozenset([b"POST", b"PUT", b"PATCH"])
"""The methods whose request says that it has no body (RFC 9110 section 8.6)."""


def make_head(method: bytes, target: bytes, fields: Sequence[Field], length: int) -> RequestHead:
    """
    Return the head of a request with a body of `length` bytes.

    Of `fields`, those that frame the message, concern the connection, or name the host are left out. What a field says may come from a
    client, so each is judged as if it came from one: `ValueError` for anything that would not be exactly one line.
    """
    if not method or method.translate(ONLY_TOKEN) != method:
        raise ValueError(f"the method of an outbound request, {method!r}, is no token")
    if not target or target.translate(_ONLY_TARGET) != target:
        raise ValueError(f"the target of an outbound request, {target[:64]!r}, is empty or holds a blank or a control character")
    head = RequestHead(method, target)
    try:
        verdicts = [_LINES.get(field.line) or _LINES.judge(field.line) for field in fields]
    except ProtocolError as error:
        raise ValueError(f"a field of an outbound request cannot be sent: {error}") from None
    head.fields = [field for kind, field, _ in verdicts if kind not in _OURS]
    head.length = length
    head.has_length = length > 0 or method in _ANNOUNCE_BODY
    return head


@implementer(ILessee)
class Errand(Lessee):
    """
    One request of the gateway's own.

    `_end` is its one end, however it ends. An answer whose body is larger than `max_body_bytes` is a failure, unless the errand `cuts` it
    off there. `trailers` are those of the answer, for who wants them.
    """

    __slots__ = ("_body", "_cuts", "_max_body_bytes", "_pieces", "_response", "_result", "_room", "_stale_retried", "_timer", "trailers")

    def __init__(self, service: Choice, head: RequestHead, body: bytes, max_body_bytes: int, *, cuts: bool = False) -> None:
        super().__init__(service, head, may_be_sent_twice=head.method in IDEMPOTENT)
        self._body = body
        self._cuts = cuts
        self._max_body_bytes = max_body_bytes
        self._result: Deferred[LocalResponse] | None = None
        self._timer: Any = None
        self._stale_retried = False
        self._response: ResponseHead | None = None
        self._pieces: list[bytes] = []
        self._room = max_body_bytes
        self.trailers: Sequence[Field] = ()

    def start(self, later: Callable[..., Any], timeout: float) -> Deferred[LocalResponse]:
        """
        Set out; `later` begins the timed call that ends the errand after `timeout` seconds.
        """
        result: Deferred[LocalResponse] = Deferred(self._cancelled)
        self._result = result
        self._timer = later(timeout, self._timed_out, timeout)
        self._choose_and_try(Outcome.NO_BACKEND)
        return result

    def _send(self, upstream: IUpstream) -> None:
        upstream.send_request(self, self._body, True)

    # -- what the upstream reports

    def request_lines(self, address: BackendAddress) -> list[bytes]:
        """
        Return the request as HTTP/1 lines for the server at `address`, all but the framing of its body.
        """
        head = self.head
        assert head is not None
        prefix = address.prefix if head.target != b"*" else b""
        first = b"%b %b%b HTTP/1.1\r\nHost: %b" % (head.method, prefix, head.target, address.authority)
        return [first, *(field.line for field in head.fields)]

    def request_fields(self, address: BackendAddress) -> list[tuple[bytes, bytes]]:
        """
        Return the request as HTTP/2 header fields for the server at `address`.
        """
        head = self.head
        assert head is not None
        fields = pseudo_fields(head, address, address.authority)
        return [*fields, *((field.name, field.value) for field in head.fields), *framing_fields(head)]

    def head_received(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        The response arrived, or begins to. One that says it is too large is not waited for.
        """
        self._response = head
        self.upstream_status = head.status
        assert self.backend is not None
        self._end_watch(self.backend, Outcome.COMPLETED)
        if head.length > self._max_body_bytes:
            if ended:
                self._upstream = None
            self._body_too_large(head)
        else:
            self.response_body_received(piece, ended, ())

    def response_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        Keep the next piece of the response's body.
        """
        if ended:
            self._upstream = None
        head = self._response
        assert head is not None
        self._room -= len(piece)
        if self._room < 0:
            self._body_too_large(head)
            return
        if piece:
            self._pieces.append(piece)
        if ended:
            self.trailers = trailers
            self._answered(head)

    def upstream_failed(self, outcome: Outcome, *, is_stale: bool, detail: str) -> None:
        """
        The connection broke. If the server may have closed it while it was idle, a fresh one is worth an attempt.
        """
        self._upstream = None
        if is_stale and not self._stale_retried and self._may_be_sent_twice:
            self._stale_retried = True
            backend = self.backend
            assert backend is not None
            self._let_go_of_backend(outcome)
            self.service.retries += 1
            self._try(backend, fresh=True)
        else:
            self._fail(outcome, detail)

    def upstream_congested(self) -> None:
        """
        The whole body is in memory already; there is nothing to hold back.
        """

    def upstream_drained(self) -> None:
        """
        Nothing was held back.
        """

    # -- the end

    def _answered(self, head: ResponseHead) -> None:
        self._end(Outcome.COMPLETED).callback(LocalResponse(head.status, head.fields, b"".join(self._pieces)))

    def _body_too_large(self, head: ResponseHead) -> None:
        if self._cuts:
            self._answered(head)
        else:
            self._fail(Outcome.RESPONSE_MALFORMED, f"its body is larger than the {self._max_body_bytes} bytes allowed here")

    def _cancelled(self, result: Deferred[LocalResponse]) -> None:
        self._end(Outcome.CLIENT_CLOSED)

    def _timed_out(self, timeout: float) -> None:
        if self._upstream is None:
            self._fail(Outcome.CONNECT_TIMEOUT, f"no connection within {timeout:g} s")
        else:
            self._fail(Outcome.RESPONSE_TIMEOUT, f"no whole response within {timeout:g} s")

    def _fail(self, outcome: Outcome, detail: str) -> None:
        self._end(outcome).errback(UpstreamError(outcome, detail))

    def _end(self, outcome: Outcome) -> Deferred[LocalResponse]:
        """
        Give everything back: nobody will call this errand any more. The caller fires what is returned, unless that was cancelled.
        """
        result, self._result = self._result, None
        assert result is not None
        if self._timer.active():
            self._timer.cancel()
        self._let_go(outcome)
        return result
