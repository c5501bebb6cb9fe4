"""
Measure what middlewares cost end to end: gateways that differ in nothing else, beside each other.

The figures are ratios to the gateway without middlewares, which is sent the same requests. What is refused is measured under a fixed rate
too, as a client comes that does not give up: that must cost less than serving it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import report
from .candidates import Gateway
from .cases import Case, varied_requests
from .check import Target, read_answer
from .measure import Conditions, Sample
from .processes import BenchError, VoidRunError
from .rounds import measure_rounds
from .stage import set_stage
from .variations import ALL, PLAIN, REFUSED, Variation, credentials

__all__ = ["choose_variations", "middleware_cases", "run_middlewares"]

REFUSED_RATE = 1000
"""Requests per second that are sent over the limit."""


def choose_variations(names: Sequence[str]) -> list[Variation]:
    """
    Return the variations called `names`, or all without any. Raises `BenchError`.
    """
    known = {variation.name: variation for variation in ALL}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BenchError(f"--middlewares: there is no {', '.join(unknown)}; there are {', '.join(known)}.")
    return [variation for name, variation in known.items() if name in names or not names]


def middleware_cases() -> tuple[Case, Case]:
    """
    Return the case under full load and the one at a fixed rate. Their requests bear whatever a middleware looks for.
    """
    make, script = varied_requests(credentials())
    full = Case("credentials", "varied requests with credentials of all kinds", make, script)
    return full, replace(full, name="limited", meaning="the same requests, served or refused with 429", paced=True)


def run_middlewares(names: Sequence[str], rounds: int, conditions: Conditions, directory: Path, files: int) -> dict[str, Any]:
    """
    Measure each variation beside the plain gateway, then a rate limit that refuses everything.
    """
    full, limited = middleware_cases()
    chosen = choose_variations(names)
    gateways = [Gateway(variation.name, variation=variation) for variation in (PLAIN, *chosen, REFUSED)]
    found = {}
    with set_stage(gateways, directory / "middlewares", conditions.cores, files=files, connections=conditions.connections) as stage:
        for target in stage.targets:
            if target.variation.is_refusal:
                _exhaust(target, full)
        samples = measure_rounds(stage, full, directory, conditions, rounds)
        found[full.name] = report.case_json(samples, reference=PLAIN.name)
        _print(full, samples, f"{conditions.connections} connections, {rounds} rounds of {conditions.seconds} s", paced=False)
        stage.targets = [target for target in stage.targets if target.name in (PLAIN.name, REFUSED.name)]
        at_rate = replace(conditions, rate=REFUSED_RATE)
        samples = measure_rounds(stage, limited, directory, at_rate, rounds)
        found[limited.name] = report.case_json(samples, reference=PLAIN.name)
        _print(limited, samples, f"{REFUSED_RATE:,} requests/s, {rounds} rounds of {conditions.seconds} s", paced=True)
    _judge(samples)
    return found


def _exhaust(target: Target, case: Case) -> None:
    """
    Take the one request that the limit allows in a year.
    """
    with socket.create_connection(("127.0.0.1", target.port), 30) as connection:
        connection.sendall(case.make(0).encode())
        read_answer(connection)


def _print(case: Case, samples: dict[str, list[Sample]], load: str, *, paced: bool) -> None:
    summaries = {name: report.summarise(of_one) for name, of_one in samples.items()}
    print(f"\n{case.name}: {case.meaning} ({load})")
    print(report.case_table(summaries, paced=paced, reference=PLAIN.name))
    note = report.noise_note(summaries)
    if note:
        print(note)
    sys.stdout.flush()


def _judge(samples: dict[str, list[Sample]]) -> None:
    """
    Raise `VoidRunError` unless a refusal costs less than what it refuses.
    """
    served, refused = (report.summarise(samples[name]).cpu for name in (PLAIN.name, REFUSED.name))
    assert served is not None
    assert refused is not None
    if refused >= served:
        raise VoidRunError(f"A refusal costs {refused * 1e6:.1f} µs, and serving the request {served * 1e6:.1f} µs; it must cost less.")
