"""
Servers that die, freeze and come back, and who notices.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from typing import Any

from tests.setting import OwnGatewayCase, configure, metrics, service
from tests.support import Process, accepts, fetch, free_port, wait_until
from tests.wire import Stage

BACKEND = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body = sys.argv[2].encode()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

CHECK = 'path = "/ready"\n interval = "200ms"\n timeout = "300ms"\n unhealthy_threshold = 2\n healthy_threshold = 2'

SOON = 2 * (0.2 * 1.1 + 0.3) + 1.5
"""Seconds in which everybody has noticed: two questions, as long as they may take, and the time this machine is busy with other things."""


def checked(name: str, ports: list[int], *, check: str = CHECK, balancer: str = "") -> str:
    """
    Return a service whose servers are probed.
    """
    inside = f"load_balancer {{\n health_check {{\n {check}\n }}\n {balancer}\n" if check else "load_balancer {\n"
    return service(name, ports).replace("load_balancer {\n", inside)


class HealthCase(OwnGatewayCase):
    """
    A gateway before servers that are processes of their own.
    """

    def setUp(self) -> None:
        super().setUp()
        self.ports = {name: free_port() for name in ("one", "two")}
        self.servers = {name: self.serve(name) for name in self.ports}

    def serve(self, name: str) -> Process:
        """
        Start the server called `name`, which answers that to everything.
        """
        server = Process([sys.executable, "-c", BACKEND, str(self.ports[name]), name])
        self.addCleanup(server.kill)
        wait_until(lambda: accepts(self.ports[name]), f"server {name} listens")
        return server

    def text(self, **options: Any) -> str:
        return configure(self.port, checked("app", list(self.ports.values()), **options), log=self.log)

    def rows(self) -> dict[str, dict[str, Any]]:
        """
        Return what the API says of each server.
        """
        names = {f"http://127.0.0.1:{port}": name for name, port in self.ports.items()}
        rows = json.loads(fetch(self.port, "/api/gateway/backends").body)
        return {names[row["url"]]: row for row in rows}

    def wait_for(self, name: str, state: str) -> dict[str, Any]:
        """
        Wait until the API says that a server is in this state; return all it says.
        """
        wait_until(lambda: self.rows()[name]["state"] == state, lambda: f"{name} is {state}: {self.rows()[name]}", SOON)
        return self.rows()[name]

    def spread(self, count: int = 10) -> Counter[str]:
        """
        Make requests; return how many each server has answered. None may fail.
        """
        answers = [fetch(self.port) for _ in range(count)]
        self.assertEqual({answer.status for answer in answers}, {200})
        return Counter(answer.body.decode() for answer in answers)

    def metric(self, name: str, server: str, more: str = "") -> float | None:
        """
        Return a metric of a server.
        """
        return metrics(self.port).get(f'{name}{{service="app",backend="http://127.0.0.1:{self.ports[server]}"{more}}}')


class OutageTests(HealthCase):
    """
    Servers leave the rotation and rejoin it.
    """

    def test_killed(self) -> None:
        """
        A server that is killed leaves the rotation, costs nobody an answer, and is used again when it has come back.
        """
        gateway = self.start(self.text())
        self.assertEqual(self.spread(), {"one": 5, "two": 5})
        self.servers["one"].kill()
        self.assertEqual(self.spread(), {"two": 10})
        row = self.wait_for("one", "unhealthy")
        self.assertEqual((row["healthy"], row["reason"]), (False, "unhealthy: 2 probes in a row failed, at last: connect-refused"))
        self.assertEqual(self.metric("gateway_backend_up", "one"), 0)
        self.assertEqual(self.metric("gateway_backend_health", "one", ',verdict="active"'), 0)
        self.assertEqual(self.metric("gateway_backend_up", "two"), 1)
        self.assertEqual(self.spread(), {"two": 10})
        self.serve("one")
        row = self.wait_for("one", "usable")
        self.assertEqual((row["healthy"], row["reason"]), (True, "healthy: 2 probes in a row succeeded"))
        self.assertEqual(self.metric("gateway_backend_up", "one"), 1)
        self.assertEqual(self.spread(), {"one": 5, "two": 5})
        written = gateway.stderr()
        self.assertEqual(written.count("of service app is unhealthy: 2 probes in a row failed"), 1)
        self.assertEqual(written.count("of service app is healthy: 2 probes in a row succeeded"), 1)
        self.stop(gateway)

    def test_frozen(self) -> None:
        """
        A server that accepts connections and answers nothing leaves the rotation too, until it answers again.
        """
        gateway = self.start(self.text())
        self.spread(2)
        self.servers["one"].send_signal(signal.SIGSTOP)
        row = self.wait_for("one", "unhealthy")
        self.assertIn("response-timeout (no whole response within 0.3 s)", row["reason"])
        self.assertEqual(self.spread(), {"two": 10})
        self.servers["one"].send_signal(signal.SIGCONT)
        self.wait_for("one", "usable")
        self.assertEqual(self.spread(), {"one": 5, "two": 5})
        self.stop(gateway)

    def test_all_dead(self) -> None:
        """
        When no server is left, clients are told so at once, and everything is well again when one has come back.
        """
        gateway = self.start(self.text())
        for name, server in self.servers.items():
            server.kill()
            self.wait_for(name, "unhealthy")
        answer = fetch(self.port)
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (503, "no-backend"))
        self.serve("two")
        self.wait_for("two", "usable")
        self.assertEqual(self.spread(), {"two": 10})
        self.stop(gateway)


class LifeTests(HealthCase):
    """
    Probes go on over reloads, and end when nobody wants them any more.
    """

    def test_verdicts_are_kept(self) -> None:
        """
        A reload forgets neither that a server is dead nor why, also if other rules of judging change with it.
        """
        gateway = self.start(self.text())
        self.servers["one"].kill()
        before = self.wait_for("one", "unhealthy")
        for balancer in ("", 'sticky { cookie = "server" }', "passive_health {}"):
            gateway.reload(self.text(balancer=balancer))
            self.assertEqual(self.rows()["one"], before)
            self.assertEqual(self.spread(4), {"two": 4})
        self.serve("one")
        self.wait_for("one", "usable")
        self.stop(gateway)

    def test_probes_end(self) -> None:
        """
        Probes of a service whose health check is gone end with the reload, those of others go on.
        """
        both = [checked("app", [self.old.port]), checked("other", [self.new.port])]
        gateway = self.start(configure(self.port, *both))
        wait_until(lambda: self.asked(self.old) >= 3 and self.asked(self.new) >= 3, "both are probed")
        gateway.reload(configure(self.port, checked("app", [self.old.port], check=""), both[1]))
        seen, clock = self.asked(self.old), self.asked(self.new)
        wait_until(lambda: self.asked(self.new) >= clock + 5, "the other is probed on")
        self.assertEqual(self.asked(self.old), seen)
        self.stop(gateway)

    def test_stopped_while_probing(self) -> None:
        """
        A gateway that waits for the answer to a probe stops as fast as any other.
        """
        go = self.hold(self.old, "/ready")
        gateway = self.start(configure(self.port, checked("app", [self.old.port], check=CHECK.replace("300ms", "1h"))))
        wait_until(lambda: self.asked(self.old), "the server is asked")
        gateway.stop(timeout=3.0)
        go.set()

    def asked(self, stage: Stage) -> int:
        return stage.count("/ready")
