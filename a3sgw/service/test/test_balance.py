"""
Tests of the strategies for choosing a backend.
"""

import time
from collections import Counter
from random import Random as Chance

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer, IBalancerFactory
from a3sgw.observe.record import Record
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.balance import STRATEGIES, RoundRobin, RoundRobinFactory, StrategyFactory
from a3sgw.service.balance_hash import ConsistentHash
from a3sgw.service.balance_latency import LeastTime
from a3sgw.service.balance_least import LeastConnections
from a3sgw.service.balance_random import PowerOfTwo, Random
from a3sgw.service.balance_weighted import Weighted
from a3sgw.service.roster import BalancerSettings, Clockwork
from a3sgw.service.test.servers import record, servers
from a3sgw.testing import balancer_contract

ADDRESS = BackendAddress("http", "192.0.2.1", 80, "", b"", b"test")


def backends(count):
    """
    Return that many backends.
    """
    return [Backend("app", f"http://192.0.2.{number}", ADDRESS, 1) for number in range(count)]


class RoundRobinContractTests(balancer_contract(RoundRobin)):
    """
    `RoundRobin` is a balancer.
    """


class RoundRobinTests(SynchronousTestCase):
    """
    `RoundRobin` chooses each in turn.
    """

    def choose(self, candidates, times):
        return [self.balancer.choose(candidates, Record()) for _ in range(times)]

    def make(self, count):
        everybody = backends(count)
        self.balancer = RoundRobin(everybody)
        verifyObject(IBalancer, self.balancer)
        return everybody

    def test_turns(self):
        """Everybody has a turn, in configured order, again and again."""
        everybody = self.make(3)
        self.assertEqual(self.choose(everybody, 7), [*everybody, *everybody, everybody[0]])

    def test_one(self):
        """A single backend always has its turn."""
        everybody = self.make(1)
        self.assertEqual(self.choose(everybody, 3), everybody * 3)

    def test_turn_goes_on(self):
        """When candidates come and go the turn goes on behind the last one chosen, and does not begin anew."""
        one, two, three, four = everybody = self.make(4)
        self.assertEqual(self.choose(everybody, 2), [one, two])
        self.assertEqual(self.choose([one, two, four], 1), [four])
        self.assertEqual(self.choose(everybody, 1), [one])
        self.assertEqual(self.choose([one, three], 3), [three, one, three])
        self.assertEqual(self.choose(everybody, 2), [four, one])

    def test_retries_do_not_skew(self):
        """When one backend fails and every failure goes to the next, those that work share its load evenly over time."""
        everybody = self.make(3)
        served = Counter()
        for _ in range(300):
            chosen = self.balancer.choose(everybody, Record())
            if chosen is everybody[0]:
                chosen = self.balancer.choose(everybody[1:], Record())
            served[chosen] += 1
        self.assertEqual(served, {everybody[1]: 150, everybody[2]: 150})

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.integers(1, 6), st.data())
    def test_fair(self, count, data):
        """However candidates come and go before, each of those that stay is chosen equally often."""
        everybody = self.make(count)
        for numbers in data.draw(st.lists(st.sets(st.integers(0, count - 1), min_size=1), max_size=5)):
            self.choose([everybody[number] for number in sorted(numbers)], data.draw(st.integers(1, 7)))
        staying = [everybody[number] for number in sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))]
        self.assertEqual(Counter(self.choose(staying, 3 * len(staying))), dict.fromkeys(staying, 3))


class StrategiesTests(SynchronousTestCase):
    """
    `STRATEGIES` is the catalog.
    """

    def test_catalog(self):
        """Each strategy stands under its own name and builds a balancer of its own."""
        self.assertEqual(
            {name: type(factory.build(backends(2))) for name, factory in STRATEGIES.items()},
            {
                "round-robin": RoundRobin,
                "weighted": Weighted,
                "least-connections": LeastConnections,
                "random": Random,
                "p2c": PowerOfTwo,
                "least-time": LeastTime,
                "consistent-hash": ConsistentHash,
            },
        )
        for name, factory in STRATEGIES.items():
            verifyObject(IBalancerFactory, factory)
            self.assertEqual(factory.strategy, name)
            verifyObject(IBalancer, factory.build(backends(2)))
        self.assertIsInstance(STRATEGIES["round-robin"], RoundRobinFactory)
        self.assertIsInstance(STRATEGIES["weighted"], StrategyFactory)

    def test_listener(self):
        """Only the strategy that goes by time wants to be told of attempts."""
        wanting = {name for name, factory in STRATEGIES.items() if hasattr(factory.build(backends(1)), "attempt_ended")}
        self.assertEqual(wanting, {"least-time"})

    def test_slow_start(self):
        """Every strategy gives a server that has just become usable less than its share, if it is told to."""
        for name, factory in STRATEGIES.items():
            everybody = servers(1, 1)
            # For as long as any test takes.
            everybody[1].usable_since = time.monotonic() + 1000.0
            if isinstance(factory, StrategyFactory):
                factory = attrs.evolve(factory, clockwork=Clockwork(time.monotonic, Chance(1)))
            balancer = factory.build(everybody, BalancerSettings(slow_start=60.0, hash_source="path"))
            candidates = tuple(everybody)
            for number in range(440):
                server = balancer.choose(candidates, record(path=b"/%d" % number))
                server.acquire()
            self.assertApproximates(everybody[1].in_flight, 40, 20, name)

    def test_slow_start_in_turn(self):
        """Round-robin with slow start still knows no weights."""
        everybody = servers(1, 3, 0)
        balancer = STRATEGIES["round-robin"].build(everybody, BalancerSettings(slow_start=60.0))
        self.assertEqual([balancer.choose(tuple(everybody), Record()) for _ in range(6)], everybody * 2)

    def test_no_slow_start(self):
        """Without slow start it does not matter how long a server has been usable."""
        everybody = servers(1, 1)
        everybody[1].usable_since = time.monotonic() + 1000.0
        balancer = STRATEGIES["weighted"].build(everybody)
        chosen = [balancer.choose(tuple(everybody), Record()) for _ in range(4)]
        self.assertEqual(chosen, [*everybody, *everybody])

    def test_shared_chance(self):
        """Two services do not go through the same sequence of random choices."""
        everybody = backends(10)
        one, other = (STRATEGIES["random"].build(everybody) for _ in range(2))
        self.assertNotEqual(*([balancer.choose(everybody, Record()) for _ in range(40)] for balancer in (one, other)))
