"""
The parts of an HTTP message, in the one form that every room shares.

A header section is a plain `list` of `Field`s in wire order, so that duplicates, order and letter case survive the gateway. The
functions below are the only ones that need to know what a field looks like; names are always given in lower case.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, Final, NamedTuple

from a3sgw.errors import Outcome

__all__ = [
    "IDEMPOTENT",
    "Field",
    "HopByHop",
    "LocalResponse",
    "RequestHead",
    "ResponseHead",
    "SwitchingResponse",
    "get_all_fields",
    "get_field",
    "make_field",
    "remove_fields",
    "set_field",
]

IDEMPOTENT: Final = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
"""The methods of RFC 9110 section 9.2.2: sending one twice does what sending it once does."""

_NONE: Final[Set[bytes]] = frozenset()


class Field(NamedTuple):
    """
    One header or trailer field.

    `line` is what goes on an HTTP/1 wire, without CRLF; `name` is in lower case; `value` is stripped of surrounding blanks.
    """

    name: bytes
    value: bytes
    line: bytes


def make_field(name: bytes, value: bytes) -> Field:
    """
    Return the field `name: value`. The name keeps its letter case on the wire.
    """
    return Field(name.lower(), value, b"%b: %b" % (name, value))


def get_field(fields: Iterable[Field], name: bytes) -> bytes | None:
    """
    Return the first value of `name` (lower case), or `None`.
    """
    for field in fields:
        if field[0] == name:
            return field[1]
    return None


def get_all_fields(fields: Iterable[Field], name: bytes) -> list[bytes]:
    """
    Return every value of `name` (lower case), in wire order.
    """
    return [field[1] for field in fields if field[0] == name]


def set_field(fields: list[Field], name: bytes, value: bytes) -> None:
    """
    Replace every field called `name` (any case) by one with `value`, in place.
    """
    remove_fields(fields, name.lower())
    fields.append(make_field(name, value))


def remove_fields(fields: list[Field], name: bytes) -> None:
    """
    Remove every field called `name` (lower case), in place.
    """
    if any(field[0] == name for field in fields):
        fields[:] = [field for field in fields if field[0] != name]


class HopByHop(NamedTuple):
    """
    What a request asks of each next server anew, beyond how its body is framed.

    `accepts_trailers` says that it named `trailers` in `TE`; `upgrade` are the protocols it would change to, as `Upgrade` lists them.
    `lines` says all of that on an HTTP/1 wire, without a final CRLF.
    """

    accepts_trailers: bool
    upgrade: bytes
    lines: bytes

    @classmethod
    def of(cls, *, accepts_trailers: bool = False, upgrade: bytes = b"") -> HopByHop | None:
        """
        Return these wishes, or `None` if there are none.
        """
        lines = [b"TE: trailers"] if accepts_trailers else []
        if upgrade:
            lines.append(b"Upgrade: " + upgrade)
        if not lines:
            return None
        lines.append(b"Connection: " + b", ".join([line.partition(b":")[0] for line in lines]))
        return cls(accepts_trailers, upgrade, b"\r\n".join(lines))


class RequestHead:
    """
    What a client asked for, after the strict reading of RFC 9112 and the canonical form of its path.

    `target` is what a backend is asked for (canonical path and untouched query); `path` and `query` are its two halves. `authority` is
    the host as the client wrote it (port included), `host` the same in lower case without port and trailing dot, both empty for an
    HTTP/1.0 request without one. `fields` holds the end-to-end fields only: framing, hop-by-hop and forwarding fields, `Host` and
    `X-Request-Id` were taken out. `length` is the body's length in bytes, `-1` for a chunked body, `0` for none; `has_length` says that
    the client declared it. `target_scheme` is the scheme of an absolute-form target, else empty. `client` is the resolved client address
    as text, `client_packed` the same as 4 or 16 network-order bytes (an IPv4-mapped IPv6 address is given as IPv4). `wants_close` says that
    the client asked for the connection to be closed. `hop` is what it asks of each next server anew, mostly nothing; `accepts_trailers` and
    `upgrade` are parts of that. `nominated` are the names its
    `Connection` made hop-by-hop: already gone from `fields`, still to be left out of the trailers. `forwarded` are the forwarding fields a
    trusted proxy sent; those of anybody else are nowhere. `grpc` is the media type of a gRPC or gRPC-Web request, without suffix (see
    `wire.grpc.grpc_kind`), else empty.
    """

    __slots__ = (
        "authority",
        "client",
        "client_packed",
        "expects_continue",
        "fields",
        "forwarded",
        "grpc",
        "has_length",
        "hop",
        "host",
        "is_http10",
        "keep_alive",
        "length",
        "method",
        "nominated",
        "path",
        "query",
        "raw_path",
        "referer",
        "request_id",
        "target",
        "target_scheme",
        "user_agent",
        "wants_close",
    )

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    raw_path: bytes
    authority: bytes
    host: bytes
    fields: list[Field]
    nominated: Set[bytes]
    forwarded: Sequence[Field]
    grpc: bytes
    length: int
    is_http10: bool
    has_length: bool
    keep_alive: bool
    wants_close: bool
    expects_continue: bool
    hop: HopByHop | None
    target_scheme: bytes
    client: bytes
    client_packed: bytes
    request_id: bytes
    user_agent: bytes
    referer: bytes

    def __init__(self, method: bytes, target: bytes) -> None:
        self.method = method
        self.target = target
        self.path = target
        self.query = b""
        self.raw_path = target
        self.authority = b""
        self.host = b""
        self.fields = []
        self.nominated = _NONE
        self.forwarded = ()
        self.grpc = b""
        self.length = 0
        self.is_http10 = False
        self.has_length = False
        self.keep_alive = True
        self.wants_close = False
        self.expects_continue = False
        self.hop = None
        self.target_scheme = b""
        self.client = b""
        self.client_packed = b""
        self.request_id = b""
        self.user_agent = b""
        self.referer = b""

    @property
    def accepts_trailers(self) -> bool:
        """
        Whether the client can take trailers, and said so.
        """
        return self.hop is not None and self.hop.accepts_trailers

    @accepts_trailers.setter
    def accepts_trailers(self, wanted: bool) -> None:
        self.hop = HopByHop.of(accepts_trailers=wanted, upgrade=self.upgrade)

    @property
    def upgrade(self) -> bytes:
        """
        The protocols that the connection may change to, as `Upgrade` lists them, in lower case; mostly none.
        """
        return b"" if self.hop is None else self.hop.upgrade

    @upgrade.setter
    def upgrade(self, protocols: bytes) -> None:
        self.hop = HopByHop.of(accepts_trailers=self.accepts_trailers, upgrade=protocols)

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.host!r} {self.target!r}>"


class ResponseHead:
    """
    What a backend, or the gateway itself, answers.

    `status_line` is the HTTP/1.1 status line without CRLF. `fields` holds end-to-end fields only. `length` is the body's length in bytes,
    `-1` for a chunked body, `-2` for one that ends with its connection, `0` for none; `declared_length` is the value of its
    `Content-Length`, which a response without body (to HEAD, or 304) may have too, or `-3`. `keep_alive` and `wants_close` are about the
    connection it came on. `nominated` is as in `RequestHead`.
    """

    __slots__ = ("declared_length", "fields", "has_date", "keep_alive", "length", "nominated", "status", "status_line", "wants_close")

    status: int
    status_line: bytes
    fields: list[Field]
    nominated: Set[bytes]
    length: int
    declared_length: int
    keep_alive: bool
    wants_close: bool
    has_date: bool

    def __init__(self, status: int, status_line: bytes) -> None:
        self.status = status
        self.status_line = status_line
        self.fields = []
        self.nominated = _NONE
        self.length = 0
        self.declared_length = -3
        self.keep_alive = True
        self.wants_close = False
        self.has_date = False

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status_line!r}>"


class LocalResponse:
    """
    An answer the gateway makes itself, complete with its body.

    `fields` need not name `Content-Length`, `Date` or `Connection`: whoever sends it adds them. `outcome` says why the gateway answers
    itself; a middleware that leaves it out has `Outcome.ANSWERED`.
    """

    __slots__ = ("body", "fields", "outcome", "status")

    def __init__(self, status: int, fields: Iterable[Field] = (), body: bytes = b"", outcome: Outcome | None = None) -> None:
        self.status = status
        self.fields = list(fields)
        self.body = body
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<LocalResponse {self.status} {len(self.body)} bytes>"


class SwitchingResponse(LocalResponse):
    """
    A 101 with which a middleware takes the connection over, to speak another protocol on it; `fields` must name it in `Upgrade`.

    When it has been sent, `begin(stream, data, ended)` is called once: `stream` (see `net.stream.Stream`) is the client's, for whose
    `receiver` it must put an `IReceiver`, and `data` is what the client has sent already. It returns somebody who is told to `stop` when
    the gateway does. `ended(received, sent, outcome)` must be called exactly once, when the stream is gone. If a middleware on the way back
    puts another answer in the place of this one, nothing is called.
    """

    __slots__ = ("begin",)

    def __init__(self, fields: Iterable[Field], begin: Callable[[Any, bytes, Callable[[int, int, Outcome], None]], Any]) -> None:
        super().__init__(101, fields)
        self.begin = begin
