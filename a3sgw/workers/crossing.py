"""
Requests and answers of the gateway's own API as plain values, so that they can cross from one process to another.

Bytes become text one to one (latin-1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from a3sgw.errors import Outcome
from a3sgw.message import Field, LocalResponse, RequestHead

__all__ = ["pack_head", "pack_response", "unpack_head", "unpack_response"]

_OUTCOMES: Final = {outcome.word: outcome for outcome in Outcome}
_FIELDS: Final = ("fields", "forwarded")


def pack_head(head: RequestHead) -> dict[str, Any]:
    """
    Return everything that a request's head says.
    """
    return {name: _pack(getattr(head, name)) for name in RequestHead.__slots__}


def _pack(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return [_pack(item) for item in value] if isinstance(value, (tuple, list, set, frozenset)) else value


def unpack_head(packed: Mapping[str, Any]) -> RequestHead:
    """
    Return the head that was packed.
    """
    head = RequestHead(b"", b"")
    for name, value in packed.items():
        if name in _FIELDS:
            setattr(head, name, [_unpack_field(row) for row in value])
        elif name == "nominated":
            head.nominated = frozenset(each.encode("latin-1") for each in value)
        else:
            setattr(head, name, value.encode("latin-1") if isinstance(value, str) else value)
    return head


def _unpack_field(row: list[str]) -> Field:
    name, value, line = row
    return Field(name.encode("latin-1"), value.encode("latin-1"), line.encode("latin-1"))


def pack_response(response: LocalResponse) -> list[Any]:
    """
    Return everything that an answer says but its body.
    """
    return [response.status, _pack(response.fields), None if response.outcome is None else response.outcome.word]


def unpack_response(packed: list[Any], body: bytes) -> LocalResponse:
    """
    Return the answer that was packed, with its body.
    """
    status, fields, word = packed
    return LocalResponse(status, [_unpack_field(row) for row in fields], body, None if word is None else _OUTCOMES[word])
