"""
Frames between the processes of one gateway: a message of plain JSON values, raw bytes, and the number of descriptors that come with it.

A frame begins with the sizes of its two parts and that number, so that neither has to be looked through. Configurations and counts may be
of any size, which is why this is not AMP, whose values end at 64 KiB.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final, NamedTuple

__all__ = ["Frame", "FrameReader", "encode_frame"]

_SIZES: Final = struct.Struct("!III")


class Frame(NamedTuple):
    """
    One message. `descriptors` is how many were sent with it.
    """

    message: Any
    blob: bytes
    descriptors: int


def encode_frame(message: Any, blob: bytes = b"", descriptors: int = 0) -> bytes:
    """
    Return the frame. Raises `TypeError` if `message` is no plain JSON value.
    """
    text = json.dumps(message, separators=(",", ":")).encode("ascii")
    return _SIZES.pack(len(text), len(blob), descriptors) + text + blob


class FrameReader:
    """
    Puts frames together from what arrives.
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take the next bytes; return the frames that are whole now.
        """
        arrived = self._data
        arrived += data
        frames = []
        start = 0
        while len(arrived) - start >= _SIZES.size:
            text_size, blob_size, descriptors = _SIZES.unpack_from(arrived, start)
            text_start = start + _SIZES.size
            blob_start = text_start + text_size
            end = blob_start + blob_size
            if len(arrived) < end:
                break
            frames.append(Frame(json.loads(arrived[text_start:blob_start]), bytes(arrived[blob_start:end]), descriptors))
            start = end
        del arrived[:start]
        return frames
