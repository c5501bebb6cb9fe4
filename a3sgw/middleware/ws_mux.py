"""
`ws-mux`: named channels over one WebSocket, which ends at the gateway.

The words are those of `wire.mux`, a connection is `mux_connection`, where messages meet is `mux_hub`, and how they get to other processes
is `mux_redis`.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FILE, FLAG, NAME, Duration, Integer, SecretText, Word
from a3sgw.config.redis_url import parse_redis_url
from a3sgw.config.setting import label, setting
from a3sgw.config.values import Secret
from a3sgw.interfaces import IRequestHook, IRetirable, IStateSource
from a3sgw.message import SwitchingResponse, get_all_fields, get_field, make_field
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.mux_hub import Hub, MuxTally
from a3sgw.middleware.mux_post import PostBus
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.wire.handshake import WEBSOCKET
from a3sgw.wire.websocket import accept_key

if TYPE_CHECKING:
    from a3sgw.message import LocalResponse
    from a3sgw.proxy.exchange import Exchange

__all__ = ["WsMux", "WsMuxConfig", "factory"]


def _check_redis_url(text: str) -> str:
    parse_redis_url(text)
    return text


@attrs.frozen(kw_only=True)
class WsMuxConfig:
    """
    Named channels over one WebSocket, which ends at the gateway: clients subscribe to channels, and what one publishes in a channel reaches
    all who are subscribed to it. Requests that are no WebSocket go on to the service.

    The words are text messages; see [WebSockets](websocket.md#channels-over-one-websocket). Who may connect is for middlewares listed
    before this one.
    """

    type: ClassVar[str] = "ws-mux"
    example: ClassVar[str] = """
        middlewares "events" {
          type         = "ws-mux"
          max_channels = 16
          echo         = false
        }
        """

    name: str = label()
    hub: str | None = setting(
        NAME,
        "The channels of which hub: middlewares that name the same one share theirs. Without it, the middleware's own name.",
        default=None,
    )
    echo: bool = setting(FLAG, "Whether a client that is subscribed gets what it publishes itself.", default=True)
    max_channels: int = setting(Integer(minimum=1, maximum=10_000), "How many channels one connection may be subscribed to.", default=64)
    buffer_messages: int = setting(
        Integer(minimum=1, maximum=1_000_000), "How many messages of each channel are kept for a client that does not keep up.", default=256
    )
    buffer_bytes: int = setting(
        Integer(minimum=1024, maximum=2**30, unit="bytes"), "How much is kept for it in all channels together.", default=1 << 20
    )
    overflow: str = setting(
        Word(("drop-oldest", "close")),
        "What happens when there is more: the oldest message is dropped, or the connection is closed with 1013.",
        default="drop-oldest",
    )
    max_message_bytes: int = setting(
        Integer(minimum=16, maximum=1 << 20, unit="bytes"),
        "How large a client's message may be; a larger one is refused with 1009.",
        default=65536,
    )
    ping_interval: float = setting(
        Duration(), "How often a client is asked for a sign of life; one that gives none until the next time is gone.", default=30.0
    )
    subprotocol: str | None = setting(
        NAME, "The sub-protocol to agree on with clients that offer it; without it, none is agreed on.", default=None
    )
    redis_url: Secret | None = setting(
        SecretText("a URL that begins with redis://, rediss:// or unix://", _check_redis_url),
        "The Redis through which hubs of the same name in other gateways share their channels; written as in "
        "[`rate-limit-redis`](#rate-limit-redis). Without it, channels are those of one gateway.",
        default=None,
    )
    redis_ca_file: str | None = setting(
        FILE, "PEM file of the authorities that may vouch for a `rediss://` server; without it, the system's.", default=None
    )
    redis_cert_file: str | None = setting(FILE, "PEM file of the gateway's own certificate, together with `redis_key_file`.", default=None)
    redis_key_file: str | None = setting(FILE, "PEM file of its key.", default=None)

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        if (self.redis_cert_file is None) is not (self.redis_key_file is None):
            given, lacking = ("cert", "key") if self.redis_key_file is None else ("key", "cert")
            yield f"redis_{given}_file", f"has redis_{given}_file without redis_{lacking}_file; give both"
        is_tls = self.redis_url is not None and parse_redis_url(self.redis_url.reveal()).is_tls
        for key in ("redis_ca_file", "redis_cert_file"):
            if getattr(self, key) is not None and not is_tls:
                yield key, f"has {key}, but no redis_url that asks for TLS; write rediss://"


@implementer(IRequestHook, IStateSource, IRetirable)
class WsMux:
    """
    The way of one router to a hub.
    """

    def __init__(self, config: WsMuxConfig, surroundings: Surroundings) -> None:
        # Only who uses it pays for the import of the WebSocket library.
        from a3sgw.middleware.mux_connection import Bounds, MuxConnection

        self._connect = MuxConnection
        self._bounds = Bounds(
            max_channels=config.max_channels,
            buffer_messages=config.buffer_messages,
            buffer_bytes=config.buffer_bytes,
            closes_slow=config.overflow == "close",
            max_message_bytes=config.max_message_bytes,
            ping_interval=config.ping_interval,
            echo=config.echo,
        )
        self._subprotocol = None if config.subprotocol is None else config.subprotocol.encode()
        self._tally = MuxTally()
        name = config.hub or config.name
        self._hub: Hub = surroundings.shared(("ws-mux", name, _redis_key(config)), lambda: _make_hub(name, config, surroundings))
        self._hub.users.add(self)

    def __repr__(self) -> str:
        return f"<WsMux to {self._hub!r}, {self._tally!r}>"

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Accept a WebSocket.
        """
        head = exchange.head
        assert head is not None
        if head.upgrade != WEBSOCKET:
            return None
        key = get_field(head.fields, b"sec-websocket-key") or b""
        fields = [make_field(b"Upgrade", WEBSOCKET), make_field(b"Sec-WebSocket-Accept", accept_key(key))]
        offered = b",".join(get_all_fields(head.fields, b"sec-websocket-protocol")).split(b",")
        if self._subprotocol is not None and self._subprotocol in [name.strip() for name in offered]:
            fields.append(make_field(b"Sec-WebSocket-Protocol", self._subprotocol))
        return SwitchingResponse(fields, self._begin)

    def _begin(self, stream: Any, data: bytes, ended: Any) -> Any:
        connection = self._connect(stream, self._hub, self._bounds, self._tally, ended)
        connection.start(data)
        return connection

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return what is connected and what was said by this way, and how many channels the hub has here.
        """
        tally = self._tally
        told: dict[str, str | int | float] = {
            "hub": self._hub.name,
            "connections": tally.connections,
            "channels": len(self._hub.channel_names),
            "messages_received": tally.received,
            "messages_sent": tally.sent,
            "messages_dropped": tally.dropped,
        }
        if self._hub.bus is not None:
            told.update(self._hub.bus.describe())
        return told

    def retire(self) -> None:
        """
        Let the hub go; if no other way leads there, it closes its connections with 1012.
        """
        self._hub.give_up(self)


def _redis_key(config: WsMuxConfig) -> tuple[object, ...]:
    return (config.redis_url, config.redis_ca_file, config.redis_cert_file, config.redis_key_file)


def _make_hub(name: str, config: WsMuxConfig, surroundings: Surroundings) -> Hub:
    if config.redis_url is None:
        post = surroundings.post
        return Hub(name, None if post is None else PostBus(name, post))
    from a3sgw.middleware.mux_redis import RedisBus

    address = parse_redis_url(config.redis_url.reveal())
    files = (config.redis_ca_file, config.redis_cert_file, config.redis_key_file)
    return Hub(name, RedisBus(name, address, files, surroundings))


factory = MiddlewareFactory(WsMuxConfig, WsMux)
