"""
Tests of what the garbage collector gets to see.
"""

import gc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.settled import SettledMemory


class Node:
    """
    What refers to itself, and tells when it is freed.
    """

    def __init__(self, freed: list["Node | None"]) -> None:
        self.itself: Any = self
        self._freed = freed

    def __del__(self) -> None:
        self._freed.append(None)


class SettledMemoryTests(SynchronousTestCase):
    """
    What was there at a call is out of sight until there is twice as much.
    """

    def setUp(self):
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        self.memory = SettledMemory()
        self.freed: list[Node | None] = []
        self.keep = [Node(self.freed)]
        self.memory.settle()

    def test_out_of_sight(self):
        """
        What lives is no longer looked through, not even when it has died; what came later and died is freed.
        """
        self.assertTrue(gc.get_freeze_count() > 0)
        self.keep.clear()
        gc.collect()
        self.memory.settle()
        self.assertEqual(self.freed, [])
        Node(self.freed)
        self.memory.settle()
        self.assertEqual(len(self.freed), 1)

    def test_again(self):
        """
        When there is twice as much, all is looked through, but not before it was time to count.
        """
        more: list[Any] = [[] for _ in range(gc.get_freeze_count() + 1000)]
        self.memory.settle()
        self.keep.clear()
        for _ in range(self.memory.LOOK_EVERY - 3):
            self.memory.settle()
        self.assertEqual(self.freed, [])
        self.memory.settle()
        self.assertEqual(len(self.freed), 1)
        settled = gc.get_freeze_count()
        for _ in range(self.memory.LOOK_EVERY):
            self.memory.settle()
        self.assertTrue(gc.get_freeze_count() >= settled, "what is there now is the new measure")
        del more

    def test_no_more(self):
        """
        While there is no more than before, nobody looks.
        """
        self.keep.clear()
        for _ in range(self.memory.LOOK_EVERY):
            self.memory.settle()
        self.assertEqual(self.freed, [])

    def test_later(self):
        """
        Others have their turn first, if there are any.
        """
        put_off: list[Any] = []
        SettledMemory(put_off.append).settle()
        Node(self.freed)
        self.assertEqual(self.freed, [])
        (settle,) = put_off
        settle()
        self.assertEqual(len(self.freed), 1)
