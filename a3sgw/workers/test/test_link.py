"""
Tests of asking and answering between processes.
"""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import AssemblyError
from a3sgw.testing import MemoryFrames, MemoryReactor
from a3sgw.workers.link import Link, LinkError, Reply


class LinkTests(SynchronousTestCase):
    """
    Two links that are joined.
    """

    def setUp(self):
        self.reactor = MemoryReactor()
        self.heard = []
        self.waiting = Deferred()
        self.lost = []

        def refuse(asked):
            raise AssemblyError("no")

        def stumble(asked):
            raise ZeroDivisionError("bug")

        self.ours = Link({}, lambda: self.lost.append("ours"))
        self.theirs = Link(
            {
                "note": self.heard.append,
                "echo": lambda asked: Reply(list(asked.arguments), asked.blob),
                "later": lambda asked: self.waiting,
                "refuse": refuse,
                "stumble": stumble,
            },
            lambda: self.lost.append("theirs"),
        )
        MemoryFrames.join(self.reactor, self.ours, self.theirs)

    def ask(self, *arguments, **others):
        answer = self.ours.ask(*arguments, **others)
        self.reactor.settle()
        return answer

    def test_answer(self):
        """What was asked is answered, with text and with bytes."""
        answer = self.successResultOf(self.ask("echo", 1, None, {"a": [2.5]}, blob=b"\xff"))
        self.assertEqual(answer, Reply([1, None, {"a": [2.5]}], b"\xff"))

    def test_what_may_be_lost(self):
        """What may be lost is said, unless the other side has too much to read or is gone."""
        self.assertTrue(self.ours.mention("note", 1, blob=b"x"))
        self.reactor.settle()
        self.assertEqual([(list(asked.arguments), asked.blob) for asked in self.heard], [([1], b"x")])
        self.ours._frames.is_stuck = True
        self.assertFalse(self.ours.mention("note", 2))
        self.ours._frames.is_stuck = False
        self.ours.close()
        self.assertFalse(self.ours.mention("note", 3))
        self.reactor.settle()
        self.assertEqual(len(self.heard), 1)

    def test_late_answers(self):
        """An answer may take its time; others do not wait for it."""
        late = self.ask("later")
        self.successResultOf(self.ask("echo"))
        self.assertNoResult(late)
        self.waiting.callback("at last")
        self.reactor.settle()
        self.assertEqual(self.successResultOf(late), Reply("at last"))

    def test_errors(self):
        """Errors come back as what they are; those that nobody expects are logged where they happened."""
        self.assertEqual(str(self.failureResultOf(self.ask("refuse"), AssemblyError).value), "no")
        self.assertEqual(str(self.failureResultOf(self.ask("stumble"), LinkError).value), "bug")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("nobody answers to 'fly'", str(self.failureResultOf(self.ask("fly"), LinkError).value))
        self.assertEqual(len(self.flushLoggedErrors(LinkError)), 1)

    def test_tell(self):
        """What is told arrives and is not answered; a bug there is logged and costs nothing else."""
        self.ours.tell("stumble")
        self.ours.tell("note", 7, descriptors=[3])
        self.reactor.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([(asked.arguments, asked.descriptors) for asked in self.heard], [([7], [3])])

    def test_cancelled(self):
        """Whoever does not want an answer any more gets none."""
        late = self.ask("later")
        late.addErrback(lambda failure: "given up")
        late.cancel()
        self.assertEqual(self.successResultOf(late), "given up")
        self.waiting.callback("too late")
        self.reactor.settle()
        self.assertIn("0 unanswered", repr(self.ours))

    def test_lost(self):
        """When the link breaks both sides learn it, and so do those who wait for an answer."""
        late = self.ask("later")
        self.theirs.close()
        self.reactor.settle()
        self.failureResultOf(late, LinkError)
        self.failureResultOf(self.ask("echo"), LinkError)
        self.assertEqual(self.lost, ["theirs", "ours"])
        self.assertTrue(self.ours.is_lost)
        self.ours.tell("note")
        self.ours.close()
        self.assertEqual(self.lost, ["theirs", "ours"])
