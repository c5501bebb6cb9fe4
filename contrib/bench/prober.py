"""
Measure latency at a fixed rate: requests leave when they are due, whether or not earlier ones have been answered.

`wrk` knows only full load, where latency says how long the queue is and nothing about the candidate. Here each thread keeps one connection
and its own timetable; a request that starts late because the one before it was slow counts from the moment it was due. Python adds some
tens of microseconds to each, the same for everybody: compare with the direct connection.
"""

from __future__ import annotations

import math
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .check import read_answer

__all__ = ["Latencies", "percentile", "probe"]


@dataclass(frozen=True)
class Latencies:
    """
    The sorted latencies of one probe, in seconds, and how long it took.
    """

    values: list[float]
    seconds: float
    bytes: int


def percentile(ordered: list[float], percent: float) -> float:
    """
    Return the smallest value of the sorted list that at least `percent` of all do not exceed.
    """
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def probe(
    port: int, encode: Callable[[int], bytes], rate: float, seconds: float, connections: int, *, status: int = 200
) -> Latencies:
    """
    Ask `rate` times a second for `seconds`, over `connections` connections. Raises the first error of any of them; an answer with another
    status than `status` is one.
    """
    answers: list[tuple[float, int]] = []
    errors: list[Exception] = []
    began = time.monotonic() + 0.1

    def ask(first: int) -> None:
        timetable = random.Random(first)
        step = connections / rate
        try:
            with socket.create_connection(("127.0.0.1", port), 20) as connection:
                for turn in range(int(seconds / step)):
                    # Somewhere within its slot, so that the connections do not march in step.
                    due = began + (turn + timetable.random()) * step
                    pause = due - time.monotonic()
                    if pause > 0:
                        time.sleep(pause)
                    connection.sendall(encode(first + turn * connections))
                    answer = read_answer(connection)
                    answers.append((time.monotonic() - due, answer.size))
                    if answer.status != status:
                        raise ValueError(f"status {answer.status} instead of {status}")
        except (OSError, ValueError) as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Latencies(sorted(value for value, _ in answers), time.monotonic() - began, sum(size for _, size in answers))
