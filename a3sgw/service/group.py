"""
Backends that share one balancer: those of a service, or of one of its revisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from a3sgw.interfaces import IBalancer
from a3sgw.policy.verdict import usable_of
from a3sgw.service.backend import Backend

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["Group"]


class Group:
    """
    `backends` in configured order, of which `usable` may be chosen, once `refresh` was called. `usable` is a new tuple whenever it
    changes, and only then.

    `panic_threshold` is the percentage of sound backends below which all but the draining ones are used.
    """

    __slots__ = ("_balancer", "backends", "panic_threshold", "revision", "strategy", "usable")

    def __init__(
        self,
        backends: Sequence[Backend],
        balancer: IBalancer,
        *,
        strategy: str = "",
        revision: str | None = None,
        panic_threshold: float = 0.0,
    ) -> None:
        self.backends = tuple(backends)
        self.strategy = strategy
        self.revision = revision
        self.panic_threshold = panic_threshold
        self.usable: tuple[Backend, ...] = ()
        self._balancer = balancer

    def __repr__(self) -> str:
        return f"<Group {self.revision or ''} {len(self.usable)}/{len(self.backends)} usable>"

    def refresh(self, now: float) -> bool:
        """
        Decide anew who may be chosen; tell whether that changed anything.
        """
        usable = tuple(usable_of({backend: backend.verdicts for backend in self.backends}, self.panic_threshold))
        for backend in self.backends:
            is_usable = backend in usable
            if is_usable and not backend.is_usable:
                backend.usable_since = now
            backend.is_usable = is_usable
        if usable == self.usable:
            return False
        self.usable = usable
        return True

    def choose(self, record: Record, tried: Sequence[Backend], limit: int = 0) -> Backend | None:
        """
        Return the backend for the next attempt, or `None` if there is none but those in `tried` and those with `limit` in flight.
        """
        candidates: Sequence[Backend] = self.usable
        if tried:
            candidates = [backend for backend in candidates if backend not in tried]
        if limit and any(backend.is_full(limit) for backend in candidates):
            candidates = [backend for backend in candidates if not backend.is_full(limit)]
        if not candidates:
            return None
        return self._balancer.choose(candidates, record)

    def can_serve(self, tried: Sequence[Backend], limit: int) -> bool:
        """
        Tell whether `choose` would have anybody to choose among.
        """
        return any(backend not in tried and (not limit or not backend.is_full(limit)) for backend in self.usable)
