"""
Tests for `a3sgw.policy.quantile`.
"""

import math
import random
from statistics import NormalDist

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.quantile import LatencyQuantile


def observe_all(latencies, now=0.0, **options):
    """
    Return what has seen these latencies, all at the same time.
    """
    quantile = LatencyQuantile(**options)
    for seconds in latencies:
        quantile.observe(seconds, now)
    return quantile


class LatencyQuantileTests(SynchronousTestCase):
    """
    `LatencyQuantile` tells what most requests take.
    """

    def assert_near(self, found, expected, error=0.05):
        """
        Fail unless `found` is right within that part of `expected`.
        """
        self.assertIsNotNone(found)
        self.assertLessEqual(abs(found - expected), expected * error, (found, expected))

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(
        st.lists(st.floats(0.0001, 1000.0), min_size=1, max_size=200),
        st.floats(0.01, 0.99),
        st.sampled_from([0.0, 1234.5, 1e7]),
    )
    def test_error(self, latencies, q, now):
        """The answer is within 5 percent of the latency that so many of those seen do not exceed."""
        quantile = observe_all(latencies, now, minimum=1)
        # A rank on the border may fall to either side.
        ordered = sorted(latencies)
        ranks = {math.ceil(q * len(ordered) - 1e-6), math.ceil(q * len(ordered) + 1e-6)}
        allowed = [ordered[max(1, min(rank, len(ordered))) - 1] for rank in ranks]
        found = quantile.quantile(q, now)
        if len(latencies) * (1 - q) < 1 - 1e-6:
            self.assertIsNone(found)
        elif len(latencies) * (1 - q) > 1 + 1e-6:
            self.assertTrue(any(abs(found - expected) <= expected * 0.05 for expected in allowed), (found, allowed))

    def test_bounds(self):
        """Latencies beyond what is told apart count as the shortest or the longest that are."""
        for seconds, expected in [(0.0, 0.0001), (-1.0, 0.0001), (1e-9, 0.0001), (0.0001, 0.0001), (1000.0, 1000.0), (math.inf, 1000.0)]:
            self.assert_near(observe_all([seconds] * 100).quantile(0.5, 0.0), expected)

    def test_no_number(self):
        """A latency that is no number does no harm."""
        self.assert_near(observe_all([math.nan] + [0.2] * 99).quantile(0.5, 0.0), 0.2)

    def test_enough(self):
        """There is no answer before enough latencies were seen, nor while the quantile would be the largest of them."""
        for count, minimum, q, is_known in [
            (0, 1, 0.5, False),
            (49, 50, 0.5, False),
            (50, 50, 0.5, True),
            (50, 50, 0.98, True),
            (50, 50, 0.99, False),
            (99, 50, 0.99, False),
            (100, 50, 0.99, True),
            (1, 1, 0.5, False),
            (2, 1, 0.5, True),
        ]:
            found = observe_all([0.1] * count, minimum=minimum).quantile(q, 0.0)
            self.assertEqual(found is not None, is_known, (count, minimum, q))

    def test_forgetting(self):
        """After a half-life an observation counts half; when too little is left there is no answer any more."""
        quantile = observe_all([0.1] * 200, half_life=60.0, minimum=50)
        self.assertIsNotNone(quantile.quantile(0.5, 119.9))
        self.assertIsNone(quantile.quantile(0.5, 120.1))
        self.assertIsNone(quantile.quantile(0.5, 1e9))

    def test_weights(self):
        """What was seen a half-life ago counts half beside what is seen now."""
        quantile = observe_all([1.0] * 400, half_life=60.0)
        for _ in range(300):
            quantile.observe(0.1, 60.0)
        # 200 long ones are left beside 300 short ones.
        self.assert_near(quantile.quantile(0.59, 60.0), 0.1)
        self.assert_near(quantile.quantile(0.61, 60.0), 1.0)

    def test_change(self):
        """When a service becomes faster or slower the answer follows within a few half-lives."""
        quantile = LatencyQuantile(half_life=10.0)
        for began, seconds in [(0, 1.0), (60, 0.05), (120, 2.0)]:
            for tenth in range(600):
                quantile.observe(seconds, began + tenth / 10)
            self.assert_near(quantile.quantile(0.95, began + 60.0), seconds)

    def test_scaling_back(self):
        """However long it runs, and through pauses of any length, nothing overflows and nothing is lost."""
        quantile = LatencyQuantile(half_life=1.0, minimum=20)
        for now in [0.0, 63.0, 64.5, 130.0, 1e4, 1e8]:
            for number in range(100):
                quantile.observe(0.1 if number < 90 else 0.5, now)
            self.assert_near(quantile.quantile(0.5, now), 0.1)
            self.assert_near(quantile.quantile(0.95, now), 0.5)
            self.assertIsNone(quantile.quantile(0.5, now + 3.0))

    def test_scaling_back_keeps_weights(self):
        """What is scaled back keeps its weight beside what comes after."""
        quantile = LatencyQuantile(half_life=1.0, minimum=1)
        for now, count, seconds in [(63.9, 400, 1.0), (64.9, 300, 0.1)]:
            for _ in range(count):
                quantile.observe(seconds, now)
        self.assert_near(quantile.quantile(0.59, 64.9), 0.1)
        self.assert_near(quantile.quantile(0.61, 64.9), 1.0)

    def test_random_latencies(self):
        """Of latencies as they occur, each with its own time, the quantiles are near the true ones."""
        chance = random.Random(4711)
        quantile = LatencyQuantile(half_life=60.0)
        for number in range(30_000):
            quantile.observe(chance.lognormvariate(-3.0, 1.0), number / 100)
        for q in (0.5, 0.9, 0.95, 0.99):
            self.assert_near(quantile.quantile(q, 300.0), math.exp(-3.0 + NormalDist().inv_cdf(q)), 0.1)

    def test_memory_is_bounded(self):
        """As much is kept of many latencies as of none."""
        quantile = LatencyQuantile()
        size = len(quantile._weights)
        chance = random.Random(1)
        for number in range(10_000):
            quantile.observe(10 ** chance.uniform(-9, 9), float(number))
        self.assertEqual(len(quantile._weights), size)
        self.assertLess(size, 256)

    def test_settings(self):
        """A half-life or a minimum that makes no sense is refused."""
        self.assertRaises(ValueError, LatencyQuantile, half_life=0.0)
        self.assertRaises(ValueError, LatencyQuantile, minimum=0)
