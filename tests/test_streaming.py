"""
What a server streams, event by event.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

from tests.setting import GatewayCase, service
from tests.support import PATIENCE, child_environ, run_command, wait_until
from tests.wire import Client, Scene


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class StreamingCase(GatewayCase):
    """
    A gateway that compresses below `/small`, and waits for a second at most for the next piece of what comes below `/brief`.
    """

    @classmethod
    def parts(cls) -> list[str]:
        small = service("small", [cls.stage.port]).replace("priority", 'middlewares = ["small"]\n  priority')
        return [
            service("brief", [cls.stage.port], 'timeouts {\n  idle = "1s"\n}'),
            small,
            'middlewares "small" {\n  type = "compress"\n  event_streams = true\n  min_size_bytes = 1\n}\n',
        ]

    def stream(self, path: str, head: str, pieces: list[bytes], encode: Callable[[bytes], bytes] = chunk) -> list[threading.Event]:
        """
        Have `path` answered with a head at once, and each of the pieces when its event is set.
        """
        events = [threading.Event() for _ in pieces]
        for event in events:
            self.addCleanup(event.set)

        def play(conversation: Scene, asked: bytes) -> None:
            conversation.send(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
            for event, piece in zip(events, pieces, strict=True):
                assert event.wait(PATIENCE)
                conversation.send(encode(piece))
            if "chunked" in head:
                conversation.send(b"0\r\n\r\n")

        self.stage.on(path, play)
        return events

    def read_chunk(self, client: Client) -> bytes:
        size = int(client.read_line(), 16)
        data = client.read(size)
        self.assertEqual(client.read(2), b"\r\n")
        return data


class PassingTests(StreamingCase):
    """
    Whatever streams is passed on as it comes, whoever asked for it and whatever it is called.
    """

    def test_each_piece_as_it_comes(self):
        """
        Each event, line or token reaches the client before the server writes the next, with and without `Accept`.
        """
        for number, (kind, pieces, lines) in enumerate(
            [
                ("text/event-stream", [b"data: 1\n\n", b": still here\n\n", b"event: x\ndata: 2\n\n"], ["Accept: text/event-stream"]),
                ("application/x-ndjson", [b'{"a": 1}\n', b'{"b": 2}\n'], []),
                ("application/stream+json", [b"{}\n", b"[]\n"], []),
                ("text/plain", [b"The", b" quick", b" brown", b" fox"], []),
                ("application/json", [b"[", b"1", b"]"], ["Accept: application/json"]),
            ]
        ):
            path = f"/stream{number}"
            events = self.stream(path, f"Content-Type: {kind}\r\nTransfer-Encoding: chunked", pieces)
            client = self.connect()
            client.ask(path, *lines)
            # The head comes before there is any event.
            _, fields = client.read_head()
            self.assertIn(("content-type", kind), fields)
            for event, piece in zip(events, pieces, strict=True):
                event.set()
                self.assertEqual(self.read_chunk(client), piece)
            self.assertEqual(self.read_chunk(client), b"")

    def test_however_it_is_framed(self):
        """
        So it is with a body of known length, and with one that ends with its connection.
        """
        for path, head, framing in (
            ("/length", "Content-Length: 6", "content-length"),
            ("/until-close", "Connection: close", "transfer-encoding"),
        ):
            events = self.stream(path, f"Content-Type: text/event-stream\r\n{head}", [b"one", b"two"], lambda piece: piece)
            client = self.connect()
            client.ask(path)
            _, fields = client.read_head()
            self.assertIn(framing, dict(fields))
            for event, piece in zip(events, (b"one", b"two"), strict=True):
                event.set()
                self.assertEqual(client.read(3) if framing == "content-length" else self.read_chunk(client), piece)

    def test_compressed(self):
        """
        A stream that is compressed on the way is flushed with each event.
        """
        pieces = [b"data: %d\n\n" % number for number in range(5)]
        events = self.stream("/small/events", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked", pieces)
        client = self.connect()
        client.ask("/small/events", "Accept-Encoding: gzip")
        _, fields = client.read_head()
        self.assertIn(("content-encoding", "gzip"), fields)
        inflate = zlib.decompressobj(31)
        for event, piece in zip(events, pieces, strict=True):
            event.set()
            text = b""
            while len(text) < len(piece):
                text += inflate.decompress(self.read_chunk(client))
            self.assertEqual(text, piece)

    def test_upload(self):
        """
        A request's body is passed on as it comes as well, while the answer comes.
        """

        def play(conversation: Scene, head: bytes) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(3):
                conversation.send(chunk(b"<" + conversation.read(10)[3:8] + b">"))
            self.assertEqual(conversation.read(5), b"0\r\n\r\n")
            conversation.send(b"0\r\n\r\n")

        self.stage.on("/both", play)
        client = self.connect()
        client.send(b"POST /both HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.read_head()
        for word in (b"alpha", b"gamma", b"omega"):
            client.send(chunk(word))
            self.assertEqual(self.read_chunk(client), b"<" + word + b">")
        client.send(b"0\r\n\r\n")
        self.assertEqual(self.read_chunk(client), b"")


class EndTests(StreamingCase):
    """
    A stream ends when its sides want it to, or when nothing moves in it.
    """

    def endless(self, path: str) -> dict[str, float]:
        """
        Have `path` answered with an event every 50 ms, and return where it is noted when the server notices that nobody listens.
        """
        noticed: dict[str, float] = {}

        def play(conversation: Scene, head: bytes) -> Any:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            conversation.socket.settimeout(0.001)
            while True:
                try:
                    conversation.send(chunk(b"data: x\n\n"))
                    conversation.socket.recv(1)
                except TimeoutError:
                    time.sleep(0.01)
                except OSError:
                    break
                else:
                    break
            noticed["at"] = time.monotonic()
            return True

        self.stage.on(path, play)
        return noticed

    def test_no_bound_in_all(self):
        """
        A stream that moves goes on, however long it takes in all; one in which nothing moves is broken off.
        """
        events = self.stream("/brief/events", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked", [b"x"] * 7)
        client = self.connect()
        client.ask("/brief/events")
        client.read_head()
        for event in events[:6]:
            time.sleep(0.4)
            event.set()
            self.assertEqual(self.read_chunk(client), b"x")
        self.assertEqual(client.ending(3.0), "reset")
        self.assertEqual(self.wait_for_record("/brief/events")["outcome"], "response-idle")

    def test_client_leaves(self):
        """
        When the client leaves, in order or not, the server's connection ends within 100 ms, and nothing is left in flight.
        """
        for number, leave in enumerate((Client.close, Client.reset)):
            took = []
            for attempt in range(3):
                path = f"/left{number}/{attempt}"
                noticed = self.endless(path)
                client = self.connect()
                client.ask(path)
                client.read_head()
                for _ in range(3):
                    self.read_chunk(client)
                started = time.monotonic()
                leave(client)
                wait_until(lambda noticed=noticed: noticed, "the server has noticed")
                took.append(noticed["at"] - started)
                self.assertEqual(self.wait_for_record(path)["outcome"], "client-closed")
            self.assertLess(min(took), 0.1)
        wait_until(lambda: self.active() == 0, "no exchange is left")

    def test_client_leaves_in_silence(self):
        """
        So it is while the server has nothing to say.
        """
        noticed: dict[str, float] = {}

        def play(conversation: Scene, head: bytes) -> Any:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x"))
            try:
                conversation.socket.recv(1)
            except OSError:
                pass
            noticed["at"] = time.monotonic()
            return True

        took = []
        for _ in range(3):
            noticed.clear()
            self.stage.on("/silent", play)
            client = self.connect()
            client.ask("/silent")
            client.read_head()
            self.read_chunk(client)
            started = time.monotonic()
            client.close()
            wait_until(lambda: noticed, "the server has noticed")
            took.append(noticed["at"] - started)
        self.assertLess(min(took), 0.1)

    def test_server_breaks_off(self):
        """
        A stream that its server breaks off looks broken off to the client.
        """

        def play(conversation: Scene, head: bytes) -> Any:
            conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"data: 1\n\n"))
            return True

        self.stage.on("/broken", play)
        client = self.connect()
        client.ask("/broken")
        client.read_head()
        self.assertEqual(self.read_chunk(client), b"data: 1\n\n")
        self.assertEqual(client.ending(2.0), "reset")


class BenchTests(GatewayCase):
    """
    `contrib.bench.streaming` measures what the gateway adds to an event.
    """

    def test_measures(self):
        """
        It prints what an event takes with and without the gateway, and ends well.
        """
        done = run_command(
            [sys.executable, "-m", "contrib.bench.streaming", "--streams", "2", "--events", "5", "--rounds", "1"],
            environ=child_environ(PYTHONPATH=os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))),
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([line.split()[0] for line in done.stdout.splitlines()], ["p50", "direct", "a3sgw", "added"])
