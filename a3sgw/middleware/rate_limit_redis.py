"""
`rate-limit-redis`: the same limit, shared by several gateways through Redis.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import Integer, SecretText
from a3sgw.config.setting import label, setting
from a3sgw.config.values import Secret
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["RateLimitRedisConfig", "factory"]

_AT_LEAST_ONE = Integer(minimum=1, maximum=2**32 - 1)


def _check_redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("which does not begin with redis://, rediss:// or unix://")
    return text


@attrs.frozen(kw_only=True)
class RateLimitRedisConfig:
    """
    The same limit, shared by several gateways through Redis.
    """

    type: ClassVar[str] = "rate-limit-redis"
    runs: ClassVar[bool] = False

    name: str = label()
    rate: int = setting(_AT_LEAST_ONE, "Requests per second.")
    burst: int | None = setting(_AT_LEAST_ONE, "How many may come at once; without it, as many as `rate`.", default=None)
    redis_url: Secret = setting(
        SecretText("a URL that begins with redis:// or rediss://", _check_redis_url), "Where Redis is; secret, as it may hold a password."
    )


factory = MiddlewareFactory(RateLimitRedisConfig, lambda config, surroundings: None)
