"""
Tell servers whom a client's certificate is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from a3sgw.interfaces import IIdentitySource, IRequestHook
from a3sgw.message import make_field

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["ClientSubject"]


@implementer(IRequestHook, IIdentitySource)
class ClientSubject:
    """
    Stands before the middlewares of an entrypoint with client certificates. `name` is the header; nobody else may set it.
    """

    def __init__(self, name: str) -> None:
        self._name = name.encode("ascii")
        self.identity_fields = frozenset([self._name.lower()])

    def on_request(self, exchange: Exchange) -> None:
        """
        Add the header, if the client has proved who it is.
        """
        facts = exchange.caller.tls
        head = exchange.head
        assert head is not None
        if facts is not None and facts.subject:
            head.fields.append(make_field(self._name, facts.subject))
