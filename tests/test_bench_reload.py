"""
The bench of reloads measures what it says.
"""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from contrib.bench.load import Load
from contrib.bench.reload import Pause, Rounds
from tests.support import missing

_CHECKOUT = Path(__file__).resolve().parent.parent


class ReloadBenchTests(SynchronousTestCase):
    """
    Reloads under a short load.
    """

    skip = missing("nginx", "wrk")

    def test_short(self):
        """
        A few reloads under load fail no request, and all are taken over.
        """
        command = [sys.executable, "-m", "contrib.bench.reload", "--seconds", "3", "--reloads", "3", "--routers", "200"]
        done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=120)
        self.assertNotIn("void", done.stderr)
        self.assertNotIn("were taken over", done.stderr)
        self.assertRegex(done.stdout, r"in peace: .* 0 failed\n")
        self.assertRegex(done.stdout, r"3 reloads: .* 0 failed\n")
        self.assertRegex(done.stdout, r"200 routers: longest work at a time [0-9.]+ ms; ")


class BoundsTests(SynchronousTestCase):
    """
    What is not good enough is said.
    """

    def test_rounds(self):
        """
        A change that was not taken over, and latency that has more than doubled.
        """
        peace = Load(1.0, 100, 100, 0.001, 0.002)
        self.assertEqual(Rounds(peace, Load(1.0, 100, 100, 0.001, 0.004), 5).doubts(5), [])
        [missed, slow] = Rounds(peace, Load(1.0, 100, 100, 0.001, 0.005), 4).doubts(5)
        self.assertIn("4 of 5", missed)
        self.assertIn("from 2.00 to 5.00 ms", slow)

    def test_pause(self):
        """
        A reactor that worked for too long.
        """
        self.assertEqual(Pause(1000, 0.0, 0.2, 0.2, 0.04, 0.3).doubts(), [])
        [found] = Pause(1000, 0.0, 0.0, 0.0, 0.06, 0.3).doubts()
        self.assertIn("60.0 ms", found)
