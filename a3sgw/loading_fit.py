"""
What the checks of services for tcp and for udp have in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from a3sgw.config.model import ServiceConfig
from a3sgw.config.setting import settings_of

__all__ = ["is_given", "servers_of"]


def servers_of(path: str, service: ServiceConfig) -> Iterator[tuple[str, str]]:
    """
    Give the place and the URL of each server of the service at `path`.
    """
    for index, server in enumerate(service.load_balancer.servers):
        yield f"{path}.load_balancer.servers[{index}].url", server.url
    for number, revision in enumerate(service.revisions):
        for index, server in enumerate(revision.servers):
            yield f"{path}.revisions[{number}].servers[{index}].url", server.url


def is_given(value: Any, dotted: str) -> bool:
    """
    Tell whether what `dotted` leads to is there and is not the default.
    """
    key, _, rest = dotted.partition(".")
    declared = next(each for each in settings_of(value.__class__) if each.key == key)
    held = getattr(value, declared.attribute)
    if rest:
        return held is not None and is_given(held, rest)
    return bool(held != declared.default)
