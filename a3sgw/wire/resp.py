"""
Write commands to Redis and read its replies, in RESP2 (the Redis serialization protocol, version 2).

Commands are arrays of byte strings. A reply is `bytes` (simple and bulk strings), `int`, `None`, a list of replies, or an `ErrorReply`,
which is a value like the others: what an error means is the asker's matter.

The reader is strict, and bounds what it keeps: replies are small here, so anything else is not Redis.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Union

__all__ = ["ErrorReply", "Reply", "ReplyReader", "encode_command", "encode_part"]

_INTEGER: Final = re.compile(rb"-?[0-9]{1,19}").fullmatch
_DEEPEST: Final = 8


class ErrorReply(NamedTuple):
    """
    What Redis answers instead: `code` is the first word, as in `NOSCRIPT`, `text` all of it.
    """

    code: str
    text: str


Reply = Union[bytes, int, None, ErrorReply, list["Reply"]]


def encode_part(part: bytes) -> bytes:
    """
    Return one argument of a command, as it stands among the others.
    """
    return b"$%d\r\n%b\r\n" % (len(part), part)


def encode_command(*parts: bytes) -> bytes:
    """
    Return a whole command.
    """
    return b"*%d\r\n%b" % (len(parts), b"".join(map(encode_part, parts)))


class _Incomplete(Exception):  # noqa: N818 - no error
    """
    The rest of a reply has yet to come.
    """


class ReplyReader:
    """
    Turns what arrives on one connection into replies.
    """

    __slots__ = ("_buffer", "_limit", "_position")

    def __init__(self, limit: int = 65536) -> None:
        self._buffer = b""
        self._limit = limit
        self._position = 0

    def feed(self, data: bytes) -> list[Reply]:
        """
        Take the next bytes and return the replies that are whole now. Raises `ValueError` for what is no reply, or larger than `limit`.
        """
        self._buffer = self._buffer + data if self._buffer else data
        self._position = whole = 0
        replies: list[Reply] = []
        try:
            while whole < len(self._buffer):
                replies.append(self._read(0))
                whole = self._position
        except _Incomplete:
            pass
        self._buffer = self._buffer[whole:]
        if len(self._buffer) > self._limit:
            raise ValueError("a reply that is too large")
        return replies

    def _read(self, depth: int) -> Reply:
        line = self._take_line()
        kind, rest = line[:1], line[1:]
        if kind == b":":
            return _integer(rest)
        if kind == b"$":
            size = _integer(rest)
            return None if size == -1 else self._take_bulk(size)
        if kind == b"*":
            count = _integer(rest)
            if count == -1:
                return None
            if not 0 <= count <= self._limit or depth >= _DEEPEST:
                raise ValueError("an array that is too large")
            return [self._read(depth + 1) for _ in range(count)]
        if kind == b"+":
            return rest
        if kind == b"-":
            text = rest.decode("utf-8", "replace")
            return ErrorReply(text.partition(" ")[0], text)
        raise ValueError(f"a reply that begins with {line[:16]!r}")

    def _take_line(self) -> bytes:
        end = self._buffer.find(b"\r\n", self._position)
        if end < 0:
            raise _Incomplete
        line = self._buffer[self._position : end]
        self._position = end + 2
        return line

    def _take_bulk(self, size: int) -> bytes:
        if not 0 <= size <= self._limit:
            raise ValueError("a string that is too large")
        start = self._position
        end = start + size
        if len(self._buffer) < end + 2:
            raise _Incomplete
        if self._buffer[end : end + 2] != b"\r\n":
            raise ValueError("a string that is not as long as it says")
        self._position = end + 2
        return self._buffer[start:end]


def _integer(text: bytes) -> int:
    if _INTEGER(text) is None:
        raise ValueError(f"a number written {text[:16]!r}")
    return int(text)
