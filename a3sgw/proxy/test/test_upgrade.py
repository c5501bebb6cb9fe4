"""
Tests of connections that change their protocol, as dialogues.
"""

import json
import socket
from types import SimpleNamespace

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IDownstream
from a3sgw.message import SwitchingResponse, make_field
from a3sgw.proxy.test.dialogues import OK, DialogueCase, config, request, response
from a3sgw.proxy.test.probes import Probes
from a3sgw.proxy.upgrade import Switch, Upgrade
from a3sgw.wire.test.test_websocket import frame

WISHES = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: chat, soap",
    "Sec-WebSocket-Extensions: permessage-deflate",
    "Cookie: a=b",
    "Origin: http://a.test",
)
HANDSHAKE = request("GET", "/chat?room=1", *WISHES)
AGREED = response(
    "101 Switching Protocols",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "Sec-WebSocket-Protocol: chat",
)
HELLO = frame(b"hello", 1, b"mask")
ANSWER = frame(b"answer", 1)
GOODBYE = b"\x88\x02\x03\xe9"


class UpgradeCase(DialogueCase):
    """
    A conversation that may leave HTTP.
    """

    def shake_hands(self, **settings):
        """
        Begin a WebSocket; return the backend's end.
        """
        self.converse(**settings)
        backend = self.ask(HANDSHAKE)
        self.hear(backend)
        self.say(backend, AGREED)
        self.assertIn(b"101 Switching Protocols\r\n", self.hear(self.client))
        return backend

    def backend_gauge(self):
        """
        Return how many exchanges the first server has, and how many of its connections are leased.
        """
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        backend = result[0]["gauges"]["backends"][0]
        return backend["active"], backend["leased"]


class HandshakeTests(UpgradeCase):
    """
    The handshake is between the client and the backend.
    """

    def test_both_heads(self):
        """The backend hears what the client said, and the client what the backend answered, field by field."""
        self.converse()
        backend = self.ask(HANDSHAKE)
        heard = self.hear(backend).decode()
        self.assertTrue(heard.startswith("GET /chat?room=1 HTTP/1.1\r\nHost: a.test\r\n"), heard)
        for line in WISHES:
            self.assertEqual(heard.count(f"\r\n{line}\r\n"), 1, line)
        self.assertIn("\r\nX-Forwarded-For: 192.0.2.1\r\n", heard)
        self.assertEqual(self.hear(self.client), b"")
        self.say(backend, AGREED)
        self.assertEqual(
            self.hear(self.client),
            b"HTTP/1.1 101 Switching Protocols\r\nDate: D\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"Sec-WebSocket-Protocol: chat\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )

    def test_bytes_after_the_heads(self):
        """What either side sends together with its head, or before the other answers, is not lost."""
        self.converse()
        backend = self.ask(HANDSHAKE + HELLO)
        self.say(self.client, HELLO)
        self.assertTrue(self.hear(backend).endswith(b"\r\n\r\n"))
        self.say(backend, AGREED + ANSWER)
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\n" + ANSWER))
        self.assertEqual(self.hear(backend), HELLO + HELLO)

    def test_byte_by_byte(self):
        """A 101 may come in pieces of any size."""
        self.converse()
        backend = self.ask(HANDSHAKE)
        for byte in AGREED + ANSWER:
            self.say(backend, bytes([byte]))
        self.assertTrue(self.hear(self.client).endswith(b"Connection: Upgrade\r\n\r\n" + ANSWER))

    def test_refused_by_the_backend(self):
        """Any other answer of the backend reaches the client as it is, and both connections go on."""
        self.converse()
        for status, body in (("403 Forbidden", b"no"), ("200 OK", b"ok"), ("426 Upgrade Required", b"")):
            backend = self.ask(HANDSHAKE)
            self.hear(backend)
            self.say(backend, response(status, f"Content-Length: {len(body)}", body=body))
            self.assertEqual(self.hear(self.client), response(status, f"Content-Length: {len(body)}", body=body))
        self.assertEqual(len(self.dialogue.backends), 1)
        self.assertEqual(self.dialogue.outcomes(), ["completed"] * 3)

    def test_refused_by_the_gateway(self):
        """A handshake that no server may accept is refused by the gateway, which says what it would accept."""
        self.converse()
        self.say(self.client, request("GET", "/", *WISHES[:2], WISHES[3]))
        self.assert_refused(400, "websocket-handshake-malformed")
        self.client = self.dialogue.connect()
        self.say(self.client, request("GET", "/", *WISHES[:3], "Sec-WebSocket-Version: 8"))
        heard = self.client.take()
        self.assertTrue(heard.startswith(b"HTTP/1.1 426 "), heard)
        self.assertIn(b"\r\nSec-WebSocket-Version: 13\r\n", heard)
        self.assertIn(b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", heard)
        self.assertEqual(self.dialogue.attempts, [])

    def test_dead_backends(self):
        """Without a backend there is no 101, but an answer that says why; another server is tried first."""
        self.converse(answers_dials=False, servers=2)
        self.say(self.client, HANDSHAKE)
        self.dialogue.attempts[0].fail()
        self.dialogue.reactor.settle()
        backend = self.dialogue.attempts[0].succeed()
        self.assertIn(b"\r\nUpgrade: websocket\r\n", self.hear(backend))
        self.say(backend, AGREED)
        self.assertIn(b"HTTP/1.1 101 ", self.hear(self.client))
        self.client.close()
        backend.close()
        self.dialogue.reactor.advance(20)
        self.client = self.dialogue.connect()
        self.say(self.client, HANDSHAKE)
        self.dialogue.attempts[0].fail(Outcome.CONNECT_TIMEOUT)
        self.dialogue.reactor.settle()
        self.dialogue.attempts[0].fail(Outcome.CONNECT_TIMEOUT)
        self.assert_refused(504, "connect-timeout")

    def test_backend_that_closes(self):
        """A backend that closes instead of answering is a 502."""
        self.converse()
        backend = self.ask(HANDSHAKE)
        self.hear(backend)
        backend.close()
        self.assert_refused(502, "backend-closed")

    def test_what_nobody_asked_for(self):
        """A backend cannot change to a protocol that the client did not ask for, or leave out which."""
        for lines in (["Upgrade: other"], ["Upgrade: websocket, other"], [], ["Upgrade: h2c"]):
            self.converse()
            backend = self.ask(HANDSHAKE)
            self.say(backend, response("101 Switching Protocols", "Connection: Upgrade", *lines))
            self.assert_refused(502, "response-upgrade-refused")

    def test_other_protocols(self):
        """Any protocol that both sides speak goes through; HTTP/2 in disguise does not, and is never asked for."""
        self.converse()
        backend = self.ask(request("GET", "/", "Connection: Upgrade", "Upgrade: echo/1, h2c, other"))
        self.assertIn(b"\r\nUpgrade: echo/1, other\r\nConnection: Upgrade\r\n", self.hear(backend))
        self.say(backend, response("101 Switching Protocols", "Connection: Upgrade", "Upgrade: echo/1"))
        self.assertTrue(self.hear(self.client).endswith(b"Upgrade: echo/1\r\nConnection: Upgrade\r\n\r\n"))
        self.say(self.client, b"anything at all")
        self.assertEqual(self.hear(backend), b"anything at all")
        other = self.dialogue.connect()
        self.say(other, request("GET", "/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))
        heard = self.hear(self.dialogue.backend()).lower()
        self.assertNotIn(b"upgrade", heard)
        self.say(self.dialogue.backend(), OK)
        self.assertTrue(self.hear(other).endswith(b"ok"))

    def test_bound_to_a_server(self):
        """A WebSocket is bound to its server like any other request, by the 101."""
        self.converse()
        self.dialogue.reload(config().replace("servers = [", 'sticky { cookie = "s" }\n    servers = ['))
        backend = self.ask(HANDSHAKE)
        self.say(backend, AGREED)
        self.assertIn(b"\r\nSet-Cookie: s=", self.hear(self.client))

    def test_timeout(self):
        """A backend that does not answer the handshake in time is a 504."""
        self.converse(service="timeouts { response_header = \"2s\" }")
        self.ask(HANDSHAKE)
        self.dialogue.reactor.advance(3)
        self.assert_refused(504, "response-timeout")


class MiddlewareTests(UpgradeCase):
    """
    Middlewares decide about the handshake as about any request.
    """

    def answer_to_101(self, hook):
        """
        Put a middleware in the way whose response hook is `hook`.
        """
        probes = Probes()
        self.converse(catalog=probes.catalog, middlewares=['  type = "probe"'])
        probes["m1"].response = hook

    def test_rejected(self):
        """A middleware may refuse the handshake, and no backend hears of it."""
        self.converse(middlewares=['  type = "api-key"\n  keys = ["secret"]'])
        self.say(self.client, HANDSHAKE)
        self.assert_refused(401, "api-key-refused")
        self.assertEqual(self.dialogue.backends, [])

    def test_changed(self):
        """What middlewares change of the request and of the 101 is changed."""
        self.converse(
            middlewares=[
                '  type = "strip-prefix"\n  prefixes = ["/chat"]',
                '  type = "headers"\n  request_headers = { X-In = "1" }\n  response_headers = { X-Out = "2" }',
                '  type = "compress"',
            ]
        )
        backend = self.ask(HANDSHAKE)
        heard = self.hear(backend)
        self.assertTrue(heard.startswith(b"GET /?room=1 HTTP/1.1\r\n"), heard)
        self.assertIn(b"\r\nX-In: 1\r\n", heard)
        self.say(backend, AGREED)
        heard = self.hear(self.client)
        self.assertIn(b"\r\nX-Out: 2\r\n", heard)
        self.assertNotIn(b"Content-Encoding", heard)
        self.say(backend, ANSWER)
        self.assertEqual(self.hear(self.client), ANSWER)

    def test_answer_in_its_place(self):
        """A middleware may put an answer in the place of the 101; the backend's connection is broken off."""
        self.answer_to_101(lambda exchange, head: exchange.own_refusal(Outcome.ACCESS_DENIED))
        backend = self.ask(HANDSHAKE)
        self.say(backend, AGREED + ANSWER)
        self.assert_refused(403, "access-denied")
        self.assertTrue(backend.was_reset)

    def test_waiting(self):
        """While a middleware looks at the 101, what the backend sends waits for it."""
        waiting = Deferred()
        self.answer_to_101(lambda exchange, head: waiting)
        backend = self.ask(HANDSHAKE)
        self.say(backend, AGREED + ANSWER)
        self.say(backend, ANSWER)
        self.say(self.client, HELLO)
        self.assertEqual(self.hear(self.client), b"")
        self.hear(backend)
        waiting.callback(None)
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\n" + ANSWER + ANSWER))
        self.assertEqual(self.hear(backend), HELLO)

    def test_gone_while_waiting(self):
        """A backend that breaks off while a middleware looks at its 101 is a 502; a client that leaves frees everything."""
        for breaks in ("backend", "client"):
            waiting = Deferred()
            self.answer_to_101(lambda exchange, head, waiting=waiting: waiting)
            backend = self.ask(HANDSHAKE)
            self.say(backend, AGREED)
            if breaks == "backend":
                backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
                backend.close()
                # The stream is held: the loss is noticed when somebody wants to use it.
                self.dialogue.reactor.settle()
                waiting.callback(None)
                self.dialogue.reactor.settle()
            else:
                self.client.close()
                self.dialogue.reactor.settle()
                self.assertTrue(backend.was_reset)
            self.assertEqual(self.dialogue.carrier.generation().services["app"].backends[0].in_flight, 0)


class TunnelTests(UpgradeCase):
    """
    After the 101 bytes go both ways until either side ends.
    """

    def test_both_ways(self):
        """Frames go through untouched, and the server is busy for as long."""
        backend = self.shake_hands()
        self.say(self.client, HELLO)
        self.say(backend, ANSWER)
        self.assertEqual((self.hear(backend), self.hear(self.client)), (HELLO, ANSWER))
        self.assertEqual(self.backend_gauge(), (1, 1))
        self.assertEqual(self.dialogue.outcomes(), [])

    def test_close(self):
        """Closing codes pass as they are; when both sides have closed, the exchange is over and told of with its bytes."""
        backend = self.shake_hands()
        closing = frame(b"\x13\x88because", 8, b"mask")
        self.say(self.client, closing)
        self.assertEqual(self.hear(backend), closing)
        reply = frame(b"\x13\x88because", 8)
        self.say(backend, reply)
        backend.close()
        self.assertEqual(self.hear(self.client), reply)
        self.assertTrue(self.client.has_ended)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.dialogue.outcomes(), ["completed"])
        self.dialogue.reactor.advance(1)
        (line,) = self.dialogue.sink.data.splitlines()
        told = json.loads(line)
        self.assertEqual((told["status"], told["outcome"]), (101, "completed"))
        self.assertIn(len(closing), told.values(), told)
        self.assertIn(len(reply), told.values(), told)
        self.assertEqual(self.backend_gauge(), (0, 0))

    def test_client_breaks_off(self):
        """A client that breaks off breaks its backend's connection off at once."""
        backend = self.shake_hands()
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_client_leaves(self):
        """A client that closes without a word has that passed on at once, and a backend that ignores it is not waited for."""
        backend = self.shake_hands()
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(backend.has_ended)
        self.dialogue.reactor.advance(11)
        self.assertEqual(self.dialogue.outcomes(), ["tunnel-idle"])
        self.assertTrue(backend.was_reset)

    def test_backend_breaks_off(self):
        """A backend that breaks off breaks the client off."""
        backend = self.shake_hands()
        backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
        backend.close()
        self.dialogue.reactor.settle()
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["backend-closed"])

    def test_idle(self):
        """A WebSocket in which nothing moves ends after its own time, and no other timeout touches it."""
        backend = self.shake_hands(service='timeouts {\n idle = "1s"\n total = "2s"\n tunnel_idle = "100s"\n }')
        for _ in range(3):
            self.dialogue.reactor.advance(90)
            self.say(backend, ANSWER)
        self.assertEqual(self.hear(self.client), ANSWER * 3)
        self.dialogue.reactor.advance(101)
        self.assertEqual(self.dialogue.outcomes(), ["tunnel-idle"])
        self.assertTrue(self.client.was_reset)

    def test_hour(self):
        """By default a WebSocket may be silent for an hour."""
        self.shake_hands()
        self.dialogue.reactor.advance(3590)
        self.assertEqual(self.dialogue.outcomes(), [])
        self.dialogue.reactor.advance(11)
        self.assertEqual(self.dialogue.outcomes(), ["tunnel-idle"])

    def test_back_pressure(self):
        """A client that does not keep up holds the backend, by name, and nothing is lost."""
        backend = self.shake_hands()
        self.client.room = 1000
        sent = b""
        for _ in range(20):
            sent += frame(bytes(50_000))
            backend.peer.room = 1 << 30
            self.say(backend, frame(bytes(50_000)))
        stream = next(iter(self.dialogue.carrier._deadlines.watched()))
        self.assertIn("held by", repr(stream))
        self.client.room = 1 << 30
        self.assertEqual(self.hear(self.client), sent)

    def test_slot(self):
        """A WebSocket takes one of a limited number of connections for as long as it lasts."""
        backend = self.shake_hands(service="connection_pool { max_connections = 1 }\n  timeouts { connect = \"2s\" }")
        other = self.dialogue.connect()
        self.say(other, request())
        self.dialogue.reactor.advance(3)
        self.assertIn(b"pool-exhausted", self.hear(other))
        self.client.close()
        backend.close()
        self.dialogue.reactor.settle()
        self.say(other, request())
        self.say(self.dialogue.backend(), OK)
        self.assertTrue(self.hear(other).endswith(b"ok"))


class ReloadTests(UpgradeCase):
    """
    Open WebSockets outlive reloads, and are told when the gateway goes.
    """

    def test_reload(self):
        """A reload leaves open WebSockets alone, even if their server or their entrypoint is gone."""
        backend = self.shake_hands()
        self.dialogue.reload(config().replace("192.0.2.1", "192.0.2.9"))
        self.say(self.client, HELLO)
        self.say(backend, ANSWER)
        self.assertEqual((self.hear(backend), self.hear(self.client)), (HELLO, ANSWER))
        self.dialogue.reload(config().replace("8080", "8081"))
        self.say(self.client, HELLO)
        self.assertEqual(self.hear(backend), HELLO)
        self.client.close()
        backend.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def assert_ended(self, outcome):
        """
        Fail unless the gateway has ended with one exchange that ended with `outcome`, and nothing left.
        """
        self.assertEqual(self.dialogue.outcomes(), [outcome])
        self.dialogue.assert_clean(self)
        self.assertEqual(self.dialogue.reactor.watched(), [])
        self.dialogue = None

    def drain(self, backend, before=lambda: None):
        aborted = []
        self.dialogue.carrier.drain(5).addCallback(aborted.append)
        self.dialogue.reactor.advance(4)
        before()
        self.dialogue.reactor.advance(2)
        self.assertEqual(aborted, [1])
        self.assert_ended("shutting-down")
        return backend.take(), self.client.take()

    def test_drain(self):
        """When the time for draining is over, either side is told 1001; until then the WebSocket goes on."""
        backend = self.shake_hands()
        self.say(self.client, HELLO)
        self.hear(backend)
        said, heard = self.drain(backend, lambda: self.say(backend, ANSWER))
        self.assertEqual(heard, ANSWER + GOODBYE)
        self.assertEqual((said[:2], len(said)), (b"\x88\x82", 8))
        self.assertTrue(self.client.has_ended)

    def test_drain_within_a_frame(self):
        """A side that is in the middle of a frame, or was told already, is told nothing."""
        backend = self.shake_hands()
        said, heard = self.drain(backend, lambda: (self.say(backend, ANSWER[:3]), self.say(self.client, frame(b"", 8, b"mask"))))
        self.assertEqual(heard, ANSWER[:3])
        self.assertEqual(said, frame(b"", 8, b"mask"))

    def test_drain_of_another_protocol(self):
        """What is not known to be a WebSocket is closed without words."""
        self.converse()
        backend = self.ask(request("GET", "/", "Connection: Upgrade", "Upgrade: echo"))
        self.hear(backend)
        self.say(backend, response("101 Switching Protocols", "Upgrade: echo"))
        self.hear(self.client)
        self.assertEqual(self.drain(backend), (b"", b""))
        self.assertTrue(self.client.has_ended)

    def test_drain_without_tunnels_left(self):
        """Draining is over when the last WebSocket is."""
        backend = self.shake_hands()
        aborted = []
        self.dialogue.carrier.drain(100).addCallback(aborted.append)
        self.dialogue.reactor.advance(50)
        self.assertEqual(aborted, [])
        backend.close()
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(aborted, [0])
        self.assert_ended("completed")


class BesideTests(UpgradeCase):
    """
    What is done beside ordinary requests is not done to WebSockets.
    """

    def test_no_copy_and_no_second_attempt(self):
        """A handshake is neither copied to a shadow service nor sent twice when it is slow."""
        shadow = 'services "shadow" {\n load_balancer {\n servers = [{ url = "http://192.0.2.77" }]\n }\n}'
        self.converse(
            servers=2,
            service='mirror {\n service = "shadow"\n percentage = 100\n }\n hedging {\n min_delay_ms = 1\n }',
            more=shadow,
        )
        self.ask(HANDSHAKE)
        self.dialogue.reactor.advance(5)
        self.assertEqual(len(self.dialogue.backends), 1)

    def test_interface(self):
        """An upgrade is the client's side of its exchange, and passes on what is not its own."""
        downstream = SimpleNamespace(caller=None)
        verifyObject(IDownstream, Upgrade(None, downstream, None))
        verifyObject(IDownstream, Switch(None, downstream))


class PulledCableTests(UpgradeCase):
    """
    Whatever breaks off, and after whichever byte, nothing is left behind and everybody is told.
    """

    SAID = {"client": HANDSHAKE + HELLO, "backend": AGREED + ANSWER}

    def pull(self, side, cut, is_reset):
        """
        Let one side say all but what comes after `cut`, and break off.
        """
        self.converse(service="timeouts { connect = \"2s\" }")
        data = self.SAID[side]
        if side == "backend":
            end = self.ask(HANDSHAKE)
            self.hear(end)
        else:
            end = self.client
        if cut:
            self.say(end, data[:cut])
        if side == "client":
            for backend in self.dialogue.backends:
                self.hear(backend)
                self.say(backend, self.SAID["backend"])
            self.hear(self.client)
        if is_reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
        end.close()
        self.dialogue.reactor.settle()
        # A side that was only closed is waited for; the other plays along.
        for backend in self.dialogue.backends:
            backend.take()
            backend.close()
        heard = self.client.take()
        self.client.close()
        self.dialogue.reactor.advance(12)
        self.dialogue.assert_clean(self)
        self.assertEqual([len(door.connections) for door in self.dialogue.carrier.doors()], [0], (side, cut, is_reset))
        self.assertEqual(len(self.dialogue.outcomes()), 1 if side == "backend" or self.dialogue.backends else 0, (side, cut, is_reset))
        return heard

    def test_every_cut(self):
        """No cut through what either side says leaves anything in flight, and a client is never left without an answer or an end."""
        for side, data in self.SAID.items():
            for cut in [*range(0, len(data), 9), len(data)]:
                for is_reset in (False, True):
                    heard = self.pull(side, cut, is_reset)
                    if side == "backend":
                        status = b"101" if cut >= len(AGREED) else b"502"
                        self.assertTrue(heard.startswith(b"HTTP/1.1 " + status), (cut, is_reset, heard))

    def test_bug_at_the_beginning(self):
        """A middleware that fails when it has taken a connection over costs that connection, and is reported."""

        def begin(stream, data, ended):
            raise ZeroDivisionError

        probes = Probes()
        self.converse(catalog=probes.catalog, middlewares=['  type = "probe"'])
        probes["m1"].request = lambda exchange: SwitchingResponse([make_field(b"Upgrade", b"websocket")], begin)
        self.say(self.client, HANDSHAKE)
        self.assertTrue(self.client.was_reset)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.dialogue.outcomes(), ["internal-error"])
