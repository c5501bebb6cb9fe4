"""
One measurement: load for some seconds, and what it cost the candidate's process tree.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import procfs
from .cases import Case
from .check import Target, check_candidate
from .h2load import run_h2load
from .load import Load
from .prober import percentile, probe
from .processes import Child, Cores, VoidRunError, require_program
from .upstream import Upstream

__all__ = ["Conditions", "Load", "Sample", "doubt", "load_program", "measure", "parse_load", "run_wrk"]


@dataclass(frozen=True)
class Sample:
    """
    One measurement of one candidate. Processor times are seconds, and `None` without a process.

    `foreign` is the share of the interval in which the proxy's core worked for somebody else or was stolen by the hypervisor: the noise.
    `connects` is how many connections to the upstream were opened meanwhile; one that keeps them opens hardly any.
    """

    load: Load
    cpu: float | None
    kernel: float | None
    core_share: float | None
    foreign: float
    connects: int

    @property
    def cpu_per_request(self) -> float | None:
        return None if self.cpu is None else self.cpu / self.load.requests

    @property
    def requests_per_second(self) -> float:
        return self.load.requests / self.load.seconds


@dataclass(frozen=True)
class Conditions:
    """
    How every candidate of a run is loaded. `rate` is requests per second of the paced cases.
    """

    cores: Cores
    seconds: int
    connections: int
    rate: float


def parse_load(text: str, *, is_refusal: bool = False) -> Load:
    """
    Read the line our script makes `wrk` print at its end. Raises `VoidRunError` if any request failed; with `is_refusal`, if any was not
    refused.
    """
    line = next((line for line in text.splitlines() if line.startswith("bench {")), None)
    if line is None:
        raise VoidRunError(f"wrk ended without its summary. It said:\n{text.strip()[-2000:] or '(nothing)'}")
    counted = json.loads(line.removeprefix("bench "))
    if is_refusal:
        refused, counted["status"] = counted["status"], 0
        if refused != counted["requests"]:
            raise VoidRunError(f"{counted['requests'] - refused} of {counted['requests']} requests passed that were to be refused.")
    faults = [f"{counted[what]} {words}" for what, words in _FAULTS.items() if counted[what]]
    if faults:
        raise VoidRunError(f"wrk saw {', '.join(faults)} among {counted['requests']} requests.")
    if not counted["requests"]:
        raise VoidRunError("wrk completed no request.")
    return Load(counted["duration_us"] / 1e6, counted["requests"], counted["bytes"], counted["p50_us"] / 1e6, counted["p99_us"] / 1e6)


_FAULTS = {
    "connect": "failed connects",
    "read": "failed reads",
    "write": "failed writes",
    "timeout": "timeouts",
    "status": "responses with status 400 or above",
}


def load_program() -> str:
    """
    Return the path of `wrk`. Raises `BenchError`.
    """
    return require_program("wrk", "to make load", "wrk")


def run_wrk(
    port: int, script: Path, core: int, *, seconds: int, connections: int, is_refusal: bool = False, tls: bool = False
) -> Load:
    """
    Load `port` with `wrk` from one thread on `core`.
    """
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    log = script.with_suffix(".out")
    log.unlink(missing_ok=True)
    argv = [load_program(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), url]
    child = Child("wrk", argv, core, log)
    try:
        child.wait(seconds + 60.0)
    except subprocess.TimeoutExpired:
        raise VoidRunError(f"wrk did not end within {seconds + 60} s.") from None
    finally:
        child.stop()
    return parse_load(log.read_text(errors="replace"), is_refusal=is_refusal)


def run_probe(port: int, case: Case, conditions: Conditions, status: int = 200) -> Load:
    """
    Ask the case's requests at a fixed rate.
    """
    first = int(time.time()) % 1_000_000_000
    connections = min(16, conditions.connections)

    def encode(number: int) -> bytes:
        return case.make(first + number).encode()

    try:
        found = probe(port, encode, conditions.rate, conditions.seconds, connections, status=status)
    except (OSError, ValueError) as error:
        raise VoidRunError(f"A request of case {case.name} failed: {error}.") from error
    if not found.values:
        raise VoidRunError(f"No request fell due: {conditions.rate:g}/s over {connections} connections needs longer than that.")
    return Load(found.seconds, len(found.values), found.bytes, percentile(found.values, 50), percentile(found.values, 99))


def measure(target: Target, case: Case, script: Path, conditions: Conditions, upstream: Upstream) -> Sample:
    """
    Check the candidate, load it, check it again. Raises `VoidRunError` if anything was not as it must be.
    """
    is_refusal = target.variation.is_refusal
    size: int | None = check_candidate(target, case, upstream)
    core = conditions.cores.proxy
    connected_before, asked_before = upstream.counts()
    core_before = procfs.core_time(core)
    cpu_before, kernel_before = procfs.tree_cpu_seconds(target.child.pid) if target.child else (0.0, 0.0)
    began = time.monotonic()
    try:
        if case.paced:
            load = run_probe(target.port, case, conditions, target.variation.status)
        elif case.h2:
            load = run_h2load(
                target.port, case, script.parent, conditions.cores.load, seconds=conditions.seconds, connections=conditions.connections
            )
        else:
            load = run_wrk(
                target.port,
                script,
                conditions.cores.load,
                seconds=conditions.seconds,
                connections=conditions.connections,
                is_refusal=is_refusal,
                tls=case.tls,
            )
    except VoidRunError as error:
        raise VoidRunError(f"{target.name}, case {case.name}: {error}") from error
    elapsed = time.monotonic() - began
    cpu_after, kernel_after = procfs.tree_cpu_seconds(target.child.pid) if target.child else (0.0, 0.0)
    core_after = procfs.core_time(core)
    connected_after, asked_after = upstream.counts()
    if target.child is not None:
        target.child.check_alive()
    asked = asked_after - asked_before
    if case.h2:
        # Compressed headers have no size that could be known, and it is asked for a while before it counts.
        size = None
    problem = doubt(load, size=size, asked=asked, connections=conditions.connections, is_refusal=is_refusal)
    if problem is not None:
        raise VoidRunError(f"{target.name}, case {case.name}: {problem}")
    check_candidate(target, case, upstream)
    connects = connected_after - connected_before
    cpu, kernel = cpu_after - cpu_before, kernel_after - kernel_before
    occupied = (core_after.busy - core_before.busy + core_after.stolen - core_before.stolen) / procfs.TICKS_PER_SECOND
    foreign = max(0.0, occupied - cpu) / elapsed
    if target.child is None:
        return Sample(load, None, None, None, foreign, connects)
    return Sample(load, cpu, kernel, cpu / elapsed, foreign, connects)


def doubt(load: Load, *, size: int | None, asked: int, connections: int, is_refusal: bool = False) -> str | None:
    """
    Return why the counts of a measurement do not fit together, or `None`.

    `size` is that of a checked response, or `None` if they are not all alike, `asked` what the upstream counted meanwhile. At the end of
    the load each connection may have one request under way; what differs by more was answered by somebody else, answered wrongly, or asked
    twice. With `is_refusal` the upstream must have seen none of them.
    """
    if is_refusal:
        if asked:
            return f"all requests were refused, but the upstream saw {asked}"
    elif asked < load.requests:
        return f"{load.requests} requests were answered, but the upstream saw only {asked}"
    elif asked > load.requests + 2 * connections:
        return f"{load.requests} requests were answered, but the upstream saw {asked}"
    if size is not None and abs(load.bytes - load.requests * size) > connections * size + load.requests * 2:
        return f"{load.requests} responses of {size} bytes do not make {load.bytes} bytes"
    return None
