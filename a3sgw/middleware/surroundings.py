"""
What a middleware is built with besides its configuration.

Everything a middleware may want of the world outside comes through here, so that it can be built by `validate`, run on a test's clock, and
moved to another process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from zope.interface import implementer

from a3sgw.interfaces import IDestination, IOutbound

if TYPE_CHECKING:
    from a3sgw.message import Field, LocalResponse
    from a3sgw.middleware.post import Post
    from a3sgw.policy.arena import Arena
    from a3sgw.service.service import Service

__all__ = ["Nowhere", "Surroundings", "still_surroundings"]


@attrs.frozen(kw_only=True, eq=False)
class Surroundings:
    """
    One middleware's view of the world.

    `owner` says whose middleware it is: `router "api"` or `entrypoint "web"`. `seconds` is the monotonic clock of all deadlines,
    `wall_clock` gives seconds of the epoch. `reactor` is there for timed calls and for the connections of libraries. `outbound` sends small
    requests, `destination_of` does so to a service of this configuration, by its name. `in_thread` calls a function that would take long
    (a slow hash, say) elsewhere and gives its result. `chance` is the source of everything random that is not a secret. `shared` gives
    what all middlewares of this process have in common under a key, across reloads too, and makes it if there is none: it is there for as
    long as one of them holds it, and not `is_closed`. Where several processes carry the traffic, `arena` is the memory that they share, and
    `post` carries letters among them; otherwise both are `None`.
    """

    owner: str
    seconds: Callable[[], float]
    wall_clock: Callable[[], float]
    reactor: Any
    outbound: IOutbound
    destination_of: Callable[[str], IDestination]
    in_thread: Callable[..., Deferred[Any]]
    chance: random.Random
    shared: Callable[[Hashable, Callable[[], Any]], Any]
    arena: Arena | None = None
    post: Post | None = None


@implementer(IOutbound, IDestination)
class Nowhere:
    """
    A way out that leads nowhere, for middlewares that are built only to see whether they can be.
    """

    def open(self, url: str) -> Nowhere:
        """
        Return itself.
        """
        return self

    def open_service(self, service: Service) -> Nowhere:
        """
        Return itself.
        """
        return self

    def fetch(
        self, method: bytes, target: bytes, fields: Sequence[Field], *, body: bytes, timeout: float, max_body_bytes: int
    ) -> Deferred[LocalResponse]:
        """
        Never to be called.
        """
        raise AssertionError("a middleware that is only being checked sends a request")

    def close(self) -> None:
        """
        Do nothing.
        """


def still_surroundings(owner: str) -> Surroundings:
    """
    Return surroundings in which no time passes and nothing can be reached, for `validate`.
    """
    clock = Clock()
    nowhere = Nowhere()
    return Surroundings(
        owner=owner,
        seconds=clock.seconds,
        wall_clock=clock.seconds,
        reactor=clock,
        outbound=nowhere,
        destination_of=lambda name: nowhere,
        in_thread=execute,
        chance=random.Random(0),
        shared=lambda key, make: make(),
    )
