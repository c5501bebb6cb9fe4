"""
Find the best configuration that several files make together when some of them are broken.

A file that is broken keeps what it last said that was good, and the others go on. A file that never said anything good is left out, except
the main one, without which there is no configuration. Where a file is sound but refers to what another has just lost, it is the one that
changed that is at fault. In the end everything is as it was, at worst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from a3sgw.config.fragment import Fragment
from a3sgw.config.load import BrokenFile, Loaded
from a3sgw.config.tree import Problem

__all__ = ["Settled", "settle"]


@attrs.frozen
class Settled:
    """
    The fragments that go together, what came of them, and the files that are not as they were found.
    """

    fragments: tuple[Fragment, ...]
    loaded: Loaded
    broken: tuple[BrokenFile, ...]


def settle(
    main: str, found: Sequence[Fragment], good: Mapping[str, Fragment], inspect: Callable[[Sequence[Fragment]], Loaded]
) -> Settled:
    """
    Return what can be made of the fragments `found`, the first of which is that of the file `main`; `good` is what ran before, by source.

    `inspect` checks fragments as a whole. If nothing can be made of them, the problems are in `loaded`.
    Long because what is given up is one list, to which every step adds.
    """
    current = {fragment.source: fragment for fragment in found}
    broken: dict[str, BrokenFile] = {}

    def give_up(source: str, problems: Sequence[Problem]) -> bool:
        """
        Put what was good of a file into the place of what is broken. Returns whether that is something else.
        """
        if source in broken or current.get(source) is good.get(source):
            return False
        kept = good.get(source)
        broken[source] = BrokenFile(source, tuple(problems), is_kept=kept is not None)
        if kept is None:
            del current[source]
        else:
            current[source] = kept
        return True

    for source, problems in _own_problems(found, main, inspect).items():
        give_up(source, problems)
    while main in current:
        fragments = _in_order(current, main)
        loaded = inspect(fragments)
        if not loaded.problems:
            return Settled(tuple(fragments), loaded, tuple(broken.values()))
        # All of them, and not only up to the first.
        given_up = [source for source, problems in _by_source(loaded.problems, main).items() if give_up(source, problems)]
        if given_up:
            continue
        changed = [source for source in {**good, **current} if current.get(source) is not good.get(source)]
        changed.sort(key=lambda source: (source == main, source))
        culprit = next((source for source in changed if _helps(source, current, good, main, inspect)), None)
        if not any(give_up(source, loaded.problems) for source in ([culprit] if culprit is not None else changed)):
            return Settled(tuple(fragments), loaded, tuple(broken.values()))
    problems = broken[main].problems
    return Settled((), Loaded(None, problems, (), found[0].positions), tuple(broken.values()))


def _by_source(problems: Iterable[Problem], main: str) -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(main if problem.position is None else problem.position.source, []).append(problem)
    return found


def _own_problems(
    fragments: Sequence[Fragment], main: str, inspect: Callable[[Sequence[Fragment]], Loaded]
) -> dict[str, Sequence[Problem]]:
    """
    Return what is wrong with each file that is broken for itself, and with that everything else that is wrong with it, if it can be told.
    """
    own: dict[str, Sequence[Problem]] = {fragment.source: fragment.problems for fragment in fragments if fragment.problems}
    if own and all(fragment.config is not None for fragment in fragments):
        found = _by_source(inspect(fragments).problems, main)
        own = {source: found.get(source) or problems for source, problems in own.items()}
    return own


def _in_order(fragments: Mapping[str, Fragment], main: str) -> list[Fragment]:
    """
    Return the main fragment and then the others by name, as they are found: what was good of a file that has gone, too.
    """
    return [fragments[main], *(fragments[source] for source in sorted(fragments.keys() - {main}))]


def _helps(
    source: str,
    current: Mapping[str, Fragment],
    good: Mapping[str, Fragment],
    main: str,
    inspect: Callable[[Sequence[Fragment]], Loaded],
) -> bool:
    """
    Whether everything would be well if one file were as it was.
    """
    tried = dict(current)
    tried.pop(source, None)
    if source in good:
        tried[source] = good[source]
    return main in tried and not inspect(_in_order(tried, main)).problems
