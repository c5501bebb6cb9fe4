"""
Keep what each provider last offered, and say when there is something new.

Providers come and go as the configuration says. What one has offered stays as long as it is configured, however often it fails; whoever has
gone takes everything along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.config.merge import Offer
from a3sgw.config.model import GatewayConfig
from a3sgw.interfaces import IConfigSink, IProvider

__all__ = ["Aggregator", "Wanted"]


@attrs.frozen(eq=False)
class Wanted:
    """
    A provider that is to run: its rank, the lower the more it has to say, what it is configured with, and what makes it.
    """

    rank: int
    config: Any
    build: Callable[[Any], IProvider]


class Aggregator:
    """
    Runs the providers that are wanted.

    `changed` is called after an offer that is new, and then none for `QUIET_SECONDS`, or after `LATEST_SECONDS` if they never cease.
    """

    QUIET_SECONDS: Final = 1.0
    LATEST_SECONDS: Final = 5.0
    log = Logger()

    def __init__(self, reactor: Any, changed: Callable[[], object]) -> None:
        self.offers: tuple[Offer, ...] = ()
        """What was offered last, those with more say first. A tuple that is exchanged, so that another thread may read it."""
        self._reactor = reactor
        self._changed = changed
        self._slots: dict[str, _Slot] = {}
        self._quiet: Any = None
        self._latest = 0.0

    def follow(self, wanted: Mapping[str, Wanted]) -> None:
        """
        Run what is wanted, by name, and nothing else. A provider whose configuration has not changed goes on.
        """
        for name, slot in list(self._slots.items()):
            other = wanted.get(name)
            if other is None or (other.rank, other.config) != (slot.wanted.rank, slot.wanted.config):
                del self._slots[name]
                slot.stop()
                if slot.held is not None:
                    self._gather()
        for name, each in wanted.items():
            if name not in self._slots:
                slot = self._slots[name] = _Slot(name, each, self)
                slot.start(self._reactor)

    def stop(self) -> None:
        """
        Stop all providers; nothing is said any more.
        """
        slots, self._slots = self._slots, {}
        for slot in slots.values():
            slot.stop()
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def rows(self) -> list[dict[str, Any]]:
        """
        Return how each provider stands, as plain values: `name`, `objects` (how many it offers, `None` before its first offer), `error`
        and `since` (seconds of the epoch).
        """
        return [slot.row() for _, slot in sorted(self._slots.items())]

    def _gather(self) -> None:
        slots = sorted(self._slots.values(), key=lambda slot: (slot.wanted.rank, slot.name))
        self.offers = tuple(Offer(slot.name, slot.held) for slot in slots if slot.held is not None)
        now = self._reactor.seconds()
        if self._quiet is None:
            self._latest = now + self.LATEST_SECONDS
            self._quiet = self._reactor.callLater(self.QUIET_SECONDS, self._has_been_quiet)
        elif now + self.QUIET_SECONDS <= self._latest:
            self._quiet.reset(self.QUIET_SECONDS)

    def _has_been_quiet(self) -> None:
        self._quiet = None
        self._changed()

    def offered(self) -> None:
        """
        One of the slots has a new offer.
        """
        self._gather()


@implementer(IConfigSink)
class _Slot:
    """
    One provider that runs, and what came of it.
    """

    def __init__(self, name: str, wanted: Wanted, owner: Aggregator) -> None:
        self.name = name
        self.wanted = wanted
        self.held: GatewayConfig | None = None
        self.error: str | None = None
        self._since = time.time()
        self._owner: Aggregator | None = owner
        self._provider: IProvider | None = None

    def start(self, reactor: Any) -> None:
        """
        Make the provider and start it. One with a bug is as good as one that fails.
        """
        try:
            self._provider = self.wanted.build(reactor)
            self._provider.start(self)
        except Exception as error:
            Aggregator.log.failure("provider {name} could not be started", name=self.name)
            self.failed(f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        """
        Stop the provider. What it says afterwards is not heard.
        """
        self._owner = None
        if self._provider is not None:
            try:
                self._provider.stop()
            except Exception:
                Aggregator.log.failure("provider {name} could not be stopped", name=self.name)

    def row(self) -> dict[str, Any]:
        """
        Return how the provider stands.
        """
        offer = self.held
        objects = None if offer is None else len(offer.routers) + len(offer.services) + len(offer.middlewares)
        return {"name": self.name, "objects": objects, "error": self.error, "since": self._since}

    # -- what the provider calls

    def offer(self, config: GatewayConfig) -> None:
        """
        Keep an offer.
        """
        if self._owner is None:
            return
        if self.error is not None:
            Aggregator.log.info("provider {name} tells what there is again", name=self.name)
            self._note(None)
        if config != self.held:
            self.held = config
            self._owner.offered()

    def failed(self, reason: str) -> None:
        """
        Keep the last offer.
        """
        if self._owner is None:
            return
        if reason != self.error:
            Aggregator.log.warn("provider {name} fails, and what it said last goes on: {reason}", name=self.name, reason=reason)
            self._note(reason)

    def _note(self, error: str | None) -> None:
        self.error = error
        self._since = time.time()
