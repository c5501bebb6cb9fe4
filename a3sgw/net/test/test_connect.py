"""
Tests of connecting, with sockets of this machine.
"""

import os
import socket
import tempfile

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.net.connect import Connecting, Dialer, _Addresses
from a3sgw.net.stream import Stream
from a3sgw.net.test.loops import LoopCase
from a3sgw.net.test.receivers import Notes


@implementer(IHostnameResolver)
class Resolver:
    """
    A resolver that knows what it was told, and keeps the receiver of every other name.
    """

    def __init__(self, known):
        self.known = known
        self.receivers = []

    def resolveHostName(self, resolutionReceiver, hostName, portNumber=0, addressTypes=None, transportSemantics="TCP"):
        resolutionReceiver.resolutionBegan(None)
        self.receivers.append(resolutionReceiver)
        for address in self.known.get(hostName, ()):
            resolutionReceiver.addressResolved(address)
        if hostName in self.known:
            resolutionReceiver.resolutionComplete()


class ConnectCase(LoopCase):
    """
    `connect` begins an attempt; `done` is what was reported.
    """

    def setUp(self):
        super().setUp()
        self.done = []
        self.dialer = Dialer(self.reactor, self.reactor.flushes, self.deadlines)

    def tearDown(self):
        for sock, _ in self.done:
            if sock is not None:
                sock.close()
        self.assertEqual(self.deadlines.watched(), [])

    def connect(self, *addresses, deadline=100.0):
        attempt = self.dialer.connect(addresses, deadline, lambda *result: self.done.append(result))
        self.assertEqual(self.done, [], "reported before `connect` returned")
        return attempt

    def wait(self):
        self.turn_until(lambda: self.done)
        self.turn()
        (result,) = self.done
        return result

    def refusing(self):
        """
        Return an address where nobody listens.
        """
        listening, address = self.listen()
        listening.close()
        return (socket.AF_INET, address)

    def silent(self):
        """
        Return an address that neither accepts nor refuses, because its queue is full.
        """
        _, address = self.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            self.addCleanup(filler.close)
        return (socket.AF_INET, address)

    def assert_connected(self, listening):
        sock, outcome = self.wait()
        self.assertIsNone(outcome)
        peer, _ = listening.accept()
        self.addCleanup(peer.close)
        self.assertFalse(sock.getblocking())
        sock.send(b"x")
        self.assertEqual(peer.recv(10), b"x")
        return sock


class ConnectingTests(ConnectCase):
    """
    `Connecting` reports a connected socket, or why there is none.
    """

    def test_connected(self):
        """An address where somebody listens gives a connected socket that does not delay small pieces."""
        listening, address = self.listen()
        attempt = self.connect((socket.AF_INET, address))
        sock = self.assert_connected(listening)
        self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
        self.assertEqual(attempt.fileno(), -1)
        self.assertEqual(repr(attempt), "<Connecting -1, 0 addresses left>")

    def test_refused(self):
        """An address where nobody listens is refused."""
        self.connect(self.refusing())
        self.assertEqual(self.wait(), (None, Outcome.CONNECT_REFUSED))

    def test_several_addresses(self):
        """Addresses are tried in order until one answers."""
        listening, address = self.listen()
        self.connect(self.refusing(), (99, None), self.refusing(), (socket.AF_INET, address), self.refusing())
        self.assert_connected(listening)

    def test_all_refused(self):
        """When no address answers, the last one's reason is reported."""
        self.connect((99, None), self.refusing())
        self.assertEqual(self.wait(), (None, Outcome.CONNECT_REFUSED))
        self.done.clear()
        self.connect(self.refusing(), (99, None))
        self.assertEqual(self.wait(), (None, Outcome.CONNECT_FAILED))

    def test_no_address(self):
        """An attempt without any address fails, but not before it has begun."""
        self.connect()
        self.assertEqual(self.wait(), (None, Outcome.CONNECT_FAILED))

    def test_timeout(self):
        """An address that does not answer within the time limit is given up."""
        attempt = self.connect(self.silent(), deadline=5.0)
        for _ in range(3):
            self.turn()
        self.clock.pump([0.5] * 9)
        self.assertEqual(self.done, [])
        self.assertGreaterEqual(attempt.fileno(), 0)
        self.clock.pump([0.5] * 2)
        self.assertEqual(self.wait(), (None, Outcome.CONNECT_TIMEOUT))
        self.assertEqual(attempt.fileno(), -1)

    def test_cancelled(self):
        """An attempt that is cancelled reports nothing, whether it hangs, succeeds or fails meanwhile."""
        _listening, address = self.listen()
        for target in (self.silent(), (socket.AF_INET, address), self.refusing(), (99, None)):
            attempt = self.connect(target)
            attempt.cancel()
            self.assertEqual(attempt.fileno(), -1)
            for _ in range(3):
                self.turn()
        self.assertEqual(self.done, [])

    def test_unix(self):
        """A Unix domain socket is connected to by its path."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "backend")
            listening = socket.socket(socket.AF_UNIX)
            self.addCleanup(listening.close)
            listening.bind(path)
            listening.listen()
            self.connect(self.dialer.unix_address(path))
            self.assert_connected(listening)

    def test_unix_without_listener(self):
        """A path that is missing, or where nobody listens any more, is refused like a port where nobody listens."""
        with tempfile.TemporaryDirectory() as folder:
            missing = os.path.join(folder, "missing")
            left = os.path.join(folder, "left")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(left)
            for path in (missing, left):
                self.done.clear()
                self.connect(self.dialer.unix_address(path))
                self.assertEqual(self.wait(), (None, Outcome.CONNECT_REFUSED))

    def test_unix_path_too_long(self):
        """A path longer than the system can connect to is a failed attempt like any other."""
        self.connect(self.dialer.unix_address("/" + "x" * 200))
        self.assertEqual(self.wait(), (None, Outcome.CONNECT_FAILED))


class DialerTests(ConnectCase):
    """
    `Dialer` finds addresses and makes streams.
    """

    def resolve(self, host, known=()):
        resolver = Resolver(dict(known))
        verifyObject(IHostnameResolver, resolver)
        self.reactor.installNameResolver(resolver)
        found = []
        self.dialer.resolve(host, 80, found.append)
        return found, resolver

    def test_literal_addresses(self):
        """An address in a URL is taken as it is, at once, without asking anybody."""
        for host, address in [
            ("192.0.2.1", (socket.AF_INET, ("192.0.2.1", 80))),
            ("2001:db8::1", (socket.AF_INET6, ("2001:db8::1", 80, 0, 0))),
        ]:
            found, resolver = self.resolve(host)
            self.assertEqual(found, [[address]])
            self.assertEqual(resolver.receivers, [])

    def test_name(self):
        """A name gives all its TCP addresses in the resolver's order."""
        addresses = [IPv6Address("TCP", "2001:db8::1", 80), IPv4Address("UDP", "192.0.2.9", 80), IPv4Address("TCP", "192.0.2.1", 80)]
        found, _ = self.resolve("app.test", {"app.test": addresses})
        self.assertEqual(found, [[(socket.AF_INET6, ("2001:db8::1", 80, 0, 0)), (socket.AF_INET, ("192.0.2.1", 80))]])

    def test_unknown_name(self):
        """A name without addresses gives none."""
        self.assertEqual(self.resolve("app.test", {"app.test": []})[0], [[]])

    def test_receiver(self):
        """What collects addresses is what resolvers expect."""
        verifyObject(IResolutionReceiver, _Addresses(80, lambda found: None))

    def test_stream(self):
        """A connected socket becomes a stream on the dialer's reactor."""
        ours, theirs = self.pair()
        stream = self.dialer.stream(ours)
        self.assertIsInstance(stream, Stream)
        stream.receiver = Notes()
        stream.write(b"x")
        self.turn()
        self.assertEqual(theirs.recv(10), b"x")
        stream.abort()

    def test_later(self):
        """What is to happen later does not happen now."""
        story = []
        self.dialer.later(story.append, "later")
        self.assertEqual(story, [])
        self.turn()
        self.assertEqual(story, ["later"])

    def test_attempt(self):
        """An attempt says where it stands."""
        attempt = self.connect(self.silent(), self.silent())
        self.assertIsInstance(attempt, Connecting)
        self.assertEqual(repr(attempt), f"<Connecting {attempt.fileno()}, 1 addresses left>")
        attempt.cancel()
