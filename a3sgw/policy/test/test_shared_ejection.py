"""
Tests of the passive verdicts that workers share.
"""

import os
from functools import partial
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.arena import Arena
from a3sgw.policy.ejection import EjectionGroup, EjectionSettings, EjectionState
from a3sgw.policy.shared_ejection import SharedEjection
from a3sgw.policy.shared_machine import Lock
from a3sgw.policy.verdict import Change

SETTINGS = EjectionSettings(consecutive_errors=2, error_threshold=4, window=8.0, base=5.0, maximum=20.0)
WHAT = st.sampled_from(["begin", "good", "bad", "bad", "nothing", "wake"])
# What two workers share they share by name, and the same steps may be tried again.
RUNS = count()
STEPS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), WHAT, st.floats(0, 3)), max_size=80)


class SharedEjectionTests(SynchronousTestCase):
    """
    Two workers that judge three backends.
    """

    def setUp(self):
        arena = Arena.create(2)
        self.addCleanup(arena.close)
        self.arenas = [Arena(os.dup(arena.descriptor), slot, 2) for slot in range(2)]
        for each in self.arenas:
            self.addCleanup(each.close)
        self.now = 1000.0

    def workers(self, name="x", settings=SETTINGS):
        """
        Return the verdicts of each worker.
        """
        found = []
        for arena in self.arenas:
            lock = Lock(arena.take(("lock", name), 8))
            make = partial(SharedEjection, arena=arena, lock=lock, seconds=lambda: self.now)
            group = EjectionGroup(settings, max_ejection_percent=50, make=lambda s, r, n, make=make: make(s, r, (name, n)))
            found.append([group.add(None, number) for number in range(3)])
        return found

    @settings(max_examples=80, deadline=None)
    @given(STEPS)
    def test_like_one_process(self, steps):
        """Whichever worker hears of a request, the verdicts are those that one process would have."""
        group = EjectionGroup(SETTINGS, max_ejection_percent=50)
        alone, shared = [group.add() for _ in range(3)], self.workers(f"run {next(RUNS)}")
        tickets = []
        self.now = 1000.0
        for who, backend, what, passed in steps:
            self.now += passed
            one, other = alone[backend].ejection, shared[who][backend].ejection
            if what == "wake":
                if one.state is EjectionState.EJECTED:
                    self.assertEqual(other.wake(self.now), one.wake(self.now))
            elif what == "begin":
                ticket = one.begin()
                self.assertEqual(other.begin(), ticket)
                tickets.append((backend, ticket))
            elif tickets:
                backend, ticket = tickets.pop(0)
                one, other = alone[backend].ejection, shared[who][backend].ejection
                if what == "nothing":
                    one.abandoned(ticket)
                    other.abandoned(ticket)
                elif what == "good":
                    self.assertEqual(other.succeeded(ticket, self.now), one.succeeded(ticket, self.now))
                else:
                    self.assertEqual(other.failed(ticket, self.now, "x"), one.failed(ticket, self.now, "x"))
            expected = [(each.is_sound, each.is_usable, each.words) for each in alone]
            for worker in shared:
                self.assertEqual([(each.is_sound, each.is_usable, each.words) for each in worker], expected)

    def test_together(self):
        """Failures that two workers see eject, and neither may choose then."""
        one, other = self.workers()
        tickets = [worker[0].ejection.begin() for worker in (one, other)]
        self.assertIsNone(one[0].ejection.failed(tickets[0], 1000.0, "a"))
        self.assertIs(other[0].ejection.failed(tickets[1], 1000.0, "b").change, Change.EJECTED)
        self.assertEqual([worker[0].is_usable for worker in (one, other)], [False, False])
        self.assertEqual(one[0].ejection.until, 1005.0)

    def test_bound(self):
        """No more are set aside than may be, whoever sets them aside."""
        one, other = self.workers()
        changes = []
        for worker, backend in ((one, 0), (other, 1)):
            for _ in range(2):
                changes.append(worker[backend].ejection.failed(worker[backend].ejection.begin(), 1000.0, "x"))
        self.assertEqual([change and change.change for change in changes], [None, Change.EJECTED, None, Change.EJECTION_REFUSED])

    def test_trial_of_one_that_is_gone(self):
        """A trial that nobody will ever report makes room for another after a while."""
        one, other = self.workers()
        for _ in range(2):
            one[0].ejection.failed(one[0].ejection.begin(), 1000.0, "x")
        self.now = 1005.0
        self.assertIs(one[0].ejection.wake(1005.0).change, Change.HALF_OPEN)
        one[0].ejection.begin()
        self.assertFalse(other[0].is_usable)
        self.assertIsNone(other[0].ejection.wake(1009.0))
        self.assertFalse(other[0].is_usable)
        other[0].ejection.wake(other[0].ejection.until)
        self.assertTrue(other[0].is_usable)
        ticket = other[0].ejection.begin()
        self.assertIs(other[0].ejection.succeeded(ticket, 1010.0).change, Change.RESTORED)
        self.assertTrue(one[0].is_sound)

    def test_later_worker(self):
        """One that comes later knows what the others think."""
        (one, _) = self.workers()
        for _ in range(2):
            one[0].ejection.failed(one[0].ejection.begin(), 1000.0, "x")
        self.assertEqual([worker[0].words for worker in self.workers()], ["ejected"] * 2)
