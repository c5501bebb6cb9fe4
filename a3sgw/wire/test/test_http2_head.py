"""
Tests that a request reads the same whether it came over HTTP/1.1 or HTTP/2.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import DownstreamError, Outcome
from a3sgw.message import ResponseHead, make_field
from a3sgw.wire.http1 import RequestLimits, read_request_head, status_line
from a3sgw.wire.http2_head import read_request_fields, read_request_trailers, response_fields, trailer_fields

LIMITS = RequestLimits()
COMPARED = [
    *["method", "target", "path", "query", "raw_path", "authority", "host", "length", "has_length", "user_agent", "referer", "request_id"],
    *["expects_continue", "accepts_trailers", "grpc"],
]
FIELDS = [
    (b"accept", b"*/*"),
    (b"user-agent", b"t/1"),
    (b"referer", b"http://a.test/"),
    (b"content-type", b"application/grpc+proto"),
    (b"content-type", b"text/plain"),
    (b"x-request-id", b"abc-1"),
    (b"x-request-id", b"not a token"),
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"forwarded", b"for=203.0.113.7"),
    (b"te", b"trailers"),
    (b"expect", b"100-continue"),
    (b"expect", b"tea"),
    (b"x-gateway-user", b"root"),
    (b"proxy-authorization", b"Basic x"),
    (b"x_user", b"1"),
    (b"x_forwarded_for", b"1"),
    (b"authorization", b"Bearer x"),
    (b"content-length", b"0"),
    (b"x-a", b"\xe4\xf6"),
    (b"x-empty", b""),
]
PATHS = ["/", "/a/../b", "//a", "/a?b=c#", "/%2f", "/%41", "/a;b", "/./", "/..", "/a\\b", "/%00", "/a%", "/caf\xe9", "/?a?b", "*"]


def over_http1(method, path, authority, fields):
    """
    Return what HTTP/1.1 makes of a request: its head and the forwarding fields, or the outcome.
    """
    lines = [b"%b %b HTTP/1.1" % (method, path), b"host: " + authority, *[b"%b: %b" % field for field in fields]]
    data = b"\r\n".join(lines)
    try:
        return read_request_head(data, len(data), LIMITS)
    except DownstreamError as error:
        return error.outcome


def over_http2(method, path, authority, fields):
    """
    Return the same of HTTP/2.
    """
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]
    try:
        return read_request_fields([*pseudo, *fields], True, b"http", LIMITS)
    except DownstreamError as error:
        return error.outcome


class RequestTests(SynchronousTestCase):
    """
    Requests in both versions.
    """

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from([b"GET", b"POST", b"OPTIONS", b"PURGE", b"HEAD"]),
        st.one_of(st.sampled_from(PATHS), st.text("/.%2fF5cC0?a&=~;\\", min_size=0, max_size=12).map("/".__add__)),
        st.sampled_from([b"a.test", b"A.test:8080", b"[::1]:80", b"a..b", b"a.test.", b"", b"a/b"]),
        st.lists(st.sampled_from(FIELDS), max_size=6, unique_by=lambda field: field[0]),
    )
    def test_same(self, method, path, authority, fields):
        """Whatever is asked for, rules, limits and backends see the same, or it is refused for the same reason."""
        path = path.encode("latin-1")
        one, other = over_http1(method, path, authority, fields), over_http2(method, path, authority, fields)
        if isinstance(one, Outcome) or isinstance(other, Outcome):
            self.assertIs(one, other)
            return
        for name in COMPARED:
            self.assertEqual(getattr(one[0], name), getattr(other[0], name), name)
        self.assertEqual(one[0].fields, other[0].fields)
        self.assertEqual(one[1], other[1])

    def test_body(self):
        """A body without declared length is one of unknown length."""
        pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/")]
        for fields, ended, length in (([], True, 0), ([], False, -1), ([(b"content-length", b"5")], False, 5)):
            head, _ = read_request_fields([*pseudo, *fields], ended, b"http", LIMITS)
            self.assertEqual(head.length, length)

    def test_scheme(self):
        """Another scheme is misdirected, unless any is believed."""
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]
        with self.assertRaises(DownstreamError) as caught:
            read_request_fields(fields, True, b"http", LIMITS)
        self.assertIs(caught.exception.outcome, Outcome.MISDIRECTED)
        read_request_fields(fields, True, b"", LIMITS)

    def test_limits(self):
        """Fields count as they would over HTTP/1, however a cookie came."""
        pseudo = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/")]
        limits = RequestLimits(max_header_count=2, max_header_bytes=64)
        read_request_fields([*pseudo, (b"x-a", b"1"), *[(b"cookie", b"a")] * 4], True, b"http", limits)
        for fields in ([(b"x-a", b"1")] * 3, [(b"x-a", b"1" * 60)]):
            with self.assertRaises(DownstreamError) as caught:
                read_request_fields([*pseudo, *fields], True, b"http", limits)
            self.assertIs(caught.exception.outcome, Outcome.HEADERS_TOO_LARGE)

    def test_trailers(self):
        """Trailers are as strict as those of a chunked body."""
        self.assertEqual(read_request_trailers([(b"x-a", b"b")]), [make_field(b"x-a", b"b")])
        for fields in ([(b"host", b"a")], [(b"cookie", b"a")], [(b"x_a", b"b")], [(b"x-a", b"b")] * 200, [(b"x-a", b"b" * 20000)]):
            with self.assertRaises(DownstreamError) as caught:
                read_request_trailers(fields)
            self.assertIs(caught.exception.outcome, Outcome.TRAILER_REFUSED)


class ResponseTests(SynchronousTestCase):
    """
    Responses as header fields.
    """

    def test_fields(self):
        """A response has its status, its fields by their names in lower case, a date and its length."""
        head = ResponseHead(200, status_line(200))
        head.fields = [make_field(b"X-A", b"B"), make_field(b"Set-Cookie", b"a=1"), make_field(b"Set-Cookie", b"b=2")]
        head.declared_length = 5
        own = [(b":status", b"200"), (b"x-a", b"B"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        self.assertEqual(response_fields(head, b"D"), [*own, (b"date", b"D"), (b"content-length", b"5")])
        head.has_date = True
        head.declared_length = -3
        self.assertEqual(response_fields(head, b"D"), own)
        self.assertEqual(trailer_fields(head.fields[:1]), [(b"x-a", b"B")])

    def test_fields_of_connections(self):
        """What is about a connection is not said over HTTP/2, whoever put it there."""
        head = ResponseHead(426, status_line(426))
        head.fields = [make_field(name, b"x") for name in (b"Connection", b"Upgrade", b"Keep-Alive", b"X-A")]
        head.has_date = True
        self.assertEqual(response_fields(head, b"D"), [(b":status", b"426"), (b"x-a", b"x")])

    def test_interim(self):
        """An interim response gets no date."""
        self.assertEqual(response_fields(ResponseHead(103, status_line(103)), b"D"), [(b":status", b"103")])
