"""
Tests of the places that workers give out together.
"""

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.arena import Arena
from a3sgw.policy.shared_slots import KeyCounter, SharedCount, SharedSlots, SharedTally
from a3sgw.policy.slots import Admission

A, B = bytes(16), b"b" * 16


class SharedCase(SynchronousTestCase):
    """
    Three workers.
    """

    def setUp(self):
        arena = Arena.create(3)
        self.addCleanup(arena.close)
        self.arenas = [Arena(os.dup(arena.descriptor), slot, 3) for slot in range(3)]
        for each in self.arenas:
            self.addCleanup(each.close)


class CountTests(SharedCase):
    """
    Numbers that all add to.
    """

    def test_limit(self):
        """All together have no more than the limit."""
        counts = [SharedCount(arena, "x") for arena in self.arenas]
        self.assertEqual([count.take(2) for count in counts], [True, True, False])
        counts[0].give()
        self.assertEqual([count.take(2) for count in reversed(counts)], [True, False, False])
        self.assertEqual([(count.total, count.others) for count in counts], [(2, 2), (2, 1), (2, 1)])

    def test_set(self):
        """A worker may say how many it has."""
        one, other, _ = (SharedCount(arena, "x") for arena in self.arenas)
        one.set(5)
        self.assertEqual((other.total, other.take(5), other.take(6)), (5, False, True))

    def test_worker_gone(self):
        """What a worker had that is gone is free."""
        one, other, _ = (SharedCount(arena, "x") for arena in self.arenas)
        self.assertTrue(one.take(1))
        self.assertFalse(other.take(1))
        self.arenas[2].clear(0)
        self.assertTrue(other.take(1))

    def test_tally(self):
        """Each key has a number of its own, and a place of it that is not used is another's."""
        tallies = [SharedTally(arena, "x") for arena in self.arenas]
        counters = {(who, key): KeyCounter(tally, key) for who, tally in enumerate(tallies) for key in (A, B)}
        self.assertEqual([counters[who, A].take(2) for who in range(3)], [True, True, False])
        self.assertTrue(counters[2, B].take(1))
        counters[1, A].give()
        self.assertTrue(counters[2, A].take(2))
        self.arenas[0].clear(2)
        self.assertTrue(counters[0, B].take(1))

    def test_tally_forgets(self):
        """Any number of keys may come one after the other."""
        tally = SharedTally(self.arenas[0], "x")
        for number in range(50_000):
            place = tally.take(number.to_bytes(16, "big"), 1)
            self.assertGreaterEqual(place, 0)
            tally.give(place)

    def test_crowded_tally(self):
        """What there is no room for is let in and not counted."""
        tally = SharedTally(self.arenas[0], "x")
        places = [tally.take(number.to_bytes(16, "big"), 1) for number in range(3 * SharedTally.MANY)]
        self.assertIn(-1, places)
        taken = [place for place in places if place >= 0]
        self.assertEqual(len(set(taken)), len(taken))
        # Where a key may go is chance, so that a few places may be no key's.
        self.assertLessEqual(SharedTally.MANY - 16, len(taken))
        for place in places:
            tally.give(place)
        self.assertEqual(tally.take(A, 1) is None, False)


class SlotsTests(SharedCase):
    """
    Places and queues.
    """

    def make(self, limit=2, max_waiting=3):
        return [SharedSlots(limit, SharedCount(arena, "x"), SharedCount(arena, "y"), max_waiting=max_waiting) for arena in self.arenas]

    def test_queue(self):
        """Who waits is let in when somebody leaves, at once in the same worker and upon looking in another."""
        one, other, _ = self.make(limit=1)
        self.assertEqual(one.acquire("a", 0.0), Admission.ACQUIRED)
        self.assertEqual([one.acquire("b", 0.0), other.acquire("c", 0.0)], [Admission.QUEUED] * 2)
        self.assertEqual(one.release(), "b")
        self.assertEqual(other.resize(1), [])
        self.assertIsNone(one.release())
        self.assertEqual(other.resize(1), ["c"])

    def test_nobody_overtakes(self):
        """A newcomer does not get the place for which another waits in the same worker."""
        one, other, _ = self.make(limit=1)
        one.acquire("a", 0.0)
        other.acquire("b", 0.0)
        one.release()
        self.assertEqual(other.acquire("c", 0.0), Admission.QUEUED)
        self.assertEqual(other.resize(1), ["b"])

    def test_full(self):
        """A queue has its bound, and nobody gives back what he has not."""
        one, other, _ = self.make(limit=0, max_waiting=1)
        self.assertEqual([one.acquire("a", 0.0), one.acquire("b", 0.0)], [Admission.QUEUED, Admission.FULL])
        self.assertEqual(other.acquire("a", 0.0), Admission.FULL)
        self.assertRaises(RuntimeError, one.release)
        self.assertTrue(one.leave("a"))
        self.assertEqual(other.acquire("a", 0.0), Admission.QUEUED)
        self.assertEqual(other.expired(1.0), ["a"])
        self.assertEqual(one.acquire("a", 0.0), Admission.QUEUED)
        self.assertEqual(one.drain(), ["a"])
        self.assertEqual(other.acquire("a", 0.0), Admission.QUEUED)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["come", "leave", "look", "go"])), max_size=60))
    def test_any_order(self, steps):
        """Whatever happens, there are never more than the limit, and no place is lost."""
        name = object.__repr__(steps)
        workers = [SharedSlots(2, SharedCount(arena, name), SharedCount(arena, ("queue", name)), max_waiting=3) for arena in self.arenas]
        for number, (who, what) in enumerate(steps):
            slots = workers[who]
            if what == "come":
                slots.acquire(number, 0.0)
            elif what == "leave" and slots.in_use:
                slots.release()
            elif what == "look":
                slots.resize(2)
            elif slots.waiting:
                slots.leave(slots.tokens()[0])
            self.assertLessEqual(sum(each.in_use for each in workers), 2)
            self.assertLessEqual(sum(each.waiting for each in workers), 3)
        for each in workers:
            each.drain()
            while each.in_use:
                each.release()
        self.assertEqual([each.acquire("x", 0.0) for each in workers], [Admission.ACQUIRED] * 2 + [Admission.QUEUED])
        for each in workers:
            each.drain()
            while each.in_use:
                each.release()
