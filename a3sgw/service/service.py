"""
A pool of interchangeable backends, and the routes that lead to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from a3sgw.interfaces import IBalancer
from a3sgw.service.backend import Backend

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["Route", "Service", "ServiceSettings"]


@attrs.frozen(slots=True)
class ServiceSettings:
    """
    What exchanges with a service need to know; the names are those of its configuration. Times in seconds, sizes in bytes.
    """

    connect_timeout: float = 5.0
    response_header_timeout: float = 30.0
    idle_timeout: float = 60.0
    pass_host_header: bool = True
    max_replay_bytes: int = 65536


class Service:
    """
    Backends in configured order and the balancer that chooses among those that are usable.
    """

    __slots__ = ("_balancer", "_usable", "backends", "name", "retries", "settings", "strategy")

    def __init__(self, name: str, strategy: str, backends: Sequence[Backend], balancer: IBalancer, settings: ServiceSettings) -> None:
        self.name = name
        self.strategy = strategy
        self.backends = tuple(backends)
        self.settings = settings
        self.retries = 0
        self._balancer = balancer
        self._usable = tuple(backend for backend in backends if backend.is_usable)

    @property
    def usable(self) -> Sequence[Backend]:
        """
        The backends that may be chosen, in configured order.
        """
        return self._usable

    def choose(self, record: Record, tried: Sequence[Backend]) -> Backend | None:
        """
        Return the backend for the next attempt, or `None` if none is left. Those in `tried` are not chosen again.
        """
        candidates: Sequence[Backend] = self._usable
        if tried:
            candidates = [backend for backend in candidates if backend not in tried]
        if not candidates:
            return None
        return self._balancer.choose(candidates, record)

    def __repr__(self) -> str:
        return f"<Service {self.name} {len(self._usable)}/{len(self.backends)} usable>"


class Route:
    """
    Where a matched request goes: a router's name, its service, and the middlewares on the way (`None` if there are none). `series` are its
    metrics.
    """

    __slots__ = ("chain", "name", "series", "service", "service_name")

    def __init__(self, name: str, service: Service, series: Any, chain: Any = None) -> None:
        self.name = name
        self.chain = chain
        self.service = service
        self.service_name = service.name
        self.series = series

    def __repr__(self) -> str:
        return f"<Route {self.name} to {self.service_name}>"
