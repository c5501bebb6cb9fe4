"""
The words of gRPC: status codes, deadlines, messages with their lengths, the health protocol, and what gRPC-Web makes of trailers.

Sources: the "gRPC over HTTP2" and "gRPC-Web" protocol documents of the gRPC project, and `grpc/health/v1/health.proto`. gRPC itself needs
nothing of a gateway but HTTP/2 with trailers; what stands here is for the gateway's own answers and questions, and for browsers.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from a3sgw.message import Field, make_field

__all__ = [
    "GRPC",
    "GRPC_WEB",
    "GRPC_WEB_TEXT",
    "HEALTH_STATES",
    "SERVING",
    "STATUS_NAMES",
    "Base64Reader",
    "FrameReader",
    "code_for_status",
    "encode_health_request",
    "encode_message",
    "frame",
    "grpc_kind",
    "parse_timeout",
    "read_health_response",
    "read_message",
    "read_trailers",
    "trailers_frame",
]

GRPC: Final = b"application/grpc"
GRPC_WEB: Final = b"application/grpc-web"
GRPC_WEB_TEXT: Final = b"application/grpc-web-text"

STATUS_NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""The name of each code, in their order."""

_CODES: Final = {name: code for code, name in enumerate(STATUS_NAMES)}

# What a status of HTTP means to a gRPC client. As the gRPC project maps what proxies say, but for 413, which is about a bound that was
# exhausted, and 504, which is about time.
_BY_STATUS: Final = {
    400: _CODES["INTERNAL"],
    401: _CODES["UNAUTHENTICATED"],
    403: _CODES["PERMISSION_DENIED"],
    404: _CODES["UNIMPLEMENTED"],
    408: _CODES["DEADLINE_EXCEEDED"],
    413: _CODES["RESOURCE_EXHAUSTED"],
    429: _CODES["RESOURCE_EXHAUSTED"],
    431: _CODES["RESOURCE_EXHAUSTED"],
    500: _CODES["INTERNAL"],
    501: _CODES["UNIMPLEMENTED"],
    502: _CODES["UNAVAILABLE"],
    503: _CODES["UNAVAILABLE"],
    504: _CODES["DEADLINE_EXCEEDED"],
}

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": (3600, 1), b"M": (60, 1), b"S": (1, 1), b"m": (1, 1000), b"u": (1, 1000000), b"n": (1, 1000000000)}

_NOT_PLAIN: Final = re.compile(rb"[^ -$&-~]")

_TRAILERS: Final = 0x80
"""The bit in the first byte of a gRPC-Web frame that says that it holds trailers."""

SERVING: Final = 1
HEALTH_STATES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def grpc_kind(content_type: bytes) -> bytes:
    """
    Return which of `GRPC`, `GRPC_WEB` and `GRPC_WEB_TEXT` a `Content-Type` names, or nothing: `application/grpc+proto` is `GRPC`.
    """
    value = content_type.lower()
    if not value.startswith(GRPC):
        return b""
    for kind in (GRPC_WEB_TEXT, GRPC_WEB, GRPC):
        if value.startswith(kind) and value[len(kind) : len(kind) + 1] in (b"", b"+", b";", b" ", b"\t"):
            return kind
    return b""


def code_for_status(status: int) -> int:
    """
    Return the gRPC code for a status of HTTP.
    """
    return _BY_STATUS.get(status, _CODES["UNKNOWN"])


def parse_timeout(value: bytes) -> float | None:
    """
    Return the seconds that a `grpc-timeout` gives, or `None` if it is none: at most eight digits and a unit.
    """
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        return None
    times, divided_by = _UNITS[match[2]]
    return int(match[1]) * times / divided_by


def encode_message(text: str) -> bytes:
    """
    Return `text` as a `grpc-message`: UTF-8, with everything but plain characters percent-encoded.
    """
    return _NOT_PLAIN.sub(lambda found: b"%%%02X" % found[0][0], text.encode("utf-8", "replace"))


def read_message(value: bytes) -> str:
    """
    Return the text of a `grpc-message`. What is wrongly encoded is shown as it is, as the protocol asks.
    """
    return unquote_to_bytes(value).decode("utf-8", "replace")


# -- messages -------------------------------------------------------------------------------------------------------------------------


def frame(message: bytes, flags: int = 0) -> bytes:
    """
    Return a message with its flags and length before it.
    """
    return b"%c%b%b" % (flags, len(message).to_bytes(4, "big"), message)


class FrameReader:
    """
    Read messages that have their lengths before them. None may be larger than `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    @property
    def is_between_messages(self) -> bool:
        """
        Whether nothing of a further message has arrived.
        """
        return not self._buffer

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """
        Return the messages that are complete with `data`, each with its flags. `ValueError` for one that is too large.
        """
        buffer = self._buffer
        buffer += data
        found = []
        while len(buffer) >= 5:
            length = int.from_bytes(buffer[1:5], "big")
            if length > self._max_bytes:
                raise ValueError(f"a message of {length} bytes, where {self._max_bytes} are allowed")
            if len(buffer) < 5 + length:
                break
            found.append((buffer[0], bytes(buffer[5 : 5 + length])))
            del buffer[: 5 + length]
        return found


# -- health ---------------------------------------------------------------------------------------------------------------------------


def encode_health_request(service: str) -> bytes:
    """
    Return a `HealthCheckRequest` for `service`, with its length; without a name it asks about the server as a whole.
    """
    name = service.encode("utf-8")
    return frame(b"\x0a" + _varint(len(name)) + name if name else b"")


def read_health_response(data: bytes) -> int:
    """
    Return the `status` of a `HealthCheckResponse`, one of `HEALTH_STATES` or unknown. `ValueError` if it cannot be read.
    """
    messages = FrameReader(65536).feed(data)
    if len(messages) != 1 or messages[0][0]:
        raise ValueError("not exactly one message that is not compressed")
    message = messages[0][1]
    status = position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            if tag >> 3 == 1:
                status = value
        elif kind == 2:
            length, position = _read_varint(message, position)
            position += length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("a field of an unknown kind")
    if position > len(message):
        raise ValueError("a field that ends beyond the message")
    return status


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number that does not end")


# -- gRPC-Web -------------------------------------------------------------------------------------------------------------------------


def trailers_frame(trailers: Iterable[Field]) -> bytes:
    """
    Return trailers as the last message of a gRPC-Web body: names in lower case, as on an HTTP/1 wire, one to a line.
    """
    return frame(b"".join([b"%b: %b\r\n" % (name, value) for name, value, _ in trailers]), _TRAILERS)


def read_trailers(flags: int, message: bytes) -> Sequence[Field] | None:
    """
    Return the trailers that a gRPC-Web frame holds, or `None` if it is an ordinary message.
    """
    if not flags & _TRAILERS:
        return None
    found = []
    for line in message.split(b"\r\n"):
        name, separator, value = line.partition(b":")
        if separator:
            found.append(make_field(name, value.strip()))
    return found


class Base64Reader:
    """
    Decode a body in base64 as it comes. It may be several texts one after the other, each with its own padding.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """
        Return what can be decoded now. `ValueError` for what is no base64.
        """
        data = self._rest + data
        whole = len(data) & ~3
        self._rest = data[whole:]
        found = []
        position = 0
        while position < whole:
            # A text ends with the group that is padded.
            pad = data.find(b"=", position, whole)
            end = whole if pad < 0 else (pad & ~3) + 4
            try:
                found.append(base64.b64decode(data[position:end], validate=True))
            except binascii.Error as error:
                raise ValueError(str(error)) from None
            position = end
        return b"".join(found)

    def end(self) -> None:
        """
        The body has ended. `ValueError` if that was too early.
        """
        if self._rest:
            raise ValueError("the last group is not complete")
