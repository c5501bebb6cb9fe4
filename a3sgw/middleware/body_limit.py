"""
`body-limit`: refuse requests whose body is too large, with 413.

A body of declared length is refused before any of it is read: a client that sent `Expect: 100-continue` learns in time that it need not
send. One of unknown length is counted as it comes, without being kept, and refused by the piece that goes beyond the limit, which no server
sees (RFC 9110 section 15.5.14).
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import IRequestBodyHook, IRequestHook
from a3sgw.message import LocalResponse
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.refusal import refusal

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["BodyLimit", "BodyLimitConfig", "factory"]


@attrs.frozen(kw_only=True)
class BodyLimitConfig:
    """
    Refuse requests whose body is too large, with 413.

    A declared length is judged before the body is read and before a server is chosen. A chunked body is counted while it passes; at the
    limit the request is refused, and the connection to the server that had begun to take it is closed. Nothing is buffered for this.
    """

    type: ClassVar[str] = "body-limit"
    example: ClassVar[str] = """
        middlewares "small-uploads" {
          type           = "body-limit"
          max_body_bytes = 1048576
        }
        """

    name: str = label()
    max_body_bytes: int = setting(Integer(minimum=1, unit="bytes"), "The largest body.")


@implementer(IRequestHook, IRequestBodyHook)
class BodyLimit:
    """
    The limit of one router or entrypoint. It has no state: how much of a body has come is a number that every exchange keeps.
    """

    def __init__(self, config: BodyLimitConfig, surroundings: Surroundings) -> None:
        self._limit = config.max_body_bytes

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Refuse a body that is declared too large.
        """
        head = exchange.head
        assert head is not None
        return self._refusal(head.request_id) if head.length > self._limit else None

    def on_request_body(self, exchange: Exchange, piece: bytes, ended: bool) -> LocalResponse | None:
        """
        Refuse a body that has become too large.
        """
        if exchange.bytes_received <= self._limit:
            return None
        assert exchange.head is not None
        return self._refusal(exchange.head.request_id)

    def _refusal(self, request_id: bytes) -> LocalResponse:
        return refusal(Outcome.BODY_TOO_LARGE, request_id, members={"max_bytes": self._limit})


factory = MiddlewareFactory(BodyLimitConfig, BodyLimit)
