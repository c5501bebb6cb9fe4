"""
Turn a tree into the model.

The declarations in the model say everything; this module only walks. A block and an attribute that holds an object are the same thing. It
never stops at the first problem: what cannot be used is reported and left out, and the rest goes on. An attribute that may be absent gets
its default instead, an object that lacks something it must have is left out whole. What was left out is remembered in
`Positions.broken`, so that `check` does not complain about the consequences.

Looking up how a class is decoded happens once per class, in its `_Plan`. Long because the walk is one class: each of its methods is one
shape that a value may have, and they call each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import attrs

from a3sgw.config.model import GatewayConfig
from a3sgw.config.positions import Positions
from a3sgw.config.setting import (
    Kind,
    ListKind,
    MapKind,
    NamedKind,
    ObjectKind,
    ObjectListKind,
    ScalarKind,
    Setting,
    settings_of,
)
from a3sgw.config.tree import Block, Body, ListValue, ObjectValue, Position, Problem, Scalar, Value
from a3sgw.config.values import FrozenMap, Secret
from a3sgw.config.wording import Suggester, item_path, quote, quote_all, show

__all__ = ["Decoded", "Positions", "decode"]

_INVALID: Any = object()

Node = Scalar | ListValue | ObjectValue | Body


@attrs.frozen
class Decoded:
    """
    What came of a tree: the objects that could be made, the problems in source order, and where everything stood.
    """

    config: GatewayConfig
    problems: tuple[Problem, ...]
    positions: Positions


def decode(
    body: Body,
    suggester: Suggester | None = None,
    middleware_types: Mapping[str, type] | None = None,
    missing_types: str = "",
    provider_types: Mapping[str, type] | None = None,
) -> Decoded:
    """
    Return the model of a whole file. `middleware_types` and `provider_types` are the configuration classes by `type`; there are no others.
    `missing_types` ends the problem of a type that is not among them.
    """
    types = {"middleware": middleware_types or {}, "provider": provider_types or {}}
    decoder = _Decoder(suggester if suggester is not None else Suggester(), types, missing_types)
    config = decoder.build(_plan_of(GatewayConfig), body, body.position, "", "the configuration")
    return Decoded(
        config=config,
        problems=tuple(sorted(decoder.problems, key=source_order)),
        positions=Positions(decoder.places, frozenset(decoder.foreign), frozenset(decoder.broken)),
    )


def source_order(problem: Problem) -> tuple[bool, int, int]:
    """
    Sort problems as a reader of the file meets them; those without a place come last.
    """
    position = problem.position
    return (True, 0, 0) if position is None else (False, position.line, position.column)


@attrs.frozen
class _Entry:
    """
    How one key of a class is decoded. `method` is called with the decoder, this entry, the node, its position and its path.
    """

    setting: Setting
    attribute: str
    kind: Any
    method: Callable[[_Decoder, _Entry, Node, Position, str], Any]


@attrs.frozen
class _Plan:
    """
    How a class is decoded. `entries` is by key, aliases included; `required` are Python names.
    """

    cls: type
    entries: dict[str, _Entry]
    required: tuple[_Entry, ...]
    has_label: bool
    type_name: str | None
    """The `type` that stands for this class, where classes are chosen so."""


@cache
def _plan_of(cls: type) -> _Plan:
    entries: dict[str, _Entry] = {}
    for declared in settings_of(cls):
        entry = _Entry(declared, declared.attribute, declared.kind, _method_for(declared.kind))
        for key in (declared.key, *declared.aliases):
            entries[key] = entry
    type_name = getattr(cls, "type", None)
    declared_keys = {entry.attribute for entry in entries.values()}
    return _Plan(
        cls=cls,
        entries=entries,
        required=tuple(entry for key, entry in entries.items() if entry.setting.is_required and key == entry.setting.key),
        has_label=any(field.name == "name" for field in attrs.fields(cls)) and "name" not in declared_keys,
        type_name=type_name if isinstance(type_name, str) else None,
    )


def _method_for(kind: Kind) -> Callable[[_Decoder, _Entry, Node, Position, str], Any]:
    if isinstance(kind, ScalarKind):
        return _Decoder.take_scalar
    return {
        ListKind: _Decoder.take_list,
        MapKind: _Decoder.take_map,
        ObjectKind: _Decoder.take_object,
        ObjectListKind: _Decoder.take_object_list,
        NamedKind: _Decoder.take_named,
    }[type(kind)]


class _Decoder:
    """
    One walk over one tree. Methods return a value of the model or `_INVALID`, and have reported the problem then.
    """

    __slots__ = ("broken", "foreign", "missing_types", "places", "problems", "suggester", "types")

    def __init__(self, suggester: Suggester, types: Mapping[str, Mapping[str, type]], missing_types: str) -> None:
        self.types = types
        self.missing_types = missing_types
        self.suggester = suggester
        self.problems: list[Problem] = []
        self.places: dict[str, Position] = {}
        self.foreign: set[str] = set()
        self.broken: set[str] = set()

    def report(self, position: Position, path: str, message: str) -> None:
        """
        Add a problem.
        """
        self.problems.append(Problem(position, path, message))

    # -- objects ----------------------------------------------------------------------------------------------------------------------

    def build(self, plan: _Plan, node: Body | ObjectValue, position: Position, path: str, place: str, name: str | None = None) -> Any:
        """
        Return the object that `node` describes. `place` names it in problems.
        """
        self.places[path] = position
        found: dict[str, Any] = {"name": name} if plan.has_label else {}
        first: dict[str, tuple[str, Position]] = {}
        prefix = f"{path}." if path else ""
        members = node.attributes if isinstance(node, Body) else node.entries
        for member in members:
            key = member.name if isinstance(node, Body) else member.key  # type: ignore[union-attr]
            entry = self._entry(plan, key, member.position, path, place, "attribute")
            if entry is None:
                if plan.type_name is not None and key == "type":
                    self.places[f"{prefix}type"] = member.value.position
                continue
            if self._is_first(first, entry, key, member.position, f"{prefix}{key}"):
                self._take(found, entry, key, member.value, member.value.position, prefix)
        if isinstance(node, Body) and node.blocks:
            self._take_blocks(plan, node.blocks, found, first, prefix, place)
        is_whole = True
        for entry in plan.required:
            if entry.attribute not in found:
                is_whole = False
                if f"{prefix}{entry.setting.key}" not in self.broken:
                    self.report(position, f"{prefix}{entry.setting.key}", f"{place} lacks {quote(entry.setting.key)}, which is required")
        return plan.cls(**found) if is_whole else _INVALID

    def _take(self, found: dict[str, Any], entry: _Entry, key: str, node: Node, position: Position, prefix: str) -> None:
        """
        Decode one attribute into `found`. A null is the same as nothing.
        """
        if type(node) is Scalar and node.value is None:
            return
        path = f"{prefix}{key}"
        self.places[path] = position
        if key != entry.setting.key:
            self.places[f"{prefix}{entry.setting.key}"] = position
        value = entry.method(self, entry, node, position, path)
        if value is _INVALID:
            self.broken.add(f"{prefix}{entry.setting.key}")
        else:
            found[entry.attribute] = value

    def _take_blocks(
        self,
        plan: _Plan,
        blocks: tuple[Block, ...],
        found: dict[str, Any],
        first: dict[str, tuple[str, Position]],
        prefix: str,
        place: str,
    ) -> None:
        """
        Decode blocks into `found`; those of one list or with one kind of label belong together.
        """
        named: dict[str, dict[str, Any]] = {}
        listed: dict[str, list[Any]] = {}
        counts: dict[str, int] = {}
        for block in blocks:
            key = block.type
            path = f"{prefix}{key}"
            entry = self._entry(plan, key, block.position, prefix[:-1], place, "block")
            if entry is None:
                continue
            if type(entry.kind) is NamedKind:
                if len(block.labels) != 1:
                    self.report(block.position, path, f'{key} takes one label, as in {key} "name" {{ … }}, not {len(block.labels)}')
                    continue
                self.places.setdefault(path, block.position)
                into = named.setdefault(entry.attribute, dict(found.get(entry.attribute, ())))
                self._named_item(entry.kind, into, block.labels[0], block.label_positions[0], block.body, block.position, path)
                continue
            if block.labels:
                self.report(block.label_positions[0], path, f"{key} takes no label, but has {quote_all(block.labels)}")
                continue
            if type(entry.kind) is ObjectListKind:
                if entry.attribute in listed or self._is_first(first, entry, key, block.position, path):
                    self.places.setdefault(path, block.position)
                    index = counts[path] = counts.get(path, -1) + 1
                    self._list_item(entry.kind, listed.setdefault(entry.attribute, []), index, block.body, block.position, path)
            elif self._is_first(first, entry, key, block.position, path):
                self._take(found, entry, key, block.body, block.position, prefix)
        for attribute, items in named.items():
            found[attribute] = FrozenMap(items)
        for attribute, objects in listed.items():
            found[attribute] = tuple(objects)

    def _entry(self, plan: _Plan, key: str, position: Position, path: str, place: str, what: str) -> _Entry | None:
        """
        Return how `key` is decoded, or report that it is not known.
        """
        entry = plan.entries.get(key)
        if entry is not None or (plan.type_name is not None and key == "type" and what == "attribute"):
            return entry
        path = f"{path}.{key}" if path else key
        if plan.type_name is not None:
            family = next(types for types in self.types.values() if types.get(plan.type_name) is plan.cls)
            owners = [name for name, cls in family.items() if key in _plan_of(cls).entries]
            if owners:
                belongs = f"has no {quote(key)}, which belongs to {quote_all(owners)}"
                self.report(position, path, f"{place} is of type {quote(plan.type_name)} and {belongs}")
                return None
        hint = self.suggester.hint(key, plan.entries)
        if not hint and 0 < len(plan.entries) <= 8:
            hint = f"; known are {quote_all(plan.entries)}"
        self.report(position, path, f"unknown {what} {quote(key)} in {place}{hint}")
        return None

    def _is_first(self, first: dict[str, tuple[str, Position]], entry: _Entry, key: str, position: Position, path: str) -> bool:
        """
        Whether an attribute is written for the first time; otherwise report it, naming both places.
        """
        earlier = first.get(entry.attribute)
        if earlier is None:
            first[entry.attribute] = key, position
            return True
        synonym = "" if earlier[0] == key else f" (as {quote(earlier[0])}, which means the same)"
        self.report(position, path, f"{path} is given twice; first at {earlier[1]}{synonym}")
        return False

    # -- what an attribute may hold; each is a `_Entry.method` ------------------------------------------------------------------------

    def take_scalar(self, entry: _Entry, node: Node, position: Position, path: str) -> Any:
        """
        One string, number or bool.
        """
        return self._scalar(entry.kind, node, position, path)

    def _scalar(self, kind: ScalarKind, node: Node, position: Position, path: str) -> Any:
        if type(node) is not Scalar:
            return self._mismatch(kind, node, position, path)
        value = node.value
        if value is None:
            return self._mismatch(kind, node, position, path)
        if node.is_foreign:
            self.foreign.add(path)
        try:
            return kind.read(value, node.is_foreign)
        except ValueError as error:
            reason = str(error)
            if not reason:
                reason = f"expected {kind.expectation}"
                if isinstance(value, str) and not node.is_foreign:
                    reason += self.suggester.hint(value, kind.candidates())
            self.report(position, path, f"{path} is {show(node, kind.is_secret)}, {reason}")
            return _INVALID

    def take_list(self, entry: _Entry, node: Node, position: Position, path: str) -> Any:
        """
        A list of scalars; bad items are left out.
        """
        kind: ListKind = entry.kind
        if type(node) is not ListValue:
            return self._mismatch(kind, node, position, path)
        items = []
        for index, item in enumerate(node.items):
            item_place = f"{path}[{index}]"
            self.places[item_place] = item.position
            value = self._scalar(kind.item, item, item.position, item_place)
            if value is _INVALID:
                self.broken.add(item_place)
            else:
                items.append(value)
        if len(node.items) < kind.min_items:
            self.report(position, path, f"{path} is an empty list, expected at least one item")
            return _INVALID
        return tuple(items)

    def take_map(self, entry: _Entry, node: Node, position: Position, path: str) -> Any:
        """
        A map of strings. Values from elsewhere become secrets: a header made from a variable is most likely a credential.
        """
        kind: MapKind = entry.kind
        if isinstance(node, (Scalar, ListValue)):
            return self._mismatch(kind, node, position, path)
        if isinstance(node, Body):
            for block in node.blocks:
                self.report(block.position, f"{path}.{block.type}", f"{item_path(path, block.type)} is a block, expected a string")
        found: dict[str, str | Secret] = {}
        first: dict[str, Position] = {}
        pairs: list[tuple[str, Value, Position]] = (
            [(member.name, member.value, member.position) for member in node.attributes]
            if isinstance(node, Body)
            else [(member.key, member.value, member.position) for member in node.entries]
        )
        for key, item, key_position in pairs:
            place = item_path(path, key)
            self.places[place] = item.position
            if key.lower() in first:
                self.report(key_position, place, f"{place} is given twice; first at {first[key.lower()]} (letter case makes no difference)")
                continue
            first[key.lower()] = key_position
            if type(item) is not Scalar or not isinstance(item.value, str):
                shown = show(item) if isinstance(item, Scalar) else _shape_of(item)
                self.report(item.position, place, f"{place} is {shown}, expected a string")
                continue
            try:
                kind.check_key(key)
            except ValueError as error:
                self.report(key_position, place, f"{path} has the key {quote(key)}, {error}")
                continue
            try:
                text = kind.check_value(item.value)
            except ValueError as error:
                self.report(item.position, place, f"{place} is {show(item)}, {error}")
                continue
            found[key] = Secret(text) if item.is_foreign else text
        return FrozenMap(found)

    def take_object(self, entry: _Entry, node: Node, position: Position, path: str) -> Any:
        """
        One block without label, or an object.
        """
        if isinstance(node, (Scalar, ListValue)):
            return self._mismatch(entry.kind, node, position, path)
        return self.build(_plan_of(entry.kind.cls), node, position, path, path)

    def take_object_list(self, entry: _Entry, node: Node, position: Position, path: str) -> Any:
        """
        A list of objects; one object alone stands for a list of one.
        """
        kind: ObjectListKind = entry.kind
        if isinstance(node, Scalar):
            return self._mismatch(kind, node, position, path)
        items: list[Any] = []
        if isinstance(node, ListValue) and len(node.items) < kind.min_items:
            self.report(position, path, f"{path} is an empty list, expected at least one object")
            return _INVALID
        for index, item in enumerate(node.items if isinstance(node, ListValue) else (node,)):
            self._list_item(kind, items, index, item, item.position, path)
        return tuple(items)

    def _list_item(self, kind: ObjectListKind, items: list[Any], index: int, node: Node, position: Position, path: str) -> None:
        place = f"{path}[{index}]"
        if isinstance(node, (Scalar, ListValue)):
            self.places[place] = position
            shown = show(node) if isinstance(node, Scalar) else _shape_of(node)
            self.report(position, place, f"{place} is {shown}, expected an object")
            value = _INVALID
        else:
            value = self.build(_plan_of(kind.cls), node, position, place, place)
        if value is _INVALID:
            self.broken.add(place)
        else:
            items.append(value)

    def take_named(self, entry: _Entry, node: Node, position: Position, path: str) -> Any:
        """
        Labelled blocks written as one object.
        """
        if isinstance(node, (Scalar, ListValue)):
            return self._mismatch(entry.kind, node, position, path)
        items: dict[str, Any] = {}
        if isinstance(node, ObjectValue):
            for member in node.entries:
                self._named_item(entry.kind, items, member.key, member.position, member.value, member.position, path)
        return FrozenMap(items)

    def _named_item(
        self, kind: NamedKind, into: dict[str, Any], name: str, name_position: Position, node: Node, position: Position, path: str
    ) -> None:
        """
        Decode one labelled object into `into`.
        """
        place = f"{kind.noun} {quote(name)}"
        place_path = item_path(path, name)
        if not name.strip() or not name.isprintable():
            self.report(name_position, place_path, f"{place} needs a name without control characters that is not empty")
            return
        if place_path in self.places:
            self.report(name_position, place_path, f"{place} is defined twice; first at {self.places[place_path]}")
            return
        if isinstance(node, (Scalar, ListValue)):
            self.places[place_path] = position
            shown = show(node) if isinstance(node, Scalar) else _shape_of(node)
            self.report(position, place_path, f"{place_path} is {shown}, expected an object")
            self.broken.add(place_path)
            return
        cls = kind.cls if not kind.is_typed else self._chosen_class(kind.noun, node, position, place, place_path)
        value = self.build(_plan_of(cls), node, position, place_path, place, name) if cls is not None else _INVALID
        if value is _INVALID:
            self.places[place_path] = position
            self.broken.add(place_path)
        else:
            into[name] = value

    def _chosen_class(self, noun: str, node: Body | ObjectValue, position: Position, place: str, path: str) -> type | None:
        """
        Return the class that the attribute `type` asks for.
        """
        known = self.types[noun]
        members = node.attributes if isinstance(node, Body) else node.entries
        for member in members:
            key = member.name if isinstance(node, Body) else member.key  # type: ignore[union-attr]
            value = member.value
            if key != "type":
                continue
            if not isinstance(value, Scalar) or not isinstance(value.value, str):
                shown = show(value) if isinstance(value, Scalar) else _shape_of(value)
                self.report(value.position, f"{path}.type", f"{path}.type is {shown}, expected a string")
                return None
            if value.value in known:
                return known[value.value]
            hint = "" if value.is_foreign else self.suggester.hint(value.value, known)
            hint = hint or (f"; known are {quote_all(known)}" if known else "; no installed plugin brings one")
            message = f"{path}.type is {show(value)}, which is not a type of {noun}{hint}{self.missing_types}"
            self.report(value.position, f"{path}.type", message)
            return None
        self.report(position, f"{path}.type", f'{place} lacks "type", which is required')
        return None

    def _mismatch(self, kind: Kind, node: Node, position: Position, path: str) -> Any:
        """
        Report a value of the wrong shape.
        """
        if isinstance(node, Scalar):
            shown = show(node, kind.is_secret)
            if node.is_foreign:
                self.foreign.add(path)
        else:
            shown = _shape_of(node)
        self.report(position, path, f"{path} is {shown}, expected {kind.expectation}")
        return _INVALID


def _shape_of(node: Node) -> str:
    if isinstance(node, Body):
        return "a block"
    return "a list" if isinstance(node, ListValue) else "an object"
