"""
Tell those who keep an index of backends that one of them is more or less busy.

An index lives in the balancer of one generation, but backends outlive generations and are let go of by exchanges of earlier ones. So it
is the backend that tells, and it holds its followers weakly: an index that is dropped with its generation is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import ref

from a3sgw.service.backend import Backend

__all__ = ["Follower", "follow"]


class Follower(Protocol):
    """
    Somebody who wants to know how busy backends are.
    """

    def load_changed(self, backend: Backend) -> None:
        """
        The number of exchanges in flight to `backend` has changed, or the time it takes for one.
        """


def follow(backends: Sequence[Backend], follower: Follower) -> None:
    """
    Let each of `backends` tell `follower` from now on, for as long as anybody else holds it.
    """

    def forget(reference: ref[Follower]) -> None:
        for backend in backends:
            backend.followers = tuple(each for each in backend.followers if each is not reference)

    reference = ref(follower, forget)
    for backend in backends:
        backend.followers = (*backend.followers, reference)
