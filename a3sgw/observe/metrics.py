"""
Count what exchanges did, cheaply, and give the counts away as plain data.

An exchange costs a handful of additions into slots that were bound to its route at assembly. Everything a reader wants to know (totals,
classes, errors, averages) is derived from those slots when somebody asks: `Metrics.snapshot` copies them into lists and dicts that can
cross a process border, `snapshot.merge_snapshots` adds up those of several carriers, `exposition.render` makes the page. So the three
steps may run in three places, and only the first is on the data path.

Counts survive a reload. What a reload took away disappears from the page, but never from a total: `Metrics.retain` folds it into *heirs*,
series without the name that is gone. An exchange which still runs on a removed route when it ends is counted by the heir.

Long because counting, forgetting and giving away are three sides of the same slots.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IObserver
from a3sgw.observe.connections import ConnectionCounts
from a3sgw.observe.sessions import SessionCounts

if TYPE_CHECKING:
    from a3sgw.observe.record import Record
    from a3sgw.observe.snapshot import Gauges

__all__ = ["BackendSeries", "Metrics", "MiddlewareSeries", "RouteSeries"]

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"))
_OTHER = b"other"


class _Key(NamedTuple):
    """
    Whose exchanges a series counts.

    Where there was no route, `router` and `service` are empty and `entrypoint` says where it was missing. `is_live` is false for heirs; a
    name that a reload took away is `None` there.
    """

    router: str | None
    service: str | None
    entrypoint: str | None
    is_live: bool


class _Spread:
    """
    Durations sorted into buckets: `counts` has one more item than there are bounds, for what lies above the last; `seconds` is their sum.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.seconds = 0.0

    def absorb(self, other: _Spread) -> None:
        """
        Add what `other` has counted.
        """
        self.counts[:] = map(int.__add__, self.counts, other.counts)
        self.seconds += other.seconds

    def resize(self, size: int) -> None:
        """
        Go on with other bounds. How the old counts would be spread over them is lost, but their number is not.
        """
        self.counts[:] = [0] * (size - 1) + [sum(self.counts)]


class _Cell(_Spread):
    """
    The exchanges of one series with the same method and status: how long they took, and the body bytes clients were sent.
    """

    __slots__ = ("bytes",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bytes = 0


class RouteSeries:
    """
    The counts of one route, or of what reached one entrypoint and found no route.

    `cells` is keyed by method and status; methods outside the usual nine share one key, so that a client cannot make it grow.
    """

    __slots__ = ("__weakref__", "_size", "cells", "first_byte", "key", "upstream")

    def __init__(self, key: _Key, size: int) -> None:
        self._size = size
        self.key = key
        self.cells: dict[tuple[bytes, int], _Cell] = {}
        self.first_byte = _Spread(size)
        self.upstream = _Spread(size)

    def __repr__(self) -> str:
        return f"<RouteSeries {self.key}>"

    def open_cell(self, method: bytes, status: int) -> _Cell:
        """
        Return the cell for `method` and `status`, making it if this is the first time.
        """
        pair = (method if method in _METHODS else _OTHER, status)
        cell = self.cells.get(pair)
        if cell is None:
            cell = self.cells[pair] = _Cell(self._size)
        return cell

    def absorb(self, other: RouteSeries) -> None:
        """
        Add what `other` has counted.
        """
        for (method, status), cell in other.cells.items():
            mine = self.open_cell(method, status)
            mine.absorb(cell)
            mine.bytes += cell.bytes
        self.first_byte.absorb(other.first_byte)
        self.upstream.absorb(other.upstream)

    def resize(self, size: int) -> None:
        """
        Go on with other bounds.
        """
        self._size = size
        for spread in (*self.cells.values(), self.first_byte, self.upstream):
            spread.resize(size)

    def bequeath(self, heir: RouteSeries) -> None:
        """
        Count into `heir` from now on. What was counted so far must have been absorbed by it.
        """
        self.key = heir.key
        self.cells = heir.cells
        self.first_byte = heir.first_byte
        self.upstream = heir.upstream


class BackendSeries:
    """
    The exchanges whose last, or only, attempt went to one backend of one service, and how often it was set aside because it failed some.
    """

    __slots__ = ("ejections", "requests")

    def __init__(self) -> None:
        self.ejections = 0
        self.requests = 0


class MiddlewareSeries:
    """
    What one configured middleware did, wherever it is listed.

    `answers` counts by status the exchanges that it answered itself. Hooks that decide at once are not timed, because that would cost more
    than they do; `waits` and `wait_seconds` are about those that made an exchange wait.
    """

    __slots__ = ("answers", "invocations", "wait_seconds", "waits")

    def __init__(self) -> None:
        self.invocations = 0
        self.answers: dict[int, int] = {}
        self.waits = 0
        self.wait_seconds = 0.0


@implementer(IObserver)
class Metrics:
    """
    The counts of one carrier. Lives as long as the carrier; generations come and go.

    `buckets` are the upper bounds of all histograms, in seconds, ascending. `connections` counts what goes over tcp entrypoints,
    `sessions` what goes over udp entrypoints.
    """

    __slots__ = (
        "_backends",
        "_buckets",
        "_middlewares",
        "_outcomes",
        "_retired",
        "_revisions",
        "_series",
        "_unread",
        "connections",
        "sessions",
    )

    def __init__(self, buckets: Sequence[float]) -> None:
        self._buckets = _checked(buckets)
        self._series: dict[_Key, RouteSeries] = {}
        self._retired: WeakSet[RouteSeries] = WeakSet()
        self._backends: dict[tuple[str, str], BackendSeries] = {}
        self._middlewares: dict[str, MiddlewareSeries] = {}
        self._revisions: dict[tuple[str, str], int] = {}
        # Chains that have counted something; adding that up for each middleware in each exchange would cost more than many of them do.
        self._unread: list[Any] = []
        self.connections = ConnectionCounts(self.count_revision)
        self.sessions = SessionCounts(self.count_revision)
        # By word, because an enum member is hashed by a Python function.
        self._outcomes = {outcome.word: 0 for outcome in Outcome}

    def route_series(self, router: str, service: str) -> RouteSeries:
        """
        Return the series of a route: the same one for the same names, until `retain` drops it.
        """
        return self._open(_Key(router, service, None, True))

    def entrypoint_series(self, name: str) -> RouteSeries:
        """
        Return the series of the exchanges on entrypoint `name` that have no route.
        """
        return self._open(_Key("", "", name, True))

    def backend_series(self, service: str, url: str) -> BackendSeries:
        """
        Return the series of a backend: the same one for the same names, until `retain` drops it.
        """
        series = self._backends.get((service, url))
        if series is None:
            series = self._backends[service, url] = BackendSeries()
        return series

    def middleware_series(self, name: str) -> MiddlewareSeries:
        """
        Return the series of the middleware called `name`: the same one for the same name, until `retain` drops it.
        """
        series = self._middlewares.get(name)
        if series is None:
            series = self._middlewares[name] = MiddlewareSeries()
        return series

    def retain(
        self,
        routes: set[tuple[str, str]],
        backends: set[tuple[str, str]],
        entrypoints: set[str],
        middlewares: Set[str] = frozenset(),
        revisions: Set[tuple[str, str]] = frozenset(),
    ) -> None:
        """
        Forget every route `(router, service)`, backend `(service, url)`, entrypoint, middleware and revision `(service, revision)` that is
        not named, after a reload.

        No total falls: neither the global ones nor those of a router, service or backend URL that is still in use elsewhere. May be
        called while exchanges still run on what is dropped.
        """
        self._read_chains()
        # The empty name, "no route", is always in use.
        routers = {"", *(router for router, _ in routes)}
        services = {"", *(service for _, service in routes)}

        def successor(key: _Key) -> _Key:
            if key.is_live and (key.entrypoint in entrypoints if key.entrypoint is not None else (key.router, key.service) in routes):
                return key
            router = key.router if key.router in routers else None
            return _Key(router, key.service if key.service in services else None, None, False)

        for key in list(self._series):
            new_key = successor(key)
            if new_key != key:
                series = self._series.pop(key)
                self._open(new_key).absorb(series)
                if key.is_live:
                    self._retired.add(series)
                    series.key = new_key
        # Also those of earlier reloads, whose heir may have just lost a name too. They go when their generation does.
        for series in self._retired:
            series.bequeath(self._series[successor(series.key)])
        # The page adds backends up by URL, so a URL's count may not fall while another service still uses it.
        urls = {url for _, url in backends}
        self._backends = {key: series for key, series in self._backends.items() if key[1] in urls}
        self._middlewares = {name: series for name, series in self._middlewares.items() if name in middlewares}
        self._revisions = {key: count for key, count in self._revisions.items() if key in revisions}
        self.connections.retain(routes, entrypoints)
        self.sessions.retain(routes, entrypoints)

    def rebucket(self, buckets: Sequence[float]) -> None:
        """
        Sort by other bounds from now on, after a reload that changed them.

        What was counted before moves above the last bound: counts and sums stay, and since Prometheus reads a bucket that fell as one that
        began anew, rates and quantiles over time stay right too.
        """
        if tuple(buckets) != self._buckets:
            self._buckets = _checked(buckets)
            # Retired series share what they count into with their heirs, and resizing twice does no harm.
            for series in (*self._series.values(), *self._retired):
                series.resize(len(self._buckets) + 1)

    def exchange_ended(self, record: Record) -> None:
        """
        Count one exchange.

        Long because three method calls would cost a third of the whole.
        """
        route = record.route
        series: RouteSeries = route.series if route is not None else record.entrypoint.series
        head = record.head
        method = head.method if head is not None else _OTHER
        try:
            cell = series.cells[method, record.status]
        except KeyError:
            cell = series.open_cell(method, record.status)
        buckets = self._buckets
        started = record.started
        duration = record.ended - started
        cell.counts[bisect_left(buckets, duration)] += 1
        cell.seconds += duration
        cell.bytes += record.bytes_sent
        first_byte = record.first_byte
        if first_byte:
            duration = first_byte - started
            spread = series.first_byte
            spread.counts[bisect_left(buckets, duration)] += 1
            spread.seconds += duration
            leased = record.leased
            if leased:
                duration = first_byte - leased
                spread = series.upstream
                spread.counts[bisect_left(buckets, duration)] += 1
                spread.seconds += duration
        if route is not None and route.chain is not None:
            counts = route.chain.counts
            passed = record.passed
            counts[passed] += 1
            if counts[passed] == 1:
                self._unread.append(route.chain)
            if record.answered_by is not None:
                answering = self._middlewares.get(record.answered_by)
                # A reload may have taken its name away meanwhile.
                if answering is not None:
                    answering.answers[record.status] = answering.answers.get(record.status, 0) + 1
        backend = record.backend
        if backend is not None:
            backend.series.requests += 1
            if record.revision is not None:
                self.count_revision(backend.service_name, record.revision)
        outcome = record.outcome
        if outcome is not None:
            self._outcomes[outcome.word] += 1

    def _read_chains(self) -> None:
        """
        Add up what chains have counted.
        """
        unread, self._unread = self._unread, []
        for chain in unread:
            for passed, count in enumerate(chain.counts):
                chain.counts[passed] = 0
                for middleware in chain.series[passed]:
                    middleware.invocations += count

    def count_revision(self, service: str, revision: str) -> None:
        """
        Count a request or a connection to one revision of a service.
        """
        self._revisions[service, revision] = self._revisions.get((service, revision), 0) + 1

    def total_requests(self) -> int:
        """
        Return how many exchanges have ended since the start.
        """
        return sum(self._outcomes.values())

    def snapshot(self, gauges: Gauges) -> dict[str, Any]:
        """
        Return everything counted so far, and `gauges`, in the shape that `observe.snapshot` describes.
        """
        self._read_chains()
        return {
            "buckets": list(self._buckets),
            "series": [_series_row(series) for series in self._series.values()],
            "backends": [[service, url, series.requests, series.ejections] for (service, url), series in self._backends.items()],
            "revisions": [[service, revision, count] for (service, revision), count in self._revisions.items()],
            "middlewares": [
                [name, series.invocations, [list(pair) for pair in sorted(series.answers.items())], series.waits, series.wait_seconds]
                for name, series in self._middlewares.items()
            ],
            "outcomes": dict(self._outcomes),
            "tcp": self.connections.rows(),
            "udp": self.sessions.rows(),
            "gauges": gauges,
        }

    def _open(self, key: _Key) -> RouteSeries:
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = RouteSeries(key, len(self._buckets) + 1)
        return series


def _checked(buckets: Sequence[float]) -> tuple[float, ...]:
    bounds = tuple(map(float, buckets))
    if not bounds or bounds[0] <= 0 or not all(map(math.isfinite, bounds)) or list(bounds) != sorted(set(bounds)):
        raise ValueError(f"histogram buckets {bounds!r}: expected ascending bounds in seconds, each above 0, such as 0.01, 0.1, 1")
    return bounds


def _series_row(series: RouteSeries) -> dict[str, Any]:
    cells = series.cells.items()
    return {
        **series.key._asdict(),
        "cells": [[method.decode("ascii"), status, cell.counts.copy(), cell.seconds, cell.bytes] for (method, status), cell in cells],
        "first_byte": [series.first_byte.counts.copy(), series.first_byte.seconds],
        "upstream": [series.upstream.counts.copy(), series.upstream.seconds],
    }
