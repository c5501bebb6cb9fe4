"""
Tests of the circuit breaker that workers share.
"""

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.arena import Arena
from a3sgw.policy.breaker import Breaker, BreakerState
from a3sgw.policy.shared_breaker import SharedBreaker

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
WHAT = st.sampled_from(["ask", "good", "bad", "nothing", "state", "wait"])
STEPS = st.lists(st.tuples(st.integers(0, 1), WHAT, st.floats(0, 2)), max_size=80)


class SharedBreakerTests(SynchronousTestCase):
    """
    Two workers with one breaker.
    """

    def setUp(self):
        arena = Arena.create(2)
        self.addCleanup(arena.close)
        self.arenas = [Arena(os.dup(arena.descriptor), slot, 2) for slot in range(2)]
        for each in self.arenas:
            self.addCleanup(each.close)

    def make(self, *arguments, name="x", **named):
        return [SharedBreaker(*arguments, arena=arena, name=name, **named) for arena in self.arenas]

    def check_like_one(self, steps, *arguments, **named):
        alone, shared = Breaker(*arguments, **named), self.make(*arguments, name=repr(steps), **named)
        tickets = []
        now = 1000.0
        for who, what, passed in steps:
            now += passed
            breaker = shared[who]
            if what == "ask":
                ticket = alone.admit(now)
                # A trial that is never heard of again is another matter.
                if ticket is not None or now - breaker._last_trial < breaker.cooldown or alone.state(now) is not HALF_OPEN:
                    self.assertEqual(breaker.admit(now), ticket)
                if ticket is not None:
                    tickets.append(ticket)
            elif what == "state":
                self.assertIs(breaker.state(now), alone.state(now))
            elif what == "wait":
                self.assertEqual(breaker.retry_after(now), alone.retry_after(now))
            elif tickets:
                ticket = tickets.pop(0)
                if what == "nothing":
                    alone.withdraw(ticket)
                    breaker.withdraw(ticket)
                else:
                    self.assertEqual(breaker.report(ticket, what == "bad", now), alone.report(ticket, what == "bad", now))
            self.assertEqual([each.state(now) for each in shared], [alone.state(now)] * 2)
            self.assertEqual([each.epoch for each in shared], [alone.epoch] * 2)

    @settings(max_examples=60, deadline=None)
    @given(STEPS)
    def test_like_one_process(self, steps):
        """Whichever worker is asked or told, the circuit is that of one process."""
        self.check_like_one(steps, 2, 3.0, 2)

    @settings(max_examples=40, deadline=None)
    @given(STEPS)
    def test_like_one_process_by_ratio(self, steps):
        """So with shares of failures."""
        self.check_like_one(steps, 1, 3.0, failure_ratio=0.5, window=5.0, min_requests=3)

    def test_failures_add_up(self):
        """Failures in a row are those of all, and a success of any of them ends the row."""
        one, other = self.make(3, 10.0)
        for breaker in (one, other):
            self.assertFalse(breaker.report(breaker.admit(0.0), True, 0.0))
        self.assertFalse(one.report(one.admit(0.0), False, 0.0))
        for breaker in (one, other):
            breaker.report(breaker.admit(0.0), True, 0.0)
        self.assertTrue(one.report(one.admit(0.0), True, 0.0))
        self.assertEqual((other.admit(1.0), other.state(1.0)), (None, OPEN))
        self.assertEqual((one.is_own, other.is_own), (True, False))

    def test_trial_of_one_that_is_gone(self):
        """A trial that nobody will ever report makes room for another when it has had its time."""
        one, other = self.make(1, 10.0)
        one.report(one.admit(0.0), True, 0.0)
        self.assertIsNotNone(one.admit(10.0))
        self.assertIsNone(other.admit(19.0))
        ticket = other.admit(20.0)
        self.assertTrue(other.report(ticket, False, 20.0))
        self.assertIs(one.state(20.0), CLOSED)

    def test_later_worker(self):
        """One that comes later finds the circuit as it is."""
        (one, _) = self.make(1, 10.0)
        one.report(one.admit(0.0), True, 0.0)
        late = SharedBreaker(1, 10.0, arena=self.arenas[1], name="x")
        self.assertIs(late.state(1.0), OPEN)

    def test_told(self):
        """Whoever changes the state says so, and only he."""
        told = []
        one, other = self.make(1, 10.0, changed=lambda before, after: told.append((before, after)))
        one.report(one.admit(0.0), True, 0.0)
        other.state(0.0)
        other.report(other.admit(10.0), False, 10.0)
        one.state(10.0)
        self.assertEqual(told, [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)])
