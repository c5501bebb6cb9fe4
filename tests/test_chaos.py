"""
Servers are killed, frozen, slowed down and restored while clients ask, and the clients do not notice.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from contrib.bench.chaos import SEQUENCE
from contrib.bench.chaos_client import Client, Tally
from contrib.bench.chaos_servers import State
from tests.support import missing

_CHECKOUT = Path(__file__).parent.parent


class ChaosTests(SynchronousTestCase):
    """
    Three real servers behind a real gateway.
    """

    skip = missing("nginx")

    def test_nothing_lost(self):
        """
        Requests that may be repeated lose nothing, whatever happens to the servers in turn.
        """
        command = [sys.executable, "-m", "contrib.bench.chaos", "--requests", "4000", "--rate", "800"]
        done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=200)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"\n0 failed of [0-9,]+\n")

    def test_sequence(self):
        """
        Every harm is done to somebody, no two in a row without a rest, and never to all at once.
        """
        self.assertEqual({state for phase in SEQUENCE for state in phase.states}, set(State))
        for number, phase in enumerate(SEQUENCE):
            self.assertEqual(phase.is_calm, number % 2 == 0)
            self.assertIn(True, [state in (State.WELL, State.SLOW) for state in phase.states])


class ClientTests(SynchronousTestCase):
    """
    The client that must not notice anything would notice.
    """

    def ask(self, answer: bytes, patience: float = 5.0) -> Tally:
        """
        Return what the client counts if every request gets `answer`, after which the connection is closed.
        """

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer.replace(b"TARGET", head.split(b" ")[1]))
            if answer:
                writer.close()

        async def run() -> Tally:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            client = Client(server.sockets[0].getsockname()[1], 100, 2)
            client.PATIENCE = patience
            asking = asyncio.ensure_future(client.run())
            async with asyncio.timeout(20):
                while not client.tally.requests:
                    await asyncio.sleep(0.01)
                client.stop()
                await asking
            server.close()
            return client.tally

        return asyncio.run(run())

    def test_right(self):
        """
        The right answer is no failure.
        """
        tally = self.ask(_answer(b'{"server":"a","target":"TARGET"}'))
        self.assertEqual(tally.failures, [])
        self.assertEqual(set(tally.answered_by), {"a"})

    def test_wrong(self):
        """
        Another's answer, an error, an answer that breaks off and none at all are failures.
        """
        for answer, patience, what in [
            (_answer(b'{"server":"a","target":"/item/0?n=0"}'), 5.0, "was given the answer to /item/0"),
            (_answer(b"{}", b"502 Bad Gateway"), 5.0, "HTTP/1.1 502 Bad Gateway"),
            (_answer(b'{"server":"a","target":"TARGET"}')[:-40], 5.0, "IncompleteReadError"),
            (b"", 0.2, "no answer in time"),
        ]:
            tally = self.ask(answer, patience)
            self.assertEqual(tally.latencies, [])
            self.assertIn(what, tally.failures[0].what)


def _answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    # Longer than it says: the target is put in afterwards.
    length = len(body) if b"TARGET" not in body else 100
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, length, body.ljust(length) + b" " * 20)
