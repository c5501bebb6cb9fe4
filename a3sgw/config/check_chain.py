"""
Check lists of middlewares, and write out the chains in them.

A chain is a middleware that is nothing but a list of others: it is replaced by them wherever it is listed, and nothing is left of it at run
time. So such lists must come to an end, and what they come to must name nothing twice. Nothing here recurses: however deep or wide chains
are nested, it takes time in proportion to what they list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from a3sgw.config.finding import Findings
from a3sgw.config.model import GatewayConfig
from a3sgw.config.wording import item_path, quote

__all__ = ["check_chains", "members_of", "walk_out", "written_out"]


def members_of(middleware: Any) -> tuple[str, ...]:
    """
    Return the names of the middlewares that `middleware` stands for; none if it is one itself.
    """
    key = _key_of(middleware)
    return () if key is None else getattr(middleware, key)


def _key_of(middleware: Any) -> str | None:
    """
    Return the attribute that names the members of a chain.
    """
    return next((key for key, noun in getattr(middleware, "names", {}).items() if noun == "middleware"), None)


def walk_out(names: Iterable[str], middlewares: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """
    Give each of `names`, and after each chain what it names, in order; each with the index of the one of `names` that brought it. A
    circle, which is an error, ends where it closes.
    """
    for index, name in enumerate(names):
        pending: list[tuple[str, tuple[str, ...]]] = [(name, ())]
        while pending:
            each, trail = pending.pop()
            yield index, each
            if each not in trail:
                pending.extend((member, (*trail, each)) for member in reversed(members_of(middlewares.get(each))))


def written_out(names: Iterable[str], middlewares: Mapping[str, Any]) -> list[str]:
    """
    Return `names` with each chain replaced by what it names. There must be no circle.
    """
    return [each for _, each in walk_out(names, middlewares) if not members_of(middlewares.get(each))]


def check_chains(config: GatewayConfig, findings: Findings) -> None:
    """
    Report chains that lead back to themselves, and lists that, written out, name a middleware twice.
    """
    chains = _inner_first(config.middlewares, findings)
    if chains is None:
        return
    # What a chain names twice has been reported there, so whoever lists that chain is not looked at beyond its name.
    sound = dict(config.middlewares)
    for name in chains:
        path = f"{item_path('middlewares', name)}.{_key_of(sound[name])}"
        if not _names_once(f"middleware {quote(name)}", path, members_of(sound[name]), sound, findings):
            del sound[name]
    for noun, items in (("router", config.routers), ("entrypoint", config.entrypoints)):
        for name, item in items.items():
            _names_once(f"{noun} {quote(name)}", f"{item_path(f'{noun}s', name)}.middlewares", item.middlewares, sound, findings)


def _inner_first(middlewares: Mapping[str, Any], findings: Findings) -> list[str] | None:
    """
    Return the chains, each after those that it names; or report the circles, each where it closes, and return `None`.
    """
    done: dict[str, None] = {}
    circles = 0
    for start in middlewares:
        trail = {} if start in done else {start: enumerate(members_of(middlewares[start]))}
        while trail:
            name = next(reversed(trail))
            index, each = next(trail[name], (0, None))
            if each is None:
                del trail[name]
                done[name] = None
            elif each in trail:
                circles += 1
                circle = [*list(trail)[list(trail).index(each) :], each]
                path = f"{item_path('middlewares', name)}.{_key_of(middlewares[name])}[{index}]"
                findings.report(path, f"middleware {quote(each)} leads back to itself: {' → '.join(map(quote, circle))}")
            elif each not in done and each in middlewares:
                trail[each] = enumerate(members_of(middlewares[each]))
    return None if circles else [name for name in done if members_of(middlewares[name])]


def _names_once(place: str, path: str, names: Sequence[str], middlewares: Mapping[str, Any], findings: Findings) -> bool:
    """
    Tell whether the list at `path`, written out, names nothing twice; if it does, report the first such name where it comes again.
    """
    brought: dict[str, int] = {}
    for index, each in walk_out(names, middlewares):
        if each in brought:
            where = f"{path}[{index}]"
            shown = findings.show(where, each) if names[index] == each else quote(each)
            ways = [
                "by itself" if names[way] == each else f"through {findings.show(f'{path}[{way}]', names[way])}"
                for way in (brought[each], index)
            ]
            how = "" if ways[0] == ways[1] else f", {ways[0]} and {ways[1]}"
            findings.report(where, f"{place} has the middleware {shown} twice{how}; it would count everything twice")
            return False
        brought[each] = index
    return True
