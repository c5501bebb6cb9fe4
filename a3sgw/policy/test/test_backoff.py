"""
Tests of `a3sgw.policy.backoff`.
"""

from random import Random
from statistics import fmean

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.backoff import Backoff


class BackoffTests(SynchronousTestCase):
    def test_grows(self):
        """
        Without jitter each pause is so many times the one before, up to the maximum and never beyond.
        """
        for arguments, pauses in [
            ((1, 60), [1, 2, 4, 8, 16, 32, 60, 60]),
            ((0.1, 1.0), [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
            ((2, 100, 3), [2, 6, 18, 54, 100]),
            ((1, 8), [1, 2, 4, 8, 8]),
            ((0.5, 60, 1), [0.5, 0.5, 0.5]),
            ((5, 2), [2, 2]),
            ((0, 60), [0, 0, 0]),
            ((0, 0), [0, 0]),
            ((5, 0), [0, 0]),
        ]:
            backoff = Backoff(*arguments, jitter=0)
            self.assertEqual([backoff.delay(attempt, Random(1)) for attempt in range(1, len(pauses) + 1)], pauses, arguments)

    def test_never_overflows(self):
        """
        However many attempts fail, the pause stays at the maximum.
        """
        for multiplier in (2.0, 1.5, 1.0001, 1e9):
            backoff = Backoff(0.001, 3600.0, multiplier, 0.0)
            self.assertEqual(backoff.delay(10**12, Random(1)), 3600.0)
        # By rounding, the logarithms of these give one growth too few.
        self.assertEqual(Backoff(0.713, 2719.8791503906255, 2.5, 0.0).delay(10**12, Random(1)), 2719.8791503906255)
        self.assertEqual(Backoff(0.5, 3600.0, 1.0, 0.0).delay(10**12, Random(1)), 0.5)

    def test_jitter(self):
        """
        Full jitter spreads evenly over the whole pause, equal jitter over its upper half.
        """
        for jitter, low in [(1.0, 0.0), (0.5, 4.0), (0.25, 6.0)]:
            backoff, chance = Backoff(2, 60, jitter=jitter), Random(5)
            pauses = [backoff.delay(3, chance) for _ in range(4000)]
            self.assertTrue(low < min(pauses) < low + 0.1 and 7.9 < max(pauses) <= 8.0, (min(pauses), max(pauses)))
            self.assertLess(abs(fmean(pauses) - (low + 8.0) / 2), 0.1)

    def test_chance_is_given(self):
        """
        The same chance gives the same pauses.
        """
        backoff = Backoff(1, 60)
        first, second = ([backoff.delay(attempt, chance) for attempt in range(1, 9)] for chance in (Random(7), Random(7)))
        self.assertEqual(first, second)
        self.assertEqual(len(set(first)), 8)

    def test_refused_settings(self):
        """
        Times below 0, a multiplier that shrinks pauses and a jitter beyond the whole are refused.
        """
        for arguments, part in [
            ((-1, 60), "initial -1"),
            ((1, -60), "maximum -60"),
            ((float("nan"), 60), "initial nan"),
            ((1, float("inf")), "maximum inf"),
            ((1, 60, 0.5), "multiplier 0.5; give 1 or more"),
            ((1, 60, 2, 1.5), "jitter 1.5"),
            ((1, 60, 2, -0.5), "jitter -0.5"),
        ]:
            self.assertIn(part, str(self.assertRaises(ValueError, Backoff, *arguments)))

    def test_repr(self):
        """
        A back-off shows its settings.
        """
        self.assertEqual(repr(Backoff(0.1, 30)), "<Backoff 0.1 to 30 s, times 2, jitter 1>")

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(
        st.floats(1e-3, 100),
        st.floats(1e-3, 1000),
        st.floats(1, 10),
        st.floats(0, 1),
        st.integers(1, 100),
        st.randoms(use_true_random=False),
    )
    def test_formula(self, initial, maximum, multiplier, jitter, attempt, chance):
        """
        Whatever the settings, the pause keeps to the bounds of the formula.
        """
        top = min(maximum, initial * multiplier ** (attempt - 1))
        delay = Backoff(initial, maximum, multiplier, jitter).delay(attempt, chance)
        self.assertTrue((1 - jitter) * top * (1 - 1e-9) <= delay <= top * (1 + 1e-9), (delay, top))
