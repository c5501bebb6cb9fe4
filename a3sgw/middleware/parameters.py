"""
Find and remove single parameters of a query, for middlewares that look for a credential there.

The query is otherwise never touched (order, encoding and what is no parameter stay as they are).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from a3sgw.message import RequestHead

__all__ = ["query_value", "without_parameter"]


def query_value(query: bytes, name: bytes) -> list[bytes]:
    """
    Return every value of the parameter `name`, decoded.
    """
    found = []
    for part in query.split(b"&") if query else ():
        key, equals, value = part.partition(b"=")
        if equals and _decoded(key) == name:
            found.append(_decoded(value))
    return found


def without_parameter(head: RequestHead, name: bytes) -> None:
    """
    Take every parameter called `name` out of what the backend is asked for.
    """
    kept = b"&".join([part for part in head.query.split(b"&") if _decoded(part.partition(b"=")[0]) != name])
    if kept != head.query:
        head.query = kept
        head.target = head.path + b"?" + kept if kept else head.path


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
