"""
`compress`: compress responses with brotli, gzip or deflate, whichever the client prefers.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.setting import label
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["CompressConfig", "factory"]


@attrs.frozen(kw_only=True)
class CompressConfig:
    """
    Compress responses with brotli, gzip or deflate, whichever the client prefers. There is nothing to set.
    """

    type: ClassVar[str] = "compress"
    runs: ClassVar[bool] = False

    name: str = label()


factory = MiddlewareFactory(CompressConfig, lambda config, surroundings: None)
