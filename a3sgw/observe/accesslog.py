"""
Write one line for each exchange.

A line is built when its exchange ends, kept, and given to the sink with others: twice a second by the carrier's timer, or as soon as
64 KiB wait. The lines are independent of the gateway's own log and its level.

`json` lines are ASCII. A header value or path is bytes on the wire and text in the line: read as UTF-8 if it is that, else as Latin-1, so
byte 0xE9 stands as `\\u00e9` and nothing is lost. `common` and `combined` lines follow Apache's formats, with quotes, backslashes and all
that is not printable ASCII escaped as `\\"`, `\\\\` and `\\xHH`. No client can begin a line of its own in any of the three.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import ILogSink, IObserver

if TYPE_CHECKING:
    from a3sgw.message import RequestHead
    from a3sgw.observe.record import Record

__all__ = ["FORMATS", "REDACTED", "AccessLog"]

FORMATS = ("json", "common", "combined")

REDACTED = b"[redacted]"
"""Stands for a query that is not to be logged."""

_BATCH_BYTES = 64 * 1024

_PLAIN_JSON = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
"""What stands for itself in a JSON string."""

_APACHE_ESCAPES = [f"\\x{byte:02x}".encode() for byte in range(256)]
for _byte in range(0x20, 0x7F):
    _APACHE_ESCAPES[_byte] = bytes((_byte,))
_APACHE_ESCAPES[ord('"')] = b'\\"'
_APACHE_ESCAPES[ord("\\")] = b"\\\\"

_JSON_LINE = (
    b'{"timestamp":"%b.%06d+00:00","client_ip":%b,"method":%b,"path":%b,"host":%b,"status":%d,"response_bytes":%d,"duration_ms":%d,'
    b'%b,"user_agent":%b,"query":%b,"request_id":%b,%b,"referer":%b,"request_bytes":%d,%b,'
    b'"upstream_ms":%b,"attempts":%d,"outcome":%b,"peer":%b}\n'
)


@implementer(IObserver)
class AccessLog:
    """
    The access log of one carrier.

    `format` is one of `FORMATS`. `wall_clock` gives seconds of the epoch, `seconds` is the clock of the records' moments. With
    `redact_query`, a query that was there is replaced by `REDACTED`. The owner calls `flush` now and then and before it closes the sink.
    """

    def __init__(
        self,
        sink: ILogSink,
        format: str,
        redact_query: bool,
        wall_clock: Callable[[], float],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"access log format {format!r}: expected one of {', '.join(FORMATS)}")
        self._sink = sink
        self._wall_clock = wall_clock
        self._seconds = seconds
        self._offset = wall_clock() - seconds()
        self._line: Callable[[Record, float], bytes]
        self._is_json = format == "json"
        if format == "json":
            self._line = _JSONLines(redact_query).line
        else:
            self._line = _ApacheLines(redact_query, is_combined=format == "combined").line
        self._lines: list[bytes] = []
        self._size = 0

    def exchange_ended(self, record: Record) -> None:
        """
        Keep the line of one exchange.
        """
        line = self._line(record, record.ended + self._offset)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _BATCH_BYTES:
            self.flush()

    def write(self, record: Record, more: bytes) -> None:
        """
        Keep the line of something else than an exchange; a JSON line has `more` members at its end.
        """
        line = self._line(record, record.ended + self._offset)
        if self._is_json:
            line = b"%b,%b}\n" % (line[:-2], more)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """
        Give all lines kept so far to the sink.
        """
        if self._lines:
            batch = b"".join(self._lines)
            self._lines.clear()
            self._size = 0
            self._sink.write(batch)
        # The wall clock may be set while we run.
        self._offset = self._wall_clock() - self._seconds()


class _Memo(dict[Any, bytes]):
    """
    Written forms of values that come again and again, such as user agents.

    A hit is one dict look-up with no call. Emptied when full, so that a client which never repeats itself costs time but no memory.
    """

    _LONGEST = 256

    def __init__(self, write: Callable[[Any], bytes], limit: int = 1024) -> None:
        super().__init__()
        self._write = write
        self._limit = limit

    def __missing__(self, value: Any) -> bytes:
        text = self._write(value)
        if len(text) <= self._LONGEST:
            if len(self) >= self._limit:
                self.clear()
            self[value] = text
        return text


class _JSONLines:
    """
    The fields of the original gateway in its order, then ours.

    What was refused before its head could be read has `null` where the head would tell; `client_ip` is the peer then. An upstream
    status, an upstream time, a revision or a query that was not there is `null`; a status of 0 says that the client was sent nothing.
    """

    def __init__(self, redact_query: bool) -> None:
        self._redacted = _json_string(REDACTED) if redact_query else None
        # Room for the hosts and routes of a large configuration.
        self._strings = _Memo(_json_string, 16384)
        # Apart, because a crowd of clients must not push the user agents out.
        self._addresses = _Memo(_json_string)
        self._ways = _Memo(_json_way, 65536)
        self._services = _Memo(_json_service, 65536)
        self._protocols = _Memo(_json_protocol)
        self._outcomes = {outcome.word: _json_text(outcome.word) for outcome in Outcome}
        self._second = -1
        self._second_text = b""

    def line(self, record: Record, now: float) -> bytes:
        """
        Return the line of `record`, which ended at `now`. Long because calls would double its price.
        """
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        strings = self._strings
        peer = self._addresses[record.peer]
        head = record.head
        if head is None:
            client, method, path, host, agent, query, request_id, referer = peer, *(b"null",) * 7
        else:
            client = self._addresses[head.client or record.peer]
            method = strings[head.method]
            target = head.raw_path
            if target[:1] == b"/" and not target.translate(None, _PLAIN_JSON):
                # Inline, because nearly every target is like that.
                path, _, query = target.partition(b"?")
                path = b'"%b"' % path
                query = (b'"%b"' % query if self._redacted is None else self._redacted) if query else b"null"
            else:
                path, query = self._split(target)
            host = strings[head.authority]
            agent = strings[head.user_agent]
            referer = strings[head.referer]
            request_id = head.request_id
            # Never seen twice, so not in the memo; ours are hexadecimal.
            request_id = b'"%b"' % request_id if request_id.isalnum() else _json_string(request_id)
        route = record.route
        backend = record.backend
        first_byte = record.first_byte
        leased = record.leased
        outcome = record.outcome
        line = _JSON_LINE % (
            self._second_text,
            int((now - second) * 1e6),
            client,
            method,
            path,
            host,
            record.status,
            record.bytes_sent,
            int((record.ended - record.started) * 1000),
            self._ways[
                None if backend is None else backend.url,
                None if route is None else route.name,
                record.entrypoint.name,
            ],
            agent,
            query,
            request_id,
            self._protocols[record.scheme, record.protocol],
            referer,
            record.bytes_received,
            self._services[None if route is None else route.service_name, record.revision, record.upstream_status],
            b"%.3f" % ((first_byte - leased) * 1000) if leased and first_byte else b"null",
            record.attempts,
            self._outcomes[outcome.word] if outcome is not None else b"null",
            peer,
        )
        if head is not None and head.grpc:
            line = b'%b,"grpc_status":%b}\n' % (line[:-2], getattr(record, "grpc_status", b"") or b"null")
        return line

    def _split(self, target: bytes) -> tuple[bytes, bytes]:
        """
        Return the path and the query of `target` as JSON values.
        """
        path, query = _path_and_query(target)
        if query and self._redacted is not None:
            return _json_string(path), self._redacted
        return _json_string(path), _json_string(query)


class _ApacheLines:
    """
    Apache's `common` and `combined` formats, with the moment of completion in UTC.

    What was refused before its head could be read has `-` for its request line. A status is always three digits, 000 if the client was
    sent nothing.
    """

    def __init__(self, redact_query: bool, is_combined: bool) -> None:
        self._redact_query = redact_query
        self._is_combined = is_combined
        self._strings = _Memo(_apache_string)
        self._second = -1
        self._second_text = b""

    def line(self, record: Record, now: float) -> bytes:
        """
        Return the line of `record`, which ended at `now`.
        """
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = _apache_moment(second)
        strings = self._strings
        head = record.head
        line = b'%b - - [%b] "%b" %03d %b' % (
            # Apache's fields end at blanks, and this one is not quoted.
            strings[(head is not None and head.client) or record.peer].replace(b" ", b"\\x20"),
            self._second_text,
            b"-" if head is None else self._request_line(head, record.protocol),
            record.status,
            b"%d" % record.bytes_sent if record.bytes_sent else b"-",
        )
        if not self._is_combined:
            return line + b"\n"
        if head is None:
            return line + b' "-" "-"\n'
        return b'%b "%b" "%b"\n' % (line, strings[head.referer], strings[head.user_agent])

    def _request_line(self, head: RequestHead, protocol: bytes) -> bytes:
        target = head.raw_path
        if self._redact_query:
            before, mark, query = target.partition(b"?")
            target = before + mark + REDACTED if query else target
        return b"%b %b %b" % (self._strings[head.method], _apache_string(target), self._strings[protocol])


# -- values ---------------------------------------------------------------------------------------------------------------------------


def _path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """
    Cut a request target of any form (RFC 9112 section 3.2) in two. `*` and `host:port` are their own path.
    """
    path, _, query = target.partition(b"?")
    if path[:1] != b"/":
        _, separator, rest = path.partition(b"://")
        if separator:
            path = b"/" + rest.partition(b"/")[2]
    return path, query


def _json_string(value: bytes) -> bytes:
    """
    Return `value` as a JSON string, or `null` if it is empty.
    """
    if not value:
        return b"null"
    if not value.translate(None, _PLAIN_JSON):
        return b'"%b"' % value
    try:
        return json.dumps(value.decode("utf-8")).encode()
    except UnicodeDecodeError:
        return json.dumps(value.decode("latin-1")).encode()


def _json_text(text: str | None) -> bytes:
    return json.dumps(text).encode()


def _json_way(way: tuple[str | None, str | None, str | None]) -> bytes:
    """
    Return the three fields of the way that an exchange took, which are the same for all on one route to one backend.
    """
    backend, router, entrypoint = way
    return b'"backend":%b,"router":%b,"entrypoint":%b' % (_json_text(backend), _json_text(router), _json_text(entrypoint))


def _json_service(answer: tuple[str | None, str | None, int]) -> bytes:
    service, revision, status = answer
    said = b"%d" % status if status else b"null"
    return b'"service":%b,"revision":%b,"upstream_status":%b' % (_json_text(service), _json_text(revision), said)


def _json_protocol(pair: tuple[bytes, bytes]) -> bytes:
    scheme, protocol = pair
    return b'"scheme":%b,"protocol":%b' % (_json_string(scheme), _json_string(protocol))


def _apache_string(value: bytes) -> bytes:
    """
    Return `value` escaped, or `-` if it is empty.
    """
    if not value:
        return b"-"
    if not value.translate(None, _PLAIN_JSON):
        return value
    return b"".join([_APACHE_ESCAPES[byte] for byte in value])


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _apache_moment(second: int) -> bytes:
    """
    Return `10/Oct/2000:13:55:36 +0000`. Not by `strftime`, whose month names follow the locale.
    """
    moment = time.gmtime(second)
    return f"{moment.tm_mday:02}/{_MONTHS[moment.tm_mon - 1]}/{moment.tm_year}:{time.strftime('%H:%M:%S', moment)} +0000".encode()
