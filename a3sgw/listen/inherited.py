"""
Sockets of entrypoints that somebody else has opened: systemd, or the process that this one is to follow.

With systemd they are the descriptors from 3 on, as sd_listen_fds(3) has it. A predecessor says in `A3S_HANDOVER` which descriptors they
are, and first of all where to report that the new process serves. Whoever listens on a socket that was open all along loses no connection:
what comes while the processes change waits in it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from typing import Final

from a3sgw.listen.door import bind
from a3sgw.net.datagram import adopt_datagrams, bind_datagrams

__all__ = ["HANDOVER", "Inherited", "notify_supervisor"]

HANDOVER: Final = "A3S_HANDOVER"
_FIRST: Final = 3
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Inherited:
    """
    What was inherited. `sockets` are pairs of a name, which may be empty, and a listening socket or one for UDP; `ready` is a descriptor to
    report to.
    """

    def __init__(
        self,
        sockets: Sequence[tuple[str, socket.socket]] = (),
        ready: int | None = None,
        otherwise: Callable[[str, str, int], socket.socket] = bind,
        otherwise_datagrams: Callable[[str, str, int], socket.socket] = bind_datagrams,
    ) -> None:
        self._left = list(sockets)
        self._ready = ready
        self._otherwise = otherwise
        self._otherwise_datagrams = otherwise_datagrams

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str], pid: int) -> Inherited:
        """
        Return what `environ` tells of, and remove it there, so that no child takes it for its own. Twisted takes what systemd tells away as
        soon as its endpoints are imported, so it must have been put aside before that.
        """
        handover = environ.pop(HANDOVER, "")
        numbers = [int(each) for each in handover.split(",") if each]
        ready = numbers.pop(0) if numbers else None
        names = [""] * len(numbers)
        told = [environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
        if told[0] == str(pid) and told[1].isdecimal():
            count = int(told[1])
            numbers += range(_FIRST, _FIRST + count)
            names += (told[2].split(":") + [""] * count)[:count]
        for number in numbers if ready is None else [ready, *numbers]:
            os.set_inheritable(number, False)
        return cls([(name, socket.socket(fileno=number)) for name, number in zip(names, numbers, strict=True)], ready)

    def bind(self, name: str, host: str, port: int) -> socket.socket:
        """
        Return a listening socket, as `listen.door.bind` does: one that was inherited under the entrypoint's `name` or listens there
        already, or else a new one.
        """
        sock = self._take(socket.SOCK_STREAM, name, host, port)
        if sock is None:
            return self._otherwise(name, host, port)
        sock.setblocking(False)
        return sock

    def bind_datagrams(self, name: str, host: str, port: int) -> socket.socket:
        """
        Return a UDP socket, as `net.datagram.bind_datagrams` does, found as in `bind`.
        """
        sock = self._take(socket.SOCK_DGRAM, name, host, port)
        return self._otherwise_datagrams(name, host, port) if sock is None else adopt_datagrams(sock)

    def _take(self, kind: int, name: str, host: str, port: int) -> socket.socket | None:
        for index, (given, sock) in enumerate(self._left):
            if sock.type == kind and sock.family in _FAMILIES and ((given and given == name) or _listens_at(sock, host, port)):
                del self._left[index]
                return sock
        return None

    def udp_places(self) -> list[str]:
        """
        Return where the UDP sockets listen that nobody has asked for yet.
        """
        return [_shown(sock) for _, sock in self._left if sock.type == socket.SOCK_DGRAM]

    def begin(self) -> list[str]:
        """
        The gateway runs: report it, and close what nobody wanted. Returns where that listened.
        """
        unwanted = [_shown(sock) for _, sock in self._left]
        for _, sock in self._left:
            sock.close()
        self._left.clear()
        if self._ready is not None:
            # The predecessor may have given up.
            with contextlib.suppress(OSError):
                os.write(self._ready, b"ready\n")
            os.close(self._ready)
            self._ready = None
        return unwanted


def _listens_at(sock: socket.socket, host: str, port: int) -> bool:
    if not port:
        return False
    address = sock.getsockname()
    if address[1] != port:
        return False
    if not host:
        return address[0] in ("::", "0.0.0.0")
    try:
        found = socket.getaddrinfo(host, port, type=sock.type, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return any(row[4][0] == address[0] for row in found)


def _shown(sock: socket.socket) -> str:
    address = sock.getsockname()
    return f"{address[0]}:{address[1]}{'/udp' * (sock.type == socket.SOCK_DGRAM)}" if isinstance(address, tuple) else str(address)


def notify_supervisor(address: str | None, text: str) -> None:
    """
    Tell the supervisor at `address`, which is what systemd gives in `NOTIFY_SOCKET`, how this process stands; see sd_notify(3). One that
    cannot be reached is none.
    """
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
