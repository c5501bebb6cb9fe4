"""
Compile middlewares into phases.

A middleware is not an onion of calls: a chain asks each one once which phase interfaces it provides and keeps tuples of bound methods, so
an exchange walks plain tuples, and a phase nobody provides is an empty one.

Who let a request pass hears of its response and its end, and nobody else does. A request that was answered on the way has passed a part of
the chain, so the later phases are kept once for each number of middlewares that a request may have passed.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from zope.interface import Interface

from a3sgw.interfaces import (
    IAttemptHook,
    IBackendHook,
    IBodyFilterSource,
    ICompletionHook,
    IIdentitySource,
    IRequestBodyHook,
    IRequestFilterSource,
    IRequestHook,
    IResponseHook,
)
from a3sgw.message import Field

__all__ = ["Chain", "Link", "without_identity"]

Hook = Callable[..., Any]


class Link:
    """
    One middleware in a chain: its configured `name` and `type_name`, the object itself, and the `series` of its metrics.
    """

    __slots__ = ("middleware", "name", "series", "type_name")

    def __init__(self, name: str, type_name: str, middleware: Any, series: Any) -> None:
        self.name = name
        self.type_name = type_name
        self.middleware = middleware
        self.series = series

    def __repr__(self) -> str:
        return f"<Link {self.name} of type {self.type_name}>"


def without_identity(fields: Sequence[Field], names: frozenset[bytes]) -> list[Field]:
    """
    Return `fields` without those called like one of `names`, or like it but for underscores: to many servers the two are the same.
    """
    return [field for field in fields if field[0].replace(b"_", b"-") not in names]


class Chain:
    """
    Some middlewares, compiled.

    `requests` are the request hooks in order, each with the number of middlewares before it. The tuples `responses`, `filters`,
    `completions` and `series` are indexed by how many middlewares let the request pass; the first two are in reverse order. `identity`
    are the names that clients may not use. `judges_backends` says that there are `backends` hooks. `counts` are exchanges that have ended
    since metrics last looked, by how many middlewares let them pass.
    """

    __slots__ = (
        "attempts",
        "backends",
        "bodies",
        "completions",
        "counts",
        "filters",
        "identity",
        "judges_backends",
        "length",
        "links",
        "request_filters",
        "requests",
        "responses",
        "series",
    )

    def __init__(self, links: Sequence[Link]) -> None:
        self.links: Final = tuple(links)
        self.length: Final = len(links)
        self.requests: Final = tuple(
            (position, link.middleware.on_request) for position, link in enumerate(links) if IRequestHook.providedBy(link.middleware)
        )
        self.bodies: Final = self._hooks(IRequestBodyHook, "on_request_body")
        self.request_filters: Final = self._hooks(IRequestFilterSource, "request_filter")
        self.attempts: Final = self._hooks(IAttemptHook, "on_attempt_failed")
        self.backends: Final = tuple(link.middleware for link in links if IBackendHook.providedBy(link.middleware))
        self.judges_backends: Final = bool(self.backends)
        self.responses: Final = self._by_passed(IResponseHook, "on_response", is_reversed=True)
        self.filters: Final = self._by_passed(IBodyFilterSource, "body_filter", is_reversed=True)
        self.completions: Final = self._by_passed(ICompletionHook, "on_complete", is_reversed=False)
        # Whoever answers was invoked too.
        self.series: Final = tuple(tuple(link.series for link in links[: passed + 1]) for passed in range(len(links) + 1))
        self.counts = [0] * (len(links) + 1)
        named: set[bytes] = set()
        for link in links:
            if IIdentitySource.providedBy(link.middleware):
                named |= {name.lower().replace(b"_", b"-") for name in link.middleware.identity_fields}
        self.identity: Final = frozenset(named)

    def _hooks(self, phase: type[Interface], method: str) -> tuple[Hook, ...]:
        return tuple(getattr(link.middleware, method) for link in self.links if phase.providedBy(link.middleware))

    def _by_passed(self, phase: type[Interface], method: str, *, is_reversed: bool) -> tuple[tuple[Hook, ...], ...]:
        rows = []
        for passed in range(self.length + 1):
            hooks = [getattr(link.middleware, method) for link in self.links[:passed] if phase.providedBy(link.middleware)]
            rows.append(tuple(reversed(hooks) if is_reversed else hooks))
        return tuple(rows)

    def __repr__(self) -> str:
        return f"<Chain {' → '.join(link.name for link in self.links) or 'of nothing'}>"
