"""
What the checks have in common: a list of problems that knows where things were written, what may be shown, and what is moot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from a3sgw.config.tree import Position, Problem
from a3sgw.config.wording import Suggester, quote

__all__ = ["Findings"]


class Findings:
    """
    Collect the problems of one check.

    `positions` may be any mapping; only `positions.Positions` also knows which values are foreign and which were broken.
    """

    __slots__ = ("_broken", "_foreign", "_positions", "_suggester", "problems")

    def __init__(self, positions: Mapping[str, Position], suggester: Suggester | None = None) -> None:
        self.problems: list[Problem] = []
        self._positions = positions
        self._suggester = suggester if suggester is not None else Suggester()
        self._foreign: frozenset[str] = getattr(positions, "foreign", frozenset())
        self._broken: frozenset[str] = getattr(positions, "broken", frozenset())

    def report(self, path: str, message: str, depends: Iterable[str] = ()) -> None:
        """
        Add a problem at `path`, unless it may be a mere consequence: `path` or one of `depends` was written but could not be used.
        """
        if not self._broken or not any(self.is_broken(each) for each in (path, *depends)):
            self.problems.append(Problem(self.position(path), path, message))

    def position(self, path: str) -> Position | None:
        """
        Return where `path` was written, or what it is part of.
        """
        while path:
            found = self._positions.get(path)
            if found is not None:
                return found
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._positions.get("")

    def is_written(self, path: str) -> bool:
        """
        Whether `path` stands in the file, valid or not.
        """
        return path in self._positions

    def is_broken(self, path: str) -> bool:
        """
        Whether `path`, something it is part of, or a part of it was written but could not be used.
        """
        return any(path == other or _is_part(path, other) or _is_part(other, path) for other in self._broken)

    def show(self, path: str, text: str) -> str:
        """
        Return `text`, the value at `path`, as a problem may show it.
        """
        return "a value from the environment or a file" if path in self._foreign else quote(text)

    def hint(self, path: str, word: str, candidates: Iterable[str]) -> str:
        """
        Return `; did you mean "…"?` for the word at `path`, or nothing.
        """
        return "" if path in self._foreign else self._suggester.hint(word, candidates)


def _is_part(path: str, whole: str) -> bool:
    return path.startswith(whole) and path[len(whole) : len(whole) + 1] in (".", "[")
