"""
Measure the memory of a rate limit to which very many clients come: `python -m contrib.bench --clients 1000000`.

Every client comes once, from an address of its own, which is the worst there is: nobody's second request can be told from an attack, and
none may make the gateway grow beyond what `max_clients` allows. Each measurement has a process of its own, because memory that was used
before would hide what is used now.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from . import procfs
from .processes import BenchError, VoidRunError

__all__ = ["doubt_memory", "main", "measure_clients", "run_clients"]

BYTES_PER_CLIENT = 300
"""What may be used for each client that is remembered. It is 130 until there are too many of them; when they displace each other, tables
are laid out anew beside the old ones, and what these have left is not all of use."""

SLACK = 8 << 20
"""What a process may grow by, for whatever else."""

DEFAULT_REMEMBERED = 100_000
"""The default of `max_clients`."""


def measure_clients(clients: int, remembered: int) -> dict[str, Any]:
    """
    Let `clients` clients come to a rate limit that remembers `remembered`, in this process.
    """
    import attrs

    from a3sgw.message import RequestHead
    from a3sgw.middleware.rate_limit import RateLimit, RateLimitConfig
    from a3sgw.middleware.surroundings import still_surroundings

    class Asking:
        """
        What a rate limit looks at in an exchange.
        """

        def __init__(self) -> None:
            self.head = RequestHead(b"GET", b"/")
            self.notes: dict[Any, Any] = {}

    surroundings = attrs.evolve(still_surroundings('router "bench"'), seconds=time.monotonic)
    # A bucket that has been used stays below full for long after this has ended, so none is forgotten because it says nothing.
    limit = RateLimit(RateLimitConfig(name="bench", rate=1, period_secs=3600, burst=10, max_clients=remembered), surroundings)
    exchange: Any = Asking()
    head = exchange.head
    on_request = limit.on_request
    on_request(exchange)
    gc.collect()
    before = procfs.resident_bytes(os.getpid())
    longest = 0.0
    began = last = time.perf_counter()
    for number in range(clients):
        # An odd factor reaches every address once, in no order.
        head.client_packed = struct.pack(">I", number * 2654435761 & 0xFFFFFFFF)
        if on_request(exchange) is not None:
            raise VoidRunError(f"The first request of client {number} was refused.")
        now = time.perf_counter()
        longest = max(longest, now - last)
        last = now
    return {
        "clients": clients,
        "max_clients": remembered,
        "remembered": limit.describe()["clients"],
        "grown_bytes": procfs.resident_bytes(os.getpid()) - before,
        "peak_bytes": procfs.peak_bytes(os.getpid()) - before,
        "us_per_request": round((last - began) / clients * 1e6, 3),
        "longest_ms": round(longest * 1e3, 2),
    }


def doubt_memory(point: dict[str, Any]) -> str | None:
    """
    Return why a measurement shows no bound, or `None`.
    """
    if point["remembered"] > point["max_clients"]:
        return f"{point['remembered']:,} clients are remembered, though max_clients is {point['max_clients']:,}"
    allowed = point["max_clients"] * BYTES_PER_CLIENT + SLACK
    if point["grown_bytes"] > allowed:
        return f"memory grew by {point['grown_bytes']:,} bytes, and {allowed:,} is the bound for max_clients = {point['max_clients']:,}"
    return None


def run_clients(clients: int) -> list[dict[str, Any]]:
    """
    Measure the default `max_clients` and one that has room for all. Raises `VoidRunError` where memory is not bounded.
    """
    print(f"rate-limit: {clients:,} clients, one request of each")
    points = []
    for remembered in dict.fromkeys((DEFAULT_REMEMBERED, clients)):
        argv = [sys.executable, "-m", "contrib.bench.clients", str(clients), str(remembered)]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60 + clients / 10_000, check=False)
        if ended.returncode:
            raise BenchError(f"The measurement ended with status {ended.returncode}:\n{ended.stderr.strip()[-2000:]}")
        point: dict[str, Any] = json.loads(ended.stdout)
        points.append(point)
        print(
            f"max_clients = {remembered:9,}   remembered {point['remembered']:9,}   memory +{point['grown_bytes'] / 1048576:6.1f} MiB, "
            f"{point['grown_bytes'] / point['remembered']:.0f} bytes each, at most +{point['peak_bytes'] / 1048576:.1f} MiB   "
            f"{point['us_per_request']:.2f} µs a request, at most {point['longest_ms']:.1f} ms",
            flush=True,
        )
        problem = doubt_memory(point)
        if problem is not None:
            raise VoidRunError(f"{problem[0].upper()}{problem[1:]}.")
    return points


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Measure once, in this process, and print the figures as JSON.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.clients", description=__doc__)
    parser.add_argument("clients", type=int)
    parser.add_argument("max_clients", type=int)
    options = parser.parse_args(arguments)
    print(json.dumps(measure_clients(options.clients, options.max_clients)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
