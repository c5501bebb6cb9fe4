"""
Tests of consistent hashing.
"""

from collections import Counter
from fractions import Fraction
from math import ceil
from random import Random

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer
from a3sgw.message import make_field
from a3sgw.observe.record import Record
from a3sgw.service.balance_hash import ConsistentHash
from a3sgw.service.test.servers import Clock, InForce, make, moved, record, servers
from a3sgw.testing import balancer_contract

CLIENTS = [number.to_bytes(4, "big") for number in range(1000)]
NOTHING: tuple[Counter[object], Counter[object]] = (Counter(), Counter())


class ConsistentHashContractTests(balancer_contract(lambda backends: make(ConsistentHash, backends))):
    """
    `ConsistentHash` is a balancer, also for requests without a key.
    """


class ConsistentHashInForceContractTests(balancer_contract(lambda backends: InForce(make(ConsistentHash, backends)))):
    """
    `ConsistentHash` is one when it knows its candidates.
    """


class ConsistentHashTests(SynchronousTestCase):
    """
    `ConsistentHash` sends what belongs together to the same server.
    """

    def make(self, *weights, **options):
        everybody = servers(*weights)
        self.clock = Clock()
        self.balancer = make(ConsistentHash, everybody, self.clock, **options)
        verifyObject(IBalancer, self.balancer)
        return tuple(everybody)

    def place(self, candidates):
        """
        Return the server of each client.
        """
        return [self.balancer.choose(candidates, record(client)) for client in CLIENTS]

    def test_same_server(self):
        """A client always gets the same server, from every gateway, and clients are spread over all servers."""
        everybody = self.make(*[1] * 5)
        placed = self.place(everybody)
        self.assertEqual(moved(placed, self.place(everybody)), NOTHING)
        self.assertEqual(moved(placed, self.place(list(everybody))), NOTHING)
        self.balancer = make(ConsistentHash, everybody[::-1], seed=2)
        self.assertEqual(moved(placed, self.place(everybody)), NOTHING)
        shares = Counter(placed)
        for server in everybody:
            self.assertApproximates(shares[server], 200, 70)

    def test_unusable(self):
        """While a server cannot be used, its clients go to others, always the same; all others stay where they are."""
        for size in (5, 40):
            everybody = self.make(*[1] * size)
            placed = self.place(everybody)
            gone = everybody[2]
            for candidates in (tuple(server for server in everybody if server is not gone), [s for s in everybody if s is not gone]):
                without = self.place(candidates)
                self.assertEqual(set(moved(placed, without)[0]), {gone})
                self.assertEqual(moved(without, self.place(candidates)), NOTHING)
            self.assertEqual(moved(placed, self.place(everybody)), NOTHING)

    def test_few_left(self):
        """When only a few of many servers can be used, clients are spread over those and stay with them."""
        everybody = self.make(*[1] * 500)
        candidates = (everybody[7], everybody[100], everybody[450])
        placed = self.place(candidates)
        self.assertEqual(moved(placed, self.place(candidates)), NOTHING)
        for server in candidates:
            self.assertApproximates(Counter(placed)[server], 333, 200)

    def test_weights(self):
        """Servers have clients in proportion to their weights, none if it is 0, and all alike if all are 0."""
        everybody = self.make(1, 0, 3)
        shares = Counter(self.place(everybody))
        self.assertEqual(shares[everybody[1]], 0)
        self.assertApproximates(shares[everybody[2]], 750, 70)
        self.assertEqual(set(self.place(everybody[1:2])), {everybody[1]})
        everybody = self.make(0, 0)
        self.assertApproximates(Counter(self.place(everybody))[everybody[0]], 500, 100)

    def test_few_left_by_weight(self):
        """When only a few of many servers can be used, they have clients in proportion to their weights all the same."""
        everybody = self.make(1, *[1] * 500, 4)
        placed = Counter(self.place((everybody[0], everybody[-1])))
        self.assertApproximates(placed[everybody[0]], 200, 80)

    def test_weightless_left(self):
        """When only servers of weight 0 are left, they share the clients."""
        everybody = self.make(1, 0, 0)
        placed = self.place(everybody[1:])
        self.assertEqual(moved(placed, self.place(everybody[1:])), NOTHING)
        for server in everybody[1:]:
            self.assertApproximates(Counter(placed)[server], 500, 80)

    def test_sources(self):
        """The key is what the configuration says."""
        for options, one, same, other in (
            ({"hash_source": "path"}, record(path=b"/a"), record(path=b"/a", client=b"1234"), record(path=b"/b")),
            (
                {"hash_source": "header", "hash_name": "X-Shop"},
                record(fields=[make_field(b"x-shop", b"a")]),
                record(fields=[make_field(b"X-Shop", b"a")], path=b"/b"),
                record(fields=[make_field(b"x-shop", b"b")]),
            ),
            (
                {"hash_source": "query", "hash_name": "q"},
                record(query=b"q=a"),
                record(query=b"p=1&q=a"),
                record(query=b"q=b"),
            ),
        ):
            everybody = self.make(*[1] * 50, **options)
            first, second, third = (self.balancer.choose(everybody, each) for each in (one, same, other))
            self.assertIs(first, second)
            self.assertIsNot(first, third)

    def test_no_key(self):
        """A request without a key goes to anybody, by weight."""
        everybody = self.make(1, 3, hash_source="cookie", hash_name="cart")
        for missing in (record(b"1234"), Record(), record(fields=[make_field(b"Cookie", b"cart=")])):
            shares = Counter(self.balancer.choose(everybody, missing) for _ in range(1000))
            self.assertApproximates(shares[everybody[0]], 250, 60)

    def test_bounded(self):
        """No server ever has more than its share of the bounded load, however popular a key is."""
        for weights, max_load in (
            ([1] * 4, 1.25),
            ([1] * 40, 1.25),
            ([1, 2, 3, 4, 5], 1.5),
            ([1 + number % 3 for number in range(30)], 1.0),
            ([1] * 10, 100.0),
        ):
            everybody = self.make(*weights, max_load=max_load)
            total = sum(weights)
            chance = Random(7)
            busy = []
            for _ in range(1500):
                # A few clients make most of the requests.
                server = self.balancer.choose(everybody, record(CLIENTS[int(chance.paretovariate(0.7)) % 1000]))
                bound = ceil(Fraction(max_load) * (len(busy) + 1) * server.weight / total)
                self.assertLessEqual(server.in_flight + 1, bound)
                server.acquire()
                busy.append(server)
                if len(busy) > 200 or chance.random() < 0.3:
                    busy.pop(chance.randrange(len(busy))).release()

    def test_overflow(self):
        """What a busy server has no room for goes to the next one on the ring, and comes back when there is room."""
        for size in (4, 40):
            everybody = self.make(*[1] * size)
            client = record(CLIENTS[0])
            home = self.balancer.choose(everybody, client)
            for server in everybody:
                server.acquire()
            home.acquire()
            second = self.balancer.choose(everybody, client)
            self.assertIsNot(second, home)
            without = tuple(server for server in everybody if server is not home)
            self.assertIs(self.balancer.choose(without, client), second)
            home.release()
            home.release()
            self.assertIs(self.balancer.choose(everybody, client), home)

    def test_all_busy(self):
        """When there is room in few places, it is found."""
        everybody = self.make(*[1] * 300, max_load=1.0)
        for server in everybody[:-1]:
            server.in_flight = 5
        self.assertEqual(set(self.place(everybody)), {everybody[-1]})

    def test_slow_start(self):
        """A new server takes a growing part of its clients; each moves to it once and stays."""
        everybody = self.make(*[1] * 5)
        placed = self.place(everybody)
        new = everybody[1]
        new.usable_since = self.clock.now
        self.balancer = make(ConsistentHash, everybody, self.clock, slow_start=10.0)
        before = set()
        for part in (0.1, 0.5, 0.8, 1.0):
            self.clock.now = 1000.0 + 10.0 * part
            now = self.place(everybody)
            there = {client for client, server in zip(CLIENTS, now, strict=True) if server is new}
            self.assertLessEqual(before, there)
            self.assertApproximates(len(there), part * placed.count(new), 20)
            self.assertTrue(all(old is server for old, server in zip(placed, now, strict=True) if server is not new and old is not new))
            before = there
        self.assertEqual(moved(now, placed), NOTHING)

    def test_all_new(self):
        """Servers that are all equally new have all their clients at once."""
        everybody = self.make(*[1] * 5)
        placed = self.place(everybody)
        for server in everybody:
            server.usable_since = self.clock.now
        self.balancer = make(ConsistentHash, everybody, self.clock, slow_start=10.0)
        self.assertEqual(moved(self.place(everybody), placed), NOTHING)
