"""
Small requests of the gateway's own, over its own client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from a3sgw.errors import Outcome, UpstreamError
from a3sgw.interfaces import IDestination, IOutbound
from a3sgw.message import Field, LocalResponse
from a3sgw.net.connect import Dialer
from a3sgw.service.service import Service

__all__ = ["Outbound"]


@implementer(IOutbound)
class Outbound:
    """
    The way out.
    """

    def __init__(self, dialer: Dialer, reactor: Any) -> None:
        self._dialer = dialer
        self._reactor = reactor

    def open(self, url: str) -> _Destination:
        """
        Return the destination of `url`.
        """
        return _Destination()

    def open_service(self, service: Service) -> _Destination:
        """
        Return a destination that asks `service`.
        """
        return _Destination()


@implementer(IDestination)
class _Destination:
    def fetch(
        self, method: bytes, target: bytes, fields: Sequence[Field], *, body: bytes, timeout: float, max_body_bytes: int
    ) -> Deferred[LocalResponse]:
        return fail(UpstreamError(Outcome.CONNECT_FAILED))

    def close(self) -> None:
        pass
