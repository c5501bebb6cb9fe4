"""
Tests of hearing from the kernel.
"""

import os
import shutil
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.provider.inotify import FolderWatch


class Readers:
    """
    As much of a reactor as a `FolderWatch` needs.
    """

    def __init__(self):
        self.readers = []

    def addReader(self, reader):
        self.readers.append(reader)

    def removeReader(self, reader):
        self.readers.remove(reader)


class FolderWatchTests(SynchronousTestCase):
    """
    The real kernel tells what happens in real folders.
    """

    if not sys.platform.startswith("linux"):
        skip = "only Linux has inotify"

    def setUp(self):
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.heard = []
        self.reactor = Readers()
        self.watch = FolderWatch(self.reactor, lambda folder, name: self.heard.append((folder, name)))
        self.addCleanup(self.watch.close)
        self.watch.watch([str(self.root)])

    def hear(self):
        """
        Return, once each, what has happened since the last call.
        """
        self.watch.doRead()
        heard = sorted({(os.path.basename(folder), name) for folder, name in self.heard})
        self.heard.clear()
        return heard

    def test_names(self):
        """What is written, moved and deleted in a folder is told with its name."""
        here = self.root.name
        (self.root / "a").write_text("x")
        self.assertEqual(self.hear(), [(here, "a")])
        (self.root / "a").rename(self.root / "b")
        self.assertEqual(self.hear(), [(here, "a"), (here, "b")])
        (self.root / "b").unlink()
        self.assertEqual(self.hear(), [(here, "b")])
        self.assertEqual(self.hear(), [])

    def test_several_folders(self):
        """Folders are told apart, and the end of one does not end the rest."""
        (self.root / "deep").mkdir()
        self.watch.watch([str(self.root), str(self.root / "deep")])
        self.hear()
        (self.root / "deep" / "a").write_text("x")
        self.assertEqual(self.hear(), [("deep", "a")])
        shutil.rmtree(self.root / "deep")
        self.assertIn(("deep", ""), self.hear())
        (self.root / "c").write_text("x")
        self.assertEqual(self.hear(), [(self.root.name, "c")])

    def test_no_folder(self):
        """What is no folder is left out, and the others are watched all the same."""
        (self.root / "file").write_text("x")
        self.watch.watch([str(self.root / "nothing"), str(self.root / "file"), str(self.root)])
        self.hear()
        (self.root / "file").write_text("y")
        self.assertEqual(self.hear(), [(self.root.name, "file")])

    def test_others(self):
        """What is no longer named is not heard of, also what happened there and was not told yet."""
        for name in ("one", "two"):
            (self.root / name).mkdir()
        self.watch.watch([str(self.root / "one")])
        (self.root / "one" / "a").write_text("x")
        self.watch.watch([str(self.root / "two")])
        (self.root / "one" / "b").write_text("x")
        (self.root / "two" / "c").write_text("x")
        self.assertEqual(self.hear(), [("two", "c")])

    def test_no_gap(self):
        """What happened in a folder and was not told yet is told, if the folder is named again meanwhile."""
        (self.root / "a").write_text("x")
        self.watch.watch([str(self.root)])
        self.assertEqual(self.hear(), [(self.root.name, "a")])

    def test_replaced(self):
        """A folder in the place of one that was moved away is another one."""
        (self.root / "conf").mkdir()
        self.watch.watch([str(self.root / "conf")])
        (self.root / "conf").rename(self.root / "old")
        (self.root / "conf").mkdir()
        self.watch.watch([str(self.root / "conf")])
        (self.root / "old" / "a").write_text("x")
        (self.root / "conf" / "b").write_text("x")
        self.assertEqual(self.hear(), [("conf", "b")])

    def test_lost_count(self):
        """When the kernel has dropped events, neither folder nor name is told."""
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for turn in range(limit + 2):
            # Never twice the same in a row, because the kernel would tell that only once.
            (self.root / f"{turn % 2}").touch()
        while ("", "") not in self.heard:
            before = len(self.heard)
            self.watch.doRead()
            self.assertTrue(len(self.heard) > before, "there is an end to it")

    def test_end(self):
        """A closed watch is gone from the reactor, and may be closed again."""
        self.assertEqual(self.reactor.readers, [self.watch])
        self.watch.connectionLost(None)
        self.watch.close()
        self.assertEqual((self.reactor.readers, self.watch.fileno()), ([], -1))
