"""
Tests of the buckets that workers share.
"""

import os
import signal
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.arena import Arena
from a3sgw.policy.bucket import Buckets
from a3sgw.policy.shared_bucket import SharedBuckets

KEYS = [b"\1\2\3\4", b"\1\2\3\5", bytes(range(16)), b"", b"a header", b"another " * 30]


class SharedBucketsTests(SynchronousTestCase):
    """
    They decide as buckets of one process do.
    """

    def make(self, rate=10.0, burst=5, max_keys=100, workers=2):
        arena = Arena.create(workers)
        self.addCleanup(arena.close)
        arenas = [Arena(os.dup(arena.descriptor), slot, workers) for slot in range(workers)]
        for each in arenas:
            self.addCleanup(each.close)
        return [SharedBuckets(rate, burst, max_keys, each, "limit") for each in arenas]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(KEYS), st.floats(0, 0.4), st.integers(0, 1)), max_size=60))
    def test_like_one_process(self, steps):
        """Whichever worker is asked, the answer is what one bucket for all would give."""
        alone, shared = Buckets(10.0, 5, 100), self.make()
        now = 1000.0
        for key, passed, who in steps:
            now += passed
            self.assertEqual(shared[who].take(key, now), alone.take(key, now))
            self.assertEqual(shared[1 - who].remaining(key, now), alone.remaining(key, now))
            self.assertEqual(shared[1 - who].reset(key, now), alone.reset(key, now))

    def test_many_keys(self):
        """More keys than there is room for are all served, and the newest are remembered."""
        one, other = self.make(rate=1.0, burst=2, max_keys=50)
        for number in range(1000):
            key = number.to_bytes(4, "big")
            self.assertEqual(one.take(key, 5000.0), 0.0)
            self.assertEqual(other.take(key, 5000.0), 0.0)
            self.assertGreater(one.take(key, 5000.0), 0.0)
        self.assertLessEqual(len(one), 104)

    def test_few_are_forgotten(self):
        """As many keys as are to be remembered are, nearly all."""
        one, other = self.make(rate=1.0, burst=1, max_keys=1000)
        keys = [number.to_bytes(4, "big") for number in range(1000)]
        for key in keys:
            one.take(key, 5000.0)
        self.assertLess(sum(other.take(key, 5000.0) == 0.0 for key in keys), 60)

    def test_wrong_numbers(self):
        """Limits that admit nobody are refused."""
        for arguments in ((0.0, 1, 1), (1.0, 0, 1), (1.0, 1, 0)):
            self.assertRaises(ValueError, SharedBuckets, *arguments, None, "x")

    def test_exact_among_processes(self):
        """Four processes that ask as quickly as they can are admitted what one would be, within two in a hundred."""
        workers, rate, seconds, burst = 4, 2000.0, 0.5, 100
        (buckets, *_) = self.make(rate=rate, burst=burst, workers=workers)
        reading, writing = os.pipe()
        begin = time.monotonic() + 0.05
        children = []
        for _ in range(workers):
            pid = os.fork()
            if pid == 0:
                admitted = 0
                while time.monotonic() < begin:
                    pass
                while (now := time.monotonic()) < begin + seconds:
                    admitted += not buckets.take(b"\1\2\3\4", now)
                os.write(writing, b"%8d" % admitted)
                os.kill(os.getpid(), signal.SIGKILL)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            counts = stream.read().split()
        self.assertEqual(len(counts), workers)
        # Never more; fewer only if nobody asked in time, which this test cannot help on a busy machine.
        self.assertLessEqual(sum(map(int, counts)), burst + rate * seconds * 1.02)
        self.assertGreater(sum(map(int, counts)), burst)
