"""
The bench of reloads measures what it says.
"""

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from contrib.bench.load import Load
from contrib.bench.pause import Pause
from contrib.bench.reload import Rounds, Traffic
from tests.support import missing

_CHECKOUT = Path(__file__).resolve().parent.parent


class ReloadBenchTests(SynchronousTestCase):
    """
    Reloads under a short load.
    """

    skip = missing("nginx", "wrk", "h2load")

    def test_short(self):
        """
        A few reloads under load fail no request and no message, and all are taken over.
        """
        told = Path(self.mktemp()).absolute()
        arguments = ["--seconds", "3", "--reloads", "3", "--routers", "200", "--json", str(told)]
        command = [sys.executable, "-m", "contrib.bench.reload", *arguments]
        done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=120)
        self.assertNotIn("void", done.stderr)
        self.assertNotIn("were taken over", done.stderr)
        for name in ("in peace", "3 reloads"):
            for kind in ("HTTP/1", "HTTP/2", "WebSocket"):
                self.assertRegex(done.stdout, rf"{name}, +{kind}: .* 0 of [0-9,]+ failed\n")
        self.assertRegex(done.stdout, r"200 routers: longest work at a time [0-9.]+ ms; ")
        found = json.loads(told.read_text())
        self.assertEqual(found["pause"]["routers"], 200)
        for name in ("peace", "reloading"):
            self.assertEqual(found["load"][name]["websocket"]["requests"], 1200)
            self.assertGreater(found["load"][name]["http2"]["requests"], 500)
        self.assertEqual(done.returncode, 1 if found["doubts"] else 0)


class BoundsTests(SynchronousTestCase):
    """
    What is not good enough is said.
    """

    def test_rounds(self):
        """
        A change that was not taken over, and latency of any kind that has more than doubled.
        """
        [good, at_bound, slow] = [Load(1.0, 100, 100, 0.001, p99) for p99 in (0.002, 0.004, 0.005)]
        peace = Traffic(good, good, good)
        self.assertEqual(Rounds(peace, Traffic(at_bound, at_bound, at_bound), 5).doubts(5), [])
        [missed] = Rounds(peace, peace, 4).doubts(5)
        self.assertIn("4 of 5", missed)
        for kind, traffic in [
            ("HTTP/1", Traffic(slow, good, good)),
            ("HTTP/2", Traffic(good, slow, good)),
            ("WebSocket", Traffic(good, good, slow)),
        ]:
            [found] = Rounds(peace, traffic, 5).doubts(5)
            self.assertIn(f"{kind}: p99 rose from 2.00 to 5.00 ms", found)

    def test_pause(self):
        """
        A reactor that worked for too long.
        """
        self.assertEqual(Pause(1000, 0.0, 0.2, 0.2, 0.04, 0.3).doubts(), [])
        [found] = Pause(1000, 0.0, 0.0, 0.0, 0.06, 0.3).doubts()
        self.assertIn("60.0 ms", found)
