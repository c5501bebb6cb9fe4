"""
`headers`: set headers of requests and responses; an empty value removes the header.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from typing import ClassVar, Union

import attrs

from a3sgw.config.kinds import HEADER_MAP
from a3sgw.config.setting import label, setting
from a3sgw.config.values import FrozenMap, Secret
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["HeadersConfig", "factory"]


@attrs.frozen(kw_only=True)
class HeadersConfig:
    """
    Set headers of requests and responses; an empty value removes the header. Values that come from the environment are kept secret.
    """

    type: ClassVar[str] = "headers"
    runs: ClassVar[bool] = False

    name: str = label()
    request_headers: FrozenMap[str, Union[str, Secret]] = setting(HEADER_MAP, "What servers get.", default=FrozenMap())
    response_headers: FrozenMap[str, Union[str, Secret]] = setting(HEADER_MAP, "What clients get.", default=FrozenMap())


factory = MiddlewareFactory(HeadersConfig, lambda config, surroundings: None)
