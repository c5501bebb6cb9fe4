"""
Measure what stays: memory per idle connection, and memory over hours of load.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import procfs
from .cases import Case
from .check import Target, check_candidate, read_answer
from .measure import Conditions, run_wrk
from .processes import VoidRunError
from .stage import Stage

__all__ = ["measure_idle", "measure_soak"]

_CONNECTIONS_PER_SOURCE = 20000
"""A loopback address has some 28,000 ports to connect from; beyond this number the next address is used."""


def _open(stack: ExitStack, port: int, source: int, request: bytes) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, source_address=(f"127.0.0.{source}", 0)))
    connection.sendall(request)
    answer = read_answer(connection)
    if answer.status != 200:
        raise ValueError(f"status {answer.status} instead of 200")
    return connection


def measure_idle(target: Target, case: Case, stage: Stage, count: int, seconds: float = 5.0) -> dict[str, Any]:
    """
    Open `count` connections, ask once over each, leave them idle for `seconds`, and see that they are still open. The memory of the
    kernel's sockets is not counted.
    """
    if target.child is None:
        raise ValueError(f"{target.name} has no process to measure")
    check_candidate(target, case, stage.upstream)
    root = target.child.pid
    before = procfs.tree_resident_bytes(root)
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            held = [_open(stack, target.port, 1 + number // _CONNECTIONS_PER_SOURCE, case.make(number).encode()) for number in range(count)]
        except (OSError, ValueError) as error:
            target.child.check_alive()
            raise VoidRunError(f"{target.name} failed while {count} connections were opened: {error}.") from error
        opening = time.monotonic() - began
        time.sleep(1.0)
        cpu_before, _ = procfs.tree_cpu_seconds(root)
        began = time.monotonic()
        time.sleep(seconds)
        cpu_after, _ = procfs.tree_cpu_seconds(root)
        idle_share = (cpu_after - cpu_before) / (time.monotonic() - began)
        after = procfs.tree_resident_bytes(root)
        lost = _readable(held)
        if lost:
            raise VoidRunError(f"{target.name} closed {lost} of {count} idle connections within {seconds:g} s.")
        check_candidate(target, case, stage.upstream)
    return {
        "connections": count,
        "rss_before": before,
        "rss_with_connections": after,
        "bytes_per_connection": round((after - before) / count),
        "idle_cpu_share": round(idle_share, 4),
        "seconds_to_open": round(opening, 2),
    }


def _readable(held: list[socket.socket]) -> int:
    """
    Count the connections that have something to say. An idle one has nothing but its end.
    """
    poller = select.poll()
    for connection in held:
        poller.register(connection, select.POLLIN)
    return len(poller.poll(0))


def measure_soak(target: Target, case: Case, stage: Stage, script: Path, conditions: Conditions, interval: float) -> list[dict[str, Any]]:
    """
    Load one candidate for `conditions.seconds` without a pause, and print a line every `interval` seconds: memory, processor time per
    request and rate of that interval. The access logs are cut at each.
    """
    if target.child is None:
        raise ValueError(f"{target.name} has no process to measure")
    check_candidate(target, case, stage.upstream)
    failed: list[BaseException] = []

    def load() -> None:
        try:
            run_wrk(target.port, script, conditions.cores.load, seconds=conditions.seconds, connections=conditions.connections)
        except Exception as error:
            failed.append(error)

    points: list[dict[str, Any]] = []
    root = target.child.pid
    began = time.monotonic()
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    moment, asked, cpu = began, stage.upstream.counts()[1], procfs.tree_cpu_seconds(root)[0]
    while thread.is_alive():
        thread.join(interval)
        target.child.check_alive()
        now, asked_now, cpu_now = time.monotonic(), stage.upstream.counts()[1], procfs.tree_cpu_seconds(root)[0]
        requests = asked_now - asked
        if now - moment < interval / 2 or not requests:
            continue  # What is left at the end is too short to be told.
        point = {
            "seconds": round(now - began, 1),
            "rss": procfs.tree_resident_bytes(root),
            "cpu_us_per_request": round((cpu_now - cpu) / requests * 1e6, 2),
            "requests_per_second": round(requests / (now - moment)),
        }
        points.append(point)
        print(
            f"{target.name}  {point['seconds']:8.1f} s  RSS {point['rss'] / 1048576:8.1f} MiB  "
            f"{point['cpu_us_per_request']:7.1f} µs/request  {point['requests_per_second']:9,} requests/s",
            flush=True,
        )
        moment, asked, cpu = now, asked_now, cpu_now
        stage.cut_access_logs()
    if failed:
        raise VoidRunError(f"{target.name}, soak: {failed[0]}") from failed[0]
    check_candidate(target, case, stage.upstream)
    return points
