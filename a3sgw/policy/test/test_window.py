"""
Tests of `a3sgw.policy.window`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.window import SlidingCount

# Sixteenths of seconds are counted without rounding.
PAUSES = st.lists(st.integers(0, 100).map(lambda sixteenths: sixteenths / 16), max_size=60)


class SlidingCountTests(SynchronousTestCase):
    def test_slides(self):
        """
        What happened is counted for as long as the window is, and forgotten a part later.
        """
        count = SlidingCount(10.0, 10)
        self.assertEqual([count.add(now) for now in (100.0, 100.9, 105.0)], [1, 2, 3])
        for now, total in [(105.0, 3), (110.9, 3), (111.0, 1), (115.9, 1), (116.0, 0), (500.0, 0)]:
            self.assertEqual(count.total(now), total, now)
        self.assertEqual(count.add(500.0), 1)

    def test_long_silence(self):
        """
        After a silence longer than the window nothing is left, whatever the clock has come to.
        """
        for silence in (11.0, 12.0, 20.0, 22.0, 1e6):
            count = SlidingCount(10.0, 10)
            for second in range(10):
                count.add(50.0 + second)
            self.assertEqual(count.total(59.0 + silence), 0, silence)

    def test_clear(self):
        """
        What was cleared is not subtracted again when its time is over.
        """
        count = SlidingCount(4.0, 4)
        count.add(1.0)
        count.clear()
        count.add(2.0)
        self.assertEqual([count.total(now) for now in (2.0, 6.0, 7.0, 8.0)], [1, 1, 0, 0])

    def test_clock_steps_back(self):
        """
        If the clock steps back, what comes is counted and kept no longer than from the latest time seen.
        """
        count = SlidingCount(4.0, 4)
        count.add(10.0)
        self.assertEqual((count.add(3.0), count.total(3.0)), (2, 2))
        self.assertEqual([count.total(now) for now in (14.5, 15.0)], [2, 0])

    def test_refused(self):
        """
        A window without length or without parts is refused.
        """
        for seconds, parts in [(0, 10), (-1.0, 10), (float("nan"), 10), (float("inf"), 10), (1.0, 0)]:
            self.assertIn("above 0", str(self.assertRaises(ValueError, SlidingCount, seconds, parts)))

    def test_repr(self):
        """
        A count shows what it holds.
        """
        count = SlidingCount(2.5)
        count.add(1.0)
        self.assertEqual(repr(count), "<SlidingCount 1 in 2.5 s>")

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.sampled_from([(2.0, 8), (4.0, 4), (8.0, 1)]), PAUSES)
    def test_is_the_window(self, shape, pauses):
        """
        Whatever happens when, all of the last seconds is counted and nothing that is more than a part older.
        """
        seconds, parts = shape
        count, times, now = SlidingCount(seconds, parts), [], 1000.0
        for pause in pauses:
            now += pause
            recent = sum(now - seconds <= time for time in times)
            at_most = sum(now - seconds - seconds / parts < time for time in times)
            self.assertTrue(recent <= count.total(now) <= at_most, (recent, count, at_most))
            times.append(now)
            self.assertEqual(count.add(now), count.total(now))
