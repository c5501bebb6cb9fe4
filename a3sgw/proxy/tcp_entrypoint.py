"""
One generation's view of a tcp entrypoint, and where its routes lead.
"""

from __future__ import annotations

import attrs

from a3sgw.interfaces import IConnectionGate
from a3sgw.proxy.entrypoint import Observers
from a3sgw.route.table import TcpTable
from a3sgw.service.service import Service, ServiceSettings

__all__ = ["TcpEntrypoint", "TcpRoute"]


@attrs.frozen(slots=True)
class TcpRoute:
    """
    Where a connection goes: a router's `name`, its service, and whom the middlewares of the router let pass.

    `settings` are those of the service as the router would have them. `is_passthrough` says that TLS is for the server to speak, whatever
    the entrypoint has.
    """

    name: str
    service: Service
    settings: ServiceSettings
    hooks: tuple[IConnectionGate, ...] = ()
    is_passthrough: bool = False

    @property
    def service_name(self) -> str:
        """
        What the service is called.
        """
        return self.service.name


@attrs.frozen(slots=True, eq=False)
class TcpEntrypoint:
    """
    The table of routes and the terms for clients at one tcp entrypoint, for one generation. A connection keeps it to its end.

    `hello_timeout` is how long a client may take for its first bytes if the rules need them, `idle_timeout` how long nothing may move
    (`None` is for ever); both in seconds.
    """

    name: str
    table: TcpTable[TcpRoute]
    observers: Observers
    hello_timeout: float = 5.0
    idle_timeout: float | None = None
