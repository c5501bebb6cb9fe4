"""
Tests for `a3sgw.policy.slots`.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.slots import Admission, Slots

ACQUIRED, QUEUED, FULL = Admission.ACQUIRED, Admission.QUEUED, Admission.FULL


class SlotsTests(SynchronousTestCase):
    """
    `Slots` gives out places and keeps a queue.
    """

    def fill(self, limit, waiting, **options):
        """
        Return slots with everything taken and that many tokens waiting, named from `a` on, all since 0.
        """
        slots = Slots(limit, max_waiting=10, patience=5.0, **options)
        for number in range(limit):
            self.assertIs(slots.acquire(number, 0.0), ACQUIRED)
        for token in "abcdefghij"[:waiting]:
            self.assertIs(slots.acquire(token, 0.0), QUEUED)
        return slots

    def test_admission(self):
        """There are places, then places in the queue, then neither."""
        slots = Slots(2, max_waiting=1, patience=5.0)
        self.assertEqual([slots.acquire(token, 0.0) for token in "abcd"], [ACQUIRED, ACQUIRED, QUEUED, FULL])
        self.assertEqual((slots.in_use, slots.waiting), (2, 1))
        self.assertEqual(repr(slots), "<Slots 2 of 2 in use, 1 of 1 waiting>")

    def test_no_queue(self):
        """Without room for waiting, whoever finds no place is refused at once."""
        slots = Slots(1)
        self.assertEqual([slots.acquire(token, 0.0) for token in "ab"], [ACQUIRED, FULL])
        self.assertIsNone(slots.release())
        self.assertIs(slots.acquire("b", 0.0), ACQUIRED)

    def test_first_come_first_served(self):
        """Each place given back goes to the one who has waited longest, and is free only when nobody waits."""
        slots = self.fill(2, 3)
        self.assertEqual([slots.release() for _ in range(3)], ["a", "b", "c"])
        self.assertEqual((slots.in_use, slots.waiting), (2, 0))
        self.assertIsNone(slots.release())
        self.assertEqual(slots.in_use, 1)

    def test_nobody_overtakes(self):
        """A place that was handed on is not there for a newcomer."""
        slots = self.fill(1, 1)
        self.assertEqual(slots.release(), "a")
        self.assertIs(slots.acquire("b", 0.0), QUEUED)

    def test_leaving(self):
        """A token that leaves the queue, from wherever in it, is passed over; its room in the queue is free."""
        slots = self.fill(1, 10)
        self.assertIs(slots.acquire("k", 0.0), FULL)
        self.assertTrue(slots.leave("e"))
        self.assertFalse(slots.leave("e"))
        self.assertIs(slots.acquire("k", 0.0), QUEUED)
        self.assertTrue(slots.leave("a"))
        self.assertEqual([slots.release() for _ in range(9)], list("bcdfghijk"))

    def test_leaving_with_a_place(self):
        """A token that was given a place does not lose it by leaving."""
        slots = self.fill(1, 1)
        self.assertEqual(slots.release(), "a")
        self.assertFalse(slots.leave("a"))
        self.assertEqual(slots.in_use, 1)

    def test_expired(self):
        """Those who have waited long enough are given up, the first come first, and nobody before the time."""
        slots = Slots(0, max_waiting=10, patience=5.0)
        self.assertIsNone(slots.deadline)
        for now, token in enumerate("abc"):
            slots.acquire(token, float(now))
        self.assertEqual(slots.deadline, 5.0)
        self.assertEqual(slots.expired(4.999), [])
        self.assertEqual(slots.expired(6.0), ["a", "b"])
        self.assertEqual(slots.deadline, 7.0)
        self.assertEqual(slots.expired(100.0), ["c"])
        self.assertEqual((slots.waiting, slots.in_use), (0, 0))

    def test_new_patience(self):
        """A new patience is for those who come after it."""
        slots = Slots(0, max_waiting=10, patience=5.0)
        slots.acquire("a", 0.0)
        slots.patience = 9.0
        slots.acquire("b", 0.0)
        self.assertEqual(slots.expired(5.0), ["a"])
        self.assertEqual(slots.expired(9.0), ["b"])

    def test_more_places(self):
        """When the limit rises, as many as fit are given places."""
        slots = self.fill(1, 4)
        self.assertEqual(slots.resize(3), ["a", "b"])
        self.assertEqual(slots.resize(9), ["c", "d"])
        self.assertEqual((slots.in_use, slots.limit), (5, 9))

    def test_fewer_places(self):
        """When the limit falls, places that come free go to nobody until it is kept."""
        slots = self.fill(3, 2)
        self.assertEqual(slots.resize(1), [])
        self.assertEqual([slots.release() for _ in range(4)], [None, None, "a", "b"])
        self.assertEqual(slots.in_use, 1)

    def test_from_zero(self):
        """With no place at all everybody waits; the first places wake them in order."""
        slots = Slots(0, max_waiting=2, patience=5.0)
        self.assertEqual([slots.acquire(token, 0.0) for token in "abc"], [QUEUED, QUEUED, FULL])
        self.assertEqual(slots.resize(1), ["a"])

    def test_drain(self):
        """On shutdown everybody who waits is let go, and those with a place keep it."""
        slots = self.fill(2, 3)
        self.assertEqual(slots.drain(), ["a", "b", "c"])
        self.assertEqual((slots.waiting, slots.in_use), (0, 2))
        self.assertIsNone(slots.release())

    def test_mistakes(self):
        """A place given back twice, a token that waits twice, and negative bounds are errors."""
        slots = self.fill(1, 1)
        self.assertRaises(ValueError, slots.acquire, "a", 0.0)
        slots.drain()
        slots.release()
        self.assertRaises(RuntimeError, slots.release)
        self.assertRaises(ValueError, slots.resize, -1)
        for wrong in [{"limit": -1}, {"limit": 1, "max_waiting": -1}, {"limit": 1, "patience": -0.1}]:
            self.assertRaises(ValueError, Slots, **wrong)


class SlotsMachine(RuleBasedStateMachine):
    """
    The same as `Slots` with plain lists, side by side.
    """

    def __init__(self):
        super().__init__()
        self.slots = Slots(2, max_waiting=4, patience=5.0)
        self.holding = []
        self.queue = []
        self.now = 0.0
        self.token = 0

    @rule()
    def acquire(self):
        self.token += 1
        admission = self.slots.acquire(self.token, self.now)
        if len(self.holding) < self.slots.limit:
            assert admission is ACQUIRED
            self.holding.append(self.token)
        elif len(self.queue) < 4:
            assert admission is QUEUED
            self.queue.append((self.token, self.now + 5.0))
        else:
            assert admission is FULL

    def admit(self):
        while self.queue and len(self.holding) < self.slots.limit:
            self.holding.append(self.queue.pop(0)[0])

    @precondition(lambda self: self.holding)
    @rule(position=st.integers(0, 20))
    def release(self, position):
        self.holding.pop(position % len(self.holding))
        before = list(self.holding)
        self.admit()
        assert [self.slots.release()] == (self.holding[len(before) :] or [None])

    @precondition(lambda self: self.queue)
    @rule(position=st.integers(0, 20))
    def leave(self, position):
        token, _ = self.queue.pop(position % len(self.queue))
        assert self.slots.leave(token)

    @rule(seconds=st.sampled_from([1.0, 3.0, 5.0]))
    def wait(self, seconds):
        self.now += seconds
        late = [token for token, deadline in self.queue if deadline <= self.now]
        self.queue = [pair for pair in self.queue if pair[1] > self.now]
        assert self.slots.expired(self.now) == late

    @rule(limit=st.integers(0, 4))
    def resize(self, limit):
        before = len(self.holding)
        admitted = self.slots.resize(limit)
        self.admit()
        assert admitted == self.holding[before:]

    @rule()
    def drain(self):
        assert self.slots.drain() == [token for token, _ in self.queue]
        self.queue = []

    @invariant()
    def counts_agree(self):
        assert self.slots.in_use == len(self.holding)
        assert self.slots.waiting == len(self.queue)
        assert self.slots.deadline == (self.queue[0][1] if self.queue else None)

    @invariant()
    def nobody_waits_beside_a_free_place(self):
        assert not self.queue or self.slots.in_use >= self.slots.limit


class SlotsMachineTests(SynchronousTestCase):
    """
    `Slots` in any order of things.
    """

    def test_agrees(self):
        """Whatever happens in whatever order, places and queue are what plain lists say."""
        run_state_machine_as_test(
            SlotsMachine, settings=settings(deadline=None, max_examples=80, stateful_step_count=40, derandomize=True, database=None)
        )
