"""
A real reactor that a test turns by hand.
"""

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.net.deadline import Deadlines
from a3sgw.net.reactor import GatewayReactor


class LoopCase(SynchronousTestCase):
    """
    A test case with a `GatewayReactor` that is not the global one. Deadlines are kept on `clock`, so that no test waits for them.
    """

    def setUp(self):
        self.reactor = GatewayReactor()
        self.addCleanup(self.dispose)
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, self.clock.seconds)
        self.deadlines.start()

    def dispose(self):
        self.reactor.runUntilCurrent()
        left = self.reactor.removeAll()
        for internal in list(self.reactor._internalReaders):
            internal.connectionLost(None)
        self.reactor._poller.close()
        self.assertEqual(left, [], "something is still registered")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def turn(self, seconds=0.0):
        """
        Turn the reactor once, waiting at most `seconds` for an event.
        """
        self.reactor.runUntilCurrent()
        self.reactor.doIteration(seconds)

    def turn_until(self, is_done):
        """
        Turn the reactor until `is_done` says so.
        """
        for _ in range(200):
            if is_done():
                return
            self.turn(0.05)
        self.fail("it never happened")

    def pair(self):
        """
        Return two connected non-blocking sockets, which are closed in the end.
        """
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
            self.addCleanup(end.close)
        return ends

    def listen(self, backlog=16):
        """
        Return a listening loopback socket and its address.
        """
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        return listening, listening.getsockname()
