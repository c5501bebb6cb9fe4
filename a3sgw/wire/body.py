"""
Find the end of a message body while its bytes pass through.

A reader is fed what arrives after the head and gives back the data in it; when `ended` becomes true, `rest` holds the bytes of the
next message. Bodies are decoded here and framed anew by whoever sends them on, so a chunk of one peer never reaches the other as it was
written: odd sizes, extensions and line ends stop at this door.

Readers raise `ProtocolError` with an outcome from the request's point of view; `wire.http1` translates it for responses.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from typing import Final

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.message import Field
from a3sgw.wire.fields import FIELD_VALUE, FORBIDDEN_TRAILERS, LineTable

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


class ChunkedReader(BodyReader):
    """
    A chunked body (RFC 9112 section 7.1), read strictly.

    Sizes have at most 15 hex digits and nothing around them but extensions, which are ignored and bounded; every line ends with CRLF;
    trailer fields are checked like header fields. With `refuse_trailers` a forbidden trailer field is an error, otherwise it is left out.
    """

    __slots__ = ("_extension_bytes", "_held", "_left", "_lines", "_refuse_trailers", "_state", "_trailer_bytes")

    MAX_SIZE_DIGITS: Final = 15
    MAX_SIZE_LINE: Final = 1024
    MAX_EXTENSION_BYTES: Final = 16384
    MAX_TRAILER_BYTES: Final = 16384

    def __init__(self, lines: LineTable, *, refuse_trailers: bool) -> None:
        self.ended = False
        self.rest = b""
        self.trailers = []
        self._lines = lines
        self._refuse_trailers = refuse_trailers
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
                        raise ProtocolError(Outcome.CHUNK_MALFORMED, "no CRLF after chunk data")
                    self._held = data[at:]
                    break
                if data[at] != 13 or data[at + 1] != 10:
                    raise ProtocolError(Outcome.CHUNK_MALFORMED, "no CRLF after chunk data")
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

    def _check_partial_line(self, state: int) -> None:
        held = self._held
        limit = self.MAX_SIZE_LINE if state == _SIZE else self.MAX_TRAILER_BYTES
        if len(held) > limit or b"\n" in held or b"\r" in held[:-1]:
            raise ProtocolError(Outcome.CHUNK_MALFORMED if state == _SIZE else Outcome.TRAILER_REFUSED, "unended line")
        if state == _SIZE and held:
            # A size that cannot become right is refused before the rest of its line arrives.
            digits = held.rstrip(b"\r").partition(b";")[0]
            self._chunk_size(digits or b"0")

    def _chunk_size(self, line: bytes) -> int:
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            self._extension_bytes += len(extension)
            if len(line) > self.MAX_SIZE_LINE or self._extension_bytes > self.MAX_EXTENSION_BYTES or extension.translate(None, FIELD_VALUE):
                raise ProtocolError(Outcome.CHUNK_MALFORMED, "chunk extension")
        if not digits or len(digits) > self.MAX_SIZE_DIGITS or digits.translate(None, b"0123456789abcdefABCDEF"):
            raise ProtocolError(Outcome.CHUNK_MALFORMED, f"chunk size {digits[:32]!r}")
        return int(digits, 16)

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > self.MAX_TRAILER_BYTES:
            raise ProtocolError(Outcome.TRAILER_REFUSED, "trailer section too large")
        try:
            field = self._lines.judge(line)[1]
        except ProtocolError as error:
            raise ProtocolError(Outcome.TRAILER_REFUSED, str(error)) from None
        if field.name in FORBIDDEN_TRAILERS:
            if self._refuse_trailers:
                raise ProtocolError(Outcome.TRAILER_REFUSED, repr(field.name))
        else:
            self.trailers.append(field)
