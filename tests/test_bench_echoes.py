"""
The WebSockets of the bench notice what a bad server, or whoever is in between, does to their messages.
"""

import asyncio
import contextlib
import io
import json

from twisted.trial.unittest import SynchronousTestCase

from contrib.bench.echoes import Tally, frame, main, masked, parse_echoes, talk
from contrib.bench.processes import VoidRunError
from contrib.bench.pump_server import SWITCH
from tests.support import free_port

GOOD = {"seconds": 2.0, "sent": 800, "bytes": 40000, "wrong": 0, "late": 0, "closed": 0, "p50": 0.001, "p99": 0.002}


def run_against(answer, *, patience=30.0, seconds=0.2, head=SWITCH, port=0, command=None):
    """
    Talk to a server that sends `answer(messages)` for each message, where `messages` are all of that connection so far, and closes at
    `None`.
    """

    async def serve_one(reader, writer):
        messages = []
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while True:
                _, length, *mask = await reader.readexactly(6)
                messages.append(masked(await reader.readexactly(length & 127), bytes(mask)))
                said = answer(messages)
                if said is None:
                    break
                writer.write(said)
        writer.close()

    async def run():
        async with await asyncio.start_server(serve_one, "127.0.0.1", port) as server:
            if command is not None:
                return await asyncio.to_thread(command)
            where = server.sockets[0].getsockname()[1]
            return await talk(where, seconds, clients=2, interval=0.02, patience=patience)

    with contextlib.redirect_stdout(io.StringIO()) as output:
        found = asyncio.run(asyncio.wait_for(run(), 60))
    return found if command is None else (found, output.getvalue())


def counts(tally: Tally) -> tuple[int, int, int]:
    return tally.wrong, tally.late, tally.closed


class TalkTests(SynchronousTestCase):
    """
    Tests for `talk`.
    """

    def test_good(self):
        """
        What comes back in its turn is right, wherever the server cuts it, and each takes its time.
        """
        tally = run_against(lambda messages: frame(messages[-1]))
        self.assertEqual((tally.sent, *counts(tally), len(tally.taken)), (20, 0, 0, 0, 20))
        self.assertTrue(all(0 < taken < 30 for taken in tally.taken))
        for cut in (0, 1, 2, 9):

            def answer(messages, cut=cut):
                if len(messages) % 2:
                    return frame(messages[-1])[:cut]
                return frame(messages[-2])[cut:] + frame(messages[-1])

            tally = run_against(answer)
            self.assertEqual((tally.sent, *counts(tally), len(tally.taken)), (20, 0, 0, 0, 20))

    def test_wrong(self):
        """
        A changed message, somebody else's, one that comes twice, and another kind of frame are wrong.
        """
        for name, spoil in [
            ("changed", lambda message: frame(message[:-1] + b"!")),
            ("foreign", lambda message: frame(b"hello")),
            ("binary", lambda message: b"\x82" + frame(message)[1:]),
        ]:
            with self.subTest(name):
                tally = run_against(lambda messages, spoil=spoil: (spoil if len(messages) == 3 else frame)(messages[-1]))
                # The one that was replaced is overtaken by the next.
                self.assertEqual((*counts(tally), len(tally.taken)), (2, 2, 0, 16 + 2))
        twice = run_against(lambda messages: frame(messages[-1]) * 2)
        self.assertEqual(counts(twice), (20, 0, 0))

    def test_long(self):
        """
        A frame that is longer than any message ends the connection, and counts as wrong.
        """
        tally = run_against(lambda messages: b"\x81\x7e\x10\x00" + bytes(4096))
        self.assertEqual((tally.wrong, tally.closed), (2, 2))

    def test_never(self):
        """
        Messages that never come back are late.
        """
        tally = run_against(lambda messages: b"", patience=0.05)
        self.assertEqual((tally.sent, *counts(tally)), (20, 0, 20, 0))

    def test_slow(self):
        """
        Messages that come back, but after more time than they have, are late.
        """
        tally = run_against(lambda messages: frame(messages[-1]), patience=1e-6)
        self.assertEqual((tally.sent, *counts(tally), tally.taken), (20, 0, 20, 0, []))

    def test_closed(self):
        """
        A connection that ends before its time is counted, with what it had not given back.
        """
        tally = run_against(lambda messages: None if len(messages) == 4 else frame(messages[-1]))
        self.assertEqual((tally.closed, len(tally.taken)), (2, 6))
        self.assertEqual(tally.late, tally.sent - 6)

    def test_not_let_in(self):
        """
        A connection that does not become a WebSocket, or ends first, is an error.
        """
        refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        error = self.assertRaises(ValueError, run_against, lambda messages: b"", head=refused)
        self.assertIn("503", str(error))


class CommandTests(SynchronousTestCase):
    """
    Tests for the command, and for reading what it prints.
    """

    def test_good(self):
        """
        A good run ends with 0, and what it prints is read.
        """
        port = free_port()
        arguments = [str(port), "--seconds", "0.2"]
        code, output = run_against(lambda messages: frame(messages[-1]), port=port, command=lambda: main(arguments))
        self.assertEqual(code, 0)
        self.assertTrue(output.startswith("connected\n"))
        load = parse_echoes(output)
        self.assertEqual((load.seconds, load.requests), (0.2, 80))
        self.assertTrue(0 < load.p50 <= load.p99)

    def test_bad(self):
        """
        A message that comes back changed makes the command end with 1, and voids the run.
        """
        port = free_port()
        arguments = [str(port), "--seconds", "0.1"]
        code, output = run_against(lambda messages: frame(b"hello"), port=port, command=lambda: main(arguments))
        self.assertEqual(code, 1)
        self.assertIn("40 wrong messages", str(self.assertRaises(VoidRunError, parse_echoes, output)))

    def test_nobody(self):
        """
        Nobody there is status 1.
        """
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            self.assertEqual(main([str(free_port())]), 1)
        self.assertIn("void: ", errors.getvalue())

    def test_parsed(self):
        """
        Every kind of fault voids the run, and so does a summary without a message, or none.
        """
        self.assertEqual(parse_echoes(f"connected\n{json.dumps(GOOD)}\n").p99, 0.002)
        for change, words in [
            ({"wrong": 1}, "1 wrong messages"),
            ({"late": 2}, "2 messages late"),
            ({"closed": 3}, "3 connections closed"),
            ({"sent": 0}, "no message was sent"),
        ]:
            self.assertIn(words, str(self.assertRaises(VoidRunError, parse_echoes, json.dumps({**GOOD, **change}))))
        self.assertIn("Traceback", str(self.assertRaises(VoidRunError, parse_echoes, "connected\nTraceback\n")))
