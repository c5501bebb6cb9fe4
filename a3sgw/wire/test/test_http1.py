"""
Tests for `a3sgw.wire.http1`.

The tables are the smuggling corpus: ways in which one server's reading of a request differs from another's. Every case is fed whole, in
two pieces at each place, byte by byte, and with another request behind it, and must be answered alike (see `reading`).
"""

import re

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import DownstreamError, Outcome, UpstreamError
from a3sgw.message import get_all_fields, make_field
from a3sgw.wire import http1
from a3sgw.wire.http1 import (
    CHUNKED,
    UNTIL_CLOSE,
    RequestLimits,
    check_partial_request,
    field_block,
    read_request_head,
    read_response_head,
    status_line,
)
from a3sgw.wire.path import PathPolicy
from a3sgw.wire.test.reading import RequestDialogue, few_ways, reading, refusal, response, tell

CASES = settings(deadline=None, max_examples=200, derandomize=True)


def get(*lines, line=b"GET / HTTP/1.1", host=True):
    """
    Return a request with these header lines.
    """
    return b"\r\n".join([line, *([b"Host: a.test"] if host else []), *lines, b"", b""])


def post(*lines, body=b""):
    return get(*lines, line=b"POST / HTTP/1.1") + body


class FramingTests(SynchronousTestCase):
    """
    Where a request ends.
    """

    def test_accepted(self):
        """
        A body has the declared length, or is chunked, or there is none.
        """
        for data, length, body in [
            (get(), 0, b""),
            (post(), 0, b""),
            (post(b"Content-Length: 0"), 0, b""),
            (post(b"Content-Length: 5", body=b"hello"), 5, b"hello"),
            (post(b"content-length:\t005 ", body=b"hello"), 5, b"hello"),
            (post(b"Content-Length: 23", body=b"GET /x HTTP/1.1\r\nA: b\r\n"), 23, b"GET /x HTTP/1.1\r\nA: b\r\n"),
            (get(b"Content-Length: 2", line=b"GET / HTTP/1.1") + b"hi", 2, b"hi"),
            (post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), CHUNKED, b"hello"),
            (post(b"transfer-encoding:\tChunked\t", body=b"0\r\n\r\n"), CHUNKED, b""),
            (get(b"Content-Length: 2", line=b"POST / HTTP/1.0") + b"hi", 2, b"hi"),
        ]:
            head, found, _, _ = reading(data)
            self.assertEqual((head.length, found, head.has_length), (length, body, b"ontent-" in data), data)
            self.assertEqual([field for field in head.fields if field.name in (b"content-length", b"transfer-encoding")], [])

    def test_trailers(self):
        """
        The trailers of a chunked request arrive, but for those that `Connection` named.
        """
        head, body, trailers, _ = reading(
            post(b"Transfer-Encoding: chunked", b"Connection: X-Hop", body=b"1\r\nx\r\n0\r\nX-Sum: 7\r\nX-Hop: 1\r\n\r\n")
        )
        self.assertEqual((head.length, body, trailers), (CHUNKED, b"x", [make_field(b"X-Sum", b"7")]))

    def test_refused(self):
        """
        A request whose end two servers could see in two places is refused.
        """
        length, coding, line_break, header = (
            Outcome.LENGTH_MALFORMED,
            Outcome.TRANSFER_CODING_REFUSED,
            Outcome.BARE_LINE_BREAK,
            Outcome.HEADER_MALFORMED,
        )
        chunks = b"0\r\n\r\n"
        for lines, outcome in [
            # CL.TE and TE.CL.
            ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], Outcome.FRAMING_AMBIGUOUS),
            ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], Outcome.FRAMING_AMBIGUOUS),
            ([b"Transfer-Encoding: chunked", b"Content-Length: 0"], Outcome.FRAMING_AMBIGUOUS),
            ([b"content-length: 5", b"A: b", b"TRANSFER-ENCODING: CHUNKED"], Outcome.FRAMING_AMBIGUOUS),
            # TE.TE: hidden from one of the two.
            ([b"Transfer-Encoding: xchunked"], coding),
            ([b"Transfer-Encoding: chunked, identity"], coding),
            ([b"Transfer-Encoding: identity, chunked"], coding),
            ([b"Transfer-Encoding: chunked,chunked"], coding),
            ([b"Transfer-Encoding: identity"], coding),
            ([b"Transfer-Encoding: gzip, chunked"], coding),
            ([b"Transfer-Encoding: cow", b"Transfer-Encoding: chunked"], coding),
            ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow"], coding),
            ([b"Transfer-Encoding: chunked", b"Transfer-encoding: chunked"], coding),
            ([b"Transfer-Encoding:"], coding),
            ([b"Transfer-Encoding: chunked;q=1"], coding),
            ([b'Transfer-Encoding: "chunked"'], coding),
            ([b"Transfer-Encoding: \xffchunked"], coding),
            ([b"Transfer-Encoding: \x0bchunked"], header),
            ([b"Transfer-Encoding:\x0cchunked"], header),
            ([b"Transfer-Encoding: chunked\x00"], header),
            ([b"Transfer-Encoding\x00: chunked"], header),
            ([b"Transfer-Encoding : chunked"], header),
            ([b"Transfer-Encoding\t: chunked"], header),
            ([b"Transfer Encoding: chunked"], header),
            ([b"Transfer_Encoding: chunked"], Outcome.HEADER_NAME_REFUSED),
            ([b"Transfer-Encoding", b" : chunked"], header),
            ([b" Transfer-Encoding: chunked"], Outcome.FOLDED_HEADER),
            ([b"Transfer-Encoding:", b" chunked"], coding),
            ([b"A: b", b"\tTransfer-Encoding: chunked"], Outcome.FOLDED_HEADER),
            ([b"X: y\nTransfer-Encoding: chunked"], line_break),
            ([b"X: y\rTransfer-Encoding: chunked"], line_break),
            ([b"Transfer-Encoding: chunked\r"], line_break),
            ([b"\rTransfer-Encoding: chunked"], line_break),
            ([b"Transfer-Encoding:\nchunked"], line_break),
            # Lengths.
            ([b"Content-Length: 5", b"Content-Length: 5"], length),
            ([b"Content-Length: 5", b"Content-Length: 6"], length),
            ([b"Content-Length: 5, 5"], length),
            ([b"Content-Length: 5 5"], length),
            ([b"Content-Length: +5"], length),
            ([b"Content-Length: -5"], length),
            ([b"Content-Length: 0x5"], length),
            ([b"Content-Length: 5;"], length),
            ([b"Content-Length:"], length),
            ([b"Content-Length: 9223372036854775808"], length),
            ([b"Content-Length: 18446744073709551621"], length),
            ([b"Content-Length: 1e1"], length),
            ([b"Content-Length: 5\x0b"], header),
            ([b"Content-Length : 5"], header),
            ([b"Content-Length\x00: 5"], header),
            ([b"Content_Length: 5"], Outcome.HEADER_NAME_REFUSED),
            ([b"Content-Length:", b" 5"], length),
            ([b"A: b\nContent-Length: 5"], line_break),
        ]:
            self.assertIs(refusal(post(*lines, body=chunks), cut=few_ways), outcome, lines)
            self.assertIs(refusal(post(*lines)), outcome, lines)

    def test_old_version(self):
        """
        A chunked HTTP/1.0 request is refused: the servers of its time did not know chunks.
        """
        data = get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n"
        self.assertIs(refusal(data), Outcome.TRANSFER_CODING_REFUSED)

    def test_bad_chunks(self):
        """
        A malformed chunk is the client's fault, and nothing behind it is read.
        """
        for body, outcome in [
            (b"0x5\r\nhello\r\n0\r\n\r\n", Outcome.CHUNK_MALFORMED),
            (b"5\nhello\r\n0\r\n\r\n", Outcome.CHUNK_MALFORMED),
            (b"5;a=\nhello\r\n0\r\n\r\n", Outcome.CHUNK_MALFORMED),
            (b"0\r\nContent-Length: 5\r\n\r\n", Outcome.TRAILER_REFUSED),
        ]:
            self.assertIs(refusal(post(b"Transfer-Encoding: chunked", body=body), cut=few_ways), outcome, body)


class LineBreakTests(SynchronousTestCase):
    """
    Lines end with CRLF and nothing else.
    """

    def test_refused_at_once(self):
        """
        A bare CR or LF is refused as soon as it is seen, even if no end of the head ever comes.
        """
        for data in [
            b"GET / HTTP/1.1\n",
            b"GET / HTTP/1.1\nHost: a.test\n\n",
            b"GET / HTTP/1.1\r\nHost: a.test\n",
            b"GET / HTTP/1.1\r\nHost: a.test\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.test\r\rA",
            b"GET / HTTP/1.1\rHost: a.test\r\r",
            b"GET /\r HTTP/1.1\r\n",
            b"GET\n/ HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: a.test\r\nA: b\n\nGET /x HTTP/1.1\r\n",
        ]:
            self.assertIs(refusal(data), Outcome.BARE_LINE_BREAK, data)

    def test_first_fault(self):
        """
        Of several faults the first one is answered, however the request arrives.
        """
        for data, outcome in [
            (b"GET / HTTP/3.0\r\nA: b\nC: d\r\n\r\n", Outcome.VERSION_NOT_SUPPORTED),
            (b"GET  / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", Outcome.REQUEST_LINE_MALFORMED),
            (b"GET / HTTP/1.1\nA\r\n\r\n", Outcome.BARE_LINE_BREAK),
            (b"GET /%zz HTTP/1.1\r\nA : b\r\n\r\n", Outcome.PATH_REFUSED),
            (b"GET / HTTP/1.1\r\nA : b\r\nC: d\ne: f\r\n\r\n", Outcome.BARE_LINE_BREAK),
            (b"\x16\x03\x01\x02\x00\n\r\n\r\n", Outcome.REQUEST_LINE_MALFORMED),
        ]:
            self.assertIs(refusal(data), outcome, data)

    def test_never_complete(self):
        """
        A head that goes on is neither refused nor taken for a request before its end.
        """
        data = get(b"Accept: */*", b"Content-Length: 5")
        for end in range(len(data)):
            for pieces in few_ways(data[:end]):
                dialogue = RequestDialogue()
                for piece in pieces:
                    dialogue.feed(piece)
                self.assertEqual((dialogue.refused, dialogue.requests), (None, []), data[:end])

    def test_empty_line_before(self):
        """
        An empty line before a request is ignored, as after a body of a sloppy client.
        """
        for before in (b"\r\n", b"\r\n\r\n"):
            head, _, _, _ = reading(before + get(b"A: b"))
            self.assertEqual((head.path, head.host, head.fields), (b"/", b"a.test", [make_field(b"A", b"b")]))
        for before in (b"\n", b"\r", b" ", b"\r\n "):
            self.assertIs(refusal(before + get()), Outcome.REQUEST_LINE_MALFORMED, before)


class RequestLineTests(SynchronousTestCase):
    """
    Method, target and version.
    """

    def test_accepted(self):
        """
        A request line is a method, a target and a version with single blanks between them.
        """
        for line, method, target in [
            (b"GET / HTTP/1.1", b"GET", b"/"),
            (b"get / HTTP/1.1", b"get", b"/"),
            (b"M-SEARCH /a?b HTTP/1.1", b"M-SEARCH", b"/a?b"),
            (b"PROPFIND /a;b=c HTTP/1.1", b"PROPFIND", b"/a;b=c"),
            (b"OPTIONS * HTTP/1.1", b"OPTIONS", b"*"),
            (b'GET /a|b^c`d{e}<f>"? HTTP/1.1', b"GET", b'/a|b^c`d{e}<f>"?'),
        ]:
            head, _, _, _ = reading(get(line=line))
            self.assertEqual((head.method, head.target, head.raw_path), (method, target, target))

    def test_refused(self):
        """
        A request line that could be taken apart in two ways is refused.
        """
        malformed, target, version = Outcome.REQUEST_LINE_MALFORMED, Outcome.TARGET_MALFORMED, Outcome.VERSION_NOT_SUPPORTED
        for line, outcome in [
            (b"GET  / HTTP/1.1", malformed),
            (b"GET /  HTTP/1.1", malformed),
            (b"GET / HTTP/1.1 ", malformed),
            (b"GET / a HTTP/1.1", malformed),
            (b"GET\t/\tHTTP/1.1", malformed),
            (b"GET\t/ HTTP/1.1", malformed),
            (b"GET /\tHTTP/1.1", malformed),
            (b"GET /", malformed),
            (b"GET", malformed),
            (b"GET  HTTP/1.1", target),
            (b"GET HTTP/1.1", malformed),
            (b"G@T / HTTP/1.1", malformed),
            (b"G\xc9T / HTTP/1.1", malformed),
            (b'"GET" / HTTP/1.1', malformed),
            (b"GET: / HTTP/1.1", malformed),
            (b"GET / HTTP/1.2", version),
            (b"GET / HTTP/0.9", version),
            (b"GET / HTTP/2.0", version),
            (b"PRI * HTTP/2.0", version),
            (b"GET / HTTP/2", malformed),
            (b"GET / HTTP/1.10", malformed),
            (b"GET / HTTP/01.1", malformed),
            (b"GET / HTTP/1,1", malformed),
            (b"GET / HTTP/1", malformed),
            (b"GET / http/1.1", malformed),
            (b"GET / Http/1.1", malformed),
            (b"GET / HTTPS/1.1", malformed),
            (b"GET / XHTTP/1.1", malformed),
            (b"GET / HTTP/1.1\x00", malformed),
            (b"GET /#a HTTP/1.1", target),
            (b"GET /a#b?c HTTP/1.1", target),
            (b"GET /\xc3\xa9 HTTP/1.1", target),
            (b"GET /?\xc3\xa9 HTTP/1.1", target),
            (b"GET /\x00 HTTP/1.1", target),
            (b"GET /\x0b HTTP/1.1", target),
            (b"GET /\x7f HTTP/1.1", target),
            (b"GET a HTTP/1.1", target),
            (b"GET ?a HTTP/1.1", target),
            (b"GET * HTTP/1.1", target),
            (b"OPTIONS ** HTTP/1.1", target),
            (b"GET a.test:80 HTTP/1.1", target),
            (b"GET .. HTTP/1.1", target),
            (b"CONNECT a.test:443 HTTP/1.1", Outcome.METHOD_NOT_SUPPORTED),
            (b"CONNECT /a HTTP/1.1", Outcome.METHOD_NOT_SUPPORTED),
            (b"CONNECT http://a.test/ HTTP/1.1", Outcome.METHOD_NOT_SUPPORTED),
            (b"CONNECT * HTTP/1.0", Outcome.METHOD_NOT_SUPPORTED),
        ]:
            self.assertIs(refusal(get(line=line)), outcome, line)

    def test_other_protocols(self):
        """
        What is not HTTP at all is refused at its first byte.
        """
        for data in [b"\x16\x03\x01\x02\x00\x01\x00", b"\x00", b"\x80\x2e\x01", b"{", b" GET", b"\xff\xf4", b"(", b"\nGET"]:
            self.assertIs(refusal(data), Outcome.REQUEST_LINE_MALFORMED, data)

    def test_path(self):
        """
        The path is made canonical or refused; the query is never touched.
        """
        for target, path, query in [
            (b"/a/../b?c=/../%2f%zz\\//d", b"/b", b"c=/../%2f%zz\\//d"),
            (b"/%61?", b"/a", b""),
            (b"/a??b", b"/a", b"?b"),
            (b"//a//b?//", b"/a/b", b"//"),
            (b"/a/.", b"/a/", b""),
            (b"/a.b/c.d?e=f.g", b"/a.b/c.d", b"e=f.g"),
        ]:
            head, _, _, _ = reading(get(line=b"GET %b HTTP/1.1" % target))
            mark = b"?" if b"?" in target else b""
            self.assertEqual((head.path, head.query, head.target, head.raw_path), (path, query, path + mark + query, target))
        for target in [b"/a%2fb", b"/%5c", b"/\\", b"/%00", b"/%", b"/..;/", b"/a/..;a=b/"]:
            self.assertIs(refusal(get(line=b"GET %b HTTP/1.1" % target)), Outcome.PATH_REFUSED, target)

    def test_relaxed_path(self):
        """
        An entrypoint may allow what is refused by default.
        """
        limits = RequestLimits(paths=PathPolicy(merge_slashes=False, allow_encoded_slash=True))
        head, _, _, _ = reading(get(line=b"GET /a%2fb//c HTTP/1.1"), limits)
        self.assertEqual(head.target, b"/a%2Fb//c")

    def test_absolute_form(self):
        """
        A target may name the host as well, if it is the same as in `Host`.
        """
        for target, path, scheme in [
            (b"http://a.test/b?c", b"/b?c", b"http"),
            (b"HTTP://A.Test", b"/", b"http"),
            (b"https://a.test?c=//", b"/?c=//", b"https"),
            (b"http://a.test/b/../c//d", b"/c/d", b"http"),
            (b"http://a.test/http://b.test/", b"/http:/b.test/", b"http"),
        ]:
            head, _, _, _ = reading(get(line=b"GET %b HTTP/1.1" % target))
            self.assertEqual((head.target, head.host, head.target_scheme, head.raw_path), (path, b"a.test", scheme, target))
            self.assertEqual(head.target, head.path + (b"?" + head.query if b"?" in target else b""))
        head, _, _, _ = reading(get(line=b"GET http://b.test:81/ HTTP/1.0", host=False))
        self.assertEqual((head.host, head.authority), (b"b.test", b"b.test:81"))
        for target, outcome in [
            (b"http://b.test/", Outcome.HOST_MALFORMED),
            (b"http://a.test:80/", Outcome.HOST_MALFORMED),
            (b"http://user@a.test/", Outcome.HOST_MALFORMED),
            (b"http://a.test@b.test/", Outcome.HOST_MALFORMED),
            (b"http:///", Outcome.HOST_MALFORMED),
            (b"http://a.test\\b/", Outcome.HOST_MALFORMED),
            (b"http://a.test/%2f", Outcome.PATH_REFUSED),
            (b"ftp://a.test/", Outcome.TARGET_MALFORMED),
            (b"http:/a.test/", Outcome.TARGET_MALFORMED),
            (b"//a.test/..;/", Outcome.PATH_REFUSED),
            (b"http://a.test/#b", Outcome.TARGET_MALFORMED),
        ]:
            self.assertIs(refusal(get(line=b"GET %b HTTP/1.1" % target)), outcome, target)
        self.assertIs(refusal(get(line=b"GET http://a.test/ HTTP/1.1", host=False)), Outcome.HOST_MISSING)

    def test_host(self):
        """
        There is one `Host` with one host in it.
        """
        for lines, outcome in [
            ([], Outcome.HOST_MISSING),
            ([b"Host: a", b"Host: a"], Outcome.HOST_MALFORMED),
            ([b"Host: a", b"Host: b"], Outcome.HOST_MALFORMED),
            ([b"Host: a", b"hOST: b"], Outcome.HOST_MALFORMED),
            ([b"Host: a, b"], Outcome.HOST_MALFORMED),
            ([b"Host: a b"], Outcome.HOST_MALFORMED),
            ([b"Host: a@b"], Outcome.HOST_MALFORMED),
            ([b"Host: a/b"], Outcome.HOST_MALFORMED),
            ([b"Host:"], Outcome.HOST_MALFORMED),
            ([b"Host: a:99999"], Outcome.HOST_MALFORMED),
            ([b"Host: http://a"], Outcome.HOST_MALFORMED),
            ([b"Host : a"], Outcome.HEADER_MALFORMED),
            ([b" Host: a"], Outcome.FOLDED_HEADER),
            ([b"Host: a", b" b"], Outcome.FOLDED_HEADER),
            ([b"Host: a\x00b"], Outcome.HEADER_MALFORMED),
        ]:
            self.assertIs(refusal(get(*lines, host=False)), outcome, lines)
        head, _, _, _ = reading(get(b"hOST:\tA.Test.:8080 ", host=False))
        self.assertEqual((head.host, head.authority, head.fields), (b"a.test", b"A.Test.:8080", []))

    def test_old_version(self):
        """
        An HTTP/1.0 request needs no `Host`, and its connection lives on only if it says so.
        """
        head, _, _, _ = reading(get(line=b"GET / HTTP/1.0", host=False))
        self.assertEqual((head.is_http10, head.keep_alive, head.host, head.authority), (True, False, b"", b""))
        head, _, _, _ = reading(get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"))
        self.assertTrue(head.keep_alive)
        head, _, _, _ = reading(get(b"Expect: 100-continue", line=b"GET / HTTP/1.0"))
        self.assertEqual((head.expects_continue, head.fields), (False, []))


class FieldTests(SynchronousTestCase):
    """
    What becomes of header fields.
    """

    def test_end_to_end(self):
        """
        Fields that are for the backend keep their order, their letters and their number.
        """
        lines = [b"X-B: 1", b"accept:*/*", b"X-A: 2", b"x-b:  3 ", b"Cookie: a=b", b"User-Agent: curl", b"Referer: http://r/", b"X-Empty:"]
        head, _, _, forwarded = reading(get(*lines))
        self.assertEqual([field.line for field in head.fields], lines)
        self.assertEqual((head.user_agent, head.referer, forwarded), (b"curl", b"http://r/", []))

    def test_hop_by_hop(self):
        """
        What is for this connection only goes no further (RFC 9110 section 7.6.1).
        """
        head, _, _, forwarded = reading(
            get(
                b"Connection: X-Hop, Upgrade, close",
                b"x-hop: 1",
                b"X-End: 2",
                b"X-HOP: 3",
                b"Connection: x-late",
                b"X-Late: 4",
                b"Keep-Alive: timeout=5",
                b"Proxy-Connection: keep-alive",
                b"Proxy-Authorization: Basic YTpi",
                b"Proxy-Authenticate: Basic",
                b"TE: gzip, trailers",
                b"Upgrade: h2c",
                b"HTTP2-Settings: AAMAAABk",
                b"X-Gateway-Retry-Max: 99",
                b"x-GATEWAY-body-limit: 1",
                b"Trailer: X-Sum",
            )
        )
        self.assertEqual(head.fields, [make_field(b"X-End", b"2"), make_field(b"Trailer", b"X-Sum")])
        self.assertEqual((head.accepts_trailers, head.wants_close, head.keep_alive, forwarded), (True, True, False, []))
        self.assertEqual(head.nominated, {b"x-hop", b"upgrade", b"x-late"})

    def test_nominating_framing(self):
        """
        `Connection` cannot take away what frames or routes a request, nor what a proxy said about where it came from.
        """
        head, body, _, forwarded = reading(
            post(
                b"Connection: Content-Length, Host, X-Forwarded-For, Forwarded, X-Request-Id",
                b"Content-Length: 5",
                b"X-Forwarded-For: 192.0.2.7",
                b"Forwarded: for=192.0.2.7",
                b"X-Request-Id: seven",
                body=b"hello",
            )
        )
        self.assertEqual((body, head.host, head.request_id), (b"hello", b"a.test", b"seven"))
        self.assertEqual([field.name for field in forwarded], [b"x-forwarded-for", b"forwarded"])

    def test_many_nominations(self):
        """
        A `Connection` of many thousand names takes away these and no others.
        """
        names = [b"n%d" % number for number in range(8000)]
        head, _, _, _ = reading(get(b"Connection: " + b",".join(names), b"N7999: 1", b"M: 1"), cut=lambda data: [[data]])
        self.assertEqual(head.fields, [make_field(b"M", b"1")])

    def test_connection(self):
        """
        `close` wins over `keep-alive`, in whatever order and on however many lines they come.
        """
        for lines, keep_alive, wants_close in [
            ([], True, False),
            ([b"Connection: keep-alive"], True, False),
            ([b"Connection: close"], False, True),
            ([b"Connection: Close, Keep-Alive"], False, True),
            ([b"Connection: keep-alive", b"Connection: CLOSE"], False, True),
            ([b"Connection: close", b"Connection: keep-alive"], False, True),
            ([b"Connection:"], True, False),
        ]:
            head, _, _, _ = reading(get(*lines))
            self.assertEqual((head.keep_alive, head.wants_close, head.fields), (keep_alive, wants_close, []), lines)

    def test_forwarding(self):
        """
        What proxies add is handed over separately: whether it is believed is decided elsewhere.
        """
        lines = [
            b"X-Forwarded-For: 10.0.0.1",
            b"Forwarded: for=10.0.0.1",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: b",
            b"X-Forwarded-Port: 1",
            b"X-Forwarded-Prefix: /a",
            b"X-Forwarded-Server: s",
            b"X-Real-IP: 10.0.0.1",
        ]
        head, _, _, forwarded = reading(get(*lines))
        self.assertEqual((head.fields, [field.line for field in forwarded]), ([], lines))

    def test_request_id(self):
        """
        The first request id that is safe to log is taken, others are dropped.
        """
        for lines, expected in [
            ([b"X-Request-Id: abc-123"], b"abc-123"),
            ([b"X-Request-Id: a b", b"X-Request-Id: c"], b"c"),
            ([b"X-Request-Id: a", b"X-Request-Id: b"], b"a"),
            ([b"X-Request-Id: " + b"a" * 128], b"a" * 128),
            ([b"X-Request-Id: " + b"a" * 129], b""),
            ([b"X-Request-Id:"], b""),
        ]:
            head, _, _, _ = reading(get(*lines))
            self.assertEqual((head.request_id, head.fields), (expected, []), lines)

    def test_expectation(self):
        """
        `Expect: 100-continue` reaches the backend, any other expectation is refused.
        """
        head, _, _, _ = reading(get(b"Expect: 100-Continue"))
        self.assertEqual((head.expects_continue, head.fields), (True, [make_field(b"Expect", b"100-Continue")]))
        self.assertIs(refusal(get(b"Expect: a-miracle")), Outcome.EXPECTATION_FAILED)

    def test_underscores(self):
        """
        A name with an underscore is refused unless allowed, and always if it looks like a field that is the gateway's own.
        """
        lax = RequestLimits(allow_underscores_in_headers=True)
        self.assertIs(refusal(get(b"X_User: 1")), Outcome.HEADER_NAME_REFUSED)
        head, _, _, _ = reading(get(b"X_User: 1"), lax)
        self.assertEqual(head.fields, [make_field(b"X_User", b"1")])
        for name in [b"X_Forwarded_For", b"Content_Length", b"transfer-encoding_", b"X_Gateway_A", b"HOST_", b"Proxy_Authorization"]:
            lookalike = not name.endswith(b"_")
            if lookalike:
                self.assertIs(refusal(get(name + b": 1"), lax), Outcome.HEADER_NAME_REFUSED, name)
            self.assertIs(refusal(get(name + b": 1")), Outcome.HEADER_NAME_REFUSED, name)

    def test_malformed(self):
        """
        A malformed header line is refused.
        """
        for line, outcome in [
            (b"A", Outcome.HEADER_MALFORMED),
            (b"A : b", Outcome.HEADER_MALFORMED),
            (b": b", Outcome.HEADER_MALFORMED),
            (b"A b: c", Outcome.HEADER_MALFORMED),
            (b"A: \x00", Outcome.HEADER_MALFORMED),
            (b"A\x00: b", Outcome.HEADER_MALFORMED),
            (b"A: \x7f", Outcome.HEADER_MALFORMED),
            (b"\xc3\xa9: b", Outcome.HEADER_MALFORMED),
            (b" A: b", Outcome.FOLDED_HEADER),
            (b"\tb", Outcome.FOLDED_HEADER),
            (b"Connection: a b", Outcome.HEADER_MALFORMED),
        ]:
            self.assertIs(refusal(get(line)), outcome, line)
            self.assertIs(refusal(get(b"A: b", line, b"C: d")), outcome, line)


class LimitTests(SynchronousTestCase):
    """
    Each limit holds to the byte, whichever way a request arrives.
    """

    limits = RequestLimits(max_header_bytes=200, max_header_count=5, max_request_line_bytes=100)

    def test_request_line(self):
        """
        A request line of the longest length is accepted, one byte more is answered 414.
        """
        for size, accepted in [(100, True), (101, False), (300, False)]:
            data = get(line=b"GET /%b HTTP/1.1" % (b"a" * (size - 14)))
            if accepted:
                reading(data, self.limits)
            else:
                self.assertIs(refusal(data, self.limits), Outcome.REQUEST_LINE_TOO_LONG)
        self.assertIs(refusal(b"a" * 101, self.limits), Outcome.REQUEST_LINE_TOO_LONG)
        self.assertIs(refusal(b"a" * 101 + b"\n", self.limits), Outcome.REQUEST_LINE_TOO_LONG)
        self.assertIs(refusal(b"a" * 100 + b"\n", self.limits), Outcome.BARE_LINE_BREAK)
        self.assertEqual(Outcome.REQUEST_LINE_TOO_LONG.status, 414)

    def test_header_bytes(self):
        """
        A header section of the largest size is accepted, one byte more is answered 431, also if it never ends.
        """
        fixed = len(b"\r\nHost: a.test\r\nA: ")
        reading(get(b"A: " + b"b" * (200 - fixed)), self.limits)
        self.assertIs(refusal(get(b"A: " + b"b" * (201 - fixed)), self.limits), Outcome.HEADERS_TOO_LARGE)
        self.assertIs(refusal(b"GET / HTTP/1.1\r\nA: " + b"b" * 200, self.limits), Outcome.HEADERS_TOO_LARGE)
        self.assertIs(refusal(b"GET / HTTP/1.1\r\nA: " + b"b" * 200 + b"\n", self.limits), Outcome.HEADERS_TOO_LARGE)
        self.assertEqual(Outcome.HEADERS_TOO_LARGE.status, 431)
        # The request line is not counted.
        reading(get(b"A: " + b"b" * (200 - fixed), line=b"GET /%b HTTP/1.1" % (b"a" * 86)), self.limits)
        # Nor is an empty line before it.
        reading(b"\r\n" + get(b"A: " + b"b" * (200 - fixed)), self.limits, few_ways)

    def test_header_count(self):
        """
        As many fields as allowed are accepted, one more is answered 431.
        """
        reading(get(*[b"A: b"] * 4), self.limits)
        self.assertIs(refusal(get(*[b"A: b"] * 5), self.limits), Outcome.HEADERS_TOO_LARGE)

    def test_defaults(self):
        """
        The bounds are on without being asked for.
        """
        once = lambda data: [[data], [data[:5000], data[5000:]]]  # noqa: E731
        self.assertIs(refusal(get(line=b"GET /%b HTTP/1.1" % (b"a" * 8192)), cut=once), Outcome.REQUEST_LINE_TOO_LONG)
        self.assertIs(refusal(get(*[b"A: " + b"b" * 1000] * 66), cut=once), Outcome.HEADERS_TOO_LARGE)
        self.assertIs(refusal(get(*[b"A: b"] * 128), cut=once), Outcome.HEADERS_TOO_LARGE)

    def test_already_checked(self):
        """
        A later check takes up where the last one ended, and overlooks nothing at the seam.
        """
        data = b"GET / HTTP/1.1\r\nHost: a\r\n"
        for end in range(1, len(data) + 1):
            check_partial_request(data[:end], end - 1, self.limits)
        for tail in (b"\n", b"\rx", b"x\n"):
            for checked in range(len(data) + 1):
                with self.assertRaises(DownstreamError) as caught:
                    check_partial_request(data + tail, checked, self.limits)
                self.assertIs(caught.exception.outcome, Outcome.BARE_LINE_BREAK)


def answer(*lines, line=b"HTTP/1.1 200 OK", body=b""):
    """
    Return a response with these header lines.
    """
    return b"\r\n".join([line, *lines, b"", b""]) + body


class ResponseTests(SynchronousTestCase):
    """
    What a backend may answer.
    """

    def refused(self, data, method=b"GET"):
        """
        Return the outcome with which a response is refused.
        """
        with self.assertRaises(UpstreamError, msg=data) as caught:
            response(data, method)
        return caught.exception.outcome

    def test_framing(self):
        """
        Where a response ends follows from its status, its fields and the request's method (RFC 9112 section 6.3).
        """
        chunked, five = b"Transfer-Encoding: chunked", b"Content-Length: 5"
        for method, status, lines, body, length, declared, keep_alive in [
            (b"GET", 200, [five], b"hello", 5, 5, True),
            (b"GET", 200, [b"Content-Length: 0"], b"", 0, 0, True),
            (b"GET", 200, [chunked], b"5\r\nhello\r\n0\r\n\r\n", CHUNKED, -3, True),
            (b"GET", 200, [], b"hello", UNTIL_CLOSE, -3, False),
            (b"GET", 200, [b"Connection: keep-alive"], b"hello", UNTIL_CLOSE, -3, False),
            (b"GET", 200, [five, b"Connection: close"], b"hello", 5, 5, False),
            (b"GET", 404, [five], b"hello", 5, 5, True),
            (b"GET", 205, [b"Content-Length: 0"], b"", 0, 0, True),
            (b"HEAD", 200, [five], b"", 0, 5, True),
            (b"HEAD", 200, [chunked], b"", 0, -3, True),
            (b"HEAD", 200, [], b"", 0, -3, True),
            (b"GET", 304, [five], b"", 0, 5, True),
            (b"GET", 304, [], b"", 0, -3, True),
            (b"GET", 204, [], b"", 0, -3, True),
            (b"GET", 204, [b"Content-Length: 0"], b"", 0, -3, True),
            (b"GET", 100, [], b"", 0, -3, True),
            (b"GET", 103, [b"Link: </a>"], b"", 0, -3, True),
        ]:
            data = answer(*lines, line=b"HTTP/1.1 %d x" % status, body=body)
            head, found, _, left = response(data, method)
            self.assertEqual((head.length, head.declared_length, head.keep_alive), (length, declared, keep_alive), data)
            self.assertEqual((head.status, left), (status, b""))
            self.assertEqual(found, b"hello" if length else b"", data)

    def test_surplus(self):
        """
        What follows a response is not taken for a part of it.
        """
        for data in [answer(b"Content-Length: 5", body=b"hello"), answer(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n")]:
            self.assertEqual(response(data + b"HTTP/1.1 200 OK\r\n")[3], b"HTTP/1.1 200 OK\r\n")

    def test_body_that_must_not_be(self):
        """
        A 204 that announces a body has none, and its connection is not used again: the body may yet come.
        """
        for line in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
            head, _, _, left = response(answer(line, line=b"HTTP/1.1 204 No Content", body=b"hello"))
            self.assertEqual((head.length, head.declared_length, head.keep_alive, left), (0, -3, False, b"hello"))

    def test_refused(self):
        """
        A response that could be read in two ways is refused.
        """
        for lines in [
            [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
            [b"Content-Length: 5", b"Content-Length: 5"],
            [b"Content-Length: 5", b"Content-Length: 6"],
            [b"Content-Length: 5, 5"],
            [b"Content-Length: +5"],
            [b"Content-Length: -1"],
            [b"Content-Length:"],
            [b"Content-Length: " + b"9" * 30],
            [b"Transfer-Encoding: gzip, chunked"],
            [b"Transfer-Encoding: identity"],
            [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding:"],
            [b"A: b", b" folded"],
            [b"A : b"],
            [b"A"],
            [b"A: b\nC: d"],
            [b"A: b\rC: d"],
            [b"A: \x00"],
            [b": a"],
            [b"Connection: a b"],
        ]:
            self.assertIs(self.refused(answer(*lines)), Outcome.RESPONSE_MALFORMED, lines)
            self.assertIs(self.refused(answer(*lines), b"HEAD"), Outcome.RESPONSE_MALFORMED, lines)
        self.assertIs(self.refused(answer(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK")), Outcome.RESPONSE_MALFORMED)
        for line in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
            self.assertIs(self.refused(answer(line, line=b"HTTP/1.1 103 Early Hints")), Outcome.RESPONSE_MALFORMED)
        self.assertIs(self.refused(answer(b"Transfer-Encoding: chunked", body=b"x\r\n")), Outcome.RESPONSE_MALFORMED)

    def test_status_line(self):
        """
        The status line may lack its reason phrase, and becomes one of HTTP/1.1.
        """
        for line, status, expected in [
            (b"HTTP/1.1 200 OK", 200, b"HTTP/1.1 200 OK"),
            (b"HTTP/1.1 200 ", 200, b"HTTP/1.1 200 "),
            (b"HTTP/1.1 200", 200, b"HTTP/1.1 200 "),
            (b"HTTP/1.0 404 Gone fishing", 404, b"HTTP/1.1 404 Gone fishing"),
            (b"HTTP/1.1 599 \xe9\t!", 599, b"HTTP/1.1 599 \xe9\t!"),
        ]:
            for _ in range(2):
                head, _, _, _ = response(answer(b"Content-Length: 0", line=line))
                self.assertEqual((head.status, head.status_line, head.keep_alive), (status, expected, line[7:8] == b"1"))
        for line in [
            b"",
            b"HTTP/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1 99 x",
            b"HTTP/1.1 099 x",
            b"HTTP/1.1 600 x",
            b"HTTP/1.1 abc x",
            b"HTTP/1.1 2000 x",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 200\tOK",
            b"HTTP/1.1 +20 OK",
            b"HTTP/1.1 2 0 OK",
            b"HTTP/1.2 200 OK",
            b"HTTP/2.0 200 OK",
            b"HTTP/2 200 OK",
            b"http/1.1 200 OK",
            b" HTTP/1.1 200 OK",
            b"ICY 200 OK",
            b"200 OK",
            b"HTTP/1.1 200 O\nK",
            b"HTTP/1.1 200 O\rK",
            b"HTTP/1.1 200 \x00",
            b"HTTP/1.1 200 \x7f",
        ]:
            self.assertIs(self.refused(answer(b"Content-Length: 0", line=line)), Outcome.RESPONSE_MALFORMED, line)

    def test_old_version(self):
        """
        An HTTP/1.0 backend's connection is used again only if it says so.
        """
        head, _, _, _ = response(answer(b"Content-Length: 0", b"Connection: Keep-Alive", line=b"HTTP/1.0 200 OK"))
        self.assertTrue(head.keep_alive)
        head, body, _, _ = response(answer(line=b"HTTP/1.0 200 OK", body=b"a"))
        self.assertEqual((head.length, body, head.keep_alive), (UNTIL_CLOSE, b"a", False))

    def test_fields(self):
        """
        End-to-end fields keep order, letters and number; what is for this connection only goes no further.
        """
        lines = [b"Server: s", b"set-cookie: a=b", b"Set-Cookie:c=d", b"X_Id: 1", b"DATE: now", b"Content_Length: 9", b"Via: 1.1 x"]
        head, _, _, _ = response(
            answer(
                *lines,
                b"Content-Length: 0",
                b"Connection: keep-alive, X-Hop",
                b"X-Hop: 1",
                b"Keep-Alive: timeout=5",
                b"Proxy-Authenticate: Basic",
                b"Proxy-Connection: close",
                b"Upgrade: h2c",
                b"TE: trailers",
            )
        )
        self.assertEqual([field.line for field in head.fields], lines)
        self.assertEqual((head.has_date, head.keep_alive, head.nominated), (True, True, {b"x-hop"}))
        self.assertFalse(response(answer(b"Content-Length: 0"))[0].has_date)

    def test_trailers(self):
        """
        Trailers arrive, but for those that `Connection` named.
        """
        body = b"1\r\nx\r\n0\r\ngrpc-status: 0\r\nX-Hop: 1\r\n\r\n"
        _, found, trailers, _ = response(answer(b"Transfer-Encoding: chunked", b"Connection: x-hop", body=body))
        self.assertEqual((found, trailers), (b"x", [make_field(b"grpc-status", b"0")]))

    def test_too_many(self):
        """
        A response with too many fields is refused, with an outcome of its own.
        """
        response(answer(b"Content-Length: 0", *[b"A: b"] * 255))
        self.assertIs(self.refused(answer(b"Content-Length: 0", *[b"A: b"] * 256)), Outcome.RESPONSE_HEADERS_TOO_LARGE)

    def test_status_lines_are_bounded(self):
        """
        A backend that invents reason phrases does not take up memory for it.
        """
        for number in range(1000):
            response(answer(b"Content-Length: 0", line=b"HTTP/1.1 200 %d" % number))
            response(answer(b"Content-Length: 0", line=b"HTTP/1.1 200 %d" % number + b"!" * 1000))
        self.assertLessEqual(len(http1._STATUS_LINES), 256)
        self.assertLessEqual(max(map(len, http1._STATUS_LINES)), 64)


class WritingTests(SynchronousTestCase):
    """
    What the gateway writes itself.
    """

    def test_status_lines(self):
        """
        Every status has a line, which our own reader accepts.
        """
        for status in range(100, 600):
            head, _, _, _ = response(answer(line=status_line(status)))
            self.assertEqual((head.status, head.status_line), (status, status_line(status)))
        self.assertEqual(status_line(404), b"HTTP/1.1 404 Not Found")

    def test_field_block(self):
        """
        Fields are written as the lines they came in.
        """
        self.assertEqual(field_block([make_field(b"A", b"b"), make_field(b"c", b"")]), b"A: b\r\nc: \r\n")
        self.assertEqual(field_block([]), b"")


TOKENS = st.text("abXY019!#$%&'*+-.^`|~", min_size=1, max_size=10).map(str.encode)
VALUES = st.binary(max_size=20).map(lambda value: bytes(byte for byte in value if byte == 9 or 32 <= byte != 127).strip())
FIELDS = st.lists(st.tuples(TOKENS, VALUES).map(lambda pair: make_field(*pair)), max_size=6).map(
    lambda fields: [field for field in fields if field.name not in (b"te", b"date")]
)


class PropertyTests(SynchronousTestCase):
    """
    What holds for every head.
    """

    @CASES
    @given(
        TOKENS,
        st.lists(TOKENS.map(lambda token: re.sub(rb"[#%.]", b"x", token)), max_size=3),
        FIELDS,
        st.none() | st.binary(max_size=30),
    )
    @example(b"GET", [], [], None)
    def test_request_round_trip(self, method, segments, fields, body):
        """
        A request that was written is read as it was, body included.
        """
        target = b"/" + b"/".join(segments)
        lines = [field.line for field in fields]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        head, found, _, _ = reading(get(*lines, line=b"%b %b HTTP/1.1" % (method, target)) + (body or b""), cut=few_ways)
        self.assertEqual((head.method, head.target, head.fields, found), (method, target, fields, body or b""))

    @CASES
    @given(st.integers(200, 599), FIELDS, st.binary(max_size=30))
    def test_response_round_trip(self, status, fields, body):
        """
        A response that was written is read as it was, body included.
        """
        if status in (204, 304):
            body = b""
        data = answer(*[field.line for field in fields], b"Content-Length: %d" % len(body), line=status_line(status), body=body)
        head, found, _, left = response(data)
        self.assertEqual((head.status, head.fields, found, left), (status, fields, body, b""))

    @CASES
    @given(st.binary(min_size=1, max_size=80))
    @example(b"\r\n\r\n\r\n")
    @example(b"\r\n \r\n\r\n")
    @example(b"a\r\n\r\n")
    def test_any_request_bytes(self, data):
        """
        Whatever bytes a client sends, they are a request, the beginning of one, or refused, and always the same.
        """
        limits = RequestLimits()
        tails = [b"", b"\r\n\r\n", b" / HTTP/1.1\r\nHost: a\r\n\r\n"]
        for whole in [data + tail for tail in tails] + [b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n"]:
            ends = set()
            for pieces in few_ways(whole):
                dialogue = RequestDialogue(limits)
                for piece in pieces:
                    dialogue.feed(piece)
                ends.add((dialogue.refused, repr([sorted(tell(head).items()) for head, _, _ in dialogue.requests])))
            self.assertEqual(len(ends), 1, ends)
            if b"\r\n\r\n" in whole[1:]:
                try:
                    read_request_head(whole, whole.index(b"\r\n\r\n", 1), limits)
                except DownstreamError as error:
                    self.assertIn(error.outcome.status, (400, 414, 417, 431, 501, 505))

    @CASES
    @given(st.binary(max_size=80), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"]))
    def test_any_response_bytes(self, data, start):
        """
        Whatever bytes a backend sends, they are a response or its fault.
        """
        whole = start + data + b"\r\n\r\n"
        try:
            head = read_response_head(whole, whole.index(b"\r\n\r\n"), b"GET")
        except UpstreamError as error:
            self.assertEqual(error.outcome.status, 502)
        else:
            self.assertEqual(get_all_fields(head.fields, b"content-length"), [])

    @CASES
    @given(
        st.integers(1, 40), st.integers(1, 80), st.lists(st.sampled_from([b"A: b", b"C: " + b"d" * 30]), max_size=5), st.integers(0, 40)
    )
    def test_limits_hold_in_any_cut(self, line_limit, header_limit, lines, size):
        """
        Near a limit, too, the answer does not depend on how the bytes were cut.
        """
        limits = attrs.evolve(RequestLimits(), max_request_line_bytes=line_limit, max_header_bytes=header_limit, max_header_count=4)
        data = get(*lines, line=b"GET /%b HTTP/1.1" % (b"a" * size))
        ends = set()
        for pieces in few_ways(data):
            dialogue = RequestDialogue(limits)
            for piece in pieces:
                dialogue.feed(piece)
            ends.add((dialogue.refused, len(dialogue.requests)))
        self.assertEqual(len(ends), 1)
