"""
`tcp-filter`: limit who connects to routers of tcp entrypoints, and how many at a time.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import attrs

from a3sgw.config.kinds import NETWORK, Integer
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["TcpFilterConfig", "factory"]


@attrs.frozen(kw_only=True)
class TcpFilterConfig:
    """
    Limit who connects to routers of tcp entrypoints, and how many at a time. Give at least one attribute.
    """

    type: ClassVar[str] = "tcp-filter"
    runs: ClassVar[bool] = False

    name: str = label()
    max_connections: int | None = setting(
        Integer(maximum=2**32 - 1), "How many connections at a time; without it there is no bound.", default=None
    )
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "Who may connect; without it everybody.", default=())

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        if self.max_connections is None and not self.allowed_ips:
            yield "", "filters nothing; give max_connections or allowed_ips"


factory = MiddlewareFactory(TcpFilterConfig, lambda config, surroundings: None)
