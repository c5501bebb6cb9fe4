"""
Read what a server answers over HTTP/2, and write what it is asked.

The session has seen to it that a field section is well-formed (RFC 9113 section 8): pseudo-header fields first and only those of a
response, names in lower case, no connection-specific fields, `Content-Length` that agrees with the body. What stands here gives it the form
that every room shares.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from a3sgw.errors import Outcome, UpstreamError
from a3sgw.message import Field, ResponseHead
from a3sgw.wire.fields import FORBIDDEN_TRAILERS, PLAIN, RESPONSE_KINDS
from a3sgw.wire.http1 import CHUNKED, status_line
from a3sgw.wire.http2 import Fields

__all__ = ["read_response", "read_trailers", "trailer_pairs"]

MAX_FIELDS: Final = 256

_new_field: Final = tuple.__new__
_LEFT_OUT: Final = frozenset([name for name, kind in RESPONSE_KINDS.items() if kind != PLAIN and name not in (b"date", b"content-length")])


def read_response(fields: Fields, method: bytes, *, ended: bool) -> ResponseHead:
    """
    Return the head of a response to a request by `method`; `ended` says that no body follows. Raises `UpstreamError`.
    """
    if len(fields) > MAX_FIELDS:
        raise UpstreamError(Outcome.RESPONSE_HEADERS_TOO_LARGE)
    name, value = fields[0]
    if name != b":status" or not value.isdigit() or not 100 <= int(value) < 600:
        raise UpstreamError(Outcome.RESPONSE_MALFORMED, f"the status {value[:16]!r}")
    status = int(value)
    head = ResponseHead(status, status_line(status))
    append = head.fields.append
    length = -3
    for pair in fields[1:]:
        name, value = pair
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18 or length != -3:
                raise UpstreamError(Outcome.RESPONSE_MALFORMED, "Content-Length")
            length = int(value)
        elif name not in _LEFT_OUT:
            if name == b"date":
                head.has_date = True
            append(_new_field(Field, (name, value, b"%b: %b" % pair)))
    if status < 200 or status == 204:
        return head
    if method == b"HEAD" or status == 304:
        head.declared_length = length
    elif ended:
        head.declared_length = 0
    elif length >= 0:
        head.length = head.declared_length = length
    else:
        head.length = CHUNKED
    return head


def read_trailers(fields: Fields) -> list[Field]:
    """
    Return those of the fields after a body that may stand there.
    """
    return [
        Field(name, value, b"%b: %b" % (name, value)) for name, value in fields if name[:1] != b":" and name not in FORBIDDEN_TRAILERS
    ]


def trailer_pairs(trailers: Sequence[Field]) -> Fields:
    """
    Return trailers as they are sent over HTTP/2.
    """
    return [(field[0], field[1]) for field in trailers]
