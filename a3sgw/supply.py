"""
Where this process's configuration comes from, and who says that there is a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from a3sgw.provider.file import FileWatcher

if TYPE_CHECKING:
    from a3sgw.config.load import Loaded
    from a3sgw.source import Source

__all__ = ["Supply"]


class Supply:
    """
    The files of a `source`, watched if they ask for it.

    `changed` is called when they may have changed; whoever wants to know sets it. `run_aside` calls a slow function in a thread and gives a
    Deferred.
    """

    def __init__(self, source: Source, reactor: Any, run_aside: Callable[..., Deferred[Any]]) -> None:
        self.changed: Callable[[], object] = lambda: None
        self._source = source
        self._watcher = FileWatcher(reactor, lambda: self.changed(), self.is_up_to_date, run_aside)

    def is_up_to_date(self) -> bool:
        """
        Whether the files are as they were when they were last read. To be called in a thread.
        """
        return self._source.memory.is_up_to_date()

    def follow(self, loaded: Loaded) -> None:
        """
        Watch what came of the last `load`, or nothing, as the configuration says.
        """
        providers = None if loaded.config is None else loaded.config.providers
        if self._source.path is None or providers is None or providers.file is None or not providers.file.watch:
            self._watcher.stop()
        else:
            folder = providers.file.directory
            self._watcher.watch((path for path in loaded.seen if path != folder), folder)

    def stop(self) -> None:
        """
        Watch nothing any more.
        """
        self._watcher.stop()
