"""
Tests of TLS over a stream that need no TLS; the others are with those who speak it, `listen.tls` and `proxy.outbound_tls`.
"""

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.net.deadline import Deadlines
from a3sgw.net.stream import Stream
from a3sgw.net.tls_stream import TlsStream
from a3sgw.testing import MemoryReactor, MemorySocket


class Provoked:
    """
    A connection on which every byte provokes an alert, and nothing else ever comes.
    """

    def __init__(self):
        self.alerts = []

    def do_handshake(self):
        pass

    def bio_write(self, data):
        self.alerts.append(bytes(31))

    def bio_read(self, size):
        if not self.alerts:
            raise SSL.WantReadError
        return self.alerts.pop()

    def recv(self, size):
        raise SSL.WantReadError

    def sendall(self, data):
        raise ZeroDivisionError

    def shutdown(self):
        pass


class Receiver:
    """
    Remembers why the stream was lost.
    """

    def __init__(self):
        self.losses = []

    def stream_lost(self, error):
        self.losses.append(error)


class TlsStreamTests(SynchronousTestCase):
    """
    What a stream does about peers and libraries that behave badly.
    """

    def setUp(self):
        self.reactor = MemoryReactor()
        ours, self.peer = MemorySocket.pair(10)
        self.reactor.sockets[ours.fileno()] = ours
        raw = Stream(ours, self.reactor, self.reactor.flushes, Deadlines(self.reactor, self.reactor.seconds))
        self.stream = TlsStream(raw, Provoked(), lambda connection: None, lambda: None, lingers=True)
        self.stream.receiver = self.receiver = Receiver()
        raw.start()
        self.stream.shake_hands()

    def test_provoked(self):
        """A peer that provokes one alert after the other is let go before they pile up."""
        sent = 0
        while not self.receiver.losses and sent < 2000:
            sent += 1
            self.peer.send(b"x")
            self.reactor.settle()
        self.assertTrue(500 < sent < 600, sent)
        self.assertIn("one alert after the other", str(self.receiver.losses[0]))
        self.assertTrue(self.peer.has_ended)

    def test_bug_while_encrypting(self):
        """A bug that shows when something is encrypted costs the connection, and its receiver is told."""
        self.stream.write(b"x")
        self.reactor.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(self.receiver.losses[0], ZeroDivisionError)
        self.assertEqual(len(self.receiver.losses), 1)
