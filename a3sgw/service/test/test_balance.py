"""
Tests of the strategies for choosing a backend.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer, IBalancerFactory
from a3sgw.observe.record import Record
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.balance import STRATEGIES, RoundRobin, RoundRobinFactory
from a3sgw.testing import balancer_contract

ADDRESS = BackendAddress("http", "192.0.2.1", 80, "", b"", b"test")


def backends(count):
    """
    Return that many backends.
    """
    return [Backend("app", f"http://192.0.2.{number}", ADDRESS, 1) for number in range(count)]


class RoundRobinContractTests(balancer_contract(RoundRobin)):  # type: ignore[misc]
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
        """Each strategy stands under its own name and builds a balancer."""
        self.assertIsInstance(STRATEGIES["round-robin"], RoundRobinFactory)
        for name, factory in STRATEGIES.items():
            verifyObject(IBalancerFactory, factory)
            self.assertEqual(factory.strategy, name)
            verifyObject(IBalancer, factory.build(backends(2)))
