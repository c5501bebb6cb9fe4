"""
Which files a configuration names, so that a change in one of them is a change of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from a3sgw.config.kinds import FILE
from a3sgw.config.setting import NamedKind, ObjectKind, ObjectListKind, Setting, settings_of

__all__ = ["named_files"]


def named_files(config: Any) -> Iterator[str]:
    """
    Give the path of each file that a configuration object, or anything in it, is to be read with: certificates, keys, lists of users.
    """
    for declared in _leading_to_files(config.__class__):
        held = getattr(config, declared.attribute)
        kind = declared.kind
        if held is None:
            continue
        if kind is FILE:
            yield held
        elif isinstance(kind, ObjectKind):
            yield from named_files(held)
        elif isinstance(kind, ObjectListKind):
            for item in held:
                yield from named_files(item)
        else:
            for item in held.values():
                yield from named_files(item)


@cache
def _leading_to_files(cls: type) -> tuple[Setting, ...]:
    return tuple(declared for declared in settings_of(cls) if _leads_to_files(declared))


def _leads_to_files(declared: Setting) -> bool:
    kind = declared.kind
    if isinstance(kind, (ObjectKind, ObjectListKind)):
        return bool(_leading_to_files(kind.cls))
    if isinstance(kind, NamedKind):
        # Plugins have classes of their own.
        return kind.is_typed or (kind.cls is not None and bool(_leading_to_files(kind.cls)))
    return kind is FILE
