"""
`forward-auth`: ask another service whether a request may pass.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import HEADER_NAME, HTTP_URL
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["ForwardAuthConfig", "factory"]


@attrs.frozen(kw_only=True)
class ForwardAuthConfig:
    """
    Ask another service whether a request may pass.
    """

    type: ClassVar[str] = "forward-auth"
    runs: ClassVar[bool] = False

    name: str = label()
    forward_auth_url: str = setting(HTTP_URL, "Whom to ask; an answer in the 200s means yes, any other goes to the client.")
    forward_auth_response_headers: tuple[str, ...] = setting(
        ListKind(HEADER_NAME), "Headers of that answer which replace the request's.", default=()
    )


factory = MiddlewareFactory(ForwardAuthConfig, lambda config, surroundings: None)
