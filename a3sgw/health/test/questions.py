"""
What the tests of this room stand on.
"""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.proxy.test.leases import ADDRESS, FakeDialer
from a3sgw.testing import MemoryReactor


class FixedChance:
    """
    In the place of `random.Random`: always says `value`.
    """

    def __init__(self, value=0.5):
        self.value = value

    def random(self):
        return self.value


class FakeQuestion:
    """
    A question that the test answers: `asked` are those under way, `given_up` counts the cancelled ones. With `fault`, asking raises it.
    """

    def __init__(self):
        self.asked = []
        self.given_up = 0
        self.fault = None

    def ask(self):
        if self.fault is not None:
            raise self.fault
        self.asked.append(Deferred(self._give_up))
        return self.asked[-1]

    def answer(self, objection=""):
        self.asked.pop().callback(objection)

    def _give_up(self, asked):
        self.asked.remove(asked)
        self.given_up += 1


class NetworkCase(SynchronousTestCase):
    """
    A network that the test plays. Whatever a test did, nothing must be left of it in the end.
    """

    def setUp(self):
        self.reactor = MemoryReactor()
        self.dialer = FakeDialer(self.reactor)
        # Who owns the dialer decides when there is a sweep.
        self.dialer.deadlines.stop()

    def tearDown(self):
        self.reactor.settle()
        self.assertEqual(self.dialer.attempts, [])
        self.assertEqual(self.dialer.deadlines.watched(), [])
        self.assertEqual(self.reactor.watched(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def accept(self):
        """
        Let the oldest connection attempt succeed; return the server's end.
        """
        if self.dialer.questions:
            self.dialer.answer(ADDRESS)
        peer = self.dialer.attempts[0].succeed()
        self.reactor.settle()
        return peer

    def refuse(self):
        """
        Let the oldest connection attempt fail.
        """
        if self.dialer.questions:
            self.dialer.answer(ADDRESS)
        self.dialer.attempts[0].fail()
        self.reactor.settle()

    def say(self, peer, data):
        """
        Send `data` from the server's end and let things happen.
        """
        peer.send(data)
        self.reactor.settle()
