"""
What of a request says where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from a3sgw.message import RequestHead, get_field
from a3sgw.route.match import query_values
from a3sgw.wire.cookie import read_cookie

__all__ = ["KeyReader", "make_key_reader"]

KeyReader = Callable[[RequestHead], bytes | None]
"""Gives the key, or `None` or nothing if the request has none."""


def make_key_reader(source: str, name: str) -> KeyReader:
    """
    Return what reads the key out of `source`: `client-ip`, `path`, or the `header`, `cookie` or `query` parameter called `name`.

    If there are several of the name, the first counts. Names of headers have any letter case, those of cookies and parameters just the one.
    """
    return _READERS[source](name.encode("utf-8"))


def _client_reader(name: bytes) -> KeyReader:
    return lambda head: head.client_packed


def _path_reader(name: bytes) -> KeyReader:
    return lambda head: head.path


def _header_reader(name: bytes) -> KeyReader:
    lowered = name.lower()
    return lambda head: get_field(head.fields, lowered)


def _cookie_reader(name: bytes) -> KeyReader:
    def read(head: RequestHead) -> bytes | None:
        values = read_cookie(head.fields, name)
        return values[0] if values else None

    return read


def _query_reader(name: bytes) -> KeyReader:
    def read(head: RequestHead) -> bytes | None:
        if not head.query:
            return None
        values = query_values(head.query, name)
        return values[0] if values else None

    return read


_READERS: Final = {
    "client-ip": _client_reader,
    "path": _path_reader,
    "header": _header_reader,
    "cookie": _cookie_reader,
    "query": _query_reader,
}
