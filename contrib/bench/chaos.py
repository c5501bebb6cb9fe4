"""
Kill, freeze and slow down servers behind the gateway while clients ask: `python -m contrib.bench.chaos --requests 100000`.

Three servers serve one thing, and whoever asks for it is to notice nothing: a request that may be repeated must not fail as long as one
server is well that the gateway knows to be well. The gateway is configured as its user would: retries, passive verdicts, probes, and
timeouts that fit them. What happens is in `SEQUENCE`; every phase gets the same part of the requests, and between two harms all servers are
well until the gateway uses all of them again. Status 0 means that no request has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import report
from .candidates import CHECKOUT
from .chaos_client import Client, Tally
from .chaos_servers import Server, State
from .prober import percentile
from .processes import BenchError, Child, Cores, VoidRunError, free_port

__all__ = ["SEQUENCE", "Phase", "main"]

_CONFIG = """
entrypoints "web" {{
  address = "127.0.0.1:{port}"
}}
routers "app" {{
  rule        = "PathPrefix(`/`)"
  service     = "app"
  middlewares = ["again"]
}}
middlewares "again" {{
  type               = "retry"
  max_retries        = 3
  retry_interval_ms  = 25
  per_try_timeout_ms = 1000
}}
services "app" {{
  load_balancer {{
    servers = [{servers}]
    passive_health {{
      consecutive_errors   = 3
      recovery_secs        = 1
      max_recovery_secs    = 2
      max_ejection_percent = 70
    }}
    health_check {{
      path                = "/health"
      interval            = "500ms"
      timeout             = "1s"
      unhealthy_threshold = 2
    }}
  }}
  timeouts {{
    connect         = "1s"
    response_header = "2s"
  }}
}}
observability {{
  access_log {{
    file = "{log}"
  }}
}}
"""
_NAMES = ("a", "b", "c")
_POLL_SECONDS = 0.2
_SHOWN_FAILURES = 20
_RECOVERY_SECONDS = 15.0
"""Within which the gateway must use every server again that is well again."""


@dataclass(frozen=True)
class Phase:
    """
    What the servers are like for a part of the requests.
    """

    states: tuple[State, State, State]

    @property
    def is_calm(self) -> bool:
        return all(state is State.WELL for state in self.states)

    @property
    def title(self) -> str:
        said = [f"{name} {state.value}" for name, state in zip(_NAMES, self.states, strict=True) if state is not State.WELL]
        return ", ".join(said) or "all well"


def _sequence() -> Iterator[Phase]:
    well = State.WELL
    yield Phase((well, well, well))
    # Each in its turn, so that none is spared by its place in the list.
    for states in (
        (State.KILLED, well, well),
        (well, State.FROZEN, well),
        (well, well, State.SLOW),
        (State.REFUSING, well, well),
        (well, State.HANGING_UP, well),
        (well, well, State.RESTARTED),
        (State.FLAPPING, well, well),
        (State.KILLED, State.FROZEN, well),
        (well, State.KILLED, State.REFUSING),
        (State.FROZEN, well, State.HANGING_UP),
        (State.SLOW, State.KILLED, well),
        (State.RESTARTED, State.RESTARTED, State.SLOW),
    ):
        yield Phase(states)
        yield Phase((well, well, well))


SEQUENCE = tuple(_sequence())


@dataclass
class Account:
    """
    What the gateway says of its service: retries since the start, and which servers it does not use, with the reason.
    """

    retries: int
    unused: dict[str, str]


class Gateway:
    """
    The gateway with three servers behind it.
    """

    def __init__(self, stack: ExitStack, directory: Path, cores: Cores) -> None:
        self.port = free_port()
        self.access_log = directory / "gateway.access"
        self.servers = [self._add(stack, Server(name, directory, cores.upstream)) for name in _NAMES]
        self._names = {f"http://127.0.0.1:{server.port}": server.name for server in self.servers}
        config = directory / "gateway.hcl"
        urls = ", ".join(f'{{ url = "{url}" }}' for url in self._names)
        config.write_text(_CONFIG.format(port=self.port, servers=urls, log=self.access_log))
        for server in self.servers:
            server.wait_ready()
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        argv = [sys.executable, "-m", "a3sgw.cli", "--config", str(config)]
        self.child = Child("a3sgw", argv, cores.proxy, directory / "gateway.log", env={"PYTHONPATH": path})
        stack.callback(self.child.stop)
        self.child.wait_listening(self.port)

    def _add(self, stack: ExitStack, server: Server) -> Server:
        stack.callback(server.stop)
        return server

    def account(self) -> Account:
        """
        Ask the gateway's own API.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/gateway/services", timeout=10) as response:
            (service,) = json.load(response)
        unused = {self._names[row["url"]]: row["reason"] for row in service["backends"] if not row["healthy"]}
        return Account(service["retries"], unused)


@dataclass
class Result:
    """
    One phase that is over. `unused` are the servers that the gateway was seen not to use, with the last reason for it.
    """

    phase: Phase
    tally: Tally
    retries: int
    unused: dict[str, str]
    seconds: float

    def line(self) -> str:
        """
        Return the line of the table.
        """
        ordered = sorted(self.tally.latencies) or [0.0]
        figures = [percentile(ordered, 50), percentile(ordered, 99), ordered[-1]]
        shares = " ".join(f"{name}:{self.tally.answered_by.get(name, 0)}" for name in _NAMES)
        return (
            f"{self.phase.title:28}{self.tally.requests:9,}{len(self.tally.failures):8}"
            + "".join(f"{figure * 1e3:9.1f}" for figure in figures)
            + f"{self.retries:9}  {shares:24}  {', '.join(self.unused)}"
        )

    def as_json(self) -> dict[str, Any]:
        """
        Return the figures by name.
        """
        ordered = sorted(self.tally.latencies) or [0.0]
        return {
            "phase": self.phase.title,
            "requests": self.tally.requests,
            "failed": len(self.tally.failures),
            "p50_ms": round(percentile(ordered, 50) * 1e3, 2),
            "p99_ms": round(percentile(ordered, 99) * 1e3, 2),
            "max_ms": round(ordered[-1] * 1e3, 2),
            "retries": self.retries,
            "answered_by": self.tally.answered_by,
            "unused": self.unused,
            "seconds": round(self.seconds, 2),
        }


_TITLES = f"{'':28}{'requests':>9}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'retries':>9}  {'answered by':24}  seen unused"


async def _go_through(gateway: Gateway, client: Client, total: int, limit: float) -> list[Result]:
    """
    Do to the servers what the sequence says, while the client asks. Raises `VoidRunError` if it takes longer than `limit` seconds.
    """
    deadline = time.monotonic() + limit
    results: list[Result] = []
    before = (await asyncio.to_thread(gateway.account)).retries
    asking = asyncio.ensure_future(client.run())
    try:
        for number, phase in enumerate(SEQUENCE):
            # Whole numbers that make up the total.
            part = total * (number + 1) // len(SEQUENCE) - total * number // len(SEQUENCE)
            results.append(await _live_through(gateway, client, phase, part, before, deadline))
            before += results[-1].retries
        client.stop()
        await asking
    finally:
        asking.cancel()
    return results


async def _live_through(gateway: Gateway, client: Client, phase: Phase, part: int, before: int, deadline: float) -> Result:
    """
    Go through one phase of at least `part` requests. In a calm one the gateway has to use everybody in the end.
    """
    began = time.monotonic()
    client.tally = tally = Tally()
    for server, state in zip(gateway.servers, phase.states, strict=True):
        await server.become(state)
    unused: dict[str, str] = {}
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        gateway.child.check_alive()
        account = await asyncio.to_thread(gateway.account)
        unused |= account.unused
        now = time.monotonic()
        if phase.is_calm and account.unused and now > began + _RECOVERY_SECONDS:
            told = ", ".join(f"{name} ({reason})" for name, reason in account.unused.items())
            raise VoidRunError(f"After {_RECOVERY_SECONDS:g} s in which all were well, the gateway still does not use {told}.")
        if tally.requests >= part and not (phase.is_calm and account.unused):
            result = Result(phase, tally, account.retries - before, unused, now - began)
            print(result.line(), flush=True)
            return result
        if now > deadline:
            raise VoidRunError(f"The phase “{phase.title}” has {tally.requests:,} of its {part:,} requests; something does not move.")


def _tell_failures(gateway: Gateway, results: Sequence[Result]) -> None:
    """
    Show the first failures, and what the gateway's access log says of them.
    """
    failures = [(result.phase.title, failure) for result in results for failure in result.tally.failures]
    lines = gateway.access_log.read_text(errors="replace").splitlines() if failures else []
    for title, failure in failures[:_SHOWN_FAILURES]:
        print(f"\nrequest {failure.number} in the phase “{title}”: {failure.what}")
        found = next((line for line in lines if f'"/item/{failure.number}"' in line), "(the access log has no line of it)")
        print(f"  {found}")


def run(options: argparse.Namespace, directory: Path) -> list[Result]:
    """
    Set up, go through the sequence, and end everything. Raises `BenchError`.
    """
    cores = Cores.allot(list(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, {cores.load})
    print(f"{options.requests:,} requests at {options.rate}/s over {options.connections} connections; {len(SEQUENCE)} phases")
    print(_TITLES, flush=True)
    with ExitStack() as stack:
        gateway = Gateway(stack, directory, cores)
        client = Client(gateway.port, options.rate, options.connections)
        limit = 120 + 3 * options.requests / options.rate
        results = asyncio.run(_go_through(gateway, client, options.requests, limit))
        # What is in the log comes late, but it comes in order.
        time.sleep(1.0)
        _tell_failures(gateway, results)
    return results


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line; ends the process with status 2 if it makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="python -m contrib.bench.chaos", description="Harm servers behind the gateway while clients ask; none of them may notice."
    )
    parser.add_argument("--requests", type=int, default=100_000, help="how many requests at least (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=1500, help="requests a second at most (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=24, help="connections of the client (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--keep", action="store_true", help="keep the directory with configurations and logs")
    options = parser.parse_args(arguments)
    for name in ("requests", "rate", "connections"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the sequence. Returns 0 if no request has failed.
    """
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="a3sgw-chaos-"))
    try:
        results = run(options, directory)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything that was started has been ended.", file=sys.stderr)
        return 130
    finally:
        if options.keep:
            print(f"Configurations and logs are in {directory}.")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    failed = sum(len(result.tally.failures) for result in results)
    asked = sum(result.tally.requests for result in results)
    print(f"\n{failed:,} failed of {asked:,}")
    if options.json:
        told = {"machine": report.machine(), "failed": failed, "requests": asked, "phases": [result.as_json() for result in results]}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
