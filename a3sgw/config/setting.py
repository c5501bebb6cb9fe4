"""
How the model declares its attributes.

Each attribute of a configuration class is declared exactly once, by `setting`: what may be written there (its *kind*), its default, the
sentence that explains it, and whether this version runs it. Decoding, bounds, `/config`, the generated reference and the complaint about
what is not run yet all read that one declaration.

A kind says how text becomes a value. Scalar kinds have a method `read`; the others describe a shape which `decode` walks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import attrs

from a3sgw.config.values import MASK, FrozenMap, Secret

__all__ = [
    "REQUIRED",
    "Kind",
    "ListKind",
    "MapKind",
    "NamedKind",
    "ObjectKind",
    "ObjectListKind",
    "ScalarKind",
    "Setting",
    "label",
    "setting",
    "settings_of",
    "to_json",
]

REQUIRED: Any = object()
"""The default of what has none."""

_METADATA = "a3sgw.setting"


class Kind:
    """
    What may be written for an attribute. `type_name` stands in the reference, `expectation` in problems: "expected …".
    """

    type_name: str = ""
    expectation: str = ""
    is_secret: bool = False


class ScalarKind(Kind):
    """
    One string, number or bool.
    """

    def read(self, value: str | int | float | bool, is_foreign: bool) -> Any:
        """
        Return the model's value. A foreign string may be converted to a number or a bool.

        Raises `ValueError`, with a reason that begins with a relative pronoun and does not repeat the value, or without one.
        """
        raise NotImplementedError

    def bounds(self) -> str:
        """
        Return what the reference says of the values allowed, or nothing.
        """
        return ""

    def candidates(self) -> tuple[str, ...]:
        """
        Return the words one of which was perhaps meant.
        """
        return ()


@attrs.frozen
class ListKind(Kind):
    """
    `[ … ]` of scalars; a tuple in the model.
    """

    item: ScalarKind
    min_items: int = 0

    @property
    def type_name(self) -> str:  # type: ignore[override]
        return f"list of {self.item.type_name}"

    @property
    def expectation(self) -> str:  # type: ignore[override]
        return f"a list, each item {self.item.expectation}"

    @property
    def is_secret(self) -> bool:  # type: ignore[override]
        return self.item.is_secret


@attrs.frozen
class MapKind(Kind):
    """
    `{ "key" = "value" }`; a `FrozenMap` in the model. Both checks return the text or raise like `ScalarKind.read`.
    """

    check_key: Callable[[str], str]
    check_value: Callable[[str], str]
    type_name: str = "map of strings"
    expectation: str = "a map of strings"


@attrs.frozen
class ObjectKind(Kind):
    """
    One block without label.
    """

    cls: type
    type_name: str = "block"
    expectation: str = "a block"


@attrs.frozen
class ObjectListKind(Kind):
    """
    A list of objects, or one or many blocks of the same name; a tuple in the model.
    """

    cls: type
    min_items: int = 0
    type_name: str = "list of objects"
    expectation: str = "a list of objects, or blocks"


@attrs.frozen
class NamedKind(Kind):
    """
    Blocks with one label each; a `FrozenMap` by label in the model.

    `noun` names one of them in problems. Where it `is_typed`, the attribute `type` of each block chooses its class among those that the
    decoder was given, because plugins bring classes of their own.
    """

    noun: str
    cls: type | None = None
    is_typed: bool = False
    type_name: str = "labelled blocks"
    expectation: str = "blocks with one label each"


@attrs.frozen(kw_only=True)
class Setting:
    """
    The declaration of one attribute.

    `key` is its name in HCL, `attribute` in Python. `runs` says whether this version does what it asks for. `protocols` names the
    entrypoints it means something to.
    """

    key: str = ""
    attribute: str = ""
    kind: Kind
    doc: str
    default: Any
    aliases: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    runs: bool = True

    @property
    def is_required(self) -> bool:
        """
        Whether it must be written.
        """
        return self.default is REQUIRED


def setting(
    kind: Kind,
    doc: str,
    *,
    default: Any = REQUIRED,
    key: str = "",
    aliases: tuple[str, ...] = (),
    protocols: tuple[str, ...] = (),
    runs: bool = True,
) -> Any:
    """
    Declare one attribute of a configuration class.
    """
    declared = Setting(
        key=key,
        kind=kind,
        doc=doc,
        default=default,
        aliases=aliases,
        protocols=protocols,
        runs=runs,
    )
    # Whoever builds a model by hand may pass a list or a dict; in the model both must be hashable.
    converter: Callable[[Any], Any] | None = None
    if isinstance(kind, (ListKind, ObjectListKind)):
        converter = tuple
    elif isinstance(kind, (MapKind, NamedKind)):
        converter = FrozenMap.of
    return attrs.field(
        default=attrs.NOTHING if default is REQUIRED else default,
        converter=converter,
        metadata={_METADATA: declared},
    )


def label() -> Any:
    """
    Declare the attribute that holds the label of a block.
    """
    return attrs.field()


@cache
def settings_of(cls: type) -> tuple[Setting, ...]:
    """
    Return the declarations of a configuration class, in their order.
    """
    found = []
    for field in attrs.fields(cls):
        declared = field.metadata.get(_METADATA)
        if declared is not None:
            found.append(attrs.evolve(declared, attribute=field.name, key=declared.key or field.name))
    return tuple(found)


def to_json(value: Any) -> Any:
    """
    Return a configuration object, or any value in one, as plain dicts, lists and scalars under its HCL names, with secrets masked.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, FrozenMap):
        return {key: to_json(item) for key, item in value.items()}
    cls: type = type(value)
    type_name = getattr(cls, "type", None)
    plain = {"type": type_name} if isinstance(type_name, str) else {}
    for declared in settings_of(cls):
        plain[declared.key] = to_json(getattr(value, declared.attribute))
    return plain
