"""
Judge single header lines, once.

Most lines of most messages repeat: host, user agent, accept, server. A `LineTable` therefore remembers whole lines together with the
verdict of the strict check, and a repeated line costs one dict look-up. It is bounded twice: by the number of lines, and per name, so
that a header whose value never repeats stops taking up room. Lines that bear credentials are never kept.

A verdict is a tuple `(kind, field, extra)`. The kind says who must look at the line; most are `PLAIN`, which nobody need look at.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.message import Field

__all__ = [
    "CONNECTION",
    "CONTENT_LENGTH",
    "DATE",
    "EXPECT",
    "FORBIDDEN_TRAILERS",
    "FORWARDED",
    "HOP_BY_HOP",
    "HOST",
    "PLAIN",
    "REFERER",
    "REQUEST_ID",
    "REQUEST_KINDS",
    "RESPONSE_KINDS",
    "TE",
    "TOKEN",
    "TRANSFER_ENCODING",
    "UNDERSCORE",
    "USER_AGENT",
    "ConnectionOptions",
    "LineTable",
    "Verdict",
    "parse_authority",
]

TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The characters of RFC 9110 section 5.6.2, to be taken away by `bytes.translate`: what is left over is wrong."""

FIELD_VALUE: Final = bytes([9, *range(32, 127), *range(128, 256)])
"""The bytes a field value may have (RFC 9110 section 5.5, obs-text included)."""

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

_HOP: Final[dict[bytes, int]] = {
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"keep-alive": HOP_BY_HOP,
    b"proxy-authenticate": HOP_BY_HOP,
    b"proxy-authorization": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"te": HOP_BY_HOP,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": HOP_BY_HOP,
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

_CREDENTIALS: Final = frozenset([b"authorization", b"cookie", b"set-cookie", b"proxy-authorization", b"x-api-key"])

MAX_CONTENT_LENGTH_DIGITS: Final = 18


class ConnectionOptions(NamedTuple):
    """
    What one `Connection` line asks for; `nominated` are the fields it makes hop-by-hop, in lower case.
    """

    close: bool
    keep_alive: bool
    nominated: tuple[bytes, ...]


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
    if match is None or b".." in authority:
        raise ProtocolError(Outcome.HOST_MALFORMED, repr(authority[:64]))
    name, literal, port = match.groups()
    if port and int(port) > 65535:
        raise ProtocolError(Outcome.HOST_MALFORMED, repr(authority[:64]))
    host: bytes = literal if name is None else name
    if host[-1] == 46:
        host = host[:-1]
    return host.lower()


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
            if token.translate(None, TOKEN):
                raise ProtocolError(Outcome.HEADER_MALFORMED, "Connection")
            nominated.append(token)
    return ConnectionOptions(close, keep_alive, tuple(nominated))


class LineTable:
    """
    The verdicts on header lines of one direction.

    `get(line)` returns a remembered verdict or `None`; after `None` call `judge(line)`, which raises `ProtocolError` for what RFC 9110
    and RFC 9112 do not allow.
    """

    MAX_LINES: Final = 8192
    MAX_LINE_BYTES: Final = 256
    MAX_LINES_PER_NAME: Final = 64
    MAX_NAMES: Final = 1024

    def __init__(self, kinds: Mapping[bytes, int], *, internal_prefix: bytes = b"") -> None:
        self._kinds = kinds
        self._internal_prefix = internal_prefix
        self._lines: dict[bytes, Verdict] = {}
        # A name as written -> [name in lower case, kind, how many of its lines may still be remembered].
        self._names: dict[bytes, list[Any]] = {}
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
        if value.translate(None, FIELD_VALUE):
            raise ProtocolError(
                Outcome.BARE_LINE_BREAK if b"\r" in value or b"\n" in value else Outcome.HEADER_MALFORMED, repr(name[:64])
            )
        lower, kind, room = known
        value = value.strip(b" \t")
        field = _new_field(Field, (lower, value, line))
        verdict = (kind, field, self._examine(kind, value) if kind else None)
        if room and len(line) <= self.MAX_LINE_BYTES:
            known[2] = room - 1
            if len(self._lines) >= self.MAX_LINES:
                self._forget()
            self._lines[line] = verdict
        return verdict

    def _learn_name(self, name: bytes, colon: bytes, line: bytes) -> list[Any]:
        if line[:1] in (b" ", b"\t"):
            raise ProtocolError(Outcome.FOLDED_HEADER)
        if not name or not colon or name.translate(None, TOKEN):
            if b"\n" in line or b"\r" in line:
                raise ProtocolError(Outcome.BARE_LINE_BREAK)
            raise ProtocolError(Outcome.HEADER_MALFORMED, repr(name[:64]))
        lower = name.lower()
        kind = self._kinds.get(lower, PLAIN)
        if kind == PLAIN and self._internal_prefix and lower.startswith(self._internal_prefix):
            kind = HOP_BY_HOP
        if b"_" in name:
            kind = UNDERSCORE
        known = [lower, kind, 0 if lower in _CREDENTIALS else self.MAX_LINES_PER_NAME]
        if len(name) <= 64:
            if len(self._names) >= self.MAX_NAMES:
                self._forget()
            self._names[name] = known
        return known

    def _forget(self) -> None:
        # Names go with the lines: their allowance counts lines of this period.
        self._lines.clear()
        self._names.clear()

    @staticmethod
    def _examine(kind: int, value: bytes) -> Any:
        if kind == HOST:
            return parse_authority(value) if value else b""
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
        if kind == EXPECT:
            if value.lower() != b"100-continue":
                raise ProtocolError(Outcome.EXPECTATION_FAILED, repr(value[:64]))
            return True
        if kind == TE:
            return any(part.strip(b" \t").lower() == b"trailers" for part in value.split(b","))
        return None
