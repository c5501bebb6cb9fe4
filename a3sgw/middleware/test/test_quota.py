"""
Tests of `a3sgw.middleware.quota`.
"""

import json

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome
from a3sgw.message import make_field
from a3sgw.middleware.quota import Quota


def lines(fields):
    """
    Return what stands on the wire, without what every refusal has.
    """
    return [field.line.decode() for field in fields if field.name not in (b"content-type", b"proxy-status")]


class QuotaTests(SynchronousTestCase):
    """
    The numbers themselves.
    """

    def test_rate(self):
        """The rate is per period, and the burst is as large as the rate if it is not given."""
        for rate, period, burst, expected in [(10, 1, None, (10.0, 10)), (10, 60, None, (10 / 60, 10)), (5, 1, 50, (5.0, 50))]:
            quota = Quota(rate, period, burst)
            self.assertEqual((quota.per_second, quota.burst), expected)

    def test_repr(self):
        """A quota shows its numbers."""
        self.assertEqual(repr(Quota(30, 60, 5)), "<Quota 0.5/s, burst 5>")


class AnnounceTests(SynchronousTestCase):
    """
    What clients are told when they were admitted.
    """

    def told(self, *theirs, remaining=4, reset=0.25):
        fields = [make_field(*(part.strip().encode() for part in line.split(":", 1))) for line in theirs]
        Quota(10, 1, None).announce(fields, remaining, reset)
        return lines(fields)

    def test_fields(self):
        """They are told the limit, what is left of it, and in how many whole seconds it is whole again."""
        for remaining, reset, left, seconds in [(9, 0.1, "9", "1"), (0, 12.0, "0", "12"), (10, 0.0, "10", "0")]:
            self.assertEqual(
                self.told("Via: x", remaining=remaining, reset=reset),
                ["Via: x", "RateLimit-Limit: 10", f"RateLimit-Remaining: {left}", f"RateLimit-Reset: {seconds}"],
            )

    def test_names(self):
        """What is added is found again by its name in lower case."""
        fields = []
        Quota(10, 1, None).announce(fields, 1, 1.0)
        self.assertEqual([field.name for field in fields], [b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset"])
        self.assertEqual([field.value for field in fields], [b"10", b"1", b"1"])

    def test_tighter_limit_behind(self):
        """A server that leaves its client fewer requests has its say."""
        for left in ("0", "3", "4"):
            theirs = ["RateLimit-Limit: 5", f"ratelimit-remaining: {left}", "RateLimit-Reset: 7", "Via: x"]
            self.assertEqual(self.told(*theirs), theirs)

    def test_wider_limit_behind(self):
        """One that leaves more, or that says nothing one can read, is talked over, and nothing is told twice."""
        for left in ("5", "1000", "x", "-1", "", "9" * 5000):
            theirs = ["RateLimit-Limit: 5", "Via: x", f"RateLimit-Remaining: {left}", "RateLimit-Reset: 7"]
            self.assertEqual(self.told(*theirs), ["Via: x", "RateLimit-Limit: 10", "RateLimit-Remaining: 4", "RateLimit-Reset: 1"])
        self.assertEqual(self.told("RateLimit-Limit: 5"), ["RateLimit-Limit: 10", "RateLimit-Remaining: 4", "RateLimit-Reset: 1"])


class RefusalTests(SynchronousTestCase):
    """
    What clients are told when they were refused.
    """

    def test_fields(self):
        """Who waits as long as `Retry-After` says does not come too early, and is never asked to come back at once."""
        for wait, seconds in [(0.001, 1), (0.999, 1), (1.0, 1), (1.001, 2), (59.5, 60)]:
            response = Quota(10, 1, None).refusal(b"r-1", wait, 61.5)
            self.assertEqual(
                lines(response.fields),
                [f"Retry-After: {seconds}", "RateLimit-Limit: 10", "RateLimit-Remaining: 0", "RateLimit-Reset: 62"],
            )

    def test_untold(self):
        """Where clients are not told how they stand they still learn when to come back."""
        response = Quota(10, 1, None).refusal(b"r-1", 2.5, None)
        self.assertEqual(lines(response.fields), ["Retry-After: 3"])

    def test_answer(self):
        """It is a 429 that says why."""
        response = Quota(10, 1, None).refusal(b"r-1", 2.5, None)
        self.assertEqual((response.status, response.outcome), (429, Outcome.RATE_LIMITED))
        self.assertEqual(json.loads(response.body), {"error": "Rate limit exceeded", "reason": "rate-limited", "request_id": "r-1"})
        response = Quota(10, 1, None).refusal(b"r-1", 2.5, None, "Rate limit exceeded (distributed)")
        self.assertEqual(json.loads(response.body)["error"], "Rate limit exceeded (distributed)")
