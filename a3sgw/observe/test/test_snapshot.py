"""
Tests for `a3sgw.observe.snapshot`.
"""

import copy
import json

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.model import GatewayConfig
from a3sgw.errors import Outcome
from a3sgw.observe.metrics import Metrics
from a3sgw.observe.snapshot import merge_snapshots, remainder_of
from a3sgw.observe.test.records import Backend, Route, make_backend, make_gauges, make_middleware, make_record, make_service


def make_snapshot(statuses, buckets=(0.1, 1.0), **gauges):
    """
    Return a carrier's snapshot after exchanges with these statuses on one route.
    """
    metrics = Metrics(buckets)
    route = Route("shop", "carts", metrics.route_series("shop", "carts"))
    backend = Backend("http://a", metrics.backend_series("carts", "http://a"))
    for status in statuses:
        metrics.exchange_ended(make_record(route=route, backend=backend, status=status, bytes_sent=10, outcome=Outcome.COMPLETED))
    return metrics.snapshot(make_gauges(**gauges))


class MergeSnapshotsTests(SynchronousTestCase):
    """
    Tests for `merge_snapshots`.
    """

    def test_counts(self):
        """
        The counts of several carriers add up, those that only one of them has included.
        """
        merged = merge_snapshots([make_snapshot([200, 200]), make_snapshot([200, 404])])
        [row] = merged["series"]
        self.assertEqual(row["cells"], [["GET", 200, [0, 3, 0], 0.75, 30], ["GET", 404, [0, 1, 0], 0.25, 10]])
        self.assertEqual(row["first_byte"], [[0, 4, 0], 4 * 0.21875])
        self.assertEqual(merged["backends"], [["carts", "http://a", 4, 0]])
        self.assertEqual(merged["outcomes"]["completed"], 4)

    def test_one(self):
        """
        A single snapshot comes out as it went in, also after crossing a process border.
        """
        gauges = {"backends": [make_backend(up=True, active=2)], "refused": [["public", "limit", 3]], "accepted": {"public": 5}}
        snapshot = make_snapshot([200], **gauges)
        self.assertEqual(merge_snapshots([snapshot]), snapshot)
        self.assertEqual(merge_snapshots([json.loads(json.dumps(snapshot))]), snapshot)

    def test_gauges(self):
        """
        Gauges add up.
        """
        merged = merge_snapshots(
            [
                make_snapshot(
                    [],
                    active_connections=2,
                    backends=[make_backend(up=True, active=1, idle=2, leased=3)],
                    open={"public": 2},
                    accepted={"public": 5},
                    refused=[["public", "limit", 1]],
                    http2_faults=[["public", "stream", "PROTOCOL_ERROR", 1]],
                    certificates=[["public", "a.test", 2000.0], ["public", "b.test", 4000.0]],
                    services=[make_service(waiting=2, in_use=1, failovers=3, retries=4, copies={"sent": 1}, hedges={"won": 5})],
                    udp_sessions={"dns": 1},
                    udp_begun={"dns": 2},
                    udp_dropped=[["dns", "no-route", 3]],
                    access_log_dropped=1,
                ),
                make_snapshot(
                    [],
                    active_connections=3,
                    backends=[make_backend(active=10, idle=20, leased=30), make_backend(url="http://b")],
                    open={"public": 2, "private": 1},
                    accepted={"public": 1, "private": 1},
                    refused=[["public", "limit", 1], ["public", "address", 1]],
                    http2_faults=[["public", "stream", "PROTOCOL_ERROR", 2], ["public", "connection", "PROTOCOL_ERROR", 1]],
                    certificates=[["public", "a.test", 1000.0]],
                    services=[
                        make_service(waiting=20, in_use=10, failovers=30, retries=40, copies={"sent": 10, "failed": 20}),
                        make_service(service="users"),
                    ],
                    udp_sessions={"dns": 10},
                    udp_begun={"dns": 20, "log": 5},
                    udp_dropped=[["dns", "no-route", 30], ["log", "no-backend", 6]],
                    access_log_dropped=4,
                ),
            ]
        )
        self.assertEqual(
            merged["gauges"],
            {
                "active_connections": 5,
                "backends": [make_backend(active=11, idle=22, leased=33), make_backend(url="http://b")],
                "services": [
                    make_service(
                        waiting=22, in_use=11, failovers=33, retries=44, copies={"sent": 11, "failed": 20}, hedges={"won": 5}
                    ),
                    make_service(service="users"),
                ],
                "middlewares": [],
                "open": {"public": 4, "private": 1},
                "accepted": {"public": 6, "private": 1},
                "refused": [["public", "limit", 2], ["public", "address", 1]],
                "http2_faults": [["public", "stream", "PROTOCOL_ERROR", 3], ["public", "connection", "PROTOCOL_ERROR", 1]],
                "certificates": [["public", "a.test", 1000.0], ["public", "b.test", 4000.0]],
                "udp_sessions": {"dns": 11},
                "udp_begun": {"dns": 22, "log": 5},
                "udp_dropped": [["dns", "no-route", 33], ["log", "no-backend", 6]],
                "access_log_dropped": 5,
            },
        )

    def test_connections(self):
        """
        Connections that went the same way and ended alike add up, with their bytes and seconds.
        """
        one, other = make_snapshot([]), make_snapshot([])
        one["tcp"] = [["pg", "db", "postgres", "completed", 2, 10, 20, 0.5]]
        other["tcp"] = [["pg", "db", "postgres", "completed", 1, 1, 2, 0.25], ["pg", "", "", "no-route", 3, 0, 0, 0.0]]
        expected = [["pg", "db", "postgres", "completed", 3, 11, 22, 0.75], ["pg", "", "", "no-route", 3, 0, 0, 0.0]]
        self.assertEqual(merge_snapshots([one, other])["tcp"], expected)

    def test_sessions(self):
        """
        Sessions that went the same way and ended alike add up, with their datagrams, bytes and seconds.
        """
        one, other = make_snapshot([]), make_snapshot([])
        one["udp"] = [["dns", "r", "s", "completed", 1, 2, 3, 4, 5, 0.5]]
        other["udp"] = [["dns", "r", "s", "completed", 10, 20, 30, 40, 50, 0.25]]
        self.assertEqual(merge_snapshots([one, other])["udp"], [["dns", "r", "s", "completed", 11, 22, 33, 44, 55, 0.75]])

    def test_backends(self):
        """
        A backend is up as soon as one carrier may use it; what speaks against it is told if one of them thinks so, with its reason.
        """
        fine = make_backend(healthy=True, in_service=True, reason="restored: it was")
        ejected = make_backend(up=False, healthy=True, in_service=False, state="ejected", reason="ejected: it failed")
        trial = make_backend(healthy=True, in_service=False, state="half-open", reason="half-open: it is time")
        for rows, expected in [
            ([fine, fine], fine),
            ([fine, ejected], {**ejected, "up": True}),
            ([ejected, trial, fine], {**ejected, "up": True}),
            ([fine, trial], trial),
            ([ejected, ejected], ejected),
            ([make_backend(), fine], {**make_backend(), "healthy": True, "in_service": True}),
        ]:
            merged = merge_snapshots([make_snapshot([], backends=[row]) for row in rows])
            self.assertEqual(merged["gauges"]["backends"], [expected])

    def test_same_url(self):
        """
        Backends of the same URL stay apart if they are of several revisions, or listed twice.
        """
        rows = [make_backend(), make_backend(turn=2), make_backend(revision="v1"), make_backend(service="users")]
        merged = merge_snapshots([make_snapshot([], backends=rows), make_snapshot([], backends=rows)])
        self.assertEqual(merged["gauges"]["backends"], rows)

    def test_revisions_and_ejections(self):
        """
        Ejections add up, and so does what revisions have served.
        """
        one, other = make_snapshot([]), make_snapshot([])
        one["revisions"], other["revisions"] = [["carts", "v1", 2]], [["carts", "v2", 3], ["carts", "v1", 4]]
        one["backends"], other["backends"] = [["carts", "http://a", 1, 2]], [["carts", "http://a", 3, 4]]
        merged = merge_snapshots([one, other])
        self.assertEqual(merged["revisions"], [["carts", "v1", 6], ["carts", "v2", 3]])
        self.assertEqual(merged["backends"], [["carts", "http://a", 4, 6]])

    def test_middlewares(self):
        """
        What middlewares did adds up, those that only one carrier has included.
        """
        one, other = make_snapshot([]), make_snapshot([])
        one["middlewares"] = [["limit", 5, [[429, 1], [503, 2]], 1, 0.25]]
        other["middlewares"] = [["idle", 0, [], 0, 0.0], ["limit", 7, [[403, 4], [429, 2]], 2, 0.5]]
        merged = merge_snapshots([one, other])
        self.assertEqual(merged["middlewares"], [["limit", 12, [[403, 4], [429, 3], [503, 2]], 3, 0.75], ["idle", 0, [], 0, 0.0]])
        self.assertEqual(merge_snapshots([merged]), merged)
        self.assertEqual(merge_snapshots([json.loads(json.dumps(one))])["middlewares"], one["middlewares"])

    def test_middleware_states(self):
        """
        How middlewares stand adds up for each router and entrypoint; of a circuit, the worst that any carrier sees counts.
        """
        shop, door = make_middleware(), make_middleware(router="", entrypoint="public")
        parts = [
            [{**shop, "state": {"circuit": "closed", "opened": 1}}, {**door, "state": {"clients": 2, "backend": "redis"}}],
            [{**shop, "state": {"circuit": "open", "opened": 2}}, {**door, "state": {"clients": 3, "backend": "redis"}}],
            [{**shop, "state": {"circuit": "half-open", "opened": 0}}],
        ]
        for rows in (parts, parts[::-1]):
            merged = merge_snapshots([make_snapshot([], middlewares=part) for part in rows])["gauges"]["middlewares"]
            self.assertEqual(
                sorted(merged, key=lambda row: row["entrypoint"]),
                [{**shop, "state": {"circuit": "open", "opened": 3}}, {**door, "state": {"clients": 5, "backend": "redis"}}],
            )

    def test_inputs_stay(self):
        """
        Merging changes none of the snapshots, so that one can be kept for a carrier that died.
        """
        snapshots = [make_snapshot([200]), make_snapshot([200])]
        before = copy.deepcopy(snapshots)
        merge_snapshots([merge_snapshots(snapshots), snapshots[0]])
        self.assertEqual(snapshots, before)

    def test_different_buckets(self):
        """
        Counts sorted by different buckets are not added up into nonsense.
        """
        error = self.assertRaises(ValueError, merge_snapshots, [make_snapshot([]), make_snapshot([], buckets=(0.5,))])
        self.assertIn("[[0.1, 1.0], [0.5]]", str(error))

    def test_none(self):
        """
        There is always at least one carrier.
        """
        self.assertRaises(ValueError, merge_snapshots, [])


class RemainderTests(SynchronousTestCase):
    """
    What stays of a carrier that is gone.
    """

    def config(self, *, router="shop", service="carts", url="http://a", metrics=""):
        return GatewayConfig.from_hcl(
            f'entrypoints "public" {{\n address = ":1"\n}}\n'
            f'routers "{router}" {{\n rule = "PathPrefix(`/`)"\n service = "{service}"\n}}\n'
            f'services "{service}" {{\n load_balancer {{\n servers = [{{ url = "{url}" }}]\n}}\n}}\n'
            f"observability {{\n metrics {{\n {metrics}\n}}\n}}\n"
        )

    def snapshot(self, config):
        gauges = {
            "active_connections": 7,
            "accepted": {"public": 5},
            "refused": [["public", "limit", 3]],
            "access_log_dropped": 2,
            "backends": [make_backend(up=True, active=2)],
            "services": [make_service(service="carts", waiting=1, in_use=2, failovers=3, retries=4)],
        }
        return make_snapshot([200, 200, 404], config.observability.metrics.buckets, **gauges)

    def test_levels_go(self):
        """Levels are gone with the carrier, counts are not."""
        config = self.config()
        snapshot = self.snapshot(config)
        remainder = remainder_of(snapshot, config)
        for part in ("buckets", "series", "backends", "outcomes"):
            self.assertEqual(remainder[part], snapshot[part], part)
        gauges = remainder["gauges"]
        self.assertEqual((gauges["active_connections"], gauges["backends"]), (0, []))
        self.assertEqual((gauges["accepted"], gauges["refused"]), ({"public": 5}, [["public", "limit", 3]]))
        self.assertEqual(gauges["access_log_dropped"], 2)
        (service,) = gauges["services"]
        self.assertEqual([service[key] for key in ("waiting", "in_use", "failovers", "retries")], [None, None, 3, 4])

    def test_names_go(self):
        """What a reload takes away keeps counting in the totals, under the names that are left."""
        old = self.config()
        snapshot = self.snapshot(old)
        for changes, router, service in (({"router": "other"}, None, "carts"), ({"router": "other", "service": "else"}, None, None)):
            (row,) = remainder_of(snapshot, self.config(**changes))["series"]
            self.assertEqual((row["router"], row["service"], row["is_live"]), (router, service, False))
            self.assertEqual(row["cells"], snapshot["series"][0]["cells"])
        self.assertEqual(remainder_of(snapshot, self.config(url="http://b"))["backends"], [])

    def test_other_buckets(self):
        """Other buckets lose no count."""
        snapshot = self.snapshot(self.config())
        (row,) = remainder_of(snapshot, self.config(metrics="buckets = [0.5, 2]"))["series"]
        self.assertEqual([cell[2] for cell in row["cells"]], [[0, 0, 2], [0, 0, 1]])
        self.assertEqual([cell[3] for cell in row["cells"]], [cell[3] for cell in snapshot["series"][0]["cells"]])
        self.assertEqual((sum(row["first_byte"][0]), sum(row["upstream"][0])), (3, 3))

    def test_not_changed(self):
        """The snapshot itself stays what it was."""
        snapshot = self.snapshot(self.config())
        before = copy.deepcopy(snapshot)
        remainder_of(snapshot, self.config(router="x", service="y", url="http://b", metrics="buckets = [1]"))
        self.assertEqual(snapshot, before)
