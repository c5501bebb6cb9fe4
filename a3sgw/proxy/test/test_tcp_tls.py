"""
Tests of connections over tcp entrypoints whose TLS ends there, by way of a carrier.
"""

import random
import tempfile
from pathlib import Path

from a3sgw.listen.test.test_tls import TlsClient
from a3sgw.proxy.test.certificates import Authority
from a3sgw.proxy.test.test_tcp_connection import TcpTestCase, client_hello, config, service
from a3sgw.wire.postgres import SSL_REQUEST

IDENTITY = Authority().issue("*.test")
RULES = (("HostSNI(`a.test`)", "a"), ("ALPN(`postgresql`)", "b"), ("HostSNI(`through.test`)", "through"), ("HostSNI(`*`)", "rest"))
SERVICES = "".join(service(name, f"tcp://{name}:1") for name in ("a", "b", "through", "rest"))


class TerminationCase(TcpTestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(folder.cleanup)
        paths = [Path(folder.name) / name for name in ("a.crt", "a.key")]
        for path, text in zip(paths, (IDENTITY.certificate_pem(), IDENTITY.key_pem()), strict=True):
            path.write_bytes(text)
        tls = f'tls {{\n cert_file = "{paths[0]}"\n key_file = "{paths[1]}"\n }}'
        text = config(rules=RULES, services=SERVICES, entrypoint=tls)
        self.text = text.replace('service = "through"\n', 'service = "through"\n tls {\n passthrough = true\n }\n', 1)

    def secured(self, name=b"a.test", alpn=(), before=b""):
        """
        Return a client that has agreed on TLS.
        """
        talk = self.begin(self.text)
        raw = talk.connect()
        if before:
            talk.say(raw, before)
            self.assertEqual(talk.hear(raw), b"S")
        return TlsClient(raw, talk.reactor, name=name, alpn=alpn)


class TerminationTests(TerminationCase):
    """
    Clients speak TLS, and servers get what they say.
    """

    def test_routes(self):
        """The name and the protocols of the ClientHello decide, as they do without opening it."""
        for name, alpn, expected in (
            (b"a.test", (), "a"),
            (b"b.test", (), "rest"),
            (b"b.test", (b"h2", b"postgresql"), "b"),
            (None, (), "rest"),
        ):
            client = self.secured(name, alpn)
            client.say(b"ping")
            server = self.dialogue.backend()
            self.assertEqual(self.dialogue.hear(server), b"ping")
            self.dialogue.say(server, b"pong")
            self.assertEqual(client.take(), b"pong")
            server.close()
            self.dialogue.reactor.settle()
            client.work()
            self.assertTrue(client.has_ended)
            client.connection.shutdown()
            client.flush()
            self.dialogue.reactor.settle()
            self.assertEqual(self.ways(), [(f"r{[rule[1] for rule in RULES].index(expected)}", expected, "completed")])

    def test_server_speaks_first(self):
        """A server that speaks first is heard as soon as TLS is there."""
        client = self.secured()
        self.dialogue.say(self.dialogue.backend(), b"220 hello")
        self.assertEqual(client.take(), b"220 hello")
        self.end(client.raw, self.dialogue.backend())

    def test_half_close(self):
        """A client that says goodbye under TLS still gets its answer."""
        client = self.secured()
        client.say(b"question")
        server = self.dialogue.backend()
        self.assertEqual(self.dialogue.hear(server), b"question")
        client.connection.shutdown()
        client.flush()
        self.dialogue.reactor.settle()
        self.assertEqual(server.recv(1), b"")
        self.dialogue.say(server, b"answer" * 50_000)
        self.assertEqual(client.take(), b"answer" * 50_000)
        server.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.ways(), [("r0", "a", "completed")])

    def test_passthrough(self):
        """A router that passes TLS through gets the ClientHello itself, beside routers for which TLS ends here."""
        talk = self.begin(self.text)
        client = talk.connect()
        hello = client_hello("through.test")
        for at in range(0, len(hello), 50):
            talk.say(client, hello[at : at + 50])
        self.assertEqual(talk.hear(talk.backend()), hello)
        self.end(client, talk.backend())
        self.assertEqual(self.ways(), [("r2", "through", "completed")])

    def test_postgres(self):
        """Clients of PostgreSQL are told that they may begin; their server is asked only if TLS is for it."""
        client = self.secured(before=SSL_REQUEST)
        client.say(b"startup")
        server = self.dialogue.backend()
        self.assertEqual(self.dialogue.hear(server), b"startup")
        self.end(client.raw, server)
        talk = self.begin(self.text)
        raw = talk.connect()
        talk.say(raw, SSL_REQUEST)
        talk.say(raw, client_hello("through.test"))
        self.assertEqual(talk.hear(talk.backend()), SSL_REQUEST)
        self.end(raw, talk.backend())

    def test_no_tls(self):
        """Who speaks something else is answered by an alert, and comes nowhere."""
        talk = self.begin(self.text)
        client = talk.connect()
        talk.say(client, b"PING\r\n")
        self.assertEqual(talk.hear(client)[:3], b"\x15\x03\x01")
        self.assertEqual(talk.backends, [])
        self.end(client)

    def test_drain(self):
        """A stop lets what has begun end, under TLS too."""
        client = self.secured()
        client.say(b"x")
        done = []
        self.dialogue.carrier.drain(10.0).addCallback(done.append)
        client.say(b"y")
        self.assertEqual(self.dialogue.hear(self.dialogue.backend()), b"xy")
        self.dialogue.reactor.advance(11.0)
        self.dialogue.reactor.settle()
        self.assertEqual(done, [1])
        self.assertTrue(self.dialogue.backend().was_reset)
        self.assertEqual([way[2] for way in self.ways()], ["shutting-down"])


class MutationTests(TerminationCase):
    """
    Handshakes that somebody has meddled with.
    """

    def test_mutations(self):
        """Whatever arrives, the connection is refused or served; nothing raises or is left over."""
        chance = random.Random(5)
        talk = self.begin(self.text)
        seeds = [client_hello("a.test"), client_hello("through.test"), SSL_REQUEST + client_hello("a.test")]
        for _ in range(500):
            data = bytearray(chance.choice(seeds))
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            client = talk.connect()
            for piece in (bytes(data[:60]), bytes(data[60:])):
                try:
                    client.send(piece)
                except OSError:
                    break
                talk.reactor.settle()
            self.end(client)
        self.end(*talk.backends)
        talk.reactor.advance(30.0)
        talk.reactor.settle()
        self.assertEqual(len(talk.door().connections), 0)
        self.assertEqual(self.flushLoggedErrors(), [])


