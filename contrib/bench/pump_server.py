"""
The other end of the pump: `python -m contrib.bench.pump_server PORT`.

Each connection begins with a head that names a direction and a number of bytes, and is answered as a WebSocket handshake is, whatever the
proxy between takes it for. Then the bytes go down, or come up and are acknowledged. They are the same block again and again, and every
block is compared.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from contextlib import suppress

__all__ = ["BLOCK", "SWITCH", "head_for", "read_head", "receive_blocks", "send_blocks"]

BLOCK = bytes(range(256)) * 256
"""64 KiB."""

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    # What RFC 6455 section 1.3 makes of the key in the request.
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_ORDER = re.compile(rb"GET /(down|up)\?blocks=(\d+) ")


def head_for(direction: str, blocks: int) -> bytes:
    """
    Return the head that asks for so many blocks.
    """
    return (
        f"GET /{direction}?blocks={blocks} HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def read_head(connection: socket.socket) -> bytes:
    """
    Read up to the end of a head and not a byte further. Raises `ValueError` if there is none.
    """
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece or len(data) > 8192:
            raise ValueError(f"the head broke off after {data!r:.200}")
        data += piece
    return data


def send_blocks(connection: socket.socket, blocks: int) -> None:
    """
    Send the block so many times.
    """
    for _ in range(blocks):
        connection.sendall(BLOCK)


def receive_blocks(connection: socket.socket, blocks: int) -> None:
    """
    Receive the block so many times. Raises `ValueError` if a byte is missing or another.
    """
    place = bytearray(len(BLOCK))
    view = memoryview(place)
    for number in range(blocks):
        filled = 0
        while filled < len(BLOCK):
            # Not all at once by a flag: a socket with a time limit heeds none.
            received = connection.recv_into(view[filled:])
            if not received:
                raise ValueError(f"block {number} of {blocks} broke off after {filled} bytes")
            filled += received
        if place != BLOCK:
            raise ValueError(f"block {number} of {blocks} is not the one that was sent")


def _serve(connection: socket.socket) -> None:
    # Proxies and readiness checks may connect and say nothing.
    with connection, suppress(OSError, ValueError):
        order = _ORDER.match(read_head(connection))
        if order is None:
            return
        connection.sendall(SWITCH)
        blocks = int(order[2])
        if order[1] == b"down":
            send_blocks(connection, blocks)
        else:
            receive_blocks(connection, blocks)
            connection.sendall(b"received")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


def main() -> None:
    """
    Serve for ever.
    """
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as listening:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
