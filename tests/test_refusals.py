"""
Requests that the gateway refuses because two servers could read them two ways.

Each refusal, as a client sees it, tells its reason, is logged and counted, ends its connection, and harms nobody.
"""

from __future__ import annotations

from tests.setting import RefusalCase
from tests.support import wait_until
from tests.wire import Client, Scene, request

HOST = b"Host: test\r\n"


class MalformedRequestTests(RefusalCase):
    """
    What two servers could read two ways is refused.
    """

    def _refuse_all(self, cases) -> None:
        self.refuse(*cases)
        self.check_unharmed()

    def test_request_lines(self):
        """
        A request line that is not one is refused, and an unknown version is named as the reason.
        """
        self._refuse_all(
            (
                (b"GET\r\n\r\n", 400, "request-line-malformed"),
                (b"GET /\r\n\r\n", 400, "request-line-malformed"),
                (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "request-line-malformed"),
                (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400, "request-line-malformed"),
                (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400, "request-line-malformed"),
                (b"GET / HTTP/1\r\n" + HOST + b"\r\n", 400, "request-line-malformed"),
                (b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "request-line-malformed"),
                (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505, "version-not-supported"),
                (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "version-not-supported"),
                (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505, "version-not-supported"),
                # Nearly the beginning of HTTP/2.
                (b"PRI * HTTP/2.0\r\n\r\nSO\r\n\r\n", 505, "version-not-supported"),
            )
        )

    def test_targets(self):
        """
        A target that is no path, names another host than the request, or asks for a tunnel is refused.
        """
        self._refuse_all(
            (
                (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target-malformed"),
                (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target-malformed"),
                (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target-malformed"),
                (b"GET /a\x7f HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target-malformed"),
                (b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target-malformed"),
                (b"GET ftp://test/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target-malformed"),
                (b"GET http://other/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "host-malformed"),
                (b"GET https://test/ HTTP/1.1\r\n" + HOST + b"\r\n", 421, "misdirected"),
                (b"CONNECT test:443 HTTP/1.1\r\n" + HOST + b"\r\n", 501, "method-not-supported"),
                (b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n", 501, "method-not-supported"),
                (b"CONNECT http://test/ HTTP/1.1\r\n" + HOST + b"\r\n", 501, "method-not-supported"),
            )
        )

    def test_paths(self):
        """
        A path that servers decode differently is refused.
        """
        self._refuse_all(
            (b"GET %b HTTP/1.1\r\n" % path + HOST + b"\r\n", 400, "path-refused")
            for path in (
                *(b"/a%2Fb", b"/a%2fb", b"/a%5Cb", b"/a\\b", b"/a%00b"),
                *(b"/a%", b"/a%zz", b"/a%2"),
                *(b"/x/..;/admin", b"/x/%2e%2e;a/admin"),
            )
        )

    def test_hosts(self):
        """
        A request must name one host, and name it well.
        """
        self._refuse_all(
            (
                (b"GET / HTTP/1.1\r\n\r\n", 400, "host-missing"),
                (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "host-malformed"),
                (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400, "host-malformed"),
                (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", 400, "host-malformed"),
                (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "host-malformed"),
                (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "host-malformed"),
                (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "host-malformed"),
                (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "host-malformed"),
                (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "host-malformed"),
            )
        )

    def test_header_lines(self):
        """
        A header line that is folded, lacks its colon, or holds a control character is refused.
        """
        self._refuse_all(
            (b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n", 400, reason)
            for lines, reason in (
                (b"X-A: 1\r\n folded\r\n", "folded-header"),
                (b" X-A: 1\r\n", "folded-header"),
                (b"X-A\r\n", "header-malformed"),
                (b"X-A : 1\r\n", "header-malformed"),
                (b": 1\r\n", "header-malformed"),
                (b"X A: 1\r\n", "header-malformed"),
                (b"X-A: a\x00b\r\n", "header-malformed"),
                (b"X-A: a\x08b\r\n", "header-malformed"),
                (b"X-A: a\rb: c\r\n", "bare-line-break"),
                (b"X-A: a\nX-B: c\r\n", "bare-line-break"),
                (b"X_A: 1\r\n", "header-name-refused"),
                (b"Content_Length: 5\r\n", "header-name-refused"),
                (b"Connection: a b\r\n", "header-malformed"),
            )
        )
        self.refuse((b"GET / HTTP/1.1\nHost: test\n\n", 400, "bare-line-break"))

    def test_smuggling(self):
        """
        A request whose end two servers would see in two places is refused, so that nothing can hide behind it.
        """
        hidden = b"GET /hidden HTTP/1.1\r\nHost: test\r\n\r\n"
        self._refuse_all(
            (b"POST / HTTP/1.1\r\n" + HOST + lines + b"\r\n" + body + hidden, 400, reason)
            for lines, body, reason in (
                (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", "framing-ambiguous"),
                (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n", "framing-ambiguous"),
                (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello", "length-malformed"),
                (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello", "length-malformed"),
                (b"Content-Length: 5, 5\r\n", b"hello", "length-malformed"),
                (b"Content-Length: +5\r\n", b"hello", "length-malformed"),
                (b"Content-Length: -5\r\n", b"hello", "length-malformed"),
                (b"Content-Length: 0x5\r\n", b"hello", "length-malformed"),
                (b"Content-Length: 5 \x0b\r\n", b"hello", "header-malformed"),
                (b"Content-Length:\r\n", b"hello", "length-malformed"),
                (b"Content-Length: \xb2\r\n", b"hello", "length-malformed"),
                (b"Content-Length: 9999999999999999999\r\n", b"hello", "length-malformed"),
                (b"Content-Length : 5\r\n", b"hello", "header-malformed"),
                (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", "transfer-coding-refused"),
                (b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n", "transfer-coding-refused"),
                (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", "transfer-coding-refused"),
                (b"Transfer-Encoding: identity\r\n", b"", "transfer-coding-refused"),
                (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n", "transfer-coding-refused"),
                (b"Transfer-Encoding: chunked;a=b\r\n", b"0\r\n\r\n", "transfer-coding-refused"),
                (b"Transfer-Encoding:\r\n", b"", "transfer-coding-refused"),
                (b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n", "header-malformed"),
                (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n", "header-malformed"),
                (b"X-A: 1\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", "bare-line-break"),
            )
        )
        self.refuse((b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "transfer-coding-refused"))

    def test_chunks(self):
        """
        A chunk that is not one is refused; what the backend has got of the request never becomes complete.
        """
        seen = []

        def play(conversation: Scene, head: bytes) -> bool:
            try:
                seen.append(conversation.read_to_end())
            except ConnectionError:
                seen.append(b"")
            return True

        self.stage.on("/chunks", play)
        head = request("/chunks", "Transfer-Encoding: chunked", method="POST")
        cases = []
        for body, reason in (
            (b"x\r\n", "chunk-malformed"),
            (b"-1\r\n", "chunk-malformed"),
            (b"0x5\r\nhello\r\n", "chunk-malformed"),
            (b" 5\r\nhello\r\n", "chunk-malformed"),
            (b"5 \r\nhello\r\n", "chunk-malformed"),
            (b"5\nhello\r\n", "chunk-malformed"),
            (b"5\r\nhelloX\r\n", "chunk-malformed"),
            (b"5\r\nhello\n0\r\n\r\n", "chunk-malformed"),
            (b"5;a\x00b\r\nhello\r\n", "chunk-malformed"),
            (b"5;a\nb\r\nhello\r\n", "chunk-malformed"),
            (b"ffffffffffffffff\r\n", "chunk-malformed"),
            (b"5;" + b"x" * 2000, "chunk-malformed"),
            (b"0\r\nContent-Length: 5\r\n\r\n", "trailer-refused"),
            (b"0\r\nHost: evil\r\n\r\n", "trailer-refused"),
            (b"0\r\nX-A : 1\r\n\r\n", "trailer-refused"),
            (b"0\r\nX-A: 1\n\r\n\r\n", "trailer-refused"),
            (b"0\r\nX-A: " + b"x" * 20000 + b"\r\n\r\n", "trailer-refused"),
        ):
            cases.append((head + body, 400, reason))
            # After the exchange has begun.
            before = self.stage.count("/chunks")
            with Client(self.port) as client:
                client.send(head + b"3\r\nabc\r\n")
                self._wait_for_more("/chunks", before)
                client.send(body)
                self.check_refusal(client.read_answer(), 400, reason)
                self.assertEqual(client.ending(2.0), "closed")
        # All of it with the head.
        self.refuse(*cases)
        self.check_unharmed()
        self.assertEqual([body for body in seen if body.endswith(b"0\r\n\r\n")], [])

    def _wait_for_more(self, path: str, before: int) -> None:
        wait_until(lambda: self.stage.count(path) > before, "the request has arrived")

    def test_expectations(self):
        """
        An expectation other than 100-continue is refused.
        """
        self._refuse_all([(request("/", "Expect: 200-ok"), 417, "expectation-failed")])

    def test_requests_behind_a_refused_one(self):
        """
        What was sent ahead behind a refused request is not served.
        """
        with Client(self.port) as client:
            client.send(request("/first") + b"GET /\r\n\r\n" + request("/behind"))
            self.assertEqual(client.read_answer().status, 200)
            self.check_refusal(client.read_answer(), 400, "request-line-malformed")
            self.assertEqual(client.ending(2.0), "closed")
        self.check_unharmed()
        self.assertEqual(self.stage.count("/behind"), 0)

    def test_what_is_not_refused(self):
        """
        Unusual requests that can be read in one way only are served.
        """
        client = self.connect()
        for data in (
            b"\r\nGET /ok HTTP/1.1\r\nHost: test\r\n\r\n",
            b"\r\n\r\nGET /ok HTTP/1.1\r\nHost: test\r\n\r\n",
            b"GET http://test/ok HTTP/1.1\r\nHost: test\r\n\r\n",
            b"GET HTTP://TEST/ok HTTP/1.1\r\nHost: test\r\n\r\n",
            b"GET /ok HTTP/1.1\r\nHost:test\r\nX-Empty:\r\nX-Tab:\t a \t\r\n\r\n",
            b"GET /ok HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            b"GET /ok?a=%zz&b=%2F|{} HTTP/1.1\r\nHost: test\r\n\r\n",
            b"GET /ok HTTP/1.1\r\nHost: test\r\nX-Latin: \xe9\r\n\r\n",
            b"BREW /ok HTTP/1.1\r\nHost: test\r\n\r\n",
            b"GET /ok HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
            b"GET /ok HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi",
            b"POST /ok HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: Chunked\r\n\r\n002\r\nhi\r\n0\r\n\r\n",
        ):
            client.send(data)
            self.assertEqual(client.read_answer().status, 200, data)

    def test_byte_by_byte(self):
        """
        A request is served, and a bad one refused, just the same when it comes byte by byte.
        """
        for data, status in (
            (b"\r\nPOST /ok HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\n\r\n", 200),
            (b"GET /ok HTTP/1.1\r\nHost: test\r\nX-A: a\nb\r\n\r\n", 400),
            (b"GET /ok HTTP/3.0\r\nHost: test\r\n\r\n", 505),
        ):
            client = self.connect()
            # A refusal may come before the end.
            for byte in data:
                try:
                    client.send(bytes((byte,)))
                except ConnectionError:
                    break
            self.assertEqual(client.read_answer("POST").status, status, data)
