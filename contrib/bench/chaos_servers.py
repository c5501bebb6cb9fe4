"""
Servers that are harmed: real nginx processes, and what can happen to a server short of a lie.

Every server says in each answer what it was asked for, so that a client can tell when it is given another one's answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
from enum import Enum
from pathlib import Path

from .processes import Child, free_port, require_program

__all__ = ["Server", "State"]

_CONFIG = """
daemon off;
master_process off;
{user}
pid {directory}/{name}.pid;
error_log {directory}/{name}.errors warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000;
    client_body_temp_path {directory}/{name}.body;
    proxy_temp_path {directory}/{name}.proxy;
    fastcgi_temp_path {directory}/{name}.fastcgi;
    uwsgi_temp_path {directory}/{name}.uwsgi;
    scgi_temp_path {directory}/{name}.scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        if (-f {directory}/{name}.refuses) {{ return 503; }}
        if (-f {directory}/{name}.hangs-up) {{ return 444; }}
        location / {{ return 200 '{{"server":"{name}","target":"$request_uri"}}'; }}
    }}
}}
"""


class State(Enum):
    """
    What a server is like: `value` is the word for it.
    """

    WELL = "well"
    KILLED = "killed"
    """The process is gone at once, with every connection."""
    FROZEN = "frozen"
    """It is stopped: the kernel goes on accepting connections and requests, and nobody answers."""
    SLOW = "slow"
    """It is stopped for a quarter of a second, lives for an instant, and so on."""
    REFUSING = "refusing"
    """It answers 503 to everything."""
    HANGING_UP = "hanging up"
    """It closes the connection instead of answering."""
    RESTARTED = "restarted"
    """It ends in order, as for a new version, and is there again a moment later."""
    FLAPPING = "flapping"
    """It is killed and started again and again."""


class Server:
    """
    One server. Exactly one process runs for it at a time, or none.
    """

    STOPPED_SECONDS = 0.25
    ALIVE_SECONDS = 0.02
    DOWN_SECONDS = 0.2
    UP_SECONDS = 0.3

    def __init__(self, name: str, directory: Path, core: int) -> None:
        self.name = name
        self.port = free_port()
        self.state = State.WELL
        self._directory = directory
        self._core = core
        self._habit: asyncio.Task[None] | None = None
        self._config = directory / f"{name}.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        self._config.write_text(_CONFIG.format(user=user, directory=directory, name=name, port=self.port))
        self._child = self._start()

    def __repr__(self) -> str:
        return f"<Server {self.name} on {self.port}, {self.state.value}>"

    def _start(self) -> Child:
        argv = [require_program("nginx", "as the servers", "nginx-light"), "-c", str(self._config), "-p", str(self._directory)]
        return Child(self.name, argv, self._core, self._directory / f"{self.name}.log")

    def wait_ready(self) -> None:
        """
        Wait until it accepts connections.
        """
        self._child.wait_listening(self.port, 15.0)

    async def become(self, state: State) -> None:
        """
        Leave the state it is in for another; one it is in already is left alone.
        """
        if state is self.state and state is not State.RESTARTED:
            return
        await self._recover()
        self.state = state
        if state is State.KILLED:
            self._kill()
        elif state is State.FROZEN:
            os.kill(self._child.pid, signal.SIGSTOP)
        elif state is State.REFUSING:
            self._flag("refuses").touch()
        elif state is State.HANGING_UP:
            self._flag("hangs-up").touch()
        elif state is State.SLOW:
            self._habit = asyncio.ensure_future(self._stutter())
        elif state is State.FLAPPING:
            self._habit = asyncio.ensure_future(self._flap())
        elif state is State.RESTARTED:
            os.kill(self._child.pid, signal.SIGQUIT)
            await asyncio.to_thread(self._child.wait, 15.0)
            self._child = self._start()

    def _flag(self, what: str) -> Path:
        return self._directory / f"{self.name}.{what}"

    def _kill(self) -> None:
        os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait(5.0)

    async def _recover(self) -> None:
        """
        Become well.
        """
        former, habit = self.state, self._habit
        self.state = State.WELL
        if habit is not None:
            self._habit = None
            habit.cancel()
            await asyncio.wait([habit])
        self._flag("refuses").unlink(missing_ok=True)
        self._flag("hangs-up").unlink(missing_ok=True)
        if former in (State.FROZEN, State.SLOW):
            os.kill(self._child.pid, signal.SIGCONT)
        elif former in (State.KILLED, State.FLAPPING):
            if not self._child.has_ended:
                self._kill()
            self._child = self._start()

    async def _stutter(self) -> None:
        while True:
            os.kill(self._child.pid, signal.SIGSTOP)
            await asyncio.sleep(self.STOPPED_SECONDS)
            os.kill(self._child.pid, signal.SIGCONT)
            await asyncio.sleep(self.ALIVE_SECONDS)

    async def _flap(self) -> None:
        while True:
            self._kill()
            await asyncio.sleep(self.DOWN_SECONDS)
            self._child = self._start()
            await asyncio.sleep(self.UP_SECONDS)

    def stop(self) -> None:
        """
        End the process, whatever state it is in.
        """
        if self._habit is not None:
            self._habit.cancel()
        self._child.stop()
