"""
`rate-limit`: limit how many requests pass, by a bucket that is refilled continuously.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["RateLimitConfig", "factory"]

_AT_LEAST_ONE = Integer(minimum=1, maximum=2**32 - 1)


@attrs.frozen(kw_only=True)
class RateLimitConfig:
    """
    Limit how many requests pass, by a bucket that is refilled continuously.
    """

    type: ClassVar[str] = "rate-limit"
    runs: ClassVar[bool] = False

    name: str = label()
    rate: int = setting(_AT_LEAST_ONE, "Requests per second.")
    burst: int | None = setting(_AT_LEAST_ONE, "How many may come at once; without it, as many as `rate`.", default=None)


factory = MiddlewareFactory(RateLimitConfig, lambda config, surroundings: None)
