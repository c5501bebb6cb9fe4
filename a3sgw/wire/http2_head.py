"""
Turn HTTP/2 header fields into heads, and heads into header fields.

A request reads the same whichever version it came by: each field is judged as the line that it would be in HTTP/1, by the same table, and
method and path as the request line. So what a rule matches, what is refused and what a backend sees does not depend on the version.
libnghttp2 has refused before what RFC 9113 section 8 forbids, as errors of the stream: names in upper case, fields about the connection,
pseudo-header fields that are missing, unknown, repeated or late.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from a3sgw.errors import DownstreamError, Outcome, ProtocolError
from a3sgw.message import Field, RequestHead, ResponseHead, get_all_fields
from a3sgw.wire.fields import (
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    FORBIDDEN_TRAILERS,
    FORWARDED,
    HOST,
    LOOKALIKE,
    ONLY_TOKEN,
    PLAIN,
    REFERER,
    REQUEST_ID,
    TE,
    UNDERSCORE,
    USER_AGENT,
)
from a3sgw.wire.handshake import VERSION, WEBSOCKET, new_key
from a3sgw.wire.http1 import CHUNKED, REQUEST_LINES, RequestLimits, read_request_line
from a3sgw.wire.http2 import Fields

__all__ = ["read_connect_fields", "read_request_fields", "read_request_trailers", "response_fields", "trailer_fields"]

_known_line: Final = REQUEST_LINES.get
_judge_line: Final = REQUEST_LINES.judge
_STATUSES: Final = {status: (b":status", b"%d" % status) for status in range(100, 600)}
_OF_CONNECTIONS: Final = frozenset([b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"])
_MAX_TRAILER_BYTES: Final = 16384
_MAX_TRAILER_COUNT: Final = 128


def read_request_fields(fields: Fields, ended: bool, scheme: bytes, limits: RequestLimits) -> tuple[RequestHead, list[Field]]:
    """
    Read the request that `fields` are the head of; `ended` says that no body follows. Any scheme but `scheme` is misdirected, unless it is
    empty.

    Returns what `wire.http1.read_request_head` does. Raises `DownstreamError`.

    Long because it is the one loop every request pays for.
    """
    method = path = meant = b""
    authority: bytes | None = None
    at = 0
    for name, value in fields:
        if name[0] != 58:
            break
        at += 1
        if name == b":method":
            method = value
        elif name == b":path":
            path = value
        elif name == b":authority":
            authority = value
        elif name == b":scheme":
            meant = value
    if method == b"CONNECT":
        raise DownstreamError(Outcome.METHOD_NOT_SUPPORTED, "CONNECT")
    head = read_request_line(b"%b %b HTTP/1.1" % (method, path), limits)
    if scheme and meant != scheme:
        raise DownstreamError(Outcome.MISDIRECTED, repr(meant[:16]))
    kept = head.fields
    append = kept.append
    forwarded: list[Field] = []
    cookies: list[bytes] = []
    size = 0
    count = len(fields) - at
    try:
        if authority is not None:
            _read_host(head, authority)
        for name, value in fields[at:]:
            line = b"%b: %b" % (name, value)
            size += len(line) + 2
            kind, field, extra = _known_line(line) or _judge_line(line)
            # Most common case first.
            if kind == PLAIN:
                if name == b"cookie":
                    cookies.append(value)
                    if len(cookies) > 1:
                        continue
                append(field)
            elif kind == USER_AGENT:
                head.user_agent = field[1]
                append(field)
            elif kind == REFERER:
                head.referer = field[1]
                append(field)
            elif kind == CONTENT_LENGTH:
                if head.has_length:
                    raise ProtocolError(Outcome.LENGTH_MALFORMED, "repeated")
                head.length = extra
                head.has_length = True
            elif kind == CONTENT_TYPE:
                head.grpc = extra
                append(field)
            elif kind == FORWARDED:
                forwarded.append(field)
            elif kind == REQUEST_ID:
                # One value that is safe to log and to pass on, or none.
                if not head.request_id and 0 < len(value) <= 128 and value.translate(ONLY_TOKEN) == value:
                    head.request_id = value
            elif kind == TE:
                head.accepts_trailers = head.accepts_trailers or extra
            elif kind == EXPECT:
                head.expects_continue = True
                append(field)
            elif kind == HOST:
                if authority is not None and authority.lower() != field[1].lower():
                    # RFC 9113 section 8.3.1.
                    raise ProtocolError(Outcome.HOST_MALFORMED, "differs from :authority")
                if authority is None:
                    authority = field[1]
                    _read_host(head, authority)
            elif kind in (UNDERSCORE, LOOKALIKE):
                if kind == LOOKALIKE or not limits.allow_underscores_in_headers:
                    raise ProtocolError(Outcome.HEADER_NAME_REFUSED, repr(name[:64]))
                append(field)
        if len(cookies) > 1:
            count -= len(cookies) - 1
            _join_cookies(kept, cookies)
        if count > limits.max_header_count or size > limits.max_header_bytes:
            raise ProtocolError(Outcome.HEADERS_TOO_LARGE)
        if authority is None:
            raise ProtocolError(Outcome.HOST_MISSING)
        if path[0] != 47 and (path != b"*" or method != b"OPTIONS"):
            raise ProtocolError(Outcome.TARGET_MALFORMED)
    except ProtocolError as error:
        raise DownstreamError(error.outcome, error.detail) from None
    if not ended and not head.has_length:
        head.length = CHUNKED
    return head, forwarded


def read_connect_fields(fields: Fields, ended: bool, scheme: bytes, limits: RequestLimits) -> tuple[RequestHead, list[Field]]:
    """
    As `read_request_fields`, but read an extended CONNECT (RFC 8441) as the handshake that it would be over HTTP/1.1. The plain CONNECT is
    not supported.
    """
    if (b":protocol", WEBSOCKET) not in fields:
        raise DownstreamError(Outcome.METHOD_NOT_SUPPORTED, "CONNECT")
    others = [field for field in fields if field[0] not in (b":method", b":protocol", b"sec-websocket-key")]
    head, forwarded = read_request_fields([(b":method", b"GET"), *others, (b"sec-websocket-key", new_key())], ended, scheme, limits)
    if get_all_fields(head.fields, b"sec-websocket-version") != [VERSION]:
        # 426 needs fields that HTTP/2 does not have.
        raise DownstreamError(Outcome.WEBSOCKET_HANDSHAKE_MALFORMED, "no Sec-WebSocket-Version of 13")
    if head.has_length:
        raise DownstreamError(Outcome.WEBSOCKET_HANDSHAKE_MALFORMED, "with a body")
    head.upgrade = WEBSOCKET
    return head, forwarded


def _read_host(head: RequestHead, authority: bytes) -> None:
    line = b"host: " + authority
    _, field, host = _known_line(line) or _judge_line(line)
    head.host = host
    head.authority = field[1]


def _join_cookies(kept: list[Field], cookies: list[bytes]) -> None:
    """
    Make one field of the crumbs in which a cookie came, where the first one stands (RFC 9113 section 8.2.3).
    """
    value = b"; ".join(cookies)
    at = next(number for number, field in enumerate(kept) if field[0] == b"cookie")
    kept[at] = Field(b"cookie", value, b"cookie: " + value)


def read_request_trailers(fields: Fields) -> list[Field]:
    """
    Read the trailers of a request, as strictly as those of a chunked body. Raises `DownstreamError`.
    """
    trailers = []
    size = 0
    for name, value in fields:
        line = b"%b: %b" % (name, value)
        size += len(line) + 2
        try:
            kind, field, _ = _known_line(line) or _judge_line(line)
        except ProtocolError as error:
            raise DownstreamError(Outcome.TRAILER_REFUSED, str(error)) from None
        if kind != PLAIN or name in FORBIDDEN_TRAILERS:
            raise DownstreamError(Outcome.TRAILER_REFUSED, repr(name[:64]))
        trailers.append(field)
    if size > _MAX_TRAILER_BYTES or len(trailers) > _MAX_TRAILER_COUNT:
        raise DownstreamError(Outcome.TRAILER_REFUSED, "trailer section too large")
    return trailers


def response_fields(head: ResponseHead, date: bytes) -> list[tuple[bytes, bytes]]:
    """
    Return the header fields of a response, with `date` if it has none. Those about the connection, which only a middleware may have put
    there, would make it malformed and are left out (RFC 9113 section 8.2.2).
    """
    fields = [_STATUSES[head.status]]
    fields += [field[:2] for field in head.fields if field[0] not in _OF_CONNECTIONS]
    if not head.has_date and head.status >= 200:
        fields.append((b"date", date))
    if head.declared_length >= 0:
        fields.append((b"content-length", b"%d" % head.declared_length))
    return fields


def trailer_fields(trailers: Iterable[Field]) -> list[tuple[bytes, bytes]]:
    """
    Return the header fields that `trailers` are in HTTP/2.
    """
    return [field[:2] for field in trailers]
