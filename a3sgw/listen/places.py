"""
Where doors are, and whether there is room for another.
"""

from __future__ import annotations

from collections.abc import Mapping

from a3sgw.errors import AssemblyError

__all__ = ["Place", "find_place", "refuse_overlap"]

Place = tuple[str, int]
"""A host, empty for every address of the machine, and a port, 0 for one that the system chooses."""


def find_place(held: Mapping[str, Place], place: Place, name: str) -> str | None:
    """
    Return which of those who hold a place already holds `place`. Port 0 stands for a port of the entrypoint's own.
    """
    for holder, other in held.items():
        if other == place and (place[1] or holder == name):
            return holder
    return None


def refuse_overlap(held: Mapping[str, Place], place: Place, name: str) -> None:
    """
    Raise `AssemblyError` if `place` cannot be had because a door of this gateway overlaps it.
    """
    host, port = place
    for other, (other_host, other_port) in held.items():
        if port and other_port == port and (not host or not other_host):
            # Our own door holds the port, and will until the swap, which must not fail.
            raise AssemblyError(
                f'entrypoint "{name}" cannot listen on port {port}: this gateway itself does, for entrypoint "{other}" at another '
                "address; such a change needs a restart"
            )
