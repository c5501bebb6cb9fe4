"""
Pieces for `micro`: the middlewares, each alone, and a chain of them.

Everything is built by the real assembly from a configuration. A single middleware is timed by its hooks, which are called in the order of
a passage (`a3sgw.proxy.passage`) on a real exchange, minus the same without a hook. The chain is timed as part of whole exchanges, from the
head that was read to the metrics, which end at a server that answers at once; the same exchanges on a router without middlewares are taken
off. So what a chain costs includes the passage itself and the counters of its middlewares.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from .cases import CASES, HOST, SMALL_BODY, Request
from .piece import INPUTS, Piece, Prepared
from .variations import ALL, FIVE, PLAIN, REFUSED, REFUSED_UNTOLD, Variation, credentials

__all__ = ["MIDDLEWARE_PIECES"]

_CLIENT = b"\x7f\x00\x00\x01"
_CONFIG = """
entrypoints "web" {{
  address = "127.0.0.1:8080"
}}
routers "bench" {{
  rule        = "PathPrefix(`/`)"
  service     = "upstream"
  middlewares = {listed}
}}
{middlewares}
services "upstream" {{
  load_balancer {{
    servers = [{{ url = "http://127.0.0.1:9001" }}]
  }}
}}
observability {{
  access_log {{
    enabled = false
  }}
}}
"""
_ITEMS = [{"id": number * 7919, "name": f"item {number}", "price": number * 37 % 9973 / 100} for number in range(200)]
_JSON_10K = json.dumps(_ITEMS).encode()


class _Nobody:
    """
    A client that takes everything.
    """

    def send_head(self, head: Any, piece: bytes, ended: bool) -> None:
        pass


class _AtOnce:
    """
    A pool, and its connections, whose server has answered before it was asked.
    """

    was_used = False

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def lease(self, lessee: Any, *, fresh: bool = False) -> _AtOnce:
        return self

    def send_request(self, exchange: Any, piece: bytes, ended: bool) -> None:
        exchange.head_received(self._answer(), SMALL_BODY, True)


class _Gateway:
    """
    A gateway with one variation, on a reactor where nothing happens.
    """

    def __init__(self, variation: Variation, answer: Callable[[], Any]) -> None:
        from a3sgw.proxy.forwarding import Forwarding
        from a3sgw.testing import Dialogue

        with tempfile.TemporaryDirectory() as directory:
            self.dialogue = Dialogue(_CONFIG.format(listed=variation.listed, middlewares=variation.middlewares(Path(directory))))
        self.entrypoint: Any = self.dialogue.door().entrypoint
        self.forwarding = Forwarding(b"127.0.0.1", _CLIENT, b"127.0.0.1", b"http", b"8080")
        # Not in one step: mypy would go by what is assigned.
        found: Any = self.entrypoint.table.match(read_head(0, ()))
        self.route: Any = found
        for backend in found.service.backends:
            backend.pool = _AtOnce(answer)

    def exchange(self) -> Any:
        from a3sgw.proxy.exchange import Exchange

        client: Any = _Nobody()
        return Exchange(self.entrypoint, client, b"127.0.0.1", b"http", monotonic())


def read_head(number: int, names: tuple[str, ...], body: bytes = b"", more: dict[str, str] | None = None) -> Any:
    """
    Return the head of a request as clients of the bench send it, with those of the `credentials` that are called one of `names`.
    """
    from a3sgw.wire.http1 import RequestLimits, read_request_head

    known = credentials()
    request = CASES["varied"].make(number)
    headers = {**request.headers, **{name: known[name] for name in names}, **(more or {})}
    data = Request("POST" if body else "GET", request.target, HOST, headers, body).encode().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    head = read_request_head(data, len(data) - 4, RequestLimits())[0]
    head.client, head.client_packed = b"127.0.0.1", _CLIENT
    head.request_id = b"%022x" % (number * 7919**4)
    return head


def _answers(body: bytes) -> Callable[[], Any]:
    """
    Return a function that makes the head of a fresh answer.
    """
    from a3sgw.wire.http1 import read_response_head

    data = (
        b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 01 Jan 2035 00:00:00 GMT\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nETag: \"abc\"\r\nX-Response-Id: %032x\r\n\r\n" % (len(body), 7919**7)
    )
    model = read_response_head(data, len(data) - 4, b"GET")

    def answer() -> Any:
        head = type(model)(200, model.status_line)
        head.fields = model.fields.copy()
        head.length = head.declared_length = len(body)
        head.has_date = True
        return head

    return answer


# -- whole exchanges ------------------------------------------------------------------------------------------------------------------


def _whole(variation: Variation) -> Prepared:
    gateway = _Gateway(variation, _answers(SMALL_BODY))
    heads = [read_head(number, ()) for number in range(INPUTS)]
    length = len(variation.blocks)
    forwarding, begin = gateway.forwarding, gateway.exchange

    def run(head: Any) -> Any:
        exchange = begin()
        exchange.begin(head, forwarding, b"", True)
        return exchange

    return run, heads, lambda exchange: exchange.status == variation.status and exchange.passed == length


# -- the hooks of one middleware ------------------------------------------------------------------------------------------------------


class _Walk:
    """
    Calls every hook of a chain as a passage does, with an exchange that is made ready for each request.
    """

    def __init__(self, gateway: _Gateway, answer: Callable[[], Any], body: bytes, answer_body: bytes) -> None:
        from a3sgw.errors import Outcome

        self._chain = gateway.route.chain
        self._gateway = gateway
        self._answer = answer
        self._body = body
        self._answer_body = answer_body
        self._completed = Outcome.COMPLETED
        self._exchange = exchange = gateway.exchange()
        exchange.route = gateway.route
        exchange.service = gateway.route.service
        exchange.settings = gateway.route.settings
        self._backend = gateway.route.service.backends[0]

    def prime(self, head: Any) -> None:
        """
        Let a request pass for which something is learnt that holds for the others.
        """
        answer = self(head)[0]
        if answer is not None and hasattr(answer, "addCallback"):
            self._gateway.dialogue.reactor.settle()

    def __call__(self, given: Any) -> tuple[Any, Any, Any, bytes]:
        """
        Return what a request hook answered, if anything, the heads of request and answer, and the body of the answer.
        """
        asked, fields, path, target = given
        chain, exchange = self._chain, self._exchange
        # As the walk before has left it, with what a middleware may have changed put back.
        exchange.head = asked
        asked.fields = fields.copy()
        asked.path, asked.target = path, target
        exchange.forwarding = self._gateway.forwarding
        exchange.notes = {}
        exchange.response_header_timeout = exchange.settings.response_header_timeout
        exchange.passed = exchange.upstream_status = 0
        head, piece = self._answer(), self._answer_body
        if chain is None:
            # Nothing is measured but what is above and below.
            exchange.upstream_status = 200
            exchange.outcome = self._completed
            return None, asked, head, piece
        if chain.identity:
            from a3sgw.middleware.chain import without_identity

            asked.fields = without_identity(asked.fields, chain.identity)
        for _, hook in chain.requests:
            answer = hook(exchange)
            if answer is not None:
                return answer, asked, head, piece
        if self._body:
            exchange.bytes_received = len(self._body)
            for hook in chain.bodies:
                hook(exchange, self._body, True)
        for hook in chain.backends:
            hook.may_use(exchange, self._backend)
            hook.on_attempt_begun(exchange, self._backend)
        exchange.upstream_status = 200
        for hook in chain.responses[-1]:
            hook(exchange, head)
        for source in chain.filters[-1]:
            found = source(exchange, head)
            if found is not None:
                piece = found.feed(piece) + found.end()
        exchange.outcome = self._completed
        for hook in chain.backends:
            hook.on_attempt_ended(exchange, self._backend, self._completed, 200)
        for hook in chain.completions[-1]:
            hook(exchange)
        return None, asked, head, piece


def _hooks(variation: Variation, body: bytes = b"", answer_body: bytes = SMALL_BODY, more: dict[str, str] | None = None) -> Prepared:
    answer = _answers(answer_body)
    walk = _Walk(_Gateway(variation, answer), answer, body, answer_body)
    heads = [read_head(number, variation.headers, body, more) for number in range(INPUTS)]
    inputs = [(head, head.fields.copy(), head.path, head.target) for head in heads]
    walk.prime(inputs[0])
    turn = iter([variation.asks(target.decode()).encode() for *_, target in inputs])

    def is_right(result: tuple[Any, Any, Any, bytes]) -> bool:
        answered, request, head, _ = result
        fields = head.fields if answered is None else answered.fields
        shown = not variation.shows or any(field[0] == variation.shows.encode() for field in fields)
        return (200 if answered is None else answered.status) == variation.status and shown and request.target == next(turn)

    return walk, inputs, is_right


def _gzip_hooks(variation: Variation) -> Prepared:
    function, inputs, _ = _hooks(variation, answer_body=_JSON_10K, more={"Accept-Encoding": "gzip"})
    return function, inputs, lambda result: not variation.blocks or result[3][:2] == b"\x1f\x8b"


def _piece(variation: Variation) -> Piece:
    body = CASES["post10k"].make(0).body if variation.name == "body-limit" else b""
    bare = replace(variation, blocks=(), shows="", asks=str, status=200)
    return Piece(f"middleware: {variation.name}", lambda: _hooks(variation, body), lambda: _hooks(bare, body))


_COMPRESS = next(variation for variation in ALL if variation.name == "compress")
_REDIRECTED = Variation(
    "redirect-scheme-redirected", ('type      = "redirect-scheme"\nscheme    = "https"\npermanent = true',), shows="location", status=301
)

MIDDLEWARE_PIECES = [
    Piece("middlewares: an exchange, none", lambda: _whole(PLAIN)),
    Piece("middlewares: chain of five idle", lambda: _whole(FIVE), lambda: _whole(PLAIN)),
    *[_piece(variation) for variation in (*ALL, REFUSED, REFUSED_UNTOLD, _REDIRECTED) if variation is not FIVE],
    Piece("middleware: compress-gzip-10k", lambda: _gzip_hooks(_COMPRESS), lambda: _gzip_hooks(PLAIN)),
]
