"""
Tests of the sweep over all deadlines.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.net.deadline import NEVER, Deadlines


class Watched:
    """
    Something with a deadline; `passed` are the moments at which it was told, `then` is what it does about it.
    """

    def __init__(self, clock, deadline, then=lambda: None):
        self.deadline = deadline
        self.passed = []
        self._clock = clock
        self._then = then

    def deadline_passed(self):
        self.passed.append(self._clock.seconds())
        self._then()


class DeadlinesTests(SynchronousTestCase):
    """
    `Deadlines` tells whoever is late.
    """

    def setUp(self):
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, self.clock.seconds)
        self.deadlines.start()

    def tearDown(self):
        self.deadlines.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def watch(self, deadline, then=lambda: None):
        watched = Watched(self.clock, deadline, then)
        self.deadlines.add(watched)
        return watched

    def pass_time(self, seconds):
        self.clock.pump([0.25] * int(seconds * 4))

    def test_passed(self):
        """A deadline is met at most half a second late, and once."""
        watched = self.watch(2.0)
        self.pass_time(1.75)
        self.assertEqual(watched.passed, [])
        self.pass_time(10)
        self.assertEqual(len(watched.passed), 1)
        self.assertLessEqual(watched.passed[0], 2.0 + Deadlines.INTERVAL)
        self.assertEqual(watched.deadline, NEVER)

    def test_never(self):
        """What has no deadline is left alone for ever."""
        watched = self.watch(NEVER)
        self.pass_time(1000)
        self.assertEqual(watched.passed, [])

    def test_moved(self):
        """A deadline that is moved counts from where it was moved to, without another call."""
        watched = self.watch(2.0)
        for _ in range(10):
            self.pass_time(1)
            watched.deadline = self.clock.seconds() + 2.0
        self.assertEqual(watched.passed, [])
        self.pass_time(3)
        self.assertEqual(len(watched.passed), 1)

    def test_set_again_when_it_passes(self):
        """Who is told may set the next deadline at once."""
        watched = self.watch(1.0, lambda: setattr(watched, "deadline", self.clock.seconds() + 1.0))
        self.pass_time(6)
        self.assertEqual(len(watched.passed), 6)

    def test_discarded(self):
        """What is discarded is not told, and discarding twice is no mistake."""
        watched = self.watch(1.0)
        self.assertEqual((len(self.deadlines), self.deadlines.watched()), (1, [watched]))
        self.deadlines.discard(watched)
        self.deadlines.discard(watched)
        self.pass_time(5)
        self.assertEqual(watched.passed, [])
        self.assertEqual(len(self.deadlines), 0)

    def test_changes_during_the_sweep(self):
        """One that is told may discard, move and add others: a neighbour that was moved in time is not told."""
        one = self.watch(1.0, lambda: self.rescue(other))
        other = self.watch(1.0, lambda: self.rescue(one))
        self.pass_time(3)
        # The set has no order, but only the first of the two can have been told.
        self.assertEqual(sorted([len(one.passed), len(other.passed)]), [0, 1])

    def test_discarded_during_the_sweep(self):
        """A neighbour that one who is told discards is not told, be it as late as he."""
        for end in (lambda: self.pass_time(3), lambda: self.deadlines.close()):
            pair = []
            pair.append(self.watch(1.0, lambda pair=pair: self.deadlines.discard(pair[1])))
            pair.append(self.watch(1.0, lambda pair=pair: self.deadlines.discard(pair[0])))
            one, other = pair
            end()
            self.assertEqual(sorted([len(one.passed), len(other.passed)]), [0, 1])

    def rescue(self, watched):
        watched.deadline = NEVER
        self.deadlines.discard(watched)
        self.watch(NEVER)

    def test_bug_costs_only_itself(self):
        """One that fails is reported, and the others are told all the same, then and later."""

        def fail():
            raise ZeroDivisionError

        self.watch(1.0, fail)
        others = [self.watch(1.0) for _ in range(5)] + [self.watch(4.0)]
        self.pass_time(6)
        self.assertEqual([len(other.passed) for other in others], [1] * 6)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopped(self):
        """After `stop` nobody is told, and there is nothing left to cancel."""
        watched = self.watch(1.0)
        self.deadlines.stop()
        self.deadlines.stop()
        self.pass_time(5)
        self.assertEqual(watched.passed, [])

    def test_closed(self):
        """`close` cuts short the time of everything that is left, even if one of them fails."""

        def fail():
            raise ZeroDivisionError

        watched = [self.watch(100.0, fail if number == 2 else lambda: None) for number in range(5)] + [self.watch(NEVER)]
        self.deadlines.close()
        self.assertEqual([len(each.passed) for each in watched], [1] * 6)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
