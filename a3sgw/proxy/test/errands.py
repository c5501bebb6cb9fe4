"""
What the tests of errands stand on.
"""

import socket

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import UpstreamError
from a3sgw.message import LocalResponse
from a3sgw.proxy.outbound import Outbound
from a3sgw.proxy.test.leases import ADDRESS, FakeDialer
from a3sgw.service.balance import RoundRobin
from a3sgw.service.group import Group
from a3sgw.service.service import Service, ServiceSettings, Traits
from a3sgw.testing import MemoryReactor

RESET = b"\1\0\0\0\0\0\0\0"


class OutboundCase(SynchronousTestCase):
    """
    A way out without a network. Whatever a test did, nothing must be left of it in the end.
    """

    def setUp(self):
        self.reactor = MemoryReactor()
        self.dialer = FakeDialer(self.reactor)
        self.outbound = self.make_outbound()
        self.opened = []

    def make_outbound(self):
        return Outbound(self.dialer, self.reactor)

    def tearDown(self):
        self.assert_clean()

    def assert_clean(self):
        """
        Close what was opened, and fail if anything is left.
        """
        for destination in self.opened:
            destination.close()
        self.opened = []
        self.reactor.settle()
        self.assertEqual(self.dialer.attempts, [])
        self.assertEqual(self.dialer.deadlines.watched(), [])
        self.assertEqual(self.reactor.watched(), [])
        # All that is left is the sweep.
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    URL = "http://auth.test/ignored?too"

    def open(self, url=None):
        self.destination = self.outbound.open(url or self.URL)
        self.opened.append(self.destination)
        return self.destination

    def fetch(self, method=b"GET", target=b"/", fields=(), *, body=b"", timeout=5.0, max_body_bytes=1000):
        """
        Begin to ask. What comes of it will be the one element of `told`.
        """
        self.asked = self.destination.fetch(method, target, fields, body=body, timeout=timeout, max_body_bytes=max_body_bytes)
        self.told = []
        self.asked.addBoth(self.told.append)
        self.reactor.settle()
        return self.asked

    def cuts(self, said):
        """
        Return where to cut `said`: nothing, everything, and all between.
        """
        return range(len(said) + 1)

    def accept(self, *, room=1 << 20):
        """
        Let the connection attempt succeed; return the server's end, which has room for so many bytes.
        """
        if self.dialer.questions:
            self.dialer.answer(ADDRESS)
        peer = self.dialer.attempts[-1].succeed()
        peer.room = room
        self.reactor.settle()
        return peer

    def say(self, peer, data):
        """
        Send `data` from the server's end, if it is any, and let things happen.
        """
        if data:
            peer.send(data)
        self.reactor.settle()

    def leave(self, peer, *, resets=False):
        """
        Close the server's end, having read everything, and let things happen.
        """
        self.close(peer, resets=resets)
        self.reactor.settle()

    def close(self, peer, *, resets=False):
        """
        Close the server's end, having read everything. Nobody notices yet.
        """
        peer.take()
        if resets:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()

    def assert_answered(self, body=b"ok", status=200):
        """
        Fail unless there was an answer; return it.
        """
        (answer,) = self.told
        self.assertIsInstance(answer, LocalResponse, repr(answer))
        self.assertEqual((answer.status, answer.body), (status, body))
        return answer

    def assert_failed(self, outcome, pattern="^"):
        """
        Fail unless asking failed for the reason `outcome`.
        """
        (failure,) = self.told
        self.assertIsInstance(failure, Failure, repr(failure))
        self.assertIsInstance(failure.value, UpstreamError)
        self.assertEqual(failure.value.outcome, outcome)
        self.assertRegex(failure.value.detail, pattern)

    def assert_cancelled(self):
        """
        Fail unless asking was cancelled.
        """
        (failure,) = self.told
        self.assertIsInstance(failure.value, CancelledError)


class Turns(RoundRobin):
    """
    Chooses each server in turn, unless `is_broken`.
    """

    is_broken = False

    def choose(self, candidates, record):
        if self.is_broken:
            raise ZeroDivisionError
        return super().choose(candidates, record)


def make_service(backends=(), traits=Traits(), **settings):  # noqa: B008
    """
    Return a service of `backends` that has nothing to do with a configuration.
    """
    clock = Clock()
    group = Group(backends, Turns(backends))
    service = Service("app", "turns", [group], ServiceSettings(**settings), clock.seconds, clock.callLater, traits)
    service.begin({})
    return service
