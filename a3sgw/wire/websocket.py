"""
The frames of a WebSocket (RFC 6455 section 5), as far as somebody must know them who passes them on, or says the same to many.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

__all__ = ["GOING_AWAY", "FrameBounds", "accept_key", "going_away", "text_frame"]

GOING_AWAY: Final = 1001
"""The code for a server that goes down (RFC 6455 section 7.4.1)."""

_CLOSE: Final = 8
_WHOLE_TEXT: Final = b"\x81"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: bytes) -> bytes:
    """
    Return what a server says in `Sec-WebSocket-Accept` to a client's `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
    """
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def text_frame(payload: bytes) -> bytes:
    """
    Return a server's frame with a whole text message.
    """
    size = len(payload)
    if size < 126:
        return _WHOLE_TEXT + bytes((size,)) + payload
    if size < 65536:
        return b"%b\x7e%b%b" % (_WHOLE_TEXT, size.to_bytes(2, "big"), payload)
    return b"%b\x7f%b%b" % (_WHOLE_TEXT, size.to_bytes(8, "big"), payload)


def going_away(mask: bytes = b"") -> bytes:
    """
    Return a close frame with `GOING_AWAY`; what a client sends must be masked, with four bytes that nobody can foresee.
    """
    payload = GOING_AWAY.to_bytes(2, "big")
    if not mask:
        return bytes([0x80 | _CLOSE, len(payload)]) + payload
    masked = bytes(byte ^ key for byte, key in zip(payload, mask, strict=False))
    return bytes([0x80 | _CLOSE, 0x80 | len(payload)]) + mask + masked


class FrameBounds:
    """
    Where the frames of one direction end.

    Nothing is checked: what is no frame to one side will be none to the other. `is_between` says that the last frame fed is complete and
    was no close, behind which nothing may follow.

    Hot path: see docs/hot-path.md.
    """

    __slots__ = ("_head", "_left", "has_closed")

    def __init__(self) -> None:
        self._left = 0
        self._head = b""
        self.has_closed = False

    @property
    def is_between(self) -> bool:
        """
        Whether a frame could follow now.
        """
        return not self._left and not self._head and not self.has_closed

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes.
        """
        left = self._left - len(data)
        if left >= 0:
            # Most common case of what is large: the middle of a frame.
            self._left = left
            return
        position = self._left
        if self._head:
            # Then nothing was left of a frame.
            data = self._head + data
        end = len(data)
        while position < end:
            head = data[position : position + 10]
            size = _frame_size(head)
            if not size:
                self._head = head
                self._left = 0
                return
            if head[0] & 15 == _CLOSE:
                self.has_closed = True
            position += size
        self._head = b""
        self._left = position - end


def _frame_size(head: bytes) -> int:
    """
    Return how long a frame is whose first bytes (ten, if there are) are `head`, or 0 if that is not known yet.
    """
    if len(head) < 2:
        return 0
    length = head[1] & 127
    size = 6 if head[1] & 128 else 2
    if length < 126:
        return size + length
    extra = 2 if length == 126 else 8
    if len(head) < 2 + extra:
        return 0
    return size + extra + int.from_bytes(head[2 : 2 + extra], "big")
