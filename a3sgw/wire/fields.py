"""
Judge single header lines, once.

Most lines of most messages repeat: host, user agent, accept, server. A `LineTable` therefore remembers whole lines together with the
verdict of the strict check, and a repeated line costs one dict look-up. It is bounded twice: by the number of lines, and per name, so
that a header whose value never repeats stops taking up room; a name that has used up its share gets another after a while, because dates
and fashions change. Lines that bear credentials are never kept.

A verdict is a tuple `(kind, field, extra)`. The kind says who must look at the line; most are `PLAIN`, which nobody need look at.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from a3sgw.address import pack_address
from a3sgw.errors import Outcome, ProtocolError
from a3sgw.message import Field
from a3sgw.wire.grpc import grpc_kind

__all__ = [
    "CLIENT_KINDS",
    "CONNECTION",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "DATE",
    "EXPECT",
    "FORBIDDEN_TRAILERS",
    "FORWARDED",
    "HOP_BY_HOP",
    "HOST",
    "KEEP_ALIVE",
    "LOOKALIKE",
    "ONLY_TOKEN",
    "ONLY_VALUE",
    "PLAIN",
    "REFERER",
    "REQUEST_ID",
    "REQUEST_KINDS",
    "RESPONSE_KINDS",
    "TE",
    "TOKEN",
    "TRANSFER_ENCODING",
    "UNDERSCORE",
    "UPGRADE",
    "USER_AGENT",
    "ConnectionOptions",
    "LineTable",
    "Verdict",
    "only",
    "parse_authority",
]

TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The characters of RFC 9110 section 5.6.2."""


def only(good: bytes) -> bytes:
    """
    Return a table for `bytes.translate` that changes all bytes but the `good` ones, so that what comes out as it went in is good.

    Three times as fast as `translate(None, good)`, which builds a table of its own on every call.
    """
    return bytes(code if code in good else code ^ 255 for code in range(256))


ONLY_TOKEN: Final = only(TOKEN)

ONLY_VALUE: Final = only(bytes([9, *range(32, 127), *range(128, 256)]))
"""For the bytes a field value may have (RFC 9110 section 5.5, obs-text included)."""

PLAIN: Final = 0
HOP_BY_HOP: Final = 1
HOST: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
CONNECTION: Final = 5
FORWARDED: Final = 6
EXPECT: Final = 7
TE: Final = 8
USER_AGENT: Final = 9
REFERER: Final = 10
REQUEST_ID: Final = 11
DATE: Final = 12
UNDERSCORE: Final = 13
LOOKALIKE: Final = 14
"""A name that is one of the gateway's own but for an underscore: to a CGI-like backend the two are the same."""
UPGRADE: Final = 15
CONTENT_TYPE: Final = 16
"""Only one of the gRPC family, which `extra` names as `wire.grpc.grpc_kind` does; any other is `PLAIN`."""

_HOP: Final[dict[bytes, int]] = {
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"http2-settings": HOP_BY_HOP,
    b"keep-alive": HOP_BY_HOP,
    b"proxy-authenticate": HOP_BY_HOP,
    b"proxy-authorization": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"te": HOP_BY_HOP,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
}

REQUEST_KINDS: Final[Mapping[bytes, int]] = {
    **_HOP,
    b"expect": EXPECT,
    b"forwarded": FORWARDED,
    b"host": HOST,
    b"referer": REFERER,
    b"te": TE,
    b"user-agent": USER_AGENT,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-host": FORWARDED,
    b"x-forwarded-port": FORWARDED,
    b"x-forwarded-prefix": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-server": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"x-request-id": REQUEST_ID,
}

CLIENT_KINDS: Final[Mapping[bytes, int]] = {**REQUEST_KINDS, b"content-type": CONTENT_TYPE}
"""For requests of clients: those and what tells gRPC from other requests."""

RESPONSE_KINDS: Final[Mapping[bytes, int]] = {**_HOP, b"date": DATE}

FORBIDDEN_TRAILERS: Final = frozenset(
    [
        *REQUEST_KINDS,
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expires",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"trailer",
        b"vary",
        b"warning",
        b"www-authenticate",
    ]
)
"""Fields that may not arrive after the body, because they frame, route, authenticate or govern it (RFC 9110 section 6.5.1)."""

# Whatever bears a secret, by the sound of its name: rather one name too many than one too few.
_CREDENTIALS = re.compile(rb"auth|cookie|credential|csrf|jwt|key|passw|secret|session|signature|token|xsrf")

MAX_CONTENT_LENGTH_DIGITS: Final = 18


class ConnectionOptions(NamedTuple):
    """
    What one `Connection` line asks for; `nominated` are the fields it makes hop-by-hop, in lower case.

    An `Upgrade` line is read as one too: it has a say about the connection, and means nothing unless a `Connection` line nominates it. What
    it says stands in `upgrade`, in lower case.
    """

    close: bool
    keep_alive: bool
    nominated: frozenset[bytes]
    upgrade: bytes = b""

    def joined(self, other: ConnectionOptions) -> ConnectionOptions:
        """
        Return what this line and another one ask for together.
        """
        return ConnectionOptions(
            self.close or other.close,
            self.keep_alive or other.keep_alive,
            self.nominated | other.nominated,
            b",".join(filter(None, (self.upgrade, other.upgrade))),
        )


KEEP_ALIVE: Final = ConnectionOptions(False, True, frozenset())
"""The commonest of them, which says nothing new in HTTP/1.1; there is one object for it."""

Verdict = tuple[int, Field, Any]

_new_field = tuple.__new__

# A registered name as browsers send it, an IPv4 address, or an IPv6 literal; underscores are seen in the wild inside clusters.
_AUTHORITY = re.compile(rb"(?:([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?\.?)|(\[[0-9A-Fa-f:.]{2,45}\]))(?::([0-9]{0,5}))?")


def parse_authority(authority: bytes) -> bytes:
    """
    Return the host of `authority` in lower case, without port and trailing dot.

    Raises `ProtocolError` for what is no host (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise ProtocolError(Outcome.HOST_MALFORMED, repr(authority[:64]))
    name, literal, port = match.groups()
    if (port and int(port) > 65535) or (not _is_ipv6(literal) if name is None else b".." in name):
        raise ProtocolError(Outcome.HOST_MALFORMED, repr(authority[:64]))
    host: bytes = literal if name is None else name
    if host[-1] == 46:
        host = host[:-1]
    return host.lower()


def _is_ipv6(literal: bytes) -> bool:
    try:
        pack_address(literal[1:-1].decode("ascii"))
    except ValueError:
        return False
    return b":" in literal


def _connection_options(value: bytes) -> ConnectionOptions:
    close = keep_alive = False
    nominated = []
    for token in value.lower().split(b","):
        token = token.strip(b" \t")
        if token == b"close":
            close = True
        elif token == b"keep-alive":
            keep_alive = True
        elif token:
            if token.translate(ONLY_TOKEN) != token:
                raise ProtocolError(Outcome.HEADER_MALFORMED, "Connection")
            nominated.append(token)
    options = ConnectionOptions(close, keep_alive, frozenset(nominated))
    return KEEP_ALIVE if options == KEEP_ALIVE else options


class _Name:
    """
    What is known of a name as it was written.

    `room` is how many more of its lines may be remembered; below zero it counts the lines that were not, until the name is given room
    anew. `lines` are those remembered.
    """

    __slots__ = ("kind", "lines", "lower", "room")

    def __init__(self, lower: bytes, kind: int, room: int) -> None:
        self.lower = lower
        self.kind = kind
        self.room = room
        self.lines: list[bytes] = []


_USED_UP: Final = -4096
"""The room at which a name is given room anew: so many of its lines were judged and not remembered."""


class LineTable:
    """
    The verdicts on header lines of one direction.

    `get(line)` returns a remembered verdict or `None`; after `None` call `judge(line)`, which raises `ProtocolError` for what RFC 9110
    and RFC 9112 do not allow. When there are too many lines or names, all are forgotten: whoever forces that by inventing names pays more
    for it than the others lose by it.
    """

    MAX_LINES: Final = 32768
    MAX_LINE_BYTES: Final = 256
    MAX_LINES_PER_NAME: Final = 64
    MAX_HOSTS: Final = 16384
    MAX_NAMES: Final = 1024
    MAX_NAME_BYTES: Final = 64
    RENEWAL: Final = -_USED_UP

    def __init__(self, kinds: Mapping[bytes, int], *, internal_prefix: bytes = b"") -> None:
        self._kinds = kinds
        self._internal_prefix = internal_prefix
        self._lines: dict[bytes, Verdict] = {}
        self._names: dict[bytes, _Name] = {}
        # The dict lives as long as the table, so the bound method may be handed out once.
        self.get = self._lines.get

    def judge(self, line: bytes) -> Verdict:
        """
        Return the verdict on a line that is not remembered, and remember it if that may pay.
        """
        name, colon, value = line.partition(b":")
        known = self._names.get(name)
        if known is None:
            known = self._learn_name(name, colon, line)
        elif not colon:
            raise ProtocolError(Outcome.HEADER_MALFORMED, repr(name[:64]))
        if value.translate(ONLY_VALUE) != value:
            raise ProtocolError(
                Outcome.BARE_LINE_BREAK if b"\r" in value or b"\n" in value else Outcome.HEADER_MALFORMED, repr(name[:64])
            )
        # Of all white space only blanks and tabs are left.
        value = value.strip()
        kind = known.kind
        extra = self._examine(kind, value) if kind else None
        if kind == CONTENT_TYPE and not extra:
            kind = PLAIN
        verdict = (kind, _new_field(Field, (known.lower, value, line)), extra)
        known.room = room = known.room - 1
        if room >= 0:
            self._remember(known, line, verdict)
        elif room == _USED_UP:
            self._renew(known)
        return verdict

    def _learn_name(self, name: bytes, colon: bytes, line: bytes) -> _Name:
        if line[:1] in (b" ", b"\t"):
            raise ProtocolError(Outcome.FOLDED_HEADER)
        if not name or not colon or name.translate(ONLY_TOKEN) != name:
            if b"\n" in line or b"\r" in line:
                raise ProtocolError(Outcome.BARE_LINE_BREAK)
            raise ProtocolError(Outcome.HEADER_MALFORMED, repr(name[:64]))
        lower = name.lower()
        # From below the mark it never comes back to it.
        room = _USED_UP - 1 if _CREDENTIALS.search(lower) else self._room(lower)
        known = _Name(lower, self._kind(lower), room)
        if len(name) <= self.MAX_NAME_BYTES:
            if len(self._names) >= self.MAX_NAMES:
                self._forget()
            self._names[name] = known
        return known

    def _kind(self, lower: bytes) -> int:
        dashed = lower.replace(b"_", b"-")
        kind = self._kinds.get(dashed, PLAIN)
        if kind == PLAIN and self._internal_prefix and dashed.startswith(self._internal_prefix):
            kind = HOP_BY_HOP
        if dashed != lower:
            return LOOKALIKE if kind and kind != CONTENT_TYPE else UNDERSCORE
        return kind

    def _room(self, lower: bytes) -> int:
        return self.MAX_HOSTS if lower == b"host" else self.MAX_LINES_PER_NAME

    def _remember(self, known: _Name, line: bytes, verdict: Verdict) -> None:
        if len(line) > self.MAX_LINE_BYTES or len(known.lower) > self.MAX_NAME_BYTES:
            return
        if len(self._lines) >= self.MAX_LINES:
            self._forget()
            # The name was forgotten as well; what it is known by is learnt again when it next appears.
            return
        self._lines[line] = verdict
        known.lines.append(line)

    def _renew(self, known: _Name) -> None:
        for line in known.lines:
            self._lines.pop(line, None)
        known.lines.clear()
        known.room = self._room(known.lower)

    def _forget(self) -> None:
        # Names go with the lines: their room counts lines of this period.
        self._lines.clear()
        self._names.clear()

    @staticmethod
    def _examine(kind: int, value: bytes) -> Any:
        if kind == HOST:
            return parse_authority(value)
        if kind == CONTENT_LENGTH:
            if not value.isdigit() or len(value) > MAX_CONTENT_LENGTH_DIGITS:
                raise ProtocolError(Outcome.LENGTH_MALFORMED, repr(value[:64]))
            return int(value)
        if kind == TRANSFER_ENCODING:
            if value.lower() != b"chunked":
                raise ProtocolError(Outcome.TRANSFER_CODING_REFUSED, repr(value[:64]))
            return True
        if kind == CONNECTION:
            return _connection_options(value)
        if kind == UPGRADE:
            return ConnectionOptions(False, False, frozenset(), value.lower())
        if kind == EXPECT:
            if value.lower() != b"100-continue":
                raise ProtocolError(Outcome.EXPECTATION_FAILED, repr(value[:64]))
            return True
        if kind == CONTENT_TYPE:
            return grpc_kind(value)
        if kind == TE:
            return any(part.strip(b" \t").lower() == b"trailers" for part in value.split(b","))
        return None
