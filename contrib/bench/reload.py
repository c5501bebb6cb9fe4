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
_ROUTER = """
routers "r{n}" {{
  rule    = "Host(`h{n}.example.com`) && PathPrefix(`/{turn}`)"
  service = "s{n}"
}}
services "s{n}" {{
  load_balancer {{ servers = [{{ url = "http://127.0.0.1:9" }}] }}
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


@dataclass(frozen=True)
class Pause:
    """
    The longest times, in seconds, for which nobody had a turn: with nothing to do, while files were checked in their thread, and while the
    generation was built and exchanged; `work` is the longest that the reactor itself worked in one go, which other processes on the same
    core do not lengthen. `whole` is how long a reload takes from the look at the file on.
    """

    routers: int
    idle: float
    checking: float
    exchanging: float
    work: float
    whole: float

    def doubts(self) -> list[str]:
        """
        Return what is not as it must be.
        """
        return [f"a reload held everybody up for {self.work * 1e3:.1f} ms"] if self.work > _MOST_PAUSE else []


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


# -- the pause ------------------------------------------------------------------------------------------------------------------------


def measure_pause(routers: int, reloads: int) -> Pause:
    """
    Reload a gateway of `routers` routers, of which each time another one changes, in a process of its own.
    """
    argv = [sys.executable, "-m", "contrib.bench.reload", "--inside", "--routers", str(routers), "--reloads", str(reloads)]
    with tempfile.TemporaryDirectory(prefix="a3sgw-bench-") as directory:
        log = Path(directory) / "pause.log"
        child = Child("pause", argv, Cores.allot(sorted(_usable())).proxy, log, env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"})
        try:
            code = child.wait(300.0)
        finally:
            child.stop()
        text = log.read_text("utf-8", "replace")
    if code:
        raise VoidRunError(f"the gateway to be reloaded ended with {code}: {text[-2000:]}")
    return Pause(**json.loads(text.splitlines()[-1]))


def _usable() -> set[int]:
    import os

    return os.sched_getaffinity(0)


def _run_inside(routers: int, reloads: int) -> int:
    """
    Be the gateway that is reloaded, and print a `Pause` as JSON.
    """
    from a3sgw.net.reactor import install

    install()
    from twisted.internet import reactor as global_reactor

    from a3sgw.gateway import Gateway
    from a3sgw.lifetime import Lifetime
    from a3sgw.source import find_source

    reactor: Any = global_reactor
    with tempfile.TemporaryDirectory(prefix="a3sgw-bench-") as directory:
        path = Path(directory) / "gateway.hcl"

        def write(changed: int) -> None:
            head = 'entrypoints "web" {\n  address = "127.0.0.1:0"\n}\n'
            body = "".join(_ROUTER.format(n=n, turn="new" if n == changed else "old") for n in range(routers))
            path.write_text(head + body, "utf-8")

        write(-1)
        source = find_source(str(path), None, {})
        loaded = source.load()
        gateway = Gateway(loaded.valid_config(), reactor)
        clock = _Clock(reactor)
        lifetime = Lifetime(gateway, source.reloader(), clock.run_aside, reactor.stop)
        lifetime.begin_with(loaded)
        del loaded
        whole: list[float] = []

        def next_reload(began: float) -> None:
            if gateway.reloads()[0]["success"] <= len(whole) - 1:
                reactor.callLater(0.01, next_reload, began)
                return
            whole[-1] = time.perf_counter() - began
            if len(whole) > reloads:
                lifetime.stop("done")
                return
            begin()

        def begin() -> None:
            write(len(whole))
            whole.append(0.0)
            began = time.perf_counter()
            clock.phase = "exchanging"
            lifetime.look()
            reactor.callLater(0.01, next_reload, began)

        def started(_: object) -> None:
            reactor.callLater(0, clock.start)
            reactor.callLater(0.5, begin)

        reactor.callWhenRunning(lambda: lifetime.start().addCallback(started))
        reactor.run()
    longest = clock.longest
    print(json.dumps(asdict(Pause(routers, longest["idle"], longest["checking"], longest["exchanging"], clock.work, max(whole)))))
    return lifetime.exit_code


class _Clock:
    """
    Ticks, and notes by how much it was late in each phase.
    """

    def __init__(self, reactor: Any) -> None:
        self.phase = "idle"
        self.longest = {"idle": 0.0, "checking": 0.0, "exchanging": 0.0}
        self.work = 0.0
        self._reactor = reactor
        self._due = self._worked = 0.0

    def start(self) -> None:
        """
        Begin to tick.
        """
        self._due, self._worked = time.perf_counter(), time.thread_time()
        self._tick()

    def _tick(self) -> None:
        now, worked = time.perf_counter(), time.thread_time()
        self.longest[self.phase] = max(self.longest[self.phase], now - self._due)
        self.work = max(self.work, worked - self._worked)
        self._due, self._worked = now + _TICK, worked
        self._reactor.callLater(_TICK, self._tick)

    def run_aside(self, function: Any) -> Any:
        """
        Call `function` in a thread. What happens until it returns is its phase.
        """
        from twisted.internet.threads import deferToThread

        self.phase = "checking"

        def returned(result: Any) -> Any:
            self.phase = "exchanging"
            return result

        return deferToThread(function).addBoth(returned)


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
