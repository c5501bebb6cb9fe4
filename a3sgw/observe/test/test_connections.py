"""
Tests for `a3sgw.observe.connections`.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IObserver
from a3sgw.observe.connections import ConnectionCounts
from a3sgw.observe.metrics import BackendSeries
from a3sgw.observe.test.records import Backend, Entrypoint, Route, make_record

DB = Route("db", "postgres")


class ConnectionCountsTests(SynchronousTestCase):
    """
    Tests for `ConnectionCounts`.
    """

    def setUp(self):
        self.revisions = []
        self.counts = ConnectionCounts(lambda *revision: self.revisions.append(revision))

    def end(self, **slots):
        self.counts.exchange_ended(make_record(**{"entrypoint": Entrypoint("pg"), "route": DB, **slots}))

    def test_interface(self):
        """
        It observes as others do.
        """
        self.assertTrue(verifyObject(IObserver, self.counts))

    def test_counts(self):
        """
        Connections are told apart by way and end; their bytes and seconds are added up.
        """
        self.end(bytes_received=1, bytes_sent=2)
        self.end(bytes_received=10, bytes_sent=20)
        self.end(outcome=Outcome.BACKEND_CLOSED)
        self.end(route=None, outcome=Outcome.NO_ROUTE)
        self.assertEqual(
            self.counts.rows(),
            [
                ["pg", "db", "postgres", "completed", 2, 11, 22, 0.5],
                ["pg", "db", "postgres", "backend-closed", 1, 0, 0, 0.25],
                ["pg", "", "", "no-route", 1, 0, 0, 0.25],
            ],
        )

    def test_backend(self):
        """
        A connection counts for its server, and for the revision of its service if there is one.
        """
        backend = Backend("tcp://a:1", BackendSeries())
        self.end(backend=backend)
        self.end(backend=backend, revision="v2")
        self.assertEqual((backend.series.requests, self.revisions), (2, [("carts", "v2")]))

    def test_retain(self):
        """
        After a reload, routes and entrypoints that are gone are forgotten; what found no route is not.
        """
        self.end()
        self.end(route=None, outcome=Outcome.NO_ROUTE)
        self.end(entrypoint=Entrypoint("old"))
        self.counts.retain({("db", "postgres")}, {"pg"})
        self.assertEqual([row[:3] for row in self.counts.rows()], [["pg", "db", "postgres"], ["pg", "", ""]])
        self.counts.retain({("db", "mysql")}, {"pg"})
        self.assertEqual([row[:3] for row in self.counts.rows()], [["pg", "", ""]])
