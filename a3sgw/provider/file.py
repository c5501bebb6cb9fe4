"""
Watch the files of the configuration, and say when they may have changed.

The kernel tells what happens in the folders where they lie, and whoever asked is told when it has been quiet there for a while: a file that
is being written is not read in the middle. Where the kernel tells nothing, because it has dropped events, or a folder lies on a file system
of another machine, a look every now and then finds out. Whether anything has really changed is not for this module to know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.provider.inotify import FolderWatch
from a3sgw.provider.places import places_of

__all__ = ["FileWatcher"]


class FileWatcher:
    """
    Watches the paths it was last told.

    `changed` is called, on the reactor thread, after something has happened and then nothing for `QUIET_SECONDS`, or after `LATEST_SECONDS`
    if it never gets quiet. `is_up_to_date` reads the files and says whether they are as they were; `run_aside` calls it in a thread and
    gives a Deferred. `open_watch` is for tests.
    """

    QUIET_SECONDS: Final = 0.4
    LATEST_SECONDS: Final = 5.0
    POLL_SECONDS: Final = 10.0
    POLL_SECONDS_WITHOUT_KERNEL: Final = 2.0
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        changed: Callable[[], object],
        is_up_to_date: Callable[[], bool],
        run_aside: Callable[[Callable[[], bool]], Deferred[bool]],
        open_watch: Callable[[Any, Callable[[str, str], object]], FolderWatch] = FolderWatch,
    ) -> None:
        self._reactor = reactor
        self._changed = changed
        self._is_up_to_date = is_up_to_date
        self._run_aside = run_aside
        self._open_watch = open_watch
        self._files: frozenset[str] = frozenset()
        self._folder: str | None = None
        self._real_folder: str | None = None
        self._places: frozenset[tuple[str, str]] = frozenset()
        self._watch: FolderWatch | None = None
        self._quiet: Any = None
        self._latest = 0.0
        self._poll: Any = None
        self._is_polling = False
        self._has_complained = False

    def watch(self, files: Iterable[str], folder: str | None = None) -> None:
        """
        Watch `files`, whether they exist or not, and everything in `folder` whose name ends in `.hcl`; nothing else from now on.
        """
        files = frozenset(files)
        if self._poll is None or (files, folder) != (self._files, self._folder):
            self._files, self._folder = files, folder
            self._arm()
        self._plan_poll()

    def stop(self) -> None:
        """
        Watch nothing.
        """
        self._files, self._folder = frozenset(), None
        self._disarm()
        for call in (self._quiet, self._poll):
            if call is not None:
                call.cancel()
        self._quiet = self._poll = None

    @property
    def is_watching(self) -> bool:
        """
        Whether anything is watched.
        """
        return self._poll is not None

    # -- the kernel

    def _arm(self) -> None:
        """
        Watch the folders that matter now; after every change, because links and folders may be others.
        """
        places = {place for path in self._files for place in places_of(path)}
        self._real_folder = None
        if self._folder is not None:
            places.update(places_of(self._folder))
            # Under one name, because the kernel knows each folder only once.
            self._real_folder = os.path.realpath(self._folder)
        self._places = frozenset(places)
        folders = {folder for folder, _ in places}
        if self._real_folder is not None:
            folders.add(self._real_folder)
        if self._watch is None:
            self._open()
        if self._watch is not None:
            self._watch.watch(sorted(folders))

    def _open(self) -> None:
        try:
            self._watch = self._open_watch(self._reactor, self._happened)
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                self._log.warn(
                    "the kernel does not tell about changes of files ({reason}); they are looked at every {seconds:g} seconds instead",
                    reason=error.strerror or str(error),
                    seconds=self.POLL_SECONDS_WITHOUT_KERNEL,
                )

    def _disarm(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _happened(self, folder: str, name: str) -> None:
        is_config = folder == self._real_folder and name.endswith(".hcl") and not name.startswith((".", "#"))
        # Without a name it is the folder itself, and without a folder the kernel has lost count.
        if not name or is_config or (folder, name) in self._places:
            self.touch()

    # -- time

    def touch(self) -> None:
        """
        Something happened; `changed` is called when it is over.
        """
        now = self._reactor.seconds()
        if self._quiet is None:
            self._latest = now + self.LATEST_SECONDS
            self._quiet = self._reactor.callLater(self.QUIET_SECONDS, self._has_been_quiet)
        elif now + self.QUIET_SECONDS <= self._latest:
            self._quiet.reset(self.QUIET_SECONDS)

    def _has_been_quiet(self) -> None:
        self._quiet = None
        # Before anybody reads: what happens from here on is heard.
        self._arm()
        self._changed()

    def _plan_poll(self) -> None:
        if self._poll is None:
            seconds = self.POLL_SECONDS_WITHOUT_KERNEL if self._watch is None else self.POLL_SECONDS
            self._poll = self._reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        self._poll = None
        self._plan_poll()
        if not self._is_polling and self._quiet is None:
            self._is_polling = True
            self._run_aside(self._is_up_to_date).addCallbacks(self._looked, self._look_failed)

    def _looked(self, is_up_to_date: bool) -> None:
        self._is_polling = False
        if not is_up_to_date and self.is_watching:
            self.touch()

    def _look_failed(self, failure: Failure) -> None:
        self._is_polling = False
        self._log.failure("the files of the configuration could not be looked at", failure)
