"""
Hear from the kernel what happens in folders (Linux, inotify(7)).

Twisted has this as well, but its `INotify` closes itself when one of the folders it watches is deleted, and does not tell when the kernel
has dropped events.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

__all__ = ["FolderWatch"]

_MODIFY: Final = 0x2
_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED: Final = 0x40 | 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_IGNORED: Final = 0x8000
_ONLYDIR: Final = 0x01000000
_MASK: Final = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR

_EVENT: Final = struct.Struct("=iIII")


class FolderWatch:
    """
    What happens in some folders, as a reactor descriptor.

    `happened` is called with the folder and the name of what changed in it; the name is empty if it was the folder itself, and both are if
    the kernel had more to tell than it could keep. Raises `OSError` where there is no inotify, or no more of it for this user.
    """

    def __init__(self, reactor: Any, happened: Callable[[str, str], object]) -> None:
        self._reactor = reactor
        self._happened = happened
        self._folders: dict[int, str] = {}
        self._fd = -1
        if not sys.platform.startswith("linux"):
            raise OSError("only Linux has inotify")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        reactor.addReader(self)

    def _call(self, name: str, *arguments: Any) -> int:
        result: int = getattr(self._libc, name)(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
        return result

    def watch(self, folders: Iterable[str]) -> None:
        """
        Hear from now on what happens directly in these folders, and in no others. What is not there, or cannot be watched, is left out.

        What is watched already stays so without a gap. Only what is too much is given up, never the descriptor: to close one takes the
        kernel up to 20 ms, for which nobody would be served.
        """
        kept: dict[int, str] = {}
        for folder in folders:
            try:
                # By its number the kernel knows a folder again, and gives another one to another folder of the same name.
                kept[self._call("inotify_add_watch", self._fd, os.fsencode(folder), ctypes.c_uint32(_MASK))] = folder
            except OSError:
                continue
        for descriptor in self._folders.keys() - kept.keys():
            # The kernel has given it up itself if the folder is gone.
            with suppress(OSError):
                self._call("inotify_rm_watch", self._fd, descriptor)
        self._folders = kept

    def close(self) -> None:
        """
        Hear nothing more.
        """
        if self._fd >= 0:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1

    def doRead(self) -> None:
        """
        The reactor says that something happened.
        """
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data) and self._fd >= 0:
            descriptor, mask, _, size = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = os.fsdecode(data[offset : offset + size].rstrip(b"\0"))
            offset += size
            if mask & _IGNORED:
                self._folders.pop(descriptor, None)
            elif descriptor < 0:
                self._happened("", "")
            elif descriptor in self._folders:
                self._happened(self._folders[descriptor], name)

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor gave the descriptor up.
        """
        self.close()

    def fileno(self) -> int:
        """
        Return the descriptor, or -1 when closed.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        Twisted asks for this when it logs.
        """
        return "inotify"
