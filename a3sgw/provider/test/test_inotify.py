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
        self.watch.watch(str(self.root))

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
        self.watch.watch(str(self.root / "deep"))
        self.hear()
        (self.root / "deep" / "a").write_text("x")
        self.assertEqual(self.hear(), [("deep", "a")])
        shutil.rmtree(self.root / "deep")
        self.assertIn(("deep", ""), self.hear())
        (self.root / "c").write_text("x")
        self.assertEqual(self.hear(), [(self.root.name, "c")])

    def test_no_folder(self):
        """What is no folder cannot be watched."""
        (self.root / "file").write_text("x")
        for name in ("nothing", "file"):
            self.assertRaises(OSError, self.watch.watch, str(self.root / name))

    def test_end(self):
        """A closed watch is gone from the reactor, and may be closed again."""
        self.assertEqual(self.reactor.readers, [self.watch])
        self.watch.connectionLost(None)
        self.watch.close()
        self.assertEqual((self.reactor.readers, self.watch.fileno()), ([], -1))
