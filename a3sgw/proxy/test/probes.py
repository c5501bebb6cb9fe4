"""
Middlewares that do what a test says, and remember what they were asked.
"""

from typing import Any, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.setting import label
from a3sgw.errors import Outcome
from a3sgw.interfaces import (
    IAttemptHook,
    IBackendHook,
    IBodyFilter,
    IBodyFilterSource,
    ICompletionHook,
    IIdentitySource,
    IRequestBodyHook,
    IRequestHook,
    IResponseHook,
    IRetirable,
    IStateSource,
)
from a3sgw.middleware.catalog import Catalog
from a3sgw.middleware.factory import MiddlewareFactory


@implementer(
    IAttemptHook,
    IBackendHook,
    IBodyFilterSource,
    ICompletionHook,
    IIdentitySource,
    IRequestBodyHook,
    IRequestHook,
    IResponseHook,
    IRetirable,
    IStateSource,
)
class Probe:
    """
    Provides every phase. `told` is what it was asked; an attribute named like a phase is what it answers, called if it can be.
    """

    refusal = Outcome.CIRCUIT_OPEN
    identity_fields = frozenset([b"x-user"])

    def __init__(self, name):
        self.name = name
        self.told = []
        self.request: Any = None
        self.body: Any = None
        self.attempt: Any = None
        self.use: Any = True
        self.response: Any = None
        self.filter: Any = None
        self.complete: Any = None

    def _answer(self, what, answer, *given):
        self.told.append(what)
        return answer(*given) if callable(answer) else answer

    def on_request(self, exchange):
        return self._answer("request", self.request, exchange)

    def on_request_body(self, exchange, piece, ended):
        return self._answer(("body", piece, ended), self.body, exchange, piece, ended)

    def on_attempt_failed(self, exchange, outcome, status):
        return self._answer(("failed", outcome.word, status), self.attempt, exchange, outcome, status)

    def may_use(self, exchange, backend):
        return self.use(backend) if callable(self.use) else self.use

    def on_attempt_begun(self, exchange, backend):
        self.told.append(("begun", backend.url))

    def on_attempt_ended(self, exchange, backend, outcome, status):
        self.told.append(("ended", backend.url, outcome.word, status))

    def on_response(self, exchange, head):
        return self._answer(("response", head.status), self.response, exchange, head)

    def body_filter(self, exchange, head):
        return self._answer("filter", self.filter, exchange, head)

    def on_complete(self, exchange):
        self._answer(("complete", exchange.outcome.word, exchange.status), self.complete, exchange)

    def describe(self):
        return {"asked": len(self.told)}

    def retire(self):
        self.told.append("retired")


@implementer(IBodyFilter)
class Shouting:
    """
    Makes letters capital, and puts a mark at the end.
    """

    def feed(self, piece):
        return piece.upper()

    def end(self):
        return b"!"


@attrs.frozen(kw_only=True)
class ProbeConfig:
    """
    The configuration of a probe.
    """

    type: ClassVar[str] = "probe"

    name: str = label()


class Probes:
    """
    The probes of one test, by name, and the catalog that makes them. Those that are built only to be checked are not kept.
    """

    def __init__(self):
        self.made = {}
        self.catalog = Catalog.of([MiddlewareFactory(ProbeConfig, self._make)])

    def _make(self, config, surroundings):
        probe = Probe(config.name)
        if surroundings.owner.startswith(("router", "entrypoint")):
            self.made[config.name] = probe
        return probe

    def __getitem__(self, name):
        return self.made[name]
