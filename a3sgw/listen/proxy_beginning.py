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
from a3sgw.interfaces import IBeginning
from a3sgw.listen.first_bytes import FirstBytes
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
        return _HeaderReader(door, stream, caller, self._timeout, self._following)

    def goodbye(self, outcome: Outcome) -> bytes:
        """
        As the next step has it.
        """
        return self._following.goodbye(outcome)


class _HeaderReader(FirstBytes):
    """
    A proxy's connection that has not said whom it is for.
    """

    __slots__ = ("_following",)

    def __init__(self, door: Any, stream: Any, caller: Caller, timeout: float, following: IBeginning) -> None:
        super().__init__(door, stream, caller, timeout)
        self._following = following

    def look(self) -> None:
        """
        The header, or a part of it, perhaps with what the client says behind it.
        """
        try:
            found = read_proxy_header(self.pending)
        except ProxyProtocolError:
            self.door.count_refused(Outcome.PROXY_HEADER_MALFORMED)
            self.stream.close()
            return
        if found is None:
            return
        header, length = found
        caller = _told_of(self.caller, header)
        outcome = self.door.let_in(self, caller.packed)
        if outcome is not None:
            self.stream.write(self._following.goodbye(outcome))
            self.stream.close(linger=True)
        else:
            self.door.hand_over(self, self._following, self.stream, caller, self.pending[length:])

    def deadline_passed(self) -> None:
        """
        The proxy has had its time.
        """
        self.door.count_refused(Outcome.PROXY_HEADER_TIMEOUT)
        self.stream.close()


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
