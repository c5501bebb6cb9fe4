"""
Read and write HTTP/1 heads.

`read_request_head` and `read_response_head` turn a complete header section into a head; the body's framing is decided there and the
readers of `wire.body` follow it. Refusals follow RFC 9112 in the strict reading: what two servers could read two ways is refused, from a
client with 400 and from a backend with 502. This module knows framing and limits and nothing else: no socket, no clock, no policy of
routing.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import attrs

from a3sgw.errors import DownstreamError, Outcome, ProtocolError, UpstreamError
from a3sgw.message import Field, RequestHead, ResponseHead
from a3sgw.wire.body import BodyReader, ChunkedReader, CloseReader, LengthReader
from a3sgw.wire.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    EXPECT,
    FIELD_VALUE,
    FORWARDED,
    HOST,
    PLAIN,
    REFERER,
    REQUEST_ID,
    REQUEST_KINDS,
    RESPONSE_KINDS,
    TE,
    TOKEN,
    TRANSFER_ENCODING,
    UNDERSCORE,
    USER_AGENT,
    ConnectionOptions,
    LineTable,
    parse_authority,
)
from a3sgw.wire.path import PathPolicy, canonical_path

__all__ = [
    "CHUNKED",
    "UNTIL_CLOSE",
    "RequestLimits",
    "check_partial_request",
    "field_block",
    "read_request_head",
    "read_response_head",
    "request_body_reader",
    "response_body_reader",
    "status_line",
]

REQUEST_LINES: Final = LineTable(REQUEST_KINDS, internal_prefix=b"x-gateway-")
RESPONSE_LINES: Final = LineTable(RESPONSE_KINDS)

_TARGET: Final = bytes(code for code in range(33, 127) if code != 35)
_METHODS: Final = frozenset([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"])

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


@attrs.frozen(slots=True)
class RequestLimits:
    """
    What an entrypoint accepts; the names are those of its configuration. Sizes in bytes.
    """

    max_header_bytes: int = 65536
    max_header_count: int = 128
    max_request_line_bytes: int = 8192
    allow_underscores_in_headers: bool = False
    paths: PathPolicy = attrs.field(factory=PathPolicy)


# -- requests -------------------------------------------------------------------------------------------------------------------------


def check_partial_request(data: bytes, already_checked: int, limits: RequestLimits) -> None:
    """
    Refuse the beginning of a request as soon as it cannot become a good one.

    `data` holds no complete header section; its first `already_checked` bytes were seen by an earlier call. Raises `DownstreamError`.
    """
    if data[0] not in TOKEN:
        raise DownstreamError(Outcome.REQUEST_LINE_MALFORMED, "not HTTP")
    start = already_checked
    if start and data[start - 1] == 13:
        start -= 1
    if data.count(b"\n", start) != data.count(b"\r\n", start) or b"\r" in data[start:].replace(b"\r\n", b"")[:-1]:
        raise DownstreamError(Outcome.BARE_LINE_BREAK)
    line_end = data.find(b"\r\n")
    if (line_end if line_end >= 0 else len(data)) > limits.max_request_line_bytes:
        raise DownstreamError(Outcome.REQUEST_LINE_TOO_LONG)
    if len(data) - max(line_end, 0) > limits.max_header_bytes:
        raise DownstreamError(Outcome.HEADERS_TOO_LARGE)


def read_request_head(data: bytes, end: int, limits: RequestLimits) -> tuple[RequestHead, list[Field]]:
    """
    Read the request whose header section is `data[:end]` (the empty line left out).

    Returns the head and the forwarding fields (`X-Forwarded-*`, `Forwarded`, `X-Real-Ip`), which are taken out of the head: whether
    they are believed is the caller's matter. `head.target` is canonical. Raises `DownstreamError`.

    Long because it is the one loop every request pays for.
    """
    lines = data[:end].split(b"\r\n")
    try:
        head = _read_request_line(lines[0], limits)
        if len(lines) > limits.max_header_count + 1 or end - len(lines[0]) > limits.max_header_bytes:
            raise ProtocolError(Outcome.HEADERS_TOO_LARGE)
        fields = head.fields
        append = fields.append
        forwarded: list[Field] = []
        has_host = False
        length = -3
        chunked = False
        nominated: tuple[bytes, ...] = ()
        known = REQUEST_LINES.get
        lines[0] = b""
        for line in lines:
            verdict = known(line)
            if verdict is None:
                if not line:
                    # The request line's place: an empty line cannot occur within the section.
                    continue
                verdict = REQUEST_LINES.judge(line)
            kind, field, extra = verdict
            # Most common case first.
            if kind == PLAIN:
                append(field)
            elif kind == HOST:
                if has_host:
                    raise ProtocolError(Outcome.HOST_MALFORMED, "repeated")
                has_host = True
                head.host = extra
                head.authority = field[1]
            elif kind == USER_AGENT:
                head.user_agent = field[1]
                append(field)
            elif kind == CONNECTION:
                nominated = _apply_connection(head, extra, nominated)
            elif kind == CONTENT_LENGTH:
                if length != -3:
                    raise ProtocolError(Outcome.LENGTH_MALFORMED, "repeated")
                length = extra
            elif kind == TRANSFER_ENCODING:
                if chunked:
                    raise ProtocolError(Outcome.TRANSFER_CODING_REFUSED, "repeated")
                chunked = True
            elif kind == REFERER:
                head.referer = field[1]
                append(field)
            elif kind == FORWARDED:
                forwarded.append(field)
            elif kind == REQUEST_ID:
                # One value that is safe to log and to pass on, or none.
                if not head.request_id and 0 < len(field[1]) <= 128 and not field[1].translate(None, TOKEN):
                    head.request_id = field[1]
            elif kind == EXPECT:
                if not head.is_http10:
                    # An HTTP/1.0 client cannot mean it (RFC 9110 section 10.1.1).
                    head.expects_continue = True
                    append(field)
            elif kind == TE:
                head.accepts_trailers = head.accepts_trailers or extra
            elif kind == UNDERSCORE:
                if not limits.allow_underscores_in_headers:
                    raise ProtocolError(Outcome.HEADER_NAME_REFUSED, repr(field[0][:64]))
                append(field)
        if chunked:
            if length != -3:
                raise ProtocolError(Outcome.FRAMING_AMBIGUOUS)
            if head.is_http10:
                raise ProtocolError(Outcome.TRANSFER_CODING_REFUSED, "in an HTTP/1.0 request")
            head.length = CHUNKED
        elif length != -3:
            head.length = length
            head.has_length = True
        if head.target[0] != 47:
            _read_special_target(head, limits)
        if not has_host and not head.is_http10:
            raise ProtocolError(Outcome.HOST_MISSING)
        if nominated:
            fields[:] = [field for field in fields if field[0] not in nominated]
            forwarded = [field for field in forwarded if field[0] not in nominated]
    except ProtocolError as error:
        raise DownstreamError(error.outcome, error.detail) from None
    return head, forwarded


def _apply_connection(head: RequestHead | ResponseHead, options: ConnectionOptions, nominated: tuple[bytes, ...]) -> tuple[bytes, ...]:
    close, keep_alive, names = options
    if close:
        head.keep_alive = False
        head.wants_close = True
    elif keep_alive and not head.wants_close:
        head.keep_alive = True
    return nominated + names if names else nominated


def _read_request_line(line: bytes, limits: RequestLimits) -> RequestHead:
    if len(line) > limits.max_request_line_bytes:
        raise ProtocolError(Outcome.REQUEST_LINE_TOO_LONG)
    try:
        method, target, version = line.split(b" ")
    except ValueError:
        raise ProtocolError(Outcome.BARE_LINE_BREAK if b"\n" in line or b"\r" in line else Outcome.REQUEST_LINE_MALFORMED) from None
    if method not in _METHODS and (not method or method.translate(None, TOKEN)):
        raise ProtocolError(Outcome.REQUEST_LINE_MALFORMED, "method")
    if not target or target.translate(None, _TARGET):
        raise ProtocolError(Outcome.TARGET_MALFORMED)
    head = RequestHead(method, target)
    if version != b"HTTP/1.1":
        if version != b"HTTP/1.0":
            raise ProtocolError(_version_outcome(version))
        head.is_http10 = True
        head.keep_alive = False
    if target[0] == 47:
        _read_path(head, target, limits)
    return head


def _version_outcome(version: bytes) -> Outcome:
    if len(version) == 8 and version.startswith(b"HTTP/") and version[5:6].isdigit() and version[6:7] == b"." and version[7:].isdigit():
        return Outcome.VERSION_NOT_SUPPORTED
    return Outcome.REQUEST_LINE_MALFORMED


def _read_path(head: RequestHead, target: bytes, limits: RequestLimits) -> None:
    path, mark, query = target.partition(b"?")
    if b"%" in path or b"//" in path or b"/." in path or b"\\" in path:
        canonical = canonical_path(path, limits.paths)
        if canonical != path:
            path = canonical
            head.target = path + mark + query
    head.path = path
    head.query = query


def _read_special_target(head: RequestHead, limits: RequestLimits) -> None:
    """
    Read a target that is not a path: the absolute form every server must accept, and `OPTIONS *` (RFC 9112 section 3.2).
    """
    target = head.target
    if head.method == b"CONNECT":
        raise ProtocolError(Outcome.METHOD_NOT_SUPPORTED, "CONNECT")
    if target == b"*" and head.method == b"OPTIONS":
        return
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise ProtocolError(Outcome.TARGET_MALFORMED)
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority = rest[:cut]
    host = parse_authority(authority)
    if head.authority and head.authority.lower() != authority.lower():
        # RFC 9112 lets the target win; a backend might let the field win.
        raise ProtocolError(Outcome.HOST_MALFORMED, "differs from the target")
    head.host = host
    head.authority = authority
    head.target_scheme = scheme.lower()
    path = rest[cut:]
    head.target = path if path.startswith(b"/") else b"/" + path
    _read_path(head, head.target, limits)


def request_body_reader(length: int) -> BodyReader:
    """
    Return the reader for a request body of `length` (see `RequestHead.length`), which is not zero.
    """
    if length == CHUNKED:
        return ChunkedReader(REQUEST_LINES, refuse_trailers=True)
    return LengthReader(length)


# -- responses ------------------------------------------------------------------------------------------------------------------------

_STATUS_LINES: dict[bytes, tuple[int, bytes]] = {}


def _read_status_line(line: bytes) -> tuple[int, bytes, bool]:
    """
    Return status, the line as HTTP/1.1, and whether it was HTTP/1.0.
    """
    if line[:7] != b"HTTP/1." or line[7:8] not in (b"0", b"1") or line[8:9] != b" ":
        raise ProtocolError(Outcome.RESPONSE_MALFORMED, f"status line {line[:64]!r}")
    code = line[9:12]
    if len(code) != 3 or not code.isdigit() or not b"100" <= code <= b"599" or line[12:13] not in (b"", b" "):
        raise ProtocolError(Outcome.RESPONSE_MALFORMED, f"status line {line[:64]!r}")
    if line[12:].translate(None, FIELD_VALUE):
        raise ProtocolError(Outcome.RESPONSE_MALFORMED, "reason phrase")
    return int(code), b"HTTP/1.1" + (line[8:] if len(line) > 12 else line[8:] + b" "), line[7] == 48


def read_response_head(data: bytes, end: int, method: bytes, max_header_count: int = 256) -> ResponseHead:
    """
    Read the response to a request by `method` whose header section is `data[:end]` (the empty line left out).

    A 1xx head is read like any other; its length is 0. Raises `UpstreamError`.

    Long because it is the one loop every response pays for.
    """
    lines = data[:end].split(b"\r\n")
    try:
        line = lines[0]
        remembered = _STATUS_LINES.get(line)
        if remembered is not None:
            status, line = remembered
            is_http10 = False
        else:
            status, line, is_http10 = _read_status_line(lines[0])
            if not is_http10 and len(_STATUS_LINES) < 256:
                _STATUS_LINES[lines[0]] = (status, line)
        head = ResponseHead(status, line)
        if is_http10:
            head.keep_alive = False
        if len(lines) > max_header_count:
            raise ProtocolError(Outcome.RESPONSE_HEADERS_TOO_LARGE)
        append = head.fields.append
        length = -3
        chunked = False
        nominated: tuple[bytes, ...] = ()
        known = RESPONSE_LINES.get
        lines[0] = b""
        for line in lines:
            verdict = known(line)
            if verdict is None:
                if not line:
                    continue
                verdict = RESPONSE_LINES.judge(line)
            kind, field, extra = verdict
            if kind == PLAIN:
                append(field)
            elif kind == CONTENT_LENGTH:
                if length != -3:
                    raise ProtocolError(Outcome.LENGTH_MALFORMED, "repeated")
                length = extra
            elif kind == DATE:
                head.has_date = True
                append(field)
            elif kind == CONNECTION:
                nominated = _apply_connection(head, extra, nominated)
            elif kind == TRANSFER_ENCODING:
                if chunked:
                    raise ProtocolError(Outcome.TRANSFER_CODING_REFUSED, "repeated")
                chunked = True
            elif kind == UNDERSCORE:
                append(field)
        if chunked and length != -3:
            raise ProtocolError(Outcome.FRAMING_AMBIGUOUS)
        if nominated:
            head.fields[:] = [field for field in head.fields if field[0] not in nominated]
    except ProtocolError as error:
        outcome = error.outcome
        if outcome is not Outcome.RESPONSE_HEADERS_TOO_LARGE:
            outcome = Outcome.RESPONSE_MALFORMED
        raise UpstreamError(outcome, str(error)) from None
    _frame_response(head, method, length, chunked, is_http10)
    return head


def _frame_response(head: ResponseHead, method: bytes, length: int, chunked: bool, is_http10: bool) -> None:
    """
    Decide where the response's body ends (RFC 9112 section 6.3).
    """
    status = head.status
    if status < 200 or status == 204:
        head.declared_length = -3
        return
    head.declared_length = length
    if method == b"HEAD" or status == 304:
        return
    if chunked:
        if is_http10:
            raise UpstreamError(Outcome.RESPONSE_MALFORMED, "chunked in an HTTP/1.0 response")
        head.length = CHUNKED
    elif length != -3:
        head.length = length
    else:
        head.length = UNTIL_CLOSE
        head.keep_alive = False


def response_body_reader(length: int) -> BodyReader:
    """
    Return the reader for a response body of `length` (see `ResponseHead.length`), which is not zero.
    """
    if length == CHUNKED:
        return ChunkedReader(RESPONSE_LINES, refuse_trailers=False)
    if length == UNTIL_CLOSE:
        return CloseReader()
    return LengthReader(length)


def _reason(code: int) -> bytes:
    try:
        return HTTPStatus(code).phrase.encode("ascii")
    except ValueError:
        return b""


_OWN_STATUS_LINES: Final = {code: b"HTTP/1.1 %d %b" % (code, _reason(code)) for code in range(100, 600)}


def status_line(status: int) -> bytes:
    """
    Return the HTTP/1.1 status line for `status`, without CRLF.
    """
    return _OWN_STATUS_LINES[status]


def field_block(fields: Iterable[Field]) -> bytes:
    """
    Return the lines of `fields`, each with its CRLF.
    """
    return b"".join([b"%b\r\n" % field[2] for field in fields])
