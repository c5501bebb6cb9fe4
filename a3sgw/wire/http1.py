"""
Read and write HTTP/1 heads.

`read_request_head` and `read_response_head` turn a complete header section into a head; the body's framing is decided there and the
readers of `wire.body` follow it. Refusals follow RFC 9112 in the strict reading: what two servers could read two ways is refused, from a
client with 400 and from a backend with 502. This module knows framing and limits and nothing else: no socket, no clock, no policy of
routing.

Long because both directions are read by one set of rules, and neither half is of use without them.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from http import HTTPStatus
from typing import Final

import attrs

from a3sgw.errors import DownstreamError, Outcome, ProtocolError, UpstreamError
from a3sgw.message import Field, RequestHead, ResponseHead
from a3sgw.wire.body import BodyReader, ChunkedReader, CloseReader, LengthReader
from a3sgw.wire.fields import (
    CLIENT_KINDS,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    DATE,
    EXPECT,
    FORWARDED,
    HOST,
    KEEP_ALIVE,
    LOOKALIKE,
    ONLY_TOKEN,
    ONLY_VALUE,
    PLAIN,
    REFERER,
    REQUEST_ID,
    RESPONSE_KINDS,
    TE,
    TOKEN,
    TRANSFER_ENCODING,
    UNDERSCORE,
    UPGRADE,
    USER_AGENT,
    ConnectionOptions,
    LineTable,
    only,
    parse_authority,
)
from a3sgw.wire.handshake import WEBSOCKET, check_websocket, protocols
from a3sgw.wire.path import PathPolicy, canonical_path

__all__ = [
    "CHUNKED",
    "UNTIL_CLOSE",
    "RequestLimits",
    "check_partial_request",
    "field_block",
    "read_request_head",
    "read_request_line",
    "read_response_head",
    "request_body_reader",
    "response_body_reader",
    "status_line",
    "upgrade_fields",
]

REQUEST_LINES: Final = LineTable(CLIENT_KINDS, internal_prefix=b"x-gateway-")
RESPONSE_LINES: Final = LineTable(RESPONSE_KINDS)
# Bound once, not once a message.
_known_request_line: Final = REQUEST_LINES.get
_judge_request_line: Final = REQUEST_LINES.judge
_known_response_line: Final = RESPONSE_LINES.get
_judge_response_line: Final = RESPONSE_LINES.judge

_TARGET: Final = bytes(code for code in range(33, 127) if code != 35)
_ONLY_TARGET: Final = only(_TARGET)
# One pass finds targets that need a closer look: it makes what is wrong, `%` and a backslash to NUL, and a dot to a slash, so that
# a double slash and a segment that begins with a dot look alike.
_PROBE: Final = bytes(47 if code == 46 else code if code in _TARGET and code not in b"%\\" else 0 for code in range(256))
_METHODS: Final = frozenset([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"])
# A CR at the very end may yet get its LF.
_BARE_LINE_BREAK: Final = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n")

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

    `data` holds no complete header section; its first `already_checked` bytes were seen by an earlier call. Raises `DownstreamError` for
    the first fault in it; `read_request_head` asks here too, so that the answer does not depend on how the network cut the bytes.
    """
    if data[0] not in TOKEN:
        raise DownstreamError(Outcome.REQUEST_LINE_MALFORMED, "not HTTP")
    bare = _BARE_LINE_BREAK.search(data, max(already_checked - 1, 0))
    if bare is not None:
        data = data[: bare.start()]
    # The ends of lines that may be under way count for nothing.
    size = len(data.rstrip(b"\r\n"))
    line_end = data.find(b"\r\n")
    if line_end < 0:
        if size > limits.max_request_line_bytes:
            raise DownstreamError(Outcome.REQUEST_LINE_TOO_LONG)
    else:
        if line_end + 2 > already_checked:
            read_request_line(data[:line_end], limits)
        if size - line_end > limits.max_header_bytes:
            raise DownstreamError(Outcome.HEADERS_TOO_LARGE)
    if bare is not None:
        raise DownstreamError(Outcome.BARE_LINE_BREAK)


def read_request_head(data: bytes, end: int, limits: RequestLimits) -> tuple[RequestHead, list[Field]]:
    """
    Read the request whose header section is `data[:end]` (the empty line left out).

    Returns the head and the forwarding fields (`X-Forwarded-*`, `Forwarded`, `X-Real-Ip`), which are taken out of the head: whether
    they are believed is the caller's matter. `Connection` cannot take them out: they are meant for this hop, and a client must not be
    able to unsay what a proxy said of it. `head.target` is canonical. Raises `DownstreamError`.

    Long because it is the one loop every request pays for.
    """
    lines = data[:end].split(b"\r\n")
    begin = 0
    if not lines[0]:
        # RFC 9112 section 2.2: an empty line before a request is ignored.
        begin = 2
        del lines[0]
    try:
        line = lines[0]
        head = read_request_line(line, limits)
        if len(lines) > limits.max_header_count + 1 or end - begin - len(line) > limits.max_header_bytes:
            raise ProtocolError(Outcome.HEADERS_TOO_LARGE)
        del lines[0]
        fields = head.fields
        append = fields.append
        forwarded: list[Field] = []
        connection: ConnectionOptions | None = None
        length = -3
        chunked = False
        for line in lines:
            kind, field, extra = _known_request_line(line) or _judge_request_line(line)
            # Most common case first.
            if kind == PLAIN:
                append(field)
            elif kind == HOST:
                if head.host:
                    raise ProtocolError(Outcome.HOST_MALFORMED, "repeated")
                head.host = extra
                head.authority = field[1]
            elif kind == USER_AGENT:
                head.user_agent = field[1]
                append(field)
            elif kind == CONNECTION:
                connection = extra if connection is None else connection.joined(extra)
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
                value = field[1]
                if not head.request_id and 0 < len(value) <= 128 and value.translate(ONLY_TOKEN) == value:
                    head.request_id = value
            elif kind == EXPECT:
                if not head.is_http10:
                    # An HTTP/1.0 client cannot mean it (RFC 9110 section 10.1.1).
                    head.expects_continue = True
                    append(field)
            elif kind == TE:
                head.accepts_trailers = head.accepts_trailers or extra
            elif kind == UPGRADE:
                connection = extra if connection is None else connection.joined(extra)
            elif kind == CONTENT_TYPE:
                head.grpc = extra
                append(field)
            elif kind in (UNDERSCORE, LOOKALIKE):
                if kind == LOOKALIKE or not limits.allow_underscores_in_headers:
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
        if not head.host and not head.is_http10:
            raise ProtocolError(Outcome.HOST_MISSING)
        if head.target[0] != 47:
            _read_special_target(head, limits)
        if connection is not None and (connection is not KEEP_ALIVE or head.is_http10):
            _apply_connection(head, connection)
            if connection.upgrade and not head.is_http10:
                _apply_upgrade(head, connection)
    except ProtocolError as error:
        check_partial_request(data[begin : end + 2], 0, limits)
        raise DownstreamError(error.outcome, error.detail) from None
    return head, forwarded


def _apply_upgrade(head: RequestHead, options: ConnectionOptions) -> None:
    """
    Note what the connection may change to. HTTP/1.0 does not know of that (RFC 9110 section 7.8).

    HTTP itself is no such protocol: what a backend was asked in it would be asked past the gateway. Neither is anything while the request
    has a body, because where that ends and the other protocol begins is read differently by different servers.
    """
    wanted = protocols(options.upgrade)
    if WEBSOCKET in wanted:
        check_websocket(head, is_nominated=b"upgrade" in options.nominated)
        head.upgrade = WEBSOCKET
    elif b"upgrade" in options.nominated and not head.length and not head.has_length:
        head.upgrade = b", ".join(wanted)


def _apply_connection(head: RequestHead | ResponseHead, options: ConnectionOptions) -> None:
    close, keep_alive, nominated, _ = options
    if close:
        head.keep_alive = False
        head.wants_close = True
    elif keep_alive:
        head.keep_alive = True
    if nominated:
        head.nominated = nominated
        head.fields[:] = [field for field in head.fields if field[0] not in nominated]


def read_request_line(line: bytes, limits: RequestLimits) -> RequestHead:
    """
    Return a head with method and canonical target. A target that is no path is left as it is. Raises `DownstreamError`.
    """
    if len(line) > limits.max_request_line_bytes:
        raise DownstreamError(Outcome.REQUEST_LINE_TOO_LONG)
    try:
        method, target, version = line.split(b" ")
    except ValueError:
        raise DownstreamError(Outcome.REQUEST_LINE_MALFORMED) from None
    if method not in _METHODS:
        _check_method(method)
    head = RequestHead(method, target)
    if version != b"HTTP/1.1":
        if version != b"HTTP/1.0":
            raise DownstreamError(_version_outcome(version))
        head.is_http10 = True
        head.keep_alive = False
    probe = target.translate(_PROBE)
    if not target or target[0] != 47 or 0 in probe or probe.find(b"//") >= 0:
        _read_unusual_target(head, limits)
    else:
        head.path, _, head.query = target.partition(b"?")
    return head


def _check_method(method: bytes) -> None:
    if not method or method.translate(ONLY_TOKEN) != method:
        raise DownstreamError(Outcome.REQUEST_LINE_MALFORMED, "method")
    if method == b"CONNECT":
        # Whatever its target: a backend that answers it with 2xx would have made a tunnel.
        raise DownstreamError(Outcome.METHOD_NOT_SUPPORTED, "CONNECT")


def _version_outcome(version: bytes) -> Outcome:
    """
    Say what is wrong with a version that is neither HTTP/1.1 nor HTTP/1.0.

    RFC 9110 section 2.5 would have an unknown minor version, HTTP/1.2 say, read as 1.1. There is none, so whoever claims one is looking
    for two servers that disagree about it: it is answered 505 like any other version.
    """
    if len(version) == 8 and version.startswith(b"HTTP/") and version[5:6].isdigit() and version[6:7] == b"." and version[7:].isdigit():
        return Outcome.VERSION_NOT_SUPPORTED
    return Outcome.REQUEST_LINE_MALFORMED


def _read_unusual_target(head: RequestHead, limits: RequestLimits) -> None:
    """
    Read a target whose path may not be canonical; one that is no path is left for `_read_special_target`.
    """
    target = head.target
    if not target or target.translate(_ONLY_TARGET) != target:
        raise DownstreamError(Outcome.TARGET_MALFORMED)
    if target[0] == 47:
        _read_path(head, target, limits)


def _read_path(head: RequestHead, target: bytes, limits: RequestLimits) -> None:
    path, mark, query = target.partition(b"?")
    try:
        path = canonical_path(path, limits.paths)
    except ProtocolError as error:
        raise DownstreamError(error.outcome, error.detail) from None
    head.target = path + mark + query
    head.path = path
    head.query = query


def _read_special_target(head: RequestHead, limits: RequestLimits) -> None:
    """
    Read a target that is not a path: the absolute form every server must accept, and `OPTIONS *` (RFC 9112 section 3.2).
    """
    target = head.target
    if target == b"*" and head.method == b"OPTIONS":
        return
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise ProtocolError(Outcome.TARGET_MALFORMED)
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority = rest[:cut]
    host = parse_authority(authority)
    if head.host and head.authority.lower() != authority.lower():
        # RFC 9112 lets the target win; a backend might let the field win.
        raise ProtocolError(Outcome.HOST_MALFORMED, "differs from the target")
    head.host = host
    head.authority = authority
    head.target_scheme = scheme.lower()
    path = rest[cut:]
    _read_path(head, path if path.startswith(b"/") else b"/" + path, limits)


def request_body_reader(length: int, nominated: Set[bytes] = frozenset()) -> BodyReader:
    """
    Return the reader for a request body of `length` (see `RequestHead.length`), which is not zero.
    """
    if length == CHUNKED:
        return ChunkedReader(REQUEST_LINES, is_request=True, nominated=nominated)
    return LengthReader(length)


# -- responses ------------------------------------------------------------------------------------------------------------------------

_STATUS_LINES: dict[bytes, tuple[int, bytes]] = {}
_MAX_STATUS_LINES: Final = 256
_MAX_STATUS_LINE_BYTES: Final = 64


def _learn_status_line(line: bytes) -> tuple[int, bytes, bool]:
    """
    Return status, the line as HTTP/1.1, and whether it was HTTP/1.0. It is remembered if that may pay.
    """
    status, own, is_http10 = _read_status_line(line)
    if not is_http10 and len(line) <= _MAX_STATUS_LINE_BYTES:
        if len(_STATUS_LINES) >= _MAX_STATUS_LINES:
            _STATUS_LINES.clear()
        _STATUS_LINES[line] = (status, own)
    return status, own, is_http10


def _read_status_line(line: bytes) -> tuple[int, bytes, bool]:
    # The reason phrase may be missing, and even the blank before it: many send that, and it can be read one way only.
    if line[:7] != b"HTTP/1." or line[7:8] not in (b"0", b"1") or line[8:9] != b" ":
        raise ProtocolError(Outcome.RESPONSE_MALFORMED, f"status line {line[:64]!r}")
    code = line[9:12]
    if len(code) != 3 or not code.isdigit() or not b"100" <= code <= b"599" or line[12:13] not in (b"", b" "):
        raise ProtocolError(Outcome.RESPONSE_MALFORMED, f"status line {line[:64]!r}")
    if line.translate(ONLY_VALUE) != line:
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
            status, line, is_http10 = _learn_status_line(line)
        head = ResponseHead(status, line)
        if is_http10:
            head.keep_alive = False
        if len(lines) > max_header_count + 1:
            raise ProtocolError(Outcome.RESPONSE_HEADERS_TOO_LARGE)
        del lines[0]
        append = head.fields.append
        connection: ConnectionOptions | None = None
        length = -3
        chunked = False
        for line in lines:
            kind, field, extra = _known_response_line(line) or _judge_response_line(line)
            # Most common case first.
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
                connection = extra if connection is None else connection.joined(extra)
            elif kind == TRANSFER_ENCODING:
                if chunked:
                    raise ProtocolError(Outcome.TRANSFER_CODING_REFUSED, "repeated")
                chunked = True
            elif kind in (UNDERSCORE, LOOKALIKE):
                append(field)
        if chunked and length != -3:
            raise ProtocolError(Outcome.FRAMING_AMBIGUOUS)
        if connection is not None and (connection is not KEEP_ALIVE or is_http10):
            _apply_connection(head, connection)
        if length >= 0 and status >= 200 and status != 304 and status != 204 and method != b"HEAD":
            head.length = head.declared_length = length
        else:
            _frame_response(head, method, length, chunked, is_http10)
    except ProtocolError as error:
        outcome = error.outcome
        if outcome is not Outcome.RESPONSE_HEADERS_TOO_LARGE:
            outcome = Outcome.RESPONSE_MALFORMED
        raise UpstreamError(outcome, str(error)) from None
    return head


def upgrade_fields(data: bytes, end: int) -> list[Field]:
    """
    Return the `Upgrade` fields of a response that was read without complaint, which a 101 must have.
    """
    verdicts = [_known_response_line(line) or _judge_response_line(line) for line in data[:end].split(b"\r\n")[1:]]
    return [field for kind, field, _ in verdicts if kind == UPGRADE]


def _frame_response(head: ResponseHead, method: bytes, length: int, chunked: bool, is_http10: bool) -> None:
    """
    Decide where a response without a length, or without a body, ends (RFC 9112 section 6.3).
    """
    status = head.status
    if chunked and is_http10:
        raise ProtocolError(Outcome.TRANSFER_CODING_REFUSED, "in an HTTP/1.0 response")
    if status < 200:
        if chunked or length > 0:
            raise ProtocolError(Outcome.FRAMING_AMBIGUOUS, "an interim response with a body")
    elif status == 204:
        if chunked or length > 0:
            # It has no body by definition, but what its sender believes may arrive later and must not become the next response.
            head.keep_alive = False
    elif method == b"HEAD" or status == 304:
        head.declared_length = length
    elif chunked:
        head.length = CHUNKED
    else:
        head.length = UNTIL_CLOSE
        head.keep_alive = False


def response_body_reader(length: int, nominated: Set[bytes] = frozenset()) -> BodyReader:
    """
    Return the reader for a response body of `length` (see `ResponseHead.length`), which is not zero.
    """
    if length == CHUNKED:
        return ChunkedReader(RESPONSE_LINES, is_request=False, nominated=nominated)
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
