"""
The bounds of what clients may do: how much they may send, how long they may take, and who may come in at all.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from unittest import skipIf

from tests.setting import RefusalCase, metric
from tests.support import free_port, missing, run_command, wait_until
from tests.wire import Answer, Client, Scene, request


class BoundTests(RefusalCase):
    """
    Everything a client sends has a bound in size and in time.
    """

    entrypoint = """
  timeouts {
    request_header = "1s"
    request_body   = "1s"
    idle           = "2s"
  }
  limits {
    max_header_bytes       = 4096
    max_header_count       = 20
    max_request_line_bytes = 1024
  }
"""

    def test_long_request_line(self):
        """
        A request line that is too long is refused, as soon as that is known.
        """
        whole, part = request("/" + "x" * 2000), b"GET /" + b"x" * 2000
        self.refuse(*[(data, 414, "request-line-too-long") for data in (whole, part, b"x" * 2000)])
        self.assertEqual(self.connect().fetch("/" + "x" * 1000).status, 200)
        self.check_unharmed()

    def test_large_header(self):
        """
        Header fields that are too many or too large are refused, as soon as that is known.
        """
        heads = (
            request("/", "X-A: " + "x" * 5000),
            request("/", "X-A: " + "x" * 5000)[:-4],
            request("/", *[f"X-{number}: 1" for number in range(30)]),
            request("/", *[f"X-{number}: {'x' * 400}" for number in range(15)]),
        )
        self.refuse(*[(head, 431, "headers-too-large") for head in heads])
        self.assertEqual(self.connect().fetch("/", *[f"X-{number}: 1" for number in range(19)]).status, 200)
        self.assertEqual(self.connect().fetch("/", "X-A: " + "x" * 4000).status, 200)
        self.check_unharmed()

    def test_slow_header(self):
        """
        A client that dribbles its request head is told 408 in time, however steadily it dribbles.
        """
        counted = metric(self.port, 'gateway_exchanges_total{outcome="request-timeout"}')
        client = self.connect()
        started = time.monotonic()
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n")
        stopped = threading.Event()
        self.addCleanup(stopped.set)

        def dribble() -> None:
            while not stopped.wait(0.1):
                try:
                    client.send(b"X")
                except OSError:
                    return

        threading.Thread(target=dribble, daemon=True).start()
        answer = client.read_answer()
        self.check_refusal(answer, 408, "request-timeout")
        self.assertEqual(answer.get("connection"), "close")
        self.assertTrue(0.9 < time.monotonic() - started < 2.5)
        stopped.set()
        self.assertEqual(client.ending(7.0), "closed")
        self.assertEqual(metric(self.port, 'gateway_exchanges_total{outcome="request-timeout"}'), counted + 1)
        self.check_unharmed()

    def test_slow_body(self):
        """
        A client that stops within its body is told 408 in time, and the backend sees no complete request.
        """
        ended = threading.Event()

        def play(conversation: Scene, head: bytes) -> bool:
            try:
                conversation.read_to_end()
            finally:
                ended.set()
            return True

        self.stage.on("/slow-body", play)
        for framing, part in (("Content-Length: 10", b"part"), ("Transfer-Encoding: chunked", b"4\r\npart\r\n")):
            ended.clear()
            with Client(self.port) as client:
                started = time.monotonic()
                client.send(request("/slow-body", framing, method="POST") + part)
                answer = client.read_answer()
                self.check_refusal(answer, 408, "request-timeout")
                self.assertEqual(answer.get("connection"), "close")
                self.assertTrue(0.9 < time.monotonic() - started < 2.5)
                self.assertEqual(client.ending(2.0), "closed")
            self.assertTrue(ended.wait(1.0), "the backend did not see the end")
            self.assertEqual(self.wait_for_record("/slow-body")["outcome"], "request-timeout")
        self.check_unharmed()

    def test_steady_body(self):
        """
        A body that keeps coming may take longer than that.
        """
        with Client(self.port) as client:
            client.send(request("/steady", "Content-Length: 8", method="POST"))
            for _ in range(8):
                threading.Event().wait(0.3)
                client.send(b"x")
            self.assertEqual(client.read_answer("POST").status, 200)

    def test_idle_connection(self):
        """
        A connection on which no request comes is closed without a word, before the first request and after one.
        """
        for requests in (0, 1):
            with Client(self.port) as client:
                for _ in range(requests):
                    self.assertEqual(client.fetch("/one").status, 200)
                started = time.monotonic()
                self.assertEqual(client.read_to_end(), b"")
                self.assertTrue(1.9 < time.monotonic() - started < 3.5)
        self.check_unharmed()

    def test_empty_lines_only(self):
        """
        Empty lines are no request, and do not keep a connection open for ever.
        """
        with Client(self.port) as client:
            end = time.monotonic() + 6.0
            ended = ""
            while time.monotonic() < end:
                try:
                    client.send(b"\r\n")
                except ConnectionError:
                    ended = "reset"
                    break
                ended = client.ending(0.2)
                if ended != "open":
                    break
            self.assertNotEqual(ended, "open")
        self.check_unharmed()


class StrangerTests(RefusalCase):
    """
    What is not HTTP at all is turned away quickly.
    """

    def test_tls_on_a_plain_port(self):
        """
        A TLS client on a plain port is refused at once, and not after a timeout.
        """
        context = ssl.create_default_context()
        started = time.monotonic()
        with Client(self.port) as client, self.assertRaises(ssl.SSLError):
            context.wrap_socket(client.socket, server_hostname="test")
        self.assertLess(time.monotonic() - started, 1.0)
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)
        self.refuse((hello, 400, "request-line-malformed"))
        self.check_unharmed()

    def test_one_strange_byte(self):
        """
        A first byte that cannot begin a request is enough.
        """
        self.refuse(*[(byte, 400, "request-line-malformed") for byte in (b"\x16", b"\x00", b"\xff", b" ", b"{", b":")])
        self.check_unharmed()

    def test_garbage(self):
        """
        Two megabytes of garbage, of any kind, leave the gateway as it was.
        """
        size = 2 << 20
        head = b"GET / HTTP/1.1\r\nX"
        repeated = [byte * size for byte in (b"x", b"\n", b"\0", b"\r\n")]
        for garbage in (os.urandom(size), *repeated, head + b"\r" * size, head + b"x" * size):
            client = self.connect()
            sending = client.send_aside(garbage)
            ending = client.ending(2.0)
            client.close()
            sending.join(5.0)
            self.assertFalse(sending.is_alive())
            if garbage[:2] != b"\r\n":
                self.assertIn(ending, ("closed", "reset"), garbage[:20])
        self.check_unharmed()

    def test_clients_that_only_connect(self):
        """
        Connections that come and go without a word leave nothing behind.
        """
        for leave in (Client.close, Client.reset):
            for _ in range(50):
                leave(Client(self.port))
        self.check_unharmed()


class DoorTests(RefusalCase):
    """
    Who may not come in is told so at the door.
    """

    ports: dict[str, int]

    @classmethod
    def parts(cls) -> list[str]:
        cls.ports = {name: free_port() for name in ("closed", "guarded", "narrow", "none")}
        inside = {
            "closed": 'tcp_allowed_ips = ["10.0.0.0/8"]',
            "guarded": 'allowed_ips = ["127.0.0.2/32"]',
            "narrow": "max_connections = 2",
            "none": "max_connections = 0",
        }
        return [f'entrypoints "{name}" {{\n  address = "127.0.0.1:{port}"\n  {inside[name]}\n}}\n' for name, port in cls.ports.items()]

    def test_address_not_allowed(self):
        """
        A client whose address is not allowed is told 403 and disconnected, without a request and with one.
        """
        for name in ("closed", "guarded"):
            counter = f'gateway_connections_refused_total{{entrypoint="{name}",reason="address-refused"}}'
            counted = metric(self.port, counter)
            with Client(self.ports[name]) as client:
                self._check_door(client.read_answer(), 403, "address-refused", "http_request_denied")
                self.assertEqual(client.ending(2.0), "closed")
            self.assertEqual(metric(self.port, counter), counted + 1)
        with Client(self.ports["guarded"], source="127.0.0.2") as client:
            self.assertEqual(client.fetch("/").status, 200)
        self.check_unharmed()

    def test_answer_survives_the_request(self):
        """
        A client that sends its request before it is turned away still reads why.
        """
        for name, status in (("closed", 403), ("none", 503)):
            for _ in range(50):
                with Client(self.ports[name]) as client:
                    client.send(request("/", method="POST", body=bytes(3000)))
                    self.assertEqual(client.read_answer().status, status)
                    self.assertEqual(client.ending(7.0), "closed")

    @skipIf(missing("curl"), str(missing("curl")))
    def test_curl_reads_why(self):
        """
        curl shows the refusal, every time.
        """
        codes = []
        for _ in range(10):
            url = f"http://127.0.0.1:{self.ports['closed']}/"
            done = run_command(["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", url])
            codes.append((done.returncode, done.stdout))
        self.assertEqual(codes, [(0, "403")] * 10)

    def test_too_many_connections(self):
        """
        A connection too many is told 503 and when to come again; when one has gone there is room.
        """
        counter = 'gateway_connections_refused_total{entrypoint="narrow",reason="connection-limit"}'
        port = self.ports["narrow"]
        with Client(port) as first, Client(port) as second:
            self.assertEqual([first.fetch("/").status, second.fetch("/").status], [200, 200])
            counted = metric(self.port, counter)
            with Client(port) as third:
                answer = third.read_answer()
                self._check_door(answer, 503, "connection-limit", "connection_limit_reached")
                self.assertEqual(answer.get("retry-after"), "1")
                self.assertEqual(third.ending(2.0), "closed")
            self.assertEqual(metric(self.port, counter), counted + 1)
            first.close()

            def is_served() -> bool:
                with Client(port) as late:
                    late.ask("/")
                    return late.read_answer().status == 200

            wait_until(is_served, "there is room again", 3.0)
            self.assertEqual(second.fetch("/").status, 200)
        self.check_unharmed()

    def _check_door(self, answer: Answer, status: int, reason: str, error: str) -> None:
        self.check_refusal(answer, status, reason, error)
        self.assertEqual(answer.get("connection"), "close")
