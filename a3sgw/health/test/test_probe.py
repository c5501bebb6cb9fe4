"""
Tests of the probes of one server.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.health.probe import Probe
from a3sgw.health.test.questions import FakeQuestion, FixedChance
from a3sgw.policy.verdict import ProbeVerdict


class ProbeTests(SynchronousTestCase):
    """
    A question is asked again and again, until somebody says that it is enough.
    """

    def setUp(self):
        self.clock = Clock()
        self.chance = FixedChance()
        self.question = FakeQuestion()
        self.told = []
        self.probe = Probe(self.question, 10.0, ProbeVerdict(3, 2), self.changed, self.clock.callLater, self.chance)

    def changed(self, probe):
        self.assertIs(probe, self.probe)
        self.told.append((probe.verdict.is_healthy, probe.reason))

    def pause(self):
        """
        Return how long it is until the next question, which must be the only thing that is to come.
        """
        (call,) = self.clock.getDelayedCalls()
        return round(call.getTime() - self.clock.seconds(), 6)

    def give(self, *objections):
        """
        Answer the questions to come.
        """
        for objection in objections:
            self.clock.advance(self.pause())
            self.question.answer(objection)

    def test_first(self):
        """The first question comes after the time that is given."""
        self.probe.start(0.25)
        self.clock.advance(0.2)
        self.assertEqual(self.question.asked, [])
        self.clock.advance(0.05)
        self.assertEqual(len(self.question.asked), 1)

    def test_pauses(self):
        """From one answer to the next question is the interval, up to a tenth shorter or longer; until then nothing is asked."""
        self.probe.start(0.0)
        for chance, pause in [(0.0, 9.0), (0.5, 10.0), (0.75, 10.5), (1.0, 11.0)]:
            self.clock.advance(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds())
            self.clock.advance(3.0)
            self.assertEqual(self.clock.getDelayedCalls(), [], "one question at a time")
            self.chance.value = chance
            self.question.answer()
            self.assertEqual(self.pause(), pause)

    def test_unhealthy_and_healthy_again(self):
        """Only so many answers in a row as are configured change the verdict, and each change is told once, with its reason."""
        self.probe.start(0.0)
        self.give("status 503", "status 503", "", "status 503", "status 500")
        self.assertEqual(self.told, [])
        self.give("connect-refused")
        self.assertEqual(self.told, [(False, "3 probes in a row failed, at last: connect-refused")])
        self.give("connect-refused", "connect-refused", "", "connect-refused", "")
        self.assertEqual(len(self.told), 1)
        self.give("")
        self.assertEqual(self.told[1:], [(True, "2 probes in a row succeeded")])

    def test_stop(self):
        """When it is enough, nothing is asked any more, and what was being asked is given up."""
        self.probe.stop()
        self.probe.start(1.0)
        self.probe.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.probe.start(0.0)
        self.clock.advance(0.0)
        self.probe.stop()
        self.assertEqual((self.question.given_up, self.clock.getDelayedCalls(), self.told), (1, [], []))
        self.probe.stop()

    def test_stopped_by_who_is_told(self):
        """Who is told of a change may stop the probe."""
        self.probe._changed = lambda probe: probe.stop()
        self.probe.start(0.0)
        self.give("a", "b", "c")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bug_in_the_question(self):
        """A question that cannot even be asked is logged, counts as failed, and is asked again."""
        self.probe.start(0.0)
        self.question.fault = ZeroDivisionError()
        for _ in range(3):
            self.clock.advance(self.pause())
        self.assertEqual(self.told, [(False, "3 probes in a row failed, at last: internal-error")])
        self.question.fault = None
        self.give("", "")
        self.assertEqual(self.told[1:], [(True, "2 probes in a row succeeded")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_bug_in_who_is_told(self):
        """If telling fails, that is logged, and probing goes on."""

        def fail(probe):
            raise ZeroDivisionError

        self.probe._changed = fail
        self.probe.start(0.0)
        self.give("a", "b", "c", "d")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.pause(), 10.0)

    def test_repr(self):
        """A probe says what it thinks and does."""
        self.assertIn("healthy, 0 against>, stopped>", repr(self.probe))
        self.probe.start(0.0)
        self.assertIn("pausing>", repr(self.probe))
        self.clock.advance(0.0)
        self.assertIn("asking>", repr(self.probe))
