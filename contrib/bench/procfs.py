"""
Read from /proc what processes have used.

The functions named `parse_*` take text, so that they can be tested; the others fetch the text. A process tree is a root process and
everything that descends from it, because a peer may answer from a child (nginx) or from many threads (Caddy).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CoreTime",
    "ProcessStat",
    "core_time",
    "cpu_model",
    "parse_core_times",
    "parse_cpu_model",
    "parse_kibibytes",
    "parse_stat",
    "peak_bytes",
    "resident_bytes",
    "tree",
    "tree_cpu_seconds",
    "tree_of",
    "tree_resident_bytes",
]

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessStat:
    """
    One process of /proc/PID/stat; times are clock ticks and cover all its threads.

    `reaped` is the time of children that have ended and were waited for: without it, a worker that is replaced within an interval would
    take its time along.
    """

    pid: int
    parent: int
    user: int
    system: int
    reaped: int

    @property
    def ticks(self) -> int:
        return self.user + self.system + self.reaped


@dataclass(frozen=True)
class CoreTime:
    """
    What one core did since boot, in clock ticks. `stolen` is what the hypervisor gave to others.
    """

    busy: int
    stolen: int


def parse_stat(text: str) -> ProcessStat:
    """
    Read one line of /proc/PID/stat. The command's name may hold blanks and parentheses, so the fields are counted from the last one.
    """
    pid, _, rest = text.partition(" (")
    fields = rest[rest.rindex(")") + 1 :].split()
    # Counted as in proc(5), where the state is field 3: 4 parent, 14 and 15 own time, 16 and 17 that of reaped children.
    return ProcessStat(int(pid), int(fields[1]), int(fields[11]), int(fields[12]), int(fields[13]) + int(fields[14]))


def parse_core_times(text: str) -> dict[int, CoreTime]:
    """
    Read the lines `cpuN` of /proc/stat.
    """
    cores = {}
    for line in text.splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _iowait, irq, softirq, stolen = (int(value) for value in values[:8])
            cores[int(name[3:])] = CoreTime(user + nice + system + irq + softirq, stolen)
    return cores


def parse_kibibytes(text: str, name: str) -> int:
    """
    Return the value of one line such as `VmRSS:  1234 kB` in bytes, or 0 if there is none (a process that is just ending has none).
    """
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def parse_cpu_model(text: str) -> str:
    """
    Return the first model name of /proc/cpuinfo; not every architecture has one.
    """
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return "unknown"


def tree_of(root: int, stats: Iterable[ProcessStat]) -> list[ProcessStat]:
    """
    Return `root` and all that descends from it; empty if `root` is not there.
    """
    by_parent: dict[int, list[ProcessStat]] = {}
    found: list[ProcessStat] = []
    for stat in stats:
        by_parent.setdefault(stat.parent, []).append(stat)
        if stat.pid == root:
            found.append(stat)
    for stat in found:
        found.extend(by_parent.get(stat.pid, ()))
    return found


def tree(root: int) -> list[ProcessStat]:
    """
    Look up the living tree of `root`.
    """
    stats = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stats.append(parse_stat(Path("/proc", name, "stat").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # It ended while we were looking.
    return tree_of(root, stats)


def tree_cpu_seconds(root: int) -> tuple[float, float]:
    """
    Return the processor seconds the tree has used so far: all of them, and those spent in the kernel.
    """
    stats = tree(root)
    return sum(stat.ticks for stat in stats) / TICKS_PER_SECOND, sum(stat.system for stat in stats) / TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """
    Return the resident memory of one process.
    """
    return _memory(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """
    Return the most resident memory that one process has had.
    """
    return _memory(pid, "VmHWM")


def _memory(pid: int, name: str) -> int:
    try:
        return parse_kibibytes(Path("/proc", str(pid), "status").read_text(), name)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def tree_resident_bytes(root: int) -> int:
    """
    Return the resident memory of the tree. Pages that its processes share are counted once for each of them.
    """
    return sum(resident_bytes(stat.pid) for stat in tree(root))


def core_time(core: int) -> CoreTime:
    """
    Return what `core` did since boot.
    """
    return parse_core_times(Path("/proc/stat").read_text())[core]


def cpu_model() -> str:
    return parse_cpu_model(Path("/proc/cpuinfo").read_text())
