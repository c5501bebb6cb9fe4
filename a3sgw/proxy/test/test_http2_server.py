"""
Tests of the client's side of exchanges over HTTP/2.
"""

import h2.exceptions
import h2.settings
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IConnection, IDownstream, IReceiver
from a3sgw.proxy.http2_server import Http2Server
from a3sgw.proxy.http2_stream import Http2Stream
from a3sgw.proxy.test.dialogues import OK, config, request, response
from a3sgw.proxy.test.http2_dialogues import GET, Http2Case, fields, frames
from a3sgw.wire.http2 import PREFACE, ErrorCode
from a3sgw.wire.test.http2_peer import ACK, DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame
from a3sgw.wire.test.http2_rules import CONNECTION, FINE, RULES

CANCEL = int(ErrorCode.CANCEL)


class ExchangeTests(Http2Case):
    """
    Requests over HTTP/2, and their answers.
    """

    def setUp(self):
        self.converse()

    def test_interfaces(self):
        """A connection is what its door and its stream expect, and each of its streams is the client's side of an exchange."""
        self.request()
        (connection,) = self.dialogue.door().connections
        self.assertIsInstance(connection, Http2Server)
        verifyObject(IConnection, connection)
        verifyObject(IReceiver, connection)
        (exchange,) = [stream.exchange for stream in connection._streams.values()]
        self.assertIsInstance(exchange._downstream, Http2Stream)
        verifyObject(IDownstream, exchange._downstream)
        self.assertEqual(exchange._downstream.caller, connection.caller)
        self.assertIn("Http2Stream 1 with <Exchange", repr(connection))
        self.assertEqual(connection.exchange_count(), 1)
        self.say(self.dialogue.backend(), OK)

    def test_get(self):
        """A request reaches a backend of HTTP/1.1 with the authority for its host, and the answer comes back."""
        stream = self.request(fields("GET", "/a/../b?c=d", ("accept", "*/*"), ("user-agent", "t")))
        backend = self.dialogue.backend()
        heard = self.hear(backend)
        self.assertTrue(heard.startswith(b"GET /b?c=d HTTP/1.1\r\nHost: a.test\r\naccept: */*\r\nuser-agent: t\r\nX-Forwarded-For: "))
        self.assertIn(b"\r\nVia: 2.0 a3s-gateway\r\n", heard)
        self.assertNotIn(b"Transfer-Encoding", heard)
        self.say(backend, response("200 OK", "Content-Length: 2", "X-Upper: Yes", "Connection: x-gone", "X-Gone: 1", body=b"ok"))
        answer = self.answer(stream)
        self.assertEqual((answer.status, answer.body, answer.ended), (200, b"ok", True))
        self.assertEqual(answer.fields, {b"date": b"D", b"x-upper": b"Yes", b"content-length": b"2"})
        (line,) = self.lines()
        self.assertEqual((line["protocol"], line["status"], line["outcome"]), ("HTTP/2.0", 200, "completed"))

    def test_date(self):
        """A backend that sends no date gets one."""
        stream = self.request()
        self.say(self.dialogue.backend(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(self.answer(stream).fields[b"date"].endswith(b" GMT"))

    def test_streams_do_not_wait_for_each_other(self):
        """Answers come as they are ready, whatever the order of the requests."""
        first = self.request(fields("GET", "/1"))
        one = self.dialogue.backend()
        second = self.request(fields("GET", "/2"))
        two = self.dialogue.backend()
        self.assertIsNot(one, two)
        self.say(two, response("200 OK", "Content-Length: 1", body=b"2"))
        self.assertEqual((self.answer(second).body, self.answer(first).status), (b"2", 0))
        self.say(one, response("200 OK", "Content-Length: 1", body=b"1"))
        self.assertEqual(self.answer(first).body, b"1")

    def test_upload_of_known_length(self):
        """A body of declared length has it at the backend."""
        stream = self.request(fields("POST", "/", ("content-length", "5")), b"hello")
        backend = self.dialogue.backend()
        heard = self.hear(backend)
        self.assertIn(b"\r\nContent-Length: 5\r\n", heard)
        self.assertTrue(heard.endswith(b"\r\n\r\nhello"))
        self.say(backend, OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_upload_with_trailers(self):
        """A body of unknown length is chunked for the backend, and its trailers follow."""
        stream = self.request(fields("POST"), b"hello", ended=False)
        self.peer.send_headers(stream, [(b"x-sum", b"5")], end_stream=True)
        self.carry()
        heard = self.hear(self.dialogue.backend())
        self.assertIn(b"\r\nTransfer-Encoding: chunked\r\n", heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n"), heard)
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_forbidden_trailers(self):
        """Trailers that frame or route are refused as they are over HTTP/1."""
        stream = self.request(fields("POST"), b"hello", ended=False)
        self.peer.send_headers(stream, [(b"content-type", b"text/plain")], end_stream=True)
        self.assertEqual(self.answer(stream).status, 400)
        self.assertEqual(self.dialogue.outcomes(), ["trailer-refused"])

    def test_answer_with_trailers(self):
        """A chunked answer comes as it is, with its trailers."""
        stream = self.request(fields("GET", "/", ("te", "trailers")))
        backend = self.dialogue.backend()
        self.assertIn(b"\r\nTE: trailers\r\nConnection: TE\r\n", self.hear(backend))
        self.say(backend, response("200 OK", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"))
        answer = self.answer(stream)
        self.assertEqual((answer.body, answer.ended), (b"hello", False))
        self.say(backend, b"0\r\nX-Sum: 5\r\n\r\n")
        answer = self.answer(stream)
        self.assertEqual((answer.trailers, answer.ended), ([(b"x-sum", b"5")], True))

    def test_interim(self):
        """Interim answers are passed on, and 100 to whoever waits for it."""
        stream = self.request(fields("POST", "/", ("content-length", "2"), ("expect", "100-continue")), ended=False)
        backend = self.dialogue.backend()
        self.assertIn(b"\r\nexpect: 100-continue\r\n", self.hear(backend))
        self.say(backend, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.answer(stream).interim, [{b":status": b"103", b"link": b"</a>"}, {b":status": b"100"}])
        self.peer.send_data(stream, b"hi", end_stream=True)
        self.carry()
        self.assertEqual(self.hear(backend), b"hi")
        self.say(backend, OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_answers_without_body(self):
        """HEAD, 204 and 304 have no body; what they say of its length is kept."""
        for method, status, lines, length in (
            ("HEAD", "200 OK", ["Content-Length: 5"], b"5"),
            ("GET", "204 No Content", [], None),
            ("GET", "304 Not Modified", ["Content-Length: 5"], b"5"),
        ):
            stream = self.request(fields(method))
            self.say(self.dialogue.backend(), response(status, *lines))
            answer = self.answer(stream)
            self.assertEqual((answer.status, answer.fields.get(b"content-length")), (int(status[:3]), length))
            self.assertEqual((answer.body, answer.ended), (b"", True))

    def test_cookies_are_joined(self):
        """A cookie that came in crumbs is one field for the backend."""
        self.request(fields("GET", "/", ("cookie", "a=1"), ("x-a", "b"), ("cookie", "b=2"), ("cookie", "c=3")))
        self.assertIn(b"\r\ncookie: a=1; b=2; c=3\r\nx-a: b\r\n", self.hear(self.dialogue.backend()))
        self.say(self.dialogue.backend(), OK)

    def test_host_instead_of_authority(self):
        """A request that was HTTP/1 once has its host in a field."""
        head = [field for field in fields("GET", "/", ("host", "b.test:81")) if field[0] != b":authority"]
        self.request(head)
        self.assertIn(b"\r\nHost: b.test:81\r\n", self.hear(self.dialogue.backend()))
        self.say(self.dialogue.backend(), OK)

    def test_backend_breaks_off(self):
        """An answer that breaks off does not look complete."""
        stream = self.request()
        backend = self.dialogue.backend()
        self.say(backend, response("200 OK", "Content-Length: 10", body=b"12345"))
        backend.close()
        answer = self.answer(stream)
        self.assertEqual((answer.body, answer.ended, answer.reset), (b"12345", False, int(ErrorCode.INTERNAL_ERROR)))
        self.assertEqual(self.dialogue.outcomes(), ["response-incomplete"])

    def test_client_cancels(self):
        """A request that is cancelled is given up at the backend, and its neighbour goes on."""
        cancelled = self.request(fields("GET", "/1"))
        one = self.dialogue.backend()
        other = self.request(fields("GET", "/2"))
        two = self.dialogue.backend()
        self.peer.reset_stream(cancelled, CANCEL)
        self.carry()
        self.assertTrue(one.was_reset)
        self.say(two, OK)
        self.assertEqual(self.answer(other).body, b"ok")
        self.assertEqual(self.dialogue.outcomes(), ["client-closed", "completed"])

    def test_client_leaves(self):
        """A client that leaves takes all its requests with it."""
        for number in range(3):
            self.request(fields("GET", f"/{number}"))
        backends = list(self.dialogue.backends)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual([backend.was_reset for backend in backends], [True] * 3)
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"] * 3)

    def test_bug(self):
        """A bug costs the exchange that met it, and not its neighbour."""
        other = self.request()
        backend = self.dialogue.backend()
        service = self.dialogue.carrier._generation.services["app"]
        balancer, service.groups[0]._balancer = service.groups[0]._balancer, None
        stream = self.request()
        service.groups[0]._balancer = balancer
        self.assertEqual(self.answer(stream).status, 500)
        self.say(backend, OK)
        self.assertEqual(self.answer(other).status, 200)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class RefusalTests(Http2Case):
    """
    Requests that are answered by the gateway, each on its stream.
    """

    def test_refused(self):
        """What is refused over HTTP/1 is refused over HTTP/2, with the same status and the same word, and the connection lives."""
        self.converse(entrypoint="limits {\n max_header_count = 8\n max_header_bytes = 1000\n max_request_line_bytes = 100\n}")
        cases = [
            (fields("GET", "/%2F"), 400, "path-refused"),
            (fields("GET", "/a%00"), 400, "path-refused"),
            (fields("GET", "/" + "a" * 100), 414, "request-line-too-long"),
            (fields("GET", "/", ("x_a", "1")), 400, "header-name-refused"),
            (fields("GET", "/", *[(f"x-{number}", "1") for number in range(9)]), 431, "headers-too-large"),
            (fields("GET", "/", ("x-a", "a" * 1000)), 431, "headers-too-large"),
            (fields("GET", "/", ("host", "b.test")), 400, "host-malformed"),
            (fields("GET", "/", authority="a..b"), 400, "host-malformed"),
            (fields("GET", "/", ("expect", "tea")), 417, "expectation-failed"),
            ([(b":method", b"GET"), (b":scheme", b"https"), *GET[2:]], 421, "misdirected"),
            ([(b":method", b"CONNECT"), (b":authority", b"a.test:443")], 501, "method-not-supported"),
        ]
        for head, status, word in cases:
            answer = self.answer(self.request(head))
            self.assertEqual((answer.status, answer.ended), (status, True), head)
            self.assertIn(b'"reason": "%b"' % word.encode(), answer.body)
        self.assertEqual(sorted(self.dialogue.outcomes()), sorted(word for _, _, word in cases))
        self.assertEqual([line["protocol"] for line in self.lines()], ["HTTP/2.0"] * len(cases))
        stream = self.request()
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).status, 200)
        self.assertEqual(self.faults(), {})

    def test_many_crumbs(self):
        """A cookie in many crumbs is one field."""
        self.converse(entrypoint="limits {\n max_header_count = 8\n}")
        stream = self.request(fields("GET", "/", *[("cookie", f"a{number}=1") for number in range(100)]))
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_head_is_refused(self):
        """An answer to HEAD has no body even if it is the gateway's own."""
        self.converse()
        answer = self.answer(self.request(fields("HEAD", "/%2F")))
        self.assertEqual((answer.status, answer.body, answer.ended), (400, b"", True))

    def test_early_answer(self):
        """Whoever is refused in the middle of an upload gets the whole answer, and is asked to stop."""
        self.converse()
        stream = self.request(fields("POST", "/%2F", ("content-length", "1000000")), bytes(10000), ended=False)
        answer = self.answer(stream)
        self.assertEqual((answer.status, answer.ended, answer.reset), (400, True, 0))
        other = self.request()
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(other).status, 200)

    def test_trusted_proxy(self):
        """A trusted proxy is believed over HTTP/2 as well, and may say that the client came over TLS."""
        self.converse(entrypoint='forwarded_headers {\n trusted_ips = ["192.0.2.0/24"]\n}')
        head = fields("GET", "/", ("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https"))
        head[1] = (b":scheme", b"https")
        for _ in range(2):
            stream = self.request(head)
            heard = self.hear(self.dialogue.backend())
            self.assertIn(b"\r\nX-Forwarded-For: 203.0.113.7, 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", heard)
            self.assertIn(b"\r\nVia: 2.0 a3s-gateway", heard)
            self.say(self.dialogue.backend(), OK)
            self.assertEqual(self.answer(stream).status, 200)

    def test_forwarded_by_anybody(self):
        """Nobody else is believed."""
        self.converse()
        self.request(fields("GET", "/", ("x-forwarded-for", "203.0.113.7")))
        self.assertIn(b"\r\nX-Forwarded-For: 192.0.2.1\r\n", self.hear(self.dialogue.backend()))
        self.say(self.dialogue.backend(), OK)


class RulesTests(Http2Case):
    """
    Clients that break the rules of HTTP/2.
    """

    def test_rules(self):
        """Each is told what it did in the words of HTTP/2, counted by that, and leaves nothing behind."""
        for rule in RULES:
            if rule.section == "8441 3":
                # Here it is allowed.
                continue
            with self.subTest(section=rule.section, about=rule.about):
                self.converse(entrypoint="http2 {\n max_concurrent_streams = 3\n stream_window_bytes = 65536\n}")
                client = self.dialogue.connect()
                if not rule.is_beginning:
                    self.say(client, PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))
                for backend in self.dialogue.backends:
                    backend.room = 1 << 24
                self.say(client, rule.data)
                if rule.scope == FINE:
                    self.assertEqual(self.faults(), {})
                elif rule.about != "a wrong preface":
                    # Without the preface it is HTTP/1, and refused as that.
                    self.assertIn(self.faults(), [{(rule.scope, code.name): 1} for code in rule.codes])
                if rule.scope == CONNECTION:
                    self.dialogue.reactor.settle()
                    self.assertTrue(client.has_ended)
                client.close()
                super().tearDown()

    def tearDown(self):
        """
        Each rule has had its own.
        """

    def test_flood(self):
        """A flood ends the connection, and is counted."""
        self.converse()
        for _ in range(30):
            self.say(self.client, frame(PING, 0, 0, bytes(8)) * 50)
        self.assertEqual(self.faults(), {("connection", "ENHANCE_YOUR_CALM"): 1})
        self.assertTrue(self.client.has_ended)
        super().tearDown()

    def test_rapid_reset(self):
        """Streams that are opened only to be reset end the connection, and every request at the backends."""
        self.converse()
        for number in range(300):
            if not self.client.has_ended:
                block = b"\x82\x86\x84\x41\x06a.test"
                self.say(self.client, frame(HEADERS, 5, 2 * number + 1, block) + frame(RST_STREAM, 0, 2 * number + 1, bytes(3) + b"\x08"))
        self.assertEqual(self.faults(), {("connection", "ENHANCE_YOUR_CALM"): 1})
        self.assertEqual(set(self.dialogue.outcomes()), {"client-closed"})
        super().tearDown()


class BackPressureTests(Http2Case):
    """
    Whoever is slow holds whoever is fast.
    """

    def test_slow_backend(self):
        """A backend that does not read closes the client's window; when it reads, the window opens."""
        self.converse(entrypoint="http2 {\n stream_window_bytes = 65535\n}")
        stream = self.request(fields("POST", "/", ("content-length", "1000000")), ended=False)
        backend = self.dialogue.backend()
        backend.room = 1000
        sent = 0
        while (room := min(self.peer.local_flow_control_window(stream), 16384, 1_000_000 - sent)) > 0:
            self.peer.send_data(stream, bytes(room))
            sent += room
            self.carry()
        self.assertLess(sent, 250_000)
        taken = len(self.hear(backend))
        backend.room = 1 << 20
        self.carry()
        while sent < 1_000_000:
            room = min(self.peer.local_flow_control_window(stream), 16384, 1_000_000 - sent)
            self.assertGreater(room, 0)
            self.peer.send_data(stream, bytes(room), end_stream=sent + room == 1_000_000)
            sent += room
            self.carry()
            taken += len(self.hear(backend))
            self.carry()
        self.assertGreater(taken, 1_000_000)
        self.say(backend, OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_one_slow_backend_among_others(self):
        """An upload that is stuck does not stop another on the same connection."""
        self.converse(entrypoint="http2 {\n stream_window_bytes = 65535\n}")
        stuck = self.request(fields("POST", "/", ("content-length", "1000000")), ended=False)
        self.dialogue.backend().room = 1000
        while (room := min(self.peer.local_flow_control_window(stuck), 16384)) > 0:
            self.peer.send_data(stuck, bytes(room))
            self.carry()
        stream = self.request(fields("POST"), bytes(10000))
        other = self.dialogue.backend()
        self.assertIn(bytes(10000), self.hear(other))
        self.say(other, OK)
        self.assertEqual(self.answer(stream).status, 200)
        self.peer.reset_stream(stuck)
        self.carry()

    def download(self):
        """
        Send as much of ten megabytes from the backend as is taken; return how much that was.
        """
        sent = 0
        while sent < 10_000_000 and self.backend.is_writable():
            sent += self.backend.send(bytes(65536))
            self.dialogue.reactor.settle()
            self.carry()
        return sent

    def test_closed_window(self):
        """A client that does not open its window holds the backend, and gets everything when it does."""
        self.converse()
        self.takes = False
        stream = self.request()
        self.backend = self.dialogue.backend()
        self.backend.peer.room = 100_000
        self.say(self.backend, response("200 OK", "Content-Length: 10000000"))
        sent = self.download()
        self.assertLess(sent, 1_000_000)
        self.assertEqual(len(self.answer(stream).body), 65535)
        self.takes = True
        self.peer.acknowledge_received_data(65535, stream)
        self.carry()
        while sent < 10_000_000:
            sent += self.backend.send(bytes(min(65536, 10_000_000 - sent)))
            self.carry()
        self.assertEqual(len(self.answer(stream).body), 10_000_000)
        self.assertTrue(self.answer(stream).ended)

    def test_closed_window_does_not_hold_others(self):
        """Its neighbours on the connection are served."""
        self.converse()
        self.peer.increment_flow_control_window(1 << 20)
        self.takes = False
        stuck = self.request()
        self.backend = self.dialogue.backend()
        self.backend.peer.room = 100_000
        self.say(self.backend, response("200 OK", "Content-Length: 10000000"))
        self.download()
        stream = self.request()
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).body, b"ok")
        self.peer.reset_stream(stuck)
        self.carry()

    def test_client_that_does_not_read(self):
        """A client that opens its window and does not read its connection holds all its exchanges."""
        self.converse()
        self.peer.increment_flow_control_window(1 << 26)
        self.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 26})
        self.carry()
        stream = self.request()
        self.backend = self.dialogue.backend()
        self.backend.peer.room = 100_000
        self.client.room = 1000
        self.backend.send(response("200 OK", "Content-Length: 10000000"))
        sent = 0
        while self.backend.is_writable():
            sent += self.backend.send(bytes(65536))
            self.dialogue.reactor.settle()
        self.assertLess(sent, 1_000_000)
        self.client.room = 1 << 24
        self.carry()
        while sent < 10_000_000:
            sent += self.backend.send(bytes(min(65536, 10_000_000 - sent)))
            self.carry()
        self.assertEqual(len(self.answer(stream).body), 10_000_000)

    def test_full_connection(self):
        """However many streams do not open their windows, what waits on a connection is bounded; and when they do, all is delivered."""
        self.converse()
        self.takes = False
        streams = [self.request(fields("GET", f"/{number}")) for number in range(100)]
        size = 300_000
        for backend in self.dialogue.backends:
            backend.peer.room = 100_000
            backend.send(response("200 OK", f"Content-Length: {size}"))
        rest = dict.fromkeys(self.dialogue.backends, size)
        self.assertEqual(len(rest), 100)
        (connection,) = self.dialogue.door().connections
        most = 0
        for _ in range(60):
            for backend, left in rest.items():
                if left and backend.is_writable():
                    rest[backend] -= backend.send(bytes(min(left, 50_000)))
                    self.dialogue.reactor.settle()
                    most = max(most, connection.session.queued)
        self.assertGreater(most, 4_000_000)
        self.assertLess(most, 5_000_000)
        self.takes = True
        self.carry()
        for stream in streams:
            self.peer.increment_flow_control_window(1 << 20, stream)
        self.peer.increment_flow_control_window(1 << 28)
        for _ in range(100):
            for backend, left in rest.items():
                if left and backend.is_writable():
                    rest[backend] -= backend.send(bytes(min(left, 50_000)))
            self.carry()
        self.assertEqual([len(self.answer(stream).body) for stream in streams], [size] * 100)

    def test_too_much_waits(self):
        """A client for which too much waits already gets no further stream, and may ask again later."""
        self.converse()
        self.takes = False
        self.client.room = 1 << 24
        streams = []
        for _ in range(60):
            stream = self.request()
            if self.answer(stream).reset is not None:
                break
            streams.append(stream)
            backend = self.dialogue.backend()
            self.say(backend, response("200 OK", "Content-Length: 10000000", body=bytes(120_000)))
        self.assertEqual(self.answer(stream).reset, int(ErrorCode.REFUSED_STREAM))
        self.assertGreater(len(streams), 30)
        for each in streams:
            self.peer.reset_stream(each)
        self.carry()
        stream = self.request()
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).reset, None)


class DeadlineTests(Http2Case):
    """
    Clients that take too long.
    """

    def setUp(self):
        self.converse(entrypoint='timeouts {\n request_body = "20s"\n}')

    def test_idle(self):
        """A connection without requests is told of its end, and ended."""
        self.dialogue.reactor.advance(74)
        self.carry()
        self.assertEqual(self.farewells, [])
        self.dialogue.reactor.advance(2)
        self.carry()
        self.assertEqual(self.farewells, [(0, 0)])
        self.assertTrue(self.client.has_ended)

    def test_idle_counts_from_the_last_request(self):
        """Nobody is idle who has a request under way."""
        self.request()
        self.dialogue.reactor.advance(25)
        self.say(self.dialogue.backend(), OK)
        self.carry()
        self.dialogue.reactor.advance(60)
        stream = self.request()
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_body(self):
        """A request whose body does not come is answered, and its neighbour is not concerned."""
        stream = self.request(fields("POST"), b"x", ended=False)
        self.dialogue.reactor.advance(12)
        other = self.request()
        backend = self.dialogue.backend()
        self.dialogue.reactor.advance(9)
        answer = self.answer(stream)
        self.assertEqual((answer.status, answer.ended, answer.reset), (408, True, 0))
        self.say(backend, OK)
        self.assertEqual(self.answer(other).status, 200)
        self.assertEqual(self.dialogue.outcomes(), ["completed", "request-timeout"])

    def test_body_that_goes_on(self):
        """A body may take its time as long as something comes."""
        stream = self.request(fields("POST"), b"x", ended=False)
        for _ in range(4):
            self.dialogue.reactor.advance(15)
            self.peer.send_data(stream, b"x")
            self.carry()
        self.peer.end_stream(stream)
        self.carry()
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_closed_window(self):
        """A client that does not open its window for too long loses the stream, and not the connection."""
        self.takes = False
        self.peer.increment_flow_control_window(1 << 20)
        stream = self.request()
        self.say(self.dialogue.backend(), response("200 OK", "Content-Length: 100000", body=bytes(100000)))
        self.dialogue.reactor.advance(40)
        self.peer.increment_flow_control_window(1000, stream)
        self.carry()
        self.dialogue.reactor.advance(40)
        self.assertEqual(self.answer(stream).reset, None)
        self.dialogue.reactor.advance(41)
        self.assertEqual(self.answer(stream).reset, CANCEL)
        other = self.request()
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(other).status, 200)

    def test_closed_window_in_the_middle(self):
        """The exchange of such a stream ends with the right word."""
        self.takes = False
        stream = self.request()
        self.say(self.dialogue.backend(), response("200 OK", "Content-Length: 1000000", body=bytes(200000)))
        self.dialogue.reactor.advance(61)
        self.assertEqual(self.answer(stream).reset, CANCEL)
        self.assertEqual(self.dialogue.outcomes(), ["client-stalled"])

    def test_client_that_does_not_read(self):
        """A client that does not read its connection for too long loses it."""
        self.peer.increment_flow_control_window(1 << 20)
        self.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        self.carry()
        self.client.room = 1000
        self.peer.send_headers(1, GET, end_stream=True)
        self.say(self.client, self.peer.data_to_send())
        self.say(self.dialogue.backend(), response("200 OK", "Content-Length: 1000000", body=bytes(100000)))
        self.dialogue.reactor.advance(61)
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["client-stalled"])

    def test_part_of_a_head(self):
        """A head that does not come to its end costs the connection, as soon as over HTTP/1."""
        self.say(self.client, frame(HEADERS, 0, 1, b"\x82\x84\x86")[:11])
        self.dialogue.reactor.advance(11)
        self.assertTrue(self.client.has_ended)

    def test_beginning(self):
        """A client that begins with HTTP/2 and does not go on is ended."""
        for beginning in (PREFACE[:10], PREFACE[:1], PREFACE):
            client = self.dialogue.connect()
            self.say(client, beginning)
            self.dialogue.reactor.advance(80)
            self.hear(client)
            self.assertTrue(client.has_ended, beginning)


class EndTests(Http2Case):
    """
    Drains, stops and reloads.
    """

    def tearDown(self):
        """
        Doors that were drained are gone.
        """
        if self.dialogue.carrier.doors():
            super().tearDown()
        else:
            self.dialogue.reactor.advance(200)
            self.dialogue.assert_clean(self)

    def drain(self, timeout=10.0):
        """
        Begin to drain; return a list that gets the number of aborted exchanges.
        """
        gone = []
        self.dialogue.carrier.drain(timeout).addCallback(gone.append)
        self.dialogue.reactor.settle()
        return gone

    def test_drain_idle(self):
        """A connection without requests ends as soon as the client has heard of it."""
        self.converse()
        self.dialogue.reactor.advance(1)
        gone = self.drain()
        notice, ping = frames(self.hear(self.client))
        self.assertEqual((notice, gone), ((GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)), []))
        self.say(self.client, frame(PING, ACK, 0, ping[3]))
        self.assertEqual(frames(self.hear(self.client)), [(GOAWAY, 0, 0, bytes(8))])
        self.assertTrue(self.client.has_ended)
        self.assertEqual(gone, [0])

    def test_drain_idle_without_an_answer(self):
        """A client that does not say it has heard of the end is not waited for longer than a moment."""
        self.converse()
        self.dialogue.reactor.advance(1)
        gone = self.drain()
        self.hear(self.client)
        self.dialogue.reactor.advance(1.6)
        self.assertEqual(frames(self.hear(self.client)), [(GOAWAY, 0, 0, bytes(8))])
        self.assertTrue(self.client.has_ended)
        self.assertEqual(gone, [0])

    def test_drain_just_come(self):
        """Who came a moment ago may ask, is told with the answer, and is let go if it does not."""
        for asks in (True, False):
            self.converse()
            gone = self.drain()
            self.carry()
            self.assertEqual(self.farewells, [])
            self.dialogue.reactor.advance(0.4)
            if asks:
                stream = self.request()
                self.say(self.dialogue.backend(), OK)
                self.assertEqual(self.answer(stream).status, 200)
                self.assertEqual(self.farewells, [(1, 0)])
            else:
                self.dialogue.reactor.advance(1.2)
                self.carry()
                self.assertEqual(self.farewells, [(0, 0)])
            self.assertTrue(self.client.has_ended)
            self.client.close()
            self.dialogue.reactor.settle()
            self.assertEqual(gone, [0])

    def test_drain_busy(self):
        """Requests under way are answered, those that were sent before the client could know too, and then the connection ends."""
        self.converse()
        stream = self.request()
        backend = self.dialogue.backend()
        # It was on its way already.
        self.peer.send_headers(3, GET, end_stream=True)
        late = self.peer.data_to_send()
        gone = self.drain()
        notice, ping = frames(self.hear(self.client))
        self.assertEqual(notice, (GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)))
        self.say(self.client, late + frame(PING, ACK, 0, ping[3]))
        self.assertEqual(frames(self.hear(self.client)), [(GOAWAY, 0, 0, (3).to_bytes(4, "big") + bytes(4))])
        self.assertEqual((stream, gone), (1, []))
        other = self.dialogue.backend()
        self.say(backend, OK)
        self.assertFalse(self.client.has_ended)
        self.say(other, OK)
        heard = frames(self.hear(self.client))
        self.assertEqual([(kind, on) for kind, _, on, _ in heard], [(HEADERS, 1), (DATA, 1), (HEADERS, 3), (DATA, 3)])
        self.assertTrue(self.client.has_ended)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(gone, [0])

    def test_drain_for_too_long(self):
        """What is not answered when the time is over is told why, what has begun is broken off."""
        self.converse()
        stream = self.request()
        begun = self.request()
        self.say(self.dialogue.backend(), response("200 OK", "Content-Length: 10", body=b"1"))
        gone = self.drain(5.0)
        self.dialogue.reactor.advance(6)
        received = self.hear(self.client)
        self.assertIn(b'"reason": "shutting-down"', received)
        self.assertEqual(gone, [2])
        self.assertEqual(self.dialogue.outcomes(), ["shutting-down"] * 2)
        self.assertEqual((stream, begun), (1, 3))

    def test_reload(self):
        """A stream is served on the terms of the generation that is there when it begins."""
        self.converse()
        first = self.request()
        backend = self.dialogue.backend()
        self.dialogue.reload(config().replace("PathPrefix(`/`)", "PathPrefix(`/new`)"))
        self.assertEqual(self.answer(self.request()).status, 404)
        self.say(backend, OK)
        self.assertEqual(self.answer(first).status, 200)
        stream = self.request(fields("GET", "/new"))
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).status, 200)


class BeginningTests(Http2Case):
    """
    HTTP/2 and HTTP/1.1 on one port.
    """

    def test_byte_by_byte(self):
        """The preface may come in pieces."""
        self.converse()
        client = self.dialogue.connect()
        for byte in PREFACE + frame(SETTINGS, 0, 0):
            self.say(client, bytes([byte]))
        self.assertEqual(self.hear(client)[3], SETTINGS)

    def test_http1(self):
        """Whatever begins otherwise is HTTP/1, also if its first bytes could have become a preface."""
        self.converse()
        for data in (request("POST", "/", "Content-Length: 0"), request("PRI", "/"), b"P" + request("OST")[0:], request()):
            client = self.dialogue.connect()
            for piece in (data[:1], data[1:]):
                self.say(client, piece)
            heard = self.hear(self.dialogue.backend())
            self.assertTrue(heard.startswith(data[:4]), heard)
            client.close()
            self.dialogue.reactor.settle()

    def test_preface_behind_a_request(self):
        """In the middle of an HTTP/1 connection a preface is an error."""
        self.converse()
        client = self.dialogue.connect()
        self.say(client, request("GET", "/") + PREFACE)
        self.say(self.dialogue.backend(), OK)
        heard = self.hear(client)
        self.assertIn(b"HTTP/1.1 505 ", heard)

    def test_upgrade_is_ignored(self):
        """A client that asks for h2c by `Upgrade` is answered over HTTP/1.1."""
        self.converse()
        client = self.dialogue.connect()
        self.say(client, request("GET", "/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))
        heard = self.hear(self.dialogue.backend())
        self.assertNotIn(b"pgrade", heard)
        self.assertNotIn(b"ettings", heard)
        self.say(self.dialogue.backend(), OK)
        self.assertTrue(self.hear(client).startswith(b"HTTP/1.1 200 "))

    def test_behind_the_proxy_protocol(self):
        """Whom a trusted proxy speaks for is known over HTTP/2 too."""
        self.converse(entrypoint='proxy_protocol {\n trusted_ips = ["198.51.100.1"]\n}')
        self.client.close()
        self.client = self.dialogue.connect("198.51.100.1")
        self.client.room = 1 << 24
        self.say(self.client, b"PROXY TCP4 203.0.113.7 192.0.2.9 4711 8080\r\n")
        self.begin()
        stream = self.request()
        self.assertIn(b"\r\nX-Forwarded-For: 203.0.113.7\r\n", self.hear(self.dialogue.backend()))
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(stream).status, 200)

    def test_switched_off(self):
        """Where HTTP/2 is switched off its preface is an error."""
        self.converse(entrypoint="http2 {\n enabled = false\n}")
        self.assertEqual(self.dialogue.outcomes(), ["version-not-supported"])

    def carry(self):
        """
        The peer does not understand HTTP/1.
        """
        try:
            super().carry()
        except h2.exceptions.ProtocolError:
            pass
