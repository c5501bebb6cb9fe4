"""
`redirect-regex`: send clients to a URL that is made of the one they asked for.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Final

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FLAG
from a3sgw.config.setting import label, setting
from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IRequestHook
from a3sgw.message import LocalResponse
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.pattern import PATTERN, REPLACEMENT, Replacement, ReplacementTooLongError
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.middleware.target import DEFAULT_PORTS, public_host, redirection
from a3sgw.refusal import refusal
from a3sgw.wire.fields import parse_authority

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["RedirectRegex", "RedirectRegexConfig", "factory"]

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)")
# A second slash or backslash would make browsers read a host.
_PATH: Final = re.compile(rb"/(?![/\\])")


@attrs.frozen(kw_only=True)
class RedirectRegexConfig:
    """
    Send clients to a URL that is made of the one they asked for. A URL without a match, or that stays the same, is no matter of this
    middleware.

    The pattern is RE2's and sees the whole URL: `https://www.example.com/path?query`, scheme and host as the client used them (and as
    trusted proxies report them), the host in lower case, a port only if it is not the scheme's own, the path canonical and as middlewares
    before this one have left it. It is not anchored: write `^` and `$` where they are meant; every match is replaced. In the replacement
    `$1`, `$${1}` and `$${name}` stand for groups (two dollar signs before a brace, because the file would read one as a variable).

    The result must be an `http` or `https` URL, or a path on the same host. If for some request it is neither, that request is answered
    400: nobody can be sent somewhere by asking for `//elsewhere.example`.
    """

    type: ClassVar[str] = "redirect-regex"
    example: ClassVar[str] = """
        middlewares "without-www" {
          type        = "redirect-regex"
          regex       = "^https?://www\\\\.example\\\\.com/(.*)"
          replacement = "https://example.com/$1"
          permanent   = true
        }
        """

    name: str = label()
    regex: str = setting(PATTERN, "What to replace in the URL.")
    replacement: str = setting(REPLACEMENT, "What its matches become.")
    permanent: bool = setting(
        FLAG, "Answer 301 (308 if the method is neither GET nor HEAD), which browsers remember, and not 302 (307).", default=False
    )


@implementer(IRequestHook)
class RedirectRegex:
    """
    The redirection of one router or entrypoint.
    """

    def __init__(self, config: RedirectRegexConfig, surroundings: Surroundings) -> None:
        self._replacement = Replacement(config.regex, config.replacement)
        self._permanent = config.permanent

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Let pass what stays the same, send the rest elsewhere.
        """
        head = exchange.head
        assert head is not None
        scheme = exchange.forwarding.scheme
        host, port = public_host(exchange)
        colon = b":" if port and port != DEFAULT_PORTS[scheme] else b""
        url = b"%b://%b%b%b%b" % (scheme, host, colon, colon and port, head.target if head.target[0] == 47 else b"/")
        try:
            location = self._replacement.apply(url)
        except ReplacementTooLongError:
            return refusal(Outcome.REQUEST_LINE_TOO_LONG, head.request_id)
        if location is None or location == url:
            return None
        if not _is_sound(location):
            exchange.detail = f"no URL to send a client to: {location[:128]!r}"
            return refusal(Outcome.TARGET_MALFORMED, head.request_id)
        return redirection(exchange, location, permanent=self._permanent)


def _is_sound(location: bytes) -> bool:
    absolute = _ABSOLUTE.match(location)
    if absolute is None:
        return _PATH.match(location) is not None
    try:
        parse_authority(absolute[1])
    except ProtocolError:
        return False
    return True


factory = MiddlewareFactory(RedirectRegexConfig, RedirectRegex)
