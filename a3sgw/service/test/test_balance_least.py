"""
Tests of the strategy of fewest connections.
"""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer
from a3sgw.observe.record import Record
from a3sgw.service.balance_least import LeastConnections
from a3sgw.service.test.servers import Clock, InForce, choose, make, servers
from a3sgw.testing import balancer_contract


class LeastConnectionsContractTests(balancer_contract(lambda backends: make(LeastConnections, backends))):
    """
    `LeastConnections` is a balancer.
    """


class LeastConnectionsInForceContractTests(balancer_contract(lambda backends: InForce(make(LeastConnections, backends)))):
    """
    `LeastConnections` is one when it knows its candidates.
    """


class LeastConnectionsTests(SynchronousTestCase):
    """
    `LeastConnections` chooses who is least busy for its weight.
    """

    def fill(self, balancer, candidates, times):
        """
        Begin so many exchanges.
        """
        for _ in range(times):
            balancer.choose(candidates, Record()).acquire()

    def test_choice(self):
        """The exchange in question counts, and what is in flight is divided by the weight."""
        for weights, in_flight, chosen in (
            ((1, 1), (3, 2), 1),
            ((1, 2), (0, 0), 1),
            ((1, 2), (0, 2), 0),
            ((2, 1), (2, 0), 1),
            ((1, 0), (9, 0), 0),
            ((0, 0), (1, 0), 1),
        ):
            everybody = servers(*weights)
            for server, count in zip(everybody, in_flight, strict=True):
                server.in_flight = count
            balancer = make(LeastConnections, everybody)
            verifyObject(IBalancer, balancer)
            for candidates in (everybody, tuple(everybody)):
                self.assertEqual(balancer.choose(candidates, Record()), everybody[chosen], f"{weights} {in_flight}")

    def test_proportion(self):
        """What is in flight comes to be in proportion to the weights, among few servers and among many."""
        for size in (2, 40):
            everybody = servers(*(1 + number % 4 for number in range(size)))
            self.fill(make(LeastConnections, everybody), tuple(everybody), 10 * sum(server.weight for server in everybody))
            self.assertEqual([server.in_flight for server in everybody], [10 * server.weight for server in everybody])

    def test_turns_go_on(self):
        """When candidates come and go, the turn among equals goes on behind the last one chosen."""
        for size in (4, 40):
            everybody = servers(*[1] * size)
            balancer = make(LeastConnections, everybody)
            self.assertEqual(choose(balancer, tuple(everybody), 2), everybody[:2])
            self.assertEqual(choose(balancer, [*everybody[:2], *everybody[3:]], 1), [everybody[3]])
            self.assertEqual(choose(balancer, tuple(everybody[:2]), 3), [everybody[0], everybody[1], everybody[0]])
            self.assertEqual(choose(balancer, tuple(everybody), 1), [everybody[1]])

    def test_retry(self):
        """A retry goes to the least busy of the others, and what is in force stays right."""
        everybody = servers(*[1] * 40)
        balancer = make(LeastConnections, everybody)
        candidates = tuple(everybody)
        self.fill(balancer, candidates, 39)
        balancer.choose([server for server in everybody if server.in_flight], Record()).acquire()
        self.assertEqual(Counter(server.in_flight for server in everybody), {1: 38, 2: 1, 0: 1})
        self.fill(balancer, candidates, 40)
        self.assertEqual({server.in_flight for server in everybody}, {2})

    def test_recovered(self):
        """A server that comes back is given exchanges until it is as busy as the others."""
        everybody = servers(*[1] * 40)
        balancer = make(LeastConnections, everybody)
        self.fill(balancer, tuple(everybody[1:]), 39 * 3)
        candidates = tuple(everybody)
        self.assertEqual(choose(balancer, candidates, 1), [everybody[0]])
        self.fill(balancer, candidates, 3)
        self.assertEqual({server.in_flight for server in everybody}, {3})

    def test_slow_start(self):
        """A new server takes a tenth of its load at first, and the whole in the end."""
        for size in (2, 40):
            clock = Clock()
            everybody = servers(*[1] * size)
            candidates = tuple(everybody)
            everybody[0].usable_since = clock.now
            balancer = make(LeastConnections, everybody, clock, slow_start=10.0)
            self.fill(balancer, candidates, 20 * size)
            self.assertApproximates(everybody[0].in_flight, 2, 1)
            clock.now += 5.0
            self.fill(balancer, candidates, 20 * size)
            self.assertApproximates(everybody[0].in_flight, 20 if size > 2 else 26, 2)
            clock.now += 5.0
            self.fill(balancer, candidates, 20 * size)
            self.assertEqual({server.in_flight for server in everybody}, {60})
