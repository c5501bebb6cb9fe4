"""
Tests for `a3sgw.observe.logsink`.
"""

import os
import subprocess
import sys
import threading
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import ILogSink
from a3sgw.observe.logsink import FileSink, MemorySink


def read(path):
    with open(path, "rb") as file:
        return file.read()


class LogSinkContract:
    """
    What every `ILogSink` promises. A subclass makes sinks.

    `make_sink(bound)` returns a new one; `stall(sink)` lets nothing through any more, `release(sink)` undoes that; `contents(sink)` is all
    that was written, once the sink is closed.
    """

    make_sink: Any
    stall: Any
    release: Any
    contents: Any
    assertEqual: Any

    def test_interface(self):
        """
        A sink takes log lines.
        """
        sink = self.make_sink(100)
        verifyObject(ILogSink, sink)
        sink.close()

    def test_order(self):
        """
        Lines come out whole and in order, and all that was taken is written by `close`.
        """
        sink = self.make_sink(1 << 20)
        lines = [b"line %d\n" % number for number in range(1000)]
        for line in lines:
            sink.write(line)
        sink.close()
        self.assertEqual(self.contents(sink), b"".join(lines))
        self.assertEqual(sink.dropped_lines, 0)

    def test_full(self):
        """
        A batch that does not fit is dropped whole and its lines are counted; writing does not wait.
        """
        sink = self.make_sink(20)
        self.stall(sink)
        sink.write(b"a\nb\nc\n" * 2)
        sink.write(b"d\ne\n" * 4)
        sink.write(b"f\n" * 4)
        self.assertEqual(sink.dropped_lines, 8)
        sink.write(b"g\n" * 4)
        self.assertEqual(sink.dropped_lines, 12)
        self.release(sink)
        sink.close()
        self.assertEqual(self.contents(sink), b"a\nb\nc\n" * 2 + b"f\n" * 4)

    def test_large_batch(self):
        """
        A batch larger than the bound is taken if nothing else waits, so that lines get through however small the bound is.
        """
        sink = self.make_sink(20)
        self.stall(sink)
        sink.write(b"a\n" * 50)
        sink.write(b"b\n")
        self.assertEqual(sink.dropped_lines, 1)
        self.release(sink)
        sink.close()
        self.assertEqual(self.contents(sink), b"a\n" * 50)

    def test_reopen(self):
        """
        No line is lost when the file is opened anew.
        """
        sink = self.make_sink(1 << 20)
        sink.write(b"a\n")
        sink.reopen()
        sink.write(b"b\n")
        sink.reopen()
        sink.close()
        self.assertEqual(self.contents(sink), b"a\nb\n")

    def test_closed(self):
        """
        A line that comes after the end is counted as dropped.
        """
        sink = self.make_sink(100)
        sink.close()
        sink.write(b"a\nb\n")
        self.assertEqual(sink.dropped_lines, 2)
        self.assertEqual(self.contents(sink), b"")


class MemorySinkTests(LogSinkContract, SynchronousTestCase):
    """
    The contract for `MemorySink`.
    """

    def make_sink(self, bound):
        return MemorySink(bound)

    def stall(self, sink):
        sink.is_stalled = True

    def release(self, sink):
        sink.is_stalled = False

    def contents(self, sink):
        return sink.data


class Valve:
    """
    An `os.write` that can be shut.
    """

    def __init__(self):
        self.open = threading.Event()
        self.open.set()

    def write(self, descriptor, data):
        self.open.wait()
        return os.write(descriptor, data)


class FileSinkTests(LogSinkContract, SynchronousTestCase):
    """
    The contract for `FileSink`, and its own promises.
    """

    def setUp(self):
        self.path = self.mktemp()
        self.valve = Valve()
        self.reports = []

    def make_sink(self, bound=1 << 20, write_some=None):
        return FileSink(self.path, bound, self.reports.append, write_some or self.valve.write)

    def stall(self, sink):
        self.valve.open.clear()

    def release(self, sink):
        self.valve.open.set()

    def contents(self, sink):
        return read(self.path)

    def test_append(self):
        """
        A file that exists is continued.
        """
        for line in (b"a\n", b"b\n"):
            sink = self.make_sink()
            sink.write(line)
            sink.close()
        self.assertEqual(read(self.path), b"a\nb\n")

    def test_private(self):
        """
        A new file is not for everybody, because it names people's addresses.
        """
        self.make_sink().close()
        self.assertEqual(os.stat(self.path).st_mode & 0o007, 0)

    def test_rotation(self):
        """
        After rename and reopen, lines queued before are in the old file and later ones in the new, even while the disk is slow.
        """
        sink = self.make_sink()
        self.stall(sink)
        sink.write(b"a\n")
        os.rename(self.path, self.path + ".1")
        sink.write(b"b\n")
        sink.reopen()
        sink.write(b"c\n")
        self.release(sink)
        sink.close()
        self.assertEqual((read(self.path + ".1"), read(self.path)), (b"a\nb\n", b"c\n"))
        self.assertEqual(self.reports, [])

    def test_reopen_fails(self):
        """
        If the file cannot be opened anew, the log goes on in the old one and says so.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        self.path = os.path.join(directory, "access.log")
        sink = self.make_sink()
        os.rename(directory, directory + ".1")
        sink.reopen()
        sink.write(b"a\n")
        sink.close()
        self.assertEqual(read(os.path.join(directory + ".1", "access.log")), b"a\n")
        self.assertEqual(
            self.reports, [f"{self.path}: cannot be opened anew (No such file or directory); the log goes on in the old file"]
        )

    def test_cannot_open(self):
        """
        A file that cannot be opened at the start is an error at the start.
        """
        self.path = os.path.join(self.mktemp(), "missing", "access.log")
        self.assertRaises(OSError, self.make_sink)
        self.assertRaises(ValueError, FileSink, self.path, 0, self.reports.append)

    def test_partial_writes(self):
        """
        If the system takes only some bytes at a time, the rest follows.
        """
        sink = self.make_sink(write_some=lambda descriptor, data: os.write(descriptor, data[:3]))
        sink.write(b"first line\nsecond line\n")
        sink.close()
        self.assertEqual(read(self.path), b"first line\nsecond line\n")

    def test_disk_full_within_a_line(self):
        """
        A line broken off by a full disk does not spoil the next; trouble is reported once when it begins and once when it ends.
        """
        results = iter([6, OSError(28, "No space left on device"), OSError(28, "No space left on device"), None, None])

        def write_some(descriptor, data):
            result = next(results)
            if isinstance(result, OSError):
                raise result
            return os.write(descriptor, data[:result])

        sink = self.make_sink(write_some=write_some)
        sink.write(b"one\ntwo\nthree\n")
        sink.write(b"four\n")
        sink.write(b"five\n")
        sink.write(b"six\n")
        sink.close()
        self.assertEqual(read(self.path), b"one\ntw\nfive\nsix\n")
        self.assertEqual(sink.dropped_lines, 3)
        self.assertEqual(
            self.reports,
            [
                f"{self.path}: cannot be written (No space left on device); lines are lost until it can",
                f"{self.path}: is written again; 3 lines were lost so far",
            ],
        )

    def test_torn_twice(self):
        """
        If the disk fills up again just after the break, only whole lines count as written.
        """
        results = iter([2, OSError(28, "full"), 1, OSError(28, "full"), None])

        def write_some(descriptor, data):
            result = next(results)
            if isinstance(result, OSError):
                raise result
            return os.write(descriptor, data[:result])

        sink = self.make_sink(write_some=write_some)
        for line in (b"one\n", b"two\n", b"three\n"):
            sink.write(line)
        sink.close()
        self.assertEqual(read(self.path), b"on\nthree\n")
        self.assertEqual(sink.dropped_lines, 2)

    def test_trouble_between_lines(self):
        """
        Trouble that broke no line leaves no empty one behind.
        """
        results = iter([None, OSError(5, "Input/output error"), None])

        def write_some(descriptor, data):
            result = next(results)
            if result is not None:
                raise result
            return os.write(descriptor, data)

        sink = self.make_sink(write_some=write_some)
        for line in (b"one\n", b"two\n", b"three\n"):
            sink.write(line)
        sink.close()
        self.assertEqual(read(self.path), b"one\nthree\n")
        self.assertEqual(sink.dropped_lines, 1)

    def test_room_again(self):
        """
        What has been written makes room for what comes.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        reported = threading.Event()
        sink = FileSink(os.path.join(directory, "access.log"), 10, lambda text: reported.set())
        os.rename(directory, directory + ".1")
        for _ in range(3):
            sink.write(b"a" * 7 + b"\n")
            # That the file cannot be opened anew is reported when everything before is done.
            sink.reopen()
            self.assertTrue(reported.wait(10))
            reported.clear()
        sink.close()
        self.assertEqual(sink.dropped_lines, 0)

    def test_dev_full(self):
        """
        A device without space costs lines and nothing else.
        """
        if not os.path.exists("/dev/full"):
            raise SkipTest("this system has no /dev/full")
        self.path = "/dev/full"
        sink = self.make_sink()
        sink.write(b"a\nb\n")
        sink.write(b"c\n")
        sink.close()
        self.assertEqual(sink.dropped_lines, 3)
        self.assertEqual(len(self.reports), 1)

    def test_nonblocking_target(self):
        """
        A target that somebody made non-blocking is waited for.
        """
        results = iter([BlockingIOError(11, "Resource temporarily unavailable"), None])

        def write_some(descriptor, data):
            result = next(results)
            if result is not None:
                raise result
            return os.write(descriptor, data)

        sink = self.make_sink(write_some=write_some)
        sink.write(b"a\n")
        sink.close()
        self.assertEqual(read(self.path), b"a\n")
        self.assertEqual((sink.dropped_lines, self.reports), (0, []))

    def test_impatient_close(self):
        """
        A target that takes nothing cannot hold up the end.
        """
        sink = self.make_sink()
        self.stall(sink)
        # The first batch may or may not have reached the writer; either way it is not in the file yet.
        sink.write(b"a\n")
        sink.reopen()
        sink.write(b"b\nc\n")
        sink.close(patience=0.0)
        self.assertEqual(len(self.reports), 1)
        self.assertIn("not written within 0 seconds at the end", self.reports[0])
        self.assertGreaterEqual(sink.dropped_lines, 2)
        self.release(sink)
        sink._thread.join()
        self.assertNotIn(b"b", read(self.path))

    def test_closes_its_file(self):
        """
        A closed sink leaves no open file behind.
        """
        sink = self.make_sink()
        sink.write(b"a\n")
        sink.reopen()
        sink.close()
        self.assertFalse(sink._thread.is_alive())
        self.assertRaises(OSError, os.fstat, sink._descriptor)


class PipeTests(SynchronousTestCase):
    """
    Tests with pipes for a target.
    """

    def setUp(self):
        self.path = self.mktemp()
        os.mkfifo(self.path)
        self.reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self.reader, True)
        self.reports = []

    def test_whole_lines(self):
        """
        A pipe shared by several processes gets whole lines in pieces that it takes at once.
        """
        pieces = []

        def write_some(descriptor, data):
            pieces.append(data)
            return len(data)

        sink = FileSink(self.path, 1 << 20, self.reports.append, write_some)
        lines = [b"x" * (number % 700) + b"\n" for number in range(300)] + [b"y" * 5000 + b"\n", b"z\n", b"end"]
        sink.write(b"".join(lines))
        sink.close()
        os.close(self.reader)
        self.assertEqual(b"".join(pieces), b"".join(lines))
        self.assertGreater(len(pieces), 10)
        for piece in pieces:
            self.assertTrue(piece.endswith((b"\n", b"end")))
            self.assertTrue(len(piece) <= 4096 or piece.count(b"\n") == 1)

    def test_nobody_reads(self):
        """
        A full pipe stops neither the writer of lines nor, when it is read again, the lines that were taken.
        """
        sink = FileSink(self.path, 200_000, self.reports.append)
        for _ in range(40):
            sink.write((b"x" * 99 + b"\n") * 100)
        dropped = sink.dropped_lines
        self.assertGreater(dropped, 0)
        received: list[bytes] = []
        while sum(len(piece) for piece in received) < (4000 - dropped) * 100:
            received.append(os.read(self.reader, 65536))
        sink.close()
        os.close(self.reader)
        self.assertEqual(set(b"".join(received).splitlines()), {b"x" * 99})
        self.assertEqual(sink.dropped_lines, dropped)

    def test_reader_leaves(self):
        """
        A reader that went away costs lines and nothing else.
        """
        sink = FileSink(self.path, 1 << 20, self.reports.append)
        os.close(self.reader)
        sink.write(b"a\nb\n")
        sink.close()
        self.assertEqual(sink.dropped_lines, 2)
        self.assertEqual(self.reports, [f"{self.path}: cannot be written (Broken pipe); lines are lost until it can"])

    def test_no_reader(self):
        """
        A pipe without a reader is an error at the start, not an endless wait.
        """
        os.close(self.reader)
        self.assertRaises(OSError, FileSink, self.path, 100, self.reports.append)


class StandardOutputTests(SynchronousTestCase):
    """
    Tests for standard output.
    """

    def test_standard_output(self):
        """
        Without a path, lines go to standard output, which stays open; opening anew does nothing.
        """
        program = (
            "import os\n"
            "from a3sgw.observe.logsink import FileSink\n"
            "sink = FileSink(None, 1000, print)\n"
            "sink.write(b'a\\n')\n"
            "sink.reopen()\n"
            "sink.write(b'b\\n')\n"
            "sink.close()\n"
            "os.write(1, b'still open\\n')\n"
        )
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, env=environment)
        self.assertEqual(done.stdout, b"a\nb\nstill open\n")
