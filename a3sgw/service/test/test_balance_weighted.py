"""
Tests of smooth weighted round-robin.
"""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer
from a3sgw.observe.record import Record
from a3sgw.service.balance_weighted import Weighted
from a3sgw.service.roster import BalancerSettings, Clockwork
from a3sgw.service.test.servers import Clock, InForce, choose, make, servers
from a3sgw.testing import balancer_contract


class WeightedContractTests(balancer_contract(lambda backends: make(Weighted, backends))):
    """
    `Weighted` is a balancer.
    """


class WeightedInForceContractTests(balancer_contract(lambda backends: InForce(make(Weighted, backends)))):
    """
    `Weighted` is one when it knows its candidates.
    """


class Plain:
    """
    The rule in the simplest words: of those whose period has started, the one whose period ends first.
    """

    def __init__(self, weights):
        self.periods = [sum(weights) / weight for weight in weights]
        self.starts = [0.0] * len(weights)
        self.now = 0.0

    def end(self, number):
        return self.starts[number] + self.periods[number]

    def choose(self, numbers):
        self.now = max(self.now, min(self.starts[number] for number in numbers))
        started = [number for number in numbers if self.starts[number] <= self.now]
        chosen = min(started, key=self.end)
        self.starts[chosen] = max(self.starts[chosen] + self.periods[chosen], self.now - 1.0)
        self.now += 1.0
        return chosen


class WeightedTests(SynchronousTestCase):
    """
    `Weighted` chooses servers as often as their weights say, evenly spread.
    """

    def make(self, *weights, **options):
        everybody = servers(*weights)
        self.clock = Clock()
        self.balancer = make(Weighted, everybody, self.clock, **options)
        verifyObject(IBalancer, self.balancer)
        return tuple(everybody)

    def letters(self, everybody, candidates, times):
        return "".join("abcdef"[everybody.index(server)] for server in choose(self.balancer, candidates, times))

    def test_sequences(self):
        """Heavy servers are spread among light ones and never come in bursts; equal ones take turns in configured order."""
        for weights, expected in (
            ((1, 1, 1), "abcabc"),
            ((1,), "aaa"),
            ((3, 1), "abaaabaa"),
            ((1, 3), "babbbabb"),
            ((5, 1, 1), "abaacaaabaacaa"),
            ((2, 2, 1), "abcababcab"),
            ((0, 2, 1), "bcbbcb"),
            ((0, 0), "abab"),
            ((1000, 1), "abaaaaaa"),
        ):
            everybody = self.make(*weights)
            self.assertEqual(self.letters(everybody, everybody, len(expected)), expected, f"{weights}")

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
    def test_smooth(self, weights):
        """Nobody is ever a whole choice ahead of its share or behind it, and after each round all have exactly their shares."""
        everybody = self.make(*weights)
        total = sum(weights)
        counts = Counter()
        for made in range(1, 2 * total + 1):
            counts[self.balancer.choose(everybody, Record())] += 1
            for server in everybody:
                self.assertLess(abs(counts[server] - made * server.weight / total), 1)
        self.assertEqual([counts[server] for server in everybody], [2 * weight for weight in weights])

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.integers(2, 6), st.data())
    def test_come_and_go(self, count, data):
        """However candidates come and go before, those that stay have their shares, to a choice or two."""
        everybody = self.make(*data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)))
        some = st.sets(st.integers(0, count - 1), min_size=1)
        for numbers in data.draw(st.lists(some, max_size=6)):
            kind = data.draw(st.sampled_from((list, tuple)))
            choose(self.balancer, kind(everybody[number] for number in sorted(numbers)), data.draw(st.integers(1, 9)))
        staying = tuple(everybody[number] for number in sorted(data.draw(some)))
        total = sum(server.weight for server in staying)
        counts = Counter(choose(self.balancer, staying, 2 * total))
        for server in staying:
            self.assertApproximates(counts[server], 2 * server.weight, 2)

    def test_smooth_when_some_leave(self):
        """When servers leave that have just had their turns, those that stay are as evenly spread as ever."""
        everybody = self.make(5, 1, 1, *[1] * 20)
        staying = everybody
        while len(staying) > 3:
            server = self.balancer.choose(staying, Record())
            if server not in everybody[:3]:
                staying = tuple(each for each in staying if each is not server)
        self.assertNotIn("aaaa", self.letters(everybody, staying, 70))

    def test_periodic(self):
        """In each of many rounds all have exactly their shares."""
        for weights in ((7, 3, 1), (9, 7), (13, 11, 5, 3)):
            everybody = self.make(*weights)
            for _ in range(100):
                counts = Counter(choose(self.balancer, everybody, sum(weights)))
                self.assertEqual([counts[server] for server in everybody], list(weights))

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.lists(st.sampled_from((1, 2, 4, 8)), min_size=2, max_size=6), st.integers(0, 2**32))
    def test_rule(self, weights, seed):
        """The choice among all, and among some in between, is the one that the rule says."""
        # With these weights nothing is rounded.
        everybody = self.make(*weights)
        self.balancer.choose(everybody, Record())
        plain = Plain(weights)
        plain.choose(range(len(weights)))
        chance = Random(seed)
        for _ in range(100):
            numbers = range(len(weights))
            if chance.random() < 0.3:
                numbers = sorted(chance.sample(numbers, chance.randint(1, len(weights) - 1)))
                chosen = self.balancer.choose([everybody[number] for number in numbers], Record())
            else:
                chosen = self.balancer.choose(everybody, Record())
            self.assertIs(chosen, everybody[plain.choose(numbers)])

    def test_flapping(self):
        """A server that comes and goes all the time does not skew the shares of the others."""
        one, two, three = self.make(2, 1, 1)
        counts = Counter()
        for round_number in range(400):
            candidates = (one, two, three) if round_number % 2 else (one, two)
            counts.update(choose(self.balancer, candidates, 1 + round_number % 3))
        self.assertApproximates(counts[one], 2 * counts[two], 3)
        # It is there for half of the choices, where it has a quarter.
        self.assertApproximates(counts[three], 100, 3)

    def test_no_burst_after_absence(self):
        """A server that comes back does not get what it missed all at once."""
        for kind, again in ((list, tuple), (list, lambda same: (*same[:1], *same[1:])), (tuple, tuple)):
            for weights in ((1, 1, 1), (1, 1, 1, 1, 1, 1), (1, 4, 2, 2, 1)):
                everybody = self.make(*weights)
                self.letters(everybody, everybody, 30)
                self.letters(everybody, kind(everybody[1:]), 500)
                back = self.letters(everybody, again(everybody), 60)
                self.assertNotIn("aaa", back)
                self.assertApproximates(back.count("a"), 60 / sum(weights), 2)

    def test_retries_do_not_skew(self):
        """When one server fails and every failure goes to the next, those that work share its load by their weights."""
        one, two, three = everybody = self.make(1, 1, 2)
        served = Counter()
        for _ in range(400):
            chosen = self.balancer.choose(everybody, Record())
            if chosen is one:
                chosen = self.balancer.choose([two, three], Record())
            served[chosen] += 1
        self.assertApproximates(served[three], 2 * served[two], 5)

    def test_lists(self):
        """Shares are right also if candidates are a new list each time, as in a service that leaves out who is busy."""
        everybody = self.make(3, 1)
        counts = Counter(self.balancer.choose(list(everybody), Record()) for _ in range(400))
        self.assertEqual(counts, {everybody[0]: 300, everybody[1]: 100})

    def test_long_run(self):
        """Shares are right after very many choices, and the spread is as even as ever."""
        everybody = self.make(7, 3, 1)
        counts = Counter()
        for made in range(1, 140_001):
            counts[self.balancer.choose(everybody, Record())] += 1
            if made % 1000 == 0:
                for server in everybody:
                    self.assertLess(abs(counts[server] - made * server.weight / 11), 1.01)
        # Rounding errors grow with it.
        self.assertLessEqual(self.balancer._schedule._now, 65_537)

    def test_long_run_of_lists(self):
        """What is remembered does not grow with the number of retries."""
        everybody = self.make(1, 1)
        self.balancer.choose(everybody, Record())
        counts = Counter(self.balancer.choose([everybody[number % 2]], Record()) for number in range(70_000))
        self.assertEqual(set(counts.values()), {35_000})
        self.assertLess(len(self.balancer._schedule._waiting), 10_000)

    def test_slow_start(self):
        """A new server begins with a tenth of its share and comes to the whole, without a burst at any time."""
        everybody = self.make(1, 1, slow_start=100.0)
        everybody[1].usable_since = self.clock.now
        counts = []
        for _ in range(12):
            found = self.letters(everybody, everybody, 100)
            self.assertNotIn("bb", found[:-1])
            counts.append(found.count("b"))
            self.clock.now += 10.0
        self.assertApproximates(counts[0], 100 * 0.1 / 1.1, 2)
        self.assertApproximates(counts[5], 100 * 0.5 / 1.5, 3)
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-2:], [50, 50])

    def test_no_weights(self):
        """Without weights all servers are alike, which gives plain round-robin a slow start."""
        everybody = servers(5, 0, 1)
        self.balancer = Weighted(everybody, BalancerSettings(), Clockwork(Clock(), None), heeds_weights=False)
        self.assertEqual(self.letters(everybody, tuple(everybody), 6), "abcabc")
