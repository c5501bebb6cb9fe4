"""
Tests of the gateway as one object, on doors of this machine.
"""

import json
import os
import signal
import socket

from twisted.application.service import IService, MultiService
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from a3sgw._version import __version__
from a3sgw.admin.api import IGatewayView
from a3sgw.config.model import ConfigurationError, GatewayConfig
from a3sgw.errors import AssemblyError
from a3sgw.gateway import Gateway
from a3sgw.interfaces import IControl
from a3sgw.message import RequestHead
from a3sgw.net.test.loops import LoopCase
from a3sgw.view import GatewayView

CONFIG = """
entrypoints "web" {
  address = "127.0.0.1:0"
}
routers "app" {
  rule    = "PathPrefix(`/`)"
  service = "app"
}
routers "api" {
  rule        = "Host(`api.test`)"
  service     = "app"
  entrypoints = ["web"]
  priority    = 100
}
services "app" {
  load_balancer { servers = [{ url = "http://127.0.0.1:9", weight = 2 }, { url = "http://127.0.0.1:10" }] }
}
observability {
  access_log { enabled = false }
}
"""


class FailingReactor:
    """
    Notes what a gateway that cannot start does to the reactor, and is otherwise the one it was made of.
    """

    def __init__(self, reactor):
        self._reactor = reactor
        self.flushes = reactor.flushes
        self.when_running = []

    def __getattr__(self, name):
        return getattr(self._reactor, name)

    def callWhenRunning(self, call):
        self.when_running.append(call.__name__)


class GatewayCase(LoopCase):
    """
    A gateway on a reactor that the test turns.
    """

    def load(self, text=CONFIG):
        return GatewayConfig.from_hcl(text)

    def make(self, text=CONFIG):
        self.gateway = Gateway(self.load(text), self.reactor)
        self.addCleanup(self.stop, self.gateway)
        return self.gateway

    def run_gateway(self, text=CONFIG):
        gateway = self.make(text)
        started = gateway.start()
        # A large configuration is assembled in steps.
        self.turn_until(lambda: started.called)
        self.successResultOf(started)
        return gateway

    def stop(self, gateway):
        done = gateway.shutdown()
        self.turn_until(lambda: done.called)
        self.successResultOf(done)

    def connect(self, name="web"):
        sock = socket.create_connection(("127.0.0.1", self.gateway.ports()[name]))
        self.addCleanup(sock.close)
        sock.setblocking(False)
        return sock

    def hear(self, sock, until):
        """
        Turn the reactor until `sock` has heard something that ends with `until`, or its end for `None`.
        """
        heard = b""
        for _ in range(200):
            self.turn(0.02)
            try:
                piece = sock.recv(65536)
            except BlockingIOError:
                continue
            if not piece:
                break
            heard += piece
            if until is not None and heard.endswith(until):
                break
        return heard

    def get(self, path, sock=None):
        """
        Return status and JSON that the gateway's own API answers.
        """
        sock = sock or self.connect()
        sock.send(b"GET %b HTTP/1.1\r\nHost: a.test\r\n\r\n" % path.encode())
        head, _, body = self.hear(sock, b"}\n" if "/health" in path or "explain" in path else b"\n").partition(b"\r\n\r\n")
        return int(head[9:12]), json.loads(body)

    def in_use(self):
        """
        Return a configuration with an entrypoint whose port is in use.
        """
        _, (_, port) = self.listen()
        return CONFIG + f'entrypoints "taken" {{\n address = "127.0.0.1:{port}"\n}}\n'


class LifeTests(GatewayCase):
    """
    From created to stopped.
    """

    def test_states(self):
        """A gateway is created, running and stopped, and says so."""
        gateway = self.make()
        self.assertEqual((gateway.state(), gateway.is_running(), gateway.is_shutdown()), ("created", False, False))
        self.assertEqual(gateway.ports(), {})
        self.successResultOf(gateway.start())
        self.assertEqual((gateway.state(), gateway.is_running(), gateway.is_shutdown()), ("running", True, False))
        self.connect()
        done = gateway.shutdown()
        self.assertEqual((gateway.state(), gateway.is_running()), ("stopping", False))
        self.turn_until(lambda: done.called)
        self.assertEqual((gateway.state(), gateway.is_running(), gateway.is_shutdown()), ("stopped", False, True))

    def test_interfaces(self):
        """A gateway is a service, the deciding side, and has a view of itself."""
        gateway = self.make()
        verifyObject(IService, gateway)
        verifyObject(IControl, gateway)
        verifyObject(IGatewayView, GatewayView(gateway, gateway._carrier))

    def test_starts_once(self):
        """A gateway cannot be started twice, nor after it was stopped: that is said."""
        gateway = self.run_gateway()
        error = self.assertRaises(RuntimeError, gateway.start)
        self.assertEqual(str(error), "a gateway starts once, and this one is running")
        self.stop(gateway)
        self.assertRaises(RuntimeError, gateway.start)

    def test_cannot_listen(self):
        """A gateway that cannot listen everywhere listens nowhere, and is stopped."""
        gateway = self.make(self.in_use())
        waiting = gateway.shutdown
        failure = self.failureResultOf(gateway.start(), AssemblyError)
        self.assertIn('entrypoint "taken" cannot listen on 127.0.0.1:', failure.getErrorMessage())
        self.assertEqual((gateway.state(), gateway.ports()), ("stopped", {}))
        self.successResultOf(waiting())

    def test_problems(self):
        """A configuration with problems makes no gateway, and all of them are listed."""
        config = self.load()
        routers = config.routers.updated({"app": GatewayConfig.from_hcl(CONFIG).routers["api"]})
        broken = GatewayConfig(entrypoints=config.entrypoints, routers=routers)
        error = self.assertRaises(ConfigurationError, Gateway, broken, self.reactor)
        self.assertGreaterEqual(len(error.problems), 2)

    def test_shutdown_twice(self):
        """All who ask for the end are told of the same one."""
        gateway = self.run_gateway()
        self.connect()
        one, other = gateway.shutdown(), gateway.shutdown()
        self.assertNoResult(one)
        self.turn_until(lambda: one.called)
        self.successResultOf(one)
        self.successResultOf(other)
        self.successResultOf(gateway.shutdown())

    def test_shutdown_before_the_start(self):
        """A gateway that was never started is stopped at once."""
        gateway = self.make()
        self.successResultOf(gateway.shutdown())
        self.assertEqual(gateway.state(), "stopped")

    def test_everything_is_closed(self):
        """After the end nobody can connect, and who was connected is not any more."""
        gateway = self.run_gateway()
        idle = self.connect()
        port = gateway.ports()["web"]
        for _ in range(3):
            self.turn(0.02)
        self.stop(gateway)
        self.assertEqual(self.hear(idle, None), b"")
        self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", port))

    def test_wait_for_shutdown(self):
        """Who waits is told when somebody else ends the gateway, or at once if it has ended already."""
        self.keep_signals()
        gateway = self.run_gateway()
        waiting = gateway.wait_for_shutdown()
        self.assertNoResult(waiting)
        self.stop(gateway)
        self.successResultOf(waiting)
        self.successResultOf(gateway.wait_for_shutdown())

    def test_signals(self):
        """SIGINT and SIGTERM end a gateway that is waited for."""
        self.keep_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            gateway = self.run_gateway()
            waiting = gateway.wait_for_shutdown()
            os.kill(os.getpid(), number)
            self.turn_until(lambda waiting=waiting: waiting.called)
            self.successResultOf(waiting)
            self.assertEqual(gateway.state(), "stopped")

    def keep_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))


class ServiceTests(GatewayCase):
    """
    A gateway in a service tree.
    """

    def test_child(self):
        """A gateway starts and stops with its parent, who waits for it."""
        parent = MultiService()
        self.make().setServiceParent(parent)
        parent.startService()
        self.assertEqual((self.gateway.state(), self.gateway.running), ("running", True))
        self.connect()
        done = parent.stopService()
        self.assertNoResult(done)
        self.turn_until(lambda: done.called)
        self.assertEqual(self.gateway.state(), "stopped")

    def test_child_that_cannot_start(self):
        """A gateway in a tree that cannot listen says why and stops the reactor: it must not look alive."""
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        reactor = FailingReactor(self.reactor)
        gateway = Gateway(self.load(self.in_use()), reactor)
        gateway.startService()
        self.assertEqual(reactor.when_running, ["stop"])
        (critical,) = [event for event in events if event["log_level"] is LogLevel.critical]
        self.assertIn("Address already in use", critical["reason"])
        self.successResultOf(gateway.stopService())

    def test_stopped_before_it_was_started(self):
        """A tree that is taken down without having been started takes its gateway with it."""
        self.successResultOf(self.make().stopService())
        self.assertEqual(self.gateway.state(), "stopped")


class ReloadTests(GatewayCase):
    """
    Other configurations under way.
    """

    def test_reload(self):
        """After a reload the new configuration runs, on the same socket, and is counted."""
        gateway = self.run_gateway()
        port = gateway.ports()["web"]
        config = self.load(CONFIG.replace("priority    = 100", "priority    = 200"))
        self.successResultOf(gateway.reload(config))
        self.assertIs(gateway.config(), config)
        self.assertEqual((gateway.state(), gateway.ports()["web"]), ("running", port))
        counts, last = gateway.reloads()
        self.assertEqual(counts, {"success": 1, "failure": 0})
        self.assertIsNotNone(last)
        self.assertEqual((gateway.health()["reload"]["result"], gateway.health()["reload"]["error"]), ("success", None))

    def test_open_connection(self):
        """A connection that is open during a reload is served by the new configuration."""
        gateway = self.run_gateway()
        sock = self.connect()
        self.assertEqual(self.get("/api/gateway/health", sock)[0], 200)
        self.successResultOf(gateway.reload(self.load(CONFIG + 'dashboard { path_prefix = "/other" }')))
        self.assertEqual(self.get("/other/health", sock)[0], 200)

    def test_problems(self):
        """A configuration with problems is refused and counted, and the old one runs on."""
        gateway = self.run_gateway()
        config = gateway.config()
        self.failureResultOf(gateway.reload(GatewayConfig()), ConfigurationError)
        self.assert_unmoved(config, "entrypoint")

    def test_cannot_listen(self):
        """A configuration whose entrypoint cannot be opened is refused and counted, and the old one runs on."""
        gateway = self.run_gateway()
        config = gateway.config()
        self.failureResultOf(gateway.reload(self.load(self.in_use())), AssemblyError)
        self.assert_unmoved(config, "Address already in use")

    def test_other_number_of_workers(self):
        """A gateway in one process does not become several by a reload, and says so."""
        gateway = self.run_gateway()
        config = gateway.config()
        self.failureResultOf(gateway.reload(self.load(CONFIG + "workers = 3\n")), AssemblyError)
        self.assert_unmoved(config, "workers cannot change from 1 to 3 by a reload; send USR2, or restart the gateway")

    def assert_unmoved(self, config, reason):
        gateway = self.gateway
        self.assertIs(gateway.config(), config)
        self.assertEqual((gateway.state(), gateway.reloads()), ("running", ({"success": 0, "failure": 1}, None)))
        last = gateway.health()["reload"]
        self.assertEqual(last["result"], "failure")
        self.assertIn(reason, last["error"])
        self.assertEqual(self.get("/api/gateway/health")[0], 200)
        self.successResultOf(gateway.reload(config))

    def test_refused_elsewhere(self):
        """A reload that came to nothing before it reached the gateway is counted and shown too."""
        gateway = self.run_gateway()
        gateway.reload_refused("gateway.hcl: no such file")
        self.assertEqual(gateway.reloads(), ({"success": 0, "failure": 1}, None))
        self.assertEqual(gateway.health()["reload"]["error"], "gateway.hcl: no such file")
        self.assertEqual(gateway.state(), "running")

    def test_mended(self):
        """What was refused is shown until the configuration stands as it runs; it stays counted, and a success stays shown."""
        gateway = self.run_gateway()
        gateway.found_unchanged()
        self.assertIsNone(gateway.health()["reload"])
        gateway.reload_refused("gateway.hcl: no such file")
        gateway.found_unchanged()
        last = gateway.health()["reload"]
        self.assertEqual((last["result"], last["error"]), ("unchanged", None))
        self.assertEqual(gateway.reloads(), ({"success": 0, "failure": 1}, None))
        self.successResultOf(gateway.reload(gateway.config()))
        gateway.found_unchanged()
        self.assertEqual(gateway.health()["reload"]["result"], "success")

    def test_not_running(self):
        """Only a running gateway can be reloaded."""
        gateway = self.make()
        self.failureResultOf(gateway.reload(self.load()), RuntimeError)
        self.successResultOf(gateway.start())
        self.connect()
        done = gateway.shutdown()
        failure = self.failureResultOf(gateway.reload(self.load()), RuntimeError)
        self.assertEqual(failure.getErrorMessage(), "only a running gateway can be reloaded, and this one is stopping")
        self.turn_until(lambda: done.called)
        self.failureResultOf(gateway.reload(self.load()), RuntimeError)


class HealthTests(GatewayCase):
    """
    Servers are probed as long as the gateway runs.
    """

    def setUp(self):
        super().setUp()
        self.server, (_, port) = self.listen()
        check = 'health_check {\n protocol = "tcp"\n interval = "10ms"\n unhealthy_threshold = 1\n }'
        text = CONFIG.replace('127.0.0.1:9"', f'127.0.0.1:{port}"')
        self.text = text.replace("load_balancer { ", f"load_balancer {{\n {check}\n ").replace("] }\n", "]\n }\n")

    def states(self):
        done = GatewayView(self.gateway, self.gateway._carrier).services()
        return [backend["state"] for backend in self.successResultOf(done)[0]["backends"]]

    def wait_for(self, *states):
        self.turn_until(lambda: self.states() == list(states))

    def test_probed(self):
        """Who does not answer is not used, and the API and the metrics say why."""
        self.run_gateway(self.text)
        self.wait_for("usable", "unhealthy")
        (service,) = self.get("/api/gateway/services")[1]
        self.assertEqual([backend["healthy"] for backend in service["backends"]], [True, False])
        self.assertEqual(service["backends"][1]["reason"], "unhealthy: 1 probe in a row failed, at last: connect-refused")
        page = self.successResultOf(self.gateway.metrics())
        self.assertIn('gateway_backend_up{service="app",backend="http://127.0.0.1:10"} 0\n', page)
        self.assertIn('gateway_backend_health{service="app",backend="http://127.0.0.1:10",verdict="active"} 0\n', page)
        self.server.close()
        self.wait_for("unhealthy", "unhealthy")

    def test_reload(self):
        """A reload keeps what was found, probes what is new, and stops when there is nothing to probe."""
        gateway = self.run_gateway(self.text)
        self.wait_for("usable", "unhealthy")
        more = self.text.replace("load_balancer {", "load_balancer {\n passive_health {}\n").replace("servers = [", self.ALSO)
        self.successResultOf(gateway.reload(self.load(more)))
        self.assertEqual(self.states(), ["usable", "usable", "unhealthy"])
        reason = self.successResultOf(GatewayView(gateway, gateway._carrier).services())[0]["backends"][2]["reason"]
        self.assertIn("connect-refused", reason)
        self.wait_for("unhealthy", "usable", "unhealthy")
        self.successResultOf(gateway.reload(self.load(CONFIG)))
        self.assertEqual(self.states(), ["usable", "usable"])
        self.assertEqual(repr(gateway._prober), "<Prober 0 servers, 0 unhealthy>")

    ALSO = 'servers = [{ url = "http://127.0.0.1:11" }, '

    def test_failed_reload(self):
        """A configuration that comes to nothing leaves the probes as they are."""
        gateway = self.run_gateway(self.text)
        self.wait_for("usable", "unhealthy")
        self.failureResultOf(gateway.reload(self.load(self.in_use())), AssemblyError)
        self.assertEqual(self.states(), ["usable", "unhealthy"])
        self.server.close()
        self.wait_for("unhealthy", "unhealthy")

    def test_end(self):
        """Probing ends when the gateway begins to stop."""
        gateway = self.run_gateway(self.text)
        self.wait_for("usable", "unhealthy")
        done = gateway.shutdown()
        self.assertEqual(repr(gateway._prober), "<Prober 0 servers, 0 unhealthy>")
        self.turn_until(lambda: done.called)


class ViewTests(GatewayCase):
    """
    What the gateway shows of itself.
    """

    def test_health(self):
        """The health is that of the gateway, asked of the object or through its door."""
        gateway = self.make()
        self.assertEqual(gateway.health()["state"], "Created")
        self.successResultOf(gateway.start())
        sock = self.connect()
        status, health = self.get("/api/gateway/health", sock)
        self.assertEqual((status, health["state"], health["active_connections"], health["total_requests"]), (200, "Running", 1, 0))
        self.assertEqual((health["reload"], self.get("/api/gateway/health", sock)[1]["total_requests"]), (None, 1))

    def test_routes(self):
        """Routers are shown in the order in which they are asked."""
        self.run_gateway()
        status, routes = self.get("/api/gateway/routes")
        self.assertEqual(status, 200)
        self.assertEqual([(route["name"], route["priority"]) for route in routes], [("api", 100), ("app", 15)])
        self.assertEqual(
            routes[0],
            {
                "name": "api",
                "rule": "Host(`api.test`)",
                "service": "app",
                "entrypoints": ["web"],
                "middlewares": [],
                "priority": 100,
            },
        )

    def test_services(self):
        """Services are shown with their servers as they stand."""
        self.run_gateway()
        (service,) = self.get("/api/gateway/services")[1]
        self.assertEqual(
            service,
            {
                "name": "app",
                "strategy": "round-robin",
                "backends_total": 2,
                "backends_healthy": 2,
                "waiting": None,
                "in_use": None,
                "failovers": 0,
                "retries": 0,
                "revisions": [],
                "backends": [self.server("http://127.0.0.1:9", weight=2), self.server("http://127.0.0.1:10")],
            },
        )

    LIMITED = """
    middlewares "limit" {
      type  = "rate-limit"
      rate  = 1
      burst = 1
    }
    middlewares "both" {
      type        = "chain"
      middlewares = ["named", "limit"]
    }
    middlewares "named" { type = "request-id" }
    middlewares "idle" { type = "compress" }
    """

    def test_middlewares(self):
        """Middlewares are shown with who lists them, what they did, and how they stand for each who does."""
        text = CONFIG.replace(':0"', ':0"\n  middlewares = ["named"]', 1)
        self.run_gateway(text.replace('service = "app"', 'service = "app"\n  middlewares = ["limit"]', 1) + self.LIMITED)
        self.assertEqual([row["name"] for row in self.get("/api/gateway/middlewares")[1]], ["both", "idle", "limit", "named"])
        self.assertEqual([self.get("/x")[0] for _ in range(3)], [502, 429, 429])
        limit = {"rate": 1.0, "burst": 1, "clients": 1, "max_clients": 100_000}
        self.assertEqual(
            self.get("/api/gateway/middlewares/limit"),
            (
                200,
                {
                    "name": "limit",
                    "type": "rate-limit",
                    "routers": ["app"],
                    "entrypoints": [],
                    "invocations": 3,
                    "answers": {"429": 2},
                    "waits": 0,
                    "wait_seconds": 0.0,
                    "states": [{"router": "app", "entrypoint": None, "service": None, "state": limit}],
                },
            ),
        )
        named = self.get("/api/gateway/middlewares/named")[1]
        self.assertEqual((named["entrypoints"], named["routers"], named["invocations"], named["states"]), (["web"], [], 3, []))
        idle = self.get("/api/gateway/middlewares/idle")[1]
        self.assertEqual((idle["entrypoints"], idle["routers"], idle["invocations"], idle["answers"]), ([], [], 0, {}))

    def test_chains(self):
        """A middleware in a chain is listed by whoever lists the chain."""
        self.run_gateway(CONFIG.replace('service = "app"', 'service = "app"\n  middlewares = ["both"]', 1) + self.LIMITED)
        for name, routers in (("both", ["app"]), ("limit", ["app"]), ("named", ["app"]), ("idle", [])):
            self.assertEqual(self.get(f"/api/gateway/middlewares/{name}")[1]["routers"], routers)

    def server(self, url, **changes):
        return {
            "url": url,
            "revision": None,
            "weight": 1,
            "healthy": True,
            "state": "usable",
            "reason": "",
            "active_connections": 0,
            **changes,
        }

    REVISED = """
    services "app" {
      revisions {
        name            = "v1"
        traffic_percent = 70
        servers         = [{ url = "http://127.0.0.1:9" }, { url = "http://127.0.0.1:10", state = "drain" }]
      }
      revisions {
        name            = "v2"
        traffic_percent = 30
        strategy        = "random"
        servers         = [{ url = "http://127.0.0.1:9", weight = 3 }]
      }
      scaling { container_concurrency = 5 }
    }
    """

    def test_revisions(self):
        """All servers of all revisions are shown, with the revision they belong to, and the revisions with their shares."""
        self.run_gateway(CONFIG[: CONFIG.index("services")] + self.REVISED + CONFIG[CONFIG.index("observability") :])
        (service,) = self.get("/api/gateway/services")[1]
        self.assertEqual((service["backends_total"], service["backends_healthy"]), (3, 2))
        self.assertEqual((service["waiting"], service["in_use"]), (0, 0))
        self.assertEqual(
            service["revisions"],
            [
                {"name": "v1", "traffic_percent": 70, "strategy": "round-robin"},
                {"name": "v2", "traffic_percent": 30, "strategy": "random"},
            ],
        )
        expected = [
            self.server("http://127.0.0.1:9", revision="v1"),
            self.server("http://127.0.0.1:10", revision="v1", healthy=False, state="draining"),
            self.server("http://127.0.0.1:9", revision="v2", weight=3),
        ]
        self.assertEqual(service["backends"], expected)
        self.assertEqual(self.get("/api/gateway/backends")[1], [{"service": "app", **row} for row in expected])

    def test_services_before_the_start(self):
        """A gateway that runs nothing yet shows its services, without servers."""
        gateway = self.make()
        (service,) = self.successResultOf(GatewayView(gateway, gateway._carrier).services())
        self.assertEqual((service["name"], service["backends"], service["failovers"]), ("app", [], 0))

    def test_version_and_config(self):
        """The version and the running configuration are shown."""
        self.run_gateway()
        self.assertEqual(self.get("/api/gateway/version")[1], {"name": "a3s-gateway", "version": __version__})
        self.assertEqual(self.get("/api/gateway/config")[1], self.gateway.config().to_json())

    def test_explain(self):
        """For any request the router that would take it is told, at each entrypoint, and why."""
        self.run_gateway(CONFIG + 'entrypoints "alt" {\n address = "127.0.0.1:0"\n}\n')
        explanation = self.get("/api/gateway/explain?url=http://API.test:81/x?y=1&method=POST&client=192.0.2.7")[1]
        self.assertEqual({name: answer["router"] for name, answer in explanation.items()}, {"web": "api", "alt": "app"})
        self.assertEqual([router["name"] for router in explanation["web"]["routers"]], ["api", "app"])
        self.assertEqual(explanation["web"]["not_shown"], 0)
        self.assertEqual(self.get("/api/gateway/explain?url=http://other.test/")[1]["web"]["router"], "app")

    def test_explain_connections(self):
        """The same for a connection over a tcp entrypoint, by the name and the protocols that it would offer."""
        tcp = """
            entrypoints "pg" {
              address  = "127.0.0.1:0"
              protocol = "tcp"
            }
            routers "named" {
              rule    = "HostSNI(`db.test`) && ALPN(`postgresql`)"
              service = "db"
            }
            routers "rest" {
              rule    = "HostSNI(`*`)"
              service = "db"
            }
            services "db" {
              load_balancer {
                servers = [{ url = "tcp://127.0.0.1:1" }]
              }
            }
            """
        self.run_gateway(CONFIG + tcp)
        for query, expected in (
            ("url=tcp://DB.test:5432&header=ALPN:+h2,+postgresql", "named"),
            ("url=tcp://db.test", "rest"),
            ("url=tcp://", "rest"),
        ):
            explanation = self.get(f"/api/gateway/explain?{query}")[1]
            self.assertEqual({name: answer["router"] for name, answer in explanation.items()}, {"pg": expected}, query)
        self.assertEqual(list(self.get("/api/gateway/explain?url=http://a/")[1]), ["web"])

    def test_explain_shows_a_bounded_number(self):
        """Of very many routers those that match are shown first, and the number of those left out is told."""
        many = "\n".join(f'routers "n{number}" {{\n rule = "Path(`/n{number}`)"\n service = "app"\n}}' for number in range(150))
        self.run_gateway(CONFIG + many)
        answer = GatewayView(self.gateway, self.gateway._carrier).explain("GET", "http://a.test/n149", "192.0.2.1", [])["web"]
        self.assertEqual((answer["router"], len(answer["routers"]), answer["not_shown"]), ("app", 100, 52))
        self.assertEqual([router["name"] for router in answer["routers"][:2]], ["app", "n149"])

    def test_explain_says_what_happens(self):
        """The router that is told is the one the table gives."""
        self.run_gateway()
        view = GatewayView(self.gateway, self.gateway._carrier)
        table = self.gateway._carrier.generation().doors["web"].entrypoint.table
        for url, host, path in [("http://api.test/x", b"api.test", b"/x"), ("http://b.test", b"b.test", b"/")]:
            head = RequestHead(b"GET", path)
            head.host = host
            self.assertEqual(view.explain("GET", url, "192.0.2.1", [("X", "1")])["web"]["router"], table.match(head).name)

    def test_explain_before_the_start(self):
        """A gateway that runs nothing takes no requests."""
        gateway = self.make()
        self.assertIsNone(GatewayView(gateway, gateway._carrier).explain("GET", "http://a.test/", "192.0.2.1", []))

    def test_metrics(self):
        """The metrics are one page with the version and the reloads, also before the start and after the end."""
        gateway = self.make()
        for step in (lambda: None, lambda: self.successResultOf(gateway.start()), lambda: self.stop(gateway)):
            step()
            page = self.successResultOf(gateway.metrics())
            self.assertIn(f'version="{__version__}"', page)

    def test_credentials(self):
        """With credentials configured nobody is answered without them, and a reload may change them."""
        gateway = self.run_gateway(CONFIG + 'dashboard { keys = ["a-long-enough-key"] }')
        self.assertEqual(self.get("/api/gateway/version")[0], 401)
        self.successResultOf(gateway.reload(self.load(CONFIG)))
        self.assertEqual(self.get("/api/gateway/version")[0], 200)
