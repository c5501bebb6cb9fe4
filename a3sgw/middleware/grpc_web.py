"""
`grpc-web`: let browsers call gRPC methods.

A browser can neither send nor read trailers. gRPC-Web (the PROTOCOL-WEB document of the gRPC project) therefore puts them behind the last
message of a response's body, and has a form in base64 for browsers that cannot stream bytes. To servers everything is plain gRPC.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

import attrs
from zope.interface import implementer

from a3sgw.config.setting import label
from a3sgw.errors import DownstreamError, Outcome
from a3sgw.interfaces import IBodyFilter, IBodyFilterSource, IRequestFilterSource, IRequestHook, IResponseHook, ITrailerFilter
from a3sgw.message import Field, LocalResponse, ResponseHead, get_field, make_field, set_field
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.wire.grpc import GRPC, GRPC_WEB, GRPC_WEB_TEXT, Base64Reader, grpc_kind, trailers_frame
from a3sgw.wire.http1 import CHUNKED

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["GrpcWeb", "GrpcWebConfig", "factory"]

_STATUS: Final = frozenset([b"grpc-status", b"grpc-message", b"grpc-status-details-bin"])
_NO_STATUS: Final = (make_field(b"grpc-status", b"2"), make_field(b"grpc-message", b"The server gave no status"))


@attrs.frozen(kw_only=True)
class GrpcWebConfig:
    """
    Translate between gRPC-Web, which browsers can speak, and gRPC, in either of its forms: bytes and base64 text.

    Other requests pass untouched. Browsers on other sites need `cors` before it, with `x-grpc-web`, `x-user-agent`, `grpc-timeout` and
    `content-type` among the allowed headers.
    """

    type: ClassVar[str] = "grpc-web"
    example: ClassVar[str] = """
        middlewares "web" {
          type = "grpc-web"
        }
        """

    name: str = label()


def _suffix(content_type: bytes) -> bytes:
    """
    Return what a content type says of the messages: `+proto`.
    """
    plus = content_type.partition(b";")[0].strip().find(b"+")
    return b"" if plus < 0 else content_type.partition(b";")[0].strip()[plus:]


@implementer(IBodyFilter)
class _FromText:
    """
    A request in base64.
    """

    def __init__(self) -> None:
        self._reader = Base64Reader()

    def feed(self, piece: bytes) -> bytes:
        """
        Decode a piece.
        """
        try:
            return self._reader.feed(piece)
        except ValueError as error:
            raise DownstreamError(Outcome.BODY_MALFORMED, f"base64: {error}") from None

    def end(self) -> bytes:
        """
        See that nothing is missing.
        """
        try:
            self._reader.end()
        except ValueError as error:
            raise DownstreamError(Outcome.BODY_MALFORMED, f"base64: {error}") from None
        return b""


@implementer(ITrailerFilter)
class _ToWeb:
    """
    A response with its trailers behind the last message. Each piece is a text of its own in base64, so that no message waits for the next.
    """

    def __init__(self, *, is_text: bool) -> None:
        self._is_text = is_text

    def feed(self, piece: bytes) -> bytes:
        """
        Encode a piece.
        """
        return base64.b64encode(piece) if self._is_text else piece

    def end(self) -> bytes:
        """
        There were no trailers.
        """
        return self.end_with(())

    def end_with(self, trailers: Sequence[Field]) -> bytes:
        """
        Return the trailers as a message.
        """
        return self.feed(trailers_frame(trailers or _NO_STATUS))


@implementer(IRequestHook, IRequestFilterSource, IResponseHook, IBodyFilterSource)
class GrpcWeb:
    """
    Translates. What form the response takes is kept in `exchange.notes`, as long as it has yet to be translated.
    """

    def __init__(self, config: GrpcWebConfig, surroundings: Surroundings) -> None:
        pass

    def on_request(self, exchange: Exchange) -> None:
        """
        Make a head of gRPC out of one of gRPC-Web.
        """
        head = exchange.head
        assert head is not None
        kind = head.grpc
        if kind not in (GRPC_WEB, GRPC_WEB_TEXT):
            return
        accepted = grpc_kind((get_field(head.fields, b"accept") or b"").partition(b",")[0])
        exchange.notes[self] = (kind, accepted if accepted in (GRPC_WEB, GRPC_WEB_TEXT) else kind)
        head.grpc = GRPC
        set_field(head.fields, b"content-type", GRPC + _suffix(get_field(head.fields, b"content-type") or b""))
        if kind == GRPC_WEB_TEXT and head.length:
            head.length = CHUNKED
            head.has_length = False

    def request_filter(self, exchange: Exchange) -> IBodyFilter | None:
        """
        Decode what comes in base64.
        """
        kinds = exchange.notes.get(self)
        return _FromText() if kinds is not None and kinds[0] == GRPC_WEB_TEXT else None

    def on_response(self, exchange: Exchange, head: ResponseHead) -> LocalResponse | None:
        """
        Make a head of gRPC-Web out of one of gRPC. One that holds a status already has no body, and gets one.
        """
        kinds = exchange.notes.get(self)
        if kinds is None:
            return None
        content_type = get_field(head.fields, b"content-type") or b""
        if grpc_kind(content_type) != GRPC:
            # Not the answer of a gRPC server.
            del exchange.notes[self]
            return None
        set_field(head.fields, b"content-type", kinds[1] + _suffix(content_type))
        status = [field for field in head.fields if field[0] in _STATUS]
        if not status:
            return None
        del exchange.notes[self]
        others = [field for field in head.fields if field[0] not in _STATUS]
        return LocalResponse(head.status, others, _ToWeb(is_text=kinds[1] == GRPC_WEB_TEXT).end_with(status))

    def body_filter(self, exchange: Exchange, head: ResponseHead) -> ITrailerFilter | None:
        """
        Return the translation of a body.
        """
        kinds = exchange.notes.pop(self, None)
        return None if kinds is None else _ToWeb(is_text=kinds[1] == GRPC_WEB_TEXT)


factory = MiddlewareFactory(GrpcWebConfig, GrpcWeb)
