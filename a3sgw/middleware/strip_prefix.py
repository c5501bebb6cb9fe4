"""
`strip-prefix`: cut a prefix off the path before the server sees it.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import PATH
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["StripPrefixConfig", "factory"]


@attrs.frozen(kw_only=True)
class StripPrefixConfig:
    """
    Cut a prefix off the path before the server sees it.
    """

    type: ClassVar[str] = "strip-prefix"
    runs: ClassVar[bool] = False

    name: str = label()
    prefixes: tuple[str, ...] = setting(ListKind(PATH), "The prefixes; the longest that fits is cut.", default=())


factory = MiddlewareFactory(StripPrefixConfig, lambda config, surroundings: None)
