"""
Tests for `a3sgw.wire.fields`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.wire.fields import (
    CLIENT_KINDS,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    DATE,
    EXPECT,
    FORBIDDEN_TRAILERS,
    FORWARDED,
    HOP_BY_HOP,
    HOST,
    KEEP_ALIVE,
    LOOKALIKE,
    PLAIN,
    REFERER,
    REQUEST_ID,
    REQUEST_KINDS,
    RESPONSE_KINDS,
    TE,
    TRANSFER_ENCODING,
    UNDERSCORE,
    UPGRADE,
    USER_AGENT,
    LineTable,
    parse_authority,
)

CASES = settings(deadline=None, max_examples=200, derandomize=True)


def request_lines():
    return LineTable(REQUEST_KINDS, internal_prefix=b"x-gateway-")


def verdict(table, line):
    """
    Ask for a verdict as the readers do.
    """
    return table.get(line) or table.judge(line)


def outcome(table, line):
    try:
        return verdict(table, line)
    except ProtocolError as error:
        return error.outcome


def remembered(table):
    """
    Return every line the table remembers.
    """
    return set(table._lines)


class AuthorityTests(SynchronousTestCase):
    """
    Tests for `parse_authority`.
    """

    def test_accepted(self):
        """
        The host is what stands before the port, in lower case and without the dot of the root.
        """
        for authority, host in {
            b"a": b"a",
            b"Shop.Example.COM": b"shop.example.com",
            b"a.test.": b"a.test",
            b"a.test.:80": b"a.test",
            b"a.test:": b"a.test",
            b"a.test:0": b"a.test",
            b"a.test:65535": b"a.test",
            b"my_service": b"my_service",
            b"xn--bcher-kva.test": b"xn--bcher-kva.test",
            b"10.0.0.1:8080": b"10.0.0.1",
            b"[::1]": b"[::1]",
            b"[2001:DB8::1]:443": b"[2001:db8::1]",
            b"[::ffff:10.0.0.1]": b"[::ffff:10.0.0.1]",
            b"a" * 255: b"a" * 255,
        }.items():
            self.assertEqual(parse_authority(authority), host, authority)

    def test_refused(self):
        """
        What is no host, or might be two, is refused.
        """
        for authority in [
            b"",
            b".",
            b":80",
            b"a, b",
            b"a,b",
            b"a b",
            b"a\tb",
            b"user@a",
            b"user:secret@a",
            b"a/b",
            b"a\\b",
            b"a?b",
            b"a#b",
            b"a..b",
            b".a",
            b"a..",
            b"-a",
            b"a%2eb",
            b"a\x00b",
            b"\xc3\xa9.test",
            b"a:65536",
            b"a:99999",
            b"a:123456",
            b"a:-1",
            b"a:+80",
            b"a:80:80",
            b"a:http",
            b"a:8 0",
            b"::1",
            b"[::1",
            b"::1]",
            b"[]",
            b"[:::]",
            b"[1.2.3.4]",
            b"[a]",
            b"[::1]a",
            b"[::1%eth0]",
            b"[::1%25eth0]",
            b"[v1.a]",
            b"[::1]]",
            b"a" * 256,
            b"http://a",
        ]:
            with self.assertRaises(ProtocolError, msg=authority) as caught:
                parse_authority(authority)
            self.assertEqual(caught.exception.outcome, Outcome.HOST_MALFORMED, authority)


class VerdictTests(SynchronousTestCase):
    """
    What a table says about single lines.
    """

    def test_grpc(self):
        """Only the content types of gRPC are looked at, and only in what clients send."""
        table = LineTable(CLIENT_KINDS)
        for line in (b"Content-Type: application/grpc+proto", b"content-type:application/grpc"):
            for _ in range(2):
                kind, field, extra = table.get(line) or table.judge(line)
                self.assertEqual((kind, field.name, extra), (CONTENT_TYPE, b"content-type", b"application/grpc"))
        self.assertEqual(verdict(table, b"Content-Type: text/html")[0], PLAIN)
        self.assertEqual(verdict(table, b"Content_Type: application/grpc")[0], UNDERSCORE)
        self.assertEqual(verdict(LineTable(REQUEST_KINDS), b"Content-Type: application/grpc")[0], PLAIN)

    def test_kinds(self):
        """
        The kind of a line is that of its name, however it is written.
        """
        for line, kind in {
            b"Accept: */*": PLAIN,
            b"Host: a": HOST,
            b"hOST:a": HOST,
            b"Content-Length: 5": CONTENT_LENGTH,
            b"Transfer-Encoding: chunked": TRANSFER_ENCODING,
            b"Connection: close": CONNECTION,
            b"Keep-Alive: timeout=5": HOP_BY_HOP,
            b"Proxy-Connection: close": HOP_BY_HOP,
            b"Proxy-Authorization: Basic x": HOP_BY_HOP,
            b"Upgrade: h2c": UPGRADE,
            b"HTTP2-Settings: AAMAAABkAAQ": HOP_BY_HOP,
            b"X-Gateway-Retry-Max: 9": HOP_BY_HOP,
            b"X-Forwarded-For: 10.0.0.1": FORWARDED,
            b"Forwarded: for=10.0.0.1": FORWARDED,
            b"X-Real-IP: 10.0.0.1": FORWARDED,
            b"Expect: 100-Continue": EXPECT,
            b"TE: trailers": TE,
            b"User-Agent: curl": USER_AGENT,
            b"Referer: http://a/": REFERER,
            b"X-Request-Id: 7": REQUEST_ID,
            b"X_User: 1": UNDERSCORE,
            b"X_Forwarded_For: 10.0.0.1": LOOKALIKE,
            b"X-Forwarded_For: 10.0.0.1": LOOKALIKE,
            b"Content_Length: 5": LOOKALIKE,
            b"Transfer_Encoding: chunked": LOOKALIKE,
            b"x_gateway_a: 5": LOOKALIKE,
        }.items():
            self.assertEqual(verdict(request_lines(), line)[0], kind, line)
        self.assertEqual(verdict(LineTable(RESPONSE_KINDS), b"Date: now")[0], DATE)
        self.assertEqual(verdict(LineTable(RESPONSE_KINDS), b"Host: not a host")[0], PLAIN)

    def test_field(self):
        """
        A field keeps its line as it came, its name in lower case and its value without the blanks around it.
        """
        for line, name, value in [
            (b"X-Test: a", b"x-test", b"a"),
            (b"X-Test:a", b"x-test", b"a"),
            (b"X-Test:  \t a b\tc \t", b"x-test", b"a b\tc"),
            (b"X-Test:", b"x-test", b""),
            (b"X-Test: :a: b", b"x-test", b":a: b"),
            (b"!#$%&'*+-.^`|~0aZ: \xff\x80", b"!#$%&'*+-.^`|~0az", b"\xff\x80"),
        ]:
            self.assertEqual(tuple(verdict(request_lines(), line)[1]), (name, value, line))

    def test_refused(self):
        """
        A line that is not exactly a name, a colon and a value is refused, the first time and every time after.
        """
        for line, expected in {
            b"A": Outcome.HEADER_MALFORMED,
            b"": Outcome.HEADER_MALFORMED,
            b": a": Outcome.HEADER_MALFORMED,
            b"A : a": Outcome.HEADER_MALFORMED,
            b"A\t: a": Outcome.HEADER_MALFORMED,
            b"A B: a": Outcome.HEADER_MALFORMED,
            b"A\x00: a": Outcome.HEADER_MALFORMED,
            b"A\x0b: a": Outcome.HEADER_MALFORMED,
            b"A(: a": Outcome.HEADER_MALFORMED,
            b"A\xe9: a": Outcome.HEADER_MALFORMED,
            b" A: a": Outcome.FOLDED_HEADER,
            b"\tA: a": Outcome.FOLDED_HEADER,
            b"A: a\x00": Outcome.HEADER_MALFORMED,
            b"A: a\x7f": Outcome.HEADER_MALFORMED,
            b"A: \x1b[0m": Outcome.HEADER_MALFORMED,
            b"A:\x0ba": Outcome.HEADER_MALFORMED,
            b"A: a\x0c": Outcome.HEADER_MALFORMED,
            b"A: a\rB: b": Outcome.BARE_LINE_BREAK,
            b"A: a\nB: b": Outcome.BARE_LINE_BREAK,
            b"A\nB: b": Outcome.BARE_LINE_BREAK,
            b"A: a\r": Outcome.BARE_LINE_BREAK,
        }.items():
            table = request_lines()
            self.assertEqual(outcome(table, line), expected, line)
            # Also once the name is known.
            table.judge(b"A: good")
            self.assertEqual(outcome(table, line), expected, line)
            self.assertEqual(outcome(table, line), expected, line)
            self.assertEqual(remembered(table), {b"A: good"})

    def test_lengths(self):
        """
        A length is digits, not too many of them.
        """
        for value, expected in [(b"0", 0), (b"5", 5), (b"0005", 5), (b"9" * 18, 10**18 - 1), (b" \t7 ", 7)]:
            self.assertEqual(verdict(request_lines(), b"Content-Length:" + value)[2], expected)
        for value in [b"", b"+5", b"-5", b"-0", b"5, 5", b"5,5", b"5 5", b"0x5", b"5.0", b"5e1", b"five", b"5;", b"1_0", b"9" * 19]:
            self.assertEqual(outcome(request_lines(), b"Content-Length: " + value), Outcome.LENGTH_MALFORMED, value)

    def test_transfer_codings(self):
        """
        The only transfer coding there may be is one `chunked`.
        """
        for value in [b"chunked", b"Chunked", b"CHUNKED", b" \tchunked\t "]:
            self.assertIs(verdict(request_lines(), b"Transfer-Encoding:" + value)[2], True)
        for value in [
            b"",
            b"xchunked",
            b"chunkedx",
            b"chunk",
            b"chunked,",
            b",chunked",
            b"chunked, chunked",
            b"chunked, identity",
            b"identity, chunked",
            b"identity",
            b"gzip, chunked",
            b"chunked;a=b",
            b"chunked chunked",
            b'"chunked"',
            b"'chunked'",
            b"[chunked]",
            b"c\xc4\xb1unked",
        ]:
            self.assertEqual(outcome(request_lines(), b"Transfer-Encoding: " + value), Outcome.TRANSFER_CODING_REFUSED, value)

    def test_connection(self):
        """
        A `Connection` line says whether to close and names the fields that are for this hop only.
        """
        for value, close, keep_alive, nominated in [
            (b"close", True, False, []),
            (b"Keep-Alive", False, True, []),
            (b" close ,, KEEP-alive", True, True, []),
            (b"X-A, upgrade ,x-b", False, False, [b"x-a", b"upgrade", b"x-b"]),
            (b"", False, False, []),
        ]:
            found = verdict(request_lines(), b"Connection: " + value)[2]
            self.assertEqual(found, (close, keep_alive, frozenset(nominated), b""), value)
        self.assertIs(verdict(request_lines(), b"Connection: keep-alive")[2], KEEP_ALIVE)
        for value in [b"a b", b"close keep-alive", b"a;b", b'"close"', b"\xe9"]:
            self.assertEqual(outcome(request_lines(), b"Connection: " + value), Outcome.HEADER_MALFORMED, value)

    def test_upgrade(self):
        """
        An `Upgrade` line has a say about the connection, which other lines join.
        """
        found = verdict(request_lines(), b"Upgrade: WebSocket")[2]
        self.assertEqual(found, (False, False, frozenset(), b"websocket"))
        joined = KEEP_ALIVE.joined(found).joined(verdict(request_lines(), b"Connection: upgrade")[2])
        self.assertEqual(joined, (False, True, frozenset([b"upgrade"]), b"websocket"))
        self.assertEqual(joined.joined(verdict(request_lines(), b"upgrade: a")[2]).upgrade, b"websocket,a")

    def test_expectations(self):
        """
        The only expectation that can be met is `100-continue`.
        """
        for value in [b"", b"100", b"100-continue, 200-ok", b"200-ok"]:
            self.assertEqual(outcome(request_lines(), b"Expect: " + value), Outcome.EXPECTATION_FAILED, value)

    def test_te(self):
        """
        Of `TE` only `trailers` is of interest.
        """
        for value, expected in [(b"trailers", True), (b"a, Trailers", True), (b"gzip;q=0.5", False), (b"", False), (b"xtrailers", False)]:
            self.assertIs(verdict(request_lines(), b"TE: " + value)[2], expected, value)

    def test_forbidden_trailers(self):
        """
        What frames, routes or authenticates a message cannot come after it.
        """
        for name in [b"content-length", b"transfer-encoding", b"host", b"authorization", b"cookie", b"x-forwarded-for", b"connection"]:
            self.assertIn(name, FORBIDDEN_TRAILERS)


class MemoryTests(SynchronousTestCase):
    """
    What a table remembers, and for how long.
    """

    def test_repeated(self):
        """
        A line that comes again gets the very verdict it got before.
        """
        table = request_lines()
        self.assertIsNone(table.get(b"Accept: */*"))
        first = table.judge(b"Accept: */*")
        self.assertIs(table.get(b"Accept: */*"), first)
        # A name in other letters is another line with the same meaning.
        self.assertEqual(table.judge(b"ACCEPT: */*")[1][:2], first[1][:2])

    def test_credentials(self):
        """
        A line that bears a secret is never remembered, by whatever name.
        """
        table = request_lines()
        for name in [
            "Authorization",
            "AUTHORIZATION",
            "Proxy-Authorization",
            "Cookie",
            "cookie",
            "Set-Cookie",
            "X-API-Key",
            "ApiKey",
            "X-Auth-Token",
            "X-Access-Token",
            "X-Amz-Security-Token",
            "X-CSRF-Token",
            "X-Session-Id",
            "X-Vault-Secret",
            "X-Hub-Signature-256",
            "X-Password",
            "X_Token",
        ]:
            for _ in range(3):
                table.judge(f"{name}: s3cret".encode())
        # Nor when there have been so many that other names would get room anew.
        for number in range(2 * LineTable.RENEWAL):
            table.judge(b"Cookie: s3cret=%d" % number)
        self.assertEqual(remembered(table), set())

    def test_unique_values(self):
        """
        A header whose value never repeats takes up no more than its share.
        """
        table = request_lines()
        table.judge(b"Accept: */*")
        for number in range(20000):
            line = b"X-Trace: %d" % number
            self.assertEqual(verdict(table, line)[1], (b"x-trace", b"%d" % number, line))
            self.assertLessEqual(len(remembered(table)), 1 + LineTable.MAX_LINES_PER_NAME)
        self.assertIn(b"Accept: */*", remembered(table))

    def test_renewal(self):
        """
        A value that becomes common later is remembered after a while, in the place of those that were common before.
        """
        table = request_lines()
        for number in range(LineTable.MAX_LINES_PER_NAME):
            table.judge(b"X-Build: %d" % number)
        self.assertIn(b"X-Build: 0", remembered(table))
        for _ in range(LineTable.RENEWAL):
            self.assertIsNone(table.get(b"X-Build: new"))
            table.judge(b"X-Build: new")
        table.judge(b"X-Build: new")
        self.assertEqual(remembered(table), {b"X-Build: new"})

    def test_hosts(self):
        """
        Many hosts may be remembered, because a gateway may serve many.
        """
        table = request_lines()
        for number in range(LineTable.MAX_HOSTS + 100):
            table.judge(b"Host: h%d.test" % number)
        self.assertEqual(len(remembered(table)), LineTable.MAX_HOSTS)

    def test_long_lines(self):
        """
        A long line is judged each time.
        """
        table = request_lines()
        table.judge(b"Accept: " + b"a" * (LineTable.MAX_LINE_BYTES - 8))
        table.judge(b"Accept: " + b"b" * (LineTable.MAX_LINE_BYTES - 7))
        self.assertEqual(len(remembered(table)), 1)
        name = b"x" * (LineTable.MAX_NAME_BYTES + 1)
        for _ in range(3):
            table.judge(name + b": 1")
        self.assertEqual(len(remembered(table)), 1)

    def test_attack(self):
        """
        Whoever invents names and values does not make the table grow beyond its bounds, and verdicts stay the same.
        """
        table = request_lines()
        for number in range(40000):
            # First many names, then many values for each, so that both bounds are reached.
            line = b"X-%d: %d" % (number if number < 10000 else number // 30, number)
            self.assertEqual(verdict(table, line), (PLAIN, (line.partition(b":")[0].lower(), b"%d" % number, line), None))
            self.assertEqual(verdict(table, b"Content-Length: 5")[2], 5)
            self.assertLessEqual(len(table._lines), LineTable.MAX_LINES)
            self.assertLessEqual(len(table._names), LineTable.MAX_NAMES)
        longest = max(map(len, remembered(table)))
        self.assertLessEqual(longest, LineTable.MAX_LINE_BYTES)
        self.assertLessEqual(sum(len(name.lines) for name in table._names.values()), LineTable.MAX_LINES)

    @CASES
    @given(
        st.lists(
            st.sampled_from([b"Host: a", b"Host: b", b"host:a", b"Host : a", b"Host: a b", b"Content-Length: 5", b"Content-Length: x"])
            | st.binary(max_size=12)
            | st.builds(b"%b:%b".__mod__, st.tuples(st.sampled_from([b"A", b"b", b"Cookie", b"TE", b"a_b"]), st.binary(max_size=4))),
            max_size=30,
        )
    )
    def test_memory_is_invisible(self, lines):
        """
        What a table remembers never changes a verdict.
        """
        table = request_lines()
        for line in lines + lines:
            self.assertEqual(outcome(table, line), outcome(request_lines(), line), line)
