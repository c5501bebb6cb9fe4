"""
`body-limit`: refuse requests whose body is too large, with 413.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["BodyLimitConfig", "factory"]


@attrs.frozen(kw_only=True)
class BodyLimitConfig:
    """
    Refuse requests whose body is too large, with 413.
    """

    type: ClassVar[str] = "body-limit"
    runs: ClassVar[bool] = False

    name: str = label()
    max_body_bytes: int = setting(Integer(minimum=1, unit="bytes"), "The largest body.")


factory = MiddlewareFactory(BodyLimitConfig, lambda config, surroundings: None)
