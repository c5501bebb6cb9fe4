"""
What a datagram costs: `python -m contrib.bench.udp`.

Some clients have a few datagrams under way each, through this gateway and through a bare forwarding loop in Python, to a server that sends
them back. What counts is the processor time of the one in between for each datagram that it passes on; each that comes back is two. Every
one that comes back is compared with what was sent, and those that are lost are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from . import procfs, report
from .candidates import CHECKOUT
from .processes import BenchError, Child, Cores, VoidRunError, free_port

__all__ = ["exchange", "main"]

_PATIENCE = 30.0

_GATEWAY = """
entrypoints "in" {{
  address  = "{host}:{port}"
  protocol = "udp"
}}
routers "all" {{
  rule    = "HostSNI(`*`)"
  service = "server"
}}
services "server" {{
  load_balancer {{
    servers = [{{ url = "udp://127.0.0.1:{server}" }}]
  }}
}}
"""


def exchange(port: int, *, clients: int, window: int, size: int, seconds: float) -> tuple[int, int]:
    """
    Keep `window` datagrams of `size` bytes under way for each client; return how many came back and how many did not. Raises
    `VoidRunError` if one comes back changed.
    """
    poller = select.epoll()
    by_number: dict[int, tuple[socket.socket, bytes]] = {}
    back = lost = 0
    with ExitStack() as stack:
        stack.callback(poller.close)
        for number in range(clients):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            sock.connect(("127.0.0.1", port))
            by_number[sock.fileno()] = (sock, (b"%08d" % number * (size // 8 + 1))[:size])
            poller.register(sock, select.EPOLLIN)
        for sock, data in by_number.values():
            for _ in range(window):
                sock.send(data)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            events = poller.poll(0.2)
            if not events:
                # Whatever was under way is lost.
                for sock, data in by_number.values():
                    lost += window
                    for _ in range(window):
                        sock.send(data)
            for number, _ in events:
                sock, data = by_number[number]
                with suppress(BlockingIOError):
                    for _ in range(window):
                        if sock.recv(65535) != data:
                            raise VoidRunError("A datagram came back changed.")
                        back += 1
                        sock.send(data)
    return back, lost


def _answers(port: int) -> bool:
    with suppress(OSError):
        return exchange(port, clients=1, window=1, size=64, seconds=0.1)[0] > 0
    time.sleep(0.05)
    return False


class _Candidate:
    """
    One that passes datagrams on.
    """

    def __init__(self, stack: ExitStack, name: str, argv: list[str], port: int, directory: Path, core: int) -> None:
        self.name = name
        self.port = port
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        self.child = Child(name.replace(" ", "-"), argv, core, directory / f"{name}.log", env={"PYTHONPATH": path})
        stack.callback(self.child.stop)
        deadline = time.monotonic() + _PATIENCE
        while not _answers(port):
            self.child.check_alive()
            if time.monotonic() > deadline:
                raise VoidRunError(f"{name} passes nothing on. The end of its log:\n{self.child.tail()}")

    def measure(self, options: argparse.Namespace) -> dict[str, float]:
        """
        Return microseconds of processor time for each datagram passed on, the share of the kernel, datagrams a second, and those lost.
        """
        before, kernel_before = procfs.tree_cpu_seconds(self.child.pid)
        back, lost = exchange(
            self.port, clients=options.clients, window=options.window, size=options.size, seconds=options.seconds
        )
        after, kernel_after = procfs.tree_cpu_seconds(self.child.pid)
        self.child.check_alive()
        if not back or after <= before:
            raise VoidRunError(f"{self.name} has passed nothing on. The end of its log:\n{self.child.tail()}")
        cpu = after - before
        kernel = (kernel_after - kernel_before) / cpu
        return {"cpu": cpu * 1e6 / (2 * back), "kernel": kernel, "rate": 2 * back / options.seconds, "lost": lost}


def _run(options: argparse.Namespace, directory: Path, cores: Cores) -> dict[str, list[dict[str, float]]]:
    with ExitStack() as stack:
        server = free_port()
        peers = [sys.executable, "-m", "contrib.bench.udp_peers"]
        echo = Child("echo", [*peers, "echo", str(server)], cores.upstream, directory / "echo.log", env={"PYTHONPATH": str(CHECKOUT)})
        stack.callback(echo.stop)
        candidates = []
        for name, host in (("a3sgw", "127.0.0.1"), ("a3sgw any", "")):
            port = free_port()
            config = directory / f"{name}.hcl"
            config.write_text(_GATEWAY.format(host=host, port=port, server=server))
            argv = [sys.executable, "-m", "a3sgw.cli", "--config", str(config)]
            candidates.append(_Candidate(stack, name, argv, port, directory, cores.proxy))
        port = free_port()
        candidates.append(_Candidate(stack, "bare loop", [*peers, "bare", str(port), str(server)], port, directory, cores.proxy))
        rounds: dict[str, list[dict[str, float]]] = {each.name: [] for each in candidates}
        for turn in range(options.rounds):
            # The other way round each time, because whoever is first may find another machine than whoever is last.
            for each in candidates if turn % 2 else reversed(candidates):
                rounds[each.name].append(each.measure(options))
        echo.check_alive()
    return rounds


def _summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    medians = {name: statistics.median(sample["cpu"] for sample in samples) for name, samples in rounds.items()}
    return {name: {"cpu_us": cpu, "ratio_to_bare": cpu / medians["bare loop"], "rounds": rounds[name]} for name, cpu in medians.items()}


def _print(found: dict[str, Any]) -> None:
    print(f"{'':12}{'µs each':>9}{'least-most':>13}{'per CPU s':>11}{'x bare':>8}{'kernel':>8}{'lost':>6}")
    for name, each in found.items():
        costs = [sample["cpu"] for sample in each["rounds"]]
        kernel = statistics.median(sample["kernel"] for sample in each["rounds"])
        lost = sum(sample["lost"] for sample in each["rounds"])
        spread = f"{min(costs):.2f}-{max(costs):.2f}"
        cpu, ratio = each["cpu_us"], each["ratio_to_bare"]
        print(f"{name:12}{cpu:9.2f}{spread:>13}{1e6 / cpu:11,.0f}{ratio:8.2f}{kernel:8.0%}{lost:6.0f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Measure. Returns 0, or 1 if the figures mean nothing.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.udp", description="Processor time of a datagram that is passed on.")
    parser.add_argument("--clients", type=int, default=16, help="at the same time (default: %(default)s)")
    parser.add_argument("--window", type=int, default=4, help="datagrams under way for each (default: %(default)s)")
    parser.add_argument("--size", type=int, default=100, help="bytes of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="over all candidates (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    for name in ("clients", "window", "size", "seconds", "rounds"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name}: more than 0")
    cores = Cores.allot(list(os.sched_getaffinity(0)))
    usable = os.sched_getaffinity(0)
    directory = Path(tempfile.mkdtemp(prefix="a3sgw-udp-"))
    try:
        os.sched_setaffinity(0, {cores.load})
        found = _summary(_run(options, directory, cores))
    except BenchError as error:
        print(f"VOID: {error}", file=sys.stderr)
        return 1
    finally:
        os.sched_setaffinity(0, usable)
        shutil.rmtree(directory, ignore_errors=True)
    _print(found)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": report.machine(), "udp": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
