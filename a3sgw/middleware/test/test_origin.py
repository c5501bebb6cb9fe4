"""
Tests of sets of origins.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.middleware.origin import OriginSet, read_origin


class OriginTests(SynchronousTestCase):
    """
    Which sites are meant.
    """

    def check(self, origins, meant=(), not_meant=(), patterns=()):
        found = OriginSet(origins, patterns)
        for origin in meant:
            self.assertIn(origin.encode("latin-1"), found)
        for origin in not_meant:
            self.assertNotIn(origin.encode("latin-1"), found)

    def test_exact(self):
        """An origin is scheme, host and port; every one of the list is meant, and the scheme's own port is none."""
        self.check(
            ["https://a.test", "HTTP://B.Test:8080", "https://c.test:443", "http://d.test:80", "https://[2001:DB8:0::1]:8443"],
            ["https://a.test", "http://b.test:8080", "https://c.test", "http://d.test", "https://[2001:db8::1]:8443"],
            [
                "http://a.test",
                "https://a.test:8443",
                "https://x.a.test",
                "http://b.test",
                "https://a.test.evil.test",
                "https://a.testx",
                "",
            ],
        )

    def test_names(self):
        """International names are written as people do, and compared as browsers send them."""
        self.check(["https://müller.example"], ["https://xn--mller-kva.example"], ["https://m\xfcller.example"])

    def test_wildcard(self):
        """A star is exactly one label."""
        self.check(
            ["https://*.a.test", "https://*.b.test:8443", "https://*.c.test:*"],
            [
                "https://x.a.test",
                "https://x-1.a.test",
                "https://x.b.test:8443",
                "https://x.c.test",
                "https://x.c.test:1",
                "https://x.c.test:65535",
            ],
            [
                "https://a.test",
                "https://x.y.a.test",
                "https://.a.test",
                "http://x.a.test",
                "https://x.a.test:8443",
                "https://xa.test",
                "https://x.a.test.evil.test",
                "https://evil.test/x.a.test",
                "https://evil.test#.a.test",
                "https://evil.test?.a.test",
                "https://user@x.a.test",
                "https://evil%.a.test",
                "https://X.A.TEST",
                "https://x.b.test",
                "https://x.b.test:84430",
                "https://x.c.test:",
                "https://x.c.test:123456",
                "https://x.c.test:80:80",
            ],
        )

    def test_any_port(self):
        """A star may stand for the port."""
        self.check(
            ["http://localhost:*", "http://[::1]:*"],
            ["http://localhost", "http://localhost:3000", "http://[::1]", "http://[::1]:5173"],
            ["https://localhost:3000", "http://localhost:", "http://localhost.evil.test:3000", "http://x.localhost:3000", "http://[::2]:1"],
        )

    def test_null(self):
        """Pages without a site of their own are meant only if they are named."""
        self.check(["null"], ["null"], ["", "Null", "null://", "https://null"])
        self.check(["https://a.test"], [], ["null"])

    def test_other_schemes(self):
        """Extensions and applications have origins too."""
        self.check(
            ["chrome-extension://abcdefgh", "capacitor://localhost"],
            ["chrome-extension://abcdefgh", "capacitor://localhost"],
            ["http://localhost"],
        )

    def test_patterns(self):
        """A pattern has to match the whole origin."""
        self.check(
            ["https://b.test"],
            ["https://b.test", "https://a.test", "https://x.y.a.test"],
            ["https://a.test.evil.test", "xhttps://a.test", "http://a.test", "https://a.test\n", "https://\xff.a.test"],
            patterns=["https://([a-z]+\\.)*a\\.test", "never"],
        )

    def test_refusals(self):
        """What no browser sends is refused; reasons do not repeat the value."""
        for text in (
            "secret.test",
            "//secret.test",
            "https:secret.test",
            "1ttp://secret.test",
            "https://",
            "https://secret.test/",
            "https://secret.test/path",
            "https://secret.test?x",
            "https://*",
            "https://*:8080",
            "https://*:*",
            "https://secret.*.test",
            "https://*secret.test",
            "https://secret.test:0",
            "https://secret.test:65536",
            "https://secret.test:x",
            "https://secret@a.test",
            "https://secret a.test",
            "https://[secret]",
            "https://2001:db8::1",
            "ht*p://secret.test",
        ):
            error = self.assertRaises(ValueError, read_origin, text)
            self.assertTrue(str(error).startswith(("which ", "whose ")), error)
            self.assertNotIn("secret", str(error))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=40))
    def test_any_origin(self, origin):
        """No origin makes it fail, and none is meant by accident."""
        sites = OriginSet(["https://a.test", "https://*.a.test", "http://a.test:*"], ["https://b\\.test"])
        self.assertEqual(origin in sites, origin in (b"https://a.test", b"https://b.test"))
