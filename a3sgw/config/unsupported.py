"""
Name everything a configuration asks for that this version does not do.

The model can say more than the gateway runs. What is merely written down would be worse than refused: a `jwt` that nobody checks, a second
strategy that silently is the first. So each such thing is a problem, at its place. The declarations say what runs; see `setting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from a3sgw.config.finding import Findings
from a3sgw.config.model import GatewayConfig
from a3sgw.config.setting import NamedKind, ObjectKind, ObjectListKind, Setting, settings_of
from a3sgw.config.tree import Position, Problem
from a3sgw.config.wording import item_path, quote

__all__ = ["unsupported"]


def unsupported(config: GatewayConfig, positions: Mapping[str, Position]) -> tuple[Problem, ...]:
    """
    Return a problem for each configured thing that this version does not run; only the outermost of what lies within another.
    """
    findings = Findings(positions)
    _walk(config, "", findings)
    return tuple(findings.problems)


def _walk(value: Any, path: str, findings: Findings) -> None:
    cls: type = type(value)
    for declared in _doubtful(cls):
        held = getattr(value, declared.attribute)
        place = f"{path}.{declared.key}" if path else declared.key
        kind = declared.kind
        if not declared.runs:
            if held != declared.default:
                findings.report(place, f"this version does not run {declared.key} yet; remove {place}")
        elif isinstance(kind, ObjectKind):
            if held is not None:
                _walk(held, place, findings)
        elif isinstance(kind, ObjectListKind):
            for index, item in enumerate(held):
                _walk(item, f"{place}[{index}]", findings)
        elif isinstance(kind, NamedKind):
            for name, item in held.items():
                _walk_named(item, item_path(place, name), findings)


def _walk_named(item: Any, path: str, findings: Findings) -> None:
    if getattr(item, "runs", True):
        _walk(item, path, findings)
    else:
        where = f"{path}.type" if findings.is_written(f"{path}.type") else path
        findings.report(where, f"this version does not run middlewares of type {quote(item.type)} yet; remove {path}")


@cache
def _doubtful(cls: type) -> tuple[Setting, ...]:
    """
    Return the attributes of a class that may hold something that does not run, so that whole routers need no look.
    """
    return tuple(declared for declared in settings_of(cls) if _is_doubtful(declared))


def _is_doubtful(declared: Setting) -> bool:
    kind = declared.kind
    if not declared.runs:
        return True
    if isinstance(kind, (ObjectKind, ObjectListKind)):
        inner: type = kind.cls
        return bool(_doubtful(inner))
    if isinstance(kind, NamedKind):
        # Of those with a type anything may be said; they are few.
        return kind.is_typed or (kind.cls is not None and bool(_doubtful(kind.cls)))
    return False
