"""
Memory that several processes see, given out by name.

Each worker of a gateway builds its own middlewares and services from the same configuration. What one of them must know of the others, how
many tokens are left or how many requests are under way, lies in a region of the arena, which each finds by the same name: whoever comes
first makes it, whoever is the last to let go of it frees it. A worker that takes the place of another finds everything as it was, but for
the cells that count what the other had under way; those are cleared when it is gone.

The arena is one anonymous file, mapped whole into each process. It is large and costs what was touched of it. Locks are those of `fcntl`
on single bytes of the file: the kernel takes them away from a process that dies, whenever that is. Taking and giving back one that nobody
else wants takes 1.3 µs.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import weakref
from typing import Any, Final, NamedTuple

from a3sgw.errors import AssemblyError

__all__ = ["Arena", "ArenaFullError", "Cells", "Region", "fit_key", "share_of"]

_SIZE: Final = 8 << 30
_MOST_REGIONS: Final = 1 << 16
_MOST_SLOTS: Final = 1024
_NAME: Final = 16
_SECRET: Final = 16
# How many regions there are, and where the memory begins that nobody has had yet.
_HEAD: Final = struct.Struct("<QQ")
# Offset and size of a region, and its cells: where they begin, from one record to the next, and how many records.
_ENTRY: Final = struct.Struct("<QQQQQ")
_HOLDERS: Final = _MOST_SLOTS // 8
_ENTRY_SIZE: Final = _ENTRY.size + _HOLDERS
_NAMES_AT: Final = 4096
_ENTRIES_AT: Final = _NAMES_AT + _MOST_REGIONS * _NAME
_MEMORY_AT: Final = (_ENTRIES_AT + _MOST_REGIONS * _ENTRY_SIZE + 4095) // 4096 * 4096
_PAGE: Final = mmap.PAGESIZE
_MAPPED: Final = bytes(10) + b"\xff\xff"


class ArenaFullError(AssemblyError):
    """
    There is no room for another region; the text says how much was wanted.
    """


class Cells(NamedTuple):
    """
    Where a region counts by worker: in `records` of them, the first at `first` and each `stride` bytes after the one before, which begin
    with a number of four bytes for each worker.
    """

    first: int = 0
    stride: int = 0
    records: int = 0


_NO_CELLS: Final = Cells()


class Region:
    """
    A piece of shared memory, at `offset` in `memory`, all zeros when it is made. `slot` is the worker's own number, of `workers`.
    """

    __slots__ = ("__weakref__", "_descriptor", "memory", "offset", "size", "slot", "workers")

    def __init__(self, arena: Arena, offset: int, size: int) -> None:
        self._descriptor = arena.descriptor
        self.memory = arena.memory
        self.offset = offset
        self.size = size
        self.slot = arena.slot
        self.workers = arena.workers

    def __repr__(self) -> str:
        return f"<Region of {self.size} bytes at {self.offset}>"

    def view(self, start: int, size: int, form: str) -> Any:
        """
        Return `size` bytes from `start` on as numbers of a `struct` form.
        """
        begin = self.offset + start
        # Which forms there are is known to the checker, but not that a caller passes one on.
        return memoryview(self.memory)[begin : begin + size].cast(form)  # type: ignore[call-overload]

    def lock(self, which: int = 0) -> None:
        """
        Keep the other workers out of whatever `which` stands for, a number below the region's size. Not for long.
        """
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, self.offset + which)

    def unlock(self, which: int = 0) -> None:
        """
        Let them in again.
        """
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self.offset + which)


class Arena:
    """
    The arena behind `descriptor`, as worker `slot` of `workers` sees it.

    Whoever only clears up behind others may have any slot.
    """

    def __init__(self, descriptor: int, slot: int, workers: int) -> None:
        if not 0 <= slot < workers <= _MOST_SLOTS:
            raise ValueError(f"worker {slot} of {workers}: expected at most {_MOST_SLOTS}, counted from 0")
        self.descriptor = descriptor
        self.slot = slot
        self.workers = workers
        self.memory = mmap.mmap(descriptor, _SIZE)
        self._depth = 0
        self.secret = self.memory[_HEAD.size : _HEAD.size + _SECRET]

    def __repr__(self) -> str:
        return f"<Arena with {self._head()[0]} regions, for worker {self.slot}>"

    @classmethod
    def create(cls, workers: int) -> Arena:
        """
        Return a new arena. Its `descriptor` is what others need. Raises `AssemblyError` where that cannot be.
        """
        if not hasattr(os, "memfd_create"):
            raise AssemblyError("several workers need memory that they can share, which only Linux has in this way; set workers = 1")
        try:
            descriptor = os.memfd_create("a3sgw-arena", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, _SIZE)
            os.pwrite(descriptor, _HEAD.pack(0, _MEMORY_AT) + os.urandom(_SECRET), 0)
            return cls(descriptor, 0, workers)
        except OSError as error:
            reason = f"the memory that workers share cannot be had: {error.strerror}; raise the limit of file sizes, or set workers = 1"
            raise AssemblyError(reason) from error

    def take(self, name: object, size: int, cells: Cells = _NO_CELLS) -> Region:
        """
        Return the region called `name`, whose text must say all that makes it what it is: the same one in every process.

        It is let go when the object is gone. Raises `ArenaFullError`.
        """
        digest = hashlib.blake2b(repr(name).encode("utf-8", "backslashreplace"), digest_size=_NAME).digest()
        self._lock()
        try:
            number = self._find(digest)
            if number is None:
                number = self._make(digest, size, cells)
            offset = _ENTRY.unpack_from(self.memory, _entry_at(number))[0]
            self._hold(number, True)
        finally:
            self._unlock()
        region = Region(self, offset, size)
        weakref.finalize(region, self._let_go, digest).atexit = False
        return region

    def clear(self, slot: int) -> None:
        """
        Forget worker `slot`, which is gone: what it counted, and what it held.
        """
        self._lock()
        try:
            for number in range(self._head()[0]):
                if not self._holds(number, slot):
                    continue
                offset, _, first, stride, count = _ENTRY.unpack_from(self.memory, _entry_at(number))
                begin = offset + first + slot * 4
                for position in range(begin, begin + stride * count, stride or 1):
                    self.memory[position : position + 4] = b"\0\0\0\0"
                self._hold(number, False, slot)
        finally:
            self._unlock()

    def close(self) -> None:
        """
        Give the descriptor back. The mapping goes with the object.
        """
        os.close(self.descriptor)
        self.descriptor = -1

    # -- with the lock held

    def _head(self) -> Any:
        return _HEAD.unpack_from(self.memory, 0)

    def _find(self, digest: bytes) -> int | None:
        count = self._head()[0]
        end = _NAMES_AT + count * _NAME
        position = self.memory.find(digest, _NAMES_AT, end)
        while position >= 0 and (position - _NAMES_AT) % _NAME:
            position = self.memory.find(digest, position + 1, end)
        return None if position < 0 else (position - _NAMES_AT) // _NAME

    def _make(self, digest: bytes, size: int, cells: Cells) -> int:
        count, free = self._head()
        number = self._reusable(count, size)
        if number is None:
            if count == _MOST_REGIONS or free + size > _SIZE:
                raise ArenaFullError(f"no room for {size} bytes more in what workers share; there are {count} regions: restart the gateway")
            number = count
            # Large ones begin on a page of their own, so that their memory can be given back.
            begin = -(-free // _PAGE) * _PAGE if size >= _PAGE else free
            _HEAD.pack_into(self.memory, 0, count + 1, (begin + size + 63) // 64 * 64)
            room = size
        else:
            begin, room, *_ = _ENTRY.unpack_from(self.memory, _entry_at(number))
            self._wipe(begin, room)
        _ENTRY.pack_into(self.memory, _entry_at(number), begin, room, *cells)
        at = _NAMES_AT + number * _NAME
        self.memory[at : at + _NAME] = digest
        return number

    def _reusable(self, count: int, size: int) -> int | None:
        """
        Return an entry that nobody holds and whose memory fits.
        """
        for number in range(count):
            at = _entry_at(number)
            room = _ENTRY.unpack_from(self.memory, at)[1]
            if size <= room <= 2 * size + 64 and not any(self.memory[at + _ENTRY.size : at + _ENTRY_SIZE]):
                return number
        return None

    def _wipe(self, begin: int, size: int) -> None:
        first, last = -(-begin // _PAGE) * _PAGE, (begin + size) // _PAGE * _PAGE
        if first < last:
            # A hole in the file reads as zeros.
            self.memory.madvise(mmap.MADV_REMOVE, first, last - first)
            self.memory[begin:first] = bytes(first - begin)
            self.memory[last : begin + size] = bytes(begin + size - last)
        else:
            self.memory[begin : begin + size] = bytes(size)

    def _holds(self, number: int, slot: int) -> bool:
        return bool(self.memory[_entry_at(number) + _ENTRY.size + slot // 8] & 1 << slot % 8)

    def _hold(self, number: int, is_held: bool, slot: int | None = None) -> None:
        slot = self.slot if slot is None else slot
        at = _entry_at(number) + _ENTRY.size + slot // 8
        bit = 1 << slot % 8
        self.memory[at] = self.memory[at] | bit if is_held else self.memory[at] & ~bit

    def _lock(self) -> None:
        # The garbage collector may come upon a region in the middle of anything.
        self._depth += 1
        if self._depth == 1:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, 0)

    def _unlock(self) -> None:
        self._depth -= 1
        if not self._depth:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, 0)

    def _let_go(self, digest: bytes) -> None:
        if self.descriptor < 0:
            return
        self._lock()
        try:
            number = self._find(digest)
            if number is not None:
                self._hold(number, False)
        finally:
            self._unlock()


def fit_key(key: bytes, secret: bytes) -> bytes:
    """
    Return 16 bytes for any key: packed addresses as they are, everything else hashed with `secret`, so that nobody finds two alike.
    """
    size = len(key)
    if size == 4:
        return _MAPPED + key
    return key if size == _NAME else hashlib.blake2b(key, digest_size=_NAME, salt=secret).digest()


def share_of(limit: int, workers: int) -> int:
    """
    Return how much of `limit` each of `workers` may have where nobody counts for all: together at most one less than `workers` more.
    """
    return -(-limit // workers)


def _entry_at(number: int) -> int:
    return _ENTRIES_AT + number * _ENTRY_SIZE
