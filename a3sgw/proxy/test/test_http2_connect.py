"""
Tests of WebSockets over HTTP/2, as dialogues.
"""

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IDownstream
from a3sgw.proxy.http2_connect import Http2Connect, Http2Pipe
from a3sgw.proxy.test.dialogues import OK, response
from a3sgw.proxy.test.http2_dialogues import GET, Http2Case, fields, frames
from a3sgw.proxy.test.test_upgrade import AGREED, ANSWER, GOODBYE, HELLO
from a3sgw.wire.http2 import ErrorCode
from a3sgw.wire.test.http2_peer import DATA
from a3sgw.wire.test.test_websocket import frame

WISHES = (
    ("sec-websocket-version", "13"),
    ("sec-websocket-protocol", "chat"),
    ("cookie", "a=b"),
    ("origin", "http://a.test"),
)
CONNECT = [(b":protocol", b"websocket"), *fields("CONNECT", "/chat?room=1", *WISHES)]


class ConnectCase(Http2Case):
    """
    A client that opens WebSockets on streams of one connection.
    """

    def ask(self, head=CONNECT):
        """
        Ask for a WebSocket; return its stream.
        """
        return self.request(head, ended=False)

    def open(self, **settings):
        """
        Begin a WebSocket; return its stream and the backend's end.
        """
        self.converse(**settings)
        stream = self.ask()
        backend = self.dialogue.backend()
        self.hear(backend)
        self.say(backend, AGREED)
        self.assertEqual(self.answer(stream).status, 200)
        return stream, backend

    def send(self, stream, data, *, ended=False):
        self.peer.send_data(stream, data, end_stream=ended)
        self.carry()


class HandshakeTests(ConnectCase):
    """
    The handshake of RFC 8441 is the one of HTTP/1.1 for a backend that speaks that.
    """

    def test_offered(self):
        """The gateway says that it takes such requests."""
        self.converse()
        self.assertEqual(self.peer.remote_settings.enable_connect_protocol, 1)

    def test_both_heads(self):
        """The backend hears a handshake of HTTP/1.1 with a key, and the client a 200 without what HTTP/2 does not have."""
        self.converse()
        stream = self.ask()
        backend = self.dialogue.backend()
        heard = self.hear(backend)
        self.assertTrue(heard.startswith(b"GET /chat?room=1 HTTP/1.1\r\nHost: a.test\r\n"), heard)
        for line in (b"Upgrade: websocket", b"Connection: Upgrade", b"sec-websocket-version: 13", b"cookie: a=b"):
            self.assertEqual(heard.count(b"\r\n%b\r\n" % line), 1, line)
        self.assertRegex(heard, rb"\r\nsec-websocket-key: [A-Za-z0-9+/]{22}==\r\n")
        self.assertEqual(self.answer(stream).status, 0)
        self.say(backend, AGREED)
        answer = self.answer(stream)
        self.assertEqual((answer.status, answer.fields), (200, {b"date": b"D", b"sec-websocket-protocol": b"chat"}))
        self.assertFalse(answer.ended)

    def test_refused(self):
        """Any other answer of the backend is the client's, and ends the stream."""
        self.converse()
        stream = self.ask()
        self.send(stream, HELLO)
        self.say(self.dialogue.backend(), response("403 Forbidden", "Content-Length: 2", body=b"no"))
        answer = self.answer(stream)
        self.assertEqual((answer.status, answer.body, answer.ended, answer.reset), (403, b"no", True, int(ErrorCode.NO_ERROR)))
        self.request(GET)
        self.say(self.dialogue.backend(), OK)

    def test_malformed(self):
        """What is no handshake is refused before any backend hears of it."""
        self.converse()
        without = [field for field in CONNECT if field[0] != b"sec-websocket-version"]
        for head, status, word in [
            (without, 400, b"websocket-handshake-malformed"),
            ([*without, (b"sec-websocket-version", b"8")], 400, b"websocket-handshake-malformed"),
            ([*CONNECT, (b"content-length", b"5")], 400, b"websocket-handshake-malformed"),
            ([(b":protocol", b"other"), *CONNECT[1:]], 501, b"method-not-supported"),
        ]:
            answer = self.answer(self.ask(head))
            self.assertEqual(answer.status, status, head)
            self.assertIn(word, answer.body)
        # Who has nothing more to say has nothing to say in another protocol.
        self.assertEqual(self.answer(self.request(CONNECT)).status, 501)
        self.assertEqual(self.dialogue.backends, [])

    def test_middleware(self):
        """Middlewares decide as they do over HTTP/1.1."""
        self.converse(middlewares=['  type = "api-key"\n  keys = ["secret"]'])
        answer = self.answer(self.ask())
        self.assertEqual((answer.status, answer.ended), (401, True))
        self.assertEqual(self.dialogue.backends, [])

    def test_ahead(self):
        """What the client sends before it may is not lost, nor its end."""
        self.converse()
        stream = self.ask()
        self.send(stream, HELLO)
        self.send(stream, HELLO, ended=True)
        backend = self.dialogue.backend()
        self.assertTrue(self.hear(backend).endswith(b"\r\n\r\n"))
        self.say(backend, AGREED + ANSWER)
        self.assertEqual(self.answer(stream).body, ANSWER)
        self.assertEqual(self.hear(backend), HELLO + HELLO)
        self.assertTrue(backend.has_ended)
        backend.close()
        self.assertTrue(self.answer(stream).ended)
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_client_gives_up(self):
        """A client that gives up before the answer takes its request with it."""
        self.converse()
        stream = self.ask()
        backend = self.dialogue.backend()
        self.peer.reset_stream(stream, 8)
        self.carry()
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])


class TunnelTests(ConnectCase):
    """
    One stream is a tunnel, and its neighbours go on.
    """

    def test_both_ways(self):
        """Frames go both ways, beside other requests on the same connection, and the log tells of it at the end."""
        stream, backend = self.open()
        (connection,) = self.dialogue.door().connections
        (tunnel,) = connection._streams.values()
        verifyObject(IDownstream, tunnel)
        self.assertIn("<Http2Connect 1 with <Exchange", repr(tunnel))
        self.assertIn("<Http2Pipe 1 of", repr(tunnel._pipe))
        self.send(stream, HELLO)
        self.assertEqual(self.hear(backend), HELLO)
        other = self.request(GET)
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.answer(other).body, b"ok")
        self.say(backend, ANSWER)
        self.assertEqual(self.answer(stream).body, ANSWER)
        self.send(stream, frame(b"\x03\xe8", 8, b"mask"), ended=True)
        self.say(backend, frame(b"\x03\xe8", 8))
        self.hear(backend)
        backend.close()
        answer = self.answer(stream)
        self.assertEqual((answer.body, answer.ended, answer.reset), (ANSWER + frame(b"\x03\xe8", 8), True, None))
        line = self.lines()[-1]
        self.assertEqual((line["protocol"], line["status"], line["outcome"]), ("HTTP/2.0", 101, "completed"))

    def test_two(self):
        """Several WebSockets share a connection and nothing else."""
        one, backend = self.open()
        two = self.ask()
        other = self.dialogue.backend()
        self.hear(other)
        self.say(other, AGREED)
        self.send(one, b"one")
        self.send(two, b"two")
        self.assertEqual((self.hear(backend), self.hear(other)), (b"one", b"two"))
        self.peer.reset_stream(one, 8)
        self.carry()
        self.assertTrue(backend.was_reset)
        self.say(other, b"still here")
        self.assertEqual(self.answer(two).body, b"still here")

    def test_backend_breaks_off(self):
        """A backend that breaks off resets the stream, and no other."""
        stream, backend = self.open()
        backend.setsockopt(1, 13, b"")
        backend.close()
        answer = self.answer(stream)
        self.assertEqual((answer.reset, self.farewells), (int(ErrorCode.CANCEL), []))
        self.assertEqual(self.dialogue.outcomes(), ["backend-closed"])

    def test_connection_lost(self):
        """A client whose connection breaks off is gone for its backend."""
        _, backend = self.open()
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_idle(self):
        """A WebSocket in which nothing moves ends in its time; no timeout of requests ends it before."""
        brief = 'timeouts {\n request_body = "1s"\n idle = "2s"\n }'
        stream, backend = self.open(service='timeouts {\n tunnel_idle = "100s"\n }', entrypoint=brief)
        for _ in range(3):
            self.dialogue.reactor.advance(90)
            self.send(stream, HELLO)
        self.assertEqual(self.hear(backend), HELLO * 3)
        self.dialogue.reactor.advance(101)
        self.assertEqual(self.dialogue.outcomes(), ["tunnel-idle"])
        self.assertEqual(self.answer(stream).reset, int(ErrorCode.CANCEL))

    def test_slow_client(self):
        """A client that opens no window holds its backend, and gets everything when it does."""
        self.takes = False
        stream, backend = self.open()
        sent = b""
        for number in range(40):
            backend.peer.room = 1 << 30
            sent += bytes([number]) * 20_000
            self.say(backend, bytes([number]) * 20_000)
        self.assertLess(len(self.answer(stream).body), 100_000)
        self.assertTrue(any("held by client-slow" in repr(each) for each in self.dialogue.carrier._deadlines.watched()))
        self.peer.increment_flow_control_window(1 << 22, stream)
        self.peer.increment_flow_control_window(1 << 22)
        self.assertEqual(self.answer(stream).body, sent)

    def test_slow_backend(self):
        """A backend that does not keep up closes the client's window, and opens it when it does."""
        stream, backend = self.open()
        backend.room = 1000
        sent = 0
        while (window := self.peer.local_flow_control_window(stream)) > 1000 and sent < 2_000_000:
            self.send(stream, bytes(min(window, 16384)))
            sent += min(window, 16384)
        self.assertLess(sent, 600_000)
        heard = b""
        backend.room = 1 << 20
        heard += self.hear(backend)
        self.carry()
        while len(heard) < sent:
            heard += self.hear(backend)
            self.carry()
        self.assertEqual(len(heard), sent)
        self.assertGreater(self.peer.local_flow_control_window(stream), 60_000)

    def test_last_bytes_are_not_taken(self):
        """A client that does not take the last bytes loses its stream in the time that any response has."""
        self.takes = False
        stream, backend = self.open(entrypoint='timeouts {\n write = "5s"\n }')
        backend.peer.room = 1 << 30
        self.say(backend, bytes(100_000))
        self.send(stream, HELLO, ended=True)
        self.hear(backend)
        backend.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.dialogue.outcomes(), [])
        self.dialogue.reactor.advance(12)
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_drain(self):
        """When the gateway stops, both sides are told 1001."""
        _, backend = self.open()
        aborted = []
        self.dialogue.carrier.drain(5).addCallback(aborted.append)
        self.dialogue.reactor.advance(4)
        self.say(backend, ANSWER)
        self.dialogue.reactor.advance(2)
        data = [payload for kind, _, _, payload in frames(self.hear(self.client)) if kind == DATA]
        self.assertEqual(b"".join(data), ANSWER + GOODBYE)
        self.assertEqual(len(self.hear(backend)), 8)
        self.assertEqual(aborted, [1])
        self.assertEqual(self.dialogue.outcomes(), ["shutting-down"])
        self.dialogue = None

    def test_reload(self):
        """A reload leaves it alone."""
        stream, backend = self.open()
        self.dialogue.reload(self.dialogue.carrier.generation().config)
        self.send(stream, HELLO)
        self.assertEqual(self.hear(backend), HELLO)

    def test_bug(self):
        """A bug on a pipe costs its stream, is reported, and spares the neighbours."""
        stream, backend = self.open()
        (connection,) = self.dialogue.door().connections
        (tunnel,) = connection._streams.values()
        pipe = tunnel._pipe

        class Broken:
            def data_received(self, data):
                raise ZeroDivisionError

            def stream_lost(self, error):
                receiver.stream_lost(error)

        receiver, pipe.receiver = pipe.receiver, Broken()
        self.send(stream, HELLO)
        self.assertEqual(self.answer(stream).reset, int(ErrorCode.INTERNAL_ERROR))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(backend.was_reset)
        self.request(GET)
        self.say(self.dialogue.backend(), OK)
        self.assertIsInstance(pipe, Http2Pipe)
        self.assertIsInstance(tunnel, Http2Connect)


class MuxTests(ConnectCase):
    """
    Channels work over HTTP/2 too.
    """

    def test_channels(self):
        """A `ws-mux` speaks with clients of HTTP/2."""
        self.converse(middlewares=['type = "ws-mux"'])
        stream = self.ask()
        answer = self.answer(stream)
        self.assertEqual((answer.status, set(answer.fields)), (200, {b"date", b"proxy-status"}))
        self.send(stream, frame(b"_ping", 1, bytes(4)))
        self.assertEqual(self.answer(stream).body, frame(b"_pong", 1))
        self.send(stream, frame(b"\x03\xe8", 8, bytes(4)), ended=True)
        answer = self.answer(stream)
        self.assertEqual((answer.body[-4:], answer.ended), (b"\x88\x02\x03\xe8", True))
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_after_the_farewell(self):
        """What a client sends after the farewell is dropped, and its stream ends once."""
        self.converse(middlewares=['type = "ws-mux"'])
        stream = self.ask()
        self.takes = False
        # Binary is refused, and the client goes on all the same.
        self.peer.send_data(stream, frame(b"x", 2, bytes(4)) + bytes(20_000)[:10_000])
        self.peer.send_data(stream, bytes(10_000))
        self.carry()
        self.assertEqual(self.answer(stream).body[:1], b"\x88")
        self.assertEqual(self.dialogue.outcomes(), ["websocket-broken"])
