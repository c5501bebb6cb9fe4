"""
What a unary gRPC call costs: `python -m contrib.bench.grpc`.

Calls of 100 bytes come from `h2load` over HTTP/2 without TLS and go to a real gRPC server in the same way, beside nginx, HAProxy and Caddy.
`h2load` does not know whether a call went well, so the server must have counted as many as were answered, and a real client asks through
each proxy before and after: its call must come back as it was, with status 0 and the server's trailers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import procfs, report
from .candidates import CHECKOUT
from .grpc_server import METHOD
from .h2load import h2load_calls
from .processes import BenchError, Child, Cores, VoidRunError, find_program, free_port, require_program

__all__ = ["main"]

_MESSAGE = bytes(range(100))

_GATEWAY = """
entrypoints "web" {{
  address = "127.0.0.1:{port}"
}}
routers "all" {{
  rule    = "PathPrefix(`/`)"
  service = "server"
}}
services "server" {{
  load_balancer {{
    servers = [{{ url = "h2c://127.0.0.1:{server}" }}]
  }}
}}
observability {{
  access_log {{
    file = "{directory}/a3sgw.access"
  }}
}}
"""

_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.errors warn;
events {{ worker_connections 512; }}
http {{
    access_log {directory}/nginx.access combined buffer=64k flush=1s;
    keepalive_requests 10000000;
    http2_max_requests 10000000;
    client_body_temp_path {directory}/nginx.body;
    proxy_temp_path {directory}/nginx.proxy;
    fastcgi_temp_path {directory}/nginx.fastcgi;
    uwsgi_temp_path {directory}/nginx.uwsgi;
    scgi_temp_path {directory}/nginx.scgi;
    upstream server {{ server 127.0.0.1:{server}; keepalive 64; keepalive_requests 10000000; }}
    server {{
        listen 127.0.0.1:{port} http2;
        location / {{ grpc_pass grpc://server; }}
    }}
}}
"""

_HAPROXY = """
global
    nbthread 1
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen web
    bind 127.0.0.1:{port} proto h2
    server one 127.0.0.1:{server} proto h2
"""

_CADDY = {
    "admin": {"disabled": True, "config": {"persist": False}},
    "logging": {
        "logs": {
            "default": {"level": "WARN", "exclude": ["http.log.access"]},
            "access": {
                "writer": {"output": "file", "filename": "{directory}/caddy.access", "roll": False},
                "include": ["http.log.access.access"],
            },
        }
    },
    "apps": {
        "http": {
            "servers": {
                "bench": {
                    "listen": ["127.0.0.1:{port}"],
                    "protocols": ["h1", "h2c"],
                    "automatic_https": {"disable": True},
                    "logs": {"default_logger_name": "access"},
                    "routes": [
                        {
                            "handle": [
                                {
                                    "handler": "reverse_proxy",
                                    "upstreams": [{"dial": "127.0.0.1:{server}"}],
                                    "transport": {"protocol": "http", "versions": ["h2c", "2"]},
                                }
                            ]
                        }
                    ],
                }
            }
        }
    },
}


def _fill(text: str, values: dict[str, Any]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text.replace("{{", "{").replace("}}", "}")


def _gateway(config: Path) -> list[str]:
    return [sys.executable, "-m", "a3sgw.cli", "--config", str(config)]


def _nginx(config: Path) -> list[str]:
    return [find_program("nginx") or "nginx", "-c", str(config), "-p", str(config.parent)]


def _haproxy(config: Path) -> list[str]:
    return [find_program("haproxy") or "haproxy", "-db", "-f", str(config)]


def _caddy(config: Path) -> list[str]:
    return [find_program("caddy") or "caddy", "run", "--config", str(config)]


_WAYS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "a3sgw": (_GATEWAY, _gateway),
    "nginx": (_NGINX, _nginx),
    "haproxy": (_HAPROXY, _haproxy),
    # Its braces are its own.
    "caddy": (json.dumps(_CADDY).replace("}}", "} }").replace("}}", "} }").replace("{{", "{ {"), _caddy),
}


def _call(port: int) -> int:
    """
    Make one call as a client does, and return the server's count of calls. Raises `VoidRunError` unless all of it came back.
    """
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer, call = channel.unary_unary(METHOD).with_call(_MESSAGE, timeout=15)
        except grpc.RpcError as error:
            raise VoidRunError(f"a call failed: {error}") from error
    trailers = dict(call.trailing_metadata())
    if answer != _MESSAGE or "x-calls" not in trailers:
        raise VoidRunError(f"a call was answered {answer!r:.80} with trailers {trailers}.")
    return int(trailers["x-calls"])


class _Proxy:
    """
    One candidate that runs.
    """

    def __init__(self, stack: ExitStack, name: str, directory: Path, server: int, core: int) -> None:
        self.name = name
        self.port = free_port()
        text, argv = _WAYS[name]
        config = directory / f"{name}.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(_fill(text, {"port": self.port, "server": server, "directory": directory, "user": user}))
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        env = {"PYTHONPATH": path, "GOMAXPROCS": "1", "HOME": str(directory), "XDG_DATA_HOME": str(directory)}
        self.child = Child(name, argv(config), core, directory / f"{name}.log", env=env)
        stack.callback(self.child.stop)
        self.child.wait_listening(self.port)

    def measure(self, options: argparse.Namespace, seconds: int, directory: Path, core: int) -> dict[str, float]:
        """
        Return processor seconds a call, calls a second, and the median latency. Raises `VoidRunError`.
        """
        try:
            counted = _call(self.port)
            before, _ = procfs.tree_cpu_seconds(self.child.pid)
            load = h2load_calls(self.port, METHOD, _MESSAGE, directory, core, seconds=seconds, calls=options.calls)
            after, _ = procfs.tree_cpu_seconds(self.child.pid)
            served = _call(self.port) - counted - 1
        except VoidRunError as error:
            raise VoidRunError(f"{self.name}: {error} The end of its log:\n{self.child.tail()}") from error
        if not load.requests <= served <= load.requests + 2 * options.calls:
            raise VoidRunError(f"{self.name}: {load.requests} calls were answered, but the server counted {served}.")
        return {"cpu": (after - before) / served, "rate": served / load.seconds, "p50": load.p50}


def run(options: argparse.Namespace, directory: Path) -> dict[str, list[dict[str, float]]]:
    """
    Measure all candidates. Raises `BenchError`.
    """
    cores = Cores.allot(list(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, {cores.load})
    require_program("h2load", "to make load over HTTP/2", "nghttp2-client")
    with ExitStack() as stack:
        server = free_port()
        argv = [sys.executable, "-m", "contrib.bench.grpc_server", str(server)]
        child = Child("grpc_server", argv, cores.upstream, directory / "server.log", env={"PYTHONPATH": str(CHECKOUT)})
        stack.callback(child.stop)
        child.wait_listening(server)
        names = [name for name in _WAYS if name == "a3sgw" or find_program(name)]
        proxies = [_Proxy(stack, name, directory, server, cores.proxy) for name in names]
        rounds: dict[str, list[dict[str, float]]] = {proxy.name: [] for proxy in proxies}
        for turn in range(-1, options.rounds):
            for proxy in proxies:
                sample = proxy.measure(options, options.seconds if turn >= 0 else 1, directory, cores.load)
                if turn >= 0:
                    rounds[proxy.name].append(sample)
    return rounds


def _print(rounds: dict[str, list[dict[str, float]]]) -> None:
    medians = {name: statistics.median(sample["cpu"] for sample in samples) for name, samples in rounds.items()}
    print(f"{'':10}{'CPU µs/call':>12}{'least-most':>14}{'x caddy':>9}{'calls/s':>9}{'p50 ms':>8}")
    for name, samples in rounds.items():
        costs = [sample["cpu"] * 1e6 for sample in samples]
        ratio = f"{medians[name] / medians['caddy']:.2f}" if medians.get("caddy") else "-"
        rate, p50 = (statistics.median(sample[key] for sample in samples) for key in ("rate", "p50"))
        print(f"{name:10}{medians[name] * 1e6:12.1f}{min(costs):8.1f}-{max(costs):.1f}{ratio:>9}{rate:9,.0f}{p50 * 1e3:8.2f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the bench. Returns 0, or 1 if a call got lost.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.grpc", description="Processor time of a unary gRPC call.")
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=64, help="under way at the same time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="over all candidates (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    for name in ("seconds", "calls", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1")
    directory = Path(tempfile.mkdtemp(prefix="a3sgw-grpc-"))
    try:
        rounds = run(options, directory)
    except BenchError as error:
        print(f"VOID: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(rounds)
    if options.json:
        options.json.write_text(json.dumps({"machine": report.machine(), "calls": rounds}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
