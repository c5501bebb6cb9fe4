"""
Find the end of a message body while its bytes pass through.

A reader is fed what arrives after the head and gives back the data in it; when `ended` becomes true, `rest` holds the bytes of the
next message. Bodies are decoded here and framed anew by whoever sends them on, so a chunk of one peer never reaches the other as it was
written: odd sizes, extensions and line ends stop at this door.

A reader of a request raises `DownstreamError` with the outcome for the client; a reader of a response `UpstreamError` with
`RESPONSE_MALFORMED`, whatever the fault is.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Final

from a3sgw.errors import DownstreamError, Outcome, ProtocolError, UpstreamError
from a3sgw.message import Field
from a3sgw.wire.fields import FORBIDDEN_TRAILERS, LOOKALIKE, PLAIN, TOKEN, UNDERSCORE, LineTable, only

__all__ = ["BodyReader", "ChunkedReader", "CloseReader", "LengthReader", "chunk"]


def chunk(data: bytes) -> bytes:
    """
    Return non-empty `data` as one chunk.
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


class BodyReader:
    """
    What the three kinds of framing have in common.
    """

    __slots__ = ("ended", "rest", "trailers")

    ended: bool
    rest: bytes
    trailers: list[Field]

    def feed(self, data: bytes) -> bytes:
        """
        Take the next bytes and return the body data in them, possibly none. Not to be called after the end.
        """
        raise AssertionError

    def finish(self) -> bool:
        """
        The connection ended: return whether the body is complete by that.
        """
        return False


class LengthReader(BodyReader):
    """
    A body of known length (RFC 9112 section 6.2), which must be above zero.
    """

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self.ended = False
        self.rest = b""
        self.trailers = []
        self._left = length

    def feed(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        self._left = 0
        self.ended = True
        if left < 0:
            self.rest = data[left:]
            return data[:left]
        return data


class CloseReader(BodyReader):
    """
    A response body that ends with its connection (RFC 9112 section 6.3, rule 8).
    """

    __slots__ = ()

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self.trailers = []

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bool:
        self.ended = True
        return True


_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3

_ONLY_HEX: Final = only(b"0123456789abcdefABCDEF")
# RFC 9112 section 7.1.1, without its optional blanks. A quote must end on its line: a lenient peer may take a line break within quotes
# for a part of them. No two alternatives begin alike, so nothing is tried twice and the time is linear.
_EXTENSIONS: Final = re.compile(
    rb'(?:;[%(token)b]++(?:=(?:[%(token)b]++|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"))?)+' % {b"token": re.escape(TOKEN)}
)


class ChunkedReader(BodyReader):
    """
    A chunked body (RFC 9112 section 7.1), read strictly.

    Sizes have at most 15 hex digits and nothing around them but extensions, which are ignored and bounded; every line ends with CRLF;
    trailer fields are checked like header fields. A field that may not stand in a trailer is an error in a request and left out of a
    response. `nominated` are the names that the head's `Connection` makes hop-by-hop; they are left out of both.
    """

    __slots__ = ("_extension_bytes", "_held", "_is_request", "_left", "_lines", "_nominated", "_state", "_trailer_bytes")

    MAX_SIZE_DIGITS: Final = 15
    MAX_SIZE_LINE: Final = 1024
    MAX_EXTENSION_BYTES: Final = 16384
    """By how much extensions may outweigh the data."""
    MAX_TRAILER_BYTES: Final = 16384
    MAX_TRAILER_COUNT: Final = 128

    def __init__(self, lines: LineTable, *, is_request: bool, nominated: Set[bytes] = frozenset()) -> None:
        self.ended = False
        self.rest = b""
        self.trailers = []
        self._lines = lines
        self._is_request = is_request
        self._nominated = nominated
        self._state = _SIZE
        self._left = 0
        self._held = b""
        self._extension_bytes = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """
        Take the next bytes and return the body data in them.

        Long because it is one loop over four states, the commonest first; a call per state would double its cost on small chunks.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        size = len(data)
        state = self._state
        while True:
            if state == _DATA:
                stop = at + self._left
                if stop > size:
                    pieces.append(data[at:] if at else data)
                    self._left = stop - size
                    break
                pieces.append(data[at:stop])
                at = stop
                state = _DATA_END
            if state == _DATA_END:
                if size - at < 2:
                    if size > at and data[at] != 13:
                        raise self._fault(Outcome.CHUNK_MALFORMED, "no CRLF after chunk data")
                    self._held = data[at:]
                    break
                if data[at] != 13 or data[at + 1] != 10:
                    raise self._fault(Outcome.CHUNK_MALFORMED, "no CRLF after chunk data")
                at += 2
                state = _SIZE
            end = data.find(b"\r\n", at)
            if end < 0:
                self._held = data[at:]
                self._check_partial_line(state)
                break
            if state == _SIZE:
                self._left = self._chunk_size(data[at:end])
                state = _DATA if self._left else _TRAILER
            elif end == at:
                self.ended = True
                self.rest = data[end + 2 :]
                break
            else:
                self._take_trailer(data[at:end])
            at = end + 2
        self._state = state
        if len(pieces) == 1:
            return pieces[0]
        return b"".join(pieces)

    def _fault(self, outcome: Outcome, detail: str) -> ProtocolError:
        if self._is_request:
            return DownstreamError(outcome, detail)
        return UpstreamError(Outcome.RESPONSE_MALFORMED, f"{outcome.message}: {detail}")

    def _check_partial_line(self, state: int) -> None:
        """
        Refuse the beginning of a line as soon as it cannot become a good one: its CR may have come, its LF has not.
        """
        line = self._held.removesuffix(b"\r")
        limit = self.MAX_SIZE_LINE if state == _SIZE else self.MAX_TRAILER_BYTES
        if len(line) > limit or b"\n" in line or b"\r" in line:
            raise self._fault(Outcome.CHUNK_MALFORMED if state == _SIZE else Outcome.TRAILER_REFUSED, "unended line")
        if state == _SIZE and self._held:
            digits, semicolon, _ = line.partition(b";")
            if digits or semicolon or self._held == b"\r":
                self._read_digits(digits)

    def _read_digits(self, digits: bytes) -> int:
        if not digits or len(digits) > self.MAX_SIZE_DIGITS or digits.translate(_ONLY_HEX) != digits:
            raise self._fault(Outcome.CHUNK_MALFORMED, f"chunk size {digits[:32]!r}")
        return int(digits, 16)

    def _chunk_size(self, line: bytes) -> int:
        # Nearly always there is nothing but digits.
        if 59 not in line:
            return self._read_digits(line)
        digits = line.partition(b";")[0]
        extensions = line[len(digits) :]
        size = self._read_digits(digits)
        # What comes with data is no burden: only the surplus is counted, or a long body with signed chunks would be cut off.
        self._extension_bytes = max(0, self._extension_bytes + len(extensions) - size)
        if (
            len(line) > self.MAX_SIZE_LINE
            or self._extension_bytes > self.MAX_EXTENSION_BYTES
            or _EXTENSIONS.fullmatch(extensions) is None
        ):
            raise self._fault(Outcome.CHUNK_MALFORMED, "chunk extension")
        return size

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > self.MAX_TRAILER_BYTES or len(self.trailers) == self.MAX_TRAILER_COUNT:
            raise self._fault(Outcome.TRAILER_REFUSED, "trailer section too large")
        try:
            kind, field, _ = self._lines.get(line) or self._lines.judge(line)
        except ProtocolError as error:
            raise self._fault(Outcome.TRAILER_REFUSED, str(error)) from None
        name = field.name
        if self._is_request:
            # Every kind but plain is the gateway's own business, or a name that some take for it.
            if kind != PLAIN or name in FORBIDDEN_TRAILERS:
                raise self._fault(Outcome.TRAILER_REFUSED, repr(name[:64]))
        elif kind not in (PLAIN, UNDERSCORE, LOOKALIKE) or name in FORBIDDEN_TRAILERS:
            return
        if name not in self._nominated:
            self.trailers.append(field)
