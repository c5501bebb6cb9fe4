"""
Stopping while clients are being served.
"""

from __future__ import annotations

import signal
import threading
import time

from tests.setting import OwnGatewayCase, read_records
from tests.support import accepts, free_port, wait_until
from tests.wire import Scene, read_chunked, request


class ShutdownTests(OwnGatewayCase):
    """
    TERM lets what is in flight end, within its time, and nothing else begin.
    """

    def test_idle_connections(self):
        """
        With nothing in flight the gateway ends at once, though clients keep their connections.
        """
        gateway = self.start(self.config(self.old))
        clients = [self.connect() for _ in range(5)]
        self.assertEqual([client.fetch("/").status for client in clients[:4]], [200] * 4)
        started = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        self.assertEqual([client.ending() for client in clients], ["closed"] * 5)
        self.assertEqual(gateway.wait(), 0)
        self.assertLess(time.monotonic() - started, 2.0)
        self.assertIn("gateway stopped", gateway.stderr())

    def test_request_in_flight(self):
        """
        A request in flight gets its answer and is told that its connection ends; new connections are refused; the exit code is 0.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self.port = free_port()
            go = self.hold(self.old, "/slow")
            gateway = self.start(self.config(self.old))
            client = self.connect()
            arrived = self.old.count("/slow")
            client.ask("/slow")
            self.wait_for_more("/slow", arrived)
            gateway.send_signal(number)
            wait_until(lambda: not accepts(self.port), "nobody is let in any more", 2.0)
            self.assertTrue(gateway.is_running())
            go.set()
            answer = client.read_answer()
            self.assertEqual((answer.status, answer.body, answer.get("connection")), (200, b"ok", "close"))
            self.assertEqual(client.ending(2.0), "closed")
            self.assertEqual(gateway.wait(2.0), 0)
            self.assertEqual(read_records(self.log)[-1]["path"], "/slow")

    def test_answer_in_flight(self):
        """
        An answer that has begun ends whole, and the gateway with it.
        """
        for first, last in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", b"def"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n"),
        ):
            self.port = free_port()
            go = self.hold(self.old, "/begun", first, last)
            gateway = self.start(self.config(self.old))
            client = self.connect()
            client.ask("/begun")
            _, fields = client.read_head()
            gateway.send_signal(signal.SIGTERM)
            wait_until(lambda: not accepts(self.port), "nobody is let in any more", 2.0)
            go.set()
            if ("content-length", "6") in fields:
                self.assertEqual(client.read(6), b"abcdef")
            else:
                self.assertEqual(read_chunked(client.read_line, client.read), (b"abcdef", []))
            self.assertEqual(client.ending(2.0), "closed")
            # Well before the time for draining is over, which is five seconds.
            self.assertEqual(gateway.wait(2.0), 0)

    def test_upload_in_flight(self):
        """
        An upload that has begun may end.
        """
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.send(request("/", "Content-Length: 6", method="POST") + b"abc")
        wait_until(lambda: self.old.heads, "the request has arrived")
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.port), "nobody is let in any more", 2.0)
        client.send(b"def")
        answer = client.read_answer("POST")
        self.assertEqual((answer.body, answer.get("connection")), (b"old", "close"))
        self.assertEqual(gateway.wait(2.0), 0)

    def test_large_answer_in_flight(self):
        """
        An answer that the client has still to take is not cut off at its end.
        """
        size = 16 << 20

        def play(conversation: Scene, head: bytes) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

        self.old.on("/large", play)
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.ask("/large")
        client.read_head()
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.port), "nobody is let in any more", 2.0)
        self.assertEqual(len(client.read(size)), size)
        self.assertEqual(gateway.wait(2.0), 0)

    def test_what_hangs(self):
        """
        What does not end within `shutdown_timeout_secs` is broken off: told 503 if there is no answer yet, reset if there is half of one.
        """
        self.hold(self.old, "/hangs")
        self.hold(self.old, "/half", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        gateway = self.start(self.config(self.old).replace("shutdown_timeout_secs = 5", "shutdown_timeout_secs = 1"))
        hanging, half, uploading = self.connect(), self.connect(), self.connect()
        hanging.ask("/hangs")
        half.ask("/half")
        half.read_head()
        uploading.send(request("/", "Content-Length: 6", method="POST") + b"abc")
        wait_until(lambda: len(self.old.heads) == 3, "the requests have arrived")
        started = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        for client in (hanging, uploading):
            answer = client.read_answer()
            self.assertEqual((answer.status, answer.get("connection")), (503, "close"))
            self.assertEqual(answer.get("proxy-status"), 'a3s-gateway; error=destination_unavailable; details="shutting-down"')
        self.assertEqual(half.ending(), "reset")
        self.assertEqual(gateway.wait(), 0)
        self.assertTrue(0.9 < time.monotonic() - started < 3.0)
        self.assertEqual({record["outcome"] for record in read_records(self.log)}, {"shutting-down"})
        self.assertEqual(len(read_records(self.log)), 3)
        self.assertNotIn("Traceback", gateway.stderr())

    def test_no_time_at_all(self):
        """
        With a time of 0 nothing is waited for.
        """
        self.hold(self.old, "/hangs")
        gateway = self.start(self.config(self.old).replace("shutdown_timeout_secs = 5", "shutdown_timeout_secs = 0"))
        client = self.connect()
        client.ask("/hangs")
        wait_until(lambda: self.old.heads, "the request has arrived")
        gateway.send_signal(signal.SIGTERM)
        self.assertEqual(client.read_answer().status, 503)
        self.assertEqual(gateway.wait(1.5), 0)

    def test_second_signal(self):
        """
        A second signal stops at once, with the exit code that says so.
        """
        self.hold(self.old, "/hangs")
        for number in (signal.SIGTERM, signal.SIGINT):
            self.port = free_port()
            gateway = self.start(self.config(self.old).replace("shutdown_timeout_secs = 5", "shutdown_timeout_secs = 60"))
            client = self.connect()
            arrived = self.old.count("/hangs")
            client.ask("/hangs")
            self.wait_for_more("/hangs", arrived)
            gateway.send_signal(signal.SIGTERM)
            wait_until(lambda: not accepts(self.port), "nobody is let in any more", 2.0)
            self.assertTrue(gateway.is_running())
            gateway.send_signal(number)
            self.assertEqual(gateway.wait(1.0), 128 + number)
            self.assertIn(client.ending(1.0), ("closed", "reset"))

    def test_reload_while_stopping(self):
        """
        HUP does not bring a stopping gateway back.
        """
        go = self.hold(self.old, "/slow")
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.ask("/slow")
        wait_until(lambda: self.old.heads, "the request has arrived")
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.port), "nobody is let in any more", 2.0)
        gateway.send_signal(signal.SIGHUP)
        threading.Event().wait(0.3)
        self.assertFalse(accepts(self.port))
        go.set()
        self.assertEqual(client.read_answer().status, 200)
        self.assertEqual(gateway.wait(2.0), 0)
        self.assertNotIn("Traceback", gateway.stderr())

    def test_requests_ahead(self):
        """
        Of requests sent ahead the one in flight is answered, and the client is told that the others were not taken.
        """
        go = self.hold(self.old, "/slow")
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.send(request("/slow") + request("/behind"))
        wait_until(lambda: self.old.heads, "the request has arrived")
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.port), "nobody is let in any more", 2.0)
        go.set()
        self.assertEqual(client.read_answer().get("connection"), "close")
        self.assertEqual(client.ending(2.0), "closed")
        self.assertEqual(gateway.wait(2.0), 0)
        self.assertEqual(self.old.count("/behind"), 0)
