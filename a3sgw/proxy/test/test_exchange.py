"""
Dialogues: what a client says, what the backend hears, and back.
"""

from a3sgw.errors import Outcome
from a3sgw.proxy.test.dialogues import OK, DialogueCase, request, response


class PlainTests(DialogueCase):
    """
    The common exchanges.
    """

    def test_request_and_response(self):
        """A request reaches the backend with its fields, and the response comes back with its own."""
        self.converse()
        backend = self.ask(request("GET", "/a?b=%20c", "X-One: 1", "x-One: 2"))
        heard = self.hear(backend)
        self.assertTrue(heard.startswith(b"GET /a?b=%20c HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\nx-One: 2\r\n"), heard)
        self.assertIn(b"\r\nX-Forwarded-For: 192.0.2.1\r\n", heard)
        self.say(backend, response("200 Fine", "X-B: 1", "Content-Length: 5", "x-b: 2", body=b"hello"))
        self.assertEqual(
            self.hear(self.client), b"HTTP/1.1 200 Fine\r\nDate: D\r\nX-B: 1\r\nx-b: 2\r\nContent-Length: 5\r\n\r\nhello"
        )
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_connections_are_kept(self):
        """Both connections serve the next request too."""
        self.converse()
        for _ in range(3):
            backend = self.ask()
            self.hear(backend)
            self.say(backend, OK)
            self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\nok"))
        self.assertEqual(len(self.dialogue.backends), 1)

    def test_pipelining(self):
        """Requests sent ahead are answered in order, and only one is under way at a time."""
        self.converse()
        self.say(self.client, request("GET", "/1") + request("GET", "/2", body=request("GET", "/3")[:20]))
        backend = self.dialogue.backend()
        for number in (b"1", b"2", b"3"):
            heard = self.hear(backend)
            self.assertEqual(heard.count(b"GET /"), 1, heard)
            self.assertIn(b"GET /" + number, heard)
            self.say(backend, response("200 OK", "Content-Length: 1", body=number))
            self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\n" + number))
            if number == b"2":
                self.assertEqual(self.hear(backend), b"")
                self.say(self.client, request("GET", "/3")[20:])

    def test_request_byte_by_byte(self):
        """A request may come in pieces of any size."""
        self.converse()
        for byte in request("POST", "/", "Content-Length: 3", body=b"abc"):
            self.say(self.client, bytes([byte]))
        backend = self.dialogue.backend()
        self.assertTrue(self.hear(backend).endswith(b"Content-Length: 3\r\n\r\nabc"))
        self.say(backend, OK)
        self.assertIn(b"ok", self.hear(self.client))

    def test_response_byte_by_byte(self):
        """A response may come in pieces of any size."""
        for answer in (OK, response("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n")):
            self.converse()
            backend = self.ask()
            self.hear(backend)
            for byte in answer:
                self.say(backend, bytes([byte]))
            heard = self.hear(self.client)
            self.assertIn(b"o", heard.partition(b"\r\n\r\n")[2])
            self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_chunked_upload(self):
        """A chunked upload passes as it comes, framed anew, without its extensions."""
        self.converse()
        backend = self.ask(request("POST", "/", "Transfer-Encoding: chunked", body=b"3;x=y\r\nabc\r\n"))
        self.assertTrue(self.hear(backend).endswith(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"))
        self.say(self.client, b"00002\r\nde\r\n0\r\n\r\n")
        self.assertEqual(self.hear(backend), b"2\r\nde\r\n0\r\n\r\n")
        self.say(backend, OK)
        self.assertIn(b"ok", self.hear(self.client))

    def test_trailers(self):
        """Trailer fields pass in both directions."""
        self.converse()
        chunked = ["Trailer: X-Sum", "Transfer-Encoding: chunked"]
        backend = self.ask(request("POST", "/", "TE: trailers", *chunked, body=b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"))
        heard = self.hear(backend)
        self.assertTrue(heard.endswith(b"\r\nTE: trailers\r\nConnection: TE\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"), heard)
        self.assertIn(b"\r\nTrailer: X-Sum\r\n", heard)
        self.say(backend, response("200 OK", *chunked, body=b"1\r\nb\r\n0\r\nX-Sum: 2\r\nContent-Length: 9\r\n\r\n"))
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"\r\n\r\n1\r\nb\r\n0\r\nX-Sum: 2\r\n\r\n"), heard)

    def test_close_delimited_response(self):
        """A response that ends with its connection is chunked for the client, whose connection stays."""
        self.converse()
        backend = self.ask()
        self.say(backend, response(body=b"abc"))
        self.say(backend, b"def")
        self.hear(backend)
        backend.close()
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"), heard)
        self.assertFalse(self.client.has_ended)

    def test_head_204_304(self):
        """A response without a body is not waited for, and keeps the length it declares where it may have one."""
        for method, status, kept in (("HEAD", "200 OK", True), ("GET", "304 Not Modified", True), ("GET", "204 No Content", False)):
            self.converse()
            backend = self.ask(request(method))
            self.hear(backend)
            self.say(backend, response(status, "Content-Length: 7"))
            heard = self.hear(self.client)
            self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)
            self.assertEqual(b"Content-Length: 7" in heard, kept)
            self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_interim_responses(self):
        """Any number of 1xx responses reaches the client before the final one."""
        self.converse()
        backend = self.ask()
        self.say(backend, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + OK)
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103"), heard)
        self.assertTrue(heard.endswith(b"ok"))

    def test_expect_continue(self):
        """A client that waits for 100 gets the backend's."""
        self.converse()
        backend = self.ask(request("PUT", "/", "Content-Length: 2", "Expect: 100-continue"))
        self.assertIn(b"\r\nExpect: 100-continue\r\n", self.hear(backend))
        self.say(backend, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.hear(self.client), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.say(self.client, b"ab")
        self.assertEqual(self.hear(backend), b"ab")
        self.say(backend, OK)
        self.assertIn(b"ok", self.hear(self.client))

    def test_http10_client(self):
        """An HTTP/1.0 client gets no chunks and no 1xx, and is told the end by its connection."""
        self.converse()
        backend = self.ask(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"\r\nHost: 192.0.2.1\r\n", self.hear(backend))
        self.say(backend, b"HTTP/1.1 103 Early Hints\r\n\r\n")
        self.say(backend, response("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 200 OK"), heard)
        self.assertTrue(heard.endswith(b"\r\nConnection: close\r\n\r\nabc"), heard)
        self.assertTrue(self.client.has_ended)

    def test_http10_keep_alive(self):
        """An HTTP/1.0 client that asks for it keeps its connection."""
        self.converse()
        for _ in range(2):
            backend = self.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a.test\r\n\r\n")
            self.hear(backend)
            self.say(backend, OK)
            self.assertIn(b"\r\nConnection: keep-alive\r\n", self.hear(self.client))
        self.assertFalse(self.client.has_ended)

    def test_client_asks_to_close(self):
        """A client that asks for it is the last to be served on its connection."""
        self.converse()
        backend = self.ask(request("GET", "/", "Connection: close") + request())
        self.assertEqual(self.hear(backend).count(b"GET"), 1)
        self.say(backend, OK)
        self.assertIn(b"\r\nConnection: close\r\n", self.hear(self.client))
        self.assertTrue(self.client.has_ended)

    def test_missing_date(self):
        """A response without a date gets one."""
        self.converse()
        backend = self.ask()
        self.say(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertRegex(self.hear(self.client), rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n")


class BodyTests(DialogueCase):
    """
    Bodies that end early, late or never.
    """

    def test_early_response(self):
        """A response that does not wait for the whole upload reaches the client, and both connections end with it."""
        self.converse()
        backend = self.ask(request("POST", "/", "Content-Length: 100", body=b"abc"))
        self.say(backend, response("413 Too Large", "Content-Length: 2", body=b"no"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "), heard)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        self.say(self.client, b"x" * 50)
        self.assertFalse(self.client.was_reset, "what the client still sends must not destroy the answer")
        self.assertTrue(backend.has_ended)

    def test_upload_goes_on_beside_the_response(self):
        """While a response streams, the rest of the upload still reaches the backend."""
        self.converse()
        backend = self.ask(request("POST", "/", "Content-Length: 4", body=b"ab"))
        self.hear(backend)
        self.say(backend, response("200 OK", "Transfer-Encoding: chunked", body=b"1\r\nA\r\n"))
        self.say(self.client, b"cd")
        self.assertEqual(self.hear(backend), b"cd")
        self.say(backend, b"1\r\nB\r\n0\r\n\r\n")
        self.assertTrue(self.hear(self.client).endswith(b"1\r\nA\r\n1\r\nB\r\n0\r\n\r\n"))

    def test_slow_client_stops_the_backend(self):
        """A client that does not read keeps the backend from sending more than a bounded amount."""
        self.converse()
        backend = self.ask()
        self.client.room = 1000
        self.say(backend, response("200 OK", "Content-Length: 10000000"))
        sent = 0
        while backend.peer.room > len(backend.peer.arrived) and sent < 5_000_000:
            sent += backend.send(b"x" * 65536)
            self.dialogue.reactor.settle()
        self.assertLess(sent, 2_000_000)
        received = len(self.hear(self.client).partition(b"\r\n\r\n")[2])
        while received < 10_000_000:
            if sent < 10_000_000 and backend.is_writable():
                sent += backend.send(b"x" * min(65536, 10_000_000 - sent))
            received += len(self.hear(self.client))
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_slow_backend_stops_the_client(self):
        """A backend that does not read keeps the client from sending more than a bounded amount."""
        self.converse()
        backend = self.ask(request("POST", "/", "Content-Length: 10000000"))
        backend.room = 1000
        sent = 0
        while self.client.is_writable() and sent < 5_000_000:
            sent += self.client.send(b"x" * 65536)
            self.dialogue.reactor.settle()
        self.assertLess(sent, 2_000_000)
        received = len(self.hear(backend).partition(b"\r\n\r\n")[2])
        while received < 10_000_000:
            if sent < 10_000_000 and self.client.is_writable():
                sent += self.client.send(b"x" * min(65536, 10_000_000 - sent))
            received += len(self.hear(backend))
        self.say(backend, OK)
        self.assertIn(b"ok", self.hear(self.client))

    def test_bad_chunk_in_upload(self):
        """An upload that breaks its framing is answered 400, and the backend's request is broken off."""
        self.converse()
        backend = self.ask(request("POST", "/", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))
        self.hear(backend)
        self.say(self.client, b"zz\r\n")
        self.assert_refused(400, "chunk-malformed")
        self.assertTrue(backend.was_reset)
        self.assertTrue(self.client.has_ended)

    def test_response_longer_than_declared(self):
        """What a backend sends beyond its response reaches nobody, and its connection is not used again."""
        self.converse()
        backend = self.ask()
        self.hear(backend)
        self.say(backend, OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\nok"))
        other = self.ask()
        self.assertIsNot(other, backend)
        self.say(other, OK)
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\nok"))

    def test_unasked_response(self):
        """What a backend says on an idle connection is no answer to the next request."""
        self.converse()
        backend = self.ask()
        self.say(backend, OK)
        self.hear(self.client)
        self.say(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        other = self.ask()
        self.assertIsNot(other, backend)
        self.say(other, OK)
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\nok"))


class FailureTests(DialogueCase):
    """
    Cables pulled at every point.
    """

    def test_client_leaves(self):
        """A client that leaves takes its request with it, wherever that is."""
        self.converse()
        backend = self.ask()
        self.hear(backend)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_client_leaves_while_connecting(self):
        """A client that leaves while a connection is being made leaves nobody waiting."""
        self.converse(answers_dials=False)
        self.say(self.client, request())
        self.assertEqual(len(self.dialogue.attempts), 1)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.dialogue.attempts, [])
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_client_leaves_during_upload(self):
        """An upload that breaks off never looks complete to the backend."""
        self.converse()
        backend = self.ask(request("POST", "/", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))
        self.hear(backend)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(backend.was_reset)

    def test_backend_closes(self):
        """A backend that closes before it answers makes a 502, and one that closes amid its answer a broken one."""
        self.converse()
        self.ask().close()
        self.assert_refused(502, "backend-closed")
        self.say(self.client, request())
        backend = self.dialogue.backend()
        self.hear(backend)
        self.say(backend, response("200 OK", "Content-Length: 10", body=b"half"))
        backend.close()
        self.dialogue.reactor.settle()
        self.assertTrue(self.client.was_reset)
        self.assertIn("response-incomplete", self.dialogue.outcomes())

    def test_every_prefix_of_a_response(self):
        """Wherever a response breaks off, the client gets a 502 or notices that it is incomplete, and nothing leaks."""
        answer = response("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n")
        for length in range(len(answer)):
            self.converse()
            backend = self.ask()
            self.hear(backend)
            if length:
                self.say(backend, answer[:length])
            backend.close()
            heard = self.hear(self.client)
            if heard.startswith(b"HTTP/1.1 502"):
                self.assertLess(length, answer.index(b"2\r\nok"))
            else:
                self.assertTrue(self.client.was_reset, length)
            self.dialogue.assert_clean(self)

    def test_garbage_from_the_backend(self):
        """A backend that does not speak HTTP makes a 502."""
        endless = b"HTTP/1.1 200 " + b"x" * 70000
        for answer in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", response("200 OK", "Content-Length: x"), endless):
            self.converse()
            backend = self.ask()
            self.hear(backend)
            self.say(backend, answer)
            word = "response-headers-too-large" if len(answer) > 65536 else "response-malformed"
            self.assert_refused(502, word)
            self.assertTrue(backend.was_reset)

    def test_upgrade_unasked(self):
        """A backend that changes the protocol unasked makes a 502."""
        self.converse()
        self.say(self.ask(), b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        self.assert_refused(502, "response-upgrade-refused")

    def test_stale_connection(self):
        """A kept connection that turns out to be closed is replaced once for a request that may be repeated."""
        self.converse()
        backend = self.ask()
        self.say(backend, OK)
        self.hear(self.client)
        self.hear(backend)
        # The backend closes when the second request has just been sent.
        self.client.send(request("GET", "/again"))
        self.dialogue.door().connections.copy().pop()._stream.doRead()
        self.dialogue.reactor.flushes.run()
        self.assertIn(b"/again", backend.take())
        backend.close()
        other = self.dialogue.backend()
        self.assertIsNot(other, backend)
        self.assertIn(b"GET /again", self.hear(other))
        self.say(other, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.assertEqual(self.dialogue.outcomes(), ["completed", "completed"])

    def test_no_answer_on_a_kept_connection(self):
        """A server that takes too long, or answers nonsense, is not asked again because its connection had been kept."""
        for seconds, nonsense, status, word in ((31, b"", 504, "response-timeout"), (0, b"What?\r\n\r\n", 502, "response-malformed")):
            self.converse()
            backend = self.ask()
            self.say(backend, OK)
            self.hear(self.client)
            self.assertIs(self.ask(), backend)
            if nonsense:
                self.say(backend, nonsense)
            self.dialogue.reactor.advance(seconds)
            self.assert_refused(status, word)
            self.assertEqual(len(self.dialogue.backends), 1)

    def test_stale_connection_and_post(self):
        """A request that must not be sent twice is not: the client is told."""
        self.converse()
        backend = self.ask()
        self.say(backend, OK)
        self.hear(self.client)
        self.hear(backend)
        self.client.send(request("POST", "/pay", "Content-Length: 1", body=b"x"))
        self.dialogue.door().connections.copy().pop()._stream.doRead()
        self.dialogue.reactor.flushes.run()
        self.assertIn(b"/pay", backend.take())
        backend.close()
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 502"), heard)
        self.assertEqual(len(self.dialogue.backends), 1)

    def test_closed_connection_is_noticed_before_a_post(self):
        """A kept connection that the backend has closed already is not used for a request that must not be repeated."""
        self.converse()
        backend = self.ask()
        self.say(backend, OK)
        self.hear(self.client)
        self.hear(backend)
        backend.close()
        self.client.send(request("POST", "/pay", "Content-Length: 1", body=b"x"))
        # The client's event comes first.
        self.dialogue.door().connections.copy().pop()._stream.doRead()
        other = self.dialogue.backend()
        self.assertIn(b"/pay", self.hear(other))
        self.say(other, OK)
        self.assertIn(b"ok", self.hear(self.client))

    def test_next_server(self):
        """When a server cannot be connected to, the next one is tried, whatever the request."""
        self.converse(answers_dials=False, servers=3)
        self.say(self.client, request("POST", "/", "Content-Length: 3", body=b"ab"))
        tried = []
        for _ in range(2):
            (attempt,) = self.dialogue.attempts
            tried += attempt.addresses
            attempt.fail()
            self.dialogue.reactor.settle()
        (attempt,) = self.dialogue.attempts
        backend = attempt.succeed()
        self.assertEqual(len({*tried, *attempt.addresses}), 3)
        self.say(self.client, b"c")
        self.assertTrue(self.hear(backend).endswith(b"\r\n\r\nabc"))
        self.say(backend, OK)
        self.assertIn(b"ok", self.hear(self.client))

    def test_no_server(self):
        """When no server can be connected to, the client is told why."""
        for outcome in (Outcome.CONNECT_REFUSED, Outcome.CONNECT_TIMEOUT, Outcome.DNS_ERROR, Outcome.CONNECT_FAILED):
            self.converse(answers_dials=False, servers=2)
            self.say(self.client, request())
            for _ in range(2):
                self.dialogue.attempts[0].fail(outcome)
                self.dialogue.reactor.settle()
            self.assert_refused(outcome.status, outcome.word)
            self.assertFalse(self.client.has_ended, "the connection is fine")


class TimeTests(DialogueCase):
    """
    Everybody who takes too long.
    """

    def test_slow_header(self):
        """A head that does not arrive in time is answered 408, however busily its bytes trickle in."""
        self.converse(entrypoint='timeouts { request_header = "10s" }')
        self.say(self.client, b"GET / HTTP/1.1\r\n")
        for _ in range(9):
            self.dialogue.reactor.advance(1)
            self.say(self.client, b"X: y\r\n")
        self.assertEqual(self.hear(self.client), b"")
        self.dialogue.reactor.advance(1.5)
        self.assert_refused(408, "request-timeout")
        self.assertTrue(self.client.has_ended)

    def test_idle_connection(self):
        """An idle connection is closed without a word."""
        self.converse(entrypoint='timeouts { idle = "20s" }')
        self.dialogue.reactor.advance(19)
        self.assertFalse(self.client.has_ended)
        self.dialogue.reactor.advance(2)
        self.assertTrue(self.client.has_ended)
        self.assertEqual(self.hear(self.client), b"")
        self.assertEqual(self.dialogue.outcomes(), [])

    def test_slow_body(self):
        """A body that stops coming is answered 408; one that keeps coming may take as long as it likes."""
        self.converse(entrypoint='timeouts { request_body = "10s" }')
        backend = self.ask(request("POST", "/", "Content-Length: 100"))
        for _ in range(10):
            self.dialogue.reactor.advance(6)
            self.say(self.client, b"x")
        self.assertEqual(self.hear(self.client), b"")
        self.dialogue.reactor.advance(11)
        self.assert_refused(408, "request-timeout")
        self.assertTrue(backend.was_reset)

    def test_slow_answer(self):
        """A backend that does not answer in time makes a 504."""
        self.converse(service='timeouts { response_header = "10s" }')
        backend = self.ask()
        self.dialogue.reactor.advance(9)
        self.assertEqual(self.hear(self.client), b"")
        self.dialogue.reactor.advance(2)
        self.assert_refused(504, "response-timeout")
        self.assertTrue(backend.was_reset)

    def test_stalled_response(self):
        """A response that stalls is broken off; one that keeps moving may take for ever."""
        self.converse(service='timeouts { idle = "10s" }')
        backend = self.ask()
        self.say(backend, response("200 OK", "Content-Length: 100"))
        for _ in range(10):
            self.dialogue.reactor.advance(9)
            self.say(backend, b"x")
        self.assertFalse(self.client.was_reset)
        self.dialogue.reactor.advance(11)
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["response-idle"])

    def test_connect_timeout(self):
        """A server that does not accept in time is passed over, and the client told if it was the last."""
        self.converse(answers_dials=False, service='timeouts { connect = "3s" }', servers=2)
        self.say(self.client, request())
        self.dialogue.reactor.advance(3.5)
        self.assertEqual(len(self.dialogue.attempts), 1)
        self.dialogue.reactor.advance(3.5)
        self.assert_refused(504, "connect-timeout")

    def test_client_that_does_not_read(self):
        """A client that takes nothing of its response for too long loses its connection, and the backend is free."""
        self.converse(entrypoint='timeouts { write = "10s" }')
        backend = self.ask()
        self.client.room = 100
        self.say(backend, response("200 OK", "Content-Length: 100000", body=b"x" * 50000))
        self.dialogue.reactor.advance(11)
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["client-stalled"])

    def test_idle_upstream(self):
        """An idle connection to a backend is closed after its time."""
        self.converse(service='connection_pool { idle_timeout = "20s" }')
        backend = self.ask()
        self.say(backend, OK)
        self.dialogue.reactor.advance(18)
        self.assertFalse(backend.has_ended)
        self.dialogue.reactor.advance(3)
        self.assertTrue(backend.has_ended)


class PoolTests(DialogueCase):
    """
    Bounds of the pool, seen from outside.
    """

    def test_queue_for_a_connection(self):
        """With all connections in use the next request waits its turn, and in order."""
        dialogue = self.converse(service="connection_pool { max_connections = 1 }")
        others = [dialogue.connect() for _ in range(2)]
        backend = self.ask(request("GET", "/0"))
        for number, client in enumerate(others, 1):
            self.say(client, request("GET", f"/{number}"))
        self.assertEqual(len(dialogue.backends), 1)
        for number, client in enumerate([self.client, *others]):
            self.assertIn(b"GET /%d " % number, self.hear(backend))
            self.say(backend, OK)
            self.assertTrue(self.hear(client).endswith(b"ok"))
            client.close()

    def test_queue_ends(self):
        """A request that waits too long for a connection is answered 503."""
        dialogue = self.converse(service='connection_pool { max_connections = 1 }\n timeouts { connect = "2s" }')
        other = dialogue.connect()
        self.say(other, request())
        self.say(self.client, request())
        dialogue.reactor.advance(3)
        self.assert_refused(503, "pool-exhausted")
        other.close()

    def test_leaving_the_queue(self):
        """A client that leaves the queue does not hold up those behind it."""
        dialogue = self.converse(service="connection_pool { max_connections = 1 }")
        second, third = dialogue.connect(), dialogue.connect()
        backend = self.ask(request("GET", "/1"))
        self.say(second, request("GET", "/2"))
        self.say(third, request("GET", "/3"))
        second.close()
        self.hear(backend)
        self.say(backend, OK)
        self.assertIn(b"GET /3 ", self.hear(backend))
        self.say(backend, OK)
        self.assertIn(b"ok", self.hear(third))
        third.close()

    def test_broken_connection_makes_room(self):
        """A connection that breaks makes room for the next in the queue."""
        dialogue = self.converse(service="connection_pool { max_connections = 1 }")
        second = dialogue.connect()
        backend = self.ask()
        self.say(second, request("GET", "/2"))
        backend.close()
        dialogue.reactor.settle()
        self.assertEqual(len(dialogue.backends), 2)
        self.assertIn(b"GET /2 ", self.hear(dialogue.backend()))
        second.close()

    def test_idle_connections_are_bounded(self):
        """No more connections stay idle than configured."""
        dialogue = self.converse(service="connection_pool { max_idle_connections = 1 }")
        clients = [self.client, dialogue.connect(), dialogue.connect()]
        for client in clients:
            self.say(client, request())
        for backend in dialogue.backends:
            self.say(backend, OK)
        dialogue.reactor.settle()
        self.assertEqual([backend.has_ended for backend in dialogue.backends].count(False), 1)
        for client in clients:
            client.close()
