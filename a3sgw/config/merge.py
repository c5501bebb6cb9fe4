"""
Put the shares of several sources together into one configuration.

The first source is the main file, which alone may say what concerns the gateway as a whole; the others add entrypoints, routers, services
and middlewares. A name belongs to whoever comes first. That somebody else wanted it too is a problem, and names both places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from a3sgw.config.fragment import SHARED, Fragment
from a3sgw.config.model import GatewayConfig
from a3sgw.config.positions import Positions
from a3sgw.config.tree import Position, Problem
from a3sgw.config.values import FrozenMap
from a3sgw.config.wording import item_path, quote

__all__ = ["Merged", "merge", "order_of"]


@attrs.frozen
class Merged:
    """
    All shares as one configuration, where everything was written, and the names that two sources wanted.
    """

    config: GatewayConfig
    positions: Positions
    collisions: tuple[Problem, ...]


def merge(fragments: Sequence[Fragment]) -> Merged:
    """
    Return the whole of `fragments`, all of which could be parsed. The first is the main one; earlier ones win.
    """
    main, *others = fragments
    assert main.config is not None
    if not others:
        return Merged(main.config, main.positions, ())
    maps: dict[str, dict[str, Any]] = {key: dict(getattr(main.config, key)) for key in SHARED}
    owners = {(key, name): main for key, items in maps.items() for name in items}
    collisions: list[Problem] = []
    for fragment in others:
        for key, noun in SHARED.items():
            for name, item in getattr(fragment.config, key).items():
                owner = owners.setdefault((key, name), fragment)
                if owner is fragment:
                    maps[key][name] = item
                else:
                    collisions.append(_collision(key, noun, name, owner, fragment))
    merged: Mapping[str, Any] = {key: FrozenMap(items) for key, items in maps.items()}
    return Merged(attrs.evolve(main.config, **merged), _positions(fragments), tuple(collisions))


def _collision(key: str, noun: str, name: str, owner: Fragment, other: Fragment) -> Problem:
    path = item_path(key, name)
    first = owner.positions.get(path) or owner.source
    return Problem(other.positions.get(path), path, f"{noun} {quote(name)} is defined twice; first at {first}")


def _positions(fragments: Sequence[Fragment]) -> Positions:
    places: dict[str, Position] = {}
    # The last word is that of the first.
    for fragment in reversed(fragments):
        places.update(fragment.positions)
    return Positions(
        places,
        frozenset().union(*(fragment.positions.foreign for fragment in fragments)),
        frozenset().union(*(fragment.positions.broken for fragment in fragments)),
    )


def order_of(sources: Iterable[str]) -> Callable[[Problem], tuple[Any, ...]]:
    """
    Return what sorts problems by source, in this order, and in each as a reader meets them; those without a place come last.
    """
    ranks = {source: rank for rank, source in enumerate(sources)}

    def key(problem: Problem) -> tuple[Any, ...]:
        position = problem.position
        if position is None:
            return (True,)
        return (False, ranks.get(position.source, len(ranks)), position.line, position.column)

    return key
