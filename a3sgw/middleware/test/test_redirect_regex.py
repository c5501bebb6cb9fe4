"""
Tests of `redirect-regex`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook
from a3sgw.middleware import redirect_regex
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import request
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.middleware.test.test_redirect_scheme import RedirectCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue, middleware_contract

TRUSTING = 'forwarded_headers { trusted_ips = ["192.0.2.1"] }'


def by_regex(regex, replacement, more=""):
    """
    Return the attributes that redirect what matches `regex`, written as in HCL.
    """
    return f'type = "redirect-regex"\nregex = "{regex}"\nreplacement = "{replacement}"\n{more}'


class RedirectRegexContract(middleware_contract(redirect_regex.factory, 'regex = "^(.*)$"\nreplacement = "https://b.test/?$1"')):
    """
    `redirect-regex` is a middleware.
    """

    def test_phases(self):
        """It looks at heads."""
        verifyObject(IRequestHook, redirect_regex.RedirectRegex(self.config(), still_surroundings("x")))


class UrlTests(RedirectCase):
    """
    The pattern sees the URL that the client asked for.
    """

    WITHOUT_WWW = by_regex("^https?://www\\\\.(.+)$", "https://$1")

    def ask_host(self, host, target="/"):
        return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def test_host(self):
        """Clients are sent from one host to another, with path and query; whoever is there already passes."""
        self.pass_through(self.WITHOUT_WWW)
        self.assert_sent(self.ask_host("www.a.test", "/x?y=1"), "https://a.test/x?y=1")
        self.assert_sent(self.ask_host("WWW.A.test.", "/x"), "https://a.test/x")
        self.assert_sent(self.ask_host("www.a.test:8080", "/"), "https://a.test:8080/")
        self.assert_sent(self.ask_host("www.a.test:80", "/"), "https://a.test/")
        self.assert_sent(self.ask_host("www.a.test", "http://www.a.test/x"), "https://a.test/x")
        self.assert_passes(self.ask_host("a.test"))
        self.assert_passes(self.ask_host("wwwa.test"))

    def test_spellings(self):
        """Addresses are hosts too, with their brackets; a port stands in the URL unless it is the scheme's own."""
        self.pass_through(by_regex("/x$", "/y"))
        for host in ("[2001:db8::1]", "[2001:db8::1]:8080", "80", "192.0.2.9", "a.test:443"):
            self.assert_sent(self.ask_host(host, "/x"), f"http://{host}/y")
        for host, kept in [("[2001:db8::1]:80", "[2001:db8::1]"), ("a.test:", "a.test")]:
            self.assert_sent(self.ask_host(host, "/x"), f"http://{kept}/y")

    def test_path(self):
        """A result may be a path on the same host; what is matched is the canonical path."""
        self.pass_through(by_regex("^https?://[^/]+/old/(?P<rest>[^?]*)(?:\\\\?(.*))?$", "/new/$${rest}?from=old&$2#top"))
        self.assert_sent(request("GET", "/old/a/b?c"), "/new/a/b?from=old&c#top")
        self.assert_sent(request("GET", "/x/..//%6fld/a"), "/new/a?from=old&#top")
        self.assert_passes(request("GET", "/new/a"))

    def test_not_anchored(self):
        """A pattern may match anywhere, and each match is replaced."""
        self.pass_through(by_regex("-", "_"))
        self.assert_sent(request("GET", "/a-b?c-d"), "http://a.test/a_b?c_d")

    def test_statuses(self):
        """Statuses are those of `redirect-scheme`."""
        for more, statuses in [("", (302, 302, 307)), ("permanent = true", (301, 301, 308))]:
            self.pass_through(by_regex("/x$", "/y", more))
            for method, status in zip(("GET", "HEAD", "POST"), statuses, strict=True):
                self.assert_sent(request(method, "/x"), "http://a.test/y", status)
            self.client.close()

    def test_no_circles(self):
        """A URL that stays the same passes."""
        self.pass_through(by_regex("^http://([^/]+)/(.*)$", "http://$1/$2"))
        self.assert_passes(request("GET", "/x?y"))
        self.pass_through(by_regex("^(https?)://[^/]+/(.*)$", "https://a.test/$2"), entrypoint=TRUSTING)
        self.assert_sent(request("GET", "/x"), "https://a.test/x")
        self.assert_passes(request("GET", "/x", "X-Forwarded-Proto: https"))

    def test_proxies(self):
        """Scheme and host are those that a trusted proxy reports, and nobody else."""
        regex = by_regex("^https://shop\\\\.test/(.*)$", "https://www.shop.test/$1")
        lines = ("X-Forwarded-Proto: https", "X-Forwarded-Host: shop.test:443")
        self.pass_through(regex, entrypoint=TRUSTING)
        self.assert_sent(request("GET", "/x", *lines), "https://www.shop.test/x")
        self.pass_through(regex)
        self.assert_passes(request("GET", "/x", *lines))

    def test_no_host(self):
        """A client that names no host is sent to a URL only if that needs none of its own."""
        self.pass_through(by_regex("^http://[^/]*/old$", "https://b.test/new"))
        self.assert_sent(b"GET /old HTTP/1.0\r\n\r\n", "https://b.test/new")
        self.pass_through(by_regex("^http://([^/]*)/old$", "https://$1/new"))
        self.say(self.client, b"GET /old HTTP/1.0\r\n\r\n")
        self.assert_refused(400, "target-malformed")

    def test_no_path(self):
        """`OPTIONS *` counts as the root."""
        self.converse()
        self.dialogue.reload(config(middlewares=[by_regex("^http:", "https:")]).replace("PathPrefix(`/`)", "Host(`a.test`)"))
        self.assert_sent(request("OPTIONS", "*"), "https://a.test/", 307)


class OpenTests(RedirectCase):
    """
    Nobody can make a link to this host lead elsewhere.
    """

    def test_refused(self):
        """What is no URL of a host, and no path, is answered 400."""
        for regex, replacement, target in [
            ("^http://[^/]+(/.*)$", "$1", "//evil.test/"),
            ("^http://[^/]+/(.*)$", "/$1", "//evil.test/"),
            ("^http://[^/]+/(.*)$", "/$1", "/%5Cevil.test/"),
            ("^http://[^/]+/(.*)$", "$1", "/javascript:alert(1)"),
            ("^http://[^/]+/(.*)$", "$1", "/ftp://evil.test/"),
            ("^http://[^/]+/(.*)$", "https://$1", "/a@evil.test/"),
            ("^http://[^/]+/(.*)$", "https:$1", "/evil.test"),
            ("^http://[^/]+/(.*)$", "https://$1", "/"),
            ("^http://[^/]+/(.*)$", "", "/x"),
        ]:
            self.pass_through(
                by_regex(regex, replacement), entrypoint="merge_slashes = false\nencoded_characters { allow_encoded_backslash = true }"
            )
            self.say(self.client, request("GET", target))
            if target == "/%5Cevil.test/":
                # Written with its escape, it is no backslash to a browser.
                self.assertIn(b"\r\nLocation: /%5Cevil.test/\r\n", self.hear(self.client))
            else:
                self.assert_refused(400, "target-malformed")

    def test_too_long(self):
        """A result that no client would take is refused."""
        self.pass_through(by_regex("a", "$0" * 400))
        self.say(self.client, request("GET", "/" + "a" * 8000))
        self.assert_refused(414, "request-line-too-long")


class AnyTargetTests(SynchronousTestCase):
    """
    Whatever the client asks for, it is sent nowhere but to the host that the configuration names.
    """

    pieces = st.sampled_from(["/", "//", "\\", "@", ":", "evil.test", "https:", "%0d%0aX-Evil:1", "%5c", "?", "..", "a", ";", "$1"])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(pieces, max_size=8))
    def test_location(self, pieces):
        """The answer is one redirection with one `Location`, or a refusal."""
        dialogue = Dialogue(config(middlewares=[by_regex("^http://[^/]+/(.*)$", "https://b.test/$1")]))
        client = dialogue.connect()
        dialogue.say(client, request("GET", "/" + "".join(pieces)))
        heard = dialogue.hear(client)
        status = heard[9:12]
        self.assertIn(status, (b"302", b"400"))
        self.assertEqual(heard.count(b"\r\nLocation: https://b.test/"), status == b"302")
        self.assertNotIn(b"\r\nX-Evil", heard)


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "redirect-regex"

    def test_refusals(self):
        """There is a pattern that can be read, with a replacement that fits it."""
        self.assert_accepted('regex = "^http://(.*)$"\nreplacement = "https://$1"')
        self.assert_refused(
            [
                ('regex = "a"', 'gw.hcl:11:1: middleware "m1" lacks "replacement", which is required'),
                ('regex = "(?=a)"\nreplacement = "b"', 'gw.hcl:13:9: middlewares.m1.regex is "(?=a)", which is not an RE2 pattern'),
                ('regex = "a"\nreplacement = "\\n"', 'gw.hcl:14:15: middlewares.m1.replacement is "\\n", which holds a blank or'),
                (
                    'regex = "(a)"\nreplacement = "$2"',
                    "gw.hcl:14:15: middlewares.m1.replacement names the group 2, but the pattern has only 1",
                ),
            ]
        )
