"""
The listening sockets that all workers share.

The deciding side binds them and keeps its own copies, so that one which dies takes no waiting connection with it, and its successor finds
the doors where they were.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

import attrs

from a3sgw.listen.places import Place, find_place, refuse_overlap

__all__ = ["Sockets"]


@attrs.frozen
class _Held:
    place: Place
    sock: socket.socket


class Sockets:
    """
    What one configuration at a time listens on, by entrypoint. `bind` is `listen.door.bind`.
    """

    def __init__(self, bind: Callable[[str, str, int], socket.socket]) -> None:
        self._bind = bind
        self._held: dict[str, _Held] = {}
        self._prepared: dict[str, _Held] = {}
        self._new: list[str] = []

    def __repr__(self) -> str:
        return f"<Sockets {self.ports()}>"

    def prepare(self, places: Mapping[str, Place]) -> None:
        """
        Bind what is new. Raises `AssemblyError`, and then nothing has changed.
        """
        held = {name: each.place for name, each in self._held.items()}
        try:
            for name, place in places.items():
                holder = find_place(held, place, name)
                if holder is None:
                    refuse_overlap(held, place, name)
                    self._prepared[name] = _Held(place, self._bind(name, *place))
                    self._new.append(name)
                else:
                    self._prepared[name] = self._held[holder]
        except BaseException:
            self.abandon()
            raise

    def new(self) -> list[tuple[str, Place, socket.socket]]:
        """
        Return what `prepare` has bound.
        """
        return [(name, self._prepared[name].place, self._prepared[name].sock) for name in self._new]

    def wanted(self) -> list[tuple[str, Place, socket.socket]]:
        """
        Return all that the prepared configuration listens on.
        """
        return [(name, each.place, each.sock) for name, each in self._prepared.items()]

    def all(self) -> list[tuple[str, Place, socket.socket]]:
        """
        Return what the running configuration listens on.
        """
        return [(name, each.place, each.sock) for name, each in self._held.items()]

    def abandon(self) -> None:
        """
        Close what `prepare` has bound.
        """
        for name in self._new:
            self._prepared[name].sock.close()
        self._prepared = {}
        self._new = []

    def commit(self) -> None:
        """
        Keep what `prepare` was asked for, and close everything else.
        """
        old, self._held = self._held, self._prepared
        self._prepared = {}
        self._new = []
        kept = {each.sock for each in self._held.values()}
        for each in old.values():
            if each.sock not in kept:
                each.sock.close()

    def close(self) -> None:
        """
        Close everything.
        """
        self.abandon()
        self.commit()

    def ports(self) -> dict[str, int]:
        """
        Return the port of each entrypoint.
        """
        return {name: each.sock.getsockname()[1] for name, each in self._held.items()}
