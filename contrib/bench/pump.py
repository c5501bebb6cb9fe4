"""
What a gigabyte costs once bytes only pass through: `python -m contrib.bench.pump`.

Over plain TCP beside HAProxy in its `tcp` mode, and after a WebSocket handshake beside HAProxy and nginx. A few connections carry the same
blocks at once, down or up, each byte is compared at the end, and what counts is the processor time of the proxy's process tree.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import procfs, report
from .candidates import CHECKOUT
from .processes import BenchError, Child, Cores, VoidRunError, find_program, free_port
from .pump_server import BLOCK, SWITCH, head_for, read_head, receive_blocks, send_blocks

__all__ = ["carry", "main"]

_PATIENCE = 120.0

_GATEWAY_TCP = """
entrypoints "web" {{
  address  = "127.0.0.1:{port}"
  protocol = "tcp"
}}
routers "all" {{
  rule    = "HostSNI(`*`)"
  service = "server"
}}
services "server" {{
  load_balancer {{
    servers = [{{ url = "tcp://127.0.0.1:{server}" }}]
  }}
}}
"""

_GATEWAY_HTTP = """
entrypoints "web" {{
  address = "127.0.0.1:{port}"
}}
routers "all" {{
  rule    = "PathPrefix(`/`)"
  service = "server"
}}
services "server" {{
  load_balancer {{
    servers = [{{ url = "http://127.0.0.1:{server}" }}]
  }}
}}
"""

_HAPROXY = """
global
    nbthread 1
    log stdout format raw local0
defaults
    mode {mode}
    log global
    option {mode}log
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
listen web
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{server}
"""

_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.errors warn;
events {{ worker_connections 512; }}
http {{
    access_log {directory}/nginx.access;
    client_body_temp_path {directory}/nginx.body;
    proxy_temp_path {directory}/nginx.proxy;
    fastcgi_temp_path {directory}/nginx.fastcgi;
    uwsgi_temp_path {directory}/nginx.uwsgi;
    scgi_temp_path {directory}/nginx.scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{server};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_busy_buffers_size 128k;
        }}
    }}
}}
"""


def _gateway(config: Path) -> list[str]:
    return [sys.executable, "-m", "a3sgw.cli", "--config", str(config)]


def _haproxy(config: Path) -> list[str]:
    return [find_program("haproxy") or "haproxy", "-db", "-f", str(config)]


def _nginx(config: Path) -> list[str]:
    return [find_program("nginx") or "nginx", "-c", str(config), "-p", str(config.parent)]


_Way = tuple[str, Callable[[Path], list[str]]]
_CASES: dict[str, dict[str, _Way]] = {
    "tcp": {"a3sgw": (_GATEWAY_TCP, _gateway), "haproxy": (_HAPROXY.replace("{mode}", "tcp"), _haproxy)},
    "websocket": {
        "a3sgw": (_GATEWAY_HTTP, _gateway),
        "haproxy": (_HAPROXY.replace("{mode}", "http"), _haproxy),
        "nginx": (_NGINX, _nginx),
    },
}


def carry(port: int, direction: str, blocks: int, connections: int) -> None:
    """
    Carry so many blocks over each of the connections at the same time. Raises `VoidRunError` if one does not come through whole.
    """
    errors: list[Exception] = []

    def carry_one() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection:
                connection.sendall(head_for(direction, blocks))
                head = read_head(connection)
                if not head.startswith(SWITCH.partition(b"\r\n")[0]):
                    raise ValueError(f"answered {head!r:.200}")
                if direction == "down":
                    receive_blocks(connection, blocks)
                else:
                    send_blocks(connection, blocks)
                    if connection.recv(64) != b"received":
                        raise ValueError("the server did not confirm what it received")
        except (OSError, ValueError) as error:
            errors.append(error)

    threads = [threading.Thread(target=carry_one, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)
        if thread.is_alive():
            raise VoidRunError(f"A connection did not end within {_PATIENCE:g} s.")
    if errors:
        raise VoidRunError(f"A connection failed: {errors[0]}.")


class _Proxy:
    """
    One candidate that runs.
    """

    def __init__(self, stack: ExitStack, name: str, way: _Way, directory: Path, server: int, core: int) -> None:
        self.name = name
        self.port = free_port()
        text, argv = way
        config = directory / f"{name}.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(text.format(port=self.port, server=server, directory=directory, user=user))
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        self.child = Child(name, argv(config), core, directory / f"{name}.log", env={"PYTHONPATH": path})
        stack.callback(self.child.stop)
        self.child.wait_listening(self.port)

    def measure(self, direction: str, blocks: int, connections: int) -> dict[str, float]:
        """
        Return what it cost: seconds of processor time a gigabyte (10⁹ bytes), the share of it in the kernel, and gigabytes a second.
        """
        before, kernel_before = procfs.tree_cpu_seconds(self.child.pid)
        began = time.monotonic()
        try:
            carry(self.port, direction, blocks, connections)
        except VoidRunError as error:
            raise VoidRunError(f"{self.name}: {error} The end of its log:\n{self.child.tail()}") from error
        elapsed = time.monotonic() - began
        after, kernel_after = procfs.tree_cpu_seconds(self.child.pid)
        gigabytes = blocks * connections * len(BLOCK) / 1e9
        cpu = after - before
        return {"cpu": cpu / gigabytes, "kernel": (kernel_after - kernel_before) / cpu if cpu else 0.0, "rate": gigabytes / elapsed}


def _run_case(name: str, options: argparse.Namespace, directory: Path, cores: Cores) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        server = free_port()
        argv = [sys.executable, "-m", "contrib.bench.pump_server", str(server)]
        child = Child("pump_server", argv, cores.upstream, directory / "server.log", env={"PYTHONPATH": str(CHECKOUT)})
        stack.callback(child.stop)
        child.wait_listening(server)
        ways = {who: way for who, way in _CASES[name].items() if who == "a3sgw" or find_program(who)}
        proxies = [_Proxy(stack, who, way, directory, server, cores.proxy) for who, way in ways.items()]
        blocks = max(1, options.megabytes * 1_000_000 // len(BLOCK) // options.connections)
        for direction in ("down", "up"):
            rounds: dict[str, list[dict[str, float]]] = {proxy.name: [] for proxy in proxies}
            for turn in range(-1, options.rounds):
                for proxy in proxies:
                    sample = proxy.measure(direction, blocks if turn >= 0 else max(1, blocks // 10), options.connections)
                    if turn >= 0:
                        rounds[proxy.name].append(sample)
            _print(f"{name}, {direction}", rounds)
            found[direction] = rounds
    return found


def _print(title: str, rounds: dict[str, list[dict[str, float]]]) -> None:
    print(f"\n{title}\n{'':10}{'CPU s/GB':>10}{'least-most':>14}{'x haproxy':>11}{'kernel':>8}{'GB/s':>7}")
    medians = {name: statistics.median(sample["cpu"] for sample in samples) for name, samples in rounds.items()}
    for name, samples in rounds.items():
        costs = [sample["cpu"] for sample in samples]
        ratio = f"{medians[name] / medians['haproxy']:.2f}" if medians.get("haproxy") else "-"
        kernel, rate = (statistics.median(sample[key] for sample in samples) for key in ("kernel", "rate"))
        print(f"{name:10}{medians[name]:10.3f}{min(costs):8.3f}-{max(costs):.3f}{ratio:>11}{kernel:8.0%}{rate:7.2f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the cases. Returns 0, or 1 if a byte got lost.
    """
    about = "Processor time of a gigabyte that only passes through."
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.pump", description=about)
    parser.add_argument("--cases", default=",".join(_CASES), metavar="A,B", help="of %(default)s (default: all)")
    parser.add_argument("--megabytes", type=int, default=2000, help="of each measurement (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="at the same time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="over all candidates (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    cases = options.cases.split(",")
    if unknown := [name for name in cases if name not in _CASES]:
        parser.error(f"--cases: there is no case {unknown[0]!r}; there are {', '.join(_CASES)}")
    for name in ("megabytes", "connections", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1")
    cores = Cores.allot(list(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, {cores.load})
    directory = Path(tempfile.mkdtemp(prefix="a3sgw-pump-"))
    try:
        found = {name: _run_case(name, options, directory, cores) for name in cases}
    except BenchError as error:
        print(f"VOID: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": report.machine(), "cases": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
