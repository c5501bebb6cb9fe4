"""
Tests of watching the files of a configuration.
"""

import os
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.provider.file import FileWatcher


class FakeWatch:
    """
    A kernel that tells what the test says.
    """

    def __init__(self, happened, log):
        self.happened = happened
        self.folders = []
        self.is_open = True
        self._log = log

    def watch(self, folders):
        self.folders = [folder for folder in folders if os.path.isdir(folder)]

    def close(self):
        self.is_open = False


class WatcherCase(SynchronousTestCase):
    """
    A watcher of `gateway.hcl` and `conf.d`.
    """

    def setUp(self):
        self.root = Path(os.path.realpath(self.mktemp()))
        (self.root / "conf.d").mkdir(parents=True)
        self.main = self.root / "gateway.hcl"
        self.main.write_text("")
        self.clock = Clock()
        self.changes = []
        self.watches = []
        self.looks = []
        self.watcher = FileWatcher(
            self.clock, lambda: self.changes.append(self.clock.seconds()), lambda: True, self.run_aside, self.open_watch
        )

    def tearDown(self):
        self.watcher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(any(watch.is_open for watch in self.watches))

    def open_watch(self, reactor, happened):
        self.watches.append(FakeWatch(happened, self))
        return self.watches[-1]

    def run_aside(self, function):
        self.looks.append(Deferred())
        return self.looks[-1]

    def watch(self):
        self.watcher.watch([str(self.main)], str(self.root / "conf.d"))

    def happen(self, path, name=None):
        """
        Let something happen to a path, or to the folder itself if `name` is empty.
        """
        folder, last = os.path.split(str(self.root / path))
        self.watches[-1].happened(folder, last if name is None else name)


class QuietTests(WatcherCase):
    """
    Who asked is told when it is over.
    """

    def test_trailing_edge(self):
        """D6: a change is told 0.4 s after the last thing that happened, once."""
        self.watch()
        for _ in range(5):
            self.happen("gateway.hcl")
            self.clock.advance(0.3)
        self.assertEqual(self.changes, [])
        self.clock.advance(0.1)
        self.assertEqual(self.changes, [1.6])
        self.clock.advance(3)
        self.assertEqual(len(self.changes), 1)

    def test_never_quiet(self):
        """Where it never gets quiet, a change is told after 5 s at the latest."""
        self.watch()
        for _ in range(60):
            self.happen("gateway.hcl")
            self.clock.advance(0.1)
        self.assertEqual(len(self.changes), 1)
        self.assertTrue(4.5 <= self.changes[0] < 5.2, self.changes)

    def test_stopped(self):
        """Who has stopped watching is told nothing, not even of what happened before."""
        self.watch()
        self.happen("gateway.hcl")
        self.watcher.stop()
        self.clock.advance(60)
        self.assertEqual((self.changes, self.watcher.is_watching), ([], False))


class WhatMattersTests(WatcherCase):
    """
    Only what belongs to the configuration matters.
    """

    def matters(self, path, name=None):
        """
        Say whether something that happens to a path is told.
        """
        before = len(self.changes)
        self.happen(path, name)
        self.clock.advance(1)
        return len(self.changes) > before

    def test_names(self):
        """D7: the files watched and `*.hcl` of the folder matter, at whatever name they come; logs and editors' files do not."""
        self.watch()
        for path in ("gateway.hcl", "conf.d/a.hcl", "conf.d"):
            self.assertTrue(self.matters(path), path)
        for path in ("access.log", ".gateway.hcl.swp", "gateway.hcl~", "conf.d/.a.hcl", "conf.d/#a.hcl#", "conf.d/a.txt", "a.hcl"):
            self.assertFalse(self.matters(path), path)

    def test_folder_itself(self):
        """A folder that is deleted or moved away matters, and so does what the kernel could not tell."""
        self.watch()
        self.assertTrue(self.matters("conf.d/", ""))
        self.watches[-1].happened("", "")
        self.clock.advance(1)
        self.assertEqual(len(self.changes), 2)

    def test_folder_comes_later(self):
        """A folder that comes later is watched from then on."""
        (self.root / "conf.d").rmdir()
        self.watch()
        self.assertEqual(self.watches[-1].folders, [os.path.dirname(self.root), str(self.root)])
        (self.root / "conf.d").mkdir()
        self.assertTrue(self.matters("conf.d"))
        self.assertIn(str(self.root / "conf.d"), self.watches[-1].folders)
        self.assertEqual(len(self.watches), 1, "it stays open, because closing it would hold everybody up")
        self.assertTrue(self.matters("conf.d/a.hcl"))

    def test_links(self):
        """Where links lead is found out anew after each change."""
        for name in ("one", "two"):
            (self.root / name).mkdir()
            (self.root / name / "gw.hcl").write_text("")
        self.main.unlink()
        self.main.symlink_to("..data/gw.hcl")
        data = self.root / "..data"
        data.symlink_to("one")
        self.watch()
        self.assertTrue(self.matters("one/gw.hcl"))
        self.assertFalse(self.matters("two/gw.hcl"))
        data.unlink()
        data.symlink_to("two")
        self.assertTrue(self.matters("..data"))
        self.assertTrue(self.matters("two/gw.hcl"))
        self.assertFalse(self.matters("one/gw.hcl"))

    def test_other_files(self):
        """What is to be watched may change; the same again changes nothing."""
        self.watch()
        self.watch()
        self.assertEqual(len(self.watches), 1)
        self.watcher.watch([str(self.root / "users")])
        self.assertFalse(self.matters("gateway.hcl"))
        self.assertTrue(self.matters("users"))


class LookTests(WatcherCase):
    """
    Where the kernel tells nothing, somebody looks.
    """

    def test_look(self):
        """Every ten seconds somebody looks; if anything has changed, that is like hearing of it."""
        self.watch()
        self.clock.advance(10)
        self.looks[0].callback(True)
        self.clock.advance(10)
        self.assertEqual((len(self.looks), self.changes), (2, []))
        self.clock.advance(10)
        self.assertEqual(len(self.looks), 2)
        self.looks[1].callback(False)
        self.clock.advance(0.4)
        self.assertEqual(self.changes, [30.4])

    def test_no_kernel(self):
        """Without the kernel's help somebody looks every two seconds, and the log says so, once."""
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)

        def refuse(reactor, happened):
            raise OSError(24, "Too many open files")

        watcher = FileWatcher(self.clock, lambda: self.changes.append(1), lambda: True, self.run_aside, refuse)
        watcher.watch([str(self.main)])
        self.clock.advance(2)
        self.looks[0].callback(False)
        self.clock.advance(0.4)
        self.assertEqual(self.changes, [1])
        watcher.stop()
        [event] = [event for event in events if event["log_namespace"] == "a3sgw.provider.file.FileWatcher"]
        self.assertEqual((event["reason"], event["seconds"]), ("Too many open files", 2))

    def test_look_fails(self):
        """A look that fails is reported, and the next comes all the same."""
        self.watch()
        self.clock.advance(10)
        self.looks[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(10)
        self.assertEqual(len(self.looks), 2)
