"""
The udp doors of one carrier, through reloads to the end.

As with connections, everything that can fail fails in `prepare`. A door that a reload takes away keeps its port until those who have
something under way are done; if another reload wants the port back meanwhile, it gets the same door.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import attrs

from a3sgw.errors import AssemblyError
from a3sgw.listen.udp_door import UdpDoor, UdpTally
from a3sgw.net.deadline import Deadlines
from a3sgw.proxy.udp_entrypoint import UdpEntrypoint

__all__ = ["BindDatagrams", "UdpDoors", "UdpPlan"]


class BindDatagrams(Protocol):
    """
    What `net.datagram.bind_datagrams` does.
    """

    def __call__(self, name: str, host: str, port: int) -> socket.socket: ...


@attrs.frozen(slots=True, eq=False)
class UdpPlan:
    """
    A udp door that a generation wants: where, and what is served.
    """

    address: tuple[str, int]
    entrypoint: UdpEntrypoint


class UdpDoors:
    """
    The doors of the running generation, by entrypoint, those that are prepared, and those that are leaving. `tally` outlives them all.
    """

    def __init__(self, reactor: Any, deadlines: Deadlines, bind: BindDatagrams) -> None:
        self.tally = UdpTally()
        self.leaving: set[UdpDoor] = set()
        self._reactor = reactor
        self._deadlines = deadlines
        self._bind = bind
        self._doors: dict[str, UdpDoor] = {}
        self._new: dict[str, UdpDoor] = {}

    def __repr__(self) -> str:
        return f"<UdpDoors {list(self._doors.values())}>"

    def prepare(self, plans: Mapping[str, UdpPlan]) -> None:
        """
        Bind what is new. Raises `AssemblyError`; `abandon` must follow then.
        """
        for name, plan in plans.items():
            door = self._held(name, plan)
            if door is not None:
                # It may be leaving, and must not be gone when it is time.
                door.is_wanted = True
            else:
                self._refuse_overlap(name, plan)
                sock = self._bind(name, *plan.address)
                self._new[name] = UdpDoor(sock, plan.address, plan.entrypoint, self.tally, self._reactor, self._deadlines)

    def _held(self, name: str, plan: UdpPlan) -> UdpDoor | None:
        """
        Return the door that has the address already. Port 0 stands for a port of the entrypoint's own.
        """
        for held, door in self._doors.items():
            if door.address == plan.address and (plan.address[1] or held == name):
                return door
        return next((door for door in self.leaving if door.address == plan.address and plan.address[1]), None)

    def _refuse_overlap(self, name: str, plan: UdpPlan) -> None:
        host, port = plan.address
        for door in (*self._doors.values(), *self.leaving):
            if port and door.address[1] == port and (not host or not door.address[0]):
                # Our own door holds the port, and will until the swap, which must not fail.
                raise AssemblyError(
                    f'entrypoint "{name}" cannot listen on port {port}/udp: this gateway itself does, for entrypoint '
                    f'"{door.entrypoint.name}" at another address; such a change needs a restart'
                )

    def abandon(self) -> None:
        """
        Close what `prepare` has bound.
        """
        new, self._new = self._new, {}
        for door in new.values():
            door.close()
        for door in self._doors.values():
            door.is_wanted = False
        for door in list(self.leaving):
            door.release()

    def commit(self, plans: Mapping[str, UdpPlan]) -> None:
        """
        Serve what was prepared, and let the doors go that are not wanted any more. Cannot fail.
        """
        old = self._doors
        doors = {}
        new, self._new = self._new, {}
        for name, plan in plans.items():
            door = new.get(name) or self._held(name, plan)
            assert door is not None
            doors[name] = door
        self._doors = doors
        for name, door in doors.items():
            self.leaving.discard(door)
            door.is_wanted = False
            door.idle = None
            door.open()
            door.serve(plans[name].entrypoint)
        for door in set(old.values()) - set(doors.values()):
            self.leaving.add(door)
            door.idle = lambda door=door: self.leaving.discard(door)
            door.drain()

    def listening(self) -> list[socket.socket]:
        """
        Return the sockets of the running generation.
        """
        return [door.listening for door in self._doors.values() if door.listening is not None]

    def passed_on(self, sockets: Collection[socket.socket]) -> None:
        """
        Leave to another process what comes to these `sockets` from now on.
        """
        for door in self._doors.values():
            if door.listening in sockets:
                door.pass_on()

    def all(self) -> list[UdpDoor]:
        """
        Return every door that may have sessions.
        """
        return [*self._doors.values(), *self.leaving]

    def doors(self) -> dict[str, UdpDoor]:
        """
        Return the doors of the running generation by entrypoint.
        """
        return dict(self._doors)

    def clear(self) -> None:
        """
        Forget the doors, all of which are closed.
        """
        self._doors = {}
        self.leaving = set()
