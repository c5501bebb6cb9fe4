"""
Tests for `a3sgw.observe.exposition`.
"""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome
from a3sgw.observe.exposition import ControlGauges, render
from a3sgw.observe.metrics import Metrics
from a3sgw.observe.snapshot import merge_snapshots
from a3sgw.observe.test.records import (
    Backend,
    Entrypoint,
    Route,
    make_backend,
    make_gauges,
    make_head,
    make_middleware,
    make_record,
    make_service,
)

PROVIDERS = {"inventory": (4, True), "old": (0, False)}
CONTROL: ControlGauges = {
    "version": "1.2.3",
    "reloads": {"success": 2},
    "last_reload": 1893456000.5,
    "broken_files": ["b.hcl"], "providers": PROVIDERS, "left_out": 3,
    "workers": None,
}

GAUGES = make_gauges(
    active_connections=3,
    backends=[
        make_backend(url="http://b", up=False, healthy=False, in_service=True),
        make_backend(active=2, idle=4, leased=1),
    ],
    services=[
        make_service(waiting=7, in_use=2, failovers=4, retries=5, copies={"sent": 8, "skipped": 0}, hedges={"won": 3}),
        make_service(service="users"),
    ],
    open={"public": 3},
    accepted={"public": 9},
    refused=[["public", "limit", 2], ["public", "address", 1]],
    http2_faults=[["public", "stream", "PROTOCOL_ERROR", 4]],
    certificates=[["public", "a.test", 2000.5], ["public", "a.test", 1000.5]],
    access_log_dropped=6,
)


def samples_of(page):
    """
    Read a page with Prometheus' own parser: sample name and labels → value. Fails on a repeated sample.
    """
    samples = {}
    for family in text_string_to_metric_families(page.decode("utf-8")):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} stands twice on the page"
            samples[key] = sample.value
    return samples


class RenderTests(SynchronousTestCase):
    """
    Tests for `render`.
    """

    def setUp(self):
        self.metrics = Metrics((0.1, 1.0))
        self.routes = {
            (router, service): Route(router, service, self.metrics.route_series(router, service))
            for router, service in (("shop", "carts"), ("admin", "carts"))
        }
        self.entrypoint = Entrypoint("public", self.metrics.entrypoint_series("public"))
        self.backend = Backend("http://a", self.metrics.backend_series("carts", "http://a"))

    def count(self, *names, **slots):
        route = self.routes[names] if names else None
        self.metrics.exchange_ended(make_record(**{"route": route, "entrypoint": self.entrypoint, **slots}))

    def page(self, gauges=GAUGES, control=CONTROL):
        return render(merge_snapshots([self.metrics.snapshot(gauges)]), control)

    def assert_samples(self, expected):
        samples = samples_of(self.page())
        for name, labels, value in expected:
            self.assertEqual(samples.get((name, tuple(sorted(labels.items())))), value, f"{name} {labels}")

    def test_totals(self):
        """
        Every request is counted exactly once with its final status, whoever answered it.
        """
        self.count("shop", "carts", status=200, bytes_sent=100)
        self.count("shop", "carts", status=429, outcome=Outcome.COMPLETED, bytes_sent=5)
        self.count("admin", "carts", status=502, outcome=Outcome.CONNECT_REFUSED)
        self.count("admin", "carts", status=101)
        self.count(status=404, outcome=Outcome.NO_ROUTE)
        self.count(status=0, head=None, outcome=Outcome.CLIENT_CLOSED)
        self.assert_samples(
            [
                ("gateway_requests_total", {}, 6),
                ("gateway_responses_total", {"status_class": "2xx"}, 1),
                ("gateway_responses_total", {"status_class": "3xx"}, 0),
                ("gateway_responses_total", {"status_class": "4xx"}, 2),
                ("gateway_responses_total", {"status_class": "5xx"}, 1),
                ("gateway_response_bytes_total", {}, 105),
                ("gateway_router_requests_total", {"router": "shop"}, 2),
                ("gateway_router_requests_total", {"router": "admin"}, 2),
                ("gateway_service_requests_total", {"service": "carts"}, 4),
                ("gateway_router_errors_total", {"router": "shop"}, 1),
                ("gateway_router_errors_total", {"router": "admin"}, 1),
                ("gateway_service_errors_total", {"service": "carts"}, 2),
                ("gateway_unrouted_requests_total", {"entrypoint": "public"}, 2),
                ("gateway_exchanges_total", {"outcome": "completed"}, 3),
                ("gateway_exchanges_total", {"outcome": "connect-refused"}, 1),
                ("gateway_exchanges_total", {"outcome": "no-route"}, 1),
                ("gateway_exchanges_total", {"outcome": "client-closed"}, 1),
                ("gateway_exchanges_total", {"outcome": "dns-error"}, 0),
            ]
        )

    def test_histograms(self):
        """
        Durations are cumulative histograms in seconds.
        """
        self.count("shop", "carts")
        self.count("shop", "carts", ended=1000.0625, first_byte=1000.03125)
        labels = {"router": "shop", "service": "carts", "method": "GET", "status": "200"}
        name = "gateway_request_duration_seconds"
        self.assert_samples(
            [
                (f"{name}_bucket", {**labels, "le": "0.1"}, 1),
                (f"{name}_bucket", {**labels, "le": "1.0"}, 2),
                (f"{name}_bucket", {**labels, "le": "+Inf"}, 2),
                (f"{name}_count", labels, 2),
                (f"{name}_sum", labels, 0.3125),
                ("gateway_time_to_first_byte_seconds_count", {"router": "shop"}, 2),
                ("gateway_time_to_first_byte_seconds_sum", {"router": "shop"}, 0.25),
                ("gateway_upstream_duration_seconds_bucket", {"service": "carts", "le": "0.1"}, 1),
                ("gateway_upstream_duration_seconds_sum", {"service": "carts"}, 0.21875),
                ("gateway_router_latency_microseconds_total", {"router": "shop"}, 250000),
            ]
        )

    def test_no_route(self):
        """
        Requests without a route have a histogram of their own, for all entrypoints together.
        """
        self.count(status=404)
        self.count(status=404, entrypoint=Entrypoint("private", self.metrics.entrypoint_series("private")))
        labels = {"router": "", "service": "", "method": "GET", "status": "404"}
        self.assert_samples([("gateway_request_duration_seconds_count", labels, 2)])

    def test_backends(self):
        """
        Each backend has its requests, state and connections.
        """
        self.count("shop", "carts", backend=self.backend)
        a = {"service": "carts", "backend": "http://a"}
        b = {"service": "carts", "backend": "http://b"}
        self.assert_samples(
            [
                ("gateway_backend_requests_total", {"backend": "http://a"}, 1),
                ("gateway_backend_up", a, 1),
                ("gateway_backend_up", b, 0),
                ("gateway_backend_active", a, 2),
                ("gateway_backend_connections", {**a, "state": "idle"}, 4),
                ("gateway_backend_connections", {**a, "state": "leased"}, 1),
            ]
        )

    def test_health(self):
        """
        Each verdict on a backend is told, if somebody judges, and how often it was set aside.
        """
        self.metrics.backend_series("carts", "http://b").ejections += 3
        a = {"service": "carts", "backend": "http://a"}
        b = {"service": "carts", "backend": "http://b"}
        self.assert_samples(
            [
                ("gateway_backend_health", {**b, "verdict": "active"}, 0),
                ("gateway_backend_health", {**b, "verdict": "passive"}, 1),
                ("gateway_backend_health", {**a, "verdict": "active"}, None),
                ("gateway_backend_health", {**a, "verdict": "passive"}, None),
                ("gateway_backend_ejections_total", b, 3),
                ("gateway_backend_ejections_total", a, None),
            ]
        )

    def test_same_url(self):
        """
        Backends of the same URL are one on the page: up if one of them is, not well if one of them is not, as busy as all together.
        """
        rows = [
            make_backend(revision="v1", healthy=True, active=1, idle=2),
            make_backend(revision="v2", healthy=False, up=False, active=10, idle=20),
            make_backend(revision="v2", turn=2, active=100),
        ]
        samples = samples_of(self.page(make_gauges(backends=rows)))
        labels = (("backend", "http://a"), ("service", "carts"))
        self.assertEqual(samples["gateway_backend_up", labels], 1)
        self.assertEqual(samples["gateway_backend_active", labels], 111)
        self.assertEqual(samples["gateway_backend_connections", (*labels, ("state", "idle"))], 22)
        self.assertEqual(samples["gateway_backend_health", (*labels, ("verdict", "active"))], 0)

    def test_services(self):
        """
        Services have retries, failovers and, where requests can wait, a queue; revisions have requests.
        """
        self.count("shop", "carts", backend=self.backend, revision="v1")
        self.assert_samples(
            [
                ("gateway_retries_total", {"service": "carts"}, 5),
                ("gateway_retries_total", {"service": "users"}, 0),
                ("gateway_failovers_total", {"service": "carts"}, 4),
                ("gateway_mirror_requests_total", {"service": "carts", "result": "sent"}, 8),
                ("gateway_mirror_requests_total", {"service": "carts", "result": "skipped"}, 0),
                ("gateway_mirror_requests_total", {"service": "users", "result": "sent"}, None),
                ("gateway_hedges_total", {"service": "carts", "result": "won"}, 3),
                ("gateway_buffer_queue_depth", {"service": "carts"}, 7),
                ("gateway_buffer_queue_depth", {"service": "users"}, None),
                ("gateway_revision_requests_total", {"service": "carts", "revision": "v1"}, 1),
            ]
        )
        kinds = {family.name: family.type for family in text_string_to_metric_families(self.page().decode())}
        self.assertEqual((kinds["gateway_failovers"], kinds["gateway_buffer_queue_depth"]), ("counter", "gauge"))

    def test_middlewares(self):
        """
        Each middleware has the requests that came to it, those that it answered by their status, and those that it made wait.
        """
        series = self.metrics.middleware_series("limit")
        series.invocations, series.answers, series.waits, series.wait_seconds = 9, {429: 2, 503: 1}, 4, 0.5
        self.metrics.middleware_series("idle")
        limit, idle = {"middleware": "limit"}, {"middleware": "idle"}
        self.assert_samples(
            [
                ("gateway_middleware_invocations_total", limit, 9),
                ("gateway_middleware_invocations_total", idle, 0),
                ("gateway_middleware_answers_total", {**limit, "status": "429"}, 2),
                ("gateway_middleware_answers_total", {**limit, "status": "503"}, 1),
                ("gateway_middleware_answers_total", {**idle, "status": "429"}, None),
                ("gateway_middleware_wait_seconds_count", limit, 4),
                ("gateway_middleware_wait_seconds_sum", limit, 0.5),
                ("gateway_middleware_wait_seconds_count", idle, None),
            ]
        )
        kinds = {family.name: family.type for family in text_string_to_metric_families(self.page().decode())}
        self.assertEqual(kinds["gateway_middleware_invocations"], "counter")
        self.assertEqual(kinds["gateway_middleware_answers"], "counter")
        self.assertEqual(kinds["gateway_middleware_wait_seconds"], "summary")

    def test_middleware_states(self):
        """
        How a middleware stands is told for each router or entrypoint that has one of its own; a circuit as a number, the worse the higher.
        """
        rows = [
            make_middleware(name="trip", router="shop", state={"circuit": "closed", "opened": 3}),
            make_middleware(name="trip", router="admin", state={"circuit": "half-open"}),
            make_middleware(name="trip", router="", service="shop", state={"circuit": "open"}),
            make_middleware(name="again", router="shop", state={"retries": 4, "refused_by_budget": 3}),
            make_middleware(name="trip", router="", entrypoint="public", state={"circuit": "open"}),
            make_middleware(name="limit", router="shop", state={"clients": 12, "rate": 1.0}),
            make_middleware(name="places", router="shop", state={"in_flight": 2, "queued": 1}),
        ]
        page = self.page(make_gauges(middlewares=rows))
        samples = samples_of(page)

        def where(name, router="", entrypoint="", service=""):
            return (("entrypoint", entrypoint), ("middleware", name), ("router", router), ("service", service))

        self.assertEqual(
            {
                key: value
                for key, value in samples.items()
                if any(word in key[0] for word in ("circuit", "budget", "limit", "in_flight"))
            },
            {
                ("gateway_circuit_state", where("trip", "shop")): 0,
                ("gateway_circuit_state", where("trip", "admin")): 1,
                ("gateway_circuit_state", where("trip", service="shop")): 2,
                ("gateway_retries_over_budget_total", where("again", "shop")): 3,
                ("gateway_circuit_state", where("trip", entrypoint="public")): 2,
                ("gateway_rate_limit_clients", where("limit", "shop")): 12,
                ("gateway_in_flight", where("places", "shop")): 2,
                ("gateway_in_flight_queued", where("places", "shop")): 1,
            },
        )
        self.assertIn(b'gateway_circuit_state{router="shop",entrypoint="",service="",middleware="trip"} 0\n', page)

    def test_odd_states(self):
        """
        What a plugin tells under a name that has a metric is left out unless it is a number; the page can be read whatever it is.
        """
        rows = [
            make_middleware(name="words", state={"circuit": "molten", "clients": "many"}),
            make_middleware(name="flag", state={"clients": True, "in_flight": 0.5}),
        ]
        samples = samples_of(self.page(make_gauges(middlewares=rows)))
        found = {(name, dict(labels)["middleware"]): value for (name, labels), value in samples.items() if "middleware" in dict(labels)}
        self.assertEqual(found, {("gateway_rate_limit_clients", "flag"): 1, ("gateway_in_flight", "flag"): 0.5})

    def test_gateway(self):
        """
        The page tells about connections, reloads, the log, the version and the process.
        """
        self.assert_samples(
            [
                ("gateway_active_connections", {}, 3),
                ("gateway_connections_accepted_total", {"entrypoint": "public"}, 9),
                ("gateway_connections_refused_total", {"entrypoint": "public", "reason": "limit"}, 2),
                ("gateway_http2_errors_total", {"entrypoint": "public", "scope": "stream", "error": "PROTOCOL_ERROR"}, 4),
                ("gateway_certificate_expiry_timestamp_seconds", {"entrypoint": "public", "names": "a.test"}, 1000.5),
                ("gateway_access_log_dropped_lines_total", {}, 6),
                ("gateway_config_reloads_total", {"result": "success"}, 2),
                ("gateway_config_reloads_total", {"result": "failure"}, 0),
                ("gateway_config_last_reload_timestamp_seconds", {}, 1893456000.5),
                ("gateway_config_file_broken", {"file": "b.hcl"}, 1),
                ("gateway_provider_objects", {"provider": "inventory"}, 4),
                ("gateway_provider_up", {"provider": "inventory"}, 1),
                ("gateway_provider_up", {"provider": "old"}, 0),
                ("gateway_provider_left_out_objects", {}, 3),
                ("gateway_build_info", {"version": "1.2.3"}, 1),
            ]
        )
        self.assertIn("python_info", {name for name, _ in samples_of(self.page())})

    def test_kinds(self):
        """
        Counters are counters and levels are gauges, so that Prometheus can tell a fall from a restart.
        """
        self.count("shop", "carts")
        kinds = {family.name: family.type for family in text_string_to_metric_families(self.page().decode())}
        self.assertEqual(kinds["gateway_requests"], "counter")
        self.assertEqual(kinds["gateway_router_latency_microseconds"], "counter")
        self.assertEqual(kinds["gateway_backend_up"], "gauge")
        self.assertEqual(kinds["gateway_active_connections"], "gauge")
        self.assertEqual(kinds["gateway_request_duration_seconds"], "histogram")

    def test_empty_families(self):
        """
        Without routers, services and backends their families are left out, and a page is still a page.
        """
        control: ControlGauges = {
            "version": "1",
            "reloads": {},
            "last_reload": None,
            "broken_files": [],
            "providers": {},
            "left_out": 0,
            "workers": None,
        }
        page = render(Metrics((1.0,)).snapshot(make_gauges()), control)
        names = {name for name, _ in samples_of(page)}
        self.assertIn("gateway_requests_total", names)
        for part in ("router", "service", "backend", "middleware", "circuit", "last_reload", "worker"):
            self.assertFalse([name for name in names if part in name], part)

    def test_workers(self):
        """
        Where several processes carry, there is how many do and how often one was replaced.
        """
        samples = samples_of(self.page(control={**CONTROL, "workers": {"wanted": 4, "serving": 3, "replaced": 7}}))
        self.assertEqual(samples["gateway_workers", (("state", "serving"),)], 3)
        self.assertEqual(samples["gateway_workers", (("state", "starting"),)], 1)
        self.assertEqual(samples["gateway_worker_replacements_total", ()], 7)

    def test_sorted(self):
        """
        Series come in the same order on every page.
        """
        for names in (("shop", "carts"), ("admin", "carts")):
            self.count(*names, head=make_head(b"PUT"))
            self.count(*names)
        lines = [line for line in self.page().decode().splitlines() if line.startswith("gateway_request_duration_seconds_count")]
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines, sorted(lines))
        self.assertLess(self.page().index(b'backend="http://a"'), self.page().index(b'backend="http://b"'))

    def test_removed_router(self):
        """
        A removed router leaves the page after a reload; totals and its service's counts stay.
        """
        self.count("shop", "carts")
        self.count("admin", "carts")
        self.metrics.retain({("admin", "carts")}, {("carts", "http://a")}, {"public"})
        self.assertNotIn(b'"shop"', self.page())
        self.assert_samples(
            [
                ("gateway_requests_total", {}, 2),
                ("gateway_responses_total", {"status_class": "2xx"}, 2),
                ("gateway_service_requests_total", {"service": "carts"}, 2),
                ("gateway_upstream_duration_seconds_count", {"service": "carts"}, 2),
                ("gateway_router_requests_total", {"router": "admin"}, 1),
            ]
        )

    def test_removed_entrypoint(self):
        """
        A removed entrypoint takes its own count along, but not that of all requests without a route.
        """
        self.count(status=404)
        self.metrics.retain(set(self.routes), set(), set())
        self.assertNotIn(b'entrypoint="public"} 1', self.page())
        labels = {"router": "", "service": "", "method": "GET", "status": "404"}
        self.assert_samples([("gateway_requests_total", {}, 1), ("gateway_request_duration_seconds_count", labels, 1)])

    def test_router_moves(self):
        """
        A router that now names another service leaves its old pair's histogram behind, and keeps its own.
        """
        self.count("shop", "carts")
        self.metrics.route_series("shop", "users")
        self.metrics.retain({("shop", "users"), ("admin", "carts")}, set(), {"public"})
        pairs = {name for name, _ in samples_of(self.page()) if name.startswith("gateway_request_duration")}
        self.assertEqual(pairs, set())
        self.assert_samples([("gateway_time_to_first_byte_seconds_count", {"router": "shop"}, 1)])

    def test_connections(self):
        """
        Connections over tcp entrypoints are counted by way and end, their bytes and seconds by way.
        """
        counts = self.metrics.connections
        slots = {"entrypoint": self.entrypoint, "route": self.routes["shop", "carts"], "bytes_received": 3, "bytes_sent": 5}
        counts.exchange_ended(make_record(**slots, backend=self.backend))
        counts.exchange_ended(make_record(**slots, outcome=Outcome.BACKEND_CLOSED))
        counts.exchange_ended(make_record(entrypoint=self.entrypoint, outcome=Outcome.NO_ROUTE))
        way = {"entrypoint": "public", "router": "shop", "service": "carts"}
        nowhere = {"entrypoint": "public", "router": "", "service": ""}
        self.assert_samples(
            [
                ("gateway_tcp_connections_total", {**way, "outcome": "completed"}, 1),
                ("gateway_tcp_connections_total", {**way, "outcome": "backend-closed"}, 1),
                ("gateway_tcp_connections_total", {**nowhere, "outcome": "no-route"}, 1),
                ("gateway_tcp_received_bytes_total", way, 6),
                ("gateway_tcp_sent_bytes_total", way, 10),
                ("gateway_tcp_connection_seconds_total", way, 0.5),
                ("gateway_backend_requests_total", {"backend": "http://a"}, 1),
                ("gateway_entrypoint_connections", {"entrypoint": "public"}, 3),
            ]
        )
        self.metrics.retain({("admin", "carts")}, set(), {"public"})
        self.assertNotIn(b'router="shop",service="carts",outcome', self.page())
        self.assert_samples([("gateway_tcp_connections_total", {**nowhere, "outcome": "no-route"}, 1)])

    @settings(deadline=None, max_examples=200, derandomize=True)
    @example('back\\slash "quote"\nbreak\\n')
    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    def test_labels(self, name):
        """
        Any name can be a label's value: quotes, backslashes and line breaks are escaped.
        """
        metrics = Metrics((1.0,))
        metrics.exchange_ended(make_record(route=Route(name, name, metrics.route_series(name, name))))
        samples = samples_of(render(metrics.snapshot(GAUGES), CONTROL))
        self.assertEqual(samples["gateway_router_requests_total", (("router", name),)], 1)
        labels = (("le", "+Inf"), ("method", "GET"), ("router", name), ("service", name), ("status", "200"))
        self.assertEqual(samples["gateway_request_duration_seconds_bucket", labels], 1)
