"""
Count what went over tcp entrypoints.

A connection costs one look-up and a few additions, once, at its end. What a reload took away disappears from the page with it; a connection
that ends after that is counted under its names all the same, until the next reload.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from a3sgw.interfaces import IObserver

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["ConnectionCounts"]


class _Count:
    """
    Connections with the same way and the same end: how many, the bytes they carried from and to clients, and the seconds they lasted.
    """

    __slots__ = ("connections", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.connections = 0
        self.received = 0
        self.sent = 0
        self.seconds = 0.0


@implementer(IObserver)
class ConnectionCounts:
    """
    The counts of one carrier, by entrypoint, router, service and outcome; router and service are empty where there was no route.
    `count_revision` is told the service and the revision of each connection to a service that has revisions.
    """

    __slots__ = ("_count_revision", "_counts")

    def __init__(self, count_revision: Callable[[str, str], None]) -> None:
        self._counts: dict[tuple[str, str, str, str], _Count] = {}
        self._count_revision = count_revision

    def exchange_ended(self, record: Record) -> None:
        """
        Count one connection.
        """
        route = record.route
        outcome = record.outcome
        assert outcome is not None
        names = ("", "") if route is None else (route.name, route.service_name)
        key = (record.entrypoint.name, *names, outcome.word)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.connections += 1
        count.received += record.bytes_received
        count.sent += record.bytes_sent
        count.seconds += record.ended - record.started
        if record.backend is not None:
            record.backend.series.requests += 1
            if record.revision is not None:
                self._count_revision(record.backend.service_name, record.revision)

    def retain(self, routes: Set[tuple[str, str]], entrypoints: Set[str]) -> None:
        """
        Forget every route `(router, service)` and entrypoint that is not named, after a reload.
        """
        self._counts = {
            key: count for key, count in self._counts.items() if key[0] in entrypoints and (not key[1] or (key[1], key[2]) in routes)
        }

    def rows(self) -> list[list[Any]]:
        """
        Return everything counted so far, in the shape that `observe.snapshot` describes.
        """
        return [[*key, count.connections, count.received, count.sent, count.seconds] for key, count in self._counts.items()]
