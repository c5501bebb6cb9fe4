"""
Learn from a proxy in front whom it speaks for, before anything else.

Only trusted proxies are asked, and they must answer: a connection of theirs without a PROXY header is closed. Everybody else's connection
goes straight to the next step, and whatever it says is the next step's to judge. Who is let in is decided when it is known who that is.
"""

from __future__ import annotations

import socket
from typing import Any

import attrs
from zope.interface import implementer

from a3sgw.address import AddressSet
from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning, IConnection, IReceiver
from a3sgw.net.caller import Caller
from a3sgw.wire.proxyprotocol import ProxyHeader, ProxyProtocolError, read_proxy_header

__all__ = ["ProxyBeginning"]


@implementer(IBeginning)
class ProxyBeginning:
    """
    The step before `following` where some peers are proxies. `trusted` are those, `timeout` is how long a header may take, in seconds.
    """

    def __init__(self, trusted: AddressSet, timeout: float, following: IBeginning) -> None:
        self._trusted = trusted
        self._timeout = timeout
        self._following = following

    def begin(self, door: Any, stream: Any, caller: Caller) -> Any:
        """
        Wait for the header of a trusted proxy, or let the next step begin.
        """
        if not self._trusted.contains(caller.packed):
            return self._following.begin(door, stream, caller)
        stream.receiver = connection = _HeaderReader(door, stream, caller, self._following)
        stream.deadline = stream.now() + self._timeout
        return connection

    def goodbye(self, outcome: Outcome) -> bytes:
        """
        As the next step has it.
        """
        return self._following.goodbye(outcome)


@implementer(IConnection, IReceiver)
class _HeaderReader:
    """
    A proxy's connection that has not said whom it is for.
    """

    __slots__ = ("_caller", "_door", "_following", "_pending", "_stream")

    def __init__(self, door: Any, stream: Any, caller: Caller, following: IBeginning) -> None:
        self._door = door
        self._stream = stream
        self._caller = caller
        self._following = following
        self._pending = b""

    def __repr__(self) -> str:
        return f"<PROXY header expected from {self._caller.address.decode()}>"

    def data_received(self, data: bytes) -> None:
        """
        The header, or a part of it, perhaps with what the client says behind it.
        """
        self._pending += data
        try:
            found = read_proxy_header(self._pending)
        except ProxyProtocolError:
            self._door.count_refused(Outcome.PROXY_HEADER_MALFORMED)
            self._stream.close()
            return
        if found is None:
            return
        header, length = found
        caller = _told_of(self._caller, header)
        outcome = self._door.let_in(self, caller.packed)
        if outcome is not None:
            self._stream.write(self._following.goodbye(outcome))
            self._stream.close(linger=True)
        else:
            self._door.hand_over(self, self._following, self._stream, caller, self._pending[length:])

    def eof_received(self) -> None:
        """
        The proxy only wanted to know whether there is anybody.
        """
        self._stream.close()

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The proxy is gone, or was sent away.
        """
        self._door.connection_ended(self)

    def stream_congested(self) -> None:
        """
        Last words are short.
        """

    def stream_drained(self) -> None:
        """
        Last words are short.
        """

    def deadline_passed(self) -> None:
        """
        The proxy has had its time.
        """
        self._door.count_refused(Outcome.PROXY_HEADER_TIMEOUT)
        self._stream.close()

    # -- what the door calls

    def exchange_count(self) -> int:
        """
        Return 0: nothing has begun.
        """
        return 0

    def drain(self) -> None:
        """
        Wait no longer than for somebody who has just been let in.
        """
        self._stream.deadline = min(self._stream.deadline, self._stream.now() + self._door.GRACE_SECONDS)

    def stop(self) -> None:
        """
        Send the proxy away.
        """
        self._stream.close()


def _told_of(caller: Caller, header: ProxyHeader) -> Caller:
    """
    Return what is known of the caller after `header`. If it names nobody, the proxy speaks for itself.
    """
    source = header.source
    if source is None:
        return caller
    family = socket.AF_INET if len(source.packed) == 4 else socket.AF_INET6
    return attrs.evolve(
        caller,
        address=socket.inet_ntop(family, source.packed).encode("ascii"),
        packed=source.packed,
        port=source.port,
        destination=header.destination,
    )
