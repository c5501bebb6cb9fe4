"""
Content codings: which one a client wants, and how to make it piece by piece.

`choose_encoding` reads `Accept-Encoding` in the strict way of RFC 9110 section 12.5.3. `make_encoder` returns a streaming encoder, of which
every piece of output can be sent as soon as it is there; with `flush` the peer can decode all that was fed so far.

A level is a level of zlib, from 1 to 9, and means about the same trouble for each coding: brotli's quality and zstd's level are the same
number, so level 6 is a 6 everywhere. Memory counts more than the last percent, because there is a stream for each response under way and a
client may keep it there by reading slowly: windows and hash tables are smaller than the libraries would choose. This is what a stream
holds in KiB, the milliseconds it takes, and the percentage that is left, for 256 KiB of source code in pieces of 64 KiB:

    level   br                   zstd                gzip, deflate
      1       295  0.8  31.7      530  0.6  30.0     250   1.7  31.8
      3       635  1.8  27.9      995  0.8  27.5     250   2.5  29.0
      6       935  4.5  24.9      790  2.1  25.5     250   5.5  25.9
      9     1,700  6.5  24.5      785  2.9  25.2     250  13.9  25.7

Larger bodies take no more than another 125 KiB. Left to themselves br and zstd would hold 3 MiB at level 6, at level 9 as much as 32 and
10. That would save up to 3 percent of such an output, and 9 percent of one made from a megabyte.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import brotli
import zstandard

__all__ = ["ENCODINGS", "Encoder", "choose_encoding", "is_compressible", "make_encoder", "weaken_etag"]

_LOWEST: Final = 1
_HIGHEST: Final = 9


class Encoder(Protocol):
    """
    One body under way.
    """

    def feed(self, data: bytes, flush: bool = False) -> bytes:
        """
        Take the next piece; return what can be sent now. With `flush`, all that was fed can be decoded from what was returned.

        A flush costs a few bytes of output and some of what later pieces could have saved: it is for bodies whose pieces are awaited.
        """

    def end(self) -> bytes:
        """
        Return what is left. Called once, and nothing is fed after it.
        """


class _Zlib:
    """
    gzip (RFC 1952) and deflate, which in HTTP is the zlib format (RFC 9110 section 8.4.1.2, RFC 1950). The window is 32 KiB.
    """

    __slots__ = ("_flush", "_work")

    def __init__(self, level: int, wbits: int) -> None:
        # zlib writes no time into the header of gzip, so the same body gives the same bytes.
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
    br (RFC 7932).

    The window is 64 KiB because from quality 5 on the library chooses its hash tables by it: up to 16 bits they are of bounded size,
    beyond that they take 1 MiB at quality 5, twice as much with each further one, and more than 25 at 9. Bodies that fit the window lose
    nothing by it.
    """

    __slots__ = ("_work",)

    _WINDOW_BITS: Final = 16

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


def _zstd_parameters(level: int) -> zstandard.ZstdCompressionParameters:
    """
    Return the parameters of a level with a window of 256 KiB, and tables of at most 65,536 entries.

    The tables are cleared for each body, so small bodies gain most by small ones. RFC 9659 would allow a window of 8 MiB. The library has
    other parameters for bodies known to be small, but they look for shorter matches and make more of JSON at most levels, not less.
    """
    table_bits = 16
    usual = zstandard.ZstdCompressionParameters.from_level(level)
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        window_log=18,
        hash_log=min(usual.hash_log, table_bits),
        chain_log=min(usual.chain_log, table_bits),
    )


class _Zstandard:
    """
    zstd (RFC 8878).
    """

    __slots__ = ("_work",)

    _PARAMETERS: Final = {level: _zstd_parameters(level) for level in range(_LOWEST, _HIGHEST + 1)}

    def __init__(self, level: int) -> None:
        # A compressor serves one stream at a time, so each has its own.
        self._work: Any = zstandard.ZstdCompressor(compression_params=self._PARAMETERS[level]).compressobj()

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


_MAKERS: Final[dict[bytes, Callable[[int], Encoder]]] = {
    b"br": _Brotli,
    b"zstd": _Zstandard,
    b"gzip": lambda level: _Zlib(level, 16 + zlib.MAX_WBITS),
    b"deflate": lambda level: _Zlib(level, zlib.MAX_WBITS),
}

ENCODINGS: Final = tuple(_MAKERS)
"""The codings that can be made, best first."""


def make_encoder(name: bytes, level: int) -> Encoder:
    """
    Return an encoder for one body. `level` is from 1, the fastest, to 9, the smallest; see above for what it costs.

    Raises `ValueError` for another level, and for a coding that is none of `ENCODINGS`.
    """
    make = _MAKERS.get(name)
    if make is None:
        raise ValueError(f"content coding {name!r} cannot be made; choose one of {', '.join(known.decode() for known in ENCODINGS)}")
    if not _LOWEST <= level <= _HIGHEST:
        raise ValueError(f"level {level} for content coding {name!r} does not exist; choose one from {_LOWEST} to {_HIGHEST}")
    return make(level)


# A weight has at most three decimals (RFC 9110 section 12.4.2).
_MEMBER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")
# RFC 9110 section 8.4.1.3.
_ALIASES: Final = {b"x-gzip": b"gzip"}

_LONGEST_REMEMBERED: Final = 256
_MOST_REMEMBERED: Final = 1024
_chosen: dict[tuple[bytes, tuple[bytes, ...]], bytes | None] = {}


def choose_encoding(accept_encoding: bytes | None, offered: Sequence[bytes]) -> bytes | None:
    """
    Return the one of `offered` (in lower case) that the client likes best, the earlier of equals, or `None` if it is better left alone.

    A client that says nothing gets no coding: RFC 9110 would allow any, but it may not know it. Members that cannot be read are passed
    over. There are few ways in which clients say what they accept, so the choice is remembered by the value, and all are forgotten when
    there are too many.
    """
    if not accept_encoding:
        return None
    key = (accept_encoding, tuple(offered))
    try:
        return _chosen[key]
    except KeyError:
        choice = _choose(_read_weights(accept_encoding), offered)
    if len(accept_encoding) <= _LONGEST_REMEMBERED:
        if len(_chosen) >= _MOST_REMEMBERED:
            _chosen.clear()
        _chosen[key] = choice
    return choice


def _choose(weights: dict[bytes, int], offered: Sequence[bytes]) -> bytes | None:
    others = weights.get(b"*", 0)
    best, best_weight = None, 0
    for name in offered:
        weight = weights.get(name, others)
        if weight > best_weight:
            best, best_weight = name, weight
    # No coding at all is a choice like the others once the client gives it a weight; else it is only what is left.
    return None if weights.get(b"identity", others) > best_weight else best


def _read_weights(value: bytes) -> dict[bytes, int]:
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


_COMPRESSIBLE: Final = re.compile(rb"text/|.*(?:json|xml|javascript|css|svg|html|wasm|yaml)", re.IGNORECASE)


def is_compressible(content_type: bytes) -> bool:
    """
    Say whether bodies of this type usually get smaller. Event streams do, but whoever encodes them has to flush.
    """
    return _COMPRESSIBLE.match(content_type.partition(b";")[0]) is not None


def weaken_etag(value: bytes) -> bytes:
    """
    Return the entity tag as a weak one: what was encoded on the way is equivalent, but not the same bytes (RFC 9110 section 8.8.1).
    """
    return b"W/" + value if value.startswith(b'"') else value
