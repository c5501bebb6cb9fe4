"""
Tests for `a3sgw.observe.sessions`.
"""

import json

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IObserver
from a3sgw.observe.accesslog import AccessLog
from a3sgw.observe.exposition import render
from a3sgw.observe.logsink import MemorySink
from a3sgw.observe.metrics import Metrics
from a3sgw.observe.record import Record
from a3sgw.observe.sessions import SessionCounts, SessionLog
from a3sgw.observe.test.records import Entrypoint, Route, make_gauges, make_record
from a3sgw.observe.test.test_exposition import CONTROL

DNS = Route("dns", "resolvers")


class Session(Record):
    """
    A record with datagrams.
    """

    __slots__ = ("datagrams_received", "datagrams_sent")


def make_session(received=1, sent=2, **slots):
    """
    Return the record of a session.
    """
    plain = make_record(**{"entrypoint": Entrypoint("dns"), "route": DNS, **slots})
    session = Session()
    for name in Record.__slots__:
        setattr(session, name, getattr(plain, name))
    session.datagrams_received, session.datagrams_sent = received, sent
    return session


class SessionCountsTests(SynchronousTestCase):
    """
    Tests for `SessionCounts`.
    """

    def setUp(self):
        self.revisions: list[tuple[str, str]] = []
        self.counts = SessionCounts(lambda *revision: self.revisions.append(revision))

    def test_interface(self):
        """
        It observes as others do.
        """
        self.assertTrue(verifyObject(IObserver, self.counts))

    def test_counts(self):
        """
        Sessions are told apart by way and end; their datagrams, bytes and seconds are added up.
        """
        self.counts.exchange_ended(make_session(1, 2, bytes_received=3, bytes_sent=4))
        self.counts.exchange_ended(make_session(10, 20, bytes_received=30, bytes_sent=40))
        self.counts.exchange_ended(make_session(outcome=Outcome.CONNECT_REFUSED))
        self.assertEqual(
            self.counts.rows(),
            [
                ["dns", "dns", "resolvers", "completed", 2, 11, 22, 33, 44, 0.5],
                ["dns", "dns", "resolvers", "connect-refused", 1, 1, 2, 0, 0, 0.25],
            ],
        )

    def test_retain(self):
        """
        After a reload, routes and entrypoints that are gone are forgotten.
        """
        self.counts.exchange_ended(make_session())
        self.counts.exchange_ended(make_session(entrypoint=Entrypoint("old")))
        self.counts.retain({("dns", "resolvers")}, {"dns"})
        self.assertEqual([row[0] for row in self.counts.rows()], ["dns"])
        self.counts.retain({("dns", "others")}, {"dns"})
        self.assertEqual(self.counts.rows(), [])

    def test_page(self):
        """
        The page of metrics tells how many there are, have been and have ended, what they carried, and what was dropped.
        """
        metrics = Metrics([1.0])
        metrics.sessions.exchange_ended(make_session(1, 2, bytes_received=3, bytes_sent=4))
        metrics.sessions.exchange_ended(make_session(10, 20, outcome=Outcome.CONNECT_REFUSED))
        gauges = make_gauges(udp_sessions={"dns": 5}, udp_begun={"dns": 7}, udp_dropped=[["dns", "no-route", 3]])
        snapshot = metrics.snapshot(gauges)
        page = render(snapshot, CONTROL).decode()
        way = 'entrypoint="dns",router="dns",service="resolvers"'
        for line in (
            'gateway_udp_sessions{entrypoint="dns"} 5',
            'gateway_udp_sessions_begun_total{entrypoint="dns"} 7',
            'gateway_udp_datagrams_dropped_total{entrypoint="dns",reason="no-route"} 3',
            f'gateway_udp_sessions_ended_total{{{way},outcome="connect-refused"}} 1',
            f"gateway_udp_received_datagrams_total{{{way}}} 11",
            f"gateway_udp_sent_datagrams_total{{{way}}} 22",
            f"gateway_udp_received_bytes_total{{{way}}} 3",
            f"gateway_udp_sent_bytes_total{{{way}}} 4",
            f"gateway_udp_session_seconds_total{{{way}}} 0.5",
        ):
            self.assertIn(f"{line}\n", page)


class SessionLogTests(SynchronousTestCase):
    """
    Tests for `SessionLog`.
    """

    def lines(self, format):
        sink = MemorySink(1 << 16)
        log = AccessLog(sink, format, False, lambda: 0.0, lambda: 0.0)
        observer = SessionLog(log.write)
        self.assertTrue(verifyObject(IObserver, observer))
        observer.exchange_ended(make_session(7, 8, bytes_received=9, bytes_sent=10))
        log.flush()
        return bytes(sink.data).splitlines()

    def test_json(self):
        """
        A JSON line tells the datagrams too.
        """
        (line,) = self.lines("json")
        told = json.loads(line)
        self.assertEqual(
            [told[key] for key in ("request_datagrams", "response_datagrams", "request_bytes", "response_bytes", "entrypoint")],
            [7, 8, 9, 10, "dns"],
        )

    def test_common(self):
        """
        Apache's formats have no place for them.
        """
        (line,) = self.lines("common")
        self.assertTrue(line.endswith(b" 10"), line)
