"""
Let some routers have TLS as clients speak it, at an entrypoint that speaks it itself for all others.

The ClientHello says which router a connection is for, so it is read before anybody answers it. Who says nothing that can be understood is
routed as a client that names no server; if that leads to no such router, TLS is what tells it why not.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning
from a3sgw.listen.first_bytes import FirstBytes
from a3sgw.net.caller import Caller
from a3sgw.route.match import ConnectionFacts
from a3sgw.wire.clienthello import ClientHello, ClientHelloError, read_client_hello

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
        Wait for the ClientHello, unless the client's address decides.
        """
        route, is_certain = door.entrypoint.table.match_early(caller.packed)
        if is_certain:
            return self.following(route).begin(door, stream, caller)
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

    __slots__ = ("_beginning",)

    def __init__(self, door: Any, stream: Any, caller: Caller, beginning: PassthroughBeginning) -> None:
        super().__init__(door, stream, caller, door.entrypoint.hello_timeout)
        self._beginning = beginning

    def look(self) -> None:
        """
        The ClientHello, or a part of it, or something else.
        """
        try:
            hello = read_client_hello(self.pending)
        except ClientHelloError:
            self._go_on(None)
        else:
            if hello is not None:
                self._go_on(hello)

    def deadline_passed(self) -> None:
        """
        The client has had its time to name a server.
        """
        self._go_on(None)

    def _go_on(self, hello: ClientHello | None) -> None:
        packed = self.caller.packed
        facts = ConnectionFacts(None, (), packed) if hello is None else ConnectionFacts(hello.server_name, hello.alpn, packed)
        following = self._beginning.following(self.door.entrypoint.table.match(facts))
        self.door.hand_over(self, following, self.stream, self.caller, self.pending)
