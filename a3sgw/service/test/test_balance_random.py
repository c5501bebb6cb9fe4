"""
Tests of the strategies that leave it to chance.
"""

from collections import Counter
from itertools import cycle, pairwise

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer
from a3sgw.observe.record import Record
from a3sgw.service.balance_random import PowerOfTwo, Random, Wheel
from a3sgw.service.roster import make_roster
from a3sgw.service.test.servers import Clock, InForce, choose, make, servers
from a3sgw.testing import balancer_contract


class RandomContractTests(balancer_contract(lambda backends: make(Random, backends))):
    """
    `Random` is a balancer.
    """


class RandomInForceContractTests(balancer_contract(lambda backends: InForce(make(Random, backends)))):
    """
    `Random` is one when it knows its candidates.
    """


class PowerOfTwoContractTests(balancer_contract(lambda backends: make(PowerOfTwo, backends))):
    """
    `PowerOfTwo` is a balancer.
    """


class PowerOfTwoInForceContractTests(balancer_contract(lambda backends: InForce(make(PowerOfTwo, backends)))):
    """
    `PowerOfTwo` is one when it knows its candidates.
    """


class WheelTests(SynchronousTestCase):
    """
    `Wheel` has an arc for each server.
    """

    def spin(self, weights, *chances):
        everybody = servers(*weights)
        numbers = cycle(chances)
        return everybody.index(Wheel(make_roster(everybody, 0.0, 0.0)).spin(lambda: next(numbers)))

    def test_arcs(self):
        """A server is chosen when the wheel stops on its arc, whose end belongs to the next."""
        for chance, number in ((0.0, 0), (0.24, 0), (0.25, 1), (0.74, 1), (0.75, 2), (0.999, 2), (1 - 2**-53, 2)):
            self.assertEqual(self.spin((1, 2, 1), chance), number, f"{chance}")

    def test_rounding(self):
        """The last server is chosen even if a sum is rounded up to the whole."""
        everybody = servers(1_000_000, 1)
        everybody[0].in_flight = 2_000_000
        chances = iter((0.1, 1 - 2**-53))
        self.assertIs(Wheel(make_roster(everybody, 0.0, 0.0)).spin_twice(lambda: next(chances)), everybody[1])

    def test_two_are_different(self):
        """The second server is not the first, and has its share of what the first leaves."""
        weights = (3, 1, 4)
        everybody = servers(*weights)
        wheel = Wheel(make_roster(everybody, 0.0, 0.0))
        for first, chance in ((0, 0.1), (1, 0.4), (2, 0.9)):
            for server in everybody:
                server.in_flight = 0
            everybody[first].in_flight = 100
            found = Counter()
            for place in range(1000):
                chances = iter((chance, (place + 0.5) / 1000))
                found[wheel.spin_twice(lambda chances=chances: next(chances)).weight] += 1
            left = sum(weights) - weights[first]
            for number, weight in enumerate(weights):
                self.assertApproximates(found[weight], 0 if number == first else 1000 * weight / left, 1)


class RandomTests(SynchronousTestCase):
    """
    `Random` chooses anyone.
    """

    def test_shares(self):
        """Servers are chosen as often as their weights say, and not in turns."""
        everybody = servers(1, 2, 0, 5)
        balancer = make(Random, everybody)
        verifyObject(IBalancer, balancer)
        chosen = choose(balancer, tuple(everybody), 8000)
        shares = Counter(server.weight for server in chosen)
        for weight in (1, 2, 5):
            # Four standard deviations are at most 180.
            self.assertApproximates(shares[weight], 1000 * weight, 180)
        self.assertEqual(shares[0], 0)
        repeated = sum(one is other for one, other in pairwise(chosen))
        self.assertApproximates(repeated, 8000 * (1 + 4 + 25) / 64, 180)

    def test_retry(self):
        """When a server was tried already, the others have their shares of the rest."""
        everybody = servers(1, 1, 3)
        shares = Counter(choose(make(Random, everybody), everybody[1:], 4000))
        self.assertApproximates(shares[everybody[1]], 1000, 120)
        self.assertEqual(sum(shares.values()), 4000)

    def test_all_zero(self):
        """If all weights are 0, all servers are used alike."""
        everybody = servers(0, 0)
        shares = Counter(choose(make(Random, everybody), tuple(everybody), 1000))
        self.assertApproximates(shares[everybody[0]], 500, 64)

    def test_slow_start(self):
        """The share of a new server grows with time."""
        clock = Clock()
        everybody = servers(1, 1)
        everybody[0].usable_since = clock.now
        balancer = make(Random, everybody, clock, slow_start=10.0)
        candidates = tuple(everybody)
        for age, share in ((0.0, 0.1 / 1.1), (5.0, 0.5 / 1.5), (10.0, 0.5)):
            clock.now = 1000.0 + age
            shares = Counter(choose(balancer, candidates, 4000))
            self.assertApproximates(shares[everybody[0]], 4000 * share, 130)

    def test_seed(self):
        """Chance comes from where it is told: the same source gives the same choices."""
        everybody = servers(*[1] * 10)
        one, same, other = (choose(make(Random, everybody, seed=seed), everybody, 20) for seed in (1, 1, 2))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)


class PowerOfTwoTests(SynchronousTestCase):
    """
    `PowerOfTwo` chooses the less busy of two.
    """

    def test_less_busy(self):
        """Of two servers the one with fewer exchanges in flight for its weight is chosen."""
        for weights, in_flight, chosen in (
            ((1, 1), (1, 0), 1),
            ((1, 1), (2, 3), 0),
            ((1, 2), (1, 1), 1),
            ((1, 2), (2, 3), 1),
            ((1, 2), (1, 3), 0),
            ((5, 1), (4, 1), 0),
        ):
            everybody = servers(*weights)
            for server, count in zip(everybody, in_flight, strict=True):
                server.in_flight = count
            balancer = make(PowerOfTwo, everybody)
            verifyObject(IBalancer, balancer)
            self.assertEqual(set(choose(balancer, tuple(everybody), 20)), {everybody[chosen]}, f"{weights} {in_flight}")

    def test_idle(self):
        """Among idle servers weights are shares."""
        everybody = servers(1, 0, 3)
        shares = Counter(choose(make(PowerOfTwo, everybody), tuple(everybody), 4000))
        self.assertApproximates(shares[everybody[0]], 1000, 120)
        self.assertEqual(shares[everybody[1]], 0)

    def test_one(self):
        """A single server is chosen, however busy."""
        everybody = servers(1)
        everybody[0].in_flight = 100
        self.assertEqual(choose(make(PowerOfTwo, everybody), tuple(everybody), 3), everybody * 3)

    def test_evenness(self):
        """A hundred servers differ little in load, where chance alone makes some nearly twice as busy as they should be."""
        most = {}
        for strategy in (Random, PowerOfTwo):
            everybody = servers(*[1] * 100)
            balancer = make(strategy, everybody)
            candidates = tuple(everybody)
            for _ in range(1000):
                balancer.choose(candidates, Record()).in_flight += 1
            most[strategy] = max(server.in_flight for server in everybody)
        self.assertLessEqual(most[PowerOfTwo], 13)
        self.assertGreaterEqual(most[Random], 17)

    def test_slow_start(self):
        """A new server takes a tenth of its load at first."""
        clock = Clock()
        everybody = servers(1, 1)
        everybody[0].usable_since = clock.now
        balancer = make(PowerOfTwo, everybody, clock, slow_start=10.0)
        for _ in range(110):
            balancer.choose(tuple(everybody), Record()).in_flight += 1
        self.assertApproximates(everybody[0].in_flight, 10, 2)
