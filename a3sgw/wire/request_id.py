"""
Name requests, so that one can be found in everybody's logs.

The gateway's own identifiers are random digits of this process and a number: the cheapest that never come twice. The other forms are for
those whose tools expect them. What is random is given by the caller.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import os
import uuid
from itertools import count
from typing import Final

from a3sgw.wire.fields import ONLY_TOKEN

__all__ = ["MAX_BYTES", "is_own", "is_usable", "new_request_id", "ulid", "uuid4", "uuid7"]

MAX_BYTES: Final = 128
"""The longest identifier that is taken over from a client."""

_RUN = os.urandom(6).hex().encode()
_next_number = count(1).__next__
_CROCKFORD: Final = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _begin_anew() -> None:
    global _RUN
    _RUN = os.urandom(6).hex().encode()


# Workers are forked, and each is a process of its own.
os.register_at_fork(after_in_child=_begin_anew)


def new_request_id() -> bytes:
    """
    Return an identifier that no other request has: random digits for this process, then a number.
    """
    return b"%b%010x" % (_RUN, _next_number())


def is_own(request_id: bytes) -> bool:
    """
    Say whether this process made `request_id`. A client that has seen one can send another like it, so this may decide nothing that matters
    to anybody else.
    """
    return request_id.startswith(_RUN)


def is_usable(request_id: bytes) -> bool:
    """
    Say whether `request_id`, which a client sent, is safe to log and to pass on: a token (RFC 9110 section 5.6.2) of reasonable length.
    """
    return 0 < len(request_id) <= MAX_BYTES and request_id.translate(ONLY_TOKEN) == request_id


def uuid4(chance: int) -> bytes:
    """
    Return a random UUID (RFC 9562 section 5.4) made of the 128 bits of `chance`.
    """
    return str(uuid.UUID(int=chance, version=4)).encode("ascii")


def uuid7(milliseconds: int, chance: int) -> bytes:
    """
    Return a UUID that sorts by time (RFC 9562 section 5.7), made of `milliseconds` of the epoch and of the last 74 of the bits of `chance`.
    """
    number = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | (chance >> 62 & 0xFFF) << 64 | 2 << 62 | chance & (1 << 62) - 1
    return str(uuid.UUID(int=number)).encode("ascii")


def ulid(milliseconds: int, chance: int) -> bytes:
    """
    Return a ULID, 26 digits in Crockford's base 32 that sort by time, made of `milliseconds` of the epoch and of the last 80 of the bits of
    `chance`.
    """
    number = (milliseconds & (1 << 48) - 1) << 80 | chance & (1 << 80) - 1
    return bytes([_CROCKFORD[number >> shift & 31] for shift in range(125, -5, -5)])
