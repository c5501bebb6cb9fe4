"""
Content codings: which one a client wants, and how to make it piece by piece.

`choose_encoding` reads `Accept-Encoding` in the strict way of RFC 9110 section 12.5.3. `make_encoder` returns a streaming encoder, of which
every piece of output can be sent as soon as it is there; with `flush` the peer can decode all that was fed so far.

What a stream holds in memory matters more than the last percent: there is one for each response under way. A brotli stream with its
default window of 4 MiB holds half a MiB at quality 4, so the window here is 256 KiB; zstd's stays far below the 8 MiB that RFC 9659 lets
browsers expect.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import brotli
import zstandard

__all__ = ["ENCODINGS", "Encoder", "choose_encoding", "is_compressible", "make_encoder", "weaken_etag"]

_MEMBER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")
_ALIASES: Final = {b"x-gzip": b"gzip", b"x-compress": b"compress"}
_LONGEST_REMEMBERED: Final = 256
_REMEMBERED: Final = 1024
_COMPRESSIBLE: Final = re.compile(rb"text/|.*(?:json|xml|javascript|css|svg|html|wasm|yaml)", re.IGNORECASE)


class Encoder(Protocol):
    """
    One body under way.
    """

    def feed(self, data: bytes, flush: bool = False) -> bytes:
        """
        Take the next piece; return what can be sent now. With `flush`, all that was fed can be decoded from what was returned.
        """

    def end(self) -> bytes:
        """
        Return what is left. Called once.
        """


class _Zlib:
    """
    gzip (RFC 1952) and deflate, which in HTTP is the zlib format (RFC 1950). 48 KiB and 256 KiB of memory at levels 1 and 6.
    """

    __slots__ = ("_flush", "_work")

    def __init__(self, level: int, wbits: int) -> None:
        # Python writes no time into the header of gzip, so the same body gives the same bytes.
        work = zlib.compressobj(level, zlib.DEFLATED, wbits)
        self._work = work.compress
        self._flush = work.flush

    def feed(self, data: bytes, flush: bool = False) -> bytes:
        """
        Compress `data`.
        """
        made = self._work(data)
        return made + self._flush(zlib.Z_SYNC_FLUSH) if flush else made

    def end(self) -> bytes:
        """
        Finish the stream.
        """
        return self._flush(zlib.Z_FINISH)


class _Brotli:
    """
    br (RFC 7932), with a window of 256 KiB.
    """

    __slots__ = ("_work",)

    _WINDOW_BITS: Final = 18

    def __init__(self, quality: int) -> None:
        self._work = brotli.Compressor(quality=quality, lgwin=self._WINDOW_BITS)

    def feed(self, data: bytes, flush: bool = False) -> bytes:
        """
        Compress `data`.
        """
        made: bytes = self._work.process(data)
        return made + self._work.flush() if flush else made

    def end(self) -> bytes:
        """
        Finish the stream.
        """
        made: bytes = self._work.finish()
        return made


class _Zstandard:
    """
    zstd (RFC 8878), with a window of 512 KiB.
    """

    __slots__ = ("_work",)

    _WINDOW_BITS: Final = 19

    def __init__(self, level: int) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=self._WINDOW_BITS)
        self._work: Any = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def feed(self, data: bytes, flush: bool = False) -> bytes:
        """
        Compress `data`.
        """
        made: bytes = self._work.compress(data)
        return made + self._work.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) if flush else made

    def end(self) -> bytes:
        """
        Finish the stream.
        """
        made: bytes = self._work.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)
        return made


# What one level from 1 to 9 means for each coding, at about the same price. Beyond 6 the price multiplies for a few percent.
_BROTLI_QUALITY: Final = (0, 1, 2, 3, 4, 4, 5, 6, 7, 9)
_ZSTD_LEVEL: Final = (1, 1, 2, 3, 3, 4, 5, 7, 9, 12)

_MAKERS: Final[dict[bytes, Callable[[int], Encoder]]] = {
    b"br": lambda level: _Brotli(_BROTLI_QUALITY[level]),
    b"zstd": lambda level: _Zstandard(_ZSTD_LEVEL[level]),
    b"gzip": lambda level: _Zlib(level, 31),
    b"deflate": lambda level: _Zlib(level, 15),
}

ENCODINGS: Final = tuple(_MAKERS)
"""The codings that can be made, best first."""


def make_encoder(name: bytes, level: int) -> Encoder:
    """
    Return an encoder for one body. `level` is from 1, the fastest, to 9, the smallest.
    """
    return _MAKERS[name](level)


def choose_encoding(accept_encoding: bytes | None, offered: Sequence[bytes]) -> bytes | None:
    """
    Return the one of `offered` that the client likes best, the earlier of equals, or `None` if it is better left alone.

    A client that says nothing gets no coding: it may not know any. Members that cannot be read are passed over.
    """
    if not accept_encoding:
        return None
    weights = _known.get(accept_encoding)
    if weights is None:
        weights = _read(accept_encoding)
        if len(accept_encoding) <= _LONGEST_REMEMBERED:
            if len(_known) >= _REMEMBERED:
                _known.clear()
            _known[accept_encoding] = weights
    star = weights.get(b"*", 0)
    best, best_weight = None, 0
    for name in offered:
        weight = weights.get(name, star)
        if weight > best_weight:
            best, best_weight = name, weight
    # RFC 9110: identity is acceptable unless it is excluded; it is taken if the client says that it likes it better.
    return None if weights.get(b"identity", 0) > best_weight else best


_known: dict[bytes, dict[bytes, int]] = {}


def _read(value: bytes) -> dict[bytes, int]:
    """
    Return the weight of each coding in thousandths. Of a coding that stands twice the first counts.
    """
    weights: dict[bytes, int] = {}
    for part in value.split(b","):
        match = _MEMBER.fullmatch(part.strip(b" \t"))
        if match is not None:
            name, weight = match.groups()
            name = name.lower()
            weights.setdefault(_ALIASES.get(name, name), 1000 if weight is None else round(float(weight) * 1000))
    return weights


def is_compressible(content_type: bytes) -> bool:
    """
    Say whether bodies of this type usually get smaller.
    """
    return _COMPRESSIBLE.match(content_type.partition(b";")[0]) is not None


def weaken_etag(value: bytes) -> bytes:
    """
    Return the entity tag as a weak one: what was encoded on the way is equivalent, but not the same bytes (RFC 9110 section 8.8.1).
    """
    return value if value.startswith(b"W/") or not value.startswith(b'"') else b"W/" + value
