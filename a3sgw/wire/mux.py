"""
The words of `ws-mux`: named channels over one WebSocket, in text messages.

| A client says | It is answered |
|---|---|
| `_sub:CHANNEL` | `_ok:subscribed to CHANNEL`, `_ok:already subscribed to CHANNEL`, `_error:max channels (N) reached` |
| `_unsub:CHANNEL` | `_ok:unsubscribed from CHANNEL`, `_ok:not subscribed to CHANNEL` |
| either, with what is no channel | `_error:invalid channel name` |
| `_list` | `_channels:["a","b"]` |
| `_ping` | `_pong` |
| `CHANNEL:PAYLOAD` | nothing; it is published if the client is subscribed to the channel, and dropped if not |
| anything else | `_error:invalid message format` |

What is published reaches subscribers as it was said: `CHANNEL:PAYLOAD`. The payload may hold anything, colons too.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from typing import Final

__all__ = ["BAD_CHANNEL", "BAD_MESSAGE", "PONG", "Verb", "is_channel", "read_message", "tell_channels"]

PONG: Final = "_pong"
BAD_MESSAGE: Final = "_error:invalid message format"
BAD_CHANNEL: Final = "_error:invalid channel name"
_LONGEST: Final = 128


class Verb(enum.Enum):
    """
    What a message asks for.
    """

    SUBSCRIBE = "_sub"
    UNSUBSCRIBE = "_unsub"
    LIST = "_list"
    PING = "_ping"
    PUBLISH = ""
    NOTHING = "_"
    """The message is none of these."""


_WORDS: Final = {"_ping": Verb.PING, "_list": Verb.LIST}
_COMMANDS: Final = {"_sub": Verb.SUBSCRIBE, "_unsub": Verb.UNSUBSCRIBE}


def is_channel(name: str) -> bool:
    """
    Say whether a channel may be called so: 1 to 128 printable characters, no colon, no underscore at the beginning.
    """
    return 0 < len(name) <= _LONGEST and name[0] != "_" and ":" not in name and name.isprintable()


def read_message(text: str) -> tuple[Verb, str, str]:
    """
    Return what `text` asks for, the channel without surrounding blanks (which may be none that there can be), and the payload.
    """
    before, colon, after = text.partition(":")
    if not colon:
        return _WORDS.get(text, Verb.NOTHING), "", ""
    if before[:1] == "_":
        return _COMMANDS.get(before, Verb.NOTHING), after.strip(), ""
    channel = before.strip()
    return (Verb.PUBLISH if channel else Verb.NOTHING), channel, after


def tell_channels(names: Iterable[str]) -> str:
    """
    Return the answer to `_list`.
    """
    return "_channels:" + json.dumps(list(names), ensure_ascii=False, separators=(",", ":"))
