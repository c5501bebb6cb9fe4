"""
WebSockets through the gateway, between other people's clients and servers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from a3sgw.proxy.test.certificates import Authority
from tests.setting import GatewayCase, OwnGatewayCase, configure, metric, peak_memory, service, service_at
from tests.support import PATIENCE, free_port, wait_until
from tests.wire import FullBacklog, head_fields, request

FLOOD_PIECE = 1 << 16
FLOOD_PIECES = 1024
_CHAT = Subprotocol("chat.v2")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Backend:
    """
    A WebSocket server of the library `websockets`; what it does is said by the last part of the path.

    `ended` are the closing codes and reasons that its connections ended with, `seen` how they were asked for.
    """

    def __init__(self, name: str = "", terms: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.ended: list[tuple[int | None, str]] = []
        self.seen: list[dict[str, str]] = []
        self.sent = 0
        self.connections: set[ServerConnection] = set()
        self._server: Server = serve(
            self._play,
            "127.0.0.1",
            0,
            select_subprotocol=lambda connection, offered: _CHAT if _CHAT in offered else None,
            process_request=self._look,
            max_size=1 << 25,
            ping_interval=None,
            ssl=terms,
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        for connection in list(self.connections):
            connection.socket.close()
        self._server.shutdown()
        self._thread.join(PATIENCE)

    def _look(self, connection: ServerConnection, asked: Any) -> Any:
        self.seen.append({"path": asked.path, **dict(asked.headers.raw_items())})
        if asked.path.endswith("/refuse"):
            return connection.respond(HTTPStatus.FORBIDDEN, "not you\n")
        return None

    def _play(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        assert connection.request is not None
        what = connection.request.path.partition("?")[0].rpartition("/")[2]
        try:
            getattr(self, f"_{what}")(connection)
        except ConnectionClosed:
            pass
        finally:
            self.connections.discard(connection)
            self.ended.append((connection.close_code, connection.close_reason or ""))

    def _echo(self, connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    def _pieces(self, connection: ServerConnection) -> None:
        for message in connection:
            assert isinstance(message, str)
            connection.send(iter(message.split(" ")))

    def _close(self, connection: ServerConnection) -> None:
        connection.close(4321, "I have had enough")

    def _name(self, connection: ServerConnection) -> None:
        connection.send(self.name)
        connection.recv(PATIENCE)

    def _silent(self, connection: ServerConnection) -> None:
        connection.recv(PATIENCE)

    def _flood(self, connection: ServerConnection) -> None:
        for _ in range(FLOOD_PIECES):
            connection.send(bytes(FLOOD_PIECE))
            self.sent += FLOOD_PIECE

    def _slow(self, connection: ServerConnection) -> None:
        # Reads nothing until it is told to.
        time.sleep(1.0)
        size = 0
        for message in connection:
            size += len(message)
            if not message:
                connection.send(str(size))


@contextlib.contextmanager
def websocket(port: int, path: str, **options: Any) -> Iterator[ClientConnection]:
    """
    Open a WebSocket through the gateway.
    """
    with connect(f"ws://127.0.0.1:{port}{path}", max_size=1 << 25, ping_interval=None, close_timeout=PATIENCE, **options) as client:
        yield client


class WebSocketCase(GatewayCase):
    """
    A gateway with WebSocket servers behind several services.
    """

    backend: Backend
    others: list[Backend]

    @classmethod
    def parts(cls) -> list[str]:
        cls.backend = cls.enter(Backend())
        cls.others = [cls.enter(Backend(name)) for name in ("one", "two")]
        hole = cls.enter(FullBacklog()).port
        guarded = service("guarded", [cls.backend.port]).replace("priority", 'middlewares = ["key"]\n  priority')
        return [
            service_at("ws", [f"ws://127.0.0.1:{cls.backend.port}"]),
            service("brief", [cls.backend.port], 'timeouts {\n  tunnel_idle = "1s"\n  total = "500ms"\n  idle = "500ms"\n}'),
            service("dead", [free_port()]),
            service("half-dead", [free_port(), cls.backend.port]),
            service("hole", [hole], 'timeouts {\n  connect = "500ms"\n}'),
            service("sticky", [other.port for other in cls.others]).replace("servers = ", 'sticky { cookie = "s" }\n    servers = '),
            guarded,
            'middlewares "key" {\n  type = "api-key"\n  keys = ["open sesame"]\n}\n',
        ]


class MessageTests(WebSocketCase):
    """
    What is said arrives as it was said.
    """

    def test_messages(self):
        """
        Text and binary messages of any size come back as they were sent, whole and in pieces.
        """
        with websocket(self.port, "/ws/echo") as client:
            for message in ("hello", "", "ü" * 50_000, b"", bytes(range(256)), os.urandom(1 << 20), "x" * (1 << 20)):
                client.send(message)
                self.assertEqual(client.recv(PATIENCE), message)
            client.send(iter(["in ", "several ", "pieces"]))
            self.assertEqual(client.recv(PATIENCE), "in several pieces")
        with websocket(self.port, "/ws/pieces") as client:
            client.send("a b c")
            self.assertEqual(list(client.recv_streaming()), ["a", "b", "c", ""])

    def test_large(self):
        """
        A message of 16 MiB goes both ways while others go on beside it.
        """
        data = os.urandom(1 << 24)
        with websocket(self.port, "/ws/echo", compression=None) as client, websocket(self.port, "/ws/echo") as other:
            sender = threading.Thread(target=client.send, args=(data,), daemon=True)
            sender.start()
            for number in range(20):
                other.send(str(number))
                self.assertEqual(other.recv(PATIENCE), str(number))
            self.assertEqual(client.recv(PATIENCE), data)
            sender.join(PATIENCE)

    def test_compression(self):
        """
        permessage-deflate is agreed upon between client and server, and works.
        """
        with websocket(self.port, "/ws/echo") as client:
            self.assertEqual([extension.name for extension in client.protocol.extensions], ["permessage-deflate"])
            for _ in range(3):
                client.send("compress me " * 10_000)
                self.assertEqual(client.recv(PATIENCE), "compress me " * 10_000)
        with websocket(self.port, "/ws/echo", compression=None) as client:
            self.assertEqual(client.protocol.extensions, [])

    def test_sub_protocol(self):
        """
        The server chooses among the client's sub-protocols.
        """
        with websocket(self.port, "/ws/echo", subprotocols=["chat.v1", "chat.v2"]) as client:
            self.assertEqual(client.subprotocol, "chat.v2")
        with websocket(self.port, "/ws/echo") as client:
            self.assertIsNone(client.subprotocol)

    def test_pings(self):
        """
        Pings are answered by the other side, not by the gateway.
        """
        with websocket(self.port, "/ws/echo") as client:
            self.assertTrue(client.ping(b"are you there").wait(PATIENCE))

    def test_what_the_server_sees(self):
        """
        The server sees the client's own fields and who it is.
        """
        with websocket(self.port, "/ws/echo?a=b%20c", additional_headers={"Cookie": "c=d"}, origin="http://a.test"):
            pass
        seen = self.backend.seen[-1]
        self.assertEqual((seen["path"], seen["Cookie"], seen["Origin"]), ("/ws/echo?a=b%20c", "c=d", "http://a.test"))
        self.assertEqual(seen["X-Forwarded-For"], "127.0.0.1")
        self.assertEqual((seen["Upgrade"], seen["Connection"]), ("websocket", "Upgrade"))


class ClosingTests(WebSocketCase):
    """
    A WebSocket ends as its sides want it to.
    """

    def test_client_closes(self):
        """
        The server gets the client's code and reason, and the access log tells of the whole.
        """
        with websocket(self.port, "/ws/echo?closing") as client:
            client.send("x")
            client.recv(PATIENCE)
            client.close(3999, "enough")
        wait_until(lambda: (3999, "enough") in self.backend.ended, "the server knows")
        record = self.wait_for_record("/ws/echo")
        self.assertEqual((record["status"], record["outcome"], record["protocol"]), (101, "completed", "HTTP/1.1"))

    def test_server_closes(self):
        """
        The client gets the server's code and reason.
        """
        with websocket(self.port, "/ws/close") as client, self.assertRaises(ConnectionClosedError) as caught:
            client.recv(PATIENCE)
        closed = caught.exception.rcvd
        assert closed is not None
        self.assertEqual((closed.code, closed.reason), (4321, "I have had enough"))
        self.check_unharmed()

    def test_cable_pulled(self):
        """
        A client whose connection breaks off is gone for the server within a moment, and the other way round.
        """
        with websocket(self.port, "/ws/silent") as client:
            wait_until(lambda: self.active("ws") == 1, "the server is busy")
            (connection,) = self.backend.connections
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            started = time.monotonic()
            client.socket.shutdown(socket.SHUT_RD)
            client.socket.close()
            wait_until(lambda: connection not in self.backend.connections, "the server has noticed", 2.0)
            self.assertLess(time.monotonic() - started, 1.0)
        wait_until(lambda: self.active("ws") == 0, "the server is free")
        with websocket(self.port, "/ws/silent") as client:
            wait_until(lambda: bool(self.backend.connections), "the server has it")
            (connection,) = self.backend.connections
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.socket.shutdown(socket.SHUT_RD)
            connection.socket.close()
            with self.assertRaises(ConnectionClosed):
                client.recv(2.0)
        self.check_unharmed()

    def test_idle(self):
        """
        A WebSocket in which nothing moves for its time is ended; until then no other timeout ends it.
        """
        with websocket(self.port, "/brief/echo") as client:
            for _ in range(4):
                time.sleep(0.4)
                client.send("still here")
                self.assertEqual(client.recv(PATIENCE), "still here")
            with self.assertRaises(ConnectionClosedError):
                client.recv(4.0)
        self.assertEqual(self.wait_for_record("/brief/echo")["outcome"], "tunnel-idle")
        self.check_unharmed()


class HandshakeTests(WebSocketCase):
    """
    There is no 101 without the backend's, and what it says instead is heard.
    """

    def refused(self, path: str, **options: Any) -> Any:
        with self.assertRaises(InvalidStatus) as caught:
            connect(f"ws://127.0.0.1:{self.port}{path}", **options)
        return caught.exception.response

    def test_refused_by_the_server(self):
        """
        The server's refusal reaches the client, body and all.
        """
        answer = self.refused("/ws/refuse")
        self.assertEqual((answer.status_code, answer.body), (403, b"not you\n"))

    def test_refused_by_a_middleware(self):
        """
        A middleware refuses the handshake, and the server hears nothing of it; with the key it passes.
        """
        before = len(self.backend.seen)
        answer = self.refused("/guarded/echo")
        self.assertEqual((answer.status_code, json.loads(answer.body)["reason"]), (401, "api-key-refused"))
        self.assertEqual(len(self.backend.seen), before)
        with websocket(self.port, "/guarded/echo", additional_headers={"X-API-Key": "open sesame"}) as client:
            client.send("in")
            self.assertEqual(client.recv(PATIENCE), "in")

    def test_no_server(self):
        """
        Without a server there is an answer that says why; a dead one is passed over.
        """
        self.assertEqual(self.refused("/dead/echo").status_code, 502)
        self.assertEqual(self.refused("/hole/echo").status_code, 504)
        self.assertEqual(self.refused("/nowhere/echo").status_code, 404)
        for _ in range(4):
            with websocket(self.port, "/half-dead/echo") as client:
                client.send("x")
                self.assertEqual(client.recv(PATIENCE), "x")
        self.check_unharmed()

    def test_malformed(self):
        """
        What is no handshake is refused before any server hears of it.
        """
        lines = ["Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
        for left_out, status in ((0, 400), (2, 400), (3, 400)):
            client = self.connect()
            client.send(request("/ws/echo", *lines[:left_out], *lines[left_out + 1 :]))
            self.assertEqual(client.read_answer().status, status)
        client = self.connect()
        client.send(request("/ws/echo", *lines[:3], "Sec-WebSocket-Version: 12"))
        answer = client.read_answer()
        self.assertEqual((answer.status, answer.get("sec-websocket-version"), answer.get("upgrade")), (426, "13", "websocket"))
        client = self.connect()
        client.send(request("/seen", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"))
        self.assertEqual(client.read_answer().status, 200)
        self.assertNotIn("upgrade", dict(head_fields(self.stage.heads[-1])))

    def test_sticky(self):
        """
        The 101 binds the client to its server.
        """
        with websocket(self.port, "/sticky/name") as client:
            first = client.recv(PATIENCE)
            assert client.response is not None
            cookie = client.response.headers["Set-Cookie"].partition(";")[0]
        for _ in range(4):
            with websocket(self.port, "/sticky/name", additional_headers={"Cookie": cookie}) as client:
                self.assertEqual(client.recv(PATIENCE), first)
        names = set()
        for _ in range(4):
            with websocket(self.port, "/sticky/name") as client:
                names.add(client.recv(PATIENCE))
        self.assertEqual(names, {"one", "two"})


class PressureTests(WebSocketCase):
    """
    Who does not keep up holds the other, and not the gateway's memory.
    """

    def test_slow_client(self):
        """
        A client that does not read stops the server, and gets everything when it does.
        """
        before = peak_memory(self.gateway.pid)
        self.backend.sent = 0
        with websocket(self.port, "/ws/flood", compression=None, max_queue=1) as client:
            sent = -1
            while sent != self.backend.sent:
                sent = self.backend.sent
                time.sleep(0.3)
            self.assertLess(sent, FLOOD_PIECE * FLOOD_PIECES)
            for _ in range(FLOOD_PIECES):
                self.assertEqual(len(client.recv(PATIENCE)), FLOOD_PIECE)
        self.assertLess(peak_memory(self.gateway.pid) - before, 8)

    def test_slow_server(self):
        """
        A server that does not read stops the client.
        """
        before = peak_memory(self.gateway.pid)
        with websocket(self.port, "/ws/slow", compression=None) as client:
            for _ in range(FLOOD_PIECES):
                client.send(bytes(FLOOD_PIECE))
            client.send(b"")
            self.assertEqual(client.recv(PATIENCE), str(FLOOD_PIECE * FLOOD_PIECES))
        self.assertLess(peak_memory(self.gateway.pid) - before, 8)


class ReloadTests(OwnGatewayCase):
    """
    Open WebSockets and the gateway's own life.
    """

    def setUp(self):
        super().setUp()
        self.backend = Backend()
        self.addCleanup(self.backend.stop)
        self.text = configure(self.port, service("app", [self.backend.port]), log=self.log).replace(
            "shutdown_timeout_secs = 5", "shutdown_timeout_secs = 1"
        )

    def test_reload(self):
        """
        A reload leaves an open WebSocket alone, though its router and server are gone, and new ones go where it says.
        """
        gateway = self.start(self.text)
        with websocket(self.port, "/echo") as client:
            gateway.reload(configure(self.port, service("app", [self.new.port]), log=self.log))
            client.send("still here")
            self.assertEqual(client.recv(PATIENCE), "still here")
            with self.assertRaises(InvalidStatus):
                connect(f"ws://127.0.0.1:{self.port}/")
            self.assertEqual(metric(self.port, "gateway_active_connections"), 2)
            client.close(3001, "done")
        wait_until(lambda: (3001, "done") in self.backend.ended, "the server knows")
        self.stop(gateway)

    def test_stop(self):
        """
        When the gateway stops, an open WebSocket goes on until the time is over; then both sides are told 1001.
        """
        gateway = self.start(self.text)
        with websocket(self.port, "/echo") as client:
            client.send("before")
            self.assertEqual(client.recv(PATIENCE), "before")
            gateway.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            client.send("meanwhile")
            self.assertEqual(client.recv(PATIENCE), "meanwhile")
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(PATIENCE)
            assert caught.exception.rcvd is not None
            self.assertEqual(caught.exception.rcvd.code, 1001)
        wait_until(lambda: (1001, "") in self.backend.ended, "the server knows")
        self.assertNotIn("Traceback", gateway.stderr())
        gateway.wait(PATIENCE)


class Http2WebSocket:
    """
    A WebSocket on a stream of an HTTP/2 connection (RFC 8441): HTTP/2 by `h2`, frames by `websockets`.
    """

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None, validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.protocol = Protocol(Side.CLIENT, max_size=1 << 25)
        self.status = 0
        self.texts: list[bytes] = []
        self._exchange(lambda: self.h2.remote_settings.enable_connect_protocol == 1)
        pseudo = {b":method": b"CONNECT", b":protocol": b"websocket", b":scheme": b"http", b":authority": b"test", b":path": path.encode()}
        self.h2.send_headers(1, [*pseudo.items(), (b"sec-websocket-version", b"13")])
        self._exchange(lambda: self.status != 0)

    def _exchange(self, suffices: Callable[[], bool]) -> None:
        """
        Send what there is to send, and read until it suffices.
        """
        while True:
            self.socket.sendall(self.h2.data_to_send())
            if suffices():
                return
            data = self.socket.recv(65536)
            assert data, "the connection ended"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
                    self.protocol.receive_data(event.data)
            frames = [event for event in self.protocol.events_received() if isinstance(event, Frame)]
            self.texts += [bytes(frame.data) for frame in frames if frame.opcode is Opcode.TEXT]

    def ask(self, text: bytes) -> bytes:
        """
        Say something and return what is said next.
        """
        self.protocol.send_text(text)
        for data in self.protocol.data_to_send():
            while data:
                self._exchange(lambda: self.h2.local_flow_control_window(1) > 0)
                size = min(self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size)
                self.h2.send_data(1, data[:size])
                data = data[size:]
        self._exchange(lambda: bool(self.texts))
        return self.texts.pop(0)

    def close(self) -> tuple[int, str]:
        """
        Close with 4001, and return what the other side says to that.
        """
        self.protocol.send_close(4001, "enough")
        self.h2.send_data(1, b"".join(self.protocol.data_to_send()))
        self._exchange(lambda: self.protocol.close_rcvd is not None)
        self.socket.close()
        closed = self.protocol.close_rcvd
        assert closed is not None
        return closed.code, closed.reason


class Http2Tests(WebSocketCase):
    """
    The same over HTTP/2.
    """

    def test_over_http2(self):
        """
        A WebSocket over HTTP/2 reaches a server that speaks HTTP/1.1, with large messages and its own closing code.
        """
        client = Http2WebSocket(self.port, "/ws/echo?h2")
        self.assertEqual(client.status, 200)
        self.assertEqual(client.ask(b"hello"), b"hello")
        large = b"x" * 1_000_000
        self.assertEqual(client.ask(large), large)
        self.assertEqual(client.close(), (4001, "enough"))
        wait_until(lambda: (4001, "enough") in self.backend.ended, "the server knows")
        self.check_unharmed()

    def test_refused(self):
        """
        What the server says instead is heard.
        """
        self.assertEqual(Http2WebSocket(self.port, "/ws/refuse").status, 403)
        self.assertEqual(Http2WebSocket(self.port, "/dead/echo").status, 502)


class TlsTests(OwnGatewayCase):
    """
    The same under TLS on both sides.
    """

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(directory.cleanup)
        folder = Path(directory.name)
        authority = Authority()
        identity = authority.issue("localhost", "127.0.0.1")
        files = {
            "ca.pem": authority.pem(),
            "localhost.pem": identity.certificate_pem(),
            "localhost.key": identity.key_pem(),
        }
        for name, data in files.items():
            (folder / name).write_bytes(data)
        terms = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        terms.load_cert_chain(folder / "localhost.pem", folder / "localhost.key")
        self.backend = Backend(terms=terms)
        self.addCleanup(self.backend.stop)
        self.terms = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        upstream = f'  upstream_tls {{\n    ca_file = "{folder}/ca.pem"\n  }}'
        self.text = configure(
            self.port,
            service_at("app", [f"wss://localhost:{self.backend.port}"], upstream),
            entrypoint=f'  tls {{\n    cert_file = "{folder}/localhost.pem"\n    key_file = "{folder}/localhost.key"\n  }}',
            log=self.log,
        ).replace("shutdown_timeout_secs = 5", "shutdown_timeout_secs = 1")

    def open(self, path: str) -> ClientConnection:
        return connect(
            f"wss://localhost:{self.port}{path}", ssl=self.terms, max_size=1 << 25, ping_interval=None, close_timeout=PATIENCE
        )

    def test_under_tls(self):
        """
        Messages go through, codes are kept, a refusal is heard, and 1001 is said at the end.
        """
        gateway = self.start(self.text)
        with self.open("/echo") as client:
            for message in ("hello", os.urandom(1 << 20)):
                client.send(message)
                self.assertEqual(client.recv(PATIENCE), message)
            client.close(3999, "enough")
        wait_until(lambda: (3999, "enough") in self.backend.ended, "the server knows")
        with self.open("/close") as client, self.assertRaises(ConnectionClosedError) as caught:
            client.recv(PATIENCE)
        assert caught.exception.rcvd is not None
        self.assertEqual(caught.exception.rcvd.code, 4321)
        with self.assertRaises(InvalidStatus):
            self.open("/refuse")
        with self.open("/echo") as client:
            gateway.send_signal(signal.SIGTERM)
            with self.assertRaises(ConnectionClosed) as last:
                client.recv(PATIENCE)
            assert last.exception.rcvd is not None
            self.assertEqual(last.exception.rcvd.code, 1001)
        wait_until(lambda: (1001, "") in self.backend.ended, "the server knows")
        gateway.wait(PATIENCE)
        self.assertNotIn("Traceback", gateway.stderr())

    def test_slow_client(self):
        """
        Back-pressure holds under TLS too.
        """
        gateway = self.start(self.text)
        with connect(
            f"wss://localhost:{self.port}/flood", ssl=self.terms, compression=None, ping_interval=None, max_queue=1, close_timeout=PATIENCE
        ) as client:
            before = peak_memory(gateway.pid)
            sent = -1
            while sent != self.backend.sent:
                sent = self.backend.sent
                time.sleep(0.3)
            self.assertLess(sent, FLOOD_PIECE * FLOOD_PIECES)
            for _ in range(FLOOD_PIECES):
                self.assertEqual(len(client.recv(PATIENCE)), FLOOD_PIECE)
            self.assertLess(peak_memory(gateway.pid) - before, 8)
        self.stop(gateway)
