"""
The tree between the HCL text and the model: values that still know where they stood.

`hcl.parse` makes it, `decode` consumes it. Every node has a `Position`; strings that came wholly or partly from the environment or a file
say so, because `decode` turns those in secret places into `Secret` and errors must not print them.
"""

from __future__ import annotations

from typing import Union

import attrs

__all__ = ["Attribute", "Block", "Body", "ListValue", "ObjectEntry", "ObjectValue", "Position", "Problem", "Scalar", "Value"]


@attrs.frozen(slots=True, order=True)
class Position:
    """
    A place in a source text. `line` and `column` count from 1; a column counts characters, not bytes.
    """

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@attrs.frozen(slots=True)
class Problem:
    """
    One fault of a configuration: where, what path (`routers.api.service`), and a sentence with value, expectation and remedy.
    """

    position: Position | None
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.position}: " if self.position is not None else ""
        return f"{place}{self.message}"


@attrs.frozen(slots=True)
class Scalar:
    """
    A string, number, bool or null. `is_foreign` marks a string any part of which came from `${NAME}`, `env()` or `file()`.
    """

    value: str | int | float | bool | None
    position: Position
    is_foreign: bool = False


@attrs.frozen(slots=True)
class ListValue:
    """
    `[ … ]`.
    """

    items: tuple[Value, ...]
    position: Position


@attrs.frozen(slots=True)
class ObjectEntry:
    """
    One `key = value` of an object; `position` is the key's.
    """

    key: str
    value: Value
    position: Position


@attrs.frozen(slots=True)
class ObjectValue:
    """
    `{ … }` on the right of an equals sign. Keys are unique.
    """

    entries: tuple[ObjectEntry, ...]
    position: Position


Value = Union[Scalar, ListValue, ObjectValue]


@attrs.frozen(slots=True)
class Attribute:
    """
    `name = value` in a body; `position` is the name's.
    """

    name: str
    value: Value
    position: Position


@attrs.frozen(slots=True)
class Block:
    """
    `type "label" … { body }`; `position` is the type's, `label_positions` go with `labels`.
    """

    type: str
    labels: tuple[str, ...]
    label_positions: tuple[Position, ...]
    body: Body
    position: Position


@attrs.frozen(slots=True)
class Body:
    """
    What stands between two braces, or in a whole file. Attribute names are unique; blocks keep their order.
    """

    attributes: tuple[Attribute, ...]
    blocks: tuple[Block, ...]
    position: Position
