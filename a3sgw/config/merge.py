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
from a3sgw.config.unfit import unfit
from a3sgw.config.values import FrozenMap
from a3sgw.config.wording import item_path, quote

__all__ = ["Merged", "Offer", "merge", "order_of", "overlay"]


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


# -- providers ------------------------------------------------------------------------------------------------------------------------

_OFFERED = {key: noun for key, noun in SHARED.items() if key != "entrypoints"}


@attrs.frozen
class Offer:
    """
    What the provider called `source` has: routers, services and middlewares.
    """

    source: str
    config: GatewayConfig


def overlay(
    base: GatewayConfig, offers: Sequence[Offer], inspect: Callable[[GatewayConfig], Iterable[Problem]]
) -> tuple[GatewayConfig, tuple[Problem, ...]]:
    """
    Return `base` with everything of the `offers` that can be used, and a problem for each object that is left out.

    A name belongs to `base`, or to the first offer that has it. What is wrong, as `inspect` says, is left out, and so is what needs it. A
    `base` with problems of its own is returned as it is. Long because everything that is left out is noted in one list.
    """
    owners: dict[tuple[str, str], Offer] = {}
    left_out: list[Problem] = []
    for offer in offers:
        for key, noun in _OFFERED.items():
            for name in getattr(offer.config, key):
                owner = owners.get((key, name))
                if name in getattr(base, key) or owner is not None:
                    whose = "the configuration files have" if owner is None else f"provider {quote(owner.source)} has"
                    message = f"provider {quote(offer.source)}: {noun} {quote(name)} is left out, because {whose} one of that name"
                    left_out.append(Problem(None, item_path(key, name), message))
                else:
                    owners[key, name] = offer

    def leave_out(place: tuple[str, str], problem: Problem) -> None:
        offer = owners.pop(place)
        message = f"provider {quote(offer.source)}: {SHARED[place[0]]} {quote(place[1])} is left out: {problem.message}"
        left_out.append(Problem(None, item_path(*place), message))

    for place, offer in list(owners.items()):
        found = next(unfit(getattr(offer.config, place[0])[place[1]], item_path(*place)), None)
        if found is not None:
            leave_out(place, found)
    while owners:
        config = _with_offers(base, owners)
        problems = list(inspect(config))
        if not problems:
            return config, tuple(left_out)
        blamed = {place: problem for problem in problems for place in owners if _is_within(problem.path, item_path(*place))}
        if not blamed:
            left_out.append(Problem(None, "", f"nothing that providers offer is used: {problems[0]}"))
            break
        for place, problem in blamed.items():
            leave_out(place, problem)
    return base, tuple(left_out)


def _with_offers(base: GatewayConfig, owners: Mapping[tuple[str, str], Offer]) -> GatewayConfig:
    maps: dict[str, dict[str, Any]] = {key: dict(getattr(base, key)) for key in _OFFERED}
    for (key, name), offer in owners.items():
        maps[key][name] = getattr(offer.config, key)[name]
    merged: Mapping[str, Any] = {key: FrozenMap(items) for key, items in maps.items()}
    return attrs.evolve(base, **merged)


def _is_within(path: str, item: str) -> bool:
    return path == item or path.startswith((f"{item}.", f"{item}["))


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
