"""
Tests of streams whose peer may vanish without a word.
"""

import socket

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.net.deadline import Deadlines
from a3sgw.net.stream import Stream
from a3sgw.testing import MemoryReactor


class KeepAliveTests(SynchronousTestCase):
    """
    The kernel asks whether the peer is there.
    """

    def stream(self, sock):
        self.addCleanup(sock.close)
        reactor = MemoryReactor()
        return Stream(sock, reactor, reactor.flushes, Deadlines(reactor, reactor.seconds))

    def test_tcp(self):
        """It asks after a minute of silence, and gives up after four questions."""
        sock = socket.socket()
        self.stream(sock).keep_alive()
        self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        self.assertEqual([sock.getsockopt(socket.IPPROTO_TCP, option) for option in options], [60, 15, 4])

    def test_unix(self):
        """Over a Unix domain socket there is nothing to ask, and no trouble."""
        self.stream(socket.socket(socket.AF_UNIX)).keep_alive()
