"""
Tests of `a3sgw.route.argument`.
"""

import time

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.route.argument import (
    HostPattern,
    quote,
    read_field_name,
    read_field_value,
    read_host,
    read_method,
    read_network,
    read_path,
    read_path_prefix,
    read_path_segments,
    read_pattern,
    read_protocol,
    read_server_name,
)


class ReaderTestCase(SynchronousTestCase):
    def assert_read(self, reader, cases):
        for text, expected in cases:
            self.assertEqual(reader(text), expected, text)

    def assert_refused(self, reader, cases):
        for text, part in cases:
            error = self.assertRaises(ValueError, reader, text)
            self.assertIn(part, str(error), text)


class ReadHostTests(ReaderTestCase):
    def test_accepted(self):
        """
        A host is a name, a wildcard, or an address, with or without a port; letter case and a trailing dot do not matter.
        """
        self.assert_read(
            read_host,
            [
                ("a.test", HostPattern(b"a.test")),
                ("A.Test.", HostPattern(b"a.test")),
                ("localhost", HostPattern(b"localhost")),
                ("my_service.ns", HostPattern(b"my_service.ns")),
                ("192.0.2.7", HostPattern(b"192.0.2.7")),
                ("*.a.test", HostPattern(b"a.test", is_wildcard=True)),
                ("a.test:8080", HostPattern(b"a.test", port=b":8080")),
                ("a.test.:080", HostPattern(b"a.test", port=b":80")),
                ("*.a.test:443", HostPattern(b"a.test", is_wildcard=True, port=b":443")),
                ("[::1]", HostPattern(b"[::1]")),
                ("[2001:DB8:0::5]:8080", HostPattern(b"[2001:db8::5]", port=b":8080")),
                ("bücher.test", HostPattern(b"xn--bcher-kva.test")),
                ("*.BÜCHER.test:80", HostPattern(b"xn--bcher-kva.test", is_wildcard=True, port=b":80")),
                ("straße.test", HostPattern(b"xn--strae-oqa.test")),
            ],
        )

    def test_refused(self):
        """
        What is no host is refused, and the message says what to write.
        """
        self.assert_refused(
            read_host,
            [
                ("", "not a host name"),
                ("http://a.test", "write the name alone"),
                ("a.test/x", "PathPrefix"),
                ("a test", "not a host name"),
                ("a..test", "not a host name"),
                (".a.test", "not a host name"),
                ("a" * 64, "not a host name"),
                (".".join(["a" * 49] * 6), "not a host name"),
                ("*", "leave the Host matcher out"),
                ("*:80", "leave the Host matcher out"),
                ("**.a.test", "misplaced star"),
                ("a.*.test", "misplaced star"),
                ("www*.a.test", "misplaced star"),
                ("a.test:", "bad port"),
                ("a.test:0", "bad port"),
                ("a.test:65536", "bad port"),
                ("a.test:http", "bad port"),
                ("a.test:" + "9" * 5000, "bad port"),
                ("::1", "brackets"),
                ("[::1", "brackets"),
                ("[a.test]", "only an IPv6 address"),
                ("[1.2.3.4]", "only an IPv6 address"),
                ("[fe80::1%eth0]", "zone"),
                ("[::g]", "no IPv6 address"),
                ("bü cher.test", "internationalised"),
            ],
        )


class ReadServerNameTests(ReaderTestCase):
    def test_accepted(self):
        """
        A server name is a name, a wildcard, or `*` for every connection.
        """
        self.assert_read(
            read_server_name,
            [
                ("A.test.", HostPattern(b"a.test")),
                ("*.a.test", HostPattern(b"a.test", is_wildcard=True)),
                ("*", HostPattern(b"", is_wildcard=True)),
            ],
        )
        self.assertTrue(read_server_name("*").is_everything)
        self.assertFalse(read_server_name("*.a.test").is_everything)

    def test_refused(self):
        """
        A server name has neither port nor scheme nor path.
        """
        self.assert_refused(read_server_name, [("a.test:443", "without scheme"), ("a.test/", "without scheme"), ("", "not a host name")])


class HostPatternTests(SynchronousTestCase):
    def test_admits(self):
        """
        A wildcard is exactly one label, and never the parent itself.
        """
        for text, host, expected in [
            ("a.test", b"a.test", True),
            ("a.test", b"x.a.test", False),
            ("*.a.test", b"x.a.test", True),
            ("*.a.test", b"x.y.a.test", False),
            ("*.a.test", b"a.test", False),
            ("*.a.test", b".a.test", False),
            ("*.a.test", b"", False),
            ("*", b"", True),
            ("*", b"a.test", True),
        ]:
            self.assertEqual(read_server_name(text).admits(host), expected, (text, host))


class ReadPathTests(ReaderTestCase):
    def test_accepted(self):
        """
        A path argument is kept as it is written.
        """
        for reader in (read_path, read_path_prefix):
            self.assert_read(
                reader,
                [(path, path.encode()) for path in ("/", "/a//b", "/a%20b", "/%C3%A9", "/a.b/..c", "/%2F", "/a;b=c:@!$&'()*+,")],
            )
        self.assert_read(read_path_prefix, [("/.", b"/."), ("/a/..", b"/a/..")])
        self.assert_read(read_path_segments, [("/", b""), ("/api", b"/api"), ("/api/", b"/api")])

    def test_refused(self):
        """
        A path that no request can have is refused, and the message says how requests spell it.
        """
        for reader in (read_path, read_path_prefix, read_path_segments):
            self.assert_refused(
                reader,
                [
                    ("", "begin with a slash"),
                    ("api", "begin with a slash"),
                    ("/a?b=1", "Query matcher"),
                    ("/a#b", "fragment"),
                    ("/a/../b", "resolved"),
                    ("/./a", "resolved"),
                    ("/a b", "write %20"),
                    ("/é", "write %C3%A9"),
                    ("/a\n", "write %0A"),
                    ("/%61dmin", "write a"),
                    ("/%7E", "write ~"),
                    ("/%c3%A9", "write %C3"),
                    ("/100%", "write %25"),
                    ("/%zz", "write %25"),
                ],
            )
        self.assert_refused(read_path, [("/.", "resolved"), ("/a/..", "resolved")])


class ReadPatternTests(ReaderTestCase):
    def test_search(self):
        """
        A pattern is Go's: not anchored, and `$` is the end of the text only.
        """
        for pattern, text, expected in [
            ("b", b"abc", True),
            ("^b", b"abc", False),
            ("a$", b"a\n", False),
            (r"^/v\d+/", b"/v12/x", True),
            ("(?i)^A$", b"a", True),
            ("(?P<n>a)", b"a", True),
            (r"\p{Greek}", "λ".encode(), True),
            ("", b"", True),
            (".", b"\xff", False),
        ]:
            self.assertEqual(read_pattern(pattern).search(text) is not None, expected, pattern)

    def test_refused(self):
        """
        What RE2 cannot read, or what would be costly, is refused.
        """
        self.assert_refused(
            read_pattern,
            [
                ("(", "missing )"),
                ("a**", "not an RE2 pattern"),
                ("(?!a)", "not an RE2 pattern"),
                (r"(a)\1", "not an RE2 pattern"),
                ("a" * 1001, "1001 characters"),
                ("(x{0,99}){0,99}", "not an RE2 pattern"),
                ("(.*a){900}", "too costly"),
                (r"(\pL{0,100}){5}$", "too large"),
            ],
        )

    def test_linear(self):
        """
        A pattern made to explode answers a long text at once.
        """
        text = b"a" * 100_000 + b"!"
        for pattern in ["(a+)+$", "(a|a)*b$", "(a|aa)+$", "(.*)*b$", "(a*)*(a*)*(a*)*c"]:
            compiled = read_pattern(pattern)
            started = time.perf_counter()
            self.assertIsNone(compiled.search(text), pattern)
            # A backtracking engine would need longer than the age of the universe; the bound leaves room for a busy machine.
            self.assertLess(time.perf_counter() - started, 2.0, pattern)


class OtherReaderTests(ReaderTestCase):
    def test_accepted(self):
        """
        Methods and header names lose their letter case, networks their blanks.
        """
        self.assert_read(read_method, [("get", b"GET"), ("M-SEARCH", b"M-SEARCH")])
        self.assert_read(read_field_name, [("X-Tenant", b"x-tenant"), ("Host", b"host")])
        self.assert_read(read_field_value, [("", b""), ("a b", b"a b"), ("é", "é".encode())])
        self.assert_read(read_network, [(" 10.0.0.1/8 ", "10.0.0.1/8"), ("::1", "::1")])
        self.assert_read(read_protocol, [("h2", b"h2")])

    def test_refused(self):
        """
        What can never be met is refused.
        """
        self.assert_refused(read_method, [("", "not a method"), ("GET POST", "not a method")])
        self.assert_refused(
            read_field_name,
            [("", "not a header name"), ("X Tenant", "not a header name"), ("X-Tenant:", "not a header name"), ("Upgrade", "taken out")],
        )
        self.assert_refused(read_field_value, [(" a", "blanks"), ("a\t", "blanks"), ("a\nb", "control"), ("a\0", "control")])
        self.assert_refused(read_network, [("a.test", "not an IP address"), ("10.0.0.0/33", "from 0 to 32")])
        self.assert_refused(read_protocol, [("", "ALPN"), ("x" * 256, "ALPN")])

    def test_quote(self):
        """
        A quoted value stays on one line and is not longer than a line should be.
        """
        self.assertEqual(quote('a"\n'), '"a\\"\\n"')
        self.assertEqual(quote("a" * 81), f'"{"a" * 80}…"')
