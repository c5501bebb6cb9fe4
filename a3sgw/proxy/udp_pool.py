"""
Where a server of a UDP service is.

It stands in the place of a pool: there are no connections to keep, but there is a name to look up. Whoever asks while a question is under
way shares its answer, which is kept for a while, so that a crowd of new clients asks once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from a3sgw.net.connect import Address
from a3sgw.net.datagram import DatagramLink
from a3sgw.net.deadline import NEVER
from a3sgw.service.backend import Backend

__all__ = ["UdpPool"]


class UdpPool:
    """
    The addresses of one backend, and the links to it.

    `patience` is how long a question may take, in seconds. `leased` counts links; none is ever `idle`.
    """

    ADDRESSES_KEPT_SECONDS: Final = 10.0

    __slots__ = ("_addresses", "_asking", "_backend", "_dialer", "_patience", "_until", "deadline", "idle", "leased")

    def __init__(self, backend: Backend, dialer: Any, patience: float) -> None:
        self._backend = backend
        self._dialer = dialer
        self._patience = patience
        self._addresses: list[Address] = []
        self._until = 0.0
        self._asking: list[Callable[[list[Address]], None]] = []
        self.deadline = NEVER
        self.idle = 0
        self.leased = 0

    def __repr__(self) -> str:
        return f"<UdpPool {self._backend.url}, {self.leased} links, {len(self._asking)} asking>"

    def find(self, done: Callable[[list[Address]], None]) -> None:
        """
        Give the backend's addresses to `done`, at once or later; an empty list if there are none or nobody says in time.
        """
        if self._addresses and self._dialer.deadlines.seconds() < self._until:
            done(self._addresses)
            return
        self._asking.append(done)
        if len(self._asking) == 1:
            self.deadline = self._dialer.deadlines.seconds() + self._patience
            self._dialer.deadlines.add(self)
            address = self._backend.address
            self._dialer.resolve(address.host, address.port, self._found)

    def _found(self, addresses: list[Address]) -> None:
        if addresses:
            # Of use for the next one even if it comes too late for whoever asked.
            self._addresses = addresses
            self._until = self._dialer.deadlines.seconds() + self.ADDRESSES_KEPT_SECONDS
        self._answer(addresses)

    def deadline_passed(self) -> None:
        """
        Called by the sweep.
        """
        self._answer([])

    def _answer(self, addresses: list[Address]) -> None:
        self._dialer.deadlines.discard(self)
        self.deadline = NEVER
        asking, self._asking = self._asking, []
        for done in asking:
            done(addresses)

    def link(self, addresses: list[Address], received: Callable[[memoryview], None], failed: Callable[[int], None]) -> DatagramLink:
        """
        Return a link to the first of `addresses` to which there is a way; raise `OSError` if there is none.
        """
        link: DatagramLink = self._dialer.link(addresses, received, failed)
        self.leased += 1
        return link

    def give_back(self, link: DatagramLink) -> None:
        """
        Close a link.
        """
        self.leased -= 1
        link.close()

    def doubt(self) -> None:
        """
        Ask again next time: the server was not where it should be.
        """
        self._until = 0.0

    def retire(self) -> None:
        """
        The backend is not in the configuration any more; its links are their sessions' to close.
        """
