"""
The questions that PostgreSQL clients ask before TLS.

A client of PostgreSQL does not begin with a ClientHello, but with eight bytes that ask whether there may be one, and waits for the answer
in a single byte (PostgreSQL's documentation, chapter "Message Flow", "SSL Session Encryption"). Before that it may ask for encryption by
GSSAPI, which is declined, and then it asks for TLS.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["SSL_REQUEST", "read_encryption_request"]

SSL_REQUEST: Final = struct.pack("!IHH", 8, 1234, 5679)
"""The question for TLS, as clients ask it and as it is passed on to servers, who answer `S` for yes."""

_GSS_REQUEST: Final = struct.pack("!IHH", 8, 1234, 5680)
_ANSWERS: Final = {SSL_REQUEST: b"S", _GSS_REQUEST: b"N"}


def read_encryption_request(data: bytes) -> tuple[bytes, int] | None:
    """
    Return the answer to the question with which `data` begins and the question's length; an empty answer and 0 if there is none; or
    `None` if more must come to tell.
    """
    if len(data) >= 8:
        answer = _ANSWERS.get(data[:8])
        return (b"", 0) if answer is None else (answer, 8)
    return None if SSL_REQUEST.startswith(data) or _GSS_REQUEST.startswith(data) else (b"", 0)
