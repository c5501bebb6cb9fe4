"""
`add-prefix`: put a prefix before the path that the server sees.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.setting import label, setting
from a3sgw.interfaces import IRequestHook
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.middleware.target import CANONICAL_PATH, change_path

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["AddPrefix", "AddPrefixConfig", "factory"]


@attrs.frozen(kw_only=True)
class AddPrefixConfig:
    """
    Put a prefix before the path that the server sees; the query stays.

    `OPTIONS *`, which has no path, is left alone. A prefix for a single server can stand in its URL instead.
    """

    type: ClassVar[str] = "add-prefix"
    example: ClassVar[str] = """
        middlewares "below-app" {
          type   = "add-prefix"
          prefix = "/app"
        }
        """

    name: str = label()
    prefix: str = setting(CANONICAL_PATH, "The prefix; a slash at its end makes no difference.")

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Find a prefix that adds nothing.
        """
        if self.prefix == "/":
            yield "prefix", 'has the prefix "/", and nothing would be added; leave the middleware out'


@implementer(IRequestHook)
class AddPrefix:
    """
    The prefix of one router or entrypoint.
    """

    def __init__(self, config: AddPrefixConfig, surroundings: Surroundings) -> None:
        self._prefix = config.prefix.rstrip("/").encode("ascii")

    def on_request(self, exchange: Exchange) -> None:
        """
        Put the prefix before the path.
        """
        head = exchange.head
        assert head is not None
        if head.path[0] == 47:
            change_path(head, self._prefix + head.path)


factory = MiddlewareFactory(AddPrefixConfig, AddPrefix)
