"""
Tests for the measure of bytes that only pass through: it would notice one that is lost or changed.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from contrib.bench import pump_server
from contrib.bench.processes import VoidRunError
from contrib.bench.pump import carry
from contrib.bench.pump_server import BLOCK, SWITCH, read_head
from tests.support import Process, free_port, wait_until


class CarryTests(SynchronousTestCase):
    """
    Blocks between the two ends, without a proxy.
    """

    def test_whole(self):
        """
        What arrives whole, down and up, is accepted.
        """
        port = free_port()
        script = Path(pump_server.__file__)
        server = Process([sys.executable, script, str(port)])
        self.addCleanup(server.kill)
        wait_until(lambda: _listens(port), "the server listens")
        for direction in ("down", "up"):
            carry(port, direction, 20, 2)

    def test_faults(self):
        """
        A byte that is missing or another, and a refusal, void the run.
        """
        for answer, direction, words in [
            (SWITCH + BLOCK + BLOCK[:-1], "down", "block 1 of 2 broke off after 65535 bytes"),
            (SWITCH + BLOCK + BLOCK[:-1] + b"x", "down", "block 1 of 2 is not the one"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "down", "502 Bad Gateway"),
            (SWITCH + b"refused!", "up", "did not confirm"),
        ]:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                serving = threading.Thread(target=_answer, args=(listening, answer))
                serving.start()
                error = self.assertRaises(VoidRunError, carry, listening.getsockname()[1], direction, 2, 1)
                serving.join(15)
            self.assertIn(words, str(error))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _answer(listening: socket.socket, answer: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        read_head(connection)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(15)
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
