"""
What goes through the gateway over HTTP/1.1: every shape of message in both directions, on connections that live on.
"""

from __future__ import annotations

import os
import socket
import threading

from tests.setting import GatewayCase
from tests.support import PATIENCE, wait_until
from tests.wire import Scene, head_fields, read_body, read_chunked, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class MessageTests(GatewayCase):
    """
    Messages of every shape arrive as they were sent.
    """

    # -- connections

    def test_keep_alive(self):
        """
        Requests that follow one another share the client's connection and the backend's.
        """
        client = self.connect()
        client.fetch("/first")
        before = self.stage.connections
        for number in range(5):
            answer = client.fetch(f"/again/{number}")
            self.assertEqual((answer.line, answer.body), ("HTTP/1.1 200 OK", b"ok"))
            self.assertIsNone(answer.get("connection"))
        self.assertEqual(self.stage.connections, before)

    def test_close_wished_by_the_client(self):
        """
        A client that asks for its connection to be closed gets its answer and then the end.
        """
        client = self.connect()
        answer = client.fetch("/close", "Connection: close")
        self.assertEqual((answer.status, answer.body, answer.get("connection")), (200, b"ok", "close"))
        self.assertEqual(client.ending(), "closed")

    def test_backend_that_closes_each_time(self):
        """
        A backend that closes its connection after each answer does not cost the client its own.
        """

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            return True

        self.stage.on("/closer", play)
        client = self.connect()
        for _ in range(5):
            answer = client.fetch("/closer")
            self.assertEqual((answer.status, answer.get("connection")), (200, None))

    # -- pipelining

    def test_pipelining(self):
        """
        Requests sent ahead are answered in their order, slow ones, missing ones and the gateway's own alike.
        """

        def slow(conversation: Scene, head: bytes) -> None:
            threading.Event().wait(0.3)
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

        self.stage.on("/slow", slow)
        self.stage.on("/quick", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nquick")
        self.stage.on("/chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        client = self.connect()
        client.send(
            request("/slow")
            + request("/nowhere")
            + request("/quick", method="POST", body=b"12345")
            + request("/chunked")
            + request("/nowhere", method="HEAD")
            + request("/quick")
        )
        answers = [client.read_answer(method) for method in ("GET", "GET", "POST", "GET", "HEAD", "GET")]
        self.assertEqual([answer.status for answer in answers], [200, 404, 200, 200, 404, 200])
        self.assertEqual([answer.body for answer in answers if answer.status == 200], [b"slow", b"quick", b"abc", b"quick"])

    def test_much_sent_ahead(self):
        """
        More requests than are kept at a time may be sent ahead; all are answered, and so is one more after them.
        """
        go = self._hold("/hold-many")
        client = self.connect()
        count = 1500
        sending = client.send_aside(request("/hold-many") + b"".join(request(f"/ahead?{number:040}") for number in range(count)))
        wait_until(lambda: self.stage.count("/hold-many"), "the first request arrived")
        # Time for the gateway to read ahead as much as it likes.
        threading.Event().wait(0.3)
        go.set()
        for _ in range(count + 1):
            self.assertEqual(client.read_answer().status, 200)
        sending.join(PATIENCE)
        self.assertEqual(client.fetch("/afterwards").status, 200)

    def test_requests_ahead_that_end_where_the_bound_is(self):
        """
        A client whose requests ahead fill the bound exactly, to the last byte, is still listened to afterwards.
        """
        go = self._hold("/hold-exact")
        client = self.connect()
        client.send(request("/hold-exact"))
        wait_until(lambda: self.stage.count("/hold-exact"), "the first request arrived")
        count = 10
        client.send(b"".join(request(f"/ahead?{'x' * 8000}{number:04}") for number in range(count)))
        threading.Event().wait(0.3)
        go.set()
        for _ in range(count + 1):
            self.assertEqual(client.read_answer().status, 200)
        self.assertEqual(client.fetch("/afterwards").status, 200)

    def test_large_upload_sent_ahead(self):
        """
        An upload sent behind a slow request arrives whole.
        """
        go = self._hold("/hold-upload")
        seen = []

        def play(conversation: Scene, head: bytes) -> None:
            seen.append(read_body(conversation, head)[0])
            conversation.send(OK)

        self.stage.on("/upload-ahead", play)
        body = os.urandom(1 << 20)
        client = self.connect()
        sending = client.send_aside(request("/hold-upload") + request("/upload-ahead", method="POST", body=body))
        wait_until(lambda: self.stage.count("/hold-upload"), "the first request arrived")
        threading.Event().wait(0.3)
        go.set()
        self.assertEqual(client.read_answer().status, 200)
        self.assertEqual(client.read_answer("POST").status, 200)
        self.assertEqual(seen, [body])
        sending.join(PATIENCE)

    def _hold(self, path: str) -> threading.Event:
        go = threading.Event()
        self.addCleanup(go.set)

        def play(conversation: Scene, head: bytes) -> None:
            go.wait(PATIENCE)
            conversation.send(OK)

        self.stage.on(path, play)
        return go

    # -- bodies

    def test_chunked_both_ways(self):
        """
        A chunked body arrives as it was sent, whatever its chunks looked like, in both directions.
        """
        seen = []

        def play(conversation: Scene, head: bytes) -> None:
            seen.append(read_body(conversation, head)[0])
            conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;name=value\r\na\r\n00A\r\nbcdefghijk\r\n0\r\n\r\n")

        self.stage.on("/chunks", play)
        client = self.connect()
        client.send(request("/chunks", "Transfer-Encoding: chunked", method="POST"))
        client.send(b"5;x=y\r\nhello\r\n1")
        threading.Event().wait(0.05)
        client.send(b"0\r\n0123456789abcdef\r")
        threading.Event().wait(0.05)
        client.send(b"\n0\r\n\r\n")
        answer = client.read_answer("POST")
        self.assertEqual((answer.status, answer.body), (200, b"abcdefghijk"))
        self.assertEqual(seen, [b"hello0123456789abcdef"])
        self.assertEqual(client.fetch("/after-chunks").status, 200)

    def test_trailers_both_ways(self):
        """
        Trailer fields reach the other side, in both directions.
        """
        seen = []

        def play(conversation: Scene, head: bytes) -> None:
            seen.append(read_body(conversation, head))
            conversation.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 17\r\nX-Also: 18\r\n\r\n"
            )

        self.stage.on("/trailers", play)
        client = self.connect()
        lines = ("TE: trailers", "Connection: TE", "Trailer: X-Digest", "Transfer-Encoding: chunked")
        for pieces in (
            # In one piece, and with the trailers apart.
            [request("/trailers", *lines, method="POST") + b"2\r\nhi\r\n0\r\nX-Digest: abc\r\n\r\n"],
            [request("/trailers", *lines, method="POST") + b"2\r\nhi\r\n", b"0\r\nX-Dig", b"est: abc\r\n\r\n"],
        ):
            for piece in pieces:
                client.send(piece)
                threading.Event().wait(0.05)
            answer = client.read_answer("POST")
            self.assertEqual((answer.body, answer.trailers), (b"ok", [("x-sum", "17"), ("x-also", "18")]))
            self.assertEqual(answer.get("trailer"), "X-Sum")
            self.assertEqual(seen.pop(), (b"hi", [("x-digest", "abc")]))
            got = dict(head_fields(self.stage.head_for("/trailers")))
            self.assertEqual((got["te"], got["trailer"]), ("trailers", "X-Digest"))

    def test_head(self):
        """
        An answer to HEAD tells the length that GET would have and has no body, so the connection goes on.
        """
        self.stage.on("/doc", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Page: 1\r\n\r\n")
        self.stage.on("/stream", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        client = self.connect()
        for _ in range(2):
            answer = client.fetch("/doc", method="HEAD")
            self.assertEqual((answer.status, answer.get("content-length"), answer.get("x-page")), (200, "1234", "1"))
            self.assertEqual(client.fetch("/stream", method="HEAD").status, 200)
            self.assertEqual(client.fetch("/nowhere", method="HEAD").status, 404)

    def test_answers_without_a_body(self):
        """
        The answers 204 and 304 have no body, whatever their fields say, so the connection goes on.
        """
        self.stage.on("/none", b"HTTP/1.1 204 No Content\r\nX-Page: 1\r\n\r\n")
        self.stage.on("/same", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 1234\r\n\r\n')
        client = self.connect()
        for _ in range(2):
            answer = client.fetch("/none")
            self.assertEqual((answer.status, answer.get("x-page"), answer.get("content-length")), (204, "1", None))
            answer = client.fetch("/same")
            self.assertEqual((answer.status, answer.get("etag"), answer.get("content-length")), (304, '"a"', "1234"))

    def test_empty_and_unusual_answers(self):
        """
        Unusual status codes, empty reasons and empty bodies pass unchanged.
        """
        client = self.connect()
        for sent, seen in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ("HTTP/1.1 200 OK", b"")),
            (b"HTTP/1.1 299 \r\nContent-Length: 1\r\n\r\nx", ("HTTP/1.1 299 ", b"x")),
            (b"HTTP/1.1 599 Such \xe9 day\r\nContent-Length: 1\r\n\r\nx", ("HTTP/1.1 599 Such \xe9 day", b"x")),
            (b"HTTP/1.1 302 Found\r\nLocation: http://other.test/\r\nContent-Length: 0\r\n\r\n", ("HTTP/1.1 302 Found", b"")),
        ):
            self.stage.on("/odd", sent)
            answer = client.fetch("/odd")
            self.assertEqual((answer.line, answer.body), seen)

    def test_fields_keep_order_case_and_repetition(self):
        """
        Header fields keep their order, their letter case and their repetitions.
        """
        self.stage.on("/fields", b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nX-B: 2\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")
        client = self.connect()
        client.ask("/fields", "x-ONE: 1", "X-Two: 2", "x-ONE: 3")
        _, fields = client.read_head()
        self.assertEqual([value for name, value in fields if name == "set-cookie"], ["a=1", "b=2"])
        head = self.stage.head_for("/fields")
        self.assertIn(b"\r\nx-ONE: 1\r\nX-Two: 2\r\nx-ONE: 3\r\n", head)

    # -- interim responses

    def test_continue_said_by_the_backend(self):
        """
        A client that waits for 100 gets the backend's, and only then the backend gets the body.
        """
        seen = []

        def play(conversation: Scene, head: bytes) -> None:
            conversation.socket.settimeout(0.2)
            try:
                early = conversation.socket.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                early = b""
            conversation.socket.settimeout(PATIENCE)
            conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            seen.append((early, read_body(conversation, head)[0]))
            conversation.send(OK)

        self.stage.on("/continue", play)
        client = self.connect()
        for framing, body in (("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")):
            client.send(request("/continue", "Expect: 100-continue", framing, method="POST"))
            self.assertEqual(client.read_head()[0], "HTTP/1.1 100 Continue")
            client.send(body)
            answer = client.read_answer("POST")
            self.assertEqual((answer.status, answer.interim, answer.get("connection")), (200, [], None))
        self.assertEqual(seen, [(b"", b"hello")] * 2)

    def test_continue_refused_by_the_backend(self):
        """
        A backend that refuses the body gets none, and the client gets its refusal and a closed connection, because none knows who is next.
        """
        for status in (b"417 Expectation Failed", b"401 Unauthorized"):
            self.stage.on("/refused", b"")

            def play(conversation: Scene, head: bytes, status: bytes = status) -> None:
                conversation.send(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nno" % status)

            self.stage.on("/refused", play)
            client = self.connect()
            client.send(request("/refused", "Expect: 100-continue", "Content-Length: 5", method="PUT"))
            answer = client.read_answer("PUT")
            self.assertEqual((answer.status, answer.body, answer.interim), (int(status[:3]), b"no", []))
            self.assertEqual(answer.get("connection"), "close")
            self.assertEqual(client.ending(), "closed")
        self.assertEqual(self.connect().fetch("/after-refusal").status, 200)

    def test_early_hints(self):
        """
        Early hints reach the client before the answer does.
        """
        go = threading.Event()
        self.addCleanup(go.set)

        def play(conversation: Scene, head: bytes) -> None:
            conversation.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
            go.wait(PATIENCE)
            conversation.send(OK)

        self.stage.on("/hints", play)
        client = self.connect()
        client.ask("/hints")
        self.assertEqual(client.read_head(), ("HTTP/1.1 103 Early Hints", [("link", "</a.css>; rel=preload")]))
        self.assertEqual(client.read_head(), ("HTTP/1.1 102 Processing", []))
        go.set()
        self.assertEqual(client.read_answer().status, 200)

    # -- HTTP/1.0

    def test_old_client(self):
        """
        A client of HTTP/1.0 gets one answer on each connection, and needs no Host.
        """
        client = self.connect()
        client.send(b"GET /old HTTP/1.0\r\n\r\n")
        answer = client.read_answer()
        self.assertEqual((answer.status, answer.body, answer.get("connection")), (200, b"ok", "close"))
        self.assertEqual(client.ending(), "closed")
        # The backend is asked over HTTP/1.1, which needs one.
        head = self.stage.head_for("/old")
        self.assertTrue(head.startswith(b"GET /old HTTP/1.1\r\n"))
        self.assertEqual(dict(head_fields(head))["host"], f"127.0.0.1:{self.stage.port}")

    def test_old_client_that_keeps_its_connection(self):
        """
        A client of HTTP/1.0 that asks to keep its connection keeps it, and is told so.
        """
        client = self.connect()
        for _ in range(3):
            client.send(b"GET /old HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
            answer = client.read_answer()
            self.assertEqual((answer.status, answer.body, answer.get("connection")), (200, b"ok", "keep-alive"))

    def test_old_client_and_chunks(self):
        """
        A client of HTTP/1.0 gets a chunked answer without its chunks, trailers and interim answers, and ended by its connection.
        """
        self.stage.on(
            "/new",
            b"HTTP/1.1 103 Early Hints\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nX-T: 1\r\n\r\n",
        )
        client = self.connect()
        client.send(b"GET /new HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = client.read_answer()
        self.assertEqual((answer.interim, answer.body, answer.get("connection")), ([], b"abcdef", "close"))
        self.assertIsNone(answer.get("transfer-encoding"))

    def test_old_backend(self):
        """
        An answer that ends with its backend's connection does not end the client's.
        """

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(b"HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nall of")
            threading.Event().wait(0.05)
            conversation.send(b" it")
            return True

        self.stage.on("/ancient", play)
        client = self.connect()
        for _ in range(2):
            answer = client.fetch("/ancient")
            self.assertEqual((answer.line, answer.body, answer.get("x-old")), ("HTTP/1.1 200 OK", b"all of it", "1"))
        client.send(b"GET /ancient HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertEqual(client.read_answer().body, b"all of it")
        self.assertEqual(client.ending(), "closed")

    def test_old_backend_that_keeps_its_connection(self):
        """
        A backend of HTTP/1.0 that offers to keep its connection is asked again on it.
        """
        self.stage.on("/ancient-kept", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        client = self.connect()
        client.fetch("/ancient-kept")
        before = self.stage.connections
        client.fetch("/ancient-kept")
        self.assertEqual(self.stage.connections, before)

    # -- both at once

    def test_answer_during_the_upload(self):
        """
        An answer that begins before the upload has ended reaches the client at once, and the rest of the upload the backend.
        """
        seen = []

        def play(conversation: Scene, head: bytes) -> None:
            def line() -> bytes:
                return conversation.read_until(b"\r\n").removesuffix(b"\r\n")

            size = int(line(), 16)
            first = conversation.read(size + 2)[:-2]
            conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            seen.append((first, *read_chunked(line, conversation.read)))
            conversation.send(b"4\r\nlast\r\n0\r\n\r\n")

        self.stage.on("/both", play)
        client = self.connect()
        client.send(request("/both", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        self.assertEqual(client.read_head()[0], "HTTP/1.1 200 OK")
        self.assertEqual((client.read_line(), client.read(7)), (b"5", b"first\r\n"))
        client.send(b"3\r\ndef\r\n0\r\n\r\n")
        self.assertEqual(read_chunked(client.read_line, client.read), (b"last", []))
        self.assertEqual(seen, [(b"abc", b"def", [])])

    def test_refusal_during_the_upload(self):
        """
        A backend's refusal of an upload reaches the client whole, although the client is still sending.
        """

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")
            return False

        self.stage.on("/too-big", play)
        # More than fits into all the buffers on the way.
        body = bytes(1 << 26)
        for _ in range(10):
            client = self.connect()
            client.send(request("/too-big", f"Content-Length: {len(body)}", method="POST"))
            sending = client.send_aside(body)
            answer = client.read_answer("POST")
            self.assertEqual((answer.status, answer.body, answer.get("connection")), (413, b"too big", "close"))
            client.close()
            sending.join(PATIENCE)
        self.check_unharmed()

    def test_events_one_by_one(self):
        """
        Events of a stream arrive one by one, each as soon as the backend sends it.
        """
        for head in (b"Transfer-Encoding: chunked\r\n", b""):
            go = threading.Semaphore(0)

            def play(conversation: Scene, request_head: bytes, head: bytes = head, go: threading.Semaphore = go) -> bool:
                conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n" % head)
                for number in range(5):
                    go.acquire(timeout=PATIENCE)
                    event = b"data: %d\n\n" % number
                    conversation.send(b"%x\r\n%b\r\n" % (len(event), event) if head else event)
                go.acquire(timeout=PATIENCE)
                if head:
                    conversation.send(b"0\r\n\r\n")
                return True

            self.stage.on("/events", play)
            client = self.connect()
            client.ask("/events", "Accept: text/event-stream")
            self.assertEqual(client.read_head()[0], "HTTP/1.1 200 OK")
            for number in range(5):
                go.release()
                size = int(client.read_line(), 16)
                self.assertEqual(client.read(size + 2), b"data: %d\n\n\r\n" % number)
            go.release()
            self.assertEqual(client.read_line(), b"0")
