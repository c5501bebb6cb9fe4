"""
Tests of the bench for datagrams: that it measures both, and notices what is wrong.
"""

import contextlib
import io
import json
import socket
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from contrib.bench.processes import VoidRunError
from contrib.bench.udp import exchange, main


class UdpBenchTests(SynchronousTestCase):
    """
    `python -m contrib.bench.udp`.
    """

    def test_run(self):
        """A short run measures the gateway and the bare loop beside each other, and tells how they compare."""
        output, told = io.StringIO(), Path(self.mktemp())
        with contextlib.redirect_stdout(output):
            code = main(["--rounds", "1", "--seconds", "0.5", "--clients", "2", "--json", str(told)])
        self.assertEqual(code, 0)
        self.assertEqual([line.split("  ")[0].strip() for line in output.getvalue().splitlines()[1:]], ["a3sgw", "a3sgw any", "bare loop"])
        found = json.loads(told.read_text())["udp"]
        self.assertEqual(found["bare loop"]["ratio_to_bare"], 1.0)
        self.assertTrue(all(each["rounds"][0]["rate"] > 0 for each in found.values()))

    def test_changed(self):
        """A datagram that comes back changed voids the run."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(5)

            def meddle() -> None:
                data, sender = sock.recvfrom(100)
                sock.sendto(data[:-1] + b"!", sender)

            thread = threading.Thread(target=meddle)
            thread.start()
            self.assertRaises(VoidRunError, exchange, sock.getsockname()[1], clients=1, window=1, size=16, seconds=2.0)
            thread.join()

    def test_refused(self):
        """Bad arguments end the command with status 2."""
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            self.assertEqual(self.assertRaises(SystemExit, main, ["--clients", "0"]).code, 2)
        self.assertIn("--clients: more than 0", errors.getvalue())
