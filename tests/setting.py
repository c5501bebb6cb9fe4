"""
The setting of the street tests: a gateway between scripted clients and backends, what it is configured with, and what it tells of itself.

`GatewayCase` is for tests that share one gateway, `OwnGatewayCase` for those that change or stop it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import PATIENCE, GatewayProcess, fetch, free_port, wait_until
from tests.wire import Answer, Client, Scene, Stage, head_fields

__all__ = [
    "GatewayCase",
    "OwnGatewayCase",
    "RefusalCase",
    "SharingCase",
    "TrustingCase",
    "configure",
    "metric",
    "metrics",
    "peak_memory",
    "read_records",
    "service",
    "service_at",
]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# -- configuration --------------------------------------------------------------------------------------------------------------------


def service(name: str, ports: Sequence[int], extra: str = "") -> str:
    """
    Return a service of plain HTTP servers on loopback ports, and a router that leads to it: `/NAME…`, or everything for `app`.
    """
    return service_at(name, [f"http://127.0.0.1:{port}" for port in ports], extra)


def service_at(name: str, urls: Sequence[str], extra: str = "") -> str:
    """
    As `service`, for server URLs of any kind.
    """
    servers = ", ".join(f'{{ url = "{url}" }}' for url in urls)
    # Nothing takes `/nowhere`.
    rule, priority = ("PathPrefix(`/`) && !PathPrefix(`/nowhere`)", 1) if name == "app" else (f"PathPrefix(`/{name}`)", 0)
    return (
        f'routers "{name}" {{\n  rule = "{rule}"\n  priority = {priority}\n  service = "{name}"\n}}\n'
        f'services "{name}" {{\n  load_balancer {{\n    servers = [{servers}]\n  }}\n{extra}\n}}\n'
    )


def configure(port: int, *parts: str, entrypoint: str = "", log: Path | None = None) -> str:
    """
    Return a configuration whose entrypoint `web` listens on `port`; `parts` are further blocks, `entrypoint` goes into its block.
    """
    # A test that fails may leave things behind that would be waited for.
    access_log = f'file = "{log}"' if log is not None else "enabled = false"
    return (
        f'shutdown_timeout_secs = 5\nentrypoints "web" {{\n  address = "127.0.0.1:{port}"\n{entrypoint}\n}}\n'
        f"observability {{\n  access_log {{\n    {access_log}\n  }}\n}}\n" + "".join(parts)
    )


# -- what can be seen from outside ----------------------------------------------------------------------------------------------------


def metrics(port: int) -> dict[str, float]:
    """
    Return every sample of the gateway's metrics page, by name and labels as written there.
    """
    page = fetch(port, "/api/gateway/metrics")
    assert page.status == 200, f"no metrics: {page.status}"
    samples = {}
    for line in page.body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples


def metric(port: int, name: str) -> float:
    """
    Return one sample, 0 if there is none.
    """
    return metrics(port).get(name, 0.0)


def read_records(log: Path) -> list[dict[str, Any]]:
    """
    Return the lines of a JSON access log, without one that is just being written.
    """
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in log.read_text().split("\n")[:-1]]
    return []


def peak_memory(pid: int) -> int:
    """
    Return the most memory that a process has ever had, in MiB.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no VmHWM")


# -- cases ----------------------------------------------------------------------------------------------------------------------------


class SharingCase(SynchronousTestCase):
    """
    Tests that share things which take long to make: `open_shared` makes them before the first test, and they are stopped after the last.

    Trial knows no fixtures of classes, so this counts the tests that are still to come.
    """

    _pending: ClassVar[dict[type, set[str]]] = {}
    _stacks: ClassVar[dict[type, contextlib.ExitStack]] = {}

    def __init__(self, method: str = "runTest") -> None:
        super().__init__(method)
        self._pending.setdefault(type(self), set()).add(method)

    @classmethod
    def open_shared(cls) -> None:
        """
        Make what the tests share, and `enter` what must be stopped.
        """
        raise NotImplementedError

    @classmethod
    def enter(cls, thing: Any) -> Any:
        """
        Have something stopped when the class is done, last come first; return it.
        """
        cls._stacks[cls].callback(thing.stop)
        return thing

    def setUp(self) -> None:
        cls = type(self)
        if cls not in self._stacks:
            self._stacks[cls] = contextlib.ExitStack()
            try:
                cls.open_shared()
            except BaseException:
                self._close_shared()
                raise

    def run(self, result: Any = None) -> Any:
        """
        Run the test, and after the last one of the class stop what they share.
        """
        outcome = super().run(result)
        pending = self._pending[type(self)]
        pending.discard(self._testMethodName)
        if not pending:
            try:
                self._close_shared()
            except Exception:
                result.addError(self, Failure())
        return outcome

    def _close_shared(self) -> None:
        stack = self._stacks.pop(type(self), None)
        if stack is not None:
            stack.close()


class GatewayCase(SharingCase):
    """
    Tests that share one gateway, its entrypoint `web` on `port`, and one `stage` behind its service `app`.

    A class gives further blocks by `parts`, which may open what they need with `enter`, and the inside of the entrypoint by `entrypoint`.
    """

    entrypoint = ""
    app = ""
    """What stands inside the service `app` beside its server."""

    stage: Stage
    gateway: GatewayProcess
    port: int
    log: Path

    @classmethod
    def parts(cls) -> list[str]:
        """
        Return further blocks of the configuration.
        """
        return []

    @classmethod
    def open_shared(cls) -> None:
        """
        Start a backend and the gateway before it.
        """
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        cls._stacks[cls].callback(directory.cleanup)
        cls.log = Path(directory.name) / "access.log"
        cls.port = free_port()
        cls.stage = cls.enter(Stage())
        text = configure(cls.port, service("app", [cls.stage.port], cls.app), *cls.parts(), entrypoint=cls.entrypoint, log=cls.log)
        cls.gateway = GatewayProcess(text)
        cls._stacks[cls].callback(cls._stop_gateway)

    @classmethod
    def _stop_gateway(cls) -> None:
        written = cls.gateway.stderr()
        cls.gateway.stop()
        assert "Traceback" not in written, f"the gateway wrote\n{written}"

    def setUp(self) -> None:
        super().setUp()
        self._clients: list[Client] = []

    def connect(self, **options: Any) -> Client:
        """
        Return a client that is closed when the test is done, or checks that nothing is left of it.
        """
        client = Client(self.port, **options)
        self._clients.append(client)
        self.addCleanup(client.close)
        return client

    def active(self, name: str = "app") -> float:
        """
        Return how many exchanges with the servers of a service are in flight.
        """
        samples = metrics(self.port)
        return sum(value for key, value in samples.items() if key.startswith(f'gateway_backend_active{{service="{name}"'))

    def wait_for_record(self, target: str) -> dict[str, Any]:
        """
        Return the access log's last line about a path, once there is one.
        """
        wait_until(lambda: self._records(target), lambda: f"the access log tells of {target}: {read_records(self.log)}", 5.0)
        return self._records(target)[-1]

    def wait_for_outcomes(self, expected: Mapping[str, str]) -> None:
        """
        Wait until the access log tells of each path in `expected`, and fail unless it tells that outcome.
        """
        wait_until(lambda: all(self._records(path) for path in expected), "the access log tells of all", 5.0)
        self.assertEqual({path: self._records(path)[-1]["outcome"] for path in expected}, expected)

    def _records(self, path: str) -> list[dict[str, Any]]:
        return [record for record in read_records(self.log) if record["path"] == path]

    def check_unharmed(self) -> None:
        """
        Close the clients of this test; fail unless a good request is answered then, and every other connection and exchange is gone.
        """
        for client in self._clients:
            client.close()
        answer = fetch(self.port, "/good")
        self.assertEqual((answer.status, answer.body), (200, b"ok"))
        # The one that asks is counted.
        wait_until(lambda: metric(self.port, "gateway_active_connections") <= 1, "no client connection is left", 8.0)
        wait_until(lambda: self.active() == 0, "no exchange is left", 5.0)


class TrustingCase(GatewayCase):
    """
    A gateway with a second entrypoint, `behind`, that trusts 127.0.0.1 and ::1 and 10.0.0.0/8 as proxies.
    """

    behind: int
    _numbers = count()

    @classmethod
    def parts(cls) -> list[str]:
        cls.behind = free_port()
        trusted = 'forwarded_headers {\n    trusted_ips = ["127.0.0.1", "::1", "10.0.0.0/8"]\n  }'
        return [f'entrypoints "behind" {{\n  address = "127.0.0.1:{cls.behind}"\n  {trusted}\n}}\n']

    def forwarded(self, port: int, *lines: str, target: str = "/seen", source: str | None = None) -> dict[str, list[str]]:
        """
        Make a request with further header lines and return all fields that the backend got, by name.
        """
        with Client(port, source=source) as client:
            answer = client.fetch(target, *lines)
            self.assertEqual(answer.status, 200)
        fields: dict[str, list[str]] = {}
        for name, value in head_fields(self.stage.heads[-1]):
            fields.setdefault(name, []).append(value)
        return fields

    def client_of(self, port: int, *lines: str) -> str:
        """
        Return the client address that the access log tells for a request.
        """
        target = f"/client/{next(self._numbers)}"
        self.forwarded(port, *lines, target=target)
        client: str = self.wait_for_record(target)["client_ip"]
        return client


class RefusalCase(GatewayCase):
    """
    How a refusal is checked.
    """

    def check_refusal(self, answer: Answer, status: int, reason: str, error: str = "http_request_error") -> None:
        """
        Fail unless `answer` refuses in the gateway's form for `reason`.
        """
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(answer.get("content-type"), "application/json")
        self.assertEqual(answer.get("proxy-status"), f'a3s-gateway; error={error}; details="{reason}"')
        told = json.loads(answer.body)
        self.assertEqual(sorted(told), ["error", "reason", "request_id"])
        self.assertEqual(told["reason"], reason)
        self.assertTrue(told["error"])
        self.assertIsInstance(told["request_id"], str)

    def refuse(self, *cases: tuple[bytes, int, str]) -> None:
        """
        Send what each case says on a connection of its own; fail unless it is refused with the status and the reason that the case says
        and the connection is closed then. No request may reach the backend, each must be logged, and its outcome counted.
        """
        counted = self._outcomes()
        logged = len(read_records(self.log))
        arrived = len(self.stage.heads)
        for data, status, reason in cases:
            with Client(self.port) as client:
                client.send(data)
                answer = client.read_answer()
                self.check_refusal(answer, status, reason)
                self.assertEqual(answer.get("connection"), "close", data)
                # Before the client says anything more.
                self.assertEqual(client.ending(2.0), "closed", data)
        self.assertEqual(self.stage.heads[arrived:], [])
        expected = Counter(reason for _, _, reason in cases)
        self.assertEqual(self._outcomes() - counted, expected)

        def told() -> Counter[tuple[str, int]]:
            return Counter((record["outcome"], record["status"]) for record in read_records(self.log)[logged:])

        wanted = Counter((reason, status) for _, status, reason in cases)
        wait_until(lambda: told() >= wanted, lambda: f"the access log tells of {wanted}, and not only of {told()}", 3.0)

    def _outcomes(self) -> Counter[str]:
        """
        Return the counts of outcomes, without those of this question itself.
        """
        counts: Counter[str] = Counter()
        for name, value in metrics(self.port).items():
            if name.startswith("gateway_exchanges_total{") and '"dashboard"' not in name:
                counts[name.split('"')[1]] = int(value)
        return counts


class OwnGatewayCase(SynchronousTestCase):
    """
    A gateway for each test, with the backends `old` and `new` at hand, which answer their names.
    """

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name) / "access.log"
        self.port = free_port()
        self.old, self.new = self.stage(b"old"), self.stage(b"new")

    def stage(self, name: bytes) -> Stage:
        """
        Return a backend that answers `name` on `/`.
        """
        stage = Stage()
        self.addCleanup(stage.stop)
        stage.on("/", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))
        return stage

    def start(self, text: str) -> GatewayProcess:
        """
        Start a gateway.
        """
        gateway = GatewayProcess(text)
        self.addCleanup(gateway.kill)
        return gateway

    def stop(self, gateway: GatewayProcess) -> None:
        """
        Stop a gateway in order; fail if it met a bug.
        """
        written = gateway.stderr()
        gateway.stop()
        self.assertNotIn("Traceback", written)

    def connect(self, port: int | None = None) -> Client:
        """
        Return a client that is closed when the test is done.
        """
        client = Client(self.port if port is None else port)
        self.addCleanup(client.close)
        return client

    def hold(self, stage: Stage, path: str, first: bytes = b"", last: bytes = OK) -> threading.Event:
        """
        Have `path` answered with `first` at once and with `last` when the returned event is set.
        """
        go = threading.Event()
        self.addCleanup(go.set)

        def play(conversation: Scene, head: bytes) -> None:
            conversation.send(first)
            go.wait(PATIENCE)
            conversation.send(last)

        stage.on(path, play)
        return go

    def wait_for_more(self, path: str, before: int) -> None:
        """
        Wait until `old` has got more requests for a path than it had.
        """
        wait_until(lambda: self.old.count(path) > before, "the request has arrived")

    def config(self, *stages: Stage, entrypoint: str = "", more: str = "", log: bool = True) -> str:
        """
        Return a configuration that sends everything to `stages`.
        """
        app = service("app", [stage.port for stage in stages])
        return configure(self.port, app, more, entrypoint=entrypoint, log=self.log if log else None)
