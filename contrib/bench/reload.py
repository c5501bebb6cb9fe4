"""
Reload under load, and find out how long a reload holds everybody up: `python -m contrib.bench.reload --seconds 60 --reloads 100`.

Two things are measured. `wrk` asks over 64 connections, `h2load` at a fixed rate over HTTP/2, and WebSockets talk, first in peace and then
while the configuration is changed again and again, by writing its file. No request and no message may fail, no WebSocket may be closed, and
the 99th percentile of latency of none of the three may more than double. And a gateway of 1,000 routers, of which each reload changes one,
tells the longest time for which nobody else had a turn (`pause.py`). Status 0 means that all stayed within their bounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from . import report
from .candidates import CHECKOUT
from .cases import SCRIPT_END
from .echoes import Echoes, start_server
from .h2load import PacedH2
from .load import Load
from .measure import load_program, run_wrk
from .pause import Pause, measure_pause
from .processes import BenchError, Child, Cores, VoidRunError, free_port
from .upstream import Upstream

__all__ = ["Rounds", "Traffic", "main", "measure_rounds"]

_MOST_P99 = 2.0
_FILES = 4096
_H2_CONNECTIONS = 4
_H2_RATE = 50
_CONFIG = """
entrypoints "web" {{
  address = "127.0.0.1:{port}"
}}
providers {{
  file {{ }}
}}
dashboard {{
  enabled = true
}}
routers "app" {{
  rule    = "PathPrefix(`/`)"
  service = "app"
}}
routers "echo" {{
  rule    = "PathPrefix(`/echo`)"
  service = "echo"
}}
routers "turn" {{
  rule    = "Path(`/turn/{turn}`)"
  service = "app"
}}
services "app" {{
  load_balancer {{ servers = [{{ url = "http://127.0.0.1:{upstream}" }}] }}
}}
services "echo" {{
  load_balancer {{ servers = [{{ url = "http://127.0.0.1:{echo}" }}] }}
}}
observability {{
  access_log {{
    file = "{log}"
  }}
}}
"""


@dataclass(frozen=True)
class Traffic:
    """
    What was counted of each kind in one round; the last are messages, and how long their echoes take.
    """

    http1: Load
    http2: Load
    websocket: Load

    def kinds(self) -> dict[str, Load]:
        """
        Return them by the names they have for people.
        """
        return {"HTTP/1": self.http1, "HTTP/2": self.http2, "WebSocket": self.websocket}


@dataclass(frozen=True)
class Rounds:
    """
    What went through in peace and under reloads, and how many reloads there were.
    """

    peace: Traffic
    reloading: Traffic
    reloads: int

    def doubts(self, expected: int) -> list[str]:
        """
        Return what is not as it must be.
        """
        found = []
        if self.reloads < expected:
            found.append(f"only {self.reloads} of {expected} changes were taken over")
        peace = self.peace.kinds()
        for kind, load in self.reloading.kinds().items():
            before = peace[kind].p99
            if load.p99 > _MOST_P99 * before:
                found.append(f"{kind}: p99 rose from {before * 1e3:.2f} to {load.p99 * 1e3:.2f} ms, more than {_MOST_P99:g} times")
        return found


# -- under load -----------------------------------------------------------------------------------------------------------------------


class _Gateway:
    """
    A gateway that runs in `directory`, and the servers behind it.
    """

    def __init__(self, stack: ExitStack, directory: Path, cores: Cores) -> None:
        self.port = free_port()
        self._directory = directory
        self._upstream = Upstream.start(stack, directory, cores.upstream, _FILES).port
        self._echo = free_port()
        stack.callback(start_server(self._echo, directory, cores.upstream).stop)
        self.write(0)
        env = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"}
        argv = [sys.executable, "-m", "a3sgw.cli", "--config", str(directory / "gateway.hcl")]
        child = Child("a3sgw", argv, cores.proxy, directory / "a3sgw.log", env=env)
        stack.callback(child.stop)
        child.wait_listening(self.port)

    def write(self, turn: int) -> None:
        """
        Write its configuration; each `turn` has another.
        """
        log = self._directory / "access.log"
        text = _CONFIG.format(port=self.port, upstream=self._upstream, echo=self._echo, turn=turn, log=log)
        draft = self._directory / "draft"
        draft.write_text(text, "utf-8")
        draft.rename(self._directory / "gateway.hcl")


def measure_rounds(seconds: int, reloads: int, connections: int, cores: Cores) -> Rounds:
    """
    Load a gateway for `seconds` in peace, and for as long while `reloads` changes are made. Raises `VoidRunError` if anything failed.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a3sgw-bench-")))
        script = directory / "load.lua"
        script.write_text(SCRIPT_END, "utf-8")
        gateway = _Gateway(stack, directory, cores)
        run_wrk(gateway.port, script, cores.load, seconds=1, connections=connections)

        def carry() -> Traffic:
            return _carry(gateway.port, script, cores.load, seconds, connections)

        peace = carry()
        ended = threading.Event()

        def keep_changing() -> None:
            for turn in range(1, reloads + 1):
                gateway.write(turn)
                if ended.wait(seconds / reloads):
                    return

        changing = threading.Thread(target=keep_changing, daemon=True)
        changing.start()
        try:
            reloading = carry()
        finally:
            ended.set()
            changing.join()
        return Rounds(peace, reloading, _count_reloads(gateway.port))


def _carry(port: int, script: Path, core: int, seconds: int, connections: int) -> Traffic:
    """
    Make the traffic of one round, of all kinds at once.
    """
    with ExitStack() as stack:
        echoes = Echoes(port, script.parent, core, seconds)
        stack.callback(echoes.stop)
        h2 = PacedH2(port, "/", script.parent, core, seconds=seconds, connections=_H2_CONNECTIONS, rate=_H2_RATE)
        stack.callback(h2.stop)

        def ask_all() -> Load:
            return run_wrk(port, script, core, seconds=seconds, connections=connections)

        found: list[Load] = []
        faults: list[str] = []
        # Who is told of one failure wants to know what the others saw.
        for finish in (ask_all, h2.finish, echoes.finish):
            try:
                found.append(finish())
            except VoidRunError as error:
                faults.append(str(error))
        if faults:
            raise VoidRunError(" ".join(faults))
        return Traffic(*found)


def _count_reloads(port: int) -> int:
    # The last change may be still under way.
    time.sleep(1.0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/gateway/metrics", timeout=20) as page:
        text = page.read().decode()
    line = next(line for line in text.splitlines() if line.startswith('gateway_config_reloads_total{result="success"}'))
    return int(float(line.rpartition(" ")[2]))


# -- the command ----------------------------------------------------------------------------------------------------------------------


def _show(rounds: Rounds | None, pause: Pause | None) -> None:
    if rounds is not None:
        peace = rounds.peace.kinds()
        for name, traffic in (("in peace", rounds.peace), (f"{rounds.reloads} reloads", rounds.reloading)):
            for kind, load in traffic.kinds().items():
                times = load.p99 / peace[kind].p99
                latencies = f"p50 {load.p50 * 1e3:6.2f} ms, p99 {load.p99 * 1e3:6.2f} ms ({times:.1f} times)"
                print(f"{name:>14}, {kind:>9}: {load.requests / load.seconds:8,.0f}/s, {latencies}, 0 of {load.requests:,} failed")
    if pause is not None:
        print(
            f"{pause.routers:>6} routers: longest work at a time {pause.work * 1e3:.1f} ms; longest pause while checking "
            f"{pause.checking * 1e3:.1f}, while exchanging {pause.exchanging * 1e3:.1f}, idle {pause.idle * 1e3:.1f} ms; "
            f"a reload takes {pause.whole * 1e3:.0f} ms in all"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the bench and return its status: 0 if everything is within its bounds, 1 if not.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.reload", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="how long each round takes (default: 60)")
    parser.add_argument("--reloads", type=int, default=100, help="how many changes there are meanwhile (default: 100)")
    parser.add_argument("--connections", type=int, default=64, help="over how many connections is asked (default: 64)")
    parser.add_argument("--routers", type=int, default=1000, help="how many routers there are when the pause is measured (default: 1000)")
    parser.add_argument("--only", choices=("load", "pause"), help="measure only one of the two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE, times in seconds")
    options = parser.parse_args(arguments)
    try:
        rounds = pause = None
        if options.only != "pause":
            load_program()
            rounds = measure_rounds(options.seconds, options.reloads, options.connections, Cores.allot(sorted(os.sched_getaffinity(0))))
        if options.only != "load":
            pause = measure_pause(options.routers, min(options.reloads, 20))
    except BenchError as error:
        print(f"void: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report.machine()))
    _show(rounds, pause)
    doubts = [*(rounds.doubts(options.reloads) if rounds is not None else []), *(pause.doubts() if pause is not None else [])]
    for doubt in doubts:
        print(f"not good enough: {doubt}", file=sys.stderr)
    if options.json:
        load, held = rounds and asdict(rounds), pause and asdict(pause)
        options.json.write_text(json.dumps({"machine": report.machine(), "load": load, "pause": held, "doubts": doubts}, indent=2) + "\n")
    return 1 if doubts else 0


if __name__ == "__main__":
    sys.exit(main())
