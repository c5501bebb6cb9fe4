"""
Where this process's configuration comes from, and who says that there is a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from a3sgw.loading import with_offers
from a3sgw.provider.aggregate import Aggregator, Wanted
from a3sgw.provider.catalog import ProviderTypes, find_provider_types
from a3sgw.provider.file import FileWatcher

if TYPE_CHECKING:
    from a3sgw.config.load import Loaded
    from a3sgw.config.merge import Offer
    from a3sgw.config.model import ProvidersConfig
    from a3sgw.source import Source

__all__ = ["PLUGIN_RANK", "Supply"]

PLUGIN_RANK: Final = 100
"""Plugins have least say; the files have most: docker 10, IngressRoute 20, Ingress 30, discovery 40, dns 50 come between."""


class Supply:
    """
    The files of a `source`, watched if they ask for it, and the providers that they name.

    `changed` is called when there may be something new; whoever wants to know sets it. `run_aside` calls a slow function in a thread and
    gives a Deferred. `types` are the types of providers there are; without them, those of installed plugins.
    """

    def __init__(
        self, source: Source, reactor: Any, run_aside: Callable[..., Deferred[Any]], types: ProviderTypes | None = None
    ) -> None:
        self.changed: Callable[[], object] = lambda: None
        self._source = source
        self._types = types
        self._watcher = FileWatcher(reactor, lambda: self.changed(), self._are_files_up_to_date, run_aside)
        self._aggregator = Aggregator(reactor, lambda: self.changed())
        self._taken: tuple[Offer, ...] = ()

    def load(self) -> Loaded:
        """
        Read the configuration as it stands now, with what providers offer. To be called in a thread, once at a time.
        """
        self._taken = offers = self._aggregator.offers
        return with_offers(self._source.load(), offers)

    def is_up_to_date(self) -> bool:
        """
        Whether files and offers are as they were when the configuration was last read. To be called in a thread.
        """
        return self._taken == self._aggregator.offers and self._are_files_up_to_date()

    def _are_files_up_to_date(self) -> bool:
        return self._source.memory.is_up_to_date()

    def follow(self, loaded: Loaded) -> None:
        """
        Watch what came of the last `load`, and run the providers, as the configuration says.
        """
        providers = None if loaded.config is None else loaded.config.providers
        if self._source.path is None or providers is None or providers.file is None or not providers.file.watch:
            self._watcher.stop()
        else:
            folder = providers.file.directory
            self._watcher.watch((path for path in loaded.seen if path != folder), folder)
        self._aggregator.follow(self._wanted(providers) if providers is not None else {})

    def _wanted(self, providers: ProvidersConfig) -> dict[str, Wanted]:
        types = self._types or find_provider_types()
        return {
            name: Wanted(PLUGIN_RANK, config, partial(types.by_name[config.type].build, config))
            for name, config in providers.plugin.items()
        }

    def rows(self) -> list[dict[str, Any]]:
        """
        Return how each provider stands; see `Aggregator.rows`.
        """
        return self._aggregator.rows()

    def stop(self) -> None:
        """
        Watch nothing any more, and stop the providers.
        """
        self._watcher.stop()
        self._aggregator.stop()
