"""
Where the parts of a decoded configuration were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from a3sgw.config.tree import Position

__all__ = ["Positions"]


class Positions(Mapping[str, Position]):
    """
    Where each part of a configuration was written, by its path: `routers.api`, `routers.api.rule`, `routers.api.middlewares[0]`.

    The path of an attribute leads to its value, that of a block to its first word, and the empty path to the beginning of the file.
    `foreign` holds the paths of values that came from the environment or a file, which problems must not repeat. `broken` holds the paths
    of what was written but could not be used.
    """

    __slots__ = ("_places", "broken", "foreign")

    def __init__(
        self, places: Mapping[str, Position] | None = None, foreign: frozenset[str] = frozenset(), broken: frozenset[str] = frozenset()
    ) -> None:
        self._places: Mapping[str, Position] = places if places is not None else {}
        self.foreign = foreign
        self.broken = broken

    def __getitem__(self, path: str) -> Position:
        return self._places[path]

    def __contains__(self, path: object) -> bool:
        return path in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def with_broken(self, paths: Iterable[str]) -> Positions:
        """
        Return the same with more `broken` paths.
        """
        return Positions(self._places, self.foreign, self.broken.union(paths))
