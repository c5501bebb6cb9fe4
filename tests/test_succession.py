"""
A new process takes the place of the old one, and the sockets of the supervisor are used.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from tests.setting import OwnGatewayCase
from tests.support import PATIENCE, GatewayProcess, accepts, child_environ, fetch, free_port, wait_until
from tests.test_udp import EchoServer, UdpCase
from tests.test_workers import is_alive
from tests.wire import Client

_DNS = """
entrypoints "dns" {{
  address  = "127.0.0.1:{port}"
  protocol = "udp"
}}
routers "dns" {{
  entrypoints = ["dns"]
  rule        = "HostSNI(`*`)"
  service     = "dns"
}}
services "dns" {{
  load_balancer {{
    servers = [{{ url = "{server}" }}]
  }}
}}
"""


def served_by(text):
    """
    Return the number of the process that a gateway's log says serves now.
    """
    return int(text.rpartition("process ")[2].partition(" serves now")[0])


def end(pid: int) -> None:
    """
    Have the process `pid` end, if it has not.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


class SuccessionTests(OwnGatewayCase):
    """
    USR2 lets a new process take over.
    """

    def hand_over(self, gateway):
        """
        Ask for a successor, and see the old process end in order; return the number of the new one.
        """
        gateway.send_signal(signal.SIGUSR2)
        gateway.wait_for(" serves now")
        pid = served_by(gateway.stderr())
        self.addCleanup(end, pid)
        return pid

    def test_under_load(self):
        """
        Not one request is lost while a new process takes over, and the old one ends.
        """
        gateway = self.start(self.config(self.old))
        stopped = threading.Event()
        self.addCleanup(stopped.set)
        failed: list[str] = []
        served: list[bytes] = []

        def ask(number: int) -> None:
            client = None
            while not stopped.is_set():
                was_kept = client is not None
                try:
                    client = client or Client(self.port)
                    answer = client.fetch("/")
                except (OSError, EOFError, AssertionError) as error:
                    # A kept connection may end before its next request is read, and every client asks again then (RFC 9112 section 9.3.1).
                    if not was_kept:
                        failed.append(repr(error))
                    client = None
                    continue
                served.append(answer.body)
                if answer.status != 200:
                    failed.append(str(answer))
                if answer.get("connection") == "close" or number % 2:
                    client.close()
                    client = None

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        self.hand_over(gateway)
        self.assertEqual(gateway.wait(), 0)
        after = len(served)
        wait_until(lambda: len(served) > after + 100, "the new process serves")
        stopped.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(failed, [])
        self.assertNotIn("Traceback", gateway.stderr())

    def test_in_flight(self):
        """
        A request that the old process has begun is answered by it, while the new one answers others.
        """
        go = self.hold(self.old, "/slow", last=b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow old")
        gateway = self.start(self.config(self.old))
        client = self.connect()
        client.ask("/slow")
        wait_until(lambda: self.old.count("/slow"), "the request has arrived")
        self.hand_over(gateway)
        self.assertEqual(fetch(self.port).body, b"old")
        self.assertTrue(gateway.is_running())
        go.set()
        self.assertEqual(client.read_answer().body, b"slow old")
        self.assertEqual(gateway.wait(), 0)
        self.assertEqual(fetch(self.port).body, b"old")

    def test_no_successor(self):
        """
        If the new process cannot run, the old one goes on, and may be asked again.
        """
        gateway = self.start(self.config(self.old))
        good = gateway.config_path.read_text("utf-8")
        gateway.config_path.write_text("entrypoints {", "utf-8")
        gateway.send_signal(signal.SIGUSR2)
        gateway.wait_for("there is no successor, and this process goes on: it ended before it served")
        self.assertEqual(fetch(self.port).body, b"old")
        gateway.config_path.write_text(good, "utf-8")
        self.hand_over(gateway)
        self.assertEqual(gateway.wait(), 0)
        self.assertEqual(fetch(self.port).body, b"old")


    def test_number_of_workers(self):
        """
        The new process may have another number of workers, which a reload may not, and no request is lost.
        """
        gateway = self.start(self.config(self.old))
        path = gateway.config_path
        text = path.read_text("utf-8")
        answers: list[Any] = []
        stopped = threading.Event()
        self.addCleanup(stopped.set)

        def ask() -> None:
            while not stopped.is_set():
                try:
                    answers.append(fetch(self.port))
                except (OSError, EOFError, AssertionError) as error:
                    answers.append(repr(error))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        path.write_text(f"workers = 2\n{text}", "utf-8")
        pid = self.hand_over(gateway)
        self.assertEqual(gateway.wait(), 0)
        wait_until(lambda: self.workers() == 2, "two workers serve")
        path.write_text(text, "utf-8")
        os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: self.workers() is None, "one process serves")
        self.addCleanup(end, served_by(gateway.stderr()))
        wait_until(lambda: not is_alive(pid), "the one before has ended")
        stopped.set()
        thread.join(PATIENCE)
        self.assertEqual({answer if isinstance(answer, str) else (answer.status, answer.body) for answer in answers}, {(200, b"old")})

    def workers(self):
        """
        Return how many workers serve, `None` if there is one process.
        """
        workers = json.loads(fetch(self.port, "/api/gateway/health").body)["workers"]
        return workers and workers["serving"]


class DatagramTests(UdpCase):
    """
    UDP sockets go from one process to the next, too.
    """

    def hand_over(self, gateway: GatewayProcess) -> None:
        gateway.send_signal(signal.SIGUSR2)
        gateway.wait_for(" serves now")
        self.addCleanup(end, served_by(gateway.stderr()))

    def test_under_load(self) -> None:
        """
        Of a stream of datagrams of several clients not one is lost while a new process takes over, and the old one ends; nor are those of
        clients who come meanwhile.
        """
        gateway = self.start(self.server(b"s").url)
        clients = [self.client() for _ in range(4)]
        heard: list[set[bytes]] = [set() for _ in clients]
        counts = [0 for _ in clients]
        stopped = threading.Event()
        self.addCleanup(stopped.set)

        def send() -> None:
            while not stopped.wait(0.002):
                for number, client in enumerate(clients):
                    client.send(b"%d" % counts[number])
                    counts[number] += 1

        def hear(number: int) -> None:
            while not (stopped.is_set() and len(heard[number]) == counts[number]):
                try:
                    heard[number].add(clients[number].recv(100))
                except TimeoutError:
                    return

        def come() -> None:
            # Not so many that they come to udp_max_sessions.
            while not stopped.wait(0.005):
                newcomer = self.client()
                try:
                    came.append(self.ask(newcomer, b"new"))
                except TimeoutError:
                    came.append(b"nothing")
                newcomer.close()

        came: list[bytes] = []
        threads = [threading.Thread(target=send, daemon=True), threading.Thread(target=come, daemon=True)]
        threads += [threading.Thread(target=hear, args=(number,), daemon=True) for number in range(len(clients))]
        for thread in threads:
            thread.start()
        wait_until(lambda: min(counts) > 50, "datagrams are under way")
        self.hand_over(gateway)
        self.assertEqual(gateway.wait(), 0)
        after = min(counts)
        wait_until(lambda: min(counts) > after + 50, "the new process serves")
        stopped.set()
        for thread in threads:
            thread.join(PATIENCE)
        for got, count in zip(heard, counts, strict=True):
            self.assertEqual(got, {b"s:%d" % number for number in range(count)})
        self.assertEqual(set(came), {b"s:new"})
        self.assertNotIn("Traceback", gateway.stderr())
        self.assertGreater(self.metric('gateway_udp_sessions_begun_total{entrypoint="udp"}'), 0)

    def test_late_answer(self) -> None:
        """
        What a server answers only when the new process serves already still comes back, from the address that was asked.
        """
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(server.close)
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        gateway = self.start(f"udp://127.0.0.1:{server.getsockname()[1]}")
        client = self.client()
        client.send(b"before")
        data, asker = server.recvfrom(100)
        gateway.send_signal(signal.SIGUSR2)
        # However long the new process needs to begin: who has been silent for two seconds by then is not waited for.
        wait_until(lambda: client.send(b"before") and " serves now" in gateway.stderr(), "the new process serves")
        self.addCleanup(end, served_by(gateway.stderr()))
        server.sendto(b"late", asker)
        self.assertEqual((data, client.recv(100)), (b"before", b"late"))
        client.send(b"after")
        while data == b"before":
            data, other = server.recvfrom(100)
        server.sendto(b"soon", other)
        self.assertEqual((data, client.recv(100)), (b"after", b"soon"))
        self.assertNotEqual(asker, other)
        self.assertEqual(gateway.wait(), 0)

    def test_no_successor(self) -> None:
        """
        If the new process cannot run, the old one hears everything as before.
        """
        gateway = self.start(self.server(b"s").url)
        client = self.client()
        gateway.config_path.write_text("entrypoints {", "utf-8")
        gateway.send_signal(signal.SIGUSR2)
        gateway.wait_for("there is no successor, and this process goes on: it ended before it served")
        for number in range(20):
            self.assertEqual(self.ask(client, b"%d" % number), b"s:%d" % number)
        self.stop(gateway)

    def test_workers(self) -> None:
        """
        Several workers have UDP sockets of their own, which cannot be handed over; that is said, either way, and the old process goes on.
        """
        server = self.server(b"s")
        gateway = self.start(server.url, top="workers = 2")
        gateway.send_signal(signal.SIGUSR2)
        gateway.wait_for('this process goes on: entrypoint "udp" is udp, and the sockets that each of the 2 workers has for it')
        self.assertEqual(self.ask(self.client(), b"x"), b"s:x")
        self.stop(gateway)
        gateway = self.start(server.url)
        gateway.config_path.write_text(self.config([server.url], top="workers = 2"), "utf-8")
        gateway.send_signal(signal.SIGUSR2)
        gateway.wait_for("/udp was handed over, but each of several workers opens one of its own there")
        gateway.wait_for("there is no successor, and this process goes on")
        self.assertEqual(self.ask(self.client(), b"x"), b"s:x")
        self.stop(gateway)


class ActivationTests(OwnGatewayCase):
    """
    The supervisor opens the sockets, as systemd does.
    """

    def echo(self) -> str:
        server = EchoServer(b"echo")
        self.addCleanup(server.stop)
        return server.url

    def test_sockets_of_the_supervisor(self):
        """
        A gateway listens on the sockets that it is given, by name or address, for connections and for datagrams, and tells the supervisor
        when it serves.
        """
        dns = free_port()
        config = self.log.parent / "gateway.hcl"
        config.write_text(self.config(self.old) + _DNS.format(port=dns, server=self.echo()), "utf-8")
        listening = socket.create_server(("127.0.0.1", self.port))
        hearing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        hearing.bind(("127.0.0.1", dns))
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(self.log.parent / "notify")
        told.bind(address)
        told.settimeout(PATIENCE)
        self.addCleanup(told.close)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", dns))
        client.send(b"early")
        code = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        # They are to be descriptors 3 and 4 there, which may be either of them already.
        given = (listening.fileno(), hearing.fileno())
        code = f"import os; [os.dup2(each, 103 + at, False) for at, each in enumerate({given})]; os.dup2(103, 3); os.dup2(104, 4); {code}"
        argv = [sys.executable, "-c", code, "-m", "a3sgw.cli", "--config", str(config)]
        environ = child_environ(LISTEN_FDS="2", LISTEN_FDNAMES="anything:dns", NOTIFY_SOCKET=address)
        with (self.log.parent / "stderr").open("wb") as stderr:
            process = subprocess.Popen(argv, env=environ, pass_fds=given, stdin=subprocess.DEVNULL, stderr=stderr)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        listening.close()
        hearing.close()
        # Whoever comes before it runs waits.
        self.assertTrue(accepts(self.port))
        try:
            said = told.recv(100).decode()
        except TimeoutError:
            self.fail((self.log.parent / "stderr").read_text("utf-8"))
        self.assertEqual(said.split(), ["READY=1", f"MAINPID={process.pid}"])
        self.assertEqual(fetch(self.port).body, b"old")
        self.assertEqual(client.recv(100), b"echo:early")
        self.assertNotIn("no entrypoint wants", (self.log.parent / "stderr").read_text("utf-8"))
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 0)
