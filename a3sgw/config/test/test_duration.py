"""
Tests of durations.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.duration import format_duration, parse_duration


class DurationTests(SynchronousTestCase):
    """
    Durations are read as people write them.
    """

    def test_good(self):
        """
        Units, fractions, sums and bare seconds are understood.
        """
        cases = {
            "10s": 10.0,
            "250ms": 0.25,
            "1.5s": 1.5,
            "1m30s": 90.0,
            "1h": 3600.0,
            "2h30m": 9000.0,
            "1d": 86400.0,
            "1s100ms": 1.1,
            "10": 10.0,
            "1.5": 1.5,
            " 4s ": 4.0,
            "0s": 0.0,
        }
        for text, seconds in cases.items():
            self.assertEqual(parse_duration(text), seconds, text)

    def test_bad(self):
        """
        What is not a duration is refused, never guessed.
        """
        spoiled = ("", " ", "s", "ms", "10x", "-1s", "+1s", "1 s", "10S", "\u0661s", "inf", "nan")
        odd = ("1s1h", "1s1s", "5ms5m", "1e3s", ".5s", "1.s")
        for text in (*spoiled, *odd):
            with self.assertRaises(ValueError, msg=text):
                parse_duration(text)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.integers(min_value=1, max_value=10**8))
    def test_round_trip(self, milliseconds):
        """
        What is written for a duration is read as the same duration.
        """
        seconds = milliseconds / 1000
        self.assertEqual(parse_duration(format_duration(seconds)), seconds)

    def test_format(self):
        """
        Durations are written shortly.
        """
        for seconds, text in ((10.0, "10s"), (60.0, "60s"), (90.0, "90s"), (300.0, "5m"), (3600.0, "1h"), (0.25, "250ms"), (1.5, "1.5s")):
            self.assertEqual(format_duration(seconds), text)
