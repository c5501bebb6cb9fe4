"""
`circuit-breaker`: stop asking a service that keeps failing, and try again after a while.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["CircuitBreakerConfig", "factory"]

_AT_LEAST_ONE = Integer(minimum=1, maximum=2**32 - 1)
_SECONDS_AT_LEAST_ONE = Integer(minimum=1, maximum=366 * 86400, unit="seconds")


@attrs.frozen(kw_only=True)
class CircuitBreakerConfig:
    """
    Stop asking a service that keeps failing, and try again after a while.
    """

    type: ClassVar[str] = "circuit-breaker"
    runs: ClassVar[bool] = False

    name: str = label()
    failure_threshold: int = setting(_AT_LEAST_ONE, "How many failures in a row open the circuit.", default=5)
    cooldown_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long it stays open.", default=30)
    success_threshold: int = setting(_AT_LEAST_ONE, "How many successes close it again.", default=1)


factory = MiddlewareFactory(CircuitBreakerConfig, lambda config, surroundings: None)
