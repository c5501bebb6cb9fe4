"""
WebSockets that talk while something else happens: `python -m contrib.bench.echoes PORT`.

Each of the clients sends a message of its own every 50 ms over one connection, and is to get it back, each in its turn. Nobody waits for an
answer before the next message leaves. What comes back changed or out of turn, after more than five seconds or never, and each connection
that ends before its time is counted; one line of JSON tells it, with how long an echo takes. `--serve` is the server that sends them back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .candidates import CHECKOUT
from .load import Load
from .prober import percentile
from .processes import Child, VoidRunError
from .pump_server import SWITCH, head_for

__all__ = ["Echoes", "Tally", "frame", "masked", "parse_echoes", "serve", "start_server", "talk"]

_CLIENTS = 20
_INTERVAL = 0.050
_PATIENCE = 5.0
_CONNECTED = "connected"
_TEXT, _MASKED = 0x81, 0x80
_LONGEST = 125


# -- frames ---------------------------------------------------------------------------------------------------------------------------


def masked(data: bytes, mask: bytes) -> bytes:
    """
    Mask, or unmask, as RFC 6455 section 5.3 says.
    """
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(repeated)).to_bytes(len(data))


def frame(message: bytes, mask: bytes = b"") -> bytes:
    """
    Return a text message of at most 125 bytes in its frame, masked if there is a mask.
    """
    return bytes([_TEXT, (_MASKED if mask else 0) | len(message)]) + mask + (masked(message, mask) if mask else message)


# -- the client -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """
    What was counted. `taken` are the seconds that each right echo took; `late` are those that took too long, never came or were overtaken.
    """

    sent: int = 0
    bytes: int = 0
    wrong: int = 0
    late: int = 0
    closed: int = 0
    taken: list[float] = field(default_factory=list)


class _Line(asyncio.Protocol):
    """
    One WebSocket. `switched` fires when it is one.
    """

    def __init__(self, number: int, tally: Tally, patience: float) -> None:
        self.waiting: deque[tuple[bytes, float]] = deque()
        self.switched: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number = number
        self._tally = tally
        self._patience = patience
        self._said = 0
        self._data = b""
        self._has_ended = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(head_for("echo", 0))

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.switched.done():
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(SWITCH.partition(b"\r\n")[0]):
                self.switched.set_exception(ValueError(f"a WebSocket was answered {head!r:.200}"))
                return
            self._data = rest
            self.switched.set_result(None)
        while len(self._data) >= 2:
            length = self._data[1]
            if length > _LONGEST:
                # Nothing that was sent: where it ends does not matter.
                self._tally.wrong += 1
                self._transport.abort()
                return
            if len(self._data) < 2 + length:
                return
            self._frame_received(self._data[0], self._data[2 : 2 + length])
            self._data = self._data[2 + length :]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.switched.done():
            self.switched.set_exception(ConnectionError(f"a WebSocket was not let in: {error or 'closed'}"))
        elif not self._has_ended:
            self._tally.closed += 1
            self.end()

    def itself(self) -> _Line:
        """
        Be the protocol of the connection that asyncio makes.
        """
        return self

    def say(self) -> None:
        """
        Send the next message, unless the connection is gone.
        """
        if self._has_ended:
            return
        self._said += 1
        message = f"{self._number} says {self._said}, and that is {os.urandom(16).hex()}".encode()
        self._tally.sent += 1
        self._tally.bytes += len(message)
        self.waiting.append((message, time.monotonic()))
        self._transport.write(frame(message, os.urandom(4)))

    def end(self) -> None:
        """
        Close; what has not come by now never will.
        """
        self._has_ended = True
        self._tally.late += len(self.waiting)
        self.waiting.clear()
        self._transport.abort()

    def _frame_received(self, first: int, message: bytes) -> None:
        if first != _TEXT or not any(message == waiting for waiting, _ in self.waiting):
            self._tally.wrong += 1
            return
        while True:
            said, when = self.waiting.popleft()
            taken = time.monotonic() - when
            if said != message or taken > self._patience:
                self._tally.late += 1
            else:
                self._tally.taken.append(taken)
            if said == message:
                return


async def talk(port: int, seconds: float, *, clients: int = _CLIENTS, interval: float = _INTERVAL, patience: float = _PATIENCE) -> Tally:
    """
    Connect everybody, say so, and talk for so many seconds. Raises `OSError` or `ValueError` if a connection is not let in.
    """
    loop = asyncio.get_running_loop()
    tally = Tally()
    lines: list[_Line] = []
    async with asyncio.timeout(30.0):
        for number in range(clients):
            line = _Line(number, tally, patience)
            await loop.create_connection(line.itself, "127.0.0.1", port)
            await line.switched
            lines.append(line)
    print(_CONNECTED, flush=True)
    began = time.monotonic()
    for turn in range(int(seconds / interval) * clients):
        # One after the other, so that no two speak at the same time.
        await asyncio.sleep(max(0.0, began + turn * interval / clients - time.monotonic()))
        lines[turn % clients].say()
    deadline = time.monotonic() + patience
    while any(line.waiting for line in lines) and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    for line in lines:
        line.end()
    return tally


# -- the server -----------------------------------------------------------------------------------------------------------------------


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Readiness checks connect and say nothing.
    with suppress(OSError, EOFError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        while True:
            _, length, *mask = await reader.readexactly(6)
            writer.write(frame(masked(await reader.readexactly(length & ~_MASKED), bytes(mask))))
            await writer.drain()
    writer.close()


async def serve(port: int) -> None:
    """
    Send back to everybody what he says. Never returns.
    """
    async with await asyncio.start_server(_echo, "127.0.0.1", port) as server:
        await server.serve_forever()


# -- both as processes ----------------------------------------------------------------------------------------------------------------


def _start(name: str, arguments: Sequence[str], directory: Path, core: int) -> Child:
    log = directory / f"{name}.log"
    log.unlink(missing_ok=True)
    return Child(name, [sys.executable, "-m", "contrib.bench.echoes", *arguments], core, log, env={"PYTHONPATH": str(CHECKOUT)})


def start_server(port: int, directory: Path, core: int) -> Child:
    """
    Start the server, and wait until it listens.
    """
    child = _start("echo_server", [str(port), "--serve"], directory, core)
    try:
        child.wait_listening(port)
    except VoidRunError:
        child.stop()
        raise
    return child


class Echoes:
    """
    The clients that talk for so many seconds, in a process of their own; all are connected when this is made.
    """

    def __init__(self, port: int, directory: Path, core: int, seconds: int) -> None:
        self._seconds = seconds
        self._child = _start("echoes", [str(port), "--seconds", str(seconds)], directory, core)
        deadline = time.monotonic() + 60.0
        while not self._child.log.read_text("utf-8", "replace").startswith(_CONNECTED):
            if self._child.has_ended or time.monotonic() > deadline:
                self.stop()
                raise VoidRunError(f"The WebSockets did not all connect. They said:\n{self._child.tail()}")
            time.sleep(0.02)

    def finish(self) -> Load:
        """
        Wait for the end, and return what was counted. Raises `VoidRunError` if anything was not as it must be.
        """
        try:
            self._child.wait(self._seconds + _PATIENCE + 60.0)
        except subprocess.TimeoutExpired:
            raise VoidRunError(f"The WebSockets did not end within {self._seconds + _PATIENCE + 60:g} s.") from None
        finally:
            self.stop()
        return parse_echoes(self._child.log.read_text("utf-8", "replace"))

    def stop(self) -> None:
        """
        End the process.
        """
        self._child.stop()


def parse_echoes(text: str) -> Load:
    """
    Read what the clients' process printed. Raises `VoidRunError` if a message came back wrong or late, or a connection was closed.
    """
    line = next((line for line in text.splitlines() if line.startswith("{")), None)
    if line is None:
        raise VoidRunError(f"The WebSockets ended without their summary. They said:\n{text.strip()[-2000:] or '(nothing)'}")
    counted = json.loads(line)
    faults = [f"{counted[what]} {words}" for what, words in _FAULTS.items() if counted[what]]
    if faults:
        raise VoidRunError(f"WebSockets: {', '.join(faults)}, with {counted['sent']} messages sent.")
    if not counted["sent"]:
        raise VoidRunError("WebSockets: no message was sent.")
    return Load(counted["seconds"], counted["sent"], counted["bytes"], counted["p50"], counted["p99"])


_FAULTS = {"wrong": "wrong messages", "late": "messages late or never back", "closed": "connections closed"}


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Talk, or serve. Returns 0, or 1 if a message came back wrong or late, or a connection was closed.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.echoes", description="WebSockets whose messages must come back.")
    parser.add_argument("port", type=int, help="where to connect, on this machine")
    parser.add_argument("--serve", action="store_true", help="be the server at this port")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long they talk (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.serve:
        asyncio.run(serve(options.port))
    try:
        tally = asyncio.run(talk(options.port, options.seconds))
    except (OSError, ValueError) as error:
        print(f"void: {error}", file=sys.stderr)
        return 1
    counted = {name: getattr(tally, name) for name in ("sent", "bytes", "wrong", "late", "closed")}
    taken = sorted(tally.taken)
    for percent in (50, 99):
        counted[f"p{percent}"] = percentile(taken, percent) if taken else None
    print(json.dumps({"seconds": options.seconds, **counted}))
    return 1 if tally.wrong or tally.late or tally.closed else 0


if __name__ == "__main__":
    sys.exit(main())
