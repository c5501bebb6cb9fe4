"""
Tests of the strategy of least time.
"""

from collections import Counter
from math import exp
from random import Random

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer
from a3sgw.observe.record import Record
from a3sgw.service.balance_latency import Latency, LeastTime
from a3sgw.service.test.servers import Clock, InForce, make, servers
from a3sgw.testing import balancer_contract


class LeastTimeContractTests(balancer_contract(lambda backends: make(LeastTime, backends))):
    """
    `LeastTime` is a balancer.
    """


class LeastTimeInForceContractTests(balancer_contract(lambda backends: InForce(make(LeastTime, backends)))):
    """
    `LeastTime` is one when it knows its candidates.
    """


class LatencyTests(SynchronousTestCase):
    """
    `Latency` estimates how long answers take.
    """

    def make(self, *answers):
        """
        Return what is learnt from answers: how long each took, and when it came.
        """
        latency = Latency(0)
        for seconds, now in answers:
            latency.answered(seconds, now)
        return latency

    def test_unknown(self):
        """Before the first answer nothing is known."""
        self.assertEqual(self.make().estimate(5.0), 0.0)

    def test_peak(self):
        """A slower answer counts at once."""
        latency = self.make((0.1, 100.0), (0.5, 100.0))
        self.assertApproximates(latency.estimate(100.0), 0.5, 1e-9)

    def test_mean(self):
        """Faster answers count by and by, the more the longer it is since the last one."""
        latency = self.make((1.0, 100.0), (0.1, 100.1))
        self.assertApproximates(latency.estimate(100.1), exp(-0.01) + 0.1 * (1 - exp(-0.01)), 1e-9)
        latency = self.make((1.0, 100.0), (0.01, 130.0))
        self.assertApproximates(latency.estimate(130.0), exp(-3) + 0.01 * (1 - exp(-3)), 1e-9)

    def test_steady(self):
        """Equal answers leave the estimate where it is, however often they come."""
        for pause in (0.001, 1.0, 100.0):
            latency = self.make(*((0.2, 100.0 + pause * turn) for turn in range(50)))
            self.assertApproximates(latency.estimate(100.0 + pause * 49), 0.2, 1e-9)

    def test_fading(self):
        """An estimate that nobody renews fades."""
        latency = self.make((1.0, 100.0))
        self.assertApproximates(latency.estimate(110.0), exp(-1), 1e-9)

    def test_noise(self):
        """An answer in no time at all is no trouble."""
        self.assertApproximates(self.make((0.0, 100.0)).estimate(100.0), 0.0001, 1e-9)

    def test_failures(self):
        """A failure counts as a slow answer; if it follows others, as an ever slower one, within reason."""
        latency = self.make()
        latency.failed(0.001, 100.0)
        self.assertApproximates(latency.estimate(100.0), 1.0, 1e-9)
        latency.failed(0.001, 100.0)
        self.assertApproximates(latency.estimate(100.0), 2.0, 1e-9)
        latency.failed(30.0, 100.0)
        self.assertApproximates(latency.estimate(100.0), 30.0, 1e-9)
        for _ in range(5):
            latency.failed(0.001, 100.0)
        self.assertApproximates(latency.estimate(100.0), 60.0, 1e-6)

    def test_forgotten(self):
        """What is a minute old is forgotten when candidates change, together with the exchanges that go on."""
        latency = self.make((1.0, 100.0))
        latency.forget(3, 159.0)
        self.assertGreater(latency.estimate(159.0), 0.0)
        latency.forget(3, 161.0)
        self.assertEqual((latency.level, latency.others), (None, 3))
        latency.forget(4, 900.0)
        self.assertEqual(latency.others, 3)


class LeastTimeTests(SynchronousTestCase):
    """
    `LeastTime` chooses who is likely to answer soonest.
    """

    def make(self, *weights, **options):
        self.clock = Clock()
        everybody = servers(*weights)
        self.balancer = make(LeastTime, everybody, self.clock, **options)
        verifyObject(IBalancer, self.balancer)
        return tuple(everybody)

    def begin(self, candidates):
        """
        Begin an exchange and return its server.
        """
        server = self.balancer.choose(candidates, Record())
        server.acquire()
        return server

    def answer(self, server, seconds, is_failure=False):
        """
        End an exchange.
        """
        self.balancer.attempt_ended(server, seconds, is_failure, self.clock.now)
        server.release()

    def known(self, *latencies, **options):
        """
        Return as many servers that are known to answer in these times.
        """
        everybody = self.make(*[1] * len(latencies), **options)
        for server, seconds in zip(everybody, latencies, strict=True):
            self.balancer.attempt_ended(server, seconds, False, self.clock.now)
        return everybody

    def test_fastest(self):
        """The fastest server is chosen until its exchanges make it as slow as the next one."""
        for padding in (0, 30):
            fast, slow, *_ = everybody = self.known(0.010, 0.035, *[9.0] * padding)
            self.assertEqual([self.begin(everybody) for _ in range(5)], [fast, fast, fast, slow, fast])

    def test_weights(self):
        """Of servers that answer alike, exchanges are shared by weight."""
        for size in (2, 40):
            everybody = self.make(*(1 + number % 2 for number in range(size)))
            for server in everybody:
                self.balancer.attempt_ended(server, 0.1, False, self.clock.now)
            for _ in range(6 * size):
                self.begin(everybody)
            self.assertEqual([server.in_flight for server in everybody], [4 * server.weight for server in everybody])

    def test_first_try(self):
        """Each unknown server is tried once, at once; it gets more only when it has answered, or when nobody is known."""
        for size in (4, 40):
            everybody = self.make(*[1] * size)
            tried = [self.begin(everybody) for _ in range(size)]
            self.assertEqual(tried, list(everybody))
            # Nobody is known yet.
            self.assertEqual({self.begin(everybody) for _ in range(size)}, set(everybody))
            self.answer(everybody[1], 0.2)
            self.assertEqual({self.begin(everybody) for _ in range(3 * size)}, {everybody[1]})
            self.answer(everybody[0], 0.001)
            self.assertIs(self.begin(everybody), everybody[0])

    def test_no_stampede(self):
        """A server that comes anew among known ones is tried with one exchange, and not with all that come before it answers."""
        for size in (4, 40):
            everybody = self.known(*[0.1] * size)
            new = servers(*[1] * (size + 1))[-1]
            self.balancer = make(LeastTime, [*everybody, new], self.clock)
            candidates = (*everybody, new)
            chosen = Counter(self.begin(candidates) for _ in range(5 * size))
            self.assertEqual(chosen[new], 1)

    def test_failing(self):
        """A server that refuses at once is not taken for a fast one."""
        for padding in (0, 30):
            good, bad, *_ = everybody = self.known(0.050, 0.050, *[9.0] * padding)
            for _ in range(20):
                server = self.begin(everybody)
                self.answer(server, 0.0001 if server is bad else 0.05, is_failure=server is bad)
            self.assertIs(self.begin(everybody), good)
            self.assertLess(self.balancer._latencies[good].estimate(self.clock.now), 0.1)
            self.assertGreater(self.balancer._latencies[bad].estimate(self.clock.now), 0.9)

    def test_tried_again(self):
        """A server that was slow is tried again after a while, with one exchange, and used if it has become fast."""
        for padding in (0, 30):
            for slowness, is_used in ((5.0, False), (0.05, True)):
                fast, slow, *_ = everybody = self.known(0.05, 5.0, *[600.0] * padding)
                chosen = []
                for _ in range(700):
                    self.clock.now += 0.1
                    chosen.append(self.begin(everybody))
                    self.answer(chosen[-1], slowness if chosen[-1] is slow else 0.05)
                # It takes ten seconds times the logarithm of 100 until the estimate has fallen as far.
                self.assertApproximates(chosen.index(slow), 460, 15)
                self.assertEqual(set(chosen), {fast, slow})
                if is_used:
                    self.assertGreater(chosen.count(slow), 50)
                else:
                    self.assertEqual(chosen.count(slow), 1)

    def test_streams_are_no_tries(self):
        """A server that came to be unknown while it served long streams is tried all the same."""
        for padding in (0, 30):
            first, second, *others = everybody = self.known(0.1, 0.1, *[9.0] * padding)
            second.acquire()
            second.acquire()
            self.clock.now += 100.0
            self.balancer.attempt_ended(first, 0.1, False, self.clock.now)
            for server in others:
                self.balancer.attempt_ended(server, 9.0, False, self.clock.now)
            # Somebody's health changes, and changes back.
            self.balancer.choose(everybody[:1], Record())
            self.assertIs(self.begin(everybody), second)
            self.assertIs(self.begin(everybody), first)

    def test_abandoned_try(self):
        """If the client leaves before the first try is answered, the next exchange is a try again."""
        for padding in (0, 30):
            everybody = self.known(0.1, 0.1, *[9.0] * padding)
            new = servers(*[1] * 40)[-1]
            self.balancer = make(LeastTime, [*everybody, new], self.clock)
            candidates = (*everybody, new)
            self.assertIs(self.begin(candidates), new)
            self.assertIsNot(self.begin(candidates), new)
            new.release()
            self.assertIs(self.begin(candidates), new)

    def test_reload(self):
        """What is known of a server outlives the balancer."""
        for padding in (0, 30):
            _slow, fast, *_ = everybody = self.known(0.2, 0.1, *[9.0] * padding)
            self.balancer = make(LeastTime, everybody, self.clock)
            self.assertIs(self.begin(everybody), fast)

    def test_late_answer(self):
        """An answer to an exchange that the balancer before a reload has begun counts for the one after it, too."""
        for padding in (0, 30):
            slow, fast, *_ = everybody = self.known(0.2, 0.1, *[9.0] * padding)
            before = self.balancer
            self.balancer = make(LeastTime, everybody, self.clock)
            self.assertIs(self.begin(everybody), fast)
            fast.release()
            before.attempt_ended(fast, 0.8, False, self.clock.now)
            self.assertIs(self.begin(everybody), slow)

    def test_long_response(self):
        """The first try counts as soon as the answer begins, however long it goes on."""
        for padding in (1, 30):
            everybody = self.known(*[0.1] * padding)
            new = servers(*[1] * 40)[-1]
            self.balancer = make(LeastTime, [*everybody, new], self.clock)
            candidates = (*everybody, new)
            self.assertIs(self.begin(candidates), new)
            self.assertIsNot(self.begin(candidates), new)
            self.balancer.attempt_ended(new, 0.001, False, self.clock.now)
            self.assertIs(self.begin(candidates), new)

    def test_retry(self):
        """A retry goes to the best of the others."""
        best, second, _third = everybody = self.known(0.1, 0.2, 0.3)
        self.assertIs(self.balancer.choose(everybody, Record()), best)
        self.assertIs(self.balancer.choose([*everybody[1:]], Record()), second)

    def test_few_and_many(self):
        """The choice among few by looking at all, and among many by an index, is the same."""
        chance = Random(3)
        everybody = self.known(*(chance.uniform(0.01, 1.0) for _ in range(40)))
        busy = []
        for _ in range(600):
            self.clock.now += chance.uniform(0.0, 0.1)
            costs = {server: self.balancer._latencies[server].estimate(self.clock.now) * (server.in_flight + 1) for server in everybody}
            chosen = self.begin(everybody)
            self.assertApproximates(costs[chosen], min(costs.values()), 1e-9)
            busy.append(chosen)
            if chance.random() < 0.8:
                self.answer(busy.pop(chance.randrange(len(busy))), chance.uniform(0.01, 2.0), is_failure=chance.random() < 0.05)

    def test_slow_start(self):
        """A new server takes a tenth of its load at first."""
        for padding in (0, 30):
            everybody = self.known(0.1, 0.1, *[9e9] * padding, slow_start=10.0)
            everybody[0].usable_since = self.clock.now
            for _ in range(22):
                self.begin(everybody)
            self.assertEqual([server.in_flight for server in everybody[:2]], [2, 20])
