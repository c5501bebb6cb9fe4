"""
Start the processes of a run on their cores, and be sure that they are gone afterwards.

A `Child` lives in a session of its own, so that its whole group can be ended by its number; the kernel ends it too if the bench itself is
killed. Every child is entered into an `ExitStack`, which also serves errors and Ctrl-C.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BenchError", "Child", "Cores", "VoidRunError", "find_program", "free_port", "raise_file_limit", "require_program"]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_given_ports: set[int] = set()


class BenchError(Exception):
    """
    The bench cannot be run as asked. The text says why and what to do.
    """


class VoidRunError(BenchError):
    """
    A response failed its check or a process died: the figures of the whole run mean nothing.
    """


@dataclass(frozen=True)
class Cores:
    """
    Who runs where. The proxy has its core to itself whenever there are two.
    """

    proxy: int
    upstream: int
    load: int

    @classmethod
    def allot(cls, usable: Sequence[int]) -> Cores:
        """
        Allot the usable cores: from three on the load generator has its own, with two it shares with the upstream, with one all share.
        """
        cores = sorted(usable)
        return cls(cores[0], cores[min(1, len(cores) - 1)], cores[min(2, len(cores) - 1)])


class Child:
    """
    One process that was started here, pinned to `core`, with its output in `log`.
    """

    def __init__(
        self, name: str, argv: Sequence[str], core: int, log: Path, *, env: dict[str, str] | None = None, stdout: Path | None = None
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log

        def settle() -> None:
            os.sched_setaffinity(0, {core})
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        # Appending, because the logs are cut back to nothing between measurements while the process goes on writing.
        with open(log, "ab") as errors, open(stdout or log, "ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=settle,
            )
        self.pid = self._process.pid

    def check_alive(self) -> None:
        """
        Raise `VoidRunError` with the end of the log if the process has ended.
        """
        status = self._process.poll()
        if status is not None:
            raise VoidRunError(f"{self.name} ended with status {status}. The end of its log:\n{self.tail()}")

    @property
    def has_ended(self) -> bool:
        """
        Whether the process is gone.
        """
        return self._process.poll() is not None

    def wait(self, seconds: float) -> int:
        """
        Wait for the process to end by itself and return its status. Raises `subprocess.TimeoutExpired`.
        """
        return self._process.wait(seconds)

    def wait_listening(self, port: int, seconds: float = 60.0) -> None:
        """
        Wait until the process accepts connections on `port`.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_alive()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            time.sleep(0.05)
        raise VoidRunError(f"{self.name} did not listen on 127.0.0.1:{port} within {seconds:g} s. The end of its log:\n{self.tail()}")

    def tail(self) -> str:
        text = self.log.read_text(errors="replace")[-2000:]
        return text.strip() or "(empty)"

    def stop(self) -> None:
        """
        End the process and all of its group; ask first, insist after two seconds.
        """
        for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        # The second signal is sent in any case: a master may leave its workers behind.


def find_program(name: str) -> str | None:
    """
    Look for a program beside the interpreter that runs us, then on the path, then where Debian keeps servers.
    """
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))


def require_program(name: str, purpose: str, package: str) -> str:
    """
    Look for a program the bench cannot do without. Raises `BenchError`.
    """
    found = find_program(name)
    if found is None:
        raise BenchError(f"{name} is not installed, and the bench needs it {purpose}: install the package {package}.")
    return found


def free_port() -> int:
    """
    Return a loopback port nobody listens on, from below the range that outgoing connections take theirs from. None is given twice.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(200):
        port = random.randrange(min(10000, lowest - 1000), lowest)
        if port not in _given_ports:
            with socket.socket() as candidate, suppress(OSError):
                candidate.bind(("127.0.0.1", port))
                _given_ports.add(port)
                return port
    raise BenchError(f"No free port was found on 127.0.0.1 below {lowest}; stop what occupies them.")


def raise_file_limit(wanted: int) -> int:
    """
    Raise the number of files we and our children may open, beyond the hard limit if we may. Returns what was reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft if soft != resource.RLIM_INFINITY else wanted
