"""
`ip-allow`: let through only some addresses; others are answered 403.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.address import AddressSet, pack_address
from a3sgw.config.kinds import FLAG, NETWORK
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import IRequestHook
from a3sgw.message import LocalResponse
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.refusal import refusal

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["IpAllow", "IpAllowConfig", "factory"]


@attrs.frozen(kw_only=True)
class IpAllowConfig:
    """
    Let through only some addresses; others are answered 403.

    What counts is the address of the client: that of the peer itself or, where the peer is a proxy among the entrypoint's
    `forwarded_headers.trusted_ips`, the nearest address in `X-Forwarded-For` that is not one of them. An IPv4 address in IPv6 form
    (`::ffff:192.0.2.1`) is the IPv4 address.
    """

    type: ClassVar[str] = "ip-allow"
    example: ClassVar[str] = """
        middlewares "office" {
          type        = "ip-allow"
          allowed_ips = ["192.0.2.0/24", "2001:db8::/32"]
        }
        """

    name: str = label()
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "Who may pass.")
    use_peer: bool = setting(
        FLAG, "Judge whoever holds the connection, a proxy or not, and believe nothing that it says of others.", default=False
    )


@implementer(IRequestHook)
class IpAllow:
    """
    The list of one router or entrypoint.
    """

    def __init__(self, config: IpAllowConfig, surroundings: Surroundings) -> None:
        self._allowed = AddressSet(config.allowed_ips)
        self._use_peer = config.use_peer

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Refuse everybody else.
        """
        head = exchange.head
        assert head is not None
        packed = pack_address(exchange.peer.decode("ascii")) if self._use_peer else head.client_packed
        return None if self._allowed.contains(packed) else refusal(Outcome.ACCESS_DENIED, head.request_id)


factory = MiddlewareFactory(IpAllowConfig, IpAllow)
