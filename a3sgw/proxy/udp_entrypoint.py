"""
One generation's view of a udp entrypoint, and where its routes lead.
"""

from __future__ import annotations

import attrs

from a3sgw.address import AddressSet
from a3sgw.interfaces import IConnectionGate
from a3sgw.proxy.entrypoint import Observers
from a3sgw.route.table import TcpTable
from a3sgw.service.service import Service

__all__ = ["UdpEntrypoint", "UdpRoute"]


@attrs.frozen(slots=True)
class UdpRoute:
    """
    Where a client's datagrams go: a router's `name`, its service, and whom the middlewares of the router let pass.
    """

    name: str
    service: Service
    hooks: tuple[IConnectionGate, ...] = ()

    @property
    def service_name(self) -> str:
        """
        What the service is called.
        """
        return self.service.name


@attrs.frozen(slots=True, eq=False)
class UdpEntrypoint:
    """
    The table of routes and the terms for clients at one udp entrypoint, for one generation.

    `allowed` are the addresses that may send (`None` is everybody), `hooks` whom the middlewares of the entrypoint let in. A client is
    known for `session_timeout` seconds after anything moved; at most `max_sessions` are.
    """

    name: str
    table: TcpTable[UdpRoute]
    observers: Observers
    allowed: AddressSet | None = None
    hooks: tuple[IConnectionGate, ...] = ()
    session_timeout: float = 30.0
    max_sessions: int = 10_000
