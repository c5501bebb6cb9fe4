"""
Tests of errands to `https` servers: all that is true of others, and who is believed to be the server.
"""

import os
import socket
import tempfile
from datetime import timedelta

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome, UpstreamError
from a3sgw.interfaces import IReceiver
from a3sgw.net.deadline import NEVER
from a3sgw.net.tls_stream import TlsStream
from a3sgw.net.valve import CLIENT_SLOW
from a3sgw.proxy.outbound import Outbound
from a3sgw.proxy.outbound_tls import Terms, TlsDialer, _Securing
from a3sgw.proxy.test import test_errand as plain
from a3sgw.proxy.test.certificates import Authority
from a3sgw.proxy.test.dialogues import OK, response
from a3sgw.proxy.test.errands import RESET, OutboundCase
from a3sgw.proxy.test.leases import ADDRESS
from a3sgw.testing import receiver_contract

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("auth.test", "192.0.2.1", "2001:db8::1")
REQUEST = b"GET / HTTP/1.1\r\nHost: auth.test\r\n\r\n"


class TlsServer:
    """
    The server's end of a connection, as `MemorySocket`, but what is said and heard goes through TLS.

    `raw` is the end without. `name` is what the server was called by. `limit` is how many more bytes it can send before its cable is
    pulled. `protocols` are those it speaks, if it negotiates, `offered` those it was asked for.
    """

    def __init__(self, raw, reactor, identity=IDENTITY, *, newest=SSL.TLS1_3_VERSION, limit=None, protocols=()):
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        if protocols:
            context.set_alpn_select_callback(self._choose)
        self._protocols = protocols
        self.offered = None
        context.set_max_proto_version(newest)
        context.use_certificate(X509.from_cryptography(identity.certificate))
        context.use_privatekey(identity.key)
        self.raw = raw
        self.limit = limit
        self.heard = bytearray()
        self.sent = 0
        self.has_ended = False
        self.failure = None
        self._reactor = reactor
        self._resets = False
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()

    def _choose(self, connection, offered):
        self.offered = list(offered)
        return next((each for each in self._protocols if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    @property
    def name(self):
        return self._connection.get_servername()

    @property
    def was_reset(self):
        return self.raw.was_reset

    @property
    def arrived(self):
        return self.raw.arrived

    def work(self):
        """
        Take and answer what has arrived, until nothing more comes.
        """
        self._reactor.settle()
        while self.raw.arrived and self.failure is None:
            self._connection.bio_write(self.raw.take())
            try:
                while True:
                    self.heard += self._connection.recv(65536)
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                self.has_ended = True
            except SSL.Error as error:
                self.failure = error
            self.flush()
            self._reactor.settle()

    def flush(self):
        try:
            while not self.raw.is_closed:
                self._send(self._connection.bio_read(65536))
        except SSL.WantReadError:
            pass

    def _send(self, data):
        self.sent += len(data)
        if self.limit is not None:
            data = data[: self.limit]
            self.limit -= len(data)
        if data and not self.raw.peer.is_closed:
            self.raw.send(data)
        if self.limit == 0:
            self.raw.take()
            self.raw.close()

    # -- as a socket

    def take(self):
        self.work()
        heard = bytes(self.heard)
        self.heard.clear()
        return heard

    def send(self, data):
        self._connection.sendall(data)
        self.flush()

    def setsockopt(self, *option):
        self._resets = True
        self.raw.setsockopt(*option)

    def close(self):
        if not self._resets:
            self._connection.shutdown()
            self.flush()
        self.raw.close()


class TlsCase(OutboundCase):
    """
    A way out over TLS, without a network.
    """

    URL = "https://auth.test/ignored?too"

    def make_outbound(self):
        return Outbound(self.dialer, self.reactor, [AUTHORITY.certificate])

    def cuts(self, said):
        # A handshake takes its time, and what is special about TLS is tested apart.
        return [*range(0, len(said), 9), len(said)]

    def accept(self, identity=IDENTITY, *, room=1 << 20, **options):
        raw = super().accept(room=room)
        self.server = TlsServer(raw, self.reactor, identity, **options)
        self.server.work()
        return self.server

    def say(self, peer, data):
        super().say(peer, data)
        if isinstance(peer, TlsServer):
            # Even when nothing is said there may be a farewell to hear.
            peer.work()


class TlsResponseTests(TlsCase, plain.ResponseTests):
    """
    Answers over TLS are like others.
    """


class TlsFailureTests(TlsCase, plain.FailureTests):
    """
    Failures over TLS are like others.
    """


class TlsStaleTests(TlsCase, plain.StaleTests):
    """
    Connections under TLS are kept like others.
    """

    def test_idle_for_long(self):
        """A connection is not kept for ever; its end is announced."""
        peer = self.keep()
        self.reactor.advance(91)
        peer.work()
        self.assertTrue(peer.has_ended)

    def test_closed(self):
        """Closing a destination closes what is idle, with a farewell."""
        peer = self.keep()
        self.destination.close()
        peer.work()
        self.assertTrue(peer.has_ended)
        self.assertTrue(peer.raw.has_ended)
        self.assertFalse(peer.was_reset)


class TlsEndingTests(TlsCase, plain.EndingTests):
    """
    Errands over TLS end like others.
    """


class TrustTests(TlsCase):
    """
    Who is believed to be the server.
    """

    def assert_refused(self, pattern, identity=IDENTITY):
        """
        Fail unless the server is not believed, the log says why, and the server has heard nothing.
        """
        with capturedLogs() as events:
            self.fetch()
            server = self.accept(identity)
        self.assert_failed(Outcome.CONNECT_FAILED)
        self.assertEqual(server.heard, b"")
        self.assertTrue(server.raw.has_ended or server.was_reset)
        (event,) = events
        self.assertRegex(event["failure"], pattern)
        return server

    def test_names(self):
        """A server is believed if its certificate is for the host of the URL, whether that is a name or an address."""
        for url, name in [
            ("https://auth.test", b"auth.test"),
            ("https://AUTH.test.:8443/x", b"AUTH.test"),
            ("https://192.0.2.1", None),
            ("https://[2001:db8::1]:8443", None),
        ]:
            self.open(url)
            self.fetch()
            server = self.accept()
            self.assertEqual(server.name, name)
            self.assertIn(b"Host: " + url.encode()[8:].removesuffix(b"/x") + b"\r\n", server.take())
            self.say(server, OK)
            self.assert_answered()

    def test_wildcard(self):
        """A certificate may be for all hosts of a domain."""
        self.open("https://auth.app.test")
        self.fetch()
        self.say(self.accept(AUTHORITY.issue("*.app.test")), OK)
        self.assert_answered()

    def test_another_name(self):
        """A certificate that is good, but for somebody else, is no proof."""
        for url, identity in [
            ("https://other.test", IDENTITY),
            ("https://192.0.2.2", IDENTITY),
            ("https://192.0.2.1", AUTHORITY.issue("auth.test")),
            ("https://auth.test", AUTHORITY.issue("192.0.2.1")),
            ("https://auth.test", AUTHORITY.issue("*.auth.test")),
            # What it says elsewhere than among the alternative names does not count (RFC 9110 section 4.3.4).
            ("https://auth.test", AUTHORITY.issue(common_name="auth.test")),
        ]:
            self.open(url)
            self.assert_refused("the certificate is not one for", identity)

    def test_unknown_authority(self):
        """A certificate from somebody who is not trusted is no proof, and the server is told so."""
        self.open()
        server = self.assert_refused("certificate verify failed", Authority("somebody else").issue("auth.test"))
        self.assertIn("alert unknown ca", str(server.failure))

    def test_system_authorities(self):
        """Unless told otherwise, those are trusted whom the system trusts, and nobody else."""
        self.outbound = Outbound(self.dialer, self.reactor)
        self.open()
        self.assert_refused("certificate verify failed")
        with tempfile.NamedTemporaryFile() as file:
            file.write(AUTHORITY.certificate.public_bytes(Encoding.PEM))
            file.flush()
            before = os.environ.get("SSL_CERT_FILE")
            os.environ["SSL_CERT_FILE"] = file.name
            try:
                self.open()
            finally:
                os.environ.pop("SSL_CERT_FILE")
                if before is not None:
                    os.environ["SSL_CERT_FILE"] = before
        self.fetch()
        self.say(self.accept(), OK)
        self.assert_answered()

    def test_out_of_date(self):
        """A certificate that has run out is no proof."""
        self.open()
        self.assert_refused("certificate verify failed", AUTHORITY.issue("auth.test", lasts=timedelta(hours=-1)))

    def test_no_tls(self):
        """A server that does not speak TLS is told apart from one that is not there."""
        self.open()
        with capturedLogs() as events:
            self.fetch()
            raw = OutboundCase.accept(self)
            raw.take()
            OutboundCase.say(self, raw, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assert_failed(Outcome.CONNECT_FAILED)
        self.assertIn("wrong version number", events[0]["failure"])

    def test_older_version(self):
        """TLS 1.2 will do."""
        self.open()
        self.fetch()
        self.say(self.accept(newest=SSL.TLS1_2_VERSION), OK)
        self.assert_answered()

    def test_renegotiation(self):
        """A server that wants to negotiate anew is told that it cannot."""
        self.open()
        self.fetch()
        server = self.accept(newest=SSL.TLS1_2_VERSION)
        server._connection.renegotiate()
        server._connection.do_handshake()
        server.flush()
        server.work()
        self.assertIn("no renegotiation", str(server.failure))
        self.assert_failed(Outcome.BACKEND_CLOSED, "alert handshake failure")

    def test_logged_once(self):
        """Why there is no connection is logged when it begins or changes, not with every request."""
        self.open()
        stranger = Authority("somebody else").issue("auth.test")
        with capturedLogs() as events:
            for identity in (stranger, stranger, AUTHORITY.issue("other.test"), stranger, IDENTITY, stranger):
                self.fetch()
                self.accept(identity)
                self.asked.cancel()
                self.reactor.settle()
        self.assertEqual([event["failure"][:15] for event in events], ["certificate ver", "the certificate", *["certificate ver"] * 2])
        self.assertEqual({event["host"] for event in events}, {"auth.test"})

    def test_next_address(self):
        """The outcome of connecting is passed on, if it does not come to TLS."""
        self.open()
        self.fetch()
        self.dialer.answer(ADDRESS)
        self.dialer.attempts[-1].fail(Outcome.CONNECT_REFUSED)
        self.assert_failed(Outcome.CONNECT_REFUSED)


class HandshakeTests(TlsCase):
    """
    The handshake is a part of connecting.
    """

    def begin(self):
        """
        Let a connection be made on which the server says nothing.
        """
        self.open()
        self.fetch(timeout=self.timeout)
        return OutboundCase.accept(self)

    timeout = 20.0

    def test_silence(self):
        """A server that does not answer the handshake is given up like one that does not answer at all."""
        raw = self.begin()
        self.reactor.advance(4.5)
        self.assertEqual(self.told, [])
        self.reactor.advance(1)
        self.assert_failed(Outcome.CONNECT_TIMEOUT)
        self.assertTrue(raw.was_reset)

    def test_time_limit(self):
        """The time limit of the errand holds for the handshake too."""
        self.timeout = 2.0
        self.begin()
        self.reactor.advance(1.9)
        self.assertEqual(self.told, [])
        self.reactor.advance(0.1)
        self.assert_failed(Outcome.CONNECT_TIMEOUT)

    def test_cancelled(self):
        """Cancelling breaks the handshake off."""
        raw = self.begin()
        self.asked.cancel()
        self.assert_cancelled()
        self.assertTrue(raw.was_reset)

    def test_closed(self):
        """A server that hangs up instead is told apart from one that did so when it had the request."""
        for resets in (False, True):
            self.leave(self.begin(), resets=resets)
            self.assert_failed(Outcome.CONNECT_FAILED)

    def test_nothing_is_kept_after_a_long_handshake(self):
        """The time that the handshake took does not shorten what comes after it."""
        self.open()
        self.fetch(timeout=60.0)
        raw = OutboundCase.accept(self)
        self.reactor.advance(4)
        server = TlsServer(raw, self.reactor)
        server.work()
        self.reactor.advance(30)
        self.say(server, OK)
        self.assert_answered()


class RecordTests(TlsCase):
    """
    What the network may do to TLS.
    """

    def test_cable_pulled_at_each_byte(self):
        """Wherever a TLS connection breaks off, in the handshake or in the answer, that is told, and nothing is left."""
        said = response("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n")
        self.open()
        self.fetch()
        server = self.accept()
        handshake = server.sent
        self.say(server, said)
        total = server.sent
        self.assert_answered()
        self.assert_clean()
        outcomes = set()
        # Signatures differ by some bytes from one handshake to the next.
        for limit in [*range(1, handshake - 20, 37), *range(handshake + 20, total - 20)]:
            self.open()
            self.fetch()
            server = self.accept(limit=limit)
            if limit > handshake:
                self.assertEqual(server.take(), REQUEST)
                self.say(server, said)
            self.assertIsInstance(self.told[0].value, UpstreamError, limit)
            outcomes.add(self.told[0].value.outcome)
            self.assertTrue(server.raw.is_closed)
            self.assert_clean()
        self.assertEqual(outcomes, {Outcome.CONNECT_FAILED, Outcome.BACKEND_CLOSED})

    def test_cut_off(self):
        """An answer that ends with its connection is whole only if the server itself said that this is the end."""
        for says_farewell in (True, False):
            self.open()
            self.fetch()
            server = self.accept()
            self.say(server, plain.UNTIL_CLOSE)
            server.take()
            if says_farewell:
                self.leave(server)
                self.assert_answered(b"to the end")
            else:
                self.leave(server.raw)
                self.assert_failed(Outcome.RESPONSE_INCOMPLETE, "without a TLS farewell")

    def test_farewell_and_more(self):
        """What comes behind a farewell is nothing."""
        self.open()
        self.fetch()
        server = self.accept()
        self.say(server, plain.UNTIL_CLOSE)
        server.take()
        server._connection.shutdown()
        server.flush()
        server.raw.send(b"anything")
        server.raw.close()
        self.reactor.settle()
        self.assert_answered(b"to the end")

    def test_noise(self):
        """Bytes that were changed on the way are noticed."""
        self.open()
        self.fetch()
        server = self.accept()
        server._connection.sendall(OK)
        sealed = server._connection.bio_read(65536)
        server.raw.send(sealed[:-1] + bytes([sealed[-1] ^ 1]))
        self.reactor.settle()
        self.assert_failed(Outcome.BACKEND_CLOSED, "bad record mac")

    def test_many_records_at_once(self):
        """However many records arrive together, and however small they are, the answer is the same."""
        self.open()
        self.fetch(max_body_bytes=100_000)
        server = self.accept()
        body = b"x" * 100_000
        said = response("200 OK", "Content-Length: 100000", body=body)
        for at in range(0, len(said), 999):
            server._connection.sendall(said[at : at + 999])
        server.flush()
        self.reactor.settle()
        self.assert_answered(body)

    def test_large_body(self):
        """A request body that the server takes slowly is sent to its end."""
        self.open()
        self.fetch(b"PUT", body=b"x" * 50_000)
        server = self.accept(room=1000)
        self.assertEqual(server.take()[-50_000:], b"x" * 50_000)
        self.say(server, OK)
        self.assert_answered()

    def test_stalled(self):
        """A server that does not take the request is given up in time."""
        self.open()
        self.fetch(b"PUT", body=b"x" * 50_000)
        server = self.accept()
        self.say(server, OK)
        self.assert_answered()
        self.fetch(b"PUT", body=b"x" * 50_000)
        server.raw.take()
        server.raw.room = 0
        self.reactor.advance(5)
        self.assert_failed(Outcome.RESPONSE_TIMEOUT)


class StreamCase(TlsCase):
    """
    A TLS stream with a receiver of the test's own.
    """

    def connect(self):
        """
        Return an open stream; `receiver` notes what it is told, and `server` is the other end.
        """
        streams = []
        dialer = TlsDialer(self.dialer, "auth.test", Terms([AUTHORITY.certificate]))
        self.securing = dialer.connect([ADDRESS], 5.0, lambda stream, outcome: streams.append(dialer.stream(stream)))
        self.accept()
        (stream,) = streams
        self.receiver = stream.receiver = Receiver()
        stream.start()
        return stream


class Receiver:
    """
    Notes what it is told.
    """

    def __init__(self):
        self.told = []

    def data_received(self, data):
        self.told.append(data)

    def eof_received(self):
        self.told.append("eof")

    def stream_lost(self, error):
        self.told.append(("lost", str(error)))

    def stream_congested(self):
        self.told.append("congested")

    def stream_drained(self):
        self.told.append("drained")

    def deadline_passed(self):
        self.told.append("deadline")


class StreamTests(StreamCase):
    """
    A TLS stream behaves like a plain one.
    """

    def test_conversation(self):
        """What is written is read at the other end, both ways."""
        stream = self.connect()
        stream.write(b"one")
        stream.write(b"two")
        self.assertEqual(self.server.take(), b"onetwo")
        self.say(self.server, b"three")
        self.assertEqual(self.receiver.told, [b"three"])
        self.assertFalse(stream.is_stale())
        self.assertRegex(repr(stream), r"^<TlsStream on <Stream \d+ open held by none, 0 bytes waiting>>$")
        stream.close()
        self.reactor.settle()
        self.assertEqual(self.receiver.told, [b"three", ("lost", "None")])

    def test_held(self):
        """A stream that is held reads nothing until it is freed."""
        stream = self.connect()
        stream.hold(CLIENT_SLOW)
        self.say(self.server, b"x")
        self.assertEqual(self.receiver.told, [])
        self.assertTrue(stream.is_stale())
        stream.free(CLIENT_SLOW)
        self.reactor.settle()
        self.assertEqual(self.receiver.told, [b"x"])
        stream.abort()

    def test_congestion(self):
        """Who writes more than the peer takes is told, and again when all is sent."""
        stream = self.connect()
        self.server.raw.room = 100
        stream.write(b"x" * 10_000)
        self.reactor.settle()
        self.assertTrue(stream.is_congested)
        self.assertEqual(self.receiver.told, ["congested"])
        self.assertEqual(len(self.server.take()), 10_000)
        self.assertFalse(stream.is_congested)
        self.assertEqual(self.receiver.told, ["congested", "drained"])
        stream.abort()

    def test_deadline(self):
        """The deadline is one of the receiver's."""
        stream = self.connect()
        self.assertEqual(stream.deadline, NEVER)
        stream.deadline = stream.now() + 10
        self.assertEqual(stream.deadline, stream.now() + 10)
        self.reactor.advance(10.5)
        self.assertEqual(self.receiver.told, ["deadline"])
        stream.abort()
        self.assertEqual(self.receiver.told, ["deadline", ("lost", "None")])

    def test_closed_from_within(self):
        """What arrives together is told together, and a receiver that closes the stream meanwhile hears of nothing behind it."""
        for end in ("close", "abort"):
            stream = self.connect()
            told = self.receiver.told
            self.receiver.data_received = lambda data, told=told, stream=stream, end=end: (told.append(data), getattr(stream, end)())
            self.server._connection.sendall(b"one")
            self.server._connection.sendall(b"two")
            self.server._connection.shutdown()
            self.server.flush()
            self.reactor.settle()
            self.assertEqual(told, [b"onetwo", ("lost", "None")])

    def test_written_when_closed(self):
        """What is written after the end is ignored."""
        stream = self.connect()
        stream.close()
        stream.write(b"x")
        stream.close()
        self.assertEqual(self.server.take(), b"")
        self.assertTrue(self.server.has_ended)

    def test_last_words(self):
        """A peer that breaks the protocol and does not listen either is not waited for."""
        self.connect()
        self.server.raw.take()
        self.server.raw.room = 0
        self.server.raw.send(b"no TLS record at all")
        self.reactor.settle()
        self.assertEqual(self.receiver.told, [("lost", "bad record type; record layer failure")])
        self.reactor.advance(61)
        self.assertTrue(self.server.raw.has_ended or self.server.was_reset)

    def test_received_when_closed(self):
        """What arrives after the end is ignored."""
        stream = self.connect()
        stream.close()
        stream.data_received(b"no TLS record at all")
        self.reactor.settle()
        self.assertEqual(self.receiver.told, [("lost", "None")])

    def test_farewell(self):
        """After the peer's farewell it is sent what there is to say, but nothing it sends is heard."""
        stream = self.connect()
        self.server._connection.shutdown()
        self.server.flush()
        self.server.raw.send(b"no TLS record at all")
        self.reactor.settle()
        self.server.raw.shutdown(socket.SHUT_WR)
        self.reactor.settle()
        self.assertEqual(self.receiver.told, ["eof"])
        stream.write(b"last words")
        self.assertEqual(self.server.take(), b"last words")
        stream.close()
        self.server.work()
        self.assertTrue(self.server.has_ended)
        self.assertEqual(self.receiver.told, ["eof", ("lost", "None")])

    def test_reset(self):
        """The receiver is told why the stream is gone."""
        self.connect()
        self.server.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.server.raw.close()
        self.reactor.settle()
        self.assertEqual(self.receiver.told, [("lost", "[Errno 104] reset")])

    def test_interfaces(self):
        """Streams, and attempts to make one, are receivers of the plain streams below and of the TLS streams above."""
        stream = self.connect()
        self.assertIsInstance(stream, TlsStream)
        verifyObject(IReceiver, stream)
        self.assertIsInstance(self.securing, _Securing)
        verifyObject(IReceiver, self.securing)
        stream.abort()


def make_stream():
    """
    Return an open TLS stream.
    """
    case = StreamCase()
    case.setUp()
    return case.connect()


class TlsStreamContractTests(receiver_contract(make_stream)):
    """
    `TlsStream` is a receiver.
    """
