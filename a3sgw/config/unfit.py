"""
Find values in an object of the model that could not have been written in a file.

What is decoded from a file has been checked value by value. An object that a program has made has not, and a URL that is none would be
found out only when everything is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from a3sgw.config.setting import ListKind, MapKind, NamedKind, ObjectKind, ObjectListKind, ScalarKind, settings_of
from a3sgw.config.tree import Problem
from a3sgw.config.values import Secret, reveal
from a3sgw.config.wording import item_path, quote

__all__ = ["unfit"]


def unfit(item: Any, path: str) -> Iterator[Problem]:
    """
    Give a problem for each value in `item`, which is at `path`, that its declaration does not allow.
    """
    for declared in settings_of(item.__class__):
        held = getattr(item, declared.attribute)
        if held == declared.default:
            continue
        place = f"{path}.{declared.key}"
        kind = declared.kind
        if isinstance(kind, ScalarKind):
            yield from _unfit_scalar(kind, held, place)
        elif isinstance(kind, ListKind):
            for index, each in enumerate(held):
                yield from _unfit_scalar(kind.item, each, f"{place}[{index}]")
        elif isinstance(kind, MapKind):
            for key, value in held.items():
                yield from _unfit_entry(kind, key, value, item_path(place, str(key)))
        elif isinstance(kind, ObjectKind):
            yield from unfit(held, place)
        elif isinstance(kind, ObjectListKind):
            for index, each in enumerate(held):
                yield from unfit(each, f"{place}[{index}]")
        elif isinstance(kind, NamedKind):
            for name, each in held.items():
                yield from unfit(each, item_path(place, name))


def _unfit_scalar(kind: ScalarKind, value: Any, place: str) -> Iterator[Problem]:
    try:
        kind.read(reveal(value), False)
    except (ValueError, TypeError) as error:
        shown = "a hidden value" if isinstance(value, Secret) or kind.is_secret else quote(value) if isinstance(value, str) else repr(value)
        yield Problem(None, place, f"{place} is {shown}, {str(error) or f'expected {kind.expectation}'}")


def _unfit_entry(kind: MapKind, key: Any, value: Any, place: str) -> Iterator[Problem]:
    try:
        kind.check_key(key)
        kind.check_value(reveal(value))
    except (ValueError, TypeError, AttributeError) as error:
        yield Problem(None, place, f"{place} cannot be used, {error}")
