"""
Reload under load, and find out how long a reload holds everybody up: `python -m contrib.bench.reload --seconds 60 --reloads 100`.

Two things are measured. `wrk` asks over 64 connections, first in peace and then while the configuration is changed again and again, by
writing its file; not one request may fail, and the 99th percentile of latency may not more than double. And in a gateway of 1,000 routers,
of which each reload changes one, a clock that ticks every millisecond on the reactor tells the longest time for which nobody else had a
turn; what the checks in their thread take from the reactor is in it. Status 0 means that both stayed within their bounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import report
from .candidates import CHECKOUT
from .cases import SCRIPT_END
from .load import Load
from .measure import load_program, run_wrk
from .processes import BenchError, Child, Cores, VoidRunError, free_port
from .upstream import Upstream

__all__ = ["Pause", "Rounds", "main", "measure_pause", "measure_rounds"]

_MOST_P99 = 2.0
_MOST_PAUSE = 0.050
_TICK = 0.001
_FILES = 4096
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
routers "turn" {{
  rule    = "Path(`/turn/{turn}`)"
  service = "app"
}}
services "app" {{
  load_balancer {{ servers = [{{ url = "http://127.0.0.1:{upstream}" }}] }}
}}
observability {{
  access_log {{
    file = "{log}"
  }}
}}
"""


@dataclass(frozen=True)
class Rounds:
    """
    What `wrk` saw in peace and under reloads, and how many reloads there were.
    """

    peace: Load
    reloading: Load
    reloads: int

    def doubts(self, expected: int) -> list[str]:
        """
        Return what is not as it must be.
        """
        found = []
        if self.reloads < expected:
            found.append(f"only {self.reloads} of {expected} changes were taken over")
        if self.reloading.p99 > _MOST_P99 * self.peace.p99:
            found.append(f"p99 rose from {self.peace.p99 * 1e3:.2f} to {self.reloading.p99 * 1e3:.2f} ms, more than {_MOST_P99:g} times")
        return found


# -- under load -----------------------------------------------------------------------------------------------------------------------


def measure_rounds(seconds: int, reloads: int, connections: int, cores: Cores) -> Rounds:
    """
    Load a gateway for `seconds` in peace, and for as long while `reloads` changes are made. Raises `VoidRunError` if any request failed.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a3sgw-bench-")))
        upstream = Upstream.start(stack, directory, cores.upstream, _FILES)
        port = free_port()
        config = directory / "gateway.hcl"
        script = directory / "load.lua"
        script.write_text(SCRIPT_END, "utf-8")

        def write(turn: int) -> None:
            draft = directory / "draft"
            draft.write_text(_CONFIG.format(port=port, upstream=upstream.port, turn=turn, log=directory / "access.log"), "utf-8")
            draft.rename(config)

        write(0)
        env = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"}
        argv = [sys.executable, "-m", "a3sgw.cli", "--config", str(config)]
        gateway = Child("a3sgw", argv, cores.proxy, directory / "a3sgw.log", env=env)
        stack.callback(gateway.stop)
        gateway.wait_listening(port)
        run_wrk(port, script, cores.load, seconds=1, connections=connections)
        peace = run_wrk(port, script, cores.load, seconds=seconds, connections=connections)
        ended = threading.Event()

        def keep_changing() -> None:
            for turn in range(1, reloads + 1):
                write(turn)
                if ended.wait(seconds / reloads):
                    return

        changing = threading.Thread(target=keep_changing, daemon=True)
        changing.start()
        try:
            reloading = run_wrk(port, script, cores.load, seconds=seconds, connections=connections)
        finally:
            ended.set()
            changing.join()
        return Rounds(peace, reloading, _count_reloads(port))


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
        for name, load in (("in peace", rounds.peace), (f"{rounds.reloads} reloads", rounds.reloading)):
            rate = load.requests / load.seconds
            print(f"{name:>14}: {rate:8,.0f} requests/s, p50 {load.p50 * 1e3:6.2f} ms, p99 {load.p99 * 1e3:6.2f} ms, 0 failed")
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
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        return _run_inside(options.routers, options.reloads)
    try:
        rounds = pause = None
        if options.only != "pause":
            load_program()
            rounds = measure_rounds(options.seconds, options.reloads, options.connections, Cores.allot(sorted(_usable())))
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
    return 1 if doubts else 0


if __name__ == "__main__":
    gc.collect()
    sys.exit(main())
