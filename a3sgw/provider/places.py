"""
Find out where in the file system a change of a path could come from.

A file may change because it is written, because another is moved to its name, or because a symbolic link on the way leads elsewhere now:
Kubernetes replaces the files of a mounted ConfigMap by turning one link, `..data`, in the folder. Each of those is a change of one name in
one folder, and a folder is what the kernel can watch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["places_of"]

_MOST_LINKS = 40


def places_of(path: str) -> Iterator[tuple[str, str]]:
    """
    Give the folders and the names in them whose change can mean another content of `path`: its own, every link on the way, the folder that
    it lies in, and, where the way ends because something is missing, what is missing.
    """
    pending = [part for part in reversed(os.path.abspath(path).split("/")) if part]
    folder = "/"
    links = 0
    while pending:
        name = pending.pop()
        if name == "..":
            folder = os.path.dirname(folder)
            continue
        full = os.path.join(folder, name)
        if os.path.islink(full):
            yield folder, name
            links += 1
            if links > _MOST_LINKS:
                return
            target = os.readlink(full)
            if target.startswith("/"):
                folder = "/"
            pending.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
            continue
        if len(pending) <= 1 or not os.path.lexists(full):
            yield folder, name
        if not os.path.isdir(full):
            return
        folder = full
