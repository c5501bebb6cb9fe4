"""
Tests of `a3sgw.steps`.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.steps import finish


class FinishTests(SynchronousTestCase):
    """
    All steps in one go.
    """

    def test_result(self):
        """
        Every step is gone, and what they come to is returned.
        """
        gone = []

        def steps():
            for step in range(3):
                gone.append(step)
                yield
            return "done"

        self.assertEqual(finish(steps()), "done")
        self.assertEqual(gone, [0, 1, 2])

    def test_failure(self):
        """
        The failure of a step is the failure of all.
        """

        def steps():
            yield
            raise ValueError("no more")

        self.assertRaises(ValueError, finish, steps())
