"""
A new process takes the place of the old one, and the sockets of the supervisor are used.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from tests.setting import OwnGatewayCase
from tests.support import PATIENCE, accepts, child_environ, fetch, wait_until
from tests.wire import Client


def served_by(text):
    """
    Return the number of the process that a gateway's log says serves now.
    """
    return int(text.rpartition("process ")[2].partition(" serves now")[0])


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
        self.addCleanup(self.end, pid)
        return pid

    def end(self, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

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


class ActivationTests(OwnGatewayCase):
    """
    The supervisor opens the sockets, as systemd does.
    """

    def test_sockets_of_the_supervisor(self):
        """
        A gateway listens on the sockets that it is given, by address, and tells the supervisor when it serves.
        """
        config = self.log.parent / "gateway.hcl"
        config.write_text(self.config(self.old), "utf-8")
        listening = socket.create_server(("127.0.0.1", self.port))
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(self.log.parent / "notify")
        told.bind(address)
        told.settimeout(PATIENCE)
        self.addCleanup(told.close)
        code = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        # It is to be descriptor 3 there.
        argv = [sys.executable, "-c", f"import os; os.dup2({listening.fileno()}, 3); {code}", "-m", "a3sgw.cli", "--config", str(config)]
        environ = child_environ(LISTEN_FDS="1", LISTEN_FDNAMES="anything", NOTIFY_SOCKET=address)
        with (self.log.parent / "stderr").open("wb") as stderr:
            process = subprocess.Popen(argv, env=environ, pass_fds=[listening.fileno(), 3], stdin=subprocess.DEVNULL, stderr=stderr)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        listening.close()
        # Whoever comes before it runs waits.
        self.assertTrue(accepts(self.port))
        try:
            said = told.recv(100).decode()
        except TimeoutError:
            self.fail((self.log.parent / "stderr").read_text("utf-8"))
        self.assertEqual(said.split(), ["READY=1", f"MAINPID={process.pid}"])
        self.assertEqual(fetch(self.port).body, b"old")
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 0)
