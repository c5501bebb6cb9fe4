"""
`jwt`: let through only requests with a valid JSON Web Token.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import attrs

from a3sgw.config.kinds import FILE, HEADER_NAME, SECRET
from a3sgw.config.setting import label, setting
from a3sgw.config.values import Secret
from a3sgw.middleware.factory import MiddlewareFactory

__all__ = ["JwtConfig", "factory"]

_SHORTEST_HS256_SECRET: Final = 32
"""Bytes: as many as the hash, RFC 7518 section 3.2."""


@attrs.frozen(kw_only=True)
class JwtConfig:
    """
    Let through only requests with a valid JSON Web Token. Give `value` or `value_file`.
    """

    type: ClassVar[str] = "jwt"
    runs: ClassVar[bool] = False
    one_of: ClassVar[tuple[str, ...]] = ("value", "value_file")

    name: str = label()
    header: str = setting(HEADER_NAME, "The header that bears the token.", default="Authorization")
    value: Secret | None = setting(SECRET, "The HS256 secret; fewer than 32 bytes are worth a warning.", default=None)
    value_file: str | None = setting(FILE, "A file that holds the secret.", default=None)

    def advice(self) -> Iterator[tuple[str, str]]:
        """
        Give what is allowed but unwise, by attribute.
        """
        if self.value is not None and len(self.value.reveal().encode("utf-8", "surrogatepass")) < _SHORTEST_HS256_SECRET:
            yield "value", f"has fewer than {_SHORTEST_HS256_SECRET} bytes, which makes HS256 tokens easier to forge"


factory = MiddlewareFactory(JwtConfig, lambda config, surroundings: None)
