"""
Values made of constants and of what is known of the request.

A template is taken apart once, when its middleware is built; a request pays for one formatting. What can be filled in was checked when the
request was read: an address, a host, a path, a method, a token. None of them can hold a line break, so no client can begin a header of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from a3sgw.config.values import Secret
from a3sgw.config.wording import quote

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["PLACEHOLDERS", "Template", "template_faults"]

PLACEHOLDERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "client_ip": lambda exchange: exchange.head.client,
    "entrypoint": lambda exchange: exchange.entrypoint.name.encode(),
    "host": lambda exchange: exchange.head.host,
    "method": lambda exchange: exchange.head.method,
    "path": lambda exchange: exchange.head.path,
    "query": lambda exchange: exchange.head.query,
    "request_id": lambda exchange: exchange.head.request_id,
    "router": lambda exchange: exchange.route.name.encode(),
    "scheme": lambda exchange: exchange.forwarding.scheme,
}
"""What stands in braces, and where it is found."""

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template:
    """
    One value. `constant` is the whole of it if nothing has to be filled in, else `None`.

    A value from the environment is taken as it is: a password may hold braces.
    """

    __slots__ = ("_format", "_getters", "constant")

    def __init__(self, value: str | Secret) -> None:
        getters: list[Callable[[Any], bytes]] = []
        if isinstance(value, Secret):
            text = value.reveal().replace("%", "%%")
        else:
            text = _PIECE.sub(lambda match: self._piece(match, getters), value.replace("%", "%%"))
        self._format: Final = text.strip(" \t").encode()
        self._getters: Final = tuple(getters)
        self.constant: Final = None if getters else self._format % ()

    @staticmethod
    def _piece(match: re.Match[str], getters: list[Callable[[Any], bytes]]) -> str:
        if match[1] is None:
            return match[0][0]
        getters.append(PLACEHOLDERS[match[1]])
        return "%b"

    def fill(self, exchange: Exchange) -> bytes:
        """
        Return the value for `exchange`.
        """
        return self._format % tuple([get(exchange) for get in self._getters])


def template_faults(value: str | Secret) -> Iterator[str]:
    """
    Give what is wrong with a value: parts of sentences that begin with it.
    """
    if isinstance(value, Secret):
        text = value.reveal()
        for name in PLACEHOLDERS:
            if f"{{{name}}}" in text:
                yield f"holds {{{name}}} and something from the environment, which is taken as it is; use one or the other"
        return
    for match in _PIECE.finditer(value):
        if match[0] in ("{", "}"):
            yield f'has a single "{match[0]}"; write "{match[0] * 2}" if it is meant to be there'
        elif match[1] is not None and match[1] not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            yield f'holds {quote(match[0])}, which is no placeholder; there are {known}, and "{{{{" stands for a brace'
