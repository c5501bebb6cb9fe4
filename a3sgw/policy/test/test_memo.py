"""
Tests of what is remembered.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.memo import Memo


class MemoTests(SynchronousTestCase):
    """
    `Memo` remembers some answers for some time.
    """

    def test_span(self):
        """An answer is known in its span only, and once out of it never again."""
        for now, expected in [(9.9, None), (10.0, "yes"), (19.9, "yes"), (20.0, None)]:
            memo = Memo(4)
            memo.put(b"k", "yes", 10.0, 20.0)
            self.assertEqual(memo.get(b"k", now), expected, now)
            self.assertEqual(memo.get(b"k", 15.0), expected, now)
            self.assertIsNone(memo.get(b"other", 15.0))

    def test_bound(self):
        """When it is full the oldest answer goes, and one that is put again is young again."""
        memo = Memo(3)
        for key in (b"a", b"b", b"c", b"a", b"d"):
            memo.put(key, key, 0.0, 9.0)
        self.assertEqual([memo.get(key, 1.0) for key in (b"a", b"b", b"c", b"d")], [b"a", None, b"c", b"d"])
        self.assertEqual(len(memo), 3)
        self.assertEqual(repr(memo), "<Memo 3 of 3>")

    def test_nothing_to_keep(self):
        """A span without time is not kept, nor anything where there is no room."""
        memo = Memo(3)
        memo.put(b"k", "yes", 5.0, 5.0)
        self.assertEqual(len(memo), 0)
        nothing = Memo(0)
        nothing.put(b"k", "yes", 0.0, 5.0)
        self.assertEqual(len(nothing), 0)

    def test_clear(self):
        """What is cleared is forgotten."""
        memo = Memo(3)
        memo.put(b"k", "yes", 0.0, 5.0)
        memo.clear()
        self.assertIsNone(memo.get(b"k", 1.0))
