"""
Requests of the gateway's own to real `https` servers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from a3sgw.errors import Outcome, UpstreamError
from a3sgw.net.connect import Dialer
from a3sgw.net.deadline import Deadlines
from a3sgw.net.reactor import flush_queue
from a3sgw.proxy.outbound import Outbound
from a3sgw.proxy.test.certificates import Authority, Identity
from tests.support import PATIENCE, free_port

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("localhost", "127.0.0.1")
LARGE = os.urandom(1 << 20)

ANSWERS = {
    b"/small": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    b"/large": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(LARGE), LARGE),
    b"/until-close": b"HTTP/1.1 200 OK\r\n\r\nok",
    b"/login": b"HTTP/1.1 302 Found\r\nLocation: /small\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
}


class TlsServer:
    """
    A server on Python's own TLS, with a thread for each connection. It never answers a path that is not in `ANSWERS`.

    With `client_authority`, a file, it wants certificates of its clients. `connections` are those it accepted, `requests` what it was
    asked, `over` how many connections have ended.
    """

    def __init__(self, identity: Identity = IDENTITY, client_authority: Path | None = None) -> None:
        self.connections: list[ssl.SSLSocket] = []
        self.requests: list[bytes] = []
        self.over = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(identity.pem())
            file.flush()
            self._context.load_cert_chain(file.name)
        if client_authority is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_authority)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """
        Close everything and wait for the threads.
        """
        # Closing alone would leave the thread in `accept`.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)

    def hang_up(self) -> None:
        """
        End all connections.
        """
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(plain,), daemon=True))
            self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(PATIENCE)
        with contextlib.suppress(OSError), plain, self._context.wrap_socket(plain, server_side=True) as connection:
            self.connections.append(connection)
            for head in self._heads(connection):
                self.requests.append(head)
                path = head.split(b" ")[1]
                connection.sendall(ANSWERS.get(path, b""))
                if path == b"/until-close":
                    connection.unwrap()
                    break
        self.over += 1

    @staticmethod
    def _heads(connection: ssl.SSLSocket) -> Iterator[bytes]:
        file = connection.makefile("rb")
        while line := file.readline():
            lines = [line]
            while lines[-1] not in (b"\r\n", b""):
                lines.append(file.readline())
            size = sum(int(each.split(b":")[1]) for each in lines if each.startswith(b"Content-Length:"))
            if len(file.read(size)) < size:
                return
            yield b"".join(lines)


class OutboundTlsTests(TestCase):
    """
    Errands from a real reactor to a server that has nothing to do with the code under test.
    """

    timeout = 2 * PATIENCE

    def setUp(self):
        self.deadlines = Deadlines(reactor, reactor.seconds)
        self.deadlines.start()
        self.outbound = Outbound(Dialer(reactor, flush_queue(reactor), self.deadlines), reactor, [AUTHORITY.certificate])
        self.opened = []

    async def tearDown(self):
        for destination in self.opened:
            destination.close()
        while len(self.deadlines):
            await deferLater(reactor, 0.01)
        self.deadlines.stop()

    def serve(self, identity=IDENTITY):
        server = TlsServer(identity)
        self.addCleanup(server.stop)
        return server

    def open(self, url):
        destination = self.outbound.open(url)
        self.opened.append(destination)
        return destination

    def fetch(self, destination, target, method=b"GET", *, body=b"", timeout=PATIENCE):
        return destination.fetch(method, target, (), body=body, timeout=timeout, max_body_bytes=len(LARGE))

    async def ended(self, server):
        """
        Wait until the server's only connection has ended. The reactor goes on, and the test has its own time limit.
        """
        while server.over != 1:
            await deferLater(reactor, 0.01)

    async def assert_fails(self, asked, outcome):
        error = await self.assertFailure(asked, UpstreamError)
        self.assertEqual(error.outcome, outcome)

    async def test_answers(self):
        """Answers in every framing are understood, by name and by address, and one connection serves them all."""
        for host in ("localhost", "127.0.0.1"):
            server = self.serve()
            destination = self.open(f"https://{host}:{server.port}")
            for target, body in [(b"/small", b"ok"), (b"/chunked", b"ok"), (b"/large", LARGE), (b"/until-close", b"ok")]:
                answer = await self.fetch(destination, target)
                self.assertEqual((answer.status, answer.body), (200, body))
            self.assertEqual(len(server.connections), 1)
            self.assertEqual(server.requests[0], b"GET /small HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (host.encode(), server.port))

    async def test_large_request(self):
        """A large body arrives."""
        server = self.serve()
        answer = await self.fetch(self.open(f"https://localhost:{server.port}"), b"/small", b"PUT", body=LARGE)
        self.assertEqual(answer.body, b"ok")

    async def test_redirect(self):
        """A redirect is given as it is, with all its cookies."""
        server = self.serve()
        answer = await self.fetch(self.open(f"https://localhost:{server.port}"), b"/login")
        self.assertEqual(answer.status, 302)
        self.assertEqual([field.line for field in answer.fields], [b"Location: /small", b"Set-Cookie: a=1", b"Set-Cookie: b=2"])
        self.assertEqual(len(server.requests), 1)

    async def test_strangers(self):
        """A server that cannot prove to be the one asked for is asked nothing."""
        for host, identity in [
            ("localhost", AUTHORITY.issue("other.test")),
            ("127.0.0.1", AUTHORITY.issue("localhost")),
            ("localhost", AUTHORITY.issue(common_name="localhost")),
            ("localhost", Authority("somebody else").issue("localhost")),
        ]:
            server = self.serve(identity)
            await self.assert_fails(self.fetch(self.open(f"https://{host}:{server.port}"), b"/small"), Outcome.CONNECT_FAILED)
            await self.ended(server)
            self.assertEqual(server.requests, [])

    async def test_silence(self):
        """A server that does not answer is given up when the time is over, and sees it."""
        server = self.serve()
        await self.assert_fails(
            self.fetch(self.open(f"https://localhost:{server.port}"), b"/silence", timeout=0.5), Outcome.RESPONSE_TIMEOUT
        )
        await self.ended(server)

    async def test_cancelled(self):
        """A server whose answer nobody wants any more sees it."""
        server = self.serve()
        asked = self.fetch(self.open(f"https://localhost:{server.port}"), b"/silence")
        while not server.requests:
            await deferLater(reactor, 0.01)
        asked.addErrback(lambda failure: None)
        asked.cancel()
        await self.ended(server)

    async def test_hung_up(self):
        """A connection that the server has ended in the meantime is replaced."""
        server = self.serve()
        destination = self.open(f"https://localhost:{server.port}")
        await self.fetch(destination, b"/small")
        server.hang_up()
        await self.ended(server)
        for method in (b"GET", b"POST"):
            self.assertEqual((await self.fetch(destination, b"/small", method)).body, b"ok")
        self.assertEqual(len(server.connections), 2)

    async def test_nobody_there(self):
        """A port where nobody listens is told apart."""
        await self.assert_fails(self.fetch(self.open(f"https://localhost:{free_port()}"), b"/"), Outcome.CONNECT_REFUSED)
