"""
The others in `contrib.bench.udp`: a server that sends back what it gets, and a bare forwarding loop, which does as little as can be done in
Python: no idle time, no bound, no counts, no errors. `python -m contrib.bench.udp_peers echo PORT` and `… bare PORT SERVER`.
"""

from __future__ import annotations

import select
import socket
import sys
from typing import Any

__all__ = ["main"]

_MOST = 65535


def _echo(port: int) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port))
    while True:
        data, sender = sock.recvfrom(_MOST)
        sock.sendto(data, sender)


def _bare(port: int, server: int) -> None:
    front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    front.bind(("127.0.0.1", port))
    poller = select.epoll()
    poller.register(front, select.EPOLLIN)
    clients: dict[Any, socket.socket] = {}
    backs: dict[int, tuple[socket.socket, Any]] = {}
    front_number = front.fileno()
    while True:
        for number, _ in poller.poll():
            if number == front_number:
                data, sender = front.recvfrom(_MOST)
                back = clients.get(sender)
                if back is None:
                    back = clients[sender] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                    back.connect(("127.0.0.1", server))
                    backs[back.fileno()] = (back, sender)
                    poller.register(back, select.EPOLLIN)
                back.send(data)
            else:
                back, sender = backs[number]
                front.sendto(back.recv(_MOST), sender)


def main(arguments: list[str]) -> None:
    """
    Be one of them until the end.
    """
    if arguments[0] == "echo":
        _echo(int(arguments[1]))
    else:
        _bare(int(arguments[1]), int(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
