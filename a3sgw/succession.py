"""
Let a new process take the place of this one without a connection or a datagram lost.

The new process is started with the same command line, in the same place, and inherits the sockets of the entrypoints. When it reports
that it serves, this one drains and ends. If it ends first, or does not report in time, this one goes on as if nothing had happened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from a3sgw.config.model import GatewayConfig
from a3sgw.errors import AssemblyError
from a3sgw.lifetime import Lifetime
from a3sgw.listen.inherited import HANDOVER, Inherited, notify_supervisor
from a3sgw.workers.fleet import worker_count

__all__ = ["Successor", "announce", "own_command", "refuse_udp_among_workers", "succeed"]

_READY: Final = 3


def own_command() -> list[str]:
    """
    Return the command line of this process.
    """
    return [sys.executable, *sys.orig_argv[1:]]


class Successor(ProcessProtocol):
    """
    The process that is to follow. `serves` fires when it serves, or fails with `AssemblyError`.
    """

    PATIENCE_SECONDS: Final = 60.0

    def __init__(self, reactor: Any, spawn: Callable[..., Any] | None = None) -> None:
        self.serves: Deferred[int] = Deferred()
        self._reactor = reactor
        self._spawn = reactor.spawnProcess if spawn is None else spawn
        self._late: Any = None
        self._transport: Any = None

    def start(self, command: Sequence[str], sockets: Sequence[Any], environ: Mapping[str, str]) -> None:
        """
        Start it with the listening `sockets`.
        """
        given = dict(enumerate((sock.fileno() for sock in sockets), _READY + 1))
        told = {HANDOVER: ",".join(map(str, [_READY, *given]))}
        descriptors = {0: 0, 1: 1, 2: 2, _READY: "r", **given}
        self._late = self._reactor.callLater(self.PATIENCE_SECONDS, self._is_late)
        self._transport = self._spawn(self, command[0], list(command), env={**environ, **told}, path=os.getcwd(), childFDs=descriptors)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        It reports that it serves.
        """
        if not self.serves.called:
            self._end_patience()
            self.serves.callback(self._transport.pid)

    def processEnded(self, reason: Failure) -> None:
        """
        It has ended; before it served, if nobody knows better.
        """
        self._fail(f"it ended before it served: {reason.getErrorMessage()}")

    def _is_late(self) -> None:
        self._late = None
        self._transport.signalProcess("KILL")
        self._fail(f"it did not serve within {self.PATIENCE_SECONDS:g} s")

    def _fail(self, reason: str) -> None:
        self._end_patience()
        if not self.serves.called:
            self.serves.errback(AssemblyError(reason))

    def _end_patience(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def succeed(reactor: Any, sockets: Sequence[Any]) -> Deferred[int]:
    """
    Start a successor of this process with the listening `sockets`, and give its number when it serves.
    """
    successor = Successor(reactor)
    successor.start(own_command(), sockets, os.environ)
    return successor.serves


def refuse_udp_among_workers(inherited: Inherited, config: GatewayConfig) -> None:
    """
    Raise `AssemblyError` if UDP sockets were inherited that several workers would have to share.
    """
    places = inherited.udp_places()
    is_wanted = any(entrypoint.protocol == "udp" for entrypoint in config.entrypoints.values())
    if places and is_wanted and worker_count(config.workers) > 1:
        raise AssemblyError(
            f"the UDP socket at {places[0]} was handed over, but each of several workers opens one of its own there; have workers = 1, or "
            "whoever opened it leave it out"
        )


def announce(inherited: Inherited, lifetime: Lifetime) -> None:
    """
    Tell whoever wants to know, a predecessor or the supervisor, that this process serves now, if it does.
    """
    if lifetime.exit_code:
        return
    for place in inherited.begin():
        lifetime.log.warn("a listening socket was handed over that no entrypoint wants: {place}", place=place)
    notify_supervisor(os.environ.get("NOTIFY_SOCKET"), f"READY=1\nMAINPID={os.getpid()}\n")
