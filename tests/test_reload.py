"""
Changing the configuration while clients are being served.
"""

from __future__ import annotations

import os
import signal
import socket
import threading

from tests.setting import OwnGatewayCase, metric, metrics, read_records, service
from tests.support import PATIENCE, accepts, fetch, free_port, wait_until
from tests.wire import Client, read_chunked, request


class ReloadTests(OwnGatewayCase):
    """
    HUP takes a new configuration over, and nobody notices who is not meant to.
    """

    def test_under_load(self):
        """
        Twenty reloads cost not one request, on old connections or on new ones.
        """
        texts = [self.config(self.old), self.config(self.new), self.config(self.old, self.new)]
        gateway = self.start(texts[0])
        stopped = threading.Event()
        self.addCleanup(stopped.set)
        served: list[bytes] = []
        failed: list[str] = []

        def ask(reconnects: bool) -> None:
            client = Client(self.port)
            try:
                while not stopped.is_set():
                    answer = client.fetch("/")
                    served.append(answer.body)
                    if answer.status != 200 or answer.get("connection"):
                        failed.append(str(answer))
                    if reconnects:
                        client.close()
                        client = Client(self.port)
            except Exception as error:
                failed.append(repr(error))
            finally:
                client.close()

        threads = [threading.Thread(target=ask, args=(number % 2 == 0,), daemon=True) for number in range(6)]
        for thread in threads:
            thread.start()
        for number in range(20):
            gateway.reload(texts[(number + 1) % 3])
        stopped.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(failed, [])
        self.assertGreater(len(served), 100)
        self.assertEqual(set(served), {b"old", b"new"})
        self.assertEqual(metric(self.port, 'gateway_config_reloads_total{result="success"}'), 20)
        self.stop(gateway)
        # Nothing was lost from the log either.
        self.assertEqual(sum(record["path"] == "/" for record in read_records(self.log)), len(served))

    def test_request_in_flight(self):
        """
        A request in flight ends where it began; the next one on the same connection goes where the new configuration says.
        """
        go = self.hold(self.old, "/slow", last=b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow old")
        gateway = self.start(self.config(self.old))
        client = self.connect()
        self.assertEqual(client.fetch("/").body, b"old")
        client.ask("/slow")
        wait_until(lambda: self.old.count("/slow"), "the request has arrived")
        gateway.reload(self.config(self.new))
        go.set()
        answer = client.read_answer()
        self.assertEqual((answer.body, answer.get("connection")), (b"slow old", None))
        self.assertEqual(client.fetch("/").body, b"new")
        self.stop(gateway)

    def test_answer_in_flight(self):
        """
        So does an answer that has begun, whose pieces go on arriving.
        """
        go = self.hold(self.old, "/stream", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n")
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.ask("/stream")
        client.read_head()
        gateway.reload(self.config(self.new))
        go.set()
        self.assertEqual(read_chunked(client.read_line, client.read), (b"abcdef", []))
        self.assertEqual(client.fetch("/").body, b"new")
        self.stop(gateway)

    def test_upload_in_flight(self):
        """
        So does an upload that has begun.
        """
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.send(request("/", "Content-Length: 6", method="POST") + b"abc")
        wait_until(lambda: self.old.heads, "the request has arrived")
        gateway.reload(self.config(self.new))
        client.send(b"def")
        self.assertEqual(client.read_answer("POST").body, b"old")
        self.assertEqual(client.fetch("/").body, b"new")
        self.stop(gateway)

    def test_terms_of_an_entrypoint(self):
        """
        New bounds of an entrypoint hold for the next request of a connection that was there before.
        """
        gateway = self.start(self.config(self.old))
        client = self.connect()
        self.assertEqual(client.fetch("/?" + "x" * 500).status, 200)
        gateway.reload(self.config(self.old, entrypoint="limits {\n  max_request_line_bytes = 100\n}"))
        self.assertEqual(client.fetch("/?" + "x" * 500).status, 414)
        self.assertEqual(fetch(self.port).status, 200)
        self.stop(gateway)

    def test_entrypoint_added_and_removed(self):
        """
        A new entrypoint listens; one that is gone refuses, lets what is in flight end, and closes the rest.
        """
        second = free_port()
        more = f'entrypoints "second" {{\n  address = "127.0.0.1:{second}"\n}}\n'
        gateway = self.start(self.config(self.old))
        self.assertFalse(accepts(second))
        gateway.reload(self.config(self.old, more=more))
        self.assertEqual(fetch(second).body, b"old")

        slow = self.hold(self.old, "/slow")
        begun = self.hold(self.old, "/begun", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", b"def")
        idle, waiting, reading, other = self.connect(second), self.connect(second), self.connect(second), self.connect()
        self.assertEqual([idle.fetch("/").status, other.fetch("/").status], [200, 200])
        waiting.ask("/slow")
        reading.ask("/begun")
        reading.read_head()
        wait_until(lambda: self.old.count("/slow"), "the request has arrived")
        gateway.reload(self.config(self.old))
        self.assertFalse(accepts(second))
        self.assertEqual(idle.ending(2.0), "closed")
        slow.set()
        answer = waiting.read_answer()
        self.assertEqual((answer.body, answer.get("connection"), waiting.ending(2.0)), (b"ok", "close", "closed"))
        begun.set()
        self.assertEqual(reading.read(6), b"abcdef")
        self.assertEqual(reading.ending(2.0), "closed")
        self.assertEqual(other.fetch("/").status, 200)
        wait_until(lambda: metric(self.port, "gateway_active_connections") == 2, "only the last client and the asking one are left", 2.0)
        self.stop(gateway)

    def test_entrypoint_moved(self):
        """
        An entrypoint with another address listens there and no longer at its old place.
        """
        gateway = self.start(self.config(self.old))
        before, self.port = self.port, free_port()
        gateway.reload(self.config(self.old))
        self.assertEqual(fetch(self.port).body, b"old")
        self.assertFalse(accepts(before))
        self.stop(gateway)

    def test_entrypoint_renamed(self):
        """
        An entrypoint with another name and the same address keeps its connections.
        """
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.fetch("/")
        gateway.reload(self.config(self.new).replace('entrypoints "web"', 'entrypoints "front"'))
        self.assertEqual(client.fetch("/").body, b"new")
        self.stop(gateway)

    def test_broken_file(self):
        """
        A configuration with faults is not taken over: what ran goes on, and every fault is named with its place.
        """
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.fetch("/")
        good = self.config(self.new)
        broken = good.replace('service = "app"', 'service = "ap"').replace('access_log {', 'acess_log {')
        for text, expected in (
            ("entrypoints {", ("gateway.hcl:1:",)),
            (broken, ("ap", "acess_log", "gateway.hcl:")),
            (good.replace("PathPrefix(`/`)", "PathPrefix(`/`"), ("rule", "gateway.hcl:")),
            ("", ("entrypoint",)),
        ):
            before = len(gateway.stderr())
            gateway.reload(text, expect="the configuration that was running goes on")
            written = gateway.stderr()[before:]
            for words in expected:
                self.assertIn(words, written)
            self.assertNotIn("Traceback", written)
            self.assertEqual(client.fetch("/").body, b"old")
            self.assertEqual(fetch(self.port).body, b"old")
        gateway.config_path.unlink()
        gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: gateway.stderr().count("the configuration that was running goes on") == 5, "the missing file is reported")
        self.assertEqual(metric(self.port, 'gateway_config_reloads_total{result="failure"}'), 5)
        gateway.reload(good)
        self.assertEqual(client.fetch("/").body, b"new")
        self.stop(gateway)

    def test_address_in_use(self):
        """
        A configuration whose address somebody else uses is not taken over, not even in part.
        """
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.fetch("/")
        other = free_port()
        with socket.create_server(("127.0.0.1", 0)) as occupier:
            taken = occupier.getsockname()[1]
            more = "".join(f'entrypoints "e{port}" {{\n  address = "127.0.0.1:{port}"\n}}\n' for port in (other, taken))
            before = len(gateway.stderr())
            gateway.reload(self.config(self.new, more=more), expect="the configuration that was running goes on")
            written = gateway.stderr()[before:]
            self.assertIn(f"127.0.0.1:{taken}", written)
            self.assertIn("Address already in use", written)
            self.assertNotIn("Traceback", written)
            self.assertFalse(accepts(other))
            self.assertEqual([client.fetch("/").body, fetch(self.port).body], [b"old", b"old"])
        self.assertEqual(metric(self.port, 'gateway_config_reloads_total{result="failure"}'), 1)
        gateway.reload(self.config(self.new, more=more))
        self.assertEqual([client.fetch("/").body, fetch(other).body, fetch(taken).body], [b"new"] * 3)
        self.stop(gateway)

    def test_log_that_cannot_be_opened(self):
        """
        Nor is one whose access log cannot be opened.
        """
        gateway = self.start(self.config(self.old))
        text = self.config(self.new).replace(str(self.log), f"{self.log}.d/missing/access.log")
        gateway.reload(text, expect="the configuration that was running goes on")
        self.assertIn("missing/access.log", gateway.stderr())
        self.assertEqual(fetch(self.port).body, b"old")
        self.stop(gateway)

    def test_connections_to_backends(self):
        """
        Connections to servers that a reload did not touch are used on; those to servers that are gone are closed.
        """
        both = service("gone", [self.new.port])
        gateway = self.start(self.config(self.old, more=both))
        client = self.connect()
        self.assertEqual([client.fetch("/").status, client.fetch("/gone").status], [200, 200])
        self.assertEqual((self.old.connections, self.new.connections), (1, 1))
        gateway.reload(self.config(self.old, entrypoint="merge_slashes = false"))
        self.assertEqual(client.fetch("/").status, 200)
        self.assertEqual(self.old.connections, 1)
        wait_until(lambda: self.new.ended == 1, "the connection to the server that is gone is closed", 2.0)
        # Another way to treat the servers is no other servers.
        changed = self.config(self.old).replace("load_balancer {", 'timeouts {\n  response_header = "7s"\n}\nload_balancer {')
        gateway.reload(changed)
        self.assertEqual(client.fetch("/").status, 200)
        self.assertEqual(self.old.connections, 1)
        self.stop(gateway)

    def test_turns_survive(self):
        """
        A reload that does not touch a service does not begin its turns anew.
        """
        gateway = self.start(self.config(self.old, self.new))
        client = self.connect()
        first = client.fetch("/").body
        gateway.reload(self.config(self.old, self.new, entrypoint="merge_slashes = false"))
        self.assertNotEqual(client.fetch("/").body, first)
        self.stop(gateway)

    def test_totals_do_not_fall(self):
        """
        No total falls when routers, services, servers and entrypoints go, and what is gone is not shown any longer.
        """
        second = free_port()
        more = service("gone", [self.new.port]) + f'entrypoints "second" {{\n  address = "127.0.0.1:{second}"\n}}\n'
        gateway = self.start(self.config(self.old, more=more))
        for _ in range(3):
            fetch(self.port)
            fetch(second, "/gone")
            fetch(second, "/nowhere")
        before = metrics(self.port)
        gateway.reload(self.config(self.old))
        after = metrics(self.port)
        for name in (
            "gateway_requests_total",
            'gateway_responses_total{status_class="2xx"}',
            'gateway_responses_total{status_class="4xx"}',
            "gateway_response_bytes_total",
            'gateway_exchanges_total{outcome="completed"}',
            'gateway_exchanges_total{outcome="no-route"}',
            'gateway_router_requests_total{router="app"}',
            'gateway_service_requests_total{service="app"}',
        ):
            self.assertGreaterEqual(after[name], before[name], name)
        self.assertEqual(before["gateway_requests_total"] + 1, after["gateway_requests_total"])
        self.assertEqual([name for name in after if '"gone"' in name], [])
        self.stop(gateway)

    def test_log_rotated(self):
        """
        HUP and USR1 open a rotated access log anew; not one line is lost or in the wrong file.
        """
        gateway = self.start(self.config(self.old))
        client = self.connect()
        for number, act in enumerate((lambda: gateway.reload(self.config(self.old)), lambda: gateway.send_signal(signal.SIGUSR1))):
            for _ in range(5):
                client.fetch("/")
            rotated = self.log.with_suffix(f".{number}")
            os.rename(self.log, rotated)
            act()
            wait_until(self.log.exists, "the log is there again", 3.0)
            self.assertEqual(len(read_records(rotated)), 5)
        client.fetch("/")
        wait_until(lambda: len(read_records(self.log)) == 1, "the line is in the new file", 3.0)
        self.stop(gateway)

    def test_log_moved(self):
        """
        A request that is in flight while the access log moves is found in one of the two.
        """
        go = self.hold(self.old, "/slow")
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.ask("/slow")
        wait_until(lambda: self.old.count("/slow"), "the request has arrived")
        first, self.log = self.log, self.log.with_suffix(".second")
        gateway.reload(self.config(self.old))
        go.set()
        self.assertEqual(client.read_answer().status, 200)
        client.fetch("/")
        wait_until(lambda: any(record["path"] == "/" for record in read_records(self.log)), "the second log is written", 3.0)
        paths = [record["path"] for record in read_records(first) + read_records(self.log)]
        self.assertEqual(sorted(paths), ["/", "/slow"])
        self.stop(gateway)

    def test_many_signals(self):
        """
        However many HUPs come at once, what the file says in the end is what runs.
        """
        gateway = self.start(self.config(self.old))
        for _ in range(10):
            gateway.config_path.write_text(self.config(self.old))
            gateway.send_signal(signal.SIGHUP)
        gateway.config_path.write_text(self.config(self.new))
        gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: fetch(self.port).body == b"new", "the last configuration runs", 5.0)
        self.stop(gateway)
