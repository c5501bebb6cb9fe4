"""
Take log lines to a file, or to standard output, without ever stopping the reactor.

A pipe nobody reads and a disk that is busy block whoever writes to them, and there is no asking beforehand. So a thread writes, and the
reactor only appends to a bounded queue. What does not fit is dropped in whole batches and counted.

Only `FileSink._run` and what it calls happen on the thread; the queue, the counts and the flags are guarded by one condition.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable

from zope.interface import implementer

from a3sgw.interfaces import ILogSink

__all__ = ["FileSink", "MemorySink"]

_STDOUT = 1

_CLOSE_SECS = 2.0

_PIPE_PIECE = 4096
"""What a pipe takes in one piece: PIPE_BUF on Linux. POSIX promises 512, but lines longer than that are common."""


@implementer(ILogSink)
class FileSink:
    """
    Append to the file at `path`, or to standard output if that is `None`.

    At most `bound` bytes wait, besides a batch that arrives while nothing waits. Several processes may append to the same target: each
    system call writes whole lines, and to a pipe at most as much as it takes in one piece.

    Errors after the opening never reach the caller. The lines are counted in `dropped_lines`, and `report` gets a sentence when the trouble
    begins and another when it ends. It is called on the writer's thread, or on the reactor's within `close`, and must not raise.

    `write_some` is `os.write`. Raises `OSError` if the file cannot be opened.
    """

    def __init__(
        self, path: str | None, bound: int, report: Callable[[str], None], write_some: Callable[[int, bytes], int] = os.write
    ) -> None:
        if bound < 1:
            raise ValueError(f"log queue bound {bound!r}: expected a number of bytes above 0")
        self.dropped_lines = 0
        self._path = path
        self._bound = bound
        self._report = report
        self._write_some = write_some
        self._descriptor = _STDOUT if path is None else _open(path)
        self._piece = _piece_size(self._descriptor)
        # Set when a line was broken off, so that the next one does not continue it.
        self._is_torn = False
        self._is_troubled = False
        self._changed = threading.Condition()
        # `None` stands for "open anew": what was queued before it goes to the old file.
        self._queue: deque[bytes | None] = deque()
        self._waiting = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="a3sgw-log", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """
        Queue whole lines.
        """
        with self._changed:
            if self._is_closing or (self._waiting and self._waiting + len(data) > self._bound):
                self.dropped_lines += data.count(b"\n")
                return
            self._queue.append(data)
            self._waiting += len(data)
            self._changed.notify()

    def reopen(self) -> None:
        """
        Open the file anew by name, because it was rotated. If that fails, the old one stays in use.

        Standard output has no name and stays as it is.
        """
        if self._path is not None:
            with self._changed:
                self._queue.append(None)
                self._changed.notify()

    def close(self, patience: float = _CLOSE_SECS) -> None:
        """
        Wait until all is written, at most `patience` seconds; what is left then is dropped.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(patience)
        if self._thread.is_alive():
            with self._changed:
                left = sum(item.count(b"\n") for item in self._queue if item is not None)
                self._queue.clear()
                self.dropped_lines += left
            text = f"{left} waiting lines are dropped, and the batch under way may be incomplete"
            self._report(f"{self._name()}: not written within {patience:g} seconds at the end; {text}")

    # -- on the writer's thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._is_closing:
                    self._changed.wait()
                if not self._queue:
                    break
                item = self._queue.popleft()
            if item is None:
                self._reopen()
            else:
                self._deliver(item)
                with self._changed:
                    # Only now, so that a batch stuck in a full pipe still counts.
                    self._waiting -= len(item)
        if self._path is not None:
            os.close(self._descriptor)

    def _deliver(self, data: bytes) -> None:
        """
        Write `data`, or count as dropped the lines that did not get through whole.
        """
        # The feed ends what stands torn in the file; it is not one of the lines.
        feed = b"\n" if self._is_torn else b""
        data = feed + data
        done = 0
        try:
            while done < len(data):
                done += self._write_ready(data[done : self._cut(data, done)])
        except OSError as error:
            written = data[:done]
            lost = data.count(b"\n") - max(written.count(b"\n"), len(feed))
            self._is_torn = self._is_torn if not done else not written.endswith(b"\n")
            with self._changed:
                self.dropped_lines += lost
            if not self._is_troubled:
                self._is_troubled = True
                self._report(f"{self._name()}: cannot be written ({error.strerror or error}); lines are lost until it can")
            return
        self._is_torn = False
        if self._is_troubled:
            self._is_troubled = False
            self._report(f"{self._name()}: is written again; {self.dropped_lines} lines were lost so far")

    def _cut(self, data: bytes, start: int) -> int:
        """
        Return where the next system call's share ends: after the last line that fits in, or after the first if none does.
        """
        if len(data) - start <= self._piece:
            return len(data)
        end = data.rfind(b"\n", start, start + self._piece) + 1
        return end or data.find(b"\n", start) + 1 or len(data)

    def _write_ready(self, piece: bytes) -> int:
        try:
            return self._write_some(self._descriptor, piece)
        except BlockingIOError:
            # Whoever started us, or shares standard output, made it non-blocking. Then wait here instead of in the write.
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0

    def _reopen(self) -> None:
        assert self._path is not None
        try:
            descriptor = _open(self._path)
        except OSError as error:
            self._report(f"{self._path}: cannot be opened anew ({error.strerror or error}); the log goes on in the old file")
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._piece = _piece_size(descriptor)
        self._is_torn = False

    def _name(self) -> str:
        return "standard output" if self._path is None else self._path


@implementer(ILogSink)
class MemorySink:
    """
    Keep log lines in memory, for tests and embedders.

    `data` is what was written, `reopened` and `is_closed` what else was asked. While `is_stalled`, lines wait within `bound` as they would
    before a pipe that nobody reads.
    """

    def __init__(self, bound: int) -> None:
        self.data = b""
        self.dropped_lines = 0
        self.reopened = 0
        self.is_closed = False
        self.is_stalled = False
        self._bound = bound
        self._waiting = b""

    def write(self, data: bytes) -> None:
        """
        Keep whole lines.
        """
        if self.is_closed or (self._waiting and len(self._waiting) + len(data) > self._bound):
            self.dropped_lines += data.count(b"\n")
        elif self.is_stalled:
            self._waiting += data
        else:
            self.data += self._waiting + data
            self._waiting = b""

    def reopen(self) -> None:
        """
        Count the request.
        """
        self.reopened += 1

    def close(self) -> None:
        """
        Keep what waits, and take no more.
        """
        self.data += self._waiting
        self._waiting = b""
        self.is_closed = True


def _open(path: str) -> int:
    """
    Open for appending. Does not wait for a reader if `path` is a FIFO, but fails if there is none.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
    os.set_blocking(descriptor, True)
    return descriptor


def _piece_size(descriptor: int) -> int:
    """
    Return how many bytes one write may carry so that lines of several processes cannot mix.
    """
    # A regular file takes any number in one piece, because it was opened for appending.
    return 1 << 30 if stat.S_ISREG(os.fstat(descriptor).st_mode) else _PIPE_PIECE
