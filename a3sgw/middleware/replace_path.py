"""
`replace-path`: ask the server for another path.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.setting import label, setting
from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IIdentitySource, IRequestHook
from a3sgw.message import LocalResponse, get_field, make_field
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.pattern import PATTERN, REPLACEMENT, Replacement, ReplacementTooLongError
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.middleware.target import CANONICAL_PATH, change_path
from a3sgw.refusal import refusal
from a3sgw.wire.path import canonical_path

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["ReplacePath", "ReplacePathConfig", "factory"]


@attrs.frozen(kw_only=True)
class ReplacePathConfig:
    """
    Ask the server for another path: always the same one (`path`), or one made of the client's (`regex` and `replacement`).

    The pattern is RE2's and not anchored: write `^` and `$` where they are meant. It sees the canonical path without the query; every match
    is replaced, and a path without a match stays as it is. In the replacement `$1`, `$${1}` and `$${name}` stand for groups (two dollar
    signs before a brace, because the file would read one as a variable). The result is made canonical again; one that the entrypoint would
    not have taken from a client is answered 400. The query stays.

    The server is told the former path in `X-Replaced-Path`, which clients cannot set. `OPTIONS *`, which has no path, is left alone.
    """

    type: ClassVar[str] = "replace-path"
    one_of: ClassVar[tuple[str, ...]] = ("path", "regex")
    example: ClassVar[str] = """
        middlewares "users-by-number" {
          type        = "replace-path"
          regex       = "^/users/([0-9]+)$"
          replacement = "/accounts/$1/profile"
        }
        """

    name: str = label()
    path: str | None = setting(CANONICAL_PATH, "The path to ask for.", default=None)
    regex: str | None = setting(PATTERN, "What to replace in the path.", default=None)
    replacement: str | None = setting(REPLACEMENT, "What matches of `regex` become.", default=None)

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Find one half of what belongs together, and what is no part of a path.
        """
        if self.regex is not None and self.replacement is None:
            yield "regex", 'has a "regex" but no "replacement"; give both'
        if self.replacement is not None:
            if self.regex is None:
                yield "replacement", 'has a "replacement" but no "regex"; give both'
            if "?" in self.replacement or "#" in self.replacement:
                yield "replacement", 'has a replacement with "?" or "#"; only the path is replaced, and the query stays as it is'


@implementer(IRequestHook, IIdentitySource)
class ReplacePath:
    """
    The new path of one router or entrypoint.
    """

    identity_fields = frozenset([b"x-replaced-path"])

    def __init__(self, config: ReplacePathConfig, surroundings: Surroundings) -> None:
        self._path = b"" if config.path is None else config.path.encode("ascii")
        self._replacement = None if config.regex is None else Replacement(config.regex, config.replacement or "")

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Replace the path.
        """
        head = exchange.head
        assert head is not None
        former = head.path
        if former[0] != 47:
            return None
        path = self._path
        if self._replacement is not None:
            try:
                replaced = self._replacement.apply(former)
                if replaced is None:
                    return None
                path = canonical_path(replaced if replaced.startswith(b"/") else b"/" + replaced, exchange.entrypoint.limits.paths)
            except ReplacementTooLongError:
                return refusal(Outcome.REQUEST_LINE_TOO_LONG, head.request_id)
            except ProtocolError as error:
                exchange.detail = str(error)
                return refusal(error.outcome, head.request_id)
        if path != former:
            change_path(head, path)
            if get_field(head.fields, b"x-replaced-path") is None:
                head.fields.append(make_field(b"X-Replaced-Path", former))
        return None


factory = MiddlewareFactory(ReplacePathConfig, ReplacePath)
