"""
Tests of how problems word things.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.tree import Position, Scalar
from a3sgw.config.wording import Suggester, item_path, quote, quote_all, show

_PLACE = Position("gw.hcl", 1, 1)


class WordingTests(SynchronousTestCase):
    """
    Paths, quotes and values.
    """

    def test_item_path(self):
        """
        A name that would not read as one word stands in brackets.
        """
        self.assertEqual(item_path("routers", "api-1"), "routers.api-1")
        self.assertEqual(item_path("routers", "a.b"), 'routers["a.b"]')

    def test_quote(self):
        """
        What is quoted stays on one line and is not endless.
        """
        self.assertEqual(quote('a"b\n'), '"a\\"b\\n"')
        self.assertLess(len(quote("x" * 5000)), 100)
        self.assertEqual(quote_all(["a", 1]), '"a", 1')

    def test_show(self):
        """
        A value is shown as written, but no secret and nothing from elsewhere.
        """
        cases = [
            (Scalar("a", _PLACE), False, '"a"'),
            (Scalar(5, _PLACE), False, "5"),
            (Scalar(True, _PLACE), False, "true"),
            (Scalar(None, _PLACE), False, "null"),
            (Scalar("a", _PLACE, True), False, "a value from the environment or a file"),
            (Scalar("a", _PLACE), True, "a hidden value"),
            (Scalar("a", _PLACE, True), True, "a hidden value"),
        ]
        for scalar, is_secret, expected in cases:
            self.assertEqual(show(scalar, is_secret), expected)


class SuggesterTests(SynchronousTestCase):
    """
    `Suggester` guesses what was meant, and not for ever.
    """

    def test_nearest(self):
        """
        The nearest word is found, letter case and dashes forgiven first; nothing is made of nonsense.
        """
        words = ["backend", "Front-End", "redis"]
        for word, expected in (("bakend", "backend"), ("front_end", "Front-End"), ("zzzzzz", None), ("", None)):
            self.assertEqual(Suggester().nearest(word, words), expected, word)

    def test_hint(self):
        """
        A guess is offered as a question.
        """
        self.assertEqual(Suggester().hint("bakend", ["backend"]), '; did you mean "backend"?')
        self.assertEqual(Suggester().hint("zzz", ["backend"]), "")

    def test_bound(self):
        """
        After some guesses there are no more, so that ten thousand mistakes cost no more than fifty.
        """
        suggester = Suggester(limit=2)
        self.assertEqual([suggester.nearest("bakend", ["backend"]) for _ in range(3)], ["backend", "backend", None])
