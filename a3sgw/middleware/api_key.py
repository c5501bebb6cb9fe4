"""
`api-key`: let through only requests that bear one of some keys in a header.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import FILE, HEADER_NAME, SECRET
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.config.values import Secret
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["ApiKeyConfig", "factory"]


@attrs.frozen(kw_only=True)
class ApiKeyConfig:
    """
    Let through only requests that bear one of some keys in a header. Give `keys` or `keys_file`.
    """

    type: ClassVar[str] = "api-key"
    runs: ClassVar[bool] = False
    one_of: ClassVar[tuple[str, ...]] = ("keys", "keys_file")

    name: str = label()
    header: str = setting(HEADER_NAME, "The header that bears the key.", default="X-API-Key")
    keys: tuple[Secret, ...] = setting(ListKind(SECRET, min_items=1), "The keys.", default=())
    keys_file: str | None = setting(FILE, "A file with one key on each line.", default=None)


factory = MiddlewareFactory(ApiKeyConfig, lambda config, surroundings: None)
