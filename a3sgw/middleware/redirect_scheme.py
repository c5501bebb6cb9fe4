"""
`redirect-scheme`: send clients from `http` to `https`, or the other way.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FLAG, Integer, Word
from a3sgw.config.setting import label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import IRequestHook
from a3sgw.message import LocalResponse
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.middleware.target import DEFAULT_PORTS, public_host, redirection
from a3sgw.refusal import refusal

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["RedirectScheme", "RedirectSchemeConfig", "factory"]


@attrs.frozen(kw_only=True)
class RedirectSchemeConfig:
    """
    Send clients from `http` to `https`, or the other way: to the same host, path and query, as they were asked for.

    A request that came by the scheme already passes. Behind a proxy that ends TLS, the proxy says in `X-Forwarded-Proto` how it was asked;
    it is believed only if it is among the entrypoint's `forwarded_headers.trusted_ips`. Name it there, or clients are sent in circles.
    """

    type: ClassVar[str] = "redirect-scheme"
    example: ClassVar[str] = """
        middlewares "to-https" {
          type      = "redirect-scheme"
          scheme    = "https"
          permanent = true
        }
        """

    name: str = label()
    scheme: str = setting(Word(("https", "http")), "Where to send clients.", default="https")
    port: int | None = setting(Integer(1, 65535), "The port there. Without it, the scheme's own (443 or 80).", default=None)
    permanent: bool = setting(
        FLAG, "Answer 301 (308 if the method is neither GET nor HEAD), which browsers remember, and not 302 (307).", default=False
    )


@implementer(IRequestHook)
class RedirectScheme:
    """
    The scheme of one router or entrypoint.
    """

    def __init__(self, config: RedirectSchemeConfig, surroundings: Surroundings) -> None:
        self._scheme = config.scheme.encode("ascii")
        port = b"" if config.port is None else b"%d" % config.port
        self._port = b":" + port if port and port != DEFAULT_PORTS[self._scheme] else b""
        self._permanent = config.permanent

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Let pass what came by the scheme, send the rest there.
        """
        if exchange.forwarding.scheme == self._scheme:
            return None
        head = exchange.head
        assert head is not None
        host, _ = public_host(exchange)
        if not host:
            return refusal(Outcome.HOST_MISSING, head.request_id)
        # What the client wrote, whatever other middlewares have made of it; an absolute form and `*` have no path to repeat.
        target = head.raw_path if head.raw_path[0] == 47 else head.target if head.target[0] == 47 else b"/"
        return redirection(exchange, b"%b://%b%b%b" % (self._scheme, host, self._port, target), permanent=self._permanent)


factory = MiddlewareFactory(RedirectSchemeConfig, RedirectScheme)
