"""
The immutable values that the model is made of beside plain text and numbers.

A configuration is compared by value to find out what a reload left untouched, so everything in it must be hashable and must never
change: maps are `FrozenMap`s and secrets are `Secret`s, which compare by their text but never show it.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar

__all__ = ["MASK", "FrozenMap", "Secret", "reveal"]

MASK = "«secret»"
"""What is shown in place of a secret."""

K = TypeVar("K")
V = TypeVar("V")


class FrozenMap(Mapping[K, V]):
    """
    A mapping that never changes, remembers the order of the file and can be hashed.

    Two maps are equal if they hold the same items, in whatever order; so the order of a file never makes a reload replace anything.
    """

    __slots__ = ("_hash", "_items")

    _items: dict[K, V]
    _hash: int | None

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        self._items = dict(items)
        self._hash = None

    @classmethod
    def of(cls, items: Mapping[K, V] | Iterable[tuple[K, V]]) -> FrozenMap[K, V]:
        """
        Return `items` itself if it is one already, else a new one.
        """
        return items if isinstance(items, cls) else cls(items)

    def updated(self, items: Mapping[K, V] | Iterable[tuple[K, V]]) -> FrozenMap[K, V]:
        """
        Return a new map with `items` added or replaced.
        """
        return FrozenMap({**self._items, **dict(items)})

    def without(self, *keys: K) -> FrozenMap[K, V]:
        """
        Return a new map that lacks `keys`.
        """
        return FrozenMap({key: value for key, value in self._items.items() if key not in keys})

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    # The dict's own views: the ones `Mapping` would make go through `__getitem__` for each item.

    def keys(self) -> KeysView[K]:
        return self._items.keys()

    def values(self) -> ValuesView[V]:
        return self._items.values()

    def items(self) -> ItemsView[K, V]:
        return self._items.items()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenMap):
            return self._items == other._items
        return NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._items.items()))
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the remembered hash: text hashes differently in every process.
        return FrozenMap, (self._items,)

    def __repr__(self) -> str:
        return f"FrozenMap({self._items!r})"


class Secret:
    """
    A text that must not be seen. Everything that shows an object shows a mask; only `reveal` gives the text.
    """

    __slots__ = ("_text",)

    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret does not change")

    def reveal(self) -> str:
        """
        Return the text. Call this where the secret is used and nowhere else.
        """
        return self._text

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secret):
            return self._text == other._text
        return NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._text,)

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return MASK


def reveal(value: str | Secret) -> str:
    """
    Return the text of what may be a secret.
    """
    return value.reveal() if isinstance(value, Secret) else value
