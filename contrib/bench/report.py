"""
Make tables and JSON of the samples.

Of each figure the median over the rounds is given, with the least and the greatest beside it. The ratio is that of the medians.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from . import procfs
from .measure import Sample

__all__ = ["Summary", "case_json", "case_table", "machine", "noise_note", "ratio", "summarise"]

REFERENCE = "nginx"


@dataclass(frozen=True)
class Summary:
    """
    The medians of one candidate's samples in one case. Processor times are seconds per request, and `None` without a process.

    `foreign` is the greatest of the rounds. `connects` is connections to the upstream per request.
    """

    cpu: float | None
    cpu_least: float | None
    cpu_greatest: float | None
    kernel: float | None
    core_share: float | None
    rate: float
    p50: float
    p99: float
    foreign: float
    connects: float


def summarise(samples: Sequence[Sample]) -> Summary:
    """
    Take the medians of the samples, which are all of one candidate with or all of one without a process.
    """
    costs = [sample.cpu_per_request for sample in samples if sample.cpu_per_request is not None]
    kernel = [sample.kernel / sample.load.requests for sample in samples if sample.kernel is not None]
    shares = [sample.core_share for sample in samples if sample.core_share is not None]
    return Summary(
        cpu=median(costs) if costs else None,
        cpu_least=min(costs, default=None),
        cpu_greatest=max(costs, default=None),
        kernel=median(kernel) if kernel else None,
        core_share=median(shares) if shares else None,
        rate=median(sample.requests_per_second for sample in samples),
        p50=median(sample.load.p50 for sample in samples),
        p99=median(sample.load.p99 for sample in samples),
        foreign=max(sample.foreign for sample in samples),
        connects=median(sample.connects / sample.load.requests for sample in samples),
    )


def ratio(summary: Summary, reference: Summary | None) -> float | None:
    """
    Return how many times the reference's processor time a request costs; `None` if either has none.
    """
    if reference is None or not reference.cpu or summary.cpu is None:
        return None
    return summary.cpu / reference.cpu


def case_table(summaries: Mapping[str, Summary], *, paced: bool = False, reference: str = REFERENCE) -> str:
    """
    Return the table of one case, a line for each candidate. `reference` is the one that the others are compared with.
    """
    when = "paced" if paced else "full load"
    rows = [["", "CPU µs/request", "least-most", f"x {reference}", "kernel", "requests/s", "core", "p50 ms", "p99 ms", "connects"]]
    for name, summary in summaries.items():
        times = ratio(summary, summaries.get(reference))
        rows.append(
            [
                name,
                _number(summary.cpu, 1e6, 1),
                "-" if summary.cpu is None else f"{_number(summary.cpu_least, 1e6, 1)}-{_number(summary.cpu_greatest, 1e6, 1)}",
                _number(times, 1, 2),
                _number(summary.kernel, 1e6, 1),
                f"{summary.rate:,.0f}",
                "-" if summary.core_share is None else f"{summary.core_share:.0%}",
                f"{summary.p50 * 1e3:.2f}",
                f"{summary.p99 * 1e3:.2f}",
                f"{summary.connects:.0%}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths[0] = -widths[0]  # Names to the left, figures to the right.
    lines = ["  ".join(_aligned(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"(latencies: {when})"])


def noise_note(summaries: Mapping[str, Summary], limit: float = 0.1) -> str | None:
    """
    Return a warning if the proxy's core worked for others during a measurement.
    """
    disturbed = {name: summary.foreign for name, summary in summaries.items() if summary.cpu is not None and summary.foreign > limit}
    if not disturbed:
        return None
    parts = ", ".join(f"{name} {share:.0%}" for name, share in disturbed.items())
    return f"Noise: the proxy's core worked for others while these were measured, at worst {parts}. Repeat it on a quiet machine."


def case_json(samples: Mapping[str, Sequence[Sample]], *, reference: str = REFERENCE) -> dict[str, Any]:
    """
    Return the JSON form of one case. Microseconds and milliseconds, as the names say.
    """
    summaries = {name: summarise(of_one) for name, of_one in samples.items()}
    return {
        name: {
            "cpu_us_per_request": _scaled(summary.cpu, 1e6),
            "cpu_us_per_request_min": _scaled(summary.cpu_least, 1e6),
            "cpu_us_per_request_max": _scaled(summary.cpu_greatest, 1e6),
            "kernel_us_per_request": _scaled(summary.kernel, 1e6),
            f"ratio_to_{reference}": _scaled(ratio(summary, summaries.get(reference)), 1),
            "requests_per_second": _scaled(summary.rate, 1),
            "core_share": _scaled(summary.core_share, 1),
            "foreign_share_max": _scaled(summary.foreign, 1),
            "p50_ms": _scaled(summary.p50, 1e3),
            "p99_ms": _scaled(summary.p99, 1e3),
            "upstream_connects_per_request": _scaled(summary.connects, 1),
            "rounds": [
                {
                    "requests": sample.load.requests,
                    "seconds": _scaled(sample.load.seconds, 1),
                    "cpu_us_per_request": _scaled(sample.cpu_per_request, 1e6),
                    "p50_ms": _scaled(sample.load.p50, 1e3),
                    "p99_ms": _scaled(sample.load.p99, 1e3),
                    "foreign_share": _scaled(sample.foreign, 1),
                }
                for sample in samples[name]
            ],
        }
        for name, summary in summaries.items()
    }


def machine() -> dict[str, Any]:
    """
    Return the facts about where and when it was measured.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": procfs.cpu_model(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if width >= 0 else cell.ljust(-width)


def _number(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}"


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else round(value * scale, 4)
