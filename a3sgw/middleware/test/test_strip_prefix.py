"""
Tests of `strip-prefix`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import ProtocolError
from a3sgw.interfaces import IRequestHook
from a3sgw.middleware import strip_prefix
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import MiddlewareCase, request
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue, middleware_contract
from a3sgw.wire.path import PathPolicy, canonical_path

API = 'type = "strip-prefix"\nprefixes = ["/api", "/api/v1", "/shop/"]'


class StripPrefixContract(middleware_contract(strip_prefix.factory, 'prefixes = ["/a"]')):
    """
    `strip-prefix` is a middleware.
    """

    def test_phases(self):
        """It looks at heads."""
        verifyObject(IRequestHook, strip_prefix.StripPrefix(self.config(), still_surroundings("x")))


class StripTests(MiddlewareCase):
    """
    B28: a prefix is whole segments, and the longest one counts.
    """

    def lines(self, target, *lines, method="GET"):
        """
        Return the lines that the server hears for `target`.
        """
        return self.exchange(request(method, target, *lines))[0].decode("latin-1").split("\r\n")

    def test_targets(self):
        """What is left begins with a slash; the query stays as it is, an empty one too."""
        self.pass_through(API)
        for target, stripped, prefix in [
            ("/api/users", "/users", "/api"),
            ("/api", "/", "/api"),
            ("/api/", "/", "/api"),
            ("/api?a=/api/b", "/?a=/api/b", "/api"),
            ("/api/x?", "/x?", "/api"),
            ("/api/x?a=b&c=%2F", "/x?a=b&c=%2F", "/api"),
            ("/api/v1/users", "/users", "/api/v1"),
            ("/api/v1", "/", "/api/v1"),
            ("/api/v10/users", "/v10/users", "/api"),
            ("/api/api/x", "/api/x", "/api"),
            ("/shop/cart", "/cart", "/shop"),
            ("/shop", "/", "/shop"),
            # What is matched and what is sent is the canonical path.
            ("/%61pi/users", "/users", "/api"),
            ("/x/../api//users", "/users", "/api"),
        ]:
            lines = self.lines(target)
            self.assertEqual(lines[0], f"GET {stripped} HTTP/1.1", target)
            self.assertEqual([line for line in lines if "prefix" in line.lower()], [f"X-Forwarded-Prefix: {prefix}"], target)

    def test_others(self):
        """Paths that only begin with the same letters are left alone."""
        self.pass_through(API)
        for target in ("/", "/apix", "/apix/users", "/ap", "/API/users", "/users/api", "/shopping", "/?/api/x"):
            lines = self.lines(target)
            self.assertEqual(lines[0], f"GET {target} HTTP/1.1")
            self.assertFalse([line for line in lines if "prefix" in line.lower()], target)

    def test_every_method(self):
        """It is for every method."""
        self.pass_through(API)
        for method, target, line in [
            ("HEAD", "/api/x", "HEAD /x HTTP/1.1"),
            ("POST", "/api/x", "POST /x HTTP/1.1"),
            ("OPTIONS", "/api/x", "OPTIONS /x HTTP/1.1"),
        ]:
            self.assertEqual(self.lines(target, method=method)[0], line)

    def test_no_path(self):
        """`OPTIONS *` asks about the server, not about a path."""
        self.converse()
        self.dialogue.reload(config(middlewares=[API]).replace("PathPrefix(`/`)", "Host(`a.test`)"))
        self.assertEqual(self.lines("*", method="OPTIONS")[0], "OPTIONS * HTTP/1.1")

    def test_absolute_form(self):
        """A target with scheme and host is cut in the same way."""
        self.pass_through(API)
        self.assertEqual(self.lines("http://a.test/api/x?y")[0], "GET /x?y HTTP/1.1")

    def test_proxies(self):
        """What a trusted proxy cut off stands before it; what anybody else claims does not."""
        self.pass_through(API, entrypoint='forwarded_headers { trusted_ips = ["192.0.2.1"] }')
        self.assertIn("X-Forwarded-Prefix: /outer/api", self.lines("/api/x", "X-Forwarded-Prefix: /outer"))
        self.assertIn("X-Forwarded-Prefix: /outer", self.lines("/x", "X-Forwarded-Prefix: /outer"))
        self.pass_through(API)
        self.assertIn("X-Forwarded-Prefix: /api", self.lines("/api/x", "X-Forwarded-Prefix: /outer"))

    def test_one_after_the_other(self):
        """Two of them cut twice, and the server is told of both."""
        self.pass_through(API, API)
        lines = self.lines("/api/shop/x")
        self.assertEqual(lines[0], "GET /x HTTP/1.1")
        self.assertIn("X-Forwarded-Prefix: /api/shop", lines)

    def test_connections_are_not_confused(self):
        """Requests on one connection are each cut by themselves."""
        self.pass_through(API)
        for target, line in [("/api/x", b"GET /x "), ("/x", b"GET /x "), ("/shop/x", b"GET /x "), ("/api/v1/x", b"GET /x ")]:
            backend = self.ask(request("GET", target))
            heard = self.hear(backend)
            self.assertTrue(heard.startswith(line), heard)
            self.assertEqual(heard.count(b"X-Forwarded-Prefix"), target != "/x")
            self.say(backend, b"HTTP/1.1 204 No Content\r\n\r\n")
            self.hear(self.client)

    def test_doubled_slashes(self):
        """Where doubled slashes mean something, they stay."""
        self.pass_through(API, entrypoint="merge_slashes = false")
        self.assertEqual(self.lines("/api//x")[0], "GET //x HTTP/1.1")
        self.assertEqual(self.lines("//api/x")[0], "GET //api/x HTTP/1.1")

    def test_logs(self):
        """The access log keeps what the client asked for."""
        self.pass_through(API)
        self.lines("/api/x")
        self.dialogue.reactor.advance(1)
        self.assertIn(b'"path":"/api/x"', self.dialogue.sink.data)


class AnyPathTests(SynchronousTestCase):
    """
    Whatever the client sends, the server gets a path in its canonical form.
    """

    pieces = st.sampled_from(["/", "/api", "api", "v1", ".", "..", "%2e", "%61pi", ";", "%25", "x", "?"])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(pieces, max_size=8))
    def test_canonical(self, pieces):
        """A path that is refused without the middleware is refused with it, and what passes is canonical."""
        target = "/" + "".join(pieces)
        dialogue = Dialogue(config(middlewares=[API]))
        client = dialogue.connect()
        dialogue.say(client, request("GET", target))
        path = target.partition("?")[0].encode()
        try:
            canonical = canonical_path(path, PathPolicy())
        except ProtocolError:
            self.assertIn(b" 400 ", dialogue.hear(client)[:13])
            return
        asked = dialogue.hear(dialogue.backend()).split(b" ")[1].partition(b"?")[0]
        self.assertEqual(canonical_path(asked, PathPolicy()), asked)
        self.assertTrue(canonical.endswith(asked) or asked == b"/", (canonical, asked))


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "strip-prefix"

    def test_refusals(self):
        """A prefix is a path that requests can have."""
        self.assert_accepted('prefixes = ["/api/", "/a%2Fb", "/a;b=c"]', "prefixes = []", "")
        self.assert_refused(
            [
                ('prefixes = ["api"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "api", which does not begin with "/"'),
                ('prefixes = ["/a", "/"]', 'gw.hcl:13:19: middleware "m1" has the prefix "/", and nothing would be cut off'),
                ('prefixes = ["/a?b"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/a?b", which holds "?"; a path ends before it'),
                ('prefixes = ["/a b"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/a b", which holds a blank'),
                ('prefixes = ["/ä"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/ä", which holds a blank or a character outside ASCII'),
                ('prefixes = ["/a/../b"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/a/../b", which is not canonical'),
                ('prefixes = ["/a//b"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/a//b", which is not canonical'),
                ('prefixes = ["/%61"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/%61", which is not canonical'),
                ('prefixes = ["/%"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/%", which holds a malformed escape'),
                ('prefixes = ["/a\\\\b"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/a\\\\b", which holds a backslash'),
                ('prefixes = ["/..;/a"]', 'gw.hcl:13:13: middlewares.m1.prefixes[0] is "/..;/a", which holds an ambiguous dot segment'),
                ('prefix = "/a"', 'gw.hcl:13:1: middleware "m1" is of type "strip-prefix" and has no "prefix"'),
            ]
        )

    def test_advice(self):
        """A list without a prefix is allowed, but worth a word."""
        self.assertIn("gw.hcl:13:12: middlewares.m1.prefixes names no prefix", self.advice("prefixes = []")[0])
        self.assertEqual(self.advice('prefixes = ["/a"]'), [])
