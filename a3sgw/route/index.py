"""
File routes so that a request meets only those that may match it.

Every route lies on the shelf of each host its rule requires, or on the general shelf if it requires none. A shelf holds *entries* in rank
order, and the first of them that matches is the shelf's answer. A long shelf of http routes is divided again by required path: whole
paths in one dict, prefixes in another that is asked once for each length that occurs. What a shelf's key has established is taken out of
the predicates on it.

Shelves are never merged, so an index is about as big as its rules. Where hosts, paths and the size of a rule multiply, the bounds below
trade speed for memory and time, never for another answer.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Generic, TypeVar

import attrs

from a3sgw.message import RequestHead
from a3sgw.route.fold import HostKey, PathKey, Residue, given_host, given_path, required_hosts, required_paths, rule_size, specialise
from a3sgw.route.rule import Rule

__all__ = ["LAST", "NOTHING", "Entry", "Finder", "HttpIndex", "Index", "Route"]

F = TypeVar("F")
T = TypeVar("T")

Predicate = Callable[[F], bool]
Entry = tuple[int, "Predicate[F] | None", Any]
"""Rank, what is left to ask (`None`: nothing) and the route's target. A plain tuple, because it is unpacked on every request."""
Finder = Callable[[F, int], "Entry[F]"]
"""Gives the first entry of a shelf whose rank is below the limit and whose predicate holds, or `NOTHING`."""

LAST: Final = sys.maxsize
NOTHING: Final[tuple[int, None, None]] = (LAST, None, None)

_MAX_WALK = 8
"""A shelf with more entries is divided by path."""
_FEW_PATHS = 16
_MAX_PLACES = 1000
"""How many places one route may take when its hosts and paths multiply, unless the paths are few; otherwise they are asked, not indexed."""
_MAX_VISITS = 100_000
"""How many nodes and arguments may be visited to file one rule everywhere; beyond, its whole predicate is asked on each shelf."""


@attrs.frozen(slots=True)
class Route(Generic[T]):
    """
    One router in its place: `rank` counts from 0 in the order of trial, `priority` is the one that put it there.
    """

    rank: int
    name: str
    rule: Rule
    priority: int
    target: T


@attrs.define(slots=True, eq=False)
class _Filing:
    """
    A route on its way onto one shelf, with what is left of its rule there. `spread` is the number of shelves it goes onto, `predicates`
    the compiled residues that all of them share: many hosts usually leave the same.
    """

    route: Route[Any]
    residue: Residue
    spread: int
    predicates: dict[Rule | None, Any]


class Index(Generic[F]):
    """
    The shelves of a table, as finders: `hosts` by exact name, `parents` by the name a wildcard stands before, and `general`, `None` if
    empty.

    `shared_rank` is the lowest rank that is not on the exact hosts' shelves: a match that comes before it has won. All of that is only
    there when `fill` has come to its end.
    """

    def __init__(self, compile_rule: Callable[[Rule], Predicate[F]]) -> None:
        self._compile_rule = compile_rule
        self.shared_rank = LAST
        self.hosts: dict[bytes, Finder[F]] = {}
        self.parents: dict[bytes, Finder[F]] = {}
        self.general: Finder[F] | None = None

    def fill(self, routes: Sequence[Route[Any]], step: int) -> Generator[None, None, None]:
        """
        File all routes, in steps of `step` routes and then of as many shelves.
        """
        shelves: dict[HostKey | None, list[_Filing]] = {}
        for at, route in enumerate(routes, 1):
            _put_on_shelves(route, shelves)
            if not at % step:
                yield
        self.shared_rank = min((filings[0].route.rank for key, filings in shelves.items() if key is None or key.is_parent), default=LAST)
        for at, (key, filings) in enumerate(shelves.items(), 1):
            finder = self.finder(filings)
            if not at % step:
                yield
            if key is None:
                self.general = finder
            elif key.is_parent:
                self.parents[key.name] = finder
            else:
                self.hosts[key.name] = finder

    def finder(self, filings: Sequence[_Filing]) -> Finder[F]:
        """
        Return the finder of one shelf.
        """
        return _walk([self.entry(filing, filing.residue) for filing in filings])

    def entry(self, filing: _Filing, residue: Residue) -> Entry[F]:
        """
        Return what stands on a shelf for a route of which `residue` is left to ask.
        """
        route = filing.route
        if isinstance(residue, bool):
            return (route.rank, None, route.target)
        # The whole rule has a key of its own: to hash it once for each of thousands of hosts would be slow.
        key = None if residue is route.rule else residue
        predicate = filing.predicates.get(key)
        if predicate is None:
            predicate = filing.predicates[key] = self._compile_rule(residue)
        return (route.rank, predicate, route.target)


class HttpIndex(Index[RequestHead]):
    """
    An index whose long shelves are divided by path.
    """

    def finder(self, filings: Sequence[_Filing]) -> Finder[RequestHead]:
        if len(filings) <= _MAX_WALK:
            return super().finder(filings)
        whole: dict[bytes, list[Entry[RequestHead]]] = {}
        prefixes: dict[bytes, list[Entry[RequestHead]]] = {}
        rest: list[Entry[RequestHead]] = []
        for filing in filings:
            keys = _path_keys(filing)
            if not keys:
                rest.append(self.entry(filing, filing.residue))
            for key in keys:
                residue = _specialise_for_path(filing, key, len(keys))
                if residue is not False:
                    (prefixes if key.is_prefix else whole).setdefault(key.value, []).append(self.entry(filing, residue))
        if not whole and not prefixes:
            return _walk(rest)
        return _walk_by_path(_seal(whole), _seal(prefixes), tuple(_reachable(rest)))


def _put_on_shelves(route: Route[Any], shelves: dict[HostKey | None, list[_Filing]]) -> None:
    rule = route.rule
    predicates: dict[Rule | None, Any] = {}
    keys = required_hosts(rule)
    if keys is None:
        shelves.setdefault(None, []).append(_Filing(route, rule, 1, predicates))
        return
    is_affordable = len(keys) * rule_size(rule) <= _MAX_VISITS
    for key in keys:
        residue: Residue = specialise(rule, given_host(key)) if is_affordable else rule
        if residue is not False:
            shelves.setdefault(key, []).append(_Filing(route, residue, len(keys), predicates))


def _path_keys(filing: _Filing) -> frozenset[PathKey]:
    """
    Return the paths to file a route under, none if it must be asked for every path.
    """
    # Asked on each shelf, so a rule that is large and on many shelves is not even looked at.
    if isinstance(filing.residue, bool) or filing.spread * rule_size(filing.residue) > _MAX_VISITS:
        return frozenset()
    keys = required_paths(filing.residue)
    if keys is None or (len(keys) > _FEW_PATHS and len(keys) * filing.spread > _MAX_PLACES):
        return frozenset()
    return keys


def _specialise_for_path(filing: _Filing, key: PathKey, count: int) -> Residue:
    residue = filing.residue
    if isinstance(residue, bool) or count * filing.spread * rule_size(residue) > _MAX_VISITS:
        return residue
    return specialise(residue, given_path(key))


def _seal(places: dict[bytes, list[Entry[F]]]) -> dict[bytes, tuple[Entry[F], ...]]:
    return {value: tuple(_reachable(entries)) for value, entries in places.items()}


def _reachable(entries: Sequence[Entry[F]]) -> Sequence[Entry[F]]:
    """
    Return the entries up to the first that is certain to match.
    """
    for at, entry in enumerate(entries):
        if entry[1] is None:
            return entries[: at + 1]
    return entries


# -- finders --------------------------------------------------------------------------------------------------------------------------


def _walk(entries: Sequence[Entry[F]]) -> Finder[F]:
    entries = tuple(_reachable(entries))
    if len(entries) == 1:
        return _look_at(entries[0])

    def find(request: F, limit: int) -> Entry[F]:
        for entry in entries:
            rank, predicate, _ = entry
            if rank >= limit:
                break
            if predicate is None or predicate(request):
                return entry
        return NOTHING

    return find


def _look_at(entry: Entry[F]) -> Finder[F]:
    rank, predicate, _ = entry
    if predicate is None:
        return lambda request, limit: entry if rank < limit else NOTHING
    return lambda request, limit: entry if rank < limit and predicate(request) else NOTHING


def _walk_by_path(
    whole: dict[bytes, tuple[Entry[RequestHead], ...]],
    prefixes: dict[bytes, tuple[Entry[RequestHead], ...]],
    rest: tuple[Entry[RequestHead], ...],
) -> Finder[RequestHead]:
    # Longest first: by the default priority a long prefix mostly outranks a short one, whose entries are then not asked.
    lengths = tuple(sorted({len(prefix) for prefix in prefixes}, reverse=True))

    def find(head: RequestHead, limit: int) -> Entry[RequestHead]:
        best: Entry[RequestHead] = NOTHING
        path = head.path
        size = len(path)
        for entry in whole.get(path, ()):
            rank, predicate, _ = entry
            if rank >= limit:
                break
            if predicate is None or predicate(head):
                best = entry
                limit = rank
                break
        for length in lengths:
            if length <= size:
                for entry in prefixes.get(path[:length], ()):
                    rank, predicate, _ = entry
                    if rank >= limit:
                        break
                    if predicate is None or predicate(head):
                        best = entry
                        limit = rank
                        break
        for entry in rest:
            rank, predicate, _ = entry
            if rank >= limit:
                break
            if predicate is None or predicate(head):
                return entry
        return best

    return find
