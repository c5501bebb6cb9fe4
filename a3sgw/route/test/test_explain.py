"""
Tests of `a3sgw.route.explain`.
"""

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.route.explain import _WORDS, explain, explain_table
from a3sgw.route.match import ConnectionFacts, compile_http, compile_tcp
from a3sgw.route.rule import SIGNATURES, parse_rule
from a3sgw.route.table import RouteSpec, build_http_table, build_tcp_table
from a3sgw.route.test.strategies import CONNECTIONS, HEADS, HTTP_RULES, TCP_RULES, make_head


class ExplainTests(SynchronousTestCase):
    def test_matchers(self):
        """
        Each matcher says what it found, and what it expected instead.
        """
        head = make_head("a.test:80", "/api/x", "GET", "q=1&q=2", [("X-A", "1"), ("X-A", "")], bytes([10, 0, 0, 1]))
        for text, why in [
            ("Host(`a.test`)", 'host is "a.test"'),
            ("Host(`b.test`)", 'host is "a.test", expected "b.test"'),
            ("Host(`b.test:1`, `c.test`)", 'host is "a.test:80", expected "b.test:1" or "c.test"'),
            ("HostRegexp(`^b`)", 'host is "a.test", expected a match of "^b"'),
            ("Path(`/`)", 'path is "/api/x", expected "/"'),
            ("PathPrefix(`/b`)", 'path is "/api/x", expected it to begin with "/b"'),
            ("PathSegments(`/ap`)", 'path is "/api/x", expected it to be or to lie below "/ap"'),
            ("PathRegexp(`^b`)", 'path is "/api/x", expected a match of "^b"'),
            ("Method(`PUT`)", 'method is "GET", expected "PUT"'),
            ("Header(`X-A`, `1`)", 'header X-A is "1", ""'),
            ("Header(`X-A`, `2`)", 'header X-A is "1", "", expected "2"'),
            ("HeaderRegexp(`X-B`, `2`)", 'header X-B is absent, expected a match of "2"'),
            ("Query(`r`)", 'query parameter r is absent, expected ""'),
            ("Query(`q`, `3`)", 'query parameter q is "1", "2", expected "3"'),
            ("QueryRegexp(`q`, `3`)", 'query parameter q is "1", "2", expected a match of "3"'),
            ("ClientIP(`10.0.0.0/8`)", "client address is 10.0.0.1"),
            ("ClientIP(`::1`)", 'client address is 10.0.0.1, expected "::1"'),
        ]:
            self.assertEqual(explain(parse_rule(text, "http"), head).why, why)
        self.assertEqual(explain(parse_rule("Host(`a`)", "http"), make_head()).why, 'host is absent, expected "a"')
        facts = ConnectionFacts(b"a.test", (b"h2",), b"")
        for text, why in [
            ("HostSNI(`b.test`)", 'server name is "a.test", expected "b.test"'),
            ("HostSNIRegexp(`b`)", 'server name is "a.test", expected a match of "b"'),
            ("ALPN(`h3`)", 'ALPN is "h2", expected "h3"'),
            ("ClientIP(`::1`)", 'client address is unknown, expected "::1"'),
        ]:
            self.assertEqual(explain(parse_rule(text, "tcp"), facts).why, why)

    def test_operators(self):
        """
        A compound names the part that decided it, and shows every part.
        """
        head = make_head("a.test", "/x")
        for text, matched, why in [
            ("Host(`a.test`) && Path(`/x`)", True, "all 2 conditions hold"),
            ("Host(`a.test`) && Path(`/y`) && Path(`/z`)", False, 'path is "/x", expected "/y"'),
            ("Host(`b.test`) || Path(`/x`)", True, 'path is "/x"'),
            ("Host(`b.test`) || Path(`/y`)", False, "none of 2 alternatives holds"),
            ("!Host(`a.test`)", False, 'what must not hold holds: host is "a.test"'),
            ("!Host(`b.test`)", True, 'what must not hold does not: host is "a.test", expected "b.test"'),
        ]:
            explanation = explain(parse_rule(text, "http"), head)
            self.assertEqual((explanation.matched, explanation.why), (matched, why), text)
        parts = explain(parse_rule("Host(`b.test`) && (Path(`/x`) || !Path(`/y`))", "http"), head).parts
        self.assertEqual([(part.text, part.matched) for part in parts], [("Host(`b.test`)", False), ("Path(`/x`) || !Path(`/y`)", True)])
        self.assertEqual([part.text for part in parts[1].parts], ["Path(`/x`)", "!Path(`/y`)"])

    def test_words(self):
        """
        There are words for every matcher of the language.
        """
        self.assertEqual(set(_WORDS), set(SIGNATURES))

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(HTTP_RULES, HEADS)
    def test_agrees_http(self, text, head):
        """
        An explanation never contradicts the verdict.
        """
        rule = parse_rule(text, "http")
        self.assertEqual(explain(rule, head).matched, compile_http(rule)(head))

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(TCP_RULES, CONNECTIONS)
    def test_agrees_tcp(self, text, facts):
        """
        An explanation never contradicts the verdict, for connections either.
        """
        rule = parse_rule(text, "tcp")
        self.assertEqual(explain(rule, facts).matched, compile_tcp(rule)(facts))


class ExplainTableTests(SynchronousTestCase):
    def test_http(self):
        """
        Every router is listed in order with its reason, and the winner is the one the table gives.
        """
        table = build_http_table(
            [
                RouteSpec("api", "Host(`a.test`) && PathPrefix(`/api`)", 0, "api"),
                RouteSpec("site", "Host(`a.test`)", 0, "site"),
                RouteSpec("all", "PathPrefix(`/`)", 1, "all"),
            ]
        )
        head = make_head("a.test", "/x")
        explained = explain_table(table, head)
        self.assertEqual(
            [(route.name, route.priority, route.is_winner, route.rule.matched, route.why) for route in explained],
            [
                ("api", 36, False, False, 'path is "/x", expected it to begin with "/api"'),
                ("site", 14, True, True, "first match"),
                ("all", 1, False, True, 'matches too, but router "site" comes first'),
            ],
        )
        self.assertEqual(table.match(head), "site")

    def test_tcp(self):
        """
        A tcp table is explained alike.
        """
        table = build_tcp_table([RouteSpec("a", "HostSNI(`a.test`)", 0, 1), RouteSpec("b", "HostSNI(`*`)", 0, 2)])
        self.assertEqual([route.is_winner for route in explain_table(table, ConnectionFacts(b"b.test"))], [False, True])
