"""
Tests of UDP sockets as descriptors, on real sockets of the loopback interface.
"""

import errno
import socket

from a3sgw.errors import AssemblyError
from a3sgw.net.datagram import MAX_DATAGRAM, DatagramLink, DatagramPort, adopt_datagrams, bind_datagrams
from a3sgw.net.test.loops import LoopCase


class DatagramCase(LoopCase):
    """
    A loop, and sockets that are closed in the end.
    """

    def peer(self, host="127.0.0.1"):
        """
        Return a plain UDP socket bound to `host`.
        """
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.settimeout(5)
        sock.bind((host, 0))
        return sock

    def port(self, host="127.0.0.1", received=None):
        """
        Return a port that listens, its number, and what it has received: pairs of data and origin.
        """
        sock = bind_datagrams("dns", host, 0)
        heard = []
        port = DatagramPort(sock, self.reactor, received or (lambda view, origin: heard.append((bytes(view), origin))))
        self.addCleanup(port.close)
        port.start()
        return port, sock.getsockname()[1], heard


class PortTests(DatagramCase):
    """
    A socket to which anybody sends.
    """

    def test_answer(self):
        """Datagrams arrive with their origin, the empty and the largest too, and answers go back there."""
        port, number, heard = self.port()
        peer = self.peer()
        for data in (b"question", b"", bytes(65507)):
            peer.sendto(data, ("127.0.0.1", number))
            self.turn_until(lambda: heard)
            got, origin = heard.pop()
            self.assertEqual((got, port.peer_of(origin)), (data, peer.getsockname()))
            port.send(b"answer", port.way_back(origin))
            self.assertEqual(peer.recvfrom(100), (b"answer", ("127.0.0.1", number)))
        self.assertLess(65507, MAX_DATAGRAM)

    def test_local_address(self):
        """A port for every address answers from the one that was spoken to, whichever family, and tells those apart."""
        for host, spoken in (("", ["127.0.0.1", "127.0.0.2", "::1"]), ("0.0.0.0", ["127.0.0.1", "127.0.0.2"])):
            self.check_local(host, spoken)

    def check_local(self, host, spoken):
        port, number, heard = self.port(host)
        for to in spoken:
            peer = self.peer("::1" if ":" in to else "127.0.0.1")
            peer.sendto(b"x", (to, number))
            self.turn_until(lambda: heard)
            _, origin = heard.pop()
            port.send(b"y", port.way_back(origin))
            data, sender = peer.recvfrom(100)
            self.assertEqual((data, sender[0]), (b"y", to))
        peer = self.peer()
        for to in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
            peer.sendto(b"x", (to, number))
        self.turn_until(lambda: len(heard) == 3)
        self.assertEqual(len({origin for _, origin in heard}), 2)
        port.close()

    def test_flood(self):
        """A flood is read in bounded bites, so that others have their turn; nothing is lost that the kernel has kept."""
        _, number, heard = self.port()
        peer = self.peer()
        for _ in range(5):
            for each in range(200):
                peer.sendto(b"%d" % each, ("127.0.0.1", number))
            seen = 0
            while len(heard) < 200:
                self.turn(1)
                self.assertTrue(0 < len(heard) - seen <= 64, (seen, len(heard)))
                seen = len(heard)
            self.assertEqual([data for data, _ in heard], [b"%d" % each for each in range(200)])
            heard.clear()

    def test_bug(self):
        """A receiver that fails is reported and costs its datagram only."""
        calls = []

        def fail(view, origin):
            calls.append(bytes(view))
            raise ValueError(view)

        _, number, _ = self.port(received=fail)
        peer = self.peer()
        for _ in range(3):
            peer.sendto(b"x", ("127.0.0.1", number))
        self.turn_until(lambda: len(calls) == 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

    def test_closed_meanwhile(self):
        """A receiver may close the port; what has not been read is nobody's any more."""
        heard = []

        def close(view, origin):
            heard.append(bytes(view))
            port.close()

        port, number, _ = self.port(received=close)
        peer = self.peer()
        for _ in range(3):
            peer.sendto(b"x", ("127.0.0.1", number))
        self.turn_until(lambda: heard)
        self.turn()
        port.close()
        port.receive()
        self.assertEqual((heard, port.fileno()), ([b"x"], -1))

    def test_stopped(self):
        """A port that has stopped hears nothing and still answers; what comes is kept for whoever shares the socket, or for later."""
        port, number, heard = self.port()
        peer = self.peer()
        peer.sendto(b"x", ("127.0.0.1", number))
        self.turn_until(lambda: heard)
        port.stop()
        port.stop()
        peer.sendto(b"y", ("127.0.0.1", number))
        self.turn()
        self.assertEqual(len(heard), 1)
        _, origin = heard[0]
        port.send(b"answer", port.way_back(origin))
        self.assertEqual(peer.recvfrom(100), (b"answer", ("127.0.0.1", number)))
        port.start()
        self.turn_until(lambda: len(heard) == 2)
        self.assertEqual(heard[1][0], b"y")

    def test_adopted(self):
        """A socket that somebody else has bound is made fit."""
        plain = self.peer()
        before = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.assertIs(adopt_datagrams(plain), plain)
        self.assertFalse(plain.getblocking())
        self.assertGreaterEqual(plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), before)

    def test_adopted_with_more(self):
        """If it has more room than ours would have, that stays."""
        for asked, kept in ((30_000, 60_000), (10_000, 40_000)):
            plain = self.peer()
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, asked)
            adopt_datagrams(plain, room=20_000)
            self.assertEqual(plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), kept)

    def test_error(self):
        """An error that the reactor reports does not stop a port that is open."""
        port, number, heard = self.port()
        self.reactor.removeReader(port)
        port.connectionLost(None)
        self.peer().sendto(b"x", ("127.0.0.1", number))
        self.turn_until(lambda: heard)
        port.close()
        port.connectionLost(None)
        self.assertEqual(port.fileno(), -1)

    def test_bind(self):
        """A port that is taken is refused with the entrypoint and the address, unless both want to share it."""
        first = bind_datagrams("dns", "127.0.0.1", 0, shares=True)
        self.addCleanup(first.close)
        number = first.getsockname()[1]
        self.addCleanup(bind_datagrams("dns", "127.0.0.1", number, shares=True).close)
        error = self.assertRaises(AssemblyError, bind_datagrams, "dns", "127.0.0.1", number)
        self.assertIn(f'entrypoint "dns" cannot listen on 127.0.0.1:{number}/udp: Address already in use; stop the process', str(error))
        error = self.assertRaises(AssemblyError, bind_datagrams, "dns", "2001:db8::1", 53)
        self.assertIn('entrypoint "dns" cannot listen on [2001:db8::1]:53/udp: ', str(error))
        error = self.assertRaises(AssemblyError, bind_datagrams, "dns", "no.such.host.invalid", 53)
        self.assertIn("cannot listen on no.such.host.invalid:53/udp", str(error))


class LinkTests(DatagramCase):
    """
    A socket connected to one peer.
    """

    def link(self, address):
        """
        Return a started link to `address`, what it has received and its errors.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.connect(address)
        heard, errors = [], []
        link = DatagramLink(sock, self.reactor, lambda view: heard.append(bytes(view)), errors.append)
        self.addCleanup(link.close)
        link.start()
        return link, heard, errors

    def test_both_ways(self):
        """Datagrams go both ways, and nobody else is heard."""
        peer, stranger = self.peer(), self.peer()
        link, heard, errors = self.link(peer.getsockname())
        link.send(b"there")
        data, address = peer.recvfrom(100)
        stranger.sendto(b"strange", address)
        for each in range(100):
            peer.sendto(b"%d" % each, address)
        self.turn_until(lambda: len(heard) == 100)
        self.assertEqual((data, heard, errors), (b"there", [b"%d" % each for each in range(100)], []))

    def test_refused(self):
        """That nobody is at the other port is told once, whether the reactor finds out or the next attempt to send."""
        peer = self.peer()
        address = peer.getsockname()
        peer.close()
        link, heard, errors = self.link(address)
        link.send(b"x")
        self.turn_until(lambda: errors)
        self.assertEqual((heard, errors), ([], [errno.ECONNREFUSED]))
        link, heard, errors = self.link(address)
        link.send(b"x")
        self.assertRaises(ConnectionRefusedError, link.send, b"y")

    def test_error_already_told(self):
        """An error that an attempt to send was told already is not told again, and the link goes on."""
        peer = self.peer()
        link, heard, errors = self.link(peer.getsockname())
        self.reactor.removeReader(link)
        link.connectionLost(None)
        link.send(b"x")
        peer.sendto(b"y", peer.recvfrom(10)[1])
        self.turn_until(lambda: heard)
        self.assertEqual(errors, [])
        link.close()
        link.connectionLost(None)
        link.receive()
        self.assertEqual((link.fileno(), errors), (-1, []))
