"""
What several workers carry: `python -m contrib.bench.workers`.

Where cores are shared, or too few, nobody can see two workers carry twice what one does. What can be measured anywhere is the processor
time that one request costs with one, two and four workers, all processes of the gateway together, and how evenly the workers share it. On
as many free cores as there are workers the busiest one is the limit, so N workers carry

    N * (cost with one / cost with N) * (mean time of a worker / time of the busiest)

times what one does. Memory is what the tree of processes has to itself, with shared pages divided among those that share them (Pss).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import procfs, report
from .candidates import Gateway
from .cases import CASES
from .check import Target
from .measure import Conditions
from .processes import BenchError, Cores, raise_file_limit
from .rounds import measure_rounds
from .stage import set_stage

_CASES = [name for name, case in CASES.items() if not (case.tls or case.h2 or case.paced)]

__all__ = ["capacity", "main", "parse_arguments", "run_workers"]


def capacity(workers: int, cost_of_one: float, cost: float, times: Sequence[float]) -> float:
    """
    Return how many times as much `workers` carry as one, on cores of their own. Costs are of one request, `times` those of the workers.
    """
    evenness = sum(times) / len(times) / max(times)
    return workers * cost_of_one / cost * evenness


def _worker_times(target: Target) -> list[float]:
    """
    Return the processor time of each worker so far, in seconds; of the gateway itself if it has none.
    """
    assert target.child is not None
    root = target.child.pid
    tree = procfs.tree(root)
    nurseries = {stat.pid for stat in tree if stat.parent == root}
    workers = [stat.ticks for stat in tree if stat.parent in nurseries]
    return [ticks / procfs.TICKS_PER_SECOND for ticks in workers or [stat.ticks for stat in tree if stat.pid == root]]


def _memory(target: Target) -> int:
    """
    Return the bytes that the gateway's processes have to themselves.
    """
    assert target.child is not None
    found = 0
    for stat in procfs.tree(target.child.pid):
        found += procfs.parse_kibibytes(Path(f"/proc/{stat.pid}/smaps_rollup").read_text(), "Pss")
    return found


def run_workers(
    counts: Sequence[int], case_name: str, rounds: int, conditions: Conditions, directory: Path, files: int
) -> list[dict[str, Any]]:
    """
    Measure the gateway with each number of workers; return a row for each.
    """
    case = CASES[case_name]
    gateways = [Gateway(f"{count} workers", workers=count) for count in counts]
    rows: list[dict[str, Any]] = []
    with set_stage(gateways, directory / "workers", conditions.cores, files=files, connections=conditions.connections) as stage:
        samples = measure_rounds(stage, case, directory, conditions, rounds)
        for count, target in zip(counts, stage.targets, strict=True):
            cost = report.summarise(samples[target.name]).cpu
            assert cost is not None
            times = _worker_times(target)
            first = rows[0]["cost"] if rows else cost
            rows.append(
                {"workers": count, "cost": cost, "times": times, "memory": _memory(target), "capacity": capacity(count, first, cost, times)}
            )
    return rows


def _print(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'workers':>8} {'CPU µs/request':>15} {'evenness':>9} {'carries':>8} {'MiB':>6} {'MiB each':>9}")
    before = None
    for row in rows:
        times = row["times"]
        even = sum(times) / len(times) / max(times)
        each = ""
        if before is not None and before["workers"] > 1:
            each = f"{(row['memory'] - before['memory']) / (row['workers'] - before['workers']) / 2**20:9.1f}"
        before = row
        figures = f"{row['cost'] * 1e6:>15.1f} {even:>9.0%} {row['capacity']:>7.2f}x {row['memory'] / 2**20:>6.1f} {each}"
        print(f"{row['workers']:>8} {figures}".rstrip())


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Return what the command line asks for.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.workers", description=(__doc__ or "").split("\n\n")[0].strip())
    parser.add_argument("--workers", default="1,2,4", help="how many; the others are compared with the first (default: 1,2,4)")
    parser.add_argument("--case", default="varied", choices=_CASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args(arguments)
    options.workers = [int(text) for text in options.workers.split(",")]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the bench.
    """
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    cores = Cores.allot(list(os.sched_getaffinity(0)))
    conditions = Conditions(cores, options.seconds, options.connections, 0.0)
    files = raise_file_limit(4 * options.connections + 200)
    try:
        with tempfile.TemporaryDirectory(prefix="a3sgw-bench-") as directory:
            rows = run_workers(options.workers, options.case, options.rounds, conditions, Path(directory), files)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    _print(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
