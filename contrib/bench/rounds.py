"""
Let everybody on a stage take turns at one case.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .cases import Case
from .measure import Conditions, Sample, measure
from .stage import Stage

__all__ = ["measure_rounds", "progress"]


def measure_rounds(stage: Stage, case: Case, directory: Path, conditions: Conditions, rounds: int) -> dict[str, list[Sample]]:
    """
    Return the samples of each candidate. Raises `VoidRunError` if anything was not as it must be.
    """
    script = directory / f"{case.name}.lua"
    script.write_text(case.script)
    samples: dict[str, list[Sample]] = {target.name: [] for target in stage.targets}
    for turn in range(-1, rounds):
        # The first turn is a short one that nobody counts: caches, pools and specialised bytecode are warm afterwards.
        how = conditions if turn >= 0 else Conditions(conditions.cores, 1, conditions.connections, conditions.rate)
        for target in stage.targets:
            progress(f"{case.name}: {f'round {turn + 1} of {rounds}' if turn >= 0 else 'warming up'}, {target.name}")
            sample = measure(target, case, script, how, stage.upstream)
            if turn >= 0:
                samples[target.name].append(sample)
        time.sleep(1.2)  # Longer than any of them keeps its log to itself.
        stage.check_access_logs()
        stage.cut_access_logs()
    progress("")
    return samples


def progress(text: str) -> None:
    """
    Show what is going on, if somebody is looking.
    """
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
