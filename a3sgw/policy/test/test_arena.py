"""
Tests of the memory that workers share.
"""

import gc
import os
import resource

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import AssemblyError
from a3sgw.policy import arena as module
from a3sgw.policy.arena import Arena, ArenaFullError, Cells, fit_key, share_of


class ArenaCase(SynchronousTestCase):
    """
    An arena, seen by two workers.
    """

    def setUp(self):
        self.first = Arena.create(2)
        self.addCleanup(self.first.close)
        self.second = self.open(1)

    def open(self, slot):
        arena = Arena(os.dup(self.first.descriptor), slot, 2)
        self.addCleanup(arena.close)
        return arena


class ArenaTests(ArenaCase):
    """
    Who asks for the same name gets the same memory.
    """

    def test_same_name(self):
        """What one writes the other reads, and another name is other memory."""
        mine, yours, other = self.first.take(("a", 1), 64), self.second.take(("a", 1), 64), self.second.take(("a", 2), 64)
        mine.view(8, 8, "d")[0] = 2.5
        self.assertEqual((yours.view(8, 8, "d")[0], other.view(8, 8, "d")[0]), (2.5, 0.0))

    def test_kept_while_anybody_holds_it(self):
        """A region lives as long as anybody has it; then its memory is used anew, and empty."""
        for size in (64, 10_000):
            mine, yours = self.first.take(("a", size), size), self.second.take(("a", size), size)
            offset = mine.offset
            mine.view(0, size, "B")[:] = bytes([7]) * size
            del mine
            gc.collect()
            again = self.first.take(("a", size), size)
            self.assertEqual(again.view(0, size, "B")[5], 7)
            del yours, again
            gc.collect()
            other = self.first.take(("b", size), size)
            self.assertEqual(other.offset, offset)
            self.assertEqual(bytes(other.view(0, size, "B")), bytes(size))

    def test_a_worker_is_gone(self):
        """What a worker counted is forgotten with it, what all count together is not, and what it held is free."""
        cells = Cells(16, 8, 3)
        mine, yours = self.first.take("a", 64, cells), self.second.take("a", 64, cells)
        only_yours = self.second.take("b", 64)
        mine.view(0, 8, "d")[0] = 1.5
        mine.view(16, 24, "I")[:] = yours.view(16, 24, "I")[:] = memoryview(bytes(range(1, 25))).cast("I")
        before = list(mine.view(16, 24, "I"))
        self.first.clear(1)
        self.assertEqual(list(mine.view(16, 24, "I")), [before[0], 0, before[2], 0, before[4], 0])
        self.assertEqual(mine.view(0, 8, "d")[0], 1.5)
        self.assertEqual(self.first.take("c", 64).offset, only_yours.offset)

    def test_full(self):
        """There is an end to it, and it is said."""
        self.assertRaises(ArenaFullError, self.first.take, "a", module._SIZE)
        self.assertRaises(ValueError, Arena, self.first.descriptor, 2, 2)

    def test_cannot_be_had(self):
        """Where there may be no such memory, that is said, and what to do."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        error = self.assertRaises(AssemblyError, Arena.create, 2)
        self.assertIn("cannot be had: File too large; raise the limit of file sizes, or set workers = 1", str(error))

    def test_many(self):
        """Many regions do not get in each other's way."""
        regions = [self.first.take(number, 24) for number in range(500)]
        for number, region in enumerate(regions):
            region.view(0, 24, "Q")[:] = memoryview(number.to_bytes(8, "little") * 3).cast("Q")
        for number in range(500):
            self.assertEqual(list(self.second.take(number, 24).view(0, 24, "Q")), [number] * 3)

    def test_lock_of_one_that_dies(self):
        """The lock of a process that dies is free."""
        region = self.first.take("a", 64)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            region.lock()
            os.write(writing, b"x")
            os.kill(os.getpid(), 9)
        os.read(reading, 1)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)
        region.lock()
        region.unlock()

    def test_keys(self):
        """Any key becomes one of 16 bytes; an address of either family is itself."""
        self.assertEqual(fit_key(b"\1\2\3\4", b"s"), bytes(10) + b"\xff\xff\1\2\3\4")
        self.assertEqual(fit_key(b"a" * 16, b"s"), b"a" * 16)
        self.assertEqual({len(fit_key(key, b"s")) for key in (b"", b"x", b"y" * 100)}, {16})
        self.assertNotEqual(fit_key(b"x", b"s"), fit_key(b"x", b"t"))

    def test_shares(self):
        """Where nobody counts for all, shares add up to the limit, or to a little more."""
        for limit in range(1, 40):
            for workers in range(1, 8):
                self.assertIn(share_of(limit, workers) * workers - limit, range(workers))
