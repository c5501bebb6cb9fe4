"""
`basic-auth`: ask for a user's name and password.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from typing import ClassVar

import attrs

from a3sgw.config.kinds import FILE, SECRET, USER_NAME
from a3sgw.config.setting import label, setting
from a3sgw.config.values import Secret
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["BasicAuthConfig", "factory"]


@attrs.frozen(kw_only=True)
class BasicAuthConfig:
    """
    Ask for a user's name and password. Give `password` or `password_file`.
    """

    type: ClassVar[str] = "basic-auth"
    runs: ClassVar[bool] = False
    one_of: ClassVar[tuple[str, ...]] = ("password", "password_file")

    name: str = label()
    username: str = setting(USER_NAME, "The user's name.")
    password: Secret | None = setting(SECRET, "The password.", default=None)
    password_file: str | None = setting(FILE, "A file that holds the password.", default=None)


factory = MiddlewareFactory(BasicAuthConfig, lambda config, surroundings: None)
