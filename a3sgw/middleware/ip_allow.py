"""
`ip-allow`: let through only some addresses; others are answered 403.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import NETWORK
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["IpAllowConfig", "factory"]


@attrs.frozen(kw_only=True)
class IpAllowConfig:
    """
    Let through only some addresses; others are answered 403.
    """

    type: ClassVar[str] = "ip-allow"
    runs: ClassVar[bool] = False

    name: str = label()
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "Who may pass.")


factory = MiddlewareFactory(IpAllowConfig, lambda config, surroundings: None)
