"""
Tests of `a3sgw.policy.budget`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.budget import RetryBudget

# What comes (a request or the wish for a retry), and the pause before it.
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.0, 5.0, 9.75, 11.0])), max_size=150)


def spend(budget, times, now):
    """
    Ask that many times and return how often there was a yes.
    """
    return sum(budget.try_spend(now) for _ in range(times))


class RetryBudgetTests(SynchronousTestCase):
    def test_part_of_the_requests(self):
        """
        As many retries are allowed as the percentage says, not one more and, however it is written, not one less.
        """
        for percent, requests, retries in [(20, 100, 20), (20, 4, 0), (20, 5, 1), (29, 100, 29), (7.5, 40, 3), (9.2, 750, 69), (100, 3, 3)]:
            budget = RetryBudget(percent, 0.0)
            for _ in range(requests):
                budget.request(100.0)
            self.assertEqual(spend(budget, 2 * requests, 100.0), retries, (percent, requests))

    def test_floor(self):
        """
        A few retries are allowed without any request, as many a second as was said, over the whole window.
        """
        for min_per_second, window, retries in [
            (10, 10.0, 100),
            (0.1, 10.0, 1),
            (0.3, 10.0, 3),
            (0.09, 10.0, 0),
            (0, 10.0, 0),
            (2, 3.0, 6),
        ]:
            self.assertEqual(spend(RetryBudget(0, min_per_second, window), 200, 100.0), retries, (min_per_second, window))

    def test_both(self):
        """
        The percentage and the floor add up.
        """
        budget = RetryBudget(50, 1.0, 2.0)
        for _ in range(6):
            budget.request(0.0)
        self.assertEqual(spend(budget, 20, 0.0), 5)

    def test_window(self):
        """
        What was spent can be spent again after a window, and requests from before it allow nothing any more.
        """
        budget = RetryBudget(10, 0.1)
        for _ in range(20):
            budget.request(100.0)
        self.assertEqual(spend(budget, 9, 100.0), 3)
        self.assertEqual(spend(budget, 9, 109.9), 0)
        self.assertEqual(spend(budget, 9, 111.0), 1)

    def test_outage(self):
        """
        When everything fails for a minute and each request would be tried three times more, the servers get a fifth more than came.
        """
        budget = RetryBudget(20, 0.0)
        retries = 0
        for number in range(6000):
            now = number / 100
            budget.request(now)
            retries += spend(budget, 3, now)
        self.assertTrue(1195 <= retries <= 1200, retries)

    def test_good_times(self):
        """
        When one request in ten fails, every failure is tried again.
        """
        budget = RetryBudget(20, 0.0)
        for number in range(3000):
            budget.request(number / 100)
            if number % 10 == 9:
                self.assertTrue(budget.try_spend(number / 100), number)

    def test_refused_settings(self):
        """
        A negative budget, one that is no number, and one without a window are refused.
        """
        for arguments, part in [
            ((-1, 0.0), "percent -1"),
            ((float("nan"), 0.0), "percent nan"),
            ((20, -0.5), "min_per_second -0.5"),
            ((20, float("inf")), "min_per_second inf"),
            ((20, 1.0, 0.0), "window of 0.0"),
        ]:
            self.assertIn(part, str(self.assertRaises(ValueError, RetryBudget, *arguments)))

    def test_repr(self):
        """
        A budget shows what is allowed and what was spent.
        """
        budget = RetryBudget(20, 1)
        budget.request(1.0)
        budget.try_spend(1.0)
        self.assertEqual(repr(budget), "<RetryBudget 20 percent and 1/s: <SlidingCount 1 in 10 s> of <SlidingCount 1 in 10 s>>")

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.sampled_from([0, 20, 50, 150]), st.sampled_from([0.0, 0.25, 1.0]), STEPS)
    def test_amplification(self, percent, min_per_second, steps):
        """
        Whatever comes when, there never were more retries than the percentage of all requests and the floor of all the time allow.
        """
        budget, now, requests, retries = RetryBudget(percent, min_per_second, 8.0), 1000.0, 0, 0
        for is_request, pause in steps:
            now += pause
            if is_request:
                requests += 1
                budget.request(now)
            else:
                retries += budget.try_spend(now)
            self.assertLessEqual(retries, percent / 100 * requests + min_per_second * (now - 1000.0 + 8.0))
