"""
What parts of a generation are built with, and how those of the previous one are taken over.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import attrs
from twisted.internet.defer import Deferred

from a3sgw.config.kinds import FILE
from a3sgw.config.setting import settings_of
from a3sgw.interfaces import IOutbound
from a3sgw.message import LocalResponse, RequestHead
from a3sgw.middleware.catalog import Catalog
from a3sgw.middleware.post import Post
from a3sgw.net.connect import Dialer
from a3sgw.observe.metrics import Metrics
from a3sgw.policy.arena import Arena, share_of
from a3sgw.proxy.entrypoint import Observers
from a3sgw.service.strategies import Strategies

__all__ = ["Crew", "Kit", "Parts", "digest_of_files"]

T = TypeVar("T")


@attrs.frozen(slots=True, eq=False)
class Crew:
    """
    What a carrier has in common with others that carry for the same gateway: the key that all sign cookies with, the memory that they
    share, what has the others called `judged_elsewhere`, and the post among their middlewares.
    """

    sticky_key: bytes
    arena: Arena | None = None
    announce: Callable[[], None] | None = None
    post: Post | None = None


@attrs.frozen(slots=True, eq=False)
class Kit:
    """
    What parts are built with; the same for all generations of one carrier.

    `ask` answers requests to the gateway's own API, `in_thread` calls a slow function elsewhere, `outbound` sends requests of the gateway's
    own. `reactor` is for timed calls. `sticky_key` signs the cookies of services that are given no key. `arena` is what several workers
    share; where there is only one, it is `None`; `announce` tells the others that verdicts have changed. `connection_observers` are shown
    what went over tcp entrypoints, `session_observers` what went over udp entrypoints, `observers` everything else.
    """

    reactor: Any
    dialer: Dialer
    metrics: Metrics
    observers: Observers
    connection_observers: Observers
    session_observers: Observers
    ask: Callable[[RequestHead], LocalResponse | Deferred[LocalResponse]]
    outbound: IOutbound
    catalog: Catalog
    strategies: Strategies
    wall_clock: Callable[[], float]
    in_thread: Callable[..., Deferred[Any]]
    chance: random.Random
    sticky_key: bytes
    arena: Arena | None = None
    announce: Callable[[], None] | None = None
    post: Post | None = None
    shared: WeakValueDictionary[Hashable, Any] = attrs.field(factory=WeakValueDictionary)

    def share(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """
        Return what middlewares share under `key`, as long as one of them holds it and has not closed it.
        """
        found = self.shared.get(key)
        if found is None or found.is_closed:
            found = self.shared[key] = make()
        return found

    def part_of(self, limit: int) -> int:
        """
        Return how much of a limit of the gateway this worker may use where nobody counts for all.
        """
        return limit if self.arena is None else share_of(limit, self.arena.workers)


class Parts:
    """
    The runtime objects of a generation in the making; those of the previous one are taken over by key.
    """

    def __init__(self, previous: Mapping[Hashable, Any]) -> None:
        self._previous = previous
        self.has_previous = bool(previous)
        self.made: dict[Hashable, Any] = {}

    def held(self, key: Hashable) -> Any:
        """
        Return the part for `key` that there is already, or `None`.
        """
        part = self.made.get(key)
        return self._previous.get(key) if part is None else part

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """
        Return the part for `key`: that of this generation, or of the previous one, or a new one.
        """
        part = self.made.get(key)
        if part is None:
            part = self._previous.get(key)
            if part is None:
                part = make()
            self.made[key] = part
        return part


def digest_of_files(config: Any) -> bytes:
    """
    Return a digest of every file that `config` names, so that a reload takes up what changed in them.
    """
    digest = hashlib.blake2b(digest_size=16)
    for declared in settings_of(config.__class__):
        path = getattr(config, declared.attribute)
        if declared.kind is FILE and path is not None:
            try:
                with open(path, "rb") as stream:
                    digest.update(b"\1" + hashlib.blake2b(stream.read()).digest())
            except OSError:
                digest.update(b"\0")
    return digest.digest()
