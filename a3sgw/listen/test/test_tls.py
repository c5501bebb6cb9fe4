"""
Tests of TLS at the beginning of connections, without a network.
"""

import random
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning, IConnection, IReceiver
from a3sgw.listen.beginning import Http1Beginning
from a3sgw.listen.certificates import CertificateFiles, Certificates, ServerTerms
from a3sgw.listen.tcp_beginning import TcpBeginning
from a3sgw.listen.test.test_door import REQUEST, DoorCase
from a3sgw.listen.tls import Greeting, TlsBeginning
from a3sgw.proxy.test.certificates import Authority
from a3sgw.wire.test.test_clienthello import real_hello

AUTHORITY = Authority()
MAIN = AUTHORITY.issue("main.test")
SHOP = AUTHORITY.issue("*.shop.test")
RSA = AUTHORITY.issue("main.test", key=rsa.generate_private_key(65537, 2048))
HTTP1 = {b"http/1.1": Http1Beginning(), b"": Http1Beginning()}


class TlsClient:
    """
    A client's end of a connection, as `MemorySocket`, but what is said and heard goes through TLS. It resumes the session of `like`.
    """

    def __init__(self, raw, reactor, name=b"main.test", alpn=(b"http/1.1",), identity=None, settings=None, like=None):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if alpn:
            context.set_alpn_protos(list(alpn))
        if identity is not None:
            context.use_certificate(identity.certificate)
            context.use_privatekey(identity.key)
        if settings is not None:
            settings(context)
        self.raw = raw
        self.heard = bytearray()
        self.failure = None
        self.has_ended = False
        self._reactor = reactor
        self.connection = SSL.Connection(context if like is None else like.connection.get_context(), None)
        if like is not None:
            self.connection.set_session(like.connection.get_session())
        if name is not None:
            self.connection.set_tlsext_host_name(name)
        self.connection.set_connect_state()
        self.work()

    def work(self):
        """
        Take and answer what has arrived, until nothing more comes.
        """
        while self.failure is None:
            self._attempt(self.connection.do_handshake)
            self._attempt(self._hear)
            self.flush()
            self._reactor.settle()
            if not self.raw.arrived:
                return
            self.connection.bio_write(self.raw.take())

    def _attempt(self, call):
        try:
            call()
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.has_ended = True
        except SSL.Error as error:
            # The first is the reason, and others only follow from it.
            self.failure = self.failure or error.args[0][0][2]

    def _hear(self):
        while True:
            self.heard += self.connection.recv(65536)

    def flush(self):
        try:
            while not self.raw.is_closed:
                data = self.connection.bio_read(65536)
                if not self.raw.peer.is_closed:
                    self.raw.send(data)
        except SSL.WantReadError:
            pass

    def say(self, *pieces):
        """
        Send `pieces`, each a record.
        """
        self.work()
        for piece in pieces:
            self.connection.sendall(piece)
        self.work()

    def take(self):
        """
        Return what was heard.
        """
        self.work()
        heard = bytes(self.heard)
        self.heard.clear()
        return heard

    @property
    def shown(self):
        """
        Whose certificate was seen.
        """
        return self.connection.get_peer_certificate(as_cryptography=True)


class TlsCase(DoorCase):
    """
    A door with TLS in memory.
    """

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name, text):
        path = self.folder / name
        path.write_bytes(text)
        return str(path)

    def begin(self, *identities, following=HTTP1, gates=None, subject=False, **terms):
        """
        Return a door that shows certificates for `identities`.
        """
        door = self.make(**(gates or {}))
        files = tuple(
            CertificateFiles(self.write(f"{number}.crt", each.certificate_pem()), self.write(f"{number}.key", each.key_pem()))
            for number, each in enumerate(identities or [MAIN])
        )
        protocols = tuple(protocol for protocol in following if protocol)
        terms = ServerTerms(files, protocols=protocols, **terms)
        certificates = Certificates("web", terms, self.reactor.seconds, lambda: 0)
        door.beginning = TlsBeginning(certificates, following, 10.0, tells_subject=subject)
        return door

    def client(self, **how):
        return TlsClient(self.connect(), self.reactor, **how)

    def assert_served(self, client):
        client.say(REQUEST)
        self.assertTrue(client.take().startswith(b"HTTP/1.1 404 "), client.failure)

    def assert_refused(self, client, outcome, alert):
        """
        The client is told `alert`, the failure is counted as `outcome`, and nothing is left.
        """
        client.work()
        self.assertIn(alert, str(client.failure))
        self.assertEqual(self.tally.refused, {("web", outcome.word): 1})
        self.assertEqual(self.door.connections, set())
        self.tally.refused.clear()


class InterfaceTests(TlsCase):
    """
    The seams.
    """

    def test_beginning(self):
        """TLS is a step; whoever is turned away gets an alert."""
        beginning = TlsBeginning(None, HTTP1)
        verifyObject(IBeginning, beginning)
        self.assertEqual(beginning.goodbye(Outcome.ADDRESS_REFUSED)[-2:], b"\x02\x31")
        self.assertEqual(beginning.goodbye(Outcome.CONNECTION_LIMIT)[-2:], b"\x02\x50")

    def test_greeting(self):
        """What waits for the handshake is a connection of the door and a receiver of its stream."""
        door = self.begin()
        self.connect()
        (greeting,) = door.connections
        self.assertIsInstance(greeting, Greeting)
        verifyObject(IConnection, greeting)
        verifyObject(IReceiver, greeting)
        self.assertEqual(repr(greeting)[:28], "<Greeting of 192.0.2.1 on <S")
        self.assertEqual(greeting.exchange_count(), 0)


class HandshakeTests(TlsCase):
    """
    Clients that get in.
    """

    def test_served(self):
        """A client is served under TLS, one request after the other."""
        door = self.begin()
        client = self.client()
        for _ in range(3):
            self.assert_served(client)
        self.assertEqual(client.connection.get_protocol_version_name(), "TLSv1.3")
        self.assertEqual(client.connection.get_alpn_proto_negotiated(), b"http/1.1")
        (connection,) = door.connections
        self.assertEqual((connection.caller.scheme, connection.caller.tls.server_name), (b"https", b"main.test"))
        client.connection.shutdown()
        client.flush()
        self.reactor.settle()
        self.assertEqual((door.connections, self.tally.refused), (set(), {}))

    def test_old_version(self):
        """TLS 1.2 is spoken as well, with the same names."""
        self.begin(MAIN, SHOP)
        client = self.client(name=b"a.shop.test", settings=lambda context: context.set_max_proto_version(SSL.TLS1_2_VERSION))
        self.assert_served(client)
        self.assertEqual(client.connection.get_protocol_version_name(), "TLSv1.2")
        self.assertEqual(client.shown, SHOP.certificate)

    def test_byte_by_byte(self):
        """However the handshake is cut, it is the same."""
        self.begin()
        raw = self.connect()
        send = raw.send

        def dribble(data):
            for number in range(len(data)):
                send(data[number : number + 1])
                self.reactor.settle()

        raw.send = dribble
        client = TlsClient(raw, self.reactor)
        self.assert_served(client)

    def test_request_with_the_handshake(self):
        """A request that comes along with the end of the handshake, or several records at once, are answered."""
        self.begin()
        client = self.client()
        client.say(REQUEST[:10], REQUEST[10:], REQUEST, REQUEST)
        self.assertEqual(client.take().count(b"HTTP/1.1 404 "), 3)

    def test_no_protocol(self):
        """A client that says nothing of protocols speaks HTTP/1.1."""
        self.begin()
        client = self.client(alpn=())
        self.assert_served(client)
        self.assertEqual(client.connection.get_alpn_proto_negotiated(), b"")

    def test_protocols_that_do_not_matter(self):
        """Where what follows is no matter of protocols, none is chosen, whatever is offered."""
        self.begin(following={b"": Http1Beginning()})
        client = self.client(alpn=[b"h2", b"imap"])
        self.assert_served(client)
        self.assertEqual(client.connection.get_alpn_proto_negotiated(), b"")

    def test_kinds_of_keys(self):
        """A client that cannot verify elliptic curves sees a certificate with RSA."""
        self.begin(MAIN, RSA)
        self.assertEqual(self.client().shown, MAIN.certificate)

        def only_rsa(context):
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            context.set_cipher_list(b"ECDHE-RSA-AES128-GCM-SHA256")

        self.assertEqual(self.client(settings=only_rsa).shown, RSA.certificate)

    def test_resumption(self):
        """A session can be resumed, in either version, also where certificates of clients are asked for, which are known then too."""
        ca = self.write("ca.pem", AUTHORITY.pem())
        own = AUTHORITY.issue(common_name="alice")
        for terms, identity in (({}, None), ({"client_ca_file": ca, "needs_client": True}, own)):
            self.begin(subject=bool(identity), **terms)
            for newest in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                client = self.client(identity=identity, settings=lambda context, newest=newest: context.set_max_proto_version(newest))
                self.assert_served(client)
                again = self.client(like=client)
                self.assert_served(again)
                self.assertTrue(SSL._lib.SSL_session_reused(again.connection._ssl))
                if identity is not None:
                    subjects = {connection.caller.tls.subject for connection in self.door.connections}
                    self.assertEqual(subjects, {b"CN=alice"})


class RefusalTests(TlsCase):
    """
    Clients that do not get in.
    """

    def test_version(self):
        """A client that is too old is told so, whatever name it asks for."""
        self.begin(MAIN, SHOP, min_version="1.3")
        for name in (b"main.test", b"a.shop.test", b"other.test", None):
            client = self.client(name=name, settings=lambda context: context.set_max_proto_version(SSL.TLS1_2_VERSION))
            self.assert_refused(client, Outcome.TLS_VERSION_REFUSED, "protocol version")

    def test_cipher(self):
        """A client that has no cipher in common is told so, whatever name it asks for."""
        self.begin(MAIN, SHOP, cipher_suites=("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",))

        def settings(context):
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            context.set_cipher_list(b"ECDHE-ECDSA-AES128-GCM-SHA256")

        for name in (b"main.test", b"a.shop.test"):
            self.assert_refused(self.client(name=name, settings=settings), Outcome.TLS_CIPHER_REFUSED, "handshake failure")

    def test_protocol(self):
        """A client that speaks nothing we do is told so (RFC 7301)."""
        self.begin()
        self.assert_refused(self.client(alpn=[b"imap"]), Outcome.TLS_PROTOCOL_REFUSED, "no application protocol")

    def test_name(self):
        """With strict names, a client that asks for another is told so."""
        self.begin(is_strict=True)
        self.assert_refused(self.client(name=b"other.test"), Outcome.TLS_NAME_REFUSED, "unrecognized name")
        self.assert_served(self.client())

    def test_client_certificates(self):
        """Who must show a certificate and has none, or a stranger's, does not get in; who may show one needs none."""
        ca = self.write("ca.pem", AUTHORITY.pem())
        stranger = Authority("another").issue(common_name="mallory")
        self.begin(client_ca_file=ca, needs_client=True)
        self.assert_refused(self.client(), Outcome.TLS_CLIENT_CERTIFICATE_MISSING, "certificate required")
        self.assert_refused(self.client(identity=stranger), Outcome.TLS_CLIENT_CERTIFICATE_REFUSED, "unknown ca")
        self.assert_served(self.client(identity=AUTHORITY.issue(common_name="alice")))
        self.begin(client_ca_file=ca)
        self.assert_refused(self.client(identity=stranger), Outcome.TLS_CLIENT_CERTIFICATE_REFUSED, "unknown ca")
        self.assert_served(self.client())
        self.assert_served(self.client(identity=AUTHORITY.issue(common_name="alice")))

    def test_subject(self):
        """Whom a certificate is for is known in ASCII, whatever is in it."""
        ca = self.write("ca.pem", AUTHORITY.pem())
        self.begin(client_ca_file=ca, subject=True)
        for name, subject in (
            ("alice", b"CN=alice"),
            ("a, b", b"CN=a\\, b"),
            ("ü\r\nX: y", b"CN=\\C3\\BC\\0D\\0AX: y"),
            (None, None),
        ):
            client = self.client(identity=None if name is None else AUTHORITY.issue(common_name=name))
            self.assert_served(client)
            (connection,) = self.door.connections
            self.assertEqual(connection.caller.tls.subject, subject)
            client.raw.close()
            self.reactor.settle()

    def test_refused_by_client(self):
        """A client that does not believe us is counted as one."""
        self.begin()
        client = self.client(settings=lambda context: context.set_verify(SSL.VERIFY_PEER))
        self.assert_refused(client, Outcome.TLS_REFUSED_BY_CLIENT, "certificate verify failed")

    def test_plain_http(self):
        """Who speaks plain HTTP is told in plain HTTP what to do."""
        for data in (REQUEST, b"GET", b"OPTIONS * HTTP/1.1\r\n\r\n"):
            self.begin()
            client = self.connect()
            client.send(data)
            self.reactor.settle()
            heard = client.take()
            self.assertTrue(heard.startswith(b"HTTP/1.1 400 "), heard)
            self.assertIn(b"use an https:// URL", heard)
            self.assertTrue(client.has_ended)
            self.assertEqual(self.tally.refused, {("web", "plain-http-on-tls"): 1})

    def test_garbage(self):
        """Garbage is answered with an alert; to what is no HTTP, nobody speaks HTTP."""
        for following, data in (
            (HTTP1, b"SSH-2.0-OpenSSH_9.2\r\n"),
            (HTTP1, b"\0"),
            (HTTP1, b"\x16\x03\x01\0\0"),
            (HTTP1, real_hello()[:50] + b"\xff" * 2000),
            ({b"": TcpBeginning(lambda call: None)}, REQUEST),
        ):
            self.begin(following=following)
            client = self.connect()
            client.send(data)
            self.reactor.settle()
            heard = client.take()
            self.assertEqual((heard[:5], len(heard)), (b"\x15\x03\x01\0\x02", 7))
            self.assertTrue(client.has_ended)
            self.assertEqual(self.tally.refused, {("web", "tls-malformed"): 1})
            self.assertEqual(self.door.connections, set())

    def test_mutations(self):
        """However a ClientHello is damaged, the client is answered or waited for, and nothing is left of it."""
        chance = random.Random(5)
        hello = real_hello(alpn=[b"http/1.1"])
        self.begin()
        for _ in range(1000):
            data = bytearray(hello)
            for _ in range(chance.randint(1, 3)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            client = self.connect()
            client.send(bytes(data))
            self.reactor.settle()
            client.close()
            self.reactor.settle()
        self.assertEqual(self.door.connections, set())
        self.assertEqual(self.levels(), [])

    def test_too_slow(self):
        """Whoever has not finished in time is let go, before the first byte, within the ClientHello and after it."""
        hello = real_hello()
        for data in (b"", hello[:100], hello):
            self.begin()
            client = self.connect()
            if data:
                client.send(data)
            self.reactor.settle()
            self.reactor.advance(9)
            self.assertFalse(client.has_ended)
            self.reactor.advance(2)
            self.assertTrue(client.has_ended)
            self.assertEqual(self.tally.refused, {("web", "tls-timeout"): 1})
            self.assertEqual(self.door.connections, set())

    def test_gone(self):
        """Whoever leaves within the handshake is counted; who only looked whether there is anybody is not."""
        hello = real_hello()
        for data, refused in ((b"", {}), (hello[:100], {("web", "tls-closed"): 1}), (hello, {("web", "tls-closed"): 1})):
            self.begin()
            client = self.connect()
            if data:
                client.send(data)
            self.reactor.settle()
            client.take()
            client.close()
            self.reactor.settle()
            self.assertEqual((self.tally.refused, self.door.connections), (refused, set()))

    def test_turned_away(self):
        """Who is turned away at the door is told by an alert."""
        self.begin(gates={"max_connections": 0})
        self.assertEqual(self.connect().take(), b"\x15\x03\x01\0\x02\x02\x50")


class EndTests(TlsCase):
    """
    Doors that close.
    """

    def test_drained(self):
        """Who has not begun is let go after a moment; who has may finish, if it does so in time."""
        door = self.begin()
        idle = self.connect()
        begun = self.connect()
        hello = real_hello()
        begun.send(hello[:50])
        self.reactor.settle()
        arrived = self.connect()
        arrived.send(hello[:50])
        door.drain()
        self.reactor.advance(0.9)
        self.assertEqual([each.has_ended for each in (idle, begun, arrived)], [False, False, False])
        self.reactor.advance(0.7)
        self.assertEqual([each.has_ended for each in (idle, begun, arrived)], [True, False, False])
        self.assertEqual(len(door.connections), 2)
        self.reactor.advance(11)
        self.assertEqual(door.connections, set())

    def test_drained_within(self):
        """A client in the middle of its handshake when the door closes is still served."""
        door = self.begin()
        raw = self.connect()
        send, held = raw.send, []
        raw.send = lambda data: held.append(data) or len(data)
        client = TlsClient(raw, self.reactor)
        send(held[0][:20])
        self.reactor.settle()
        door.drain()
        raw.send = send
        send(held[0][20:])
        self.reactor.settle()
        self.assert_served(client)
        self.assertEqual(door.connections, set())
        self.assertTrue(client.has_ended)

    def test_drained_before_the_hello(self):
        """A client that has just come when the door closes, and says hello a moment later, is served."""
        door = self.begin()
        raw = self.connect()
        door.drain()
        self.reactor.advance(0.5)
        client = TlsClient(raw, self.reactor)
        self.reactor.settle()
        self.assert_served(client)
        self.assertEqual(door.connections, set())
        self.assertTrue(client.has_ended)

    def test_stopped(self):
        """When the time is over, whoever has not finished is broken off."""
        door = self.begin()
        self.connect()
        self.connect().send(real_hello())
        self.reactor.settle()
        self.assertEqual(door.abort(), 0)
        self.reactor.settle()
        self.assertEqual(door.connections, set())


class FactsTests(SynchronousTestCase):
    """
    What is remembered.
    """

    def test_protocols(self):
        """The protocols are offered in the order of the next steps, without that of no protocol."""
        self.assertEqual(TlsBeginning(None, {b"h2": None, b"http/1.1": None, b"": None}).protocols, (b"h2", b"http/1.1"))
