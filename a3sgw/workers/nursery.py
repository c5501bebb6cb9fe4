"""
Where workers come from: a process that has everything in memory that a worker needs, and forks.

Forking takes milliseconds where starting an interpreter takes half a second, and the code's memory is shared. The gateway itself cannot
fork, because it has threads, sockets and timers that a child must not have.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import Any, Final

from twisted.logger import Logger

from a3sgw.net.channel import Channel
from a3sgw.workers.link import Link

__all__ = ["PROGRAM", "Nursery"]

PROGRAM: Final = "a3sgw.worker_process"
"""The module that runs there: it imports the global reactor, so it stands on a higher floor."""


class Nursery:
    """
    Makes workers that are processes. The forking process is begun when it is first needed, and again should it be gone.
    """

    STOP_SECONDS: Final = 2.0
    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._child: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        # Which worker gets which place of a dictionary must be the same in all of them; see `policy.shared`.
        self._hash_seed = str(int.from_bytes(os.urandom(4), "big"))

    def __repr__(self) -> str:
        return f"<Nursery {None if self._child is None else self._child.pid}>"

    def bear(self, slot: int, link: Link) -> None:
        """
        Begin a worker and connect `link` with it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = Channel(ours, self._reactor, link.received, link.frames_lost)
        link.connect(channel)
        channel.start()
        with theirs:
            if not self._pass_on(theirs):
                self.stop()
                if not self._pass_on(theirs):
                    self._log.error("no process for workers could be begun")
        # If nobody has the other end, ours is told so.

    def end(self, pid: int) -> None:
        """
        Kill a worker.
        """
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def stop(self) -> None:
        """
        End the forking process. Workers go on.
        """
        child, self._child = self._child, None
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if child is not None:
            try:
                child.wait(self.STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _pass_on(self, sock: socket.socket) -> bool:
        if self._control is None:
            self._begin()
        assert self._control is not None
        try:
            socket.send_fds(self._control, [b"w"], [sock.fileno()])
        except OSError:
            return False
        return True

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = {
            **os.environ,
            "PYTHONHASHSEED": self._hash_seed,
            # What this process can import, that one can too.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM, str(theirs.fileno())],
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._control = ours
