"""
Gigabytes through the gateway, and clients and backends that do not keep up.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.setting import GatewayCase, peak_memory
from tests.support import PATIENCE, wait_until
from tests.wire import Client, Scene, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class BulkTests(GatewayCase):
    """
    Whatever its size, what goes through the gateway does not pile up in it.
    """

    SIZE = 1 << 30
    BLOCK = bytes(1 << 20)
    MEMORY = 150

    entrypoint = 'timeouts {\n  write = "2s"\n}'

    def test_large_upload(self):
        """
        A gigabyte goes up in constant memory.
        """
        received = []

        def play(conversation: Scene, head: bytes) -> bool:
            received.append(_sink(conversation, self.SIZE))
            conversation.send(OK)
            return True

        self.stage.on("/up", play)
        client = self.connect()
        client.send(request("/up", f"Content-Length: {self.SIZE}", method="PUT"))
        for _ in range(self.SIZE // len(self.BLOCK)):
            client.send(self.BLOCK)
        self.assertEqual(client.read_answer("PUT").status, 200)
        self.assertEqual(received, [self.SIZE])
        self.assertLess(peak_memory(self.gateway.pid), self.MEMORY)

    def test_large_chunked_upload(self):
        """
        An upload of unknown length does too.
        """
        size = 1 << 26
        received = []

        def play(conversation: Scene, head: bytes) -> None:
            while length := int(conversation.read_until(b"\r\n"), 16):
                received.append(len(conversation.read(length + 2)) - 2)
            conversation.read(2)
            conversation.send(OK)

        self.stage.on("/up-chunked", play)
        client = self.connect()
        client.send(request("/up-chunked", "Transfer-Encoding: chunked", method="PUT"))
        for _ in range(size // len(self.BLOCK)):
            client.send(b"%x\r\n%b\r\n" % (len(self.BLOCK), self.BLOCK))
        client.send(b"0\r\n\r\n")
        self.assertEqual(client.read_answer("PUT").status, 200)
        self.assertEqual(sum(received), size)
        self.assertLess(peak_memory(self.gateway.pid), self.MEMORY)

    def test_upload_to_a_backend_that_does_not_read(self):
        """
        A backend that does not read stops the client, and not the gateway's memory.
        """
        go = threading.Event()
        self.addCleanup(go.set)
        received = []

        def play(conversation: Scene, head: bytes) -> bool:
            go.wait(PATIENCE)
            received.append(_sink(conversation, 1 << 28))
            conversation.send(OK)
            return True

        self.stage.on("/up-stuck", play)
        client = self.connect()
        client.send(request("/up-stuck", f"Content-Length: {1 << 28}", method="PUT"))
        sent = _Counter()
        sending = threading.Thread(target=sent.send, args=(client.socket, self.BLOCK, 1 << 28), daemon=True)
        sending.start()
        self.assertLess(_steady(sent), 1 << 26)
        go.set()
        self.assertEqual(client.read_answer("PUT").status, 200)
        sending.join(PATIENCE)
        self.assertEqual(received, [1 << 28])
        self.assertLess(peak_memory(self.gateway.pid), self.MEMORY)

    def test_large_download_to_a_client_that_pauses(self):
        """
        A gigabyte goes down in constant memory, and waits at the backend while the client does not read.
        """
        sent = _Counter()

        def play(conversation: Scene, head: bytes) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.SIZE)
            sent.send(conversation.socket, self.BLOCK, self.SIZE)

        self.stage.on("/down", play)
        client = self.connect()
        client.ask("/down")
        client.read_head()
        # Less than the time that a client may take for nothing.
        self.assertLess(_steady(sent, 0.7), 1 << 26)
        self.assertEqual(_drain(client, self.SIZE), self.SIZE)
        self.assertEqual(client.fetch("/after-download").status, 200)
        self.assertLess(peak_memory(self.gateway.pid), self.MEMORY)

    def test_client_that_stops_reading(self):
        """
        A client that takes nothing for longer than it may is disconnected, and its backend let go.
        """
        ended = threading.Event()

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.SIZE)
            try:
                _Counter().send(conversation.socket, self.BLOCK, self.SIZE)
            except OSError:
                ended.set()
            return True

        self.stage.on("/stopped", play)
        client = self.connect(receive_buffer=65536)
        client.ask("/stopped")
        client.read_head()
        self.assertTrue(ended.wait(6.0), "the backend was not let go")
        self.assertEqual(self.wait_for_record("/stopped")["outcome"], "client-stalled")
        self.check_unharmed()

    def test_client_that_reads_slowly(self):
        """
        A client that reads slowly but steadily gets everything, however long it takes.
        """
        size = 12 << 20

        def play(conversation: Scene, head: bytes) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            _Counter().send(conversation.socket, self.BLOCK, size)

        self.stage.on("/slowly", play)
        client = self.connect(receive_buffer=65536)
        client.ask("/slowly")
        client.read_head()
        # About a quarter of a megabyte in a second, for twice the time that a client may take for nothing; then the rest.
        taken = 0
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            taken += len(client.read(25_000))
            threading.Event().wait(0.1)
        self.assertEqual(taken + _drain(client, size - taken), size)

    def test_many_slow_clients(self):
        """
        A hundred clients that do not read cost little memory each.
        """
        size = 1 << 24

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            with contextlib.suppress(OSError):
                conversation.socket.sendall(bytes(size))
            return True

        self.stage.on("/crowd", play)
        clients = [self.connect(receive_buffer=65536) for _ in range(100)]
        for client in clients:
            client.ask("/crowd")
        for client in clients:
            client.read_head()
        self.assertLess(peak_memory(self.gateway.pid), self.MEMORY)
        for client in clients:
            client.close()
        self.check_unharmed()


class _Counter:
    """
    How much has been sent so far.
    """

    def __init__(self) -> None:
        self.value = 0

    def send(self, connection: socket.socket, block: bytes, size: int) -> None:
        """
        Send `size` bytes, blocking, and count them.
        """
        connection.settimeout(60)
        while self.value < size:
            self.value += connection.send(block[: size - self.value])


def _steady(counter: _Counter, seconds: float = 0.5) -> int:
    """
    Wait until a counter has not moved for a while; return where it stands.
    """
    seen = [-1, time.monotonic()]

    def has_stopped() -> bool:
        if counter.value != seen[0]:
            seen[:] = [counter.value, time.monotonic()]
        return time.monotonic() - seen[1] > seconds

    wait_until(has_stopped, lambda: f"sending stops; it stands at {counter.value}")
    return counter.value


def _sink(conversation: Scene, size: int) -> int:
    """
    Take `size` bytes without keeping them.
    """
    taken = len(conversation.take())
    block = bytearray(1 << 20)
    while taken < size:
        got = conversation.socket.recv_into(block)
        if not got:
            break
        taken += got
    return taken


def _drain(client: Client, size: int) -> int:
    taken = len(client.take())
    block = bytearray(1 << 20)
    while taken < size:
        got = client.socket.recv_into(block)
        if not got:
            break
        taken += got
    return taken
