"""
`cors`: tell browsers which other sites may use these resources.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import HEADER_NAME, METHOD, Integer, Text
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["CorsConfig", "factory"]


def _check_origin(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if text not in ("*", "null") and (not separator or not scheme or not rest or "/" in rest or not text.isprintable() or " " in text):
        raise ValueError('which is neither "*" nor an origin like "https://app.example.com"')
    return text


def _check_star_or_header(text: str) -> str:
    return text if text == "*" else str(HEADER_NAME.read(text, False))


_ORIGIN = Text('an origin like "https://app.example.com", or "*"', _check_origin)
_HEADER_OR_STAR = Text('a header name, or "*"', _check_star_or_header)


@attrs.frozen(kw_only=True)
class CorsConfig:
    """
    Tell browsers which other sites may use these resources.
    """

    type: ClassVar[str] = "cors"
    runs: ClassVar[bool] = False

    name: str = label()
    allowed_origins: tuple[str, ...] = setting(ListKind(_ORIGIN), "The sites; `*` is every site.", default=("*",))
    allowed_methods: tuple[str, ...] = setting(
        ListKind(METHOD), "What they may do.", default=("GET", "POST", "PUT", "DELETE", "OPTIONS")
    )
    allowed_headers: tuple[str, ...] = setting(
        ListKind(_HEADER_OR_STAR), "Which headers they may send.", default=("Content-Type", "Authorization")
    )
    max_age: int = setting(Integer(maximum=366 * 86400, unit="seconds"), "How long browsers may remember this.", default=86400)


factory = MiddlewareFactory(CorsConfig, lambda config, surroundings: None)
