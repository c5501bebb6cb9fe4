"""
The real command: its start, its signals, its logs, its demonstration.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import (
    PATIENCE,
    ROOT,
    Conversation,
    GatewayProcess,
    NginxServer,
    Process,
    RawServer,
    accepts,
    child_environ,
    fetch,
    find_program,
    free_port,
    missing,
    run_command,
    wait_until,
)

COMMAND = [sys.executable, "-m", "a3sgw.cli"]


def configuration(port: int, *backends: int, more: str = "") -> str:
    """
    Return the configuration of a gateway at `port` that sends everything to `backends`.
    """
    servers = ", ".join(f'{{ url = "http://127.0.0.1:{backend}" }}' for backend in backends)
    return f"""
entrypoints "web" {{ address = "127.0.0.1:{port}" }}
routers "all" {{
  rule    = "PathPrefix(`/`)"
  service = "all"
}}
services "all" {{
  load_balancer {{ servers = [{servers}] }}
}}
{more}
"""


def response(body: bytes) -> bytes:
    """
    Return a whole response with `body`.
    """
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def hears(pid: int, number: int) -> bool:
    """
    Tell whether a process has a handler of its own for a signal.
    """
    match = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return match is not None and bool(int(match[1], 16) & 1 << (number - 1))


class HeldServer(RawServer):
    """
    A backend that takes each request and answers it only when it is told to.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.may_answer = threading.Event()

        def play(conversation: Conversation) -> None:
            if conversation.read_request():
                self.asked.set()
                self.may_answer.wait(PATIENCE)
                conversation.send(response(b"late"))
                conversation.read_to_end()

        super().__init__(play)

    def __enter__(self) -> HeldServer:
        return self


class BackgroundFetch:
    """
    A request made by another thread; `result` waits for its answer, or for the exception that came of it.
    """

    def __init__(self, port: int) -> None:
        self._answers: list[object] = []
        self._thread = threading.Thread(target=self._run, args=(port,), daemon=True)
        self._thread.start()

    def _run(self, port: int) -> None:
        try:
            self._answers.append(fetch(port).body)
        except Exception as error:
            self._answers.append(error)

    def result(self) -> object:
        """
        Return the body, or the exception.
        """
        self._thread.join(PATIENCE)
        return self._answers[0]


class StartTests(SynchronousTestCase):
    """
    How the command starts, or why it does not.
    """

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def run_line(self, *arguments, **environ):
        """
        Run the command to its end in an empty directory.
        """
        return run_command([*COMMAND, *arguments], cwd=self.directory, environ=child_environ(**environ))

    def assert_refused(self, result, *words):
        """
        The command ended with 1, said `words`, and showed no traceback.
        """
        self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertNotIn("Traceback", result.stderr)

    def test_no_configuration(self):
        """
        Without a configuration nothing starts, and the message says what can be done.
        """
        self.assert_refused(self.run_line(), "gateway.hcl", "--config", "--listen")
        self.assert_refused(self.run_line("--config", "typo.hcl"), "typo.hcl")

    def test_faulty_configuration(self):
        """
        A faulty configuration is refused with every problem and its place.
        """
        (self.directory / "gateway.hcl").write_text('entrypoints "web" {\n  adress = ":1"\n}\nnonsense = 1\n')
        self.assert_refused(self.run_line(), "gateway.hcl:2:3: ", "gateway.hcl:4:1: ")

    def test_address_in_use(self):
        """
        An address that somebody else listens on is named, with code 1 and no traceback.
        """
        with RawServer.answering(b"") as other:
            (self.directory / "gateway.hcl").write_text(configuration(other.port, free_port()))
            self.assert_refused(self.run_line(), f"127.0.0.1:{other.port}", "web")

    def test_bad_filter(self):
        """
        A log filter that makes no sense is refused.
        """
        self.assert_refused(self.run_line("--listen", "127.0.0.1:0", A3S_LOG="shout"), "A3S_LOG", "shout")

    def test_listen_alone(self):
        """
        `--listen` alone starts a gateway that routes nothing, and it says so.
        """
        port = free_port()
        with Process([*COMMAND, "--listen", f"127.0.0.1:{port}"]) as gateway:
            gateway.wait_for("gateway running: web")
            self.assertIn("without any router", gateway.stderr())
            self.assertEqual(fetch(port).status, 404)
            self.assertEqual(fetch(port, "/api/gateway/health").status, 200)

    def test_listen_changes_the_address(self):
        """
        `--listen` moves the entrypoint web; everything else is as the file says, also after a reload.
        """
        written, real = free_port(), free_port()
        with RawServer.answering(response(b"here")) as backend:
            text = configuration(written, backend.port)
            with GatewayProcess(text, arguments=["--listen", f"127.0.0.1:{real}"]) as gateway:
                self.assertEqual(fetch(real).body, b"here")
                self.assertFalse(accepts(written))
                gateway.reload(text)
                self.assertEqual(fetch(real).body, b"here")
                self.assertFalse(accepts(written))

    def test_descriptors(self):
        """
        A running gateway may open as many descriptors as the system allows.
        """
        with GatewayProcess(configuration(free_port(), free_port())) as gateway:
            limits = Path(f"/proc/{gateway.pid}/limits").read_text()
            soft, hard = re.findall(r"^Max open files\s+(\S+)\s+(\S+)", limits, re.MULTILINE)[0]
            self.assertEqual(soft, hard)

    def test_log_level(self):
        """
        At level error a start is silent; the environment variable counts more than the option.
        """
        port = free_port()
        for arguments, environ in [(["--log-level", "error"], {}), (["--log-level", "debug"], {"A3S_LOG": "error"})]:
            argv = [*COMMAND, "--config", "gateway.hcl", *arguments]
            (self.directory / "gateway.hcl").write_text(configuration(port, free_port()))
            with Process(argv, environ=child_environ(**environ), directory=self.directory) as gateway:
                wait_until(lambda: accepts(port), "the gateway listens")
            self.assertEqual(gateway.stderr(), "")


class SignalTests(SynchronousTestCase):
    """
    TERM, INT, HUP and USR1.
    """

    def backends(self):
        """
        Return two backends that answer `old` and `new`.
        """
        servers = [RawServer.answering(response(body)) for body in (b"old", b"new")]
        for server in servers:
            self.addCleanup(server.stop)
        return servers

    def test_term_and_int(self):
        """
        TERM and INT end an idle gateway in order.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            with GatewayProcess(configuration(free_port(), free_port())) as gateway:
                gateway.send_signal(number)
                self.assertEqual(gateway.wait(), 0)
                self.assertIn("gateway stopped", gateway.stderr())

    def test_drain(self):
        """
        A request that is in flight when TERM comes still gets its answer; new connections are refused meanwhile.
        """
        port = free_port()
        with HeldServer() as backend, GatewayProcess(configuration(port, backend.port)) as gateway:
            request = BackgroundFetch(port)
            self.assertTrue(backend.asked.wait(PATIENCE))
            gateway.send_signal(signal.SIGTERM)
            wait_until(lambda: not accepts(port), "the door is closed")
            self.assertTrue(gateway.is_running())
            backend.may_answer.set()
            self.assertEqual(request.result(), b"late")
            self.assertEqual(gateway.wait(), 0)

    def test_second_signal(self):
        """
        A second TERM or INT ends the process at once, whatever is in flight, with 128 and the signal's number.
        """
        for number, code in [(signal.SIGTERM, 143), (signal.SIGINT, 130)]:
            port = free_port()
            with HeldServer() as backend, GatewayProcess(configuration(port, backend.port)) as gateway:
                request = BackgroundFetch(port)
                self.assertTrue(backend.asked.wait(PATIENCE))
                gateway.stop_codes = (code,)
                gateway.send_signal(signal.SIGTERM)
                gateway.wait_for("SIGTERM: stopping")
                gateway.send_signal(number)
                self.assertEqual(gateway.wait(), code)
                self.assertIsInstance(request.result(), Exception)
                backend.may_answer.set()

    def test_term_during_start(self):
        """
        A TERM that comes before the gateway runs ends it in order.
        """
        with tempfile.TemporaryDirectory() as name:
            config = Path(name) / "gateway.hcl"
            config.write_text(configuration(free_port(), free_port()))
            with Process([*COMMAND, "--config", config]) as gateway:
                wait_until(lambda: hears(gateway.pid, signal.SIGTERM), "the command hears TERM")
                gateway.send_signal(signal.SIGTERM)
                self.assertEqual(gateway.wait(), 0)

    def test_reload(self):
        """
        After HUP the next request goes where the new configuration says, on a connection to the same port.
        """
        port = free_port()
        old, new = self.backends()
        with GatewayProcess(configuration(port, old.port)) as gateway:
            self.assertEqual(fetch(port).body, b"old")
            gateway.reload(configuration(port, new.port))
            self.assertEqual(fetch(port).body, b"new")

    def test_failing_reload(self):
        """
        A faulty configuration is refused with all its problems, and the one that was running goes on; the next good one is taken.
        """
        port = free_port()
        old, new = self.backends()
        with GatewayProcess(configuration(port, old.port)) as gateway:
            gateway.reload('entrypoints "web" {\n  adress = ":1"\n}\nnonsense = 1\n', "reload refused")
            for place in ("gateway.hcl:2:3: ", "gateway.hcl:4:1: "):
                self.assertIn(place, gateway.stderr())
            self.assertEqual(fetch(port).body, b"old")
            gateway.reload(configuration(port, new.port))
            self.assertEqual(fetch(port).body, b"new")

    def test_reload_to_a_taken_address(self):
        """
        A configuration whose address is in use is refused, and the old door never closed.
        """
        port = free_port()
        with RawServer.answering(response(b"old")) as old, GatewayProcess(configuration(port, old.port)) as gateway:
            gateway.reload(configuration(old.port, old.port), "reload refused")
            self.assertEqual(fetch(port).body, b"old")
            self.assertNotIn("Traceback", gateway.stderr())

    def test_rotation(self):
        """
        USR1 and HUP open the access log anew by name, so that a rotated file can be taken away.
        """
        port = free_port()
        with tempfile.TemporaryDirectory() as name, RawServer.answering(response(b"x")) as backend:
            log = Path(name) / "access.log"
            more = f'observability {{\n  access_log {{ file = "{log}" }}\n}}\n'
            with GatewayProcess(configuration(port, backend.port, more=more)) as gateway:
                for number in (signal.SIGUSR1, signal.SIGHUP):
                    fetch(port, "/before")
                    wait_until(lambda: "/before" in log.read_text(), "the line is written")
                    log.rename(f"{log}.{number}")
                    gateway.send_signal(number)
                    wait_until(log.exists, "the log is opened anew")
                    fetch(port, "/after")
                    wait_until(lambda: "/after" in log.read_text(), "the line is written to the new file")
                    self.assertNotIn("/before", log.read_text())


class OutputTests(SynchronousTestCase):
    """
    What goes where.
    """

    def test_access_log(self):
        """
        Standard output holds the access log and nothing else: one JSON object for each request.
        """
        port = free_port()
        with RawServer.answering(response(b"x")) as backend, GatewayProcess(configuration(port, backend.port)) as gateway:
            for number in range(3):
                fetch(port, f"/{number}")
            wait_until(lambda: gateway.stdout().count("\n") >= 3, "three lines are written")
            lines = [json.loads(line) for line in gateway.stdout().splitlines()]
            said = [(line["path"], line["status"], line["router"]) for line in lines]
            self.assertEqual(said, [(f"/{number}", 200, "all") for number in range(3)])

    def test_closed_pipe(self):
        """
        A reader that goes away in the middle of `validate` causes no traceback.
        """
        with tempfile.TemporaryDirectory() as name:
            config = Path(name) / "gateway.hcl"
            config.write_text(configuration(free_port(), free_port()))
            reader, writer = os.pipe()
            os.close(reader)
            try:
                child = subprocess.Popen(
                    [*COMMAND, "validate", "--config", str(config)], stdout=writer, stderr=subprocess.PIPE, env=child_environ()
                )
            finally:
                os.close(writer)
            _, err = child.communicate(timeout=PATIENCE)
            self.assertEqual((child.returncode, err), (1, b""))

    def test_narrow_terminal(self):
        """
        A terminal that cannot show a tick gets an escape, not a traceback.
        """
        with tempfile.TemporaryDirectory() as name:
            config = Path(name) / "gateway.hcl"
            config.write_text(configuration(free_port(), free_port()))
            result = run_command([*COMMAND, "validate", "--config", config], environ=child_environ(PYTHONIOENCODING="ascii"))
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn("\\u2713 configuration is valid", result.stdout)


class DemoTests(SynchronousTestCase):
    """
    The demonstration.
    """

    def start(self):
        """
        Return the port of a running demonstration, and its process.
        """
        port = free_port()
        demo = Process([*COMMAND, "demo", "--listen", f"127.0.0.1:{port}"])
        self.addCleanup(demo.kill)
        wait_until(lambda: "Ctrl-C" in demo.stdout() or not demo.is_running(), lambda: f"the demonstration runs:\n{demo.stderr()}")
        return port, demo

    def test_routes(self):
        """
        Its routes lead where it says, and INT ends it in order.
        """
        port, demo = self.start()

        def backend(target="/", headers=None):
            return json.loads(fetch(port, target, headers=headers).body)["backend"]

        self.assertEqual(sorted(backend() for _ in range(4)), ["blue", "blue", "green", "green"])
        self.assertEqual([backend("/green/tea") for _ in range(2)], ["green"] * 2)
        self.assertEqual([backend(headers={"Host": "green.localhost"}) for _ in range(2)], ["green"] * 2)
        self.assertEqual([backend(headers={"X-Beta": "yes"}) for _ in range(2)], ["blue"] * 2)
        demo.send_signal(signal.SIGINT)
        self.assertEqual(demo.wait(), 0)

    def test_what_it_says(self):
        """
        Every command line it prints can be pasted and is answered by the gateway.
        """
        port, demo = self.start()
        lines = re.findall(r"^  (curl .*?) +#", demo.stdout(), re.MULTILINE)
        self.assertTrue(len(lines) >= 8, demo.stdout())
        statuses = {}
        for line in lines:
            result = run_command(["sh", "-c", f"{line} --silent --max-time 10 --output /dev/null --write-out '%{{http_code}}'"])
            self.assertEqual((result.returncode, result.stderr), (0, ""), line)
            statuses[line.split(f":{port}")[1]] = result.stdout
        refused = {target for target, status in statuses.items() if status != "200"}
        self.assertEqual((refused, statuses["/a%2Fb"]), ({"/a%2Fb"}, "400"))

    test_what_it_says.skip = missing("curl")  # type: ignore[attr-defined]

    def test_address_in_use(self):
        """
        If its address is taken, it says which one, and ends with 1.
        """
        with RawServer.answering(b"") as other:
            result = run_command([*COMMAND, "demo", "--listen", f"127.0.0.1:{other.port}"])
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"127.0.0.1:{other.port}", result.stderr)
        self.assertNotIn("Traceback", result.stderr)
        self.assertEqual(result.stdout, "")


class NginxTests(SynchronousTestCase):
    """
    A backend that somebody else wrote.
    """

    skip = missing("nginx")

    def test_round_robin(self):
        """
        Two nginx servers answer in turn, with bodies and methods unchanged.
        """
        one = 'location / { add_header X-Method $request_method; return 200 "one $request_uri"; }'
        two = one.replace("one", "two")
        port = free_port()
        with NginxServer(one) as first, NginxServer(two) as second, GatewayProcess(configuration(port, first.port, second.port)):
            answers = [fetch(port, f"/a?b={number}", method="PUT", body=b"x" * 100) for number in range(4)]
        self.assertEqual({answer.status for answer in answers}, {200})
        self.assertEqual({answer.headers["x-method"] for answer in answers}, {"PUT"})
        self.assertEqual(sorted(answer.body for answer in answers), [b"one /a?b=0", b"one /a?b=2", b"two /a?b=1", b"two /a?b=3"])

    def test_program_is_found_outside_the_path(self):
        """
        nginx is found where Debian puts it, though that is not on everybody's path.
        """
        self.assertTrue(os.access(find_program("nginx") or "", os.X_OK))


class ReadmeTests(SynchronousTestCase):
    """
    What the README shows.
    """

    README = ROOT / "README.md"
    skip = None if README.exists() else "the tests do not run from a checkout"

    def test_configurations(self):
        """
        Every configuration in it is valid.
        """
        blocks = re.findall(r"^```hcl\n(.*?)^```$", self.README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        self.assertTrue(blocks)
        for block in blocks:
            with tempfile.TemporaryDirectory() as name:
                config = Path(name) / "gateway.hcl"
                config.write_text(block)
                result = run_command([*COMMAND, "validate", "--config", config])
            self.assertEqual((result.returncode, result.stderr), (0, ""), block)

    def test_options(self):
        """
        Every option of the command that it names is one.
        """
        help_text = run_command([*COMMAND, "--help"]).stdout
        named = set(re.findall(r"a3s-gateway[^|`\n]*?(--[a-z-]+)", self.README.read_text("utf-8")))
        self.assertTrue(len(named) >= 4)
        self.assertEqual({option for option in named if option not in help_text}, set())
