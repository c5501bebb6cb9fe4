"""
`strip-prefix`: cut a prefix off the path before the server sees it.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.setting import ListKind, label, setting
from a3sgw.interfaces import IRequestHook
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.middleware.target import CANONICAL_PATH, change_path

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["StripPrefix", "StripPrefixConfig", "factory"]


@attrs.frozen(kw_only=True)
class StripPrefixConfig:
    """
    Cut a prefix off the path before the server sees it.

    Prefixes are whole segments: `/api` is cut off `/api` and `/api/x`, and `/apix` is left alone. Of several that fit, the longest is cut.
    What is left begins with a slash (`/api` alone becomes `/`), and the query stays. Servers are told in `X-Forwarded-Prefix` what was cut
    off, together with what a trusted proxy cut off before.
    """

    type: ClassVar[str] = "strip-prefix"
    example: ClassVar[str] = """
        middlewares "without-api" {
          type     = "strip-prefix"
          prefixes = ["/api", "/api/v1"]
        }
        """

    name: str = label()
    prefixes: tuple[str, ...] = setting(ListKind(CANONICAL_PATH), "The prefixes; a slash at the end makes no difference.", default=())

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Find prefixes that cannot be cut off.
        """
        for index, prefix in enumerate(self.prefixes):
            if prefix == "/":
                yield f"prefixes[{index}]", 'has the prefix "/", and nothing would be cut off; leave it out'

    def advice(self) -> Iterator[tuple[str, str]]:
        """
        Find what does nothing.
        """
        if not self.prefixes:
            yield "prefixes", "names no prefix, so nothing is cut off"


@implementer(IRequestHook)
class StripPrefix:
    """
    The prefixes of one router or entrypoint.
    """

    def __init__(self, config: StripPrefixConfig, surroundings: Surroundings) -> None:
        cut = {prefix.rstrip("/").encode("ascii") for prefix in config.prefixes}
        self._prefixes = tuple(sorted(cut, key=len, reverse=True))

    def on_request(self, exchange: Exchange) -> None:
        """
        Cut off the longest prefix that fits.
        """
        head = exchange.head
        assert head is not None
        path = head.path
        # One look at all of them, for the requests that are none of its business.
        if not path.startswith(self._prefixes):
            return
        for prefix in self._prefixes:
            if path.startswith(prefix):
                rest = path[len(prefix) :]
                if not rest or rest[0] == 47:
                    change_path(head, rest or b"/")
                    exchange.forwarding = exchange.forwarding.prefixed(prefix)
                    return


factory = MiddlewareFactory(StripPrefixConfig, StripPrefix)
