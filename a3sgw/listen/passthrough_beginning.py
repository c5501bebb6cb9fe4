"""
Stand before TLS at a tcp entrypoint: clients of PostgreSQL ask for it first, and some routers have it as clients speak it.

The ClientHello says which router a connection is for, so it is read before anybody answers it. Who says nothing that can be understood is
routed as a client that names no server; if that leads to no router that takes it as it is, TLS is what tells it why not.
"""

from __future__ import annotations

from typing import Any

import attrs
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning
from a3sgw.listen.first_bytes import FirstBytes
from a3sgw.net.caller import Caller
from a3sgw.route.match import ConnectionFacts
from a3sgw.wire.opening import Opening

__all__ = ["PassthroughBeginning"]


@implementer(IBeginning)
class PassthroughBeginning:
    """
    The step that decides between `passing`, for routers that pass TLS through, and `secured`, which speaks it.
    """

    def __init__(self, passing: IBeginning, secured: IBeginning) -> None:
        self.passing = passing
        self.secured = secured

    def begin(self, door: Any, stream: Any, caller: Caller) -> Any:
        """
        Wait for the ClientHello, unless the client's address leads to a router that wants everything as it is.
        """
        route, is_certain = door.entrypoint.table.match_early(caller.packed)
        if is_certain and self.following(route) is self.passing:
            return self.passing.begin(door, stream, caller)
        return _HelloReader(door, stream, caller, self)

    def following(self, route: Any) -> IBeginning:
        """
        Return the next step for a connection with this route, or none.
        """
        return self.passing if route is not None and route.is_passthrough else self.secured

    def goodbye(self, outcome: Outcome) -> bytes:
        """
        As TLS has it, because more clients speak that.
        """
        return self.secured.goodbye(outcome)


class _HelloReader(FirstBytes):
    """
    A connection that has not said which server it is for.
    """

    __slots__ = ("_beginning", "_opening")

    def __init__(self, door: Any, stream: Any, caller: Caller, beginning: PassthroughBeginning) -> None:
        super().__init__(door, stream, caller, door.entrypoint.hello_timeout)
        self._beginning = beginning
        self._opening = Opening()

    def look(self) -> None:
        """
        The ClientHello, or a part of it, or something else.
        """
        answer = self._opening.take(self.pending)
        self.pending = b""
        if answer:
            self.stream.write(answer)
        found = self._opening.read()
        if found is not None:
            self._go_on(*found)

    def deadline_passed(self) -> None:
        """
        The client has had its time to name a server.
        """
        self._go_on()

    def _go_on(self, server_name: bytes | None = None, protocols: tuple[bytes, ...] = ()) -> None:
        facts = ConnectionFacts(server_name, protocols, self.caller.packed)
        following = self._beginning.following(self.door.entrypoint.table.match(facts))
        opening = self._opening
        caller = attrs.evolve(self.caller, has_asked_for_tls=True) if opening.asked else self.caller
        self.door.hand_over(self, following, self.stream, caller, opening.pending)
