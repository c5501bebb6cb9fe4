"""
The command: `python -m contrib.bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report
from .candidates import Candidate, candidates
from .cases import CASES, Case
from .clients import run_clients
from .measure import Conditions, Sample, load_program
from .memory import measure_idle, measure_soak
from .middlewares import choose_variations, run_middlewares
from .processes import BenchError, Cores, VoidRunError, raise_file_limit
from .rounds import measure_rounds, progress
from .stage import set_stage
from .upstream import upstream_program


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line; ends the process with status 2 if it makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="python -m contrib.bench",
        description="Measure the gateway beside its peers in one run: processor time per request, alternating, on cores of their own.",
        epilog="Cases: " + "; ".join(f"{case.name}: {case.meaning}" for case in CASES.values()) + ".",
    )
    parser.add_argument("--cases", type=_names, default=list(CASES), metavar="A,B", help="cases to measure (default: all)")
    parser.add_argument("--only", type=_names, metavar="A,B", help="candidates to measure (default: all that are installed)")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND", help="another gateway, as of another checkout")
    parser.add_argument("--rounds", type=_positive, default=3, help="rounds over all candidates (default: %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=4, help="seconds of each measurement (default: %(default)s)")
    parser.add_argument("--connections", type=_positive, default=64, help="connections of the load (default: %(default)s)")
    parser.add_argument("--rate", type=_positive, default=400, help="requests a second of the paced case (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--require-all", action="store_true", help="fail if a peer is not installed, instead of leaving it out")
    parser.add_argument("--keep", action="store_true", help="keep the directory with configurations and logs")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--idle", type=_positive, nargs="?", const=10000, metavar="N", help="instead: memory of N idle clients (10000)")
    instead.add_argument("--soak", type=_positive, metavar="SECONDS", help="instead: memory over SECONDS of load, for a3sgw or --only")
    instead.add_argument(
        "--middlewares", type=_names, nargs="?", const=[], metavar="A,B", help="instead: this gateway with middlewares (default: all)"
    )
    instead.add_argument("--clients", type=_positive, metavar="N", help="instead: memory of a rate limit that N clients have come to")
    parser.add_argument("--interval", type=_positive, help="seconds between the lines of --soak (default: a twentieth of it, at least 1)")
    options = parser.parse_args(arguments)
    for name in options.cases:
        if name not in CASES:
            parser.error(f"--cases: there is no case {name!r}; there are {', '.join(CASES)}")
    for entry in options.also:
        if not all(part.strip() for part in entry.partition("=")):
            parser.error(f"--also: {entry!r} is not NAME=COMMAND")
    return options


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def choose(options: argparse.Namespace) -> tuple[list[Candidate], dict[str, str]]:
    """
    Return the candidates to measure, and why the others are left out. Raises `BenchError`.
    """
    everyone = candidates(options.also)
    default = list(everyone)
    if options.middlewares is not None:
        choose_variations(options.middlewares)
        default = ["a3sgw"]
    elif options.idle:
        default = ["a3sgw", *(entry.partition("=")[0].strip() for entry in options.also), "nginx"]
    elif options.soak:
        default = ["a3sgw"]
    wanted = options.only or default
    unknown = [name for name in wanted if name not in everyone]
    if unknown:
        raise BenchError(f"--only: there is no candidate {', '.join(unknown)}; there are {', '.join(everyone)}.")
    chosen = [candidate for name, candidate in everyone.items() if name in wanted]
    left_out = {candidate.name: why for candidate in chosen if (why := candidate.missing())}
    for name, why in left_out.items():
        print(f"{name}: {why}, skipped")
    if left_out and (options.require_all or len(left_out) == len(chosen)):
        raise BenchError(f"Not all that was asked for can be measured: {', '.join(left_out)}.")
    return [candidate for candidate in chosen if candidate.name not in left_out], left_out


def run_cases(chosen: list[Candidate], options: argparse.Namespace, conditions: Conditions, directory: Path, files: int) -> dict[str, Any]:
    """
    Measure all cases; those with the same routes share a stage.
    """
    found: dict[str, Any] = {}
    cases = [CASES[name] for name in options.cases]
    for routes, tls in dict.fromkeys((case.routes, case.tls) for case in cases):
        able = [candidate for candidate in chosen if (candidate.routes or not routes) and (candidate.encrypts or not tls)]
        if not able:
            print(f"Nobody asked for can have {routes} routes{' and speak TLS' if tls else ''}; those cases are skipped.")
            continue
        place = directory / f"routes{routes}{'-tls' if tls else ''}"
        with set_stage(able, place, conditions.cores, files=files, connections=conditions.connections, routes=routes, tls=tls) as stage:
            for case in (case for case in cases if (case.routes, case.tls) == (routes, tls)):
                samples = measure_rounds(stage, case, directory, conditions, options.rounds)
                found[case.name] = {"meaning": case.meaning, "candidates": report.case_json(samples)}
                _print_case(case, samples, options)
    return found


def _print_case(case: Case, samples: dict[str, list[Sample]], options: argparse.Namespace) -> None:
    summaries = {name: report.summarise(of_one) for name, of_one in samples.items()}
    load = f"{options.rate} requests/s" if case.paced else f"{options.connections} connections"
    print(f"\n{case.name}: {case.meaning} ({load}, {options.rounds} rounds of {options.seconds} s)")
    print(report.case_table(summaries, paced=case.paced))
    note = report.noise_note(summaries)
    if note:
        print(note)
    sys.stdout.flush()


def run_idle(chosen: list[Candidate], options: argparse.Namespace, conditions: Conditions, directory: Path, files: int) -> dict[str, Any]:
    """
    Measure the memory of idle connections, one candidate after the other.
    """
    if options.idle + 256 > files:
        raise BenchError(f"{options.idle} connections need more open files than the {files} allowed; raise ulimit -n or ask for fewer.")
    found = {}
    print(f"\nidle: {options.idle:,} idle client connections, each after one request")
    with set_stage(chosen, directory / "idle", conditions.cores, files=files, connections=options.idle + 64) as stage:
        for target in stage.targets:
            if target.child is None:
                continue
            found[target.name] = point = measure_idle(target, CASES["varied"], stage, options.idle)
            print(
                f"{target.name:12} RSS {point['rss_before'] / 1048576:7.1f} → {point['rss_with_connections'] / 1048576:7.1f} MiB   "
                f"{point['bytes_per_connection']:6,} bytes a connection   {point['idle_cpu_share']:.1%} of a core while idle"
            )
    return found


def run_soak(chosen: list[Candidate], options: argparse.Namespace, conditions: Conditions, directory: Path, files: int) -> dict[str, Any]:
    """
    Load each candidate in its turn for a long time, and watch its memory.
    """
    found = {}
    script = directory / "soak.lua"
    script.write_text(CASES["varied"].script)
    conditions = Conditions(conditions.cores, options.soak, conditions.connections, conditions.rate)
    print(f"\nsoak: {options.soak} s of varied load from {conditions.connections} connections")
    with set_stage(chosen, directory / "soak", conditions.cores, files=files, connections=conditions.connections) as stage:
        for target in stage.targets:
            if target.child is not None:
                interval = options.interval or max(1, options.soak // 20)
                found[target.name] = measure_soak(target, CASES["varied"], stage, script, conditions, interval)
    return found


def run(options: argparse.Namespace) -> None:
    """
    Do what was asked. Raises `BenchError`.
    """
    if options.clients:
        points = run_clients(options.clients)
        if options.json:
            options.json.write_text(json.dumps({"machine": report.machine(), "clients": points}, indent=2) + "\n")
        return
    chosen, left_out = choose(options)
    # Before anything is started, so that what is missing is known at once.
    upstream_program()
    load_program()
    usable = os.sched_getaffinity(0)
    cores = Cores.allot(list(usable))
    # Two files for each client of a proxy, and more for those that begin to save files long before they run out.
    files = raise_file_limit(max(16384, 2 * options.connections + 8192, (options.idle or 0) + 8192))
    facts = report.machine()
    versions = {candidate.name: candidate.version() for candidate in chosen}
    print(f"{facts['cpu']}, {facts['usable_cores']} cores, Linux {facts['kernel']}, {facts['date']}")
    print(f"Proxy on core {cores.proxy}, upstream on {cores.upstream}, load on {cores.load}; load average {facts['load_average']:.1f}")
    print("; ".join(f"{name} {version}" for name, version in versions.items()), flush=True)
    if len(usable) == 1:
        print("Only one core: the proxy shares it with the load, so only the processor time per request says anything.")
    os.sched_setaffinity(0, {cores.load})
    conditions = Conditions(cores, options.seconds, options.connections, options.rate)
    directory = Path(tempfile.mkdtemp(prefix="a3sgw-bench-"))
    try:
        if options.middlewares is not None:
            kind, found = "middlewares", run_middlewares(options.middlewares, options.rounds, conditions, directory, files)
        else:
            kind, measured = ("idle", run_idle) if options.idle else ("soak", run_soak) if options.soak else ("cases", run_cases)
            found = measured(chosen, options, conditions, directory, files)
    finally:
        if options.keep:
            print(f"Configurations and logs are in {directory}.")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        everything = {"machine": facts, "versions": versions, "left_out": left_out, "settings": settings, kind: found}
        options.json.write_text(json.dumps(everything, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the bench. Returns 0, or 1 if it could not run or the run is void.
    """
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(options)
    except VoidRunError as error:
        progress("")
        print(f"VOID: {error}", file=sys.stderr)
        return 1
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything that was started has been ended.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
