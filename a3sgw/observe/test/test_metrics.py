"""
Tests for `a3sgw.observe.metrics`.
"""

import gc
import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IObserver
from a3sgw.middleware.chain import Chain, Link
from a3sgw.observe.metrics import Metrics
from a3sgw.observe.test.records import Backend, Entrypoint, Route, make_gauges, make_head, make_record

GAUGES = make_gauges()


def rows_of(metrics):
    """
    Return the series of a snapshot, by router, service, entrypoint and whether they are live.
    """
    return {
        (row["router"], row["service"], row["entrypoint"], row["is_live"]): row for row in metrics.snapshot(GAUGES)["series"]
    }


def requests_where(metrics, **names):
    """
    Count the requests in the series that have these names.
    """
    return sum(
        sum(cell[2])
        for row in metrics.snapshot(GAUGES)["series"]
        for cell in row["cells"]
        if all(row[label] == name for label, name in names.items())
    )


class MetricsTests(SynchronousTestCase):
    """
    Tests for counting.
    """

    def setUp(self):
        self.metrics = Metrics((0.1, 0.25, 1.0))
        self.route = Route("shop", "carts", self.metrics.route_series("shop", "carts"))
        self.entrypoint = Entrypoint("public", self.metrics.entrypoint_series("public"))

    def count(self, **slots):
        self.metrics.exchange_ended(make_record(**{"route": self.route, "entrypoint": self.entrypoint, **slots}))

    def test_interface(self):
        """
        Metrics observe exchanges.
        """
        verifyObject(IObserver, self.metrics)

    def test_one_exchange(self):
        """
        An exchange is sorted by method, status and durations; a duration equal to a bound belongs below it.
        """
        self.count(bytes_sent=7)
        row = rows_of(self.metrics)["shop", "carts", None, True]
        self.assertEqual(row["cells"], [["GET", 200, [0, 1, 0, 0], 0.25, 7]])
        self.assertEqual(row["first_byte"], [[0, 1, 0, 0], 0.21875])
        self.assertEqual(row["upstream"], [[0, 1, 0, 0], 0.203125])

    def test_slow_exchange(self):
        """
        What took longer than the last bound is counted above it.
        """
        self.count(ended=1100.0)
        self.assertEqual(rows_of(self.metrics)["shop", "carts", None, True]["cells"], [["GET", 200, [0, 0, 0, 1], 100.0, 0]])

    def test_answer_of_our_own(self):
        """
        An exchange without a backend has no upstream time, one without any answer no first byte.
        """
        self.count(leased=0.0)
        self.count(leased=0.0, first_byte=0.0, status=0)
        row = rows_of(self.metrics)["shop", "carts", None, True]
        self.assertEqual(sum(row["first_byte"][0]), 1)
        self.assertEqual(row["upstream"], [[0, 0, 0, 0], 0.0])

    def test_no_route(self):
        """
        An exchange without a route counts for its entrypoint, also when not even its head could be read.
        """
        self.count(route=None, status=404)
        self.count(route=None, status=400, head=None)
        row = rows_of(self.metrics)["", "", "public", True]
        self.assertEqual([cell[:2] for cell in row["cells"]], [["GET", 404], ["other", 400]])

    def test_methods_are_bounded(self):
        """
        A client that makes up methods cannot make the series grow.
        """
        for number in range(50):
            self.count(head=make_head(b"M%d" % number))
        cells = rows_of(self.metrics)["shop", "carts", None, True]["cells"]
        self.assertEqual([(cell[0], sum(cell[2])) for cell in cells], [("other", 50)])

    def test_backends(self):
        """
        The backend that an exchange ended with is counted.
        """
        backend = Backend("http://a", self.metrics.backend_series("carts", "http://a"))
        self.metrics.backend_series("carts", "http://b")
        self.count(backend=backend)
        self.count(backend=None)
        self.assertEqual(self.metrics.snapshot(GAUGES)["backends"], [["carts", "http://a", 1, 0], ["carts", "http://b", 0, 0]])

    def test_ejections(self):
        """
        How often a backend was set aside is counted with it.
        """
        self.metrics.backend_series("carts", "http://a").ejections += 2
        self.assertEqual(self.metrics.snapshot(GAUGES)["backends"], [["carts", "http://a", 0, 2]])

    def test_revisions(self):
        """
        An exchange is counted for the revision it ended with, under the service whose backend that is; others count for none.
        """
        backend = Backend("http://a", self.metrics.backend_series("spare", "http://a"), "spare")
        for revision in ("v1", "v2", "v1", None):
            self.count(backend=backend, revision=revision)
        self.count(backend=None, revision="v1")
        self.assertEqual(self.metrics.snapshot(GAUGES)["revisions"], [["spare", "v1", 2], ["spare", "v2", 1]])
        self.metrics.retain(set(), set(), set(), set(), {("spare", "v2"), ("other", "v1")})
        self.assertEqual(self.metrics.snapshot(GAUGES)["revisions"], [["spare", "v2", 1]])

    def test_middlewares(self):
        """
        A middleware is counted for each exchange that came to it, one that it let pass or answered; what it answered by the status sent.
        """
        route = self.chained("outer", "inner")
        self.count(route=route, passed=2)
        self.count(route=route, passed=1, answered_by="inner", status=429)
        self.count(route=route, passed=1, answered_by="inner", status=429)
        self.count(route=route, passed=0, answered_by="outer", status=403)
        self.count(route=None)
        self.metrics.middleware_series("idle")
        self.assertEqual(
            self.metrics.snapshot(GAUGES)["middlewares"],
            [["outer", 4, [[403, 1]], 0, 0.0], ["inner", 3, [[429, 2]], 0, 0.0], ["idle", 0, [], 0, 0.0]],
        )

    def test_middleware_waits(self):
        """
        How many exchanges a middleware made wait, and for how long, is counted with it.
        """
        series = self.metrics.middleware_series("slow")
        series.waits += 2
        series.wait_seconds += 0.75
        self.assertEqual(self.metrics.snapshot(GAUGES)["middlewares"], [["slow", 0, [], 2, 0.75]])

    def test_removed_middleware(self):
        """
        A middleware that a reload took away is forgotten, also when an exchange that it answered ends later; others keep their counts.
        """
        route = self.chained("gone", "kept")
        self.count(route=route, passed=2)
        self.metrics.retain(set(), set(), set(), {"kept"})
        self.count(route=route, passed=0, answered_by="gone", status=403)
        self.count(route=route, passed=1, answered_by="kept", status=429)
        self.assertEqual(self.metrics.snapshot(GAUGES)["middlewares"], [["kept", 2, [[429, 1]], 0, 0.0]])

    def chained(self, *names):
        """
        Return a route with middlewares of these names.
        """
        links = [Link(name, "probe", object(), self.metrics.middleware_series(name)) for name in names]
        return Route("shop", "carts", self.metrics.route_series("shop", "carts"), Chain(links))

    def test_outcomes(self):
        """
        Every outcome has a count from the start, and grows with its exchanges.
        """
        self.count(outcome=Outcome.NO_BACKEND)
        expected = {outcome.word: 0 for outcome in Outcome} | {"no-backend": 1}
        self.assertEqual(self.metrics.snapshot(GAUGES)["outcomes"], expected)

    def test_same_names_same_series(self):
        """
        A reload that asks for the same names gets the same series.
        """
        self.assertIs(self.metrics.route_series("shop", "carts"), self.route.series)
        self.assertIs(self.metrics.entrypoint_series("public"), self.entrypoint.series)
        self.assertIs(self.metrics.backend_series("s", "u"), self.metrics.backend_series("s", "u"))
        self.assertIsNot(self.metrics.route_series("shop", "other"), self.route.series)

    def test_snapshot_is_a_copy(self):
        """
        A snapshot can cross a process border, and does not change when counting goes on.
        """
        self.count()
        snapshot = self.metrics.snapshot(GAUGES)
        text = json.dumps(snapshot)
        self.count()
        self.assertEqual(json.loads(text), snapshot)
        self.assertEqual(json.dumps(snapshot), text)
        self.assertNotEqual(self.metrics.snapshot(GAUGES), snapshot)

    def test_wrong_buckets(self):
        """
        Buckets that could not be sorted into are refused with a sentence.
        """
        for buckets in ((), (0.0, 1.0), (-1.0,), (1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan,)):
            error = self.assertRaises(ValueError, Metrics, buckets)
            self.assertIn("expected ascending bounds", str(error))


class RebucketTests(SynchronousTestCase):
    """
    Tests for a reload that changes the buckets.
    """

    def test_counts_stay(self):
        """
        What was counted stays counted, above the last bound; what comes is sorted by the new ones.
        """
        metrics = Metrics((0.1, 1.0))
        route = Route("shop", "carts", metrics.route_series("shop", "carts"))
        metrics.exchange_ended(make_record(route=route))
        metrics.rebucket([0.3])
        metrics.exchange_ended(make_record(route=route))
        metrics.exchange_ended(make_record(route=route, status=500))
        snapshot = metrics.snapshot(GAUGES)
        self.assertEqual(snapshot["buckets"], [0.3])
        [row] = snapshot["series"]
        self.assertEqual(row["cells"], [["GET", 200, [1, 1], 0.5, 0], ["GET", 500, [1, 0], 0.25, 0]])
        self.assertEqual(row["first_byte"], [[2, 1], 3 * 0.21875])

    def test_same_buckets(self):
        """
        A reload that leaves the buckets as they are moves nothing.
        """
        metrics = Metrics((0.3,))
        route = Route("shop", "carts", metrics.route_series("shop", "carts"))
        metrics.exchange_ended(make_record(route=route))
        metrics.rebucket([0.3])
        self.assertEqual(metrics.snapshot(GAUGES)["series"][0]["cells"], [["GET", 200, [1, 0], 0.25, 0]])

    def test_removed_route(self):
        """
        An exchange that still runs on a removed route is sorted by the new buckets too.
        """
        metrics = Metrics((0.1, 1.0))
        route = Route("shop", "carts", metrics.route_series("shop", "carts"))
        metrics.exchange_ended(make_record(route=route))
        metrics.retain(set(), set(), set())
        metrics.rebucket([0.3, 0.4, 0.5])
        metrics.exchange_ended(make_record(route=route))
        metrics.exchange_ended(make_record(route=route, status=500))
        [row] = metrics.snapshot(GAUGES)["series"]
        self.assertEqual([cell[2] for cell in row["cells"]], [[1, 0, 0, 1], [1, 0, 0, 0]])


class RetainTests(SynchronousTestCase):
    """
    Tests for a reload that takes routes away.
    """

    def setUp(self):
        self.metrics = Metrics((1.0,))

    def add_route(self, router, service):
        return Route(router, service, self.metrics.route_series(router, service))

    def count(self, route):
        self.metrics.exchange_ended(make_record(route=route))

    def test_kept(self):
        """
        What a reload did not touch keeps its series and counts.
        """
        route = self.add_route("shop", "carts")
        door = self.metrics.entrypoint_series("public")
        backend = self.metrics.backend_series("carts", "http://a")
        self.count(route)
        self.metrics.retain({("shop", "carts")}, {("carts", "http://a")}, {"public"})
        self.assertIs(self.metrics.route_series("shop", "carts"), route.series)
        self.assertIs(self.metrics.entrypoint_series("public"), door)
        self.assertIs(self.metrics.backend_series("carts", "http://a"), backend)
        self.assertEqual(requests_where(self.metrics, router="shop"), 1)

    def test_removed(self):
        """
        A removed router, service, backend and entrypoint are gone from the snapshot, their requests are not.
        """
        self.count(self.add_route("shop", "carts"))
        self.metrics.exchange_ended(make_record(entrypoint=Entrypoint("public", self.metrics.entrypoint_series("public"))))
        self.metrics.backend_series("carts", "http://a")
        self.metrics.retain(set(), set(), set())
        text = json.dumps(self.metrics.snapshot(GAUGES))
        for name in ("shop", "carts", "public", "http://a"):
            self.assertNotIn(name, text)
        self.assertEqual(requests_where(self.metrics), 2)
        # What had no route stays apart, because it is a series of its own on the page.
        self.assertEqual(requests_where(self.metrics, router=""), 1)

    def test_router_moves(self):
        """
        A router that now names another service keeps its own count, and the old service's count goes with the service.
        """
        self.count(self.add_route("shop", "old"))
        self.add_route("shop", "new")
        self.metrics.retain({("shop", "new")}, set(), set())
        self.assertEqual(requests_where(self.metrics, router="shop"), 1)
        self.assertEqual(requests_where(self.metrics, service="old"), 0)
        self.assertNotIn(("shop", "old", None, True), rows_of(self.metrics))

    def test_shared_service(self):
        """
        A service keeps its count when one of its routers goes, and loses it when all are gone.
        """
        self.count(self.add_route("shop", "carts"))
        self.add_route("admin", "carts")
        self.metrics.retain({("admin", "carts")}, set(), set())
        self.assertEqual(requests_where(self.metrics, service="carts"), 1)
        self.assertEqual(requests_where(self.metrics, router="shop"), 0)
        self.metrics.retain(set(), set(), set())
        self.assertEqual(requests_where(self.metrics, service="carts"), 0)
        self.assertEqual(requests_where(self.metrics), 1)

    def test_shared_backend(self):
        """
        A backend's count stays as long as any service uses its URL.
        """
        self.metrics.backend_series("carts", "http://a").requests += 1
        self.metrics.backend_series("users", "http://a").requests += 1
        self.metrics.retain(set(), {("users", "http://a")}, set())
        self.assertEqual(sum(row[2] for row in self.metrics.snapshot(GAUGES)["backends"]), 2)

    def test_exchange_outlives_its_route(self):
        """
        An exchange that was running while its route was removed, even by several reloads, is counted once when it ends.
        """
        route = self.add_route("shop", "carts")
        self.add_route("shop", "other")
        self.add_route("admin", "carts")
        self.metrics.retain({("shop", "other"), ("admin", "carts")}, set(), set())
        self.count(route)
        self.assertEqual((requests_where(self.metrics), requests_where(self.metrics, router="shop")), (1, 1))
        self.metrics.retain({("admin", "carts")}, set(), set())
        self.count(route)
        self.assertEqual((requests_where(self.metrics), requests_where(self.metrics, service="carts")), (2, 2))
        self.metrics.retain(set(), set(), set())
        self.count(route)
        self.assertEqual((requests_where(self.metrics), requests_where(self.metrics, service="carts")), (3, 0))

    def test_name_returns(self):
        """
        A router that was removed and comes back begins at zero.
        """
        self.count(self.add_route("shop", "carts"))
        self.metrics.retain(set(), set(), set())
        self.count(self.add_route("shop", "carts"))
        self.assertEqual((requests_where(self.metrics), requests_where(self.metrics, router="shop")), (2, 1))

    def test_many_reloads(self):
        """
        Routers that come and go leave nothing behind but their count.
        """
        for number in range(100):
            self.count(self.add_route(f"r{number}", f"s{number}"))
            self.metrics.retain(set(), set(), set())
        gc.collect()
        self.assertEqual(len(self.metrics.snapshot(GAUGES)["series"]), 1)
        self.assertEqual(len(self.metrics._retired), 0)
        self.assertEqual(requests_where(self.metrics), 100)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")),
                st.frozensets(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=5),
            ),
            max_size=30,
        )
    )
    def test_no_total_falls(self, steps):
        """
        Whatever reloads come between requests, no total of anything still configured ever falls, and no request is lost.
        """
        self.metrics = Metrics((1.0,))
        # Every route ever made keeps being used, as exchanges on old generations do.
        routes = {}
        requests = 0
        before: dict[str, int] = {}
        for step in steps:
            if isinstance(step, tuple):
                if step not in routes:
                    routes[step] = self.add_route(*step)
                self.count(routes[step])
                requests += 1
            else:
                for names in step:
                    routes[names] = self.add_route(*names)
                self.metrics.retain(set(step), set(), set())
                in_use = {name for names in step for name in names}
                before = {name: count for name, count in before.items() if name in in_use}
            now = {name: requests_where(self.metrics, router=name) for name in "abc"}
            now |= {name: requests_where(self.metrics, service=name) for name in "xyz"}
            for name, count in before.items():
                self.assertGreaterEqual(now[name], count)
            before = now
            self.assertEqual(requests_where(self.metrics), requests)
