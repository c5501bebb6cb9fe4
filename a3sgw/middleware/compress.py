"""
`compress`: make responses smaller on the way.

A response is encoded if the client wants it, its type and size make it worth while, and nothing about it says that its bytes matter as they
are. `Vary` is set on every response whose coding would depend on the client, encoded or not, so that no cache gives one client's bytes to
another.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FLAG, Integer, Text, Word
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.interfaces import IBodyFilter, IBodyFilterSource, IResponseHook
from a3sgw.message import get_all_fields, get_field, make_field, remove_fields
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.wire.encoding import ENCODINGS, Encoder, choose_encoding, is_compressible, make_encoder, weaken_etag
from a3sgw.wire.vary import add_vary

if TYPE_CHECKING:
    from a3sgw.message import ResponseHead
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Compress", "CompressConfig", "factory"]

_STREAM_TYPES: Final = frozenset([b"text/event-stream", b"application/x-ndjson", b"application/ndjson", b"application/stream+json"])
# They speak of the bytes before they were encoded.
_OUTDATED: Final = (b"accept-ranges", b"content-md5", b"digest", b"repr-digest", b"content-digest")


def _check_media_type(text: str) -> str:
    kind, slash, rest = text.partition("/")
    if not (slash and kind and rest) or not text.isascii() or not text.isprintable() or set(text) & set(' ;,"'):
        raise ValueError('which is no media type like "application/json"')
    return text.lower()


_MEDIA_TYPE = Text('a media type like "application/json"', _check_media_type)


@attrs.frozen(kw_only=True)
class CompressConfig:
    """
    Compress responses with the coding that the client prefers: brotli, zstd, gzip or deflate.

    Left alone are bodies that are encoded already, parts of a body (206), what says `Cache-Control: no-transform`, gRPC, small bodies, and
    types that do not get smaller. An entity tag becomes a weak one.
    """

    type: ClassVar[str] = "compress"
    example: ClassVar[str] = """
        middlewares "smaller" {
          type           = "compress"
          min_size_bytes = 2048
          encodings      = ["zstd", "br", "gzip"]
        }
        """

    name: str = label()
    encodings: tuple[str, ...] = setting(
        ListKind(Word(tuple(name.decode() for name in ENCODINGS)), min_items=1),
        "The codings to offer; the earlier one wins where the client does not mind.",
        default=tuple(name.decode() for name in ENCODINGS),
    )
    level: int = setting(
        Integer(minimum=1, maximum=9),
        "From 1, the fastest, to 9, the smallest; beyond 6 the price multiplies for a few percent.",
        default=6,
    )
    min_size_bytes: int = setting(
        Integer(maximum=2**30, unit="bytes"), "Smaller bodies are left alone; one of unknown size is encoded.", default=1024
    )
    included_content_types: tuple[str, ...] = setting(
        ListKind(_MEDIA_TYPE),
        "The types to encode; without them, text and whatever has json, xml, javascript, css, svg, html, yaml or wasm in its name.",
        default=(),
    )
    excluded_content_types: tuple[str, ...] = setting(ListKind(_MEDIA_TYPE), "Types never to encode.", default=())
    event_streams: bool = setting(
        FLAG,
        "Whether event streams and streams of JSON lines are encoded too. Each piece is flushed, so that no event waits.",
        default=False,
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        if self.included_content_types and self.excluded_content_types:
            yield "excluded_content_types", "has both included_content_types and excluded_content_types; give one of them"


@implementer(IBodyFilter)
class _Encoding:
    """
    One body on its way through an encoder.
    """

    __slots__ = ("_encoder", "_flushes")

    def __init__(self, encoder: Encoder, flushes: bool) -> None:
        self._encoder = encoder
        self._flushes = flushes

    def feed(self, piece: bytes) -> bytes:
        """
        Encode a piece.
        """
        return self._encoder.feed(piece, self._flushes)

    def end(self) -> bytes:
        """
        Finish the body.
        """
        return self._encoder.end()


@implementer(IResponseHook, IBodyFilterSource)
class Compress:
    """
    Encodes responses. The decision is made once, on the head, and kept in `exchange.notes` for the body.
    """

    def __init__(self, config: CompressConfig, surroundings: Surroundings) -> None:
        self._offered = tuple(name.encode("ascii") for name in config.encodings)
        self._level = config.level
        self._min_size = config.min_size_bytes
        self._included = frozenset(text.encode("ascii") for text in config.included_content_types)
        self._excluded = frozenset(text.encode("ascii") for text in config.excluded_content_types)
        self._takes_streams = config.event_streams

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Decide whether and how to encode, and say so in the head.
        """
        request = exchange.head
        media_type = (get_field(head.fields, b"content-type") or b"").partition(b";")[0].strip().lower()
        if request is None or not self._is_worth_while(head, media_type, request.method):
            return
        add_vary(head.fields, b"Accept-Encoding")
        accepted = get_all_fields(request.fields, b"accept-encoding")
        name = choose_encoding(b", ".join(accepted) if accepted else None, self._offered)
        if name is None:
            return
        for index, field in enumerate(head.fields):
            if field[0] == b"etag":
                head.fields[index] = make_field(b"ETag", weaken_etag(field[1]))
        if head.status == 304:
            # It has no body, but names the one the client has, which was encoded.
            return
        for outdated in _OUTDATED:
            remove_fields(head.fields, outdated)
        head.fields.append(make_field(b"Content-Encoding", name))
        if request.method == b"HEAD":
            # How long the encoded body would be is not known.
            head.declared_length = -3
            return
        exchange.notes[self] = (name, media_type in _STREAM_TYPES)

    def _is_worth_while(self, head: ResponseHead, media_type: bytes, method: bytes) -> bool:
        """
        Say whether a client that accepts an encoding gets one.
        """
        status = head.status
        fields = head.fields
        if status < 200 or status in (204, 205, 206) or get_field(fields, b"content-range") is not None:
            return False
        if status != 304:
            size = head.declared_length
            if 0 <= size < self._min_size or (size < 0 and not head.length and method != b"HEAD"):
                return False
            if not self._takes(media_type):
                return False
        coding = get_field(fields, b"content-encoding")
        if coding is not None and coding.lower() != b"identity":
            return False
        return not any(b"no-transform" in value.lower() for value in get_all_fields(fields, b"cache-control"))

    def _takes(self, media_type: bytes) -> bool:
        if media_type.startswith(b"application/grpc"):
            return False
        if media_type in _STREAM_TYPES:
            return self._takes_streams
        if self._included:
            return media_type in self._included
        return media_type not in self._excluded and is_compressible(media_type)

    def body_filter(self, exchange: Exchange, head: ResponseHead) -> _Encoding | None:
        """
        Return the filter that was decided on.
        """
        decided = exchange.notes.pop(self, None)
        if decided is None:
            return None
        name, flushes = decided
        return _Encoding(make_encoder(name, self._level), flushes)


factory = MiddlewareFactory(CompressConfig, Compress)
