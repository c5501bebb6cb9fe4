"""
What several workers carry: `python -m contrib.bench.workers`.

Where cores are shared, or too few, nobody can see two workers carry twice what one does. What can be measured anywhere is the processor
time that one request costs with one, two and four workers, all processes of the gateway together, and how evenly the workers share it. On
as many free cores as there are workers the busiest one is the limit, so N workers carry

    N * (cost with one / cost with N) * (mean time of a worker / time of the busiest)

times what one does. A machine that is shared may be twice as fast a minute later, so each round is compared within itself; the median of
the rounds is given, with the least and the greatest beside it. Memory is what the tree of processes has to itself, with shared pages
divided among those that share them (Pss).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import procfs, report
from .candidates import Gateway
from .cases import CASES
from .check import Target
from .measure import Conditions
from .processes import BenchError, Cores, raise_file_limit
from .rounds import measure_rounds
from .stage import set_stage

_CASES = [name for name, case in CASES.items() if not (case.tls or case.h2 or case.paced)]

__all__ = ["Row", "capacities", "main", "parse_arguments", "run_workers", "share_evenness"]


@dataclass(frozen=True)
class Row:
    """
    What was measured with one number of workers. `costs` and `capacities` have an item for each round, `memory` is in bytes.
    """

    workers: int
    costs: Sequence[float]
    capacities: Sequence[float]
    evenness: float
    memory: int


def capacities(workers: int, costs_of_one: Sequence[float], costs: Sequence[float], evenness: float) -> list[float]:
    """
    Return how many times as much `workers` carry as one in each round, on cores of their own. Costs are of one request, by round.
    """
    return [workers * of_one / cost * evenness for of_one, cost in zip(costs_of_one, costs, strict=True)]


def share_evenness(times: Sequence[float]) -> float:
    """
    Return how evenly workers with these processor times share the work: 1 if all have the same, 1/N if one of N does everything.
    """
    return sum(times) / len(times) / max(times)


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
) -> tuple[list[Row], str | None]:
    """
    Measure the gateway with each number of workers; return a row for each, and a warning if something else used the cores.
    """
    case = CASES[case_name]
    gateways = [Gateway(f"{count} workers", workers=count) for count in counts]
    rows: list[Row] = []
    with set_stage(gateways, directory / "workers", conditions.cores, files=files, connections=conditions.connections) as stage:
        samples = measure_rounds(stage, case, directory, conditions, rounds)
        for count, target in zip(counts, stage.targets, strict=True):
            costs = [sample.cpu_per_request for sample in samples[target.name] if sample.cpu_per_request is not None]
            evenness = share_evenness(_worker_times(target))
            carried = capacities(count, rows[0].costs if rows else costs, costs, evenness)
            rows.append(Row(count, costs, carried, evenness, _memory(target)))
    return rows, report.noise_note({name: report.summarise(of_one) for name, of_one in samples.items()})


def _print(rows: Sequence[Row]) -> None:
    spread = f"{'least-most':>11}"
    print(f"{'workers':>8} {'CPU µs/request':>15} {spread} {'evenness':>9} {'carries':>8} {spread} {'MiB':>6} {'MiB each':>9}")
    before: Row | None = None
    for row in rows:
        each = ""
        if before is not None and before.workers > 1:
            each = f"{(row.memory - before.memory) / (row.workers - before.workers) / 2**20:9.1f}"
        before = row
        cost = f"{median(row.costs) * 1e6:>15.1f} {f'{min(row.costs) * 1e6:.1f}-{max(row.costs) * 1e6:.1f}':>11}"
        carries = f"{median(row.capacities):>7.2f}x {f'{min(row.capacities):.2f}-{max(row.capacities):.2f}':>11}"
        print(f"{row.workers:>8} {cost} {row.evenness:>9.0%} {carries} {row.memory / 2**20:>6.1f} {each}".rstrip())


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Return what the command line asks for.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.workers", description=(__doc__ or "").split("\n\n")[0].strip())
    parser.add_argument("--workers", default="1,2,4", help="how many; the others are compared with the first (default: 1,2,4)")
    parser.add_argument("--case", default="varied", choices=_CASES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
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
            rows, noise = run_workers(options.workers, options.case, options.rounds, conditions, Path(directory), files)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(report.machine()))
    _print(rows)
    if noise is not None:
        print(noise)
    return 0


if __name__ == "__main__":
    sys.exit(main())
