"""
Load over HTTP/2, by nghttp2's `h2load`.

What it asks for comes from a file of addresses, which differ as those of the HTTP/1 cases do; the headers are the same ones.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .cases import HOST, Case
from .load import Load
from .prober import percentile
from .processes import Child, VoidRunError, require_program

__all__ = ["STREAMS", "PacedH2", "h2load_calls", "parse_h2load", "run_h2load"]

STREAMS = 8
"""Requests at a time on each connection."""

_ADDRESSES = 2000
_LEAST_PACE = 0.9
_COUNTS = re.compile(r"^requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.M)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.M)
_TRAFFIC = re.compile(r"^traffic: .*?\((\d+)\) total", re.M)
_PROTOCOL = re.compile(r"^Application protocol: (\S+)", re.M)


def run_h2load(port: int, case: Case, directory: Path, core: int, *, seconds: int, connections: int) -> Load:
    """
    Load `port` from one thread on `core`; `connections` is the number of requests under way at a time, over an eighth as many connections.
    """
    first = case.make(1)
    addresses = directory / f"{case.name}.addresses"
    base = f"https://{HOST}:{port}"
    addresses.write_text("".join(f"{base}{case.make(number).target}\n" for number in range(1, _ADDRESSES)))
    more = [f"--connect-to=127.0.0.1:{port}", "-i", str(addresses)]
    for name, value in first.headers.items():
        more += ["-H", f"{name.lower()}: {value}"]
    return _run(more, directory, core, seconds, connections)


def h2load_calls(port: int, method: str, message: bytes, directory: Path, core: int, *, seconds: int, calls: int) -> Load:
    """
    Make unary gRPC calls of `method` to `port`, without TLS; `calls` is how many are under way at a time.
    """
    framed = directory / "message.grpc"
    framed.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    more = ["-d", str(framed), "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{method}"]
    return _run(more, directory, core, seconds, calls)


class PacedH2:
    """
    Requests at a fixed rate over HTTP/2 without TLS, made from one thread on `core` while something else happens. `rate` is that of each
    connection.
    """

    def __init__(self, port: int, target: str, directory: Path, core: int, *, seconds: int, connections: int, rate: int) -> None:
        # As many under way as fall due in a second: whoever is slow for less than that does not slow down the timetable.
        more = [f"-c{connections}", f"-m{rate}", f"--rps={rate}", f"http://127.0.0.1:{port}{target}"]
        self._run = _Run(more, directory, core, seconds)
        self._expected = rate * connections * seconds

    def finish(self) -> Load:
        """
        Wait for the end, and return what was counted. Raises `VoidRunError` if any request failed, or many were never asked.
        """
        load = self._run.finish()
        # What is still under way at the end is in no count.
        if load.requests < _LEAST_PACE * self._expected:
            raise VoidRunError(f"h2load: only {load.requests} of {self._expected} requests were made.")
        return load

    def stop(self) -> None:
        """
        End the process.
        """
        self._run.stop()


def _run(more: list[str], directory: Path, core: int, seconds: int, connections: int) -> Load:
    return _Run([f"-c{max(1, connections // STREAMS)}", f"-m{STREAMS}", *more], directory, core, seconds).finish()


class _Run:
    """
    One `h2load` that runs.
    """

    def __init__(self, more: list[str], directory: Path, core: int, seconds: int) -> None:
        self._log, self._times, self._seconds = directory / "h2load.out", directory / "h2load.times", seconds
        for path in (self._log, self._times):
            path.unlink(missing_ok=True)
        argv = [require_program("h2load", "to make load over HTTP/2", "nghttp2-client"), "-t1", f"-D{seconds}"]
        self._child = Child("h2load", [*argv, f"--log-file={self._times}", *more], core, self._log)

    def finish(self) -> Load:
        """
        Wait for the end, and read what was counted.
        """
        try:
            self._child.wait(self._seconds + 60.0)
        except subprocess.TimeoutExpired:
            raise VoidRunError(f"h2load did not end within {self._seconds + 60} s.") from None
        finally:
            self.stop()
        times = self._times.read_text() if self._times.exists() else ""
        return parse_h2load(self._log.read_text(errors="replace"), times, float(self._seconds))

    def stop(self) -> None:
        """
        End the process.
        """
        self._child.stop()


def parse_h2load(text: str, times: str, seconds: float) -> Load:
    """
    Read what `h2load` printed, and its file of times: a line of start, status and duration in microseconds for each request. Raises
    `VoidRunError` if any request failed, or it spoke something else.
    """
    counts, statuses, traffic, protocol = (pattern.search(text) for pattern in (_COUNTS, _STATUSES, _TRAFFIC, _PROTOCOL))
    if counts is None or statuses is None or traffic is None or protocol is None:
        raise VoidRunError(f"h2load ended without its summary. It said:\n{text.strip()[-2000:] or '(nothing)'}")
    if protocol[1] not in ("h2", "h2c"):
        raise VoidRunError(f"h2load spoke {protocol[1]} and not HTTP/2.")
    _total, done, succeeded, failed, errored, timed_out = map(int, counts.groups())
    wrong = sum(map(int, statuses.groups()[1:]))
    if not done or failed or errored or timed_out or wrong or done != succeeded:
        counted = f"{failed} failed, {errored} errored, {timed_out} timed out, {wrong} had another status"
        raise VoidRunError(f"h2load: of {done} requests {counted}.")
    durations = sorted(int(line.split("\t")[2]) / 1e6 for line in times.splitlines())
    if not durations:
        raise VoidRunError("h2load wrote no times.")
    return Load(seconds, done, int(traffic[1]), percentile(durations, 50), percentile(durations, 99))
