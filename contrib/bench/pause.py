"""
How long a reload holds everybody up: the second half of `python -m contrib.bench.reload`.

A gateway of many routers, of which each reload changes one, runs in a process of its own, `python -m contrib.bench.pause ROUTERS RELOADS`.
A clock that ticks every millisecond on its reactor tells the longest time for which nobody else had a turn; what the checks in their thread
take from the reactor is in it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .candidates import CHECKOUT
from .processes import Child, Cores, VoidRunError

__all__ = ["Pause", "measure_pause"]

_MOST_PAUSE = 0.050
_TICK = 0.001
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


def measure_pause(routers: int, reloads: int) -> Pause:
    """
    Reload a gateway of `routers` routers, of which each time another one changes, in a process of its own.
    """
    argv = [sys.executable, "-m", "contrib.bench.pause", str(routers), str(reloads)]
    with tempfile.TemporaryDirectory(prefix="a3sgw-bench-") as directory:
        log = Path(directory) / "pause.log"
        core = Cores.allot(sorted(os.sched_getaffinity(0))).proxy
        child = Child("pause", argv, core, log, env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"})
        try:
            code = child.wait(300.0)
        finally:
            child.stop()
        text = log.read_text("utf-8", "replace")
    if code:
        raise VoidRunError(f"the gateway to be reloaded ended with {code}: {text[-2000:]}")
    return Pause(**json.loads(text.splitlines()[-1]))


def _run_inside(routers: int, reloads: int) -> int:
    """
    Be the gateway that is reloaded, and print a `Pause` as JSON.
    """
    from a3sgw.net.reactor import install

    install()
    from twisted.internet import reactor as global_reactor

    from a3sgw.gateway import Gateway
    from a3sgw.lifetime import Lifetime
    from a3sgw.settled import SettledMemory
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
        lifetime = Lifetime(gateway, source.reloader(), clock.run_aside, reactor.stop, memory=SettledMemory(partial(reactor.callLater, 0)))
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


if __name__ == "__main__":
    gc.collect()
    sys.exit(_run_inside(int(sys.argv[1]), int(sys.argv[2])))
