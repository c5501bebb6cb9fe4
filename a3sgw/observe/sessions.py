"""
Count and log what went over udp entrypoints.

A session costs one look-up and a few additions, once, at its end. What a reload took away disappears from the page with it.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from a3sgw.interfaces import IObserver

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["SessionCounts", "SessionLog"]


class _Count:
    """
    Sessions with the same way and the same end: how many, the datagrams and bytes they carried from and to clients, and the seconds they
    lasted.
    """

    __slots__ = ("bytes_received", "bytes_sent", "datagrams_received", "datagrams_sent", "seconds", "sessions")

    def __init__(self) -> None:
        self.sessions = 0
        self.datagrams_received = 0
        self.datagrams_sent = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.seconds = 0.0


@implementer(IObserver)
class SessionCounts:
    """
    The counts of one carrier, by entrypoint, router, service and outcome. `count_revision` is told the service and the revision of each
    session with a service that has revisions.
    """

    __slots__ = ("_count_revision", "_counts")

    def __init__(self, count_revision: Callable[[str, str], None]) -> None:
        self._counts: dict[tuple[str, str, str, str], _Count] = {}
        self._count_revision = count_revision

    def exchange_ended(self, record: Record) -> None:
        """
        Count one session.
        """
        session: Any = record
        route = record.route
        assert record.outcome is not None
        key = (record.entrypoint.name, route.name, route.service_name, record.outcome.word)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.sessions += 1
        count.datagrams_received += session.datagrams_received
        count.datagrams_sent += session.datagrams_sent
        count.bytes_received += record.bytes_received
        count.bytes_sent += record.bytes_sent
        count.seconds += record.ended - record.started
        if record.backend is not None:
            record.backend.series.requests += 1
            if record.revision is not None:
                self._count_revision(record.backend.service_name, record.revision)

    def retain(self, routes: Set[tuple[str, str]], entrypoints: Set[str]) -> None:
        """
        Forget every route `(router, service)` and entrypoint that is not named, after a reload.
        """
        self._counts = {key: count for key, count in self._counts.items() if key[0] in entrypoints and (key[1], key[2]) in routes}

    def rows(self) -> list[list[Any]]:
        """
        Return everything counted so far, in the shape that `observe.snapshot` describes.
        """
        return [
            [
                *key,
                count.sessions,
                count.datagrams_received,
                count.datagrams_sent,
                count.bytes_received,
                count.bytes_sent,
                count.seconds,
            ]
            for key, count in self._counts.items()
        ]


@implementer(IObserver)
class SessionLog:
    """
    Puts sessions into an access log. `write` takes a record and what a JSON line tells besides.
    """

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[Record, bytes], None]) -> None:
        self._write = write

    def exchange_ended(self, record: Record) -> None:
        """
        Write the line of one session.
        """
        session: Any = record
        more = b'"request_datagrams":%d,"response_datagrams":%d' % (session.datagrams_received, session.datagrams_sent)
        self._write(record, more)
