"""
How long an event takes when a server streams: `python -m contrib.bench.streaming`.

A server of its own process writes events at a fixed pace, each stamped with the machine's monotonic clock; the clients note when they have
each. What the gateway adds is the difference to what the same streams take without it.
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .candidates import CHECKOUT
from .prober import percentile
from .processes import BenchError, Child, Cores, VoidRunError, free_port

__all__ = ["main", "measure", "serve"]

_EVENT = b"data: %020d\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PATIENCE = 30.0

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
    servers = [{{ url = "http://127.0.0.1:{server}" }}]
  }}
}}
"""


def serve(port: int, interval: float) -> None:
    """
    Send each client an event every `interval` seconds, until it leaves. Never returns.
    """
    listening = socket.create_server(("127.0.0.1", port))
    listening.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    clients: list[socket.socket] = []
    due = time.monotonic()
    while True:
        due += interval
        while (left := due - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is listening and (client := _accept(listening)) is not None:
                    clients.append(client)
        for client in list(clients):
            # Each its own stamp: those before have taken their time.
            event = _EVENT % time.monotonic_ns()
            try:
                client.sendall(b"%x\r\n%b\r\n" % (len(event), event))
            except OSError:
                clients.remove(client)
                client.close()


def _accept(listening: socket.socket) -> socket.socket | None:
    """
    Take a client in; `None` if it only wanted to know whether somebody is here.
    """
    client, _ = listening.accept()
    client.setblocking(True)
    client.settimeout(_PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asked = b""
    while not asked.endswith(b"\r\n\r\n"):
        data = client.recv(4096)
        if not data:
            client.close()
            return None
        asked += data
    client.sendall(_HEAD)
    return client


def measure(port: int, streams: int, events: int) -> list[float]:
    """
    Follow so many streams until each has brought so many events; return what each event took, in seconds, in order of size.

    Raises `VoidRunError` if a stream ends before.
    """
    taken: list[float] = []
    errors: list[Exception] = []

    def follow() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection:
                connection.sendall(b"GET /events HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n")
                taken.extend(_follow(connection, events))
        except (OSError, ValueError) as error:
            errors.append(error)

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE + events)
    if errors or len(taken) != streams * events:
        raise VoidRunError(f"A stream did not bring its events: {errors[0] if errors else 'it is too slow'}.")
    return sorted(taken)


def _follow(connection: socket.socket, events: int) -> list[float]:
    taken: list[float] = []
    text = b""
    while len(taken) < events:
        data = connection.recv(65536)
        now = time.monotonic_ns()
        if not data:
            raise ValueError(f"it ended after {len(taken)} events")
        text += data
        *whole, text = text.split(b"\n\n")
        for event in whole:
            _, mark, stamp = event.partition(b"data: ")
            if mark:
                taken.append((now - int(stamp)) / 1e9)
    return taken[:events]


def _run(options: argparse.Namespace, directory: Path) -> dict[str, list[float]]:
    cores = Cores.allot(list(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, {cores.load})
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    server, port = free_port(), free_port()
    config = directory / "gateway.hcl"
    config.write_text(_GATEWAY.format(port=port, server=server))
    interval = str(options.interval_ms / 1000)
    children = []
    for name, argv, core in (
        ("server", ["contrib.bench.streaming", "--serve", str(server), interval], cores.upstream),
        ("a3sgw", ["a3sgw.cli", "--config", str(config)], cores.proxy),
    ):
        children.append(Child(name, [sys.executable, "-m", *argv], core, directory / f"{name}.log", env={"PYTHONPATH": path}))
    try:
        for child, where in zip(children, (server, port), strict=True):
            child.wait_listening(where)
        found: dict[str, list[float]] = {"direct": [], "a3sgw": []}
        for _ in range(options.rounds):
            # In turns, so that what else the machine does is shared.
            for name, where in (("direct", server), ("a3sgw", port)):
                found[name] += measure(where, options.streams, options.events)
        return {name: sorted(taken) for name, taken in found.items()}
    finally:
        for child in children:
            child.stop()


def _print(found: dict[str, list[float]]) -> None:
    print(f"{'':10}{'p50 ms':>10}{'p99 ms':>10}{'events':>10}")
    for name, taken in found.items():
        print(f"{name:10}{percentile(taken, 50) * 1000:10.3f}{percentile(taken, 99) * 1000:10.3f}{len(taken):10}")
    added = {percent: percentile(found["a3sgw"], percent) - percentile(found["direct"], percent) for percent in (50, 99)}
    print(f"{'added':10}{added[50] * 1000:10.3f}{added[99] * 1000:10.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Measure and print. Returns 0, or 1 if an event got lost.
    """
    parser = argparse.ArgumentParser(
        prog="python -m contrib.bench.streaming", description="What an event of a stream takes, and what of it is the gateway's."
    )
    parser.add_argument("--streams", type=int, default=10, help="at the same time (default: %(default)s)")
    parser.add_argument("--events", type=int, default=300, help="of each stream and round (default: %(default)s)")
    parser.add_argument("--interval-ms", type=float, default=10.0, help="between two events (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args(arguments)
    for name in ("streams", "events", "interval_ms", "rounds"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: more than 0")
    directory = Path(tempfile.mkdtemp(prefix="a3sgw-streaming-"))
    try:
        found = _run(options, directory)
    except BenchError as error:
        print(f"VOID: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(found)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), float(sys.argv[3]))
    sys.exit(main())
