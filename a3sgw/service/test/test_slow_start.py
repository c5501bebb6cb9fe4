"""
Tests of slow start.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.service.slow_start import LEAST_FACTOR, refresh_interval, slow_start_factor


class SlowStartTests(SynchronousTestCase):
    """
    `slow_start_factor` says how far a server has come.
    """

    def test_growth(self):
        """A server's share grows evenly from a tenth to the whole, and stays there."""
        for age, factor in (
            (0.0, 0.1),
            (1.0, 0.1),
            (3.0, 0.1),
            (6.0, 0.2),
            (15.0, 0.5),
            (29.0, 29 / 30),
            (30.0, 1.0),
            (1e9, 1.0),
            (float("inf"), 1.0),
        ):
            self.assertAlmostEqual(slow_start_factor(age, 30.0), factor, msg=f"after {age} s")

    def test_none(self):
        """Without slow start a server has its whole share at once."""
        self.assertEqual(slow_start_factor(0.0, 0.0), 1.0)

    def test_clock_behind(self):
        """A server that becomes usable a moment after the clock was read has the least share."""
        self.assertEqual(slow_start_factor(-0.001, 30.0), LEAST_FACTOR)

    def test_steps(self):
        """Weights are looked at again often enough to grow smoothly, and never so often that it costs."""
        self.assertEqual(refresh_interval(32.0), 1.0)
        self.assertEqual(refresh_interval(0.1), 0.05)
