"""
`retry`: try again, on another server if there is one, when a server fails.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["RetryConfig", "factory"]


@attrs.frozen(kw_only=True)
class RetryConfig:
    """
    Try again, on another server if there is one, when a server fails.
    """

    type: ClassVar[str] = "retry"
    runs: ClassVar[bool] = False

    name: str = label()
    max_retries: int = setting(Integer(minimum=1, maximum=100), "How many more attempts.", default=3)
    retry_interval_ms: int = setting(Integer(maximum=3_600_000, unit="milliseconds"), "The pause before each.", default=100)


factory = MiddlewareFactory(RetryConfig, lambda config, surroundings: None)
