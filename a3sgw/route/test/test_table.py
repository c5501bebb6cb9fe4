"""
Tests of `a3sgw.route.table` and `a3sgw.route.index`.
"""

from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.route.explain import explain_table
from a3sgw.route.index import HttpIndex
from a3sgw.route.match import ConnectionFacts, compile_http, compile_tcp
from a3sgw.route.rule import MAX_DEPTH, RuleError, parse_rule
from a3sgw.route.table import RouteSpec, build_http_table, build_tcp_table, building_http_table
from a3sgw.route.test.strategies import CONNECTIONS, HEADS, HTTP_RULES, PLAIN_RULES, TCP_RULES, make_head
from a3sgw.steps import finish

PRIORITIES = st.sampled_from([None, 0, 0, 0, 5, 5, 7, -1])


def make_specs(rules, priorities=None):
    return [
        RouteSpec(f"r{number:03}", rule, priorities[number] if priorities else 0, f"t{number}") for number, rule in enumerate(rules)
    ]


def make_scan(specs, kind):
    """
    The plain reading: the first in order whose rule matches.
    """
    compile_rule: Any = {"http": compile_http, "tcp": compile_tcp}[kind]
    ordered = sorted(specs, key=lambda spec: (-(spec.priority or len(spec.rule)), spec.name))
    compiled = [(compile_rule(parse_rule(spec.rule, kind)), spec.target) for spec in ordered]
    return lambda request: next((target for predicate, target in compiled if predicate(request)), None)


SPECS = st.lists(st.tuples(HTTP_RULES, PRIORITIES), max_size=12)
MANY_SPECS = st.lists(st.tuples(st.one_of(PLAIN_RULES, PLAIN_RULES, PLAIN_RULES, HTTP_RULES), PRIORITIES), min_size=15, max_size=60)
TCP_SPECS = st.lists(st.tuples(TCP_RULES, PRIORITIES), max_size=20)


class OrderTests(SynchronousTestCase):
    def test_priority(self):
        """
        A higher priority is tried first; without one (or with 0) it is the length of the rule's text; ties go by name.
        """
        table = build_http_table(
            [
                RouteSpec("b", "PathPrefix(`/`)", 0, "b"),
                RouteSpec("a", "PathPrefix(`/`)", None, "a"),
                RouteSpec("long", "PathPrefix(`/é`)".replace("é", "x" * 5), 0, "long"),
                RouteSpec("low", "PathPrefix(`/`)", -1, "low"),
                RouteSpec("high", "PathPrefix(`/h`)", 1000, "high"),
            ]
        )
        self.assertEqual([route.name for route in table.routes], ["high", "long", "a", "b", "low"])
        self.assertEqual([route.priority for route in table.routes], [1000, 20, 15, 15, -1])
        self.assertEqual([route.rank for route in table.routes], [0, 1, 2, 3, 4])
        self.assertEqual(table.match(make_head(path="/x")), "a")
        self.assertEqual(table.match(make_head(path="/h")), "high")

    def test_characters(self):
        """
        The default priority counts characters, not bytes.
        """
        routes = build_http_table([RouteSpec("a", "Header(`A`, `é`)", 0, 1)]).routes
        self.assertEqual(routes[0].priority, 16)

    def test_repeated_name(self):
        """
        Two routers of one name are refused, because their order would be chance.
        """
        specs = [RouteSpec("a", "Path(`/`)", 0, 1), RouteSpec("a", "Path(`/b`)", 0, 2)]
        self.assertIn('"a"', str(self.assertRaises(ValueError, build_http_table, specs)))

    def test_bad_rule(self):
        """
        A bad rule is refused with its router's name and the column.
        """
        error = self.assertRaises(RuleError, build_http_table, [RouteSpec("api", "Path(`/`) &&", 0, 1)])
        self.assertEqual(str(error), 'column 13: router "api": expected a matcher, ! or (, the rule ends here')
        self.assertRaises(RuleError, build_tcp_table, [RouteSpec("api", "Path(`/`)", 0, 1)])

    def test_repr(self):
        """
        A table says how long it is.
        """
        self.assertEqual(repr(build_http_table(make_specs(["Path(`/`)"]))), "<HttpTable 1 routes>")
        self.assertEqual(repr(build_tcp_table(make_specs([]))), "<TcpTable 0 routes>")


class HttpTableTests(SynchronousTestCase):
    def assert_as_scanned(self, specs, heads):
        table = build_http_table(specs)
        scan = make_scan(specs, "http")
        for head in heads:
            self.assertEqual(table.match(head), scan(head), (head, head.authority))

    def test_empty(self):
        """
        A table without routes matches nothing.
        """
        self.assertIsNone(build_http_table(make_specs([])).match(make_head("a.test")))

    def test_falsy_target(self):
        """
        A target that counts as false is a target all the same.
        """
        self.assertEqual(build_http_table([RouteSpec("a", "Host(`a`)", 0, 0)]).match(make_head("a")), 0)

    def test_shelves(self):
        """
        The exact host, its wildcard and the routes without host compete by priority alone.
        """
        rules = ["Host(`x.a.test`)", "Host(`*.a.test`)", "PathPrefix(`/`)"]
        for priorities, expected in [
            ([3, 2, 1], "t0"), ([3, 1, 2], "t0"), ([2, 3, 1], "t1"), ([1, 3, 2], "t1"), ([1, 2, 3], "t2"), ([2, 1, 3], "t2"),
        ]:  # fmt: skip
            table = build_http_table(make_specs(rules, priorities))
            self.assertEqual(table.match(make_head("x.a.test")), expected, priorities)
        self.assertEqual(build_http_table(make_specs(rules)).match(make_head("a.test")), "t2")
        self.assertEqual(build_http_table(make_specs(rules[:2])).match(make_head("y.a.test")), "t1")
        for host in ("a.test", ".a.test", "x.y.a.test", ""):
            self.assertIsNone(build_http_table(make_specs(rules[:2])).match(make_head(host)), host)

    def test_each_host_its_own(self):
        """
        A rule of several hosts asks under each of them what it says for that one.
        """
        rule = "Host(`a`) && Path(`/x`) || Host(`b`) && (Path(`/y`) || Method(`PUT`)) || Host(`*.c`) && Path(`/z`)"
        heads = [make_head(host, path, method) for host in ("a", "b", "x.c") for path in ("/x", "/y", "/z") for method in ("GET", "PUT")]
        self.assert_as_scanned(make_specs([rule]), heads)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(SPECS, st.lists(HEADS, min_size=1, max_size=8))
    def test_any_rules(self, rules, heads):
        """
        Whatever the rules, the table finds the winner that a walk through all of them finds.
        """
        self.assert_as_scanned(make_specs([rule for rule, _ in rules], [priority for _, priority in rules]), heads)

    def test_in_steps(self):
        """
        It makes no difference to a table in how many steps it was built, and there are as many as it has routes and hosts.
        """
        specs = make_specs([f"Host(`h{number}`) || Host(`*.h{number}`)" for number in range(9)] + ["Path(`/x`)"])
        for step, count in [(1, 10 + 19), (4, 2 + 4), (10, 1 + 1), (20, 0)]:
            self.assertEqual(len(list(building_http_table(specs, step))), count, step)
        table = finish(building_http_table(specs, 1))
        self.assertEqual(table.routes, build_http_table(specs).routes)
        heads = [make_head("h3"), make_head("y.h8"), make_head("h3", "/x"), make_head("other", "/x"), make_head("other", "/y")]
        self.assertEqual([table.match(head) for head in heads], ["t3", "t8", "t3", "t9", None])

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(MANY_SPECS, st.lists(HEADS, min_size=1, max_size=8))
    def test_long_shelves(self, rules, heads):
        """
        Many routes for few hosts are divided by path, and the winner stays the same.
        """
        self.assert_as_scanned(make_specs([rule for rule, _ in rules], [priority for _, priority in rules]), heads)

    def test_large_rules(self):
        """
        Rules whose hosts and paths multiply find the same winner as small ones.
        """
        hosts = ", ".join(f"`h{number}`" for number in range(400))
        paths = ", ".join(f"`/p{number}`" for number in range(300))
        specs = make_specs(
            [
                *[f"Host({hosts}) && Path({paths}) && Method(`M{number}`)" for number in range(3)],
                *[f"Host({hosts}) && PathPrefix(`/q{number}`)" for number in range(10)],
                f"Host(`h1`) && Path({paths})",
                " || ".join(f"Host(`h{number}`) && Path(`/r{number}`)" for number in range(150)),
            ]
        )
        self.assert_as_scanned(
            specs,
            [
                make_head(host, path, method)
                for host in ("h0", "h1", "h149", "h399", "h400")
                for path in ("/p0", "/p299", "/p300", "/q3", "/q9/x", "/r1", "/r149")
                for method in ("M0", "M2", "GET")
            ],
        )

    def test_size(self):
        """
        Many hosts beside many routes without host are filed once each, not once for each pair.
        """
        specs = make_specs([f"Host(`h{number}`)" for number in range(1000)] + [f"PathPrefix(`/p{number}`)" for number in range(300)])
        table = build_http_table(specs)
        filed = []

        class CountingIndex(HttpIndex):
            def entry(self, filing, residue):
                filed.append(filing.route.name)
                return super().entry(filing, residue)

        deque(CountingIndex(compile_http).fill(table.routes, 100), 0)
        self.assertEqual(sorted(filed), [spec.name for spec in sorted(specs, key=lambda spec: spec.name)])
        for head, expected in [
            (make_head("h7", "/"), "t7"),
            (make_head("h7", "/p299"), "t1299"),
            (make_head("other", "/p299"), "t1299"),
            (make_head("other", "/"), None),
        ]:
            self.assertEqual(table.match(head), expected, head)

    def test_deep_rule(self):
        """
        The deepest rule that can be read can also be filed, asked and explained.
        """
        for opened, closed in [("!(Path(`/x`) || ", ")"), ("(Path(`/x`) || Method(`PUT`) && ", ")")]:
            levels = MAX_DEPTH // (2 if opened.startswith("!") else 1)
            specs = make_specs([opened * levels + "Host(`a.test`)" + closed * levels])
            table = build_http_table(specs)
            scan = make_scan(specs, "http")
            for head in (make_head("a.test"), make_head("b.test", "/x", "PUT")):
                self.assertEqual(table.match(head), scan(head))
                self.assertIs(explain_table(table, head)[0].is_winner, table.match(head) is not None)

    def test_asked_once(self):
        """
        What the index has established is not asked again: a route's own path and host leave nothing to evaluate.
        """
        specs = make_specs([f"Host(`a.test`) && PathPrefix(`/p{number}`)" for number in range(20)])
        found = build_http_table(specs)._hosts[b"a.test"](make_head("elsewhere", "/p7"), 1000)
        self.assertEqual(found[1:], (None, "t7"))


class TcpTableTests(SynchronousTestCase):
    def test_names(self):
        """
        A connection finds the route of its server name, its wildcard, or the one for all.
        """
        table = build_tcp_table(make_specs(["HostSNI(`a.test`)", "HostSNI(`*.test`)", "HostSNI(`*`)", "HostSNI(`*`) && ALPN(`h2`)"]))
        for facts, expected in [
            (ConnectionFacts(b"A.test."), "t0"),
            (ConnectionFacts(b"b.test"), "t1"),
            (ConnectionFacts(b"x.b.test"), "t2"),
            (ConnectionFacts(), "t2"),
            (ConnectionFacts(None, (b"h2",)), "t3"),
        ]:
            self.assertEqual(table.match(facts), expected, facts)
        self.assertIsNone(build_tcp_table(make_specs(["HostSNI(`a.test`)"])).match(ConnectionFacts()))

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(TCP_SPECS, st.lists(CONNECTIONS, min_size=1, max_size=8))
    def test_any_rules(self, rules, connections):
        """
        Whatever the rules, the table finds the winner that a walk through all of them finds.
        """
        specs = make_specs([rule for rule, _ in rules], [priority for _, priority in rules])
        table = build_tcp_table(specs)
        scan = make_scan(specs, "tcp")
        for facts in connections:
            self.assertEqual(table.match(facts), scan(facts), facts)

    def test_early(self):
        """
        A route is chosen before the client has said anything if nothing that it may say would change that.
        """
        everybody, inside = ("HostSNI(`*`)", 1), ("ClientIP(`10.0.0.0/8`)", 5)
        named, both = ("HostSNI(`a.test`)", 3), ("ClientIP(`10.0.0.0/8`) && ALPN(`h2`)", 5)
        ten, other = bytes((10, 0, 0, 1)), bytes((192, 0, 2, 7))
        for rules, client, expected in [
            ([everybody], other, ("t0", True)),
            ([inside, everybody], ten, ("t0", True)),
            ([inside, everybody], other, ("t1", True)),
            ([inside, named, everybody], ten, ("t0", True)),
            ([inside, named, everybody], other, (None, False)),
            ([everybody, named], other, (None, False)),
            ([both, everybody], ten, (None, False)),
            ([both, everybody], other, ("t1", True)),
            ([inside], other, (None, True)),
            ([("!HostSNI(`*`)", 1)], other, (None, True)),
            ([("!HostSNI(`a.test`)", 1)], other, (None, False)),
            ([("HostSNI(`a.test`) || ClientIP(`10.0.0.1`)", 1)], ten, ("t0", True)),
            ([("HostSNI(`a.test`, `*`)", 1)], other, ("t0", True)),
            ([], other, (None, True)),
        ]:
            table = build_tcp_table(make_specs([rule for rule, _ in rules], [priority for _, priority in rules]))
            self.assertEqual(table.match_early(client), expected, (rules, client))

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(TCP_SPECS, st.lists(CONNECTIONS, min_size=2, max_size=8))
    def test_early_is_no_other(self, rules, connections):
        """
        What is decided early is what would have been decided later, whatever the client sends.
        """
        table = build_tcp_table(make_specs([rule for rule, _ in rules], [priority for _, priority in rules]))
        for facts in connections:
            target, is_certain = table.match_early(facts.client_packed)
            if is_certain:
                self.assertEqual(table.match(facts), target, facts)
