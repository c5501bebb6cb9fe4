"""
`chain`: several middlewares under one name.

It is replaced by what it names wherever it is listed (`config.check_chain`), so there is nothing to build; how the middlewares of a
route become phases is another matter, and in `chain`.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from a3sgw.config.kinds import NAME
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.errors import MiddlewareError
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings

__all__ = ["ChainConfig", "factory"]


@attrs.frozen(kw_only=True)
class ChainConfig:
    """
    Several middlewares under one name, to be listed like one.

    Listing a chain is the same as listing what it names, in that order: each router and each entrypoint has its own of each of them. Chains
    may name other chains. A list that names the same middleware twice when its chains are written out is an error.
    """

    type: ClassVar[str] = "chain"
    names: ClassVar[Mapping[str, str]] = {"middlewares": "middleware"}
    example: ClassVar[str] = """
        middlewares "standard" {
          type        = "chain"
          middlewares = ["known-networks", "small-bodies"]
        }
        middlewares "known-networks" {
          type        = "ip-allow"
          allowed_ips = ["192.0.2.0/24"]
        }
        middlewares "small-bodies" {
          type           = "body-limit"
          max_body_bytes = 65536
        }
        """

    name: str = label()
    middlewares: tuple[str, ...] = setting(ListKind(NAME, min_items=1), "What it stands for, in this order.")


def _refuse(config: ChainConfig, surroundings: Surroundings) -> Any:
    # Only a configuration made by hand can come here: whatever names something is written out.
    raise MiddlewareError("middlewares", "is empty, and a chain is nothing but what it names")


factory = MiddlewareFactory(ChainConfig, _refuse)
