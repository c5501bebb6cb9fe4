"""
Find the route of a request among thousands.

The winner is defined by the plain reading: try the routers in order (higher priority first, then by name) and take the first whose rule
matches. A table gives that winner without the walk: it asks the shelf of the request's host, then that of its wildcard and the general
one, each only for what ranks before the best so far (see `index`).

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from typing import Any, Final, Generic, TypeVar

import attrs

from a3sgw.message import RequestHead
from a3sgw.route.index import LAST, NOTHING, Entry, Finder, HttpIndex, Index, Route
from a3sgw.route.match import ConnectionFacts, compile_early, compile_http, compile_tcp
from a3sgw.route.rule import Kind, RuleError, parse_rule
from a3sgw.steps import finish

__all__ = ["HttpTable", "Route", "RouteSpec", "TcpTable", "build_http_table", "build_tcp_table", "building_http_table"]

F = TypeVar("F")
T = TypeVar("T")

_ALL: Final = sys.maxsize


@attrs.frozen(slots=True)
class RouteSpec(Generic[T]):
    """
    One router to be put in a table. `priority` 0 or `None` means the length of the rule's text in characters; `target` is what a match
    gives.
    """

    name: str
    rule: str
    priority: int | None
    target: T


class HttpTable(Generic[T]):
    """
    The routes of an http entrypoint. `routes` is all of them in order.
    """

    __slots__ = ("_general", "_hosts", "_parents", "_shared_rank", "routes")

    def __init__(self, routes: tuple[Route[T], ...], index: HttpIndex) -> None:
        self.routes = routes
        self._hosts = index.hosts
        self._parents = index.parents
        self._general = index.general
        self._shared_rank = index.shared_rank

    def __repr__(self) -> str:
        return f"<HttpTable {len(self.routes)} routes>"

    def match(self, head: RequestHead) -> T | None:
        """
        Return the target of the first route in order whose rule matches, or `None`.
        """
        best: Entry[RequestHead] = NOTHING
        find = self._hosts.get(head.host)
        if find is not None:
            best = find(head, LAST)
            # Most common case: the host's own route, and nothing that is not the host's comes before it.
            if best[0] < self._shared_rank:
                return best[2]  # type: ignore[no-any-return]
        return _match_shared(head, head.host, best, self._parents, self._general)  # type: ignore[no-any-return]


class TcpTable(Generic[T]):
    """
    The routes of a tcp entrypoint. `routes` is all of them in order.
    """

    __slots__ = ("_early", "_index", "routes")

    def __init__(self, routes: tuple[Route[T], ...]) -> None:
        self.routes = routes
        self._early = [(compile_early(route.rule), route.target) for route in routes]
        self._index = Index(compile_tcp)
        finish(self._index.fill(routes, _ALL))

    def __repr__(self) -> str:
        return f"<TcpTable {len(self.routes)} routes>"

    def match_early(self, client_packed: bytes) -> tuple[T | None, bool]:
        """
        Return what `match` would for a client at this address, whatever it may send, and `True`; or `None` and `False` if that depends on
        what it sends.

        Who waits for a server to speak first is not waited for.
        """
        for says, target in self._early:
            said = says(client_packed)
            if said:
                return target, True
            if said is None:
                return None, False
        return None, True

    def match(self, facts: ConnectionFacts) -> T | None:
        """
        Return the target of the first route in order whose rule matches, or `None`.
        """
        index = self._index
        name = facts.server_name or b""
        find = index.hosts.get(name)
        best = NOTHING if find is None else find(facts, LAST)
        return _match_shared(facts, name, best, index.parents, index.general)  # type: ignore[no-any-return]


def _match_shared(request: F, host: bytes, best: Entry[F], parents: dict[bytes, Finder[F]], general: Finder[F] | None) -> Any:
    """
    Return the target that wins when a wildcard's or a general route may outrank `best`, which was found under the exact host.
    """
    if parents:
        label, _, parent = host.partition(b".")
        find = parents.get(parent)
        if find is not None and label:
            found = find(request, best[0])
            if found is not NOTHING:
                best = found
    if general is not None:
        found = general(request, best[0])
        if found is not NOTHING:
            best = found
    return best[2]


def build_http_table(specs: Iterable[RouteSpec[T]]) -> HttpTable[T]:
    """
    Return the table of some routers. Raises `RuleError` (its message names the router), or `ValueError` for a repeated name.
    """
    return finish(building_http_table(specs, _ALL))


def building_http_table(specs: Iterable[RouteSpec[T]], step: int) -> Generator[None, None, HttpTable[T]]:
    """
    Like `build_http_table`, in steps of about `step` routers.
    """
    routes = _order(specs, "http")
    index = HttpIndex(compile_http)
    yield from index.fill(routes, step)
    return HttpTable(routes, index)


def build_tcp_table(specs: Iterable[RouteSpec[T]]) -> TcpTable[T]:
    """
    Return the table of some routers. Raises `RuleError` (its message names the router), or `ValueError` for a repeated name.
    """
    return TcpTable(_order(specs, "tcp"))


def _order(specs: Iterable[RouteSpec[T]], kind: Kind) -> tuple[Route[T], ...]:
    ordered = sorted(specs, key=lambda spec: (-(spec.priority or len(spec.rule)), spec.name))
    seen: set[str] = set()
    routes = []
    for rank, spec in enumerate(ordered):
        if spec.name in seen:
            raise ValueError(f'there are two routers named "{spec.name}"; give each its own name')
        seen.add(spec.name)
        try:
            rule = parse_rule(spec.rule, kind)
        except RuleError as error:
            raise RuleError(f'router "{spec.name}": {error.message}', error.column) from None
        routes.append(Route(rank, spec.name, rule, spec.priority or len(spec.rule), spec.target))
    return tuple(routes)
