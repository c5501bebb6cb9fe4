"""
What the street tests stand on: real processes, real servers, and waits that all have a limit.

Everything listens on free loopback ports. A process is known by the number it was started with and is ended by it. Tests whose
peer program is not installed are skipped with the reason that `missing` gives; `.ci/run` looks for its first words.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import a3sgw

__all__ = [
    "ROOT",
    "Conversation",
    "GatewayProcess",
    "NginxServer",
    "Process",
    "RawServer",
    "Response",
    "child_environ",
    "fetch",
    "find_program",
    "free_port",
    "missing",
    "run_command",
    "wait_until",
]

ROOT = Path(a3sgw.__file__).resolve().parent.parent
"""Where the package under test lies: the checkout, or a site-packages directory."""

PATIENCE = 15.0
"""Seconds that anything may take which should take less than one."""

_PACKAGES = {"nginx": "nginx-light", "h2load": "nghttp2-client", "testssl": "testssl.sh"}
_given_ports: set[int] = set()


def missing(*programs: str) -> str | None:
    """
    Return why tests that need `programs` must be skipped, or `None` if all are there. Fits a TestCase's `skip` attribute.
    """
    absent = [name for name in programs if find_program(name) is None]
    if not absent:
        return None
    return "peer missing: " + ", ".join(f"{name} (Debian package {_PACKAGES.get(name, name)})" for name in absent)


def find_program(name: str) -> str | None:
    """
    Return the path of a program, also if it lies in one of the sbin directories.
    """
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]))


def free_port() -> int:
    """
    Return a TCP port of the loopback interface that nobody uses, never the same one twice.
    """
    while True:
        # Below the range from which the system takes ports for outgoing connections, or one of those may have it a moment later.
        port = random.randrange(20_000, 32_000)
        if port in _given_ports:
            continue
        _given_ports.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(predicate: Callable[[], object], what: str | Callable[[], str], timeout: float = PATIENCE) -> None:
    """
    Wait until `predicate` is true; fail, naming `what` was waited for, after `timeout` seconds.

    A `what` that is called tells the state at the time of the failure.
    """
    end = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} seconds in vain until {what if isinstance(what, str) else what()}")
        time.sleep(0.01)


def accepts(port: int) -> bool:
    """
    Tell whether somebody accepts connections on a loopback port.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def child_environ(**changes: str) -> dict[str, str]:
    """
    Return the environment for a child: ours without what would change its answers, the package under test importable, and `changes`.
    """
    kept = {name: value for name, value in os.environ.items() if name != "A3S_LOG" and not name.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **changes}


def run_command(
    argv: Sequence[str | Path], *, cwd: Path | None = None, environ: Mapping[str, str] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """
    Run a command to its end and return its exit code and output.
    """
    return subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=dict(environ) if environ is not None else child_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


class Response(NamedTuple):
    """
    What `fetch` got. Header names are in lower case; of repeated ones the last counts.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def fetch(
    port: int, target: str = "/", *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Response:
    """
    Make one request on a connection of its own.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


# -- processes ------------------------------------------------------------------------------------------------------------------------


class Process:
    """
    A child process with a directory of its own, in which its output is kept.

    A context manager: leaving it in order stops the process and checks how it ended, leaving it by an exception only kills it.
    """

    stop_codes: tuple[int, ...] = (0,)
    """The exit codes that count as a good end after `stop`."""

    def __init__(self, argv: Sequence[str | Path], *, environ: Mapping[str, str] | None = None, directory: Path | None = None) -> None:
        self._owned = tempfile.TemporaryDirectory(prefix="a3sgw-") if directory is None else None
        self.directory = directory if directory is not None else Path(self._owned.name)  # type: ignore[union-attr]
        self._out = self.directory / "stdout"
        self._err = self.directory / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._child = subprocess.Popen(
                [str(word) for word in argv],
                cwd=self.directory,
                env=dict(environ) if environ is not None else child_environ(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def pid(self) -> int:
        """
        The process's number.
        """
        return self._child.pid

    def stdout(self) -> str:
        """
        Return what it has written to standard output so far.
        """
        return self._out.read_text("utf-8", "replace")

    def stderr(self) -> str:
        """
        Return what it has written to standard error so far.
        """
        return self._err.read_text("utf-8", "replace")

    def is_running(self) -> bool:
        """
        Tell whether it has not ended yet.
        """
        return self._child.poll() is None

    def send_signal(self, number: int) -> None:
        """
        Send it a signal.
        """
        self._child.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """
        Wait for its end and return its exit code, negative if a signal ended it.
        """
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process {self.pid} has not ended within {timeout:g} seconds; it wrote\n{self.stderr()}") from None

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """
        Wait until standard error contains `text`.
        """
        self._wait_for_stderr(lambda written: text in written or not self.is_running(), text, timeout)
        if text not in self.stderr():
            raise AssertionError(f"process {self.pid} ended with {self.wait()} before it wrote {text!r}; it wrote\n{self.stderr()}")

    def _wait_for_stderr(self, suffices: Callable[[str], bool], text: str, timeout: float) -> None:
        wait_until(lambda: suffices(self.stderr()), lambda: f"standard error contains {text!r}; it contains\n{self.stderr()}", timeout)

    def stop(self, timeout: float = PATIENCE) -> None:
        """
        Ask it to end, and check that it did so in order and in time.
        """
        if self.is_running():
            self.send_signal(signal.SIGTERM)
        try:
            code = self.wait(timeout)
            if code not in self.stop_codes:
                raise AssertionError(f"process {self.pid} ended with {code}; it wrote\n{self.stderr()}")
        finally:
            self.kill()

    def kill(self) -> None:
        """
        Make sure that it and its directory are gone. Harmless if they are.
        """
        if self.is_running():
            self._child.kill()
        self._child.wait(PATIENCE)
        if self._owned is not None:
            self._owned.cleanup()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()


class GatewayProcess(Process):
    """
    The real command, running `config_text`. It listens when this returns.

    `arguments` follow `--config` on its command line. Write to `config_path` and send HUP to reload.
    """

    def __init__(self, config_text: str, *, arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> None:
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.config_path = Path(directory.name) / "gateway.hcl"
        self.config_path.write_text(config_text, "utf-8")
        argv = [sys.executable, "-m", "a3sgw.cli", "--config", str(self.config_path), *arguments]
        super().__init__(argv, environ=child_environ(**(environ or {})), directory=Path(directory.name))
        self._owned = directory
        try:
            self.wait_for("gateway running")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> GatewayProcess:
        return self

    def reload(self, config_text: str, expect: str = "configuration reloaded") -> None:
        """
        Put `config_text` in the place of the configuration, send HUP and wait for one more line with `expect`.
        """
        before = self.stderr().count(expect)
        self.config_path.write_text(config_text, "utf-8")
        self.send_signal(signal.SIGHUP)
        self._wait_for_stderr(lambda written: written.count(expect) > before, expect, PATIENCE)


class NginxServer(Process):
    """
    nginx as a backend, on a loopback port of its own.

    `server` is what stands inside its `server` block, `http` what stands beside that. Without either it answers every request with 200
    and the text `nginx`.
    """

    def __init__(self, server: str = 'location / { return 200 "nginx"; }', http: str = "") -> None:
        program = find_program("nginx")
        assert program is not None, "guard tests that use nginx with missing()"
        self.port = free_port()
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-nginx-")
        root = Path(directory.name)
        temporary = "".join(f"{kind}_temp_path {root}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = root / "nginx.conf"
        config.write_text(
            f"daemon off;\nmaster_process off;\npid {root}/pid;\nerror_log stderr;\n"
            "events { worker_connections 512; }\n"
            f"http {{\naccess_log off;\n{temporary}{http}\nserver {{\nlisten 127.0.0.1:{self.port};\n{server}\n}}\n}}\n",
            "utf-8",
        )
        super().__init__([program, "-e", "stderr", "-p", root, "-c", config], directory=root)
        self._owned = directory
        try:
            wait_until(lambda: accepts(self.port) or not self.is_running(), "nginx listens")
            assert self.is_running(), f"nginx did not start:\n{self.stderr()}"
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> NginxServer:
        return self


# -- scripted backends ----------------------------------------------------------------------------------------------------------------


class Conversation:
    """
    One accepted connection of a `RawServer`, with blocking calls that all have a limit.
    """

    def __init__(self, connection: socket.socket, received: bytearray) -> None:
        connection.settimeout(PATIENCE)
        self.socket = connection
        self._received = received
        self._unread = b""

    def read(self, size: int) -> bytes:
        """
        Return the next `size` bytes, fewer only if the peer closed.
        """
        while len(self._unread) < size and self._more():
            pass
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def read_until(self, mark: bytes) -> bytes:
        """
        Return everything up to and including `mark`, or what there was when the peer closed.
        """
        while mark not in self._unread and self._more():
            pass
        head, found, rest = self._unread.partition(mark)
        self._unread = rest
        return head + found

    def read_request(self) -> bytes:
        """
        Return the next request with its body, which must come with a Content-Length if there is one; empty if the peer closed.
        """
        head = self.read_until(b"\r\n\r\n")
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return head + self.read(int(value))
        return head

    def read_to_end(self) -> bytes:
        """
        Return everything until the peer closes.
        """
        while self._more():
            pass
        data, self._unread = self._unread, b""
        return data

    def send(self, data: bytes) -> None:
        """
        Send all of `data`.
        """
        self.socket.sendall(data)

    def reset(self) -> None:
        """
        Break the connection off with a RST.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._received += data
        self._unread += data
        return bool(data)


class RawServer:
    """
    A backend that does what a test says, byte by byte: `play` is called in a thread for each connection that is accepted.

    `received` holds the bytes of each connection in the order in which they were accepted. An error in `play`, other than that the peer
    went away, is raised again by `stop`. Use `RawServer.answering(b"…")` for one that always answers the same.
    """

    def __init__(self, play: Callable[[Conversation], object]) -> None:
        self.received: list[bytearray] = []
        self._play = play
        self._errors: list[BaseException] = []
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_stopping = False
        self._door = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._door.getsockname()[1]
        self._start(self._accept)

    @classmethod
    def answering(cls, response: bytes) -> RawServer:
        """
        Return a server that gives `response` to every request, and keeps its connections.
        """

        def play(conversation: Conversation) -> None:
            while conversation.read_request():
                conversation.send(response)

        return cls(play)

    def stop(self) -> None:
        """
        Close the door and all connections, wait for the threads, and raise what went wrong in them.
        """
        self._is_stopping = True
        # Closing would not wake a thread that waits in accept; this does.
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a scripted backend does not end"
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is None:
            self.stop()
        else:
            with contextlib.suppress(Exception):
                self.stop()

    def _start(self, function: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_stopping:
            try:
                connection, _ = self._door.accept()
            except OSError:
                return
            received = bytearray()
            self.received.append(received)
            self._open.append(connection)
            self._start(self._converse, connection, received)

    def _converse(self, connection: socket.socket, received: bytearray) -> None:
        try:
            self._play(Conversation(connection, received))
        except ConnectionError:
            pass
        except BaseException as error:
            if not self._is_stopping:
                self._errors.append(error)
        finally:
            connection.close()
