"""
Read what a request would change its connection to (RFC 9110 section 7.8), and what a WebSocket must say first (RFC 6455 section 4).

The gateway changes no protocol by itself: it passes the wish on, and believes the backend's 101. What it checks is what every server must
refuse, so that no backend is asked to.
"""

from __future__ import annotations

import base64
import os
import re
from typing import Final

from a3sgw.errors import DownstreamError, Outcome
from a3sgw.message import RequestHead, get_all_fields

__all__ = ["VERSION", "WEBSOCKET", "check_websocket", "new_key", "protocols"]

WEBSOCKET: Final = b"websocket"
_PROTOCOL: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+(?:/[!#$%&'*+.^_`|~0-9a-z-]+)?")
# In these, requests would go past the gateway that it never sees.
_HTTP: Final = re.compile(rb"h2|http|tls")
# Sixteen bytes.
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
VERSION: Final = b"13"
"""The version of RFC 6455, and the only one."""


def new_key() -> bytes:
    """
    Return a key for a handshake that came without one.
    """
    return base64.b64encode(os.urandom(16))


def protocols(upgrade: bytes) -> list[bytes]:
    """
    Return, in lower case, the protocols that `Upgrade` names, all but those in which HTTP goes on.
    """
    names = [name.strip(b" \t") for name in upgrade.lower().split(b",")]
    return [name for name in names if _PROTOCOL.fullmatch(name) and not _HTTP.match(name)]


def check_websocket(head: RequestHead, *, is_nominated: bool) -> None:
    """
    Raise `DownstreamError` if `head`, which asks for a WebSocket, is not how one begins.

    `is_nominated` says that `Connection` names `upgrade`.
    """
    versions = get_all_fields(head.fields, b"sec-websocket-version")
    if len(versions) == 1 and versions[0] != VERSION:
        raise DownstreamError(Outcome.WEBSOCKET_VERSION_REFUSED, repr(versions[0][:64]))
    keys = get_all_fields(head.fields, b"sec-websocket-key")
    for is_wrong, what in (
        (not is_nominated, "Connection does not name upgrade"),
        (head.method != b"GET", "not GET"),
        (head.has_length or head.length, "with a body"),
        (len(keys) != 1, "no Sec-WebSocket-Key, or several"),
        (not versions or len(versions) > 1, "no Sec-WebSocket-Version, or several"),
    ):
        if is_wrong:
            raise DownstreamError(Outcome.WEBSOCKET_HANDSHAKE_MALFORMED, what)
    if _KEY.fullmatch(keys[0]) is None:
        raise DownstreamError(Outcome.WEBSOCKET_HANDSHAKE_MALFORMED, "Sec-WebSocket-Key is not 16 bytes in base64")
