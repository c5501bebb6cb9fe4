"""
Tests of `a3sgw.route.match`.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import make_field
from a3sgw.route.match import HTTP_BUILDERS, TCP_BUILDERS, ConnectionFacts, compile_http, compile_tcp, query_values
from a3sgw.route.rule import SIGNATURES, parse_rule
from a3sgw.route.test.strategies import make_head


class CompileHttpTests(SynchronousTestCase):
    def assert_matches(self, cases):
        for text, head, expected in cases:
            self.assertIs(compile_http(parse_rule(text, "http"))(head), expected, (text, head, head.authority, head.query))

    def test_host(self):
        """
        A host is compared without port and letter case, unless the rule names a port; a wildcard is exactly one label.
        """
        self.assert_matches(
            [
                ("Host(`a.test`)", make_head("a.test"), True),
                ("Host(`a.test`)", make_head("a.test:8080"), True),
                ("Host(`A.TEST.`)", make_head("a.test."), True),
                ("Host(`a.test`)", make_head("b.test"), False),
                ("Host(`a.test`)", make_head("x.a.test"), False),
                ("Host(`a.test`)", make_head(""), False),
                ("Host(`a.test`, `b.test`)", make_head("b.test"), True),
                ("Host(`a.test`, `b.test`)", make_head("c.test"), False),
                ("Host(`*.a.test`)", make_head("x.a.test:1"), True),
                ("Host(`*.a.test`)", make_head("a.test"), False),
                ("Host(`*.a.test`)", make_head("x.y.a.test"), False),
                ("Host(`*.a.test`)", make_head(".a.test"), False),
                ("Host(`*.a.test`)", make_head(""), False),
                ("Host(`b.test`, `*.a.test`)", make_head("b.test"), True),
                ("Host(`a.test:8080`)", make_head("a.test:8080"), True),
                ("Host(`a.test:8080`)", make_head("A.test.:8080"), True),
                ("Host(`a.test:8080`)", make_head("a.test:80"), False),
                ("Host(`a.test:8080`)", make_head("a.test:18080"), False),
                ("Host(`a.test:8080`)", make_head("a.test"), False),
                ("Host(`a.test:8080`)", make_head("b.test:8080"), False),
                ("Host(`*.a.test:8080`)", make_head("x.a.test:8080"), True),
                ("Host(`*.a.test:8080`)", make_head("x.a.test:80"), False),
                ("Host(`8080:8080`)", make_head("8080"), False),
                ("Host(`a.test:1`, `a.test:2`)", make_head("a.test:2"), True),
                ("Host(`[::1]`)", make_head("[::1]"), True),
                ("Host(`[::1]`)", make_head("[::1]:8080"), True),
                ("Host(`[0:0::1]:8080`)", make_head("[::1]:8080"), True),
                ("Host(`[::1]:8080`)", make_head("[::1]"), False),
                ("HostRegexp(`^[a-z]+\\.test$`)", make_head("A.test:80"), True),
                ("HostRegexp(`^[a-z]+\\.test$`)", make_head("x.a.test"), False),
                ("HostRegexp(`a`)", make_head("xax"), True),
            ]
        )

    def test_path(self):
        """
        A path is compared whole, as a plain prefix, by segments, or with a pattern; letter case matters.
        """
        self.assert_matches(
            [
                ("Path(`/api`)", make_head(path="/api"), True),
                ("Path(`/api`)", make_head(path="/api/"), False),
                ("Path(`/api`)", make_head(path="/API"), False),
                ("Path(`/a`, `/b`)", make_head(path="/b"), True),
                ("Path(`/a`, `/b`)", make_head(path="/c"), False),
                ("PathPrefix(`/api`)", make_head(path="/apix"), True),
                ("PathPrefix(`/api`)", make_head(path="/ap"), False),
                ("PathPrefix(`/a`, `/b`)", make_head(path="/bc"), True),
                ("PathPrefix(`/a`, `/b`)", make_head(path="/c"), False),
                ("PathPrefix(`/`)", make_head(path="*"), False),
                ("PathSegments(`/api`)", make_head(path="/api"), True),
                ("PathSegments(`/api`)", make_head(path="/api/"), True),
                ("PathSegments(`/api`)", make_head(path="/api/x"), True),
                ("PathSegments(`/api`)", make_head(path="/apix"), False),
                ("PathSegments(`/api/`)", make_head(path="/api"), True),
                ("PathSegments(`/api/`)", make_head(path="/apix"), False),
                ("PathSegments(`/`)", make_head(path="/anything"), True),
                ("PathSegments(`/`)", make_head(path="*"), False),
                ("PathSegments(`/a`, `/b`)", make_head(path="/b"), True),
                ("PathSegments(`/a`, `/b`)", make_head(path="/b/c"), True),
                ("PathSegments(`/a`, `/b`)", make_head(path="/bc"), False),
                ("PathRegexp(`^/v\\d+/`)", make_head(path="/v12/x"), True),
                ("PathRegexp(`^/v\\d+/`)", make_head(path="/x/v12/"), False),
                ("PathRegexp(`v\\d`)", make_head(path="/x/v12/"), True),
            ]
        )

    def test_method(self):
        """
        Methods are compared in upper case.
        """
        self.assert_matches(
            [
                ("Method(`get`)", make_head(method="GET"), True),
                ("Method(`GET`)", make_head(method="get"), True),
                ("Method(`GET`)", make_head(method="PUT"), False),
                ("Method(`GET`, `PUT`)", make_head(method="put"), True),
                ("Method(`GET`, `PUT`)", make_head(method="POST"), False),
            ]
        )

    def test_header(self):
        """
        A header matches if any of its values does; its name has no letter case, its value has.
        """
        twice = make_head(fields=[("X-Tenant", "a"), ("x-tenant", "b")])
        self.assert_matches(
            [
                ("Header(`x-TENANT`, `a`)", twice, True),
                ("Header(`X-Tenant`, `b`)", twice, True),
                ("Header(`X-Tenant`, `B`)", twice, False),
                ("Header(`X-Tenant`, ``)", make_head(), False),
                ("Header(`X-Tenant`, `é`)", make_head(fields=[("X-Tenant", "é")]), True),
                ("HeaderRegexp(`X-Tenant`, `^b$`)", twice, True),
                ("HeaderRegexp(`X-Tenant`, `^c$`)", twice, False),
                ("HeaderRegexp(`X-Tenant`, `.*`)", make_head(), False),
                ("Header(`Host`, `A.test:80`)", make_head("A.test:80"), True),
                ("Header(`Host`, `a.test`)", make_head(""), False),
                ("HeaderRegexp(`Host`, `80$`)", make_head("a.test:80"), True),
            ]
        )
        head = make_head()
        head.request_id = b"abc"
        self.assert_matches([("Header(`X-Request-Id`, `abc`)", head, True), ("Header(`X-Request-Id`, `abc`)", make_head(), False)])

    def test_forwarding_fields(self):
        """
        What a trusted proxy said can be matched; what stands among the other fields is never taken for it.
        """
        trusted = make_head()
        trusted.forwarded = [make_field(b"X-Forwarded-Proto", b"https")]
        rules = ("Header(`X-Forwarded-Proto`, `https`)", "HeaderRegexp(`X-Forwarded-Proto`, `^https$`)")
        for rule in rules:
            self.assert_matches([(rule, trusted, True), (rule, make_head(fields=[("X-Forwarded-Proto", "https")]), False)])

    def test_query(self):
        """
        A query parameter is compared decoded; its name alone means the parameter without a value, as in Traefik.
        """
        self.assert_matches(
            [
                ("Query(`a`)", make_head(query="a=1"), False),
                ("Query(`a`)", make_head(query="a="), True),
                ("Query(`a`)", make_head(query="b&a"), True),
                ("Query(`a`)", make_head(query="ab=1"), False),
                ("Query(`a`)", make_head(), False),
                ("Query(``)", make_head(), False),
                ("Query(`a`, `1`)", make_head(query="a=2&a=1"), True),
                ("Query(`a`, `1`)", make_head(query="a=11"), False),
                ("Query(`a`, ``)", make_head(query="a"), True),
                ("Query(`a b`, `c d`)", make_head(query="a+b=c%20d"), True),
                ("Query(`é`, `=`)", make_head(query="%c3%A9=%3D"), True),
                ("QueryRegexp(`a`, `^\\d+$`)", make_head(query="a=x&a=12"), True),
                ("QueryRegexp(`a`, `^\\d+$`)", make_head(query="a=x"), False),
                ("QueryRegexp(`a`, `.*`)", make_head(), False),
            ]
        )

    def test_client(self):
        """
        A client matches by its address; one without an address never does.
        """
        self.assert_matches(
            [
                ("ClientIP(`10.0.0.0/8`)", make_head(client=bytes([10, 1, 2, 3])), True),
                ("ClientIP(`10.0.0.0/8`, `::1`)", make_head(client=bytes(15) + b"\1"), True),
                ("ClientIP(`10.0.0.0/8`)", make_head(client=bytes([11, 1, 2, 3])), False),
                ("ClientIP(`0.0.0.0/0`, `::/0`)", make_head(), False),
            ]
        )

    def test_operators(self):
        """
        Conjunctions and disjunctions of any length, and negations, mean what they say.
        """
        yes, no = "PathPrefix(`/`)", "Path(`/x`)"
        self.assert_matches(
            [
                (text.replace("1", yes).replace("0", no), make_head(), expected)
                for text, expected in [
                    ("!0", True), ("!1", False), ("!!1", True),
                    ("1&&1", True), ("1&&0", False), ("0&&1", False),
                    ("1&&1&&1", True), ("0&&1&&1", False), ("1&&0&&1", False), ("1&&1&&0", False),
                    ("1&&1&&1&&1", True), ("1&&1&&1&&0", False), ("0&&1&&1&&1", False),
                    ("0||0", False), ("1||0", True), ("0||1", True),
                    ("0||0||0", False), ("0||0||1", True), ("1||0||0", True),
                    ("1||0&&0", True), ("(1||0)&&0", False), ("!(0||0)&&1", True), ("!1||1", True), ("!(1||1)", False),
                ]
            ]
        )  # fmt: skip

    def test_builders(self):
        """
        Every matcher of the language can be compiled.
        """
        self.assertEqual(set(HTTP_BUILDERS), {name for name, signature in SIGNATURES.items() if "http" in signature.kinds})
        self.assertEqual(set(TCP_BUILDERS), {name for name, signature in SIGNATURES.items() if "tcp" in signature.kinds})


class QueryValuesTests(SynchronousTestCase):
    def test_pairs(self):
        """
        A pair that cannot be decoded, or that has a semicolon, is as if it were not there.
        """
        for query, expected in [
            (b"", []),
            (b"a", [b""]),
            (b"a=", [b""]),
            (b"a=1&&a=2", [b"1", b"2"]),
            (b"a=1=2", [b"1=2"]),
            (b"a=+%2B", [b" +"]),
            (b"%61=1", [b"1"]),
            (b"a=%&a=1", [b"1"]),
            (b"a=%4&a=1", [b"1"]),
            (b"a=%zz&a=1", [b"1"]),
            (b"a%=1", []),
            (b"a=1;b=2&a=3", [b"3"]),
            (b"a=%ff", [b"\xff"]),
            (b"A=1", []),
        ]:
            self.assertEqual(query_values(query, b"a"), expected, query)


class CompileTcpTests(SynchronousTestCase):
    def test_matchers(self):
        """
        A connection is matched by server name, offered protocols and client; `*` is every connection, also one without TLS.
        """
        named = ConnectionFacts(b"X.a.Test.", (b"h2", b"http/1.1"), bytes([10, 0, 0, 1]))
        plain = ConnectionFacts()
        for text, facts, expected in [
            ("HostSNI(`x.a.test`)", named, True),
            ("HostSNI(`a.test`)", named, False),
            ("HostSNI(`b.test`, `x.a.test`)", named, True),
            ("HostSNI(`*.a.test`)", named, True),
            ("HostSNI(`*.test`)", named, False),
            ("HostSNI(`*`)", named, True),
            ("HostSNI(`*`)", plain, True),
            ("HostSNI(`a.test`, `*`)", plain, True),
            ("HostSNI(`x.a.test`)", plain, False),
            ("HostSNI(`*.a.test`)", plain, False),
            ("HostSNIRegexp(`^x\\.`)", named, True),
            ("HostSNIRegexp(`^y\\.`)", named, False),
            ("HostSNIRegexp(`^.*$`)", plain, True),
            ("HostSNIRegexp(`.`)", plain, False),
            ("ALPN(`h2`)", named, True),
            ("ALPN(`h3`, `http/1.1`)", named, True),
            ("ALPN(`h3`)", named, False),
            ("ALPN(`h2`)", plain, False),
            ("ClientIP(`10.0.0.0/8`)", named, True),
            ("ClientIP(`0.0.0.0/0`)", plain, False),
            ("!HostSNI(`x.a.test`) && ClientIP(`10.0.0.0/8`)", named, False),
        ]:
            self.assertIs(compile_tcp(parse_rule(text, "tcp"))(facts), expected, (text, facts))
