"""
A client that never stops asking and forgives nothing.

Its connections are kept, and each asks for one thing after the other, at a rate that is never exceeded, not even to make good what was lost
while nobody answered. A request has failed if its answer is not 200, is not the answer to it, breaks off, or does not come within five
seconds; nothing is asked twice.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field

__all__ = ["Client", "Failure", "Tally"]


@dataclass(frozen=True)
class Failure:
    """
    One request that failed: its number, and what happened instead.
    """

    number: int
    what: str


@dataclass
class Tally:
    """
    What was counted in one phase: latencies in seconds of the requests that went well, and the others.
    """

    latencies: list[float] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    answered_by: dict[str, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return len(self.latencies) + len(self.failures)


class Client:
    """
    Asks `port` for one thing after the other, over `connections` connections, `rate` a second, until `stop` is called.

    A request belongs to the `tally` that was current when it was sent.
    """

    PATIENCE = 5.0

    def __init__(self, port: int, rate: float, connections: int) -> None:
        self.tally = Tally()
        self._port = port
        self._is_stopped = False
        self._step = 1 / rate
        self._connections = connections
        self._numbers = itertools.count(1)
        self._next_due = 0.0

    async def run(self) -> None:
        """
        Ask until stopped.
        """
        self._next_due = time.monotonic()
        await asyncio.gather(*(self._ask_on() for _ in range(self._connections)))

    def stop(self) -> None:
        """
        Ask nothing more; what has been asked is waited for.
        """
        self._is_stopped = True

    async def _ask_on(self) -> None:
        line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while True:
            await self._wait_for_turn()
            if self._is_stopped:
                break
            number = next(self._numbers)
            tally = self.tally
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.PATIENCE):
                    if line is None:
                        line = await asyncio.open_connection("127.0.0.1", self._port)
                    server, is_kept = await _ask(*line, number)
            except (OSError, EOFError, ValueError) as error:
                # A timeout is an OSError.
                what = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
                tally.failures.append(Failure(number, what))
                is_kept = False
            else:
                tally.latencies.append(time.monotonic() - began)
                tally.answered_by[server] = tally.answered_by.get(server, 0) + 1
            if not is_kept and line is not None:
                line[1].close()
                line = None
        if line is not None:
            line[1].close()

    async def _wait_for_turn(self) -> None:
        now = time.monotonic()
        due = self._next_due = max(self._next_due + self._step, now)
        await asyncio.sleep(due - now)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> tuple[str, bool]:
    """
    Return who has answered, and whether the connection can be used again. Raises `ValueError` for a wrong answer.
    """
    target = f"/item/{number}?n={number * 7919}"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: chaos\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = fields.get("content-length", "")
    body = await reader.readexactly(int(length)) if length.isdigit() else b""
    if not status_line.startswith("HTTP/1.1 200 "):
        raise ValueError(f"{status_line}: {body.decode('latin-1').strip()[:200]}")
    said = json.loads(body)
    if said["target"] != target:
        raise ValueError(f"asked for {target}, and was given the answer to {said['target']}")
    return said["server"], fields.get("connection", "").lower() != "close"
