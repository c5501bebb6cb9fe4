"""
Tests of `cors`.
"""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook, IResponseHook
from a3sgw.middleware import cors
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue, middleware_contract

EVERYBODY = 'type = "cors"'
NAMED = 'type = "cors"\nallowed_origins = ["https://a.test", "https://b.test:8443", "https://*.c.test"]'
WITH_CREDENTIALS = f'{NAMED}\nallow_credentials = true\nexposed_headers = ["X-Total", "Etag"]'
PREFLIGHT = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type,x-a")


class CorsContract(middleware_contract(cors.factory, 'allowed_origin_patterns = ["https?://.*"]\nallowed_headers = ["*"]')):
    """
    `cors` is a middleware.
    """

    def test_phases(self):
        """It looks at both heads."""
        built = cors.Cors(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, built)
        verifyObject(IResponseHook, built)


class CorsCase(MiddlewareCase):
    """
    Requests of pages of other sites.
    """

    def ask_from(self, origin, *lines, method="GET", answer=OK, target="/"):
        """
        Return whether the server was asked, and status and headers of the response to a request with that `Origin`, if it is not `None`.
        """
        first = () if origin is None else (f"Origin: {origin}",)
        asked, told = self.exchange(request(method, target, *first, *lines), answer)
        status, *fields = told.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        return bool(asked), int(status[9:12]), fields

    def assert_told(self, fields, *wanted):
        """
        Fail unless the `Vary` and `Access-Control-…` headers are exactly those.
        """
        self.assertEqual(sorted(field for field in fields if field.lower().startswith(("access-control-", "vary:"))), sorted(wanted))


class ResponseTests(CorsCase):
    """
    B38: whether a page may read a response.
    """

    def test_every_site(self):
        """If every site is allowed, all are told so, in the same words; caches need not keep them apart."""
        for attributes in (EVERYBODY, f'{EVERYBODY}\nallowed_origins = ["*"]'):
            self.pass_through(attributes)
            for origin in ("https://a.test", "null", None):
                asked, status, fields = self.ask_from(origin)
                self.assertEqual((asked, status), (True, 200))
                self.assert_told(fields, "Access-Control-Allow-Origin: *")

    def test_named(self):
        """Every one of the allowed sites is told its own name, and nobody is told another's."""
        self.pass_through(NAMED)
        for origin in ("https://a.test", "https://b.test:8443", "https://x.c.test"):
            _, _, fields = self.ask_from(origin)
            self.assert_told(fields, f"Access-Control-Allow-Origin: {origin}", "Vary: Origin")
        for origin in ("https://b.test", "http://a.test", "https://c.test", "https://a.test.evil.test", "null", "*", "", None):
            asked, status, fields = self.ask_from(origin)
            self.assertEqual((asked, status), (True, 200), origin)
            self.assert_told(fields, "Vary: Origin")

    def test_patterns(self):
        """A pattern has to match the whole origin."""
        self.pass_through('type = "cors"\nallowed_origin_patterns = ["https://[a-z]+\\\\.a\\\\.test"]')
        self.assert_told(self.ask_from("https://x.a.test")[2], "Access-Control-Allow-Origin: https://x.a.test", "Vary: Origin")
        for origin in ("https://x.a.test.evil.test", "https://xa.test", "https://a.test"):
            self.assert_told(self.ask_from(origin)[2], "Vary: Origin")

    def test_credentials_and_exposed(self):
        """Who is allowed learns what else it may do; others learn nothing."""
        self.pass_through(WITH_CREDENTIALS)
        self.assert_told(
            self.ask_from("https://a.test")[2],
            "Access-Control-Allow-Origin: https://a.test",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Expose-Headers: X-Total, Etag",
            "Vary: Origin",
        )
        self.assert_told(self.ask_from("https://evil.test")[2], "Vary: Origin")
        self.pass_through(f'{EVERYBODY}\nexposed_headers = ["*"]')
        self.assert_told(self.ask_from(None)[2], "Access-Control-Allow-Origin: *", "Access-Control-Expose-Headers: *")

    def test_server(self):
        """What the server says itself is replaced, for those who are allowed and for those who are not."""
        answer = response(
            "204 No Content",
            "access-control-allow-origin: *",
            "Access-Control-Allow-Origin: https://evil.test",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Allow-Methods: *",
            "Access-Control-Expose-Headers: *",
            "Access-Control-Max-Age: 1",
            "Timing-Allow-Origin: *",
        )
        self.pass_through(NAMED)
        for origin, told in [
            ("https://a.test", ["Access-Control-Allow-Origin: https://a.test"]),
            ("https://evil.test", []),
            (None, []),
        ]:
            _, _, fields = self.ask_from(origin, answer=answer)
            self.assert_told(fields, *told, "Vary: Origin")
            self.assertIn("Timing-Allow-Origin: *", fields)
        self.pass_through(EVERYBODY)
        self.assert_told(self.ask_from(None, answer=answer)[2], "Access-Control-Allow-Origin: *")

    def test_vary(self):
        """What the server says of caches is added to."""
        self.pass_through(NAMED)
        for lines, named in [
            (["Vary: Accept"], {"accept", "origin"}),
            (["Vary: Accept, origin"], {"accept", "origin"}),
            (["Vary: *"], {"*"}),
        ]:
            _, _, fields = self.ask_from("https://a.test", answer=response("204 No Content", *lines))
            values = [field.partition(": ")[2] for field in fields if field.lower().startswith("vary:")]
            found = [token.strip().lower() for value in values for token in value.split(",")]
            self.assertEqual((set(found), len(found)), (named, len(named)))

    def test_own_answers(self):
        """B30: pages can read the gateway's errors too."""
        self.pass_through(NAMED, 'type = "body-limit"\nmax_body_bytes = 1')
        asked, status, fields = self.ask_from("https://a.test", "Content-Length: 5", method="POST")
        self.assertEqual((asked, status), (False, 413))
        self.assert_told(fields, "Access-Control-Allow-Origin: https://a.test", "Vary: Origin")
        self.pass_through(NAMED, answers_dials=False)
        self.say(self.client, request("GET", "/", "Origin: https://a.test"))
        self.dialogue.attempts[0].fail()
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), heard)
        self.assertIn(b"\r\nAccess-Control-Allow-Origin: https://a.test\r\n", heard)

    def test_origin_is_taken_away(self):
        """A middleware further inside may hide the origin from the server; the response is still for the page."""
        self.pass_through(NAMED, 'type = "headers"\nrequest_headers = { Origin = "" }')
        asked, told = self.exchange(request("GET", "/", "Origin: https://a.test"))
        self.assertNotIn(b"Origin", asked)
        self.assertIn(b"\r\nAccess-Control-Allow-Origin: https://a.test\r\n", told)

    def test_reload(self):
        """Another list counts from the next request on."""
        self.pass_through(NAMED)
        self.dialogue.reload(config(middlewares=['type = "cors"\nallowed_origins = ["https://new.test"]']))
        self.assert_told(self.ask_from("https://a.test")[2], "Vary: Origin")
        self.assert_told(self.ask_from("https://new.test")[2], "Access-Control-Allow-Origin: https://new.test", "Vary: Origin")


class PreflightTests(CorsCase):
    """
    B38: what browsers ask before they send something unusual.
    """

    VARY = "Vary: Origin, Access-Control-Request-Method"

    def preflight(self, origin, *lines, target="/"):
        """
        Return status and headers of the answer to a preflight, which no server sees.
        """
        asked, status, fields = self.ask_from(origin, *(lines or PREFLIGHT), method="OPTIONS", target=target)
        self.assertFalse(asked)
        return status, fields

    def test_every_site(self):
        """The defaults answer every site in the same words."""
        self.pass_through(EVERYBODY)
        status, fields = self.preflight("https://a.test")
        self.assertEqual(status, 204)
        self.assert_told(
            fields,
            "Access-Control-Allow-Origin: *",
            "Access-Control-Allow-Methods: GET, POST, PUT, DELETE, OPTIONS",
            "Access-Control-Allow-Headers: Content-Type, Authorization",
            "Access-Control-Max-Age: 86400",
            self.VARY,
        )
        self.assertEqual(self.dialogue.outcomes(), ["preflight"])

    def test_named(self):
        """An allowed site is told its own name and what it may do; names of methods are in upper case."""
        self.pass_through(f'{WITH_CREDENTIALS}\nallowed_methods = ["GET", "patch"]\nallowed_headers = ["X-A"]\nmax_age = 0')
        for origin in ("https://a.test", "https://b.test:8443", "https://x.c.test"):
            status, fields = self.preflight(origin)
            self.assertEqual(status, 204)
            self.assert_told(
                fields,
                f"Access-Control-Allow-Origin: {origin}",
                "Access-Control-Allow-Credentials: true",
                "Access-Control-Allow-Methods: GET, PATCH",
                "Access-Control-Allow-Headers: X-A",
                "Access-Control-Max-Age: 0",
                self.VARY,
            )

    def test_refused(self):
        """Another site is refused and told nothing."""
        self.pass_through(WITH_CREDENTIALS)
        for origin in ("https://evil.test", "null", "https://b.test"):
            self.say(self.client, request("OPTIONS", "/", f"Origin: {origin}", "X-Request-Id: r-1", *PREFLIGHT))
            head, _, body = self.hear(self.client).decode().partition("\r\n\r\n")
            self.assertTrue(head.startswith("HTTP/1.1 403 "), head)
            self.assert_told(head.split("\r\n"), self.VARY)
            self.assertEqual(json.loads(body), {"error": "Origin not allowed", "reason": "origin-refused", "request_id": "r-1"})
        self.assertEqual((self.dialogue.backends, set(self.dialogue.outcomes())), ([], {"origin-refused"}))

    def test_other_options(self):
        """`OPTIONS` that is no preflight is the server's to answer."""
        self.pass_through(NAMED)
        for origin, lines in [
            (None, ()),
            (None, PREFLIGHT),
            ("https://a.test", ()),
            ("https://evil.test", ()),
            ("https://a.test", ("Access-Control-Request-Headers: x-a",)),
        ]:
            asked, status, _ = self.ask_from(origin, *lines, method="OPTIONS")
            self.assertEqual((asked, status), (True, 200), (origin, lines))

    def test_other_methods(self):
        """Only `OPTIONS` is a preflight."""
        self.pass_through(NAMED)
        for method in ("GET", "POST", "DELETE"):
            self.assertTrue(self.ask_from("https://a.test", *PREFLIGHT, method=method)[0])

    def test_whatever_is_asked_for(self):
        """A star stands for what is asked for, so that it works with credentials; what could be no method or header is left out."""
        self.pass_through(f'{WITH_CREDENTIALS}\nallowed_methods = ["*"]\nallowed_headers = ["*"]')
        common = (
            "Access-Control-Allow-Origin: https://a.test",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Max-Age: 86400",
            f"{self.VARY}, Access-Control-Request-Headers",
        )
        for lines, told in [
            (PREFLIGHT, ["Access-Control-Allow-Methods: PUT", "Access-Control-Allow-Headers: content-type, x-a"]),
            (
                (
                    "Access-Control-Request-Method: patch",
                    "Access-Control-Request-Headers: a, ,b",
                    "Access-Control-Request-Headers: a b,c;d,authorization",
                ),
                ["Access-Control-Allow-Methods: patch", "Access-Control-Allow-Headers: a, b, authorization"],
            ),
            (("Access-Control-Request-Method: a b", "Access-Control-Request-Headers: \xe9"), []),
            (("Access-Control-Request-Method:",), []),
        ]:
            status, fields = self.preflight("https://a.test", *lines)
            self.assertEqual(status, 204)
            self.assert_told(fields, *common, *told)

    def test_no_headers(self):
        """If no unusual header is allowed, none is named."""
        self.pass_through(f"{EVERYBODY}\nallowed_headers = []")
        self.assertFalse([field for field in self.preflight("https://a.test")[1] if "Allow-Headers" in field])

    def test_private_network(self):
        """A public site that asks for a private network is let in only where that is allowed."""
        asking = (*PREFLIGHT, "Access-Control-Request-Private-Network: true")
        self.pass_through(f"{NAMED}\nallow_private_network = true")
        _, fields = self.preflight("https://a.test", *asking)
        self.assertIn("Access-Control-Allow-Private-Network: true", fields)
        self.assertIn(f"{self.VARY}, Access-Control-Request-Private-Network", fields)
        self.assertNotIn("Access-Control-Allow-Private-Network: true", self.preflight("https://a.test")[1])
        self.pass_through(NAMED)
        self.assertNotIn("Access-Control-Allow-Private-Network: true", self.preflight("https://a.test", *asking)[1])

    def test_outer_middlewares(self):
        """B30: headers that an outer middleware sets are on answers to preflights too."""
        self.pass_through('type = "headers"\nresponse_headers = { "X-Frame-Options" = "DENY" }', NAMED)
        self.assertIn("X-Frame-Options: DENY", self.preflight("https://a.test")[1])

    def test_connection(self):
        """The answer has no body, and the connection serves the next request."""
        self.pass_through(NAMED)
        self.say(
            self.client,
            request("OPTIONS", "/", "Origin: https://a.test", *PREFLIGHT) + request("OPTIONS", "/", "Origin: https://a.test", *PREFLIGHT),
        )
        heard = self.hear(self.client)
        self.assertEqual(heard.count(b"HTTP/1.1 204 No Content\r\n"), 2)
        self.assertEqual(heard.count(b"\r\n\r\n"), 2)
        self.assertNotIn(b"Content-Length", heard)


class AnyOriginTests(SynchronousTestCase):
    """
    Whatever a request says of its origin, only allowed sites are named.
    """

    pieces = st.sampled_from(
        ["https://", "a.test", "evil.test", ".", ":", "8443", "/", "@", "null", "*", ",", " ", "%", "\t", "\xe9", "x.c.test"]
    )

    @settings(max_examples=60, deadline=None)
    @given(st.lists(pieces, max_size=5), st.booleans())
    def test_only_allowed(self, pieces, is_preflight):
        """The only names in answers are those of the configuration."""
        dialogue = Dialogue(config(middlewares=[WITH_CREDENTIALS]))
        client = dialogue.connect()
        lines = ("Origin: " + "".join(pieces), *(PREFLIGHT if is_preflight else ()))
        dialogue.say(client, request("OPTIONS" if is_preflight else "GET", "/", *lines))
        if dialogue.backends:
            dialogue.say(dialogue.backend(), OK)
        named = [line for line in dialogue.hear(client).split(b"\r\n") if line.startswith(b"Access-Control-Allow-Origin: ")]
        self.assertLessEqual(len(named), 1)
        for line in named:
            self.assertIn(line.partition(b": ")[2], (b"https://a.test", b"https://b.test:8443", b"https://x.c.test"))


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "cors"

    def test_accepted(self):
        """Sites are named in many ways."""
        self.assert_accepted(
            "",
            'allowed_origins = ["*"]\nallowed_headers = ["*"]\nallowed_methods = ["*"]\nexposed_headers = ["*"]',
            'allowed_origins = ["https://*.a.test", "null", "http://localhost:*"]',
            'allowed_origins = ["https://a.test"]\nallow_credentials = true\nallowed_headers = ["*"]\nallowed_methods = ["*"]',
            'allowed_origin_patterns = ["https://.*"]',
            'allowed_origin_patterns = ["https://.*\\\\.a\\\\.test"]\nallow_credentials = true',
        )

    def test_credentials(self):
        """Credentials are for sites that are named: never for every site, in whatever words."""
        self.assert_refused(
            [
                ("allow_credentials = true", 'gw.hcl:13:21: middleware "m1" allows credentials to every site, so any of them could act'),
                ('allowed_origins = ["*"]\nallow_credentials = true', 'gw.hcl:14:21: middleware "m1" allows credentials to every site'),
                (
                    'allowed_origins = ["https://a.test", "null"]\nallow_credentials = true',
                    'gw.hcl:13:19: middleware "m1" allows credentials to "null"',
                ),
                (
                    'allowed_origin_patterns = ["https://a\\\\.test", "https://.*"]\nallow_credentials = true',
                    'gw.hcl:13:48: middleware "m1" allows credentials to every site, because each matches this pattern',
                ),
                (
                    'allowed_origin_patterns = [".+"]\nallow_credentials = true',
                    'gw.hcl:13:28: middleware "m1" allows credentials to every site',
                ),
                (
                    'allowed_origins = ["https://a.test"]\nexposed_headers = ["*"]\nallow_credentials = true',
                    'gw.hcl:14:19: middleware "m1" exposes "*"',
                ),
            ]
        )

    def test_refusals(self):
        """What is no origin, pattern, method or header is refused."""
        self.assert_refused(
            [
                ("allowed_origins = []", "gw.hcl:13:19: middlewares.m1.allowed_origins is an empty list"),
                (
                    'allowed_origins = ["a.test"]',
                    'gw.hcl:13:20: middlewares.m1.allowed_origins[0] is "a.test", which is neither "*" nor an origin',
                ),
                (
                    'allowed_origins = ["https://a.test/"]',
                    'gw.hcl:13:20: middlewares.m1.allowed_origins[0] is "https://a.test/", which has a path',
                ),
                (
                    'allowed_origins = ["https://*"]',
                    'gw.hcl:13:20: middlewares.m1.allowed_origins[0] is "https://*", which is every site there is',
                ),
                (
                    'allowed_origins = ["https://a.*"]',
                    'gw.hcl:13:20: middlewares.m1.allowed_origins[0] is "https://a.*", whose host is none',
                ),
                ('allowed_origin_patterns = ["("]', 'gw.hcl:13:28: middlewares.m1.allowed_origin_patterns[0] is "(", which is not an RE2'),
                ('allowed_methods = ["a b"]', "gw.hcl:13:20: middlewares.m1.allowed_methods[0] is"),
                ('allowed_headers = ["a b"]', "gw.hcl:13:20: middlewares.m1.allowed_headers[0] is"),
                ("max_age = -1", "gw.hcl:13:11: middlewares.m1.max_age is -1, which is not from 0 to"),
            ]
        )

    def test_advice(self):
        """Naming sites beside every site is allowed, but worth a word."""
        self.assertIn('allowed_origins holds "*", which is every site', self.advice('allowed_origins = ["*", "https://a.test"]')[0])
        self.assertEqual(self.advice('allowed_origins = ["*"]'), [])
