"""
One exchange's way through its chain of middlewares.

An exchange whose route has no middlewares never makes one of these. The passage asks the hooks in their order, remembers how many let the
request pass, waits where one makes it wait, and shows the response to the same middlewares on the way back. Where the request goes and what
a failure means remains the exchange's matter.

A hook is other people's code: one that raises is reported, and costs this exchange and nobody else's.

Long because every phase is walked here, and what waits or breaks in one of them is seen by the others.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IBodyFilter, ITrailerFilter
from a3sgw.message import Field, LocalResponse, ResponseHead
from a3sgw.middleware.chain import Chain, without_identity
from a3sgw.refusal import proxy_status
from a3sgw.service.backend import Backend
from a3sgw.wire.http1 import CHUNKED

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Passage"]


class _Held:
    """
    A response that a hook keeps waiting: what has arrived of it, and which hook is next.
    """

    __slots__ = ("ended", "head", "next", "piece", "trailers")

    def __init__(self, head: ResponseHead, piece: bytes, ended: bool, trailers: Sequence[Field], next: int) -> None:
        self.head = head
        self.piece = piece
        self.ended = ended
        self.trailers = trailers
        self.next = next


class Passage:
    """
    The state of one exchange in one chain.

    `judges_backends` says that `excluded` must be asked before a server is chosen, `takes_trailers` that the trailers of the response
    become a part of its body.
    """

    __slots__ = (
        "_began_waiting",
        "_chain",
        "_exchange",
        "_filters",
        "_held",
        "_request_filters",
        "_timer",
        "_waiting",
        "judges_backends",
        "takes_trailers",
    )

    LONGEST_WAIT: Final = 120.0
    """Seconds after which a hook that makes an exchange wait has failed; whoever waits for something has a bound of its own."""

    _log = Logger()

    def __init__(self, exchange: Exchange, chain: Chain) -> None:
        self._exchange = exchange
        self._chain = chain
        self._filters: list[IBodyFilter] | None = None
        self._request_filters: list[IBodyFilter] = []
        self._held: _Held | None = None
        self._waiting: Deferred[Any] | None = None
        self.judges_backends = chain.judges_backends
        self.takes_trailers = False

    # -- the request

    def enter(self, start: int = 0) -> None:
        """
        Ask the request hooks from the one at `start` on, then let the exchange choose a server.
        """
        exchange = self._exchange
        chain = self._chain
        if chain.identity and not start:
            head = exchange.head
            assert head is not None
            head.fields = without_identity(head.fields, chain.identity)
        position = 0
        answer: Any = None
        try:
            for position, hook in chain.requests[start:] if start else chain.requests:
                answer = hook(exchange)
                if answer is not None:
                    start = next(index for index, row in enumerate(chain.requests) if row[0] == position) + 1
                    break
        except Exception:
            exchange.passed = position
            self._hook_failed(position, Failure())
            return
        if answer is None:
            exchange.passed = chain.length
            if chain.request_filters:
                self._find_request_filters()
            if not (chain.bodies or self._request_filters) or self._shows_waiting_body():
                exchange.choose_and_try()
            return
        exchange.passed = position
        if isinstance(answer, LocalResponse):
            self._answer(position, answer)
        else:
            self._wait_for(answer, position, lambda response: self._decided(position, start, response))

    def _decided(self, position: int, next_hook: int, response: LocalResponse | None) -> None:
        if response is None:
            self.enter(next_hook)
        else:
            self._answer(position, response)

    def _answer(self, position: int, response: LocalResponse) -> None:
        self._exchange.answered_by = self._chain.links[position].name
        self._exchange.answer_instead(_explained(response))

    def _shows_waiting_body(self) -> bool:
        """
        Show what has arrived of the request's body while its head was on its way; return whether it may be sent on.
        """
        exchange = self._exchange
        body, ended = exchange.waiting_body, exchange.request_ended
        if not body and ended:
            return True
        changed = self.body_received(body, ended)
        if changed is None:
            return False
        exchange.waiting_body = changed
        return True

    def _find_request_filters(self) -> None:
        exchange = self._exchange
        assert exchange.head is not None
        if exchange.head.length:
            found = [source(exchange) for source in self._chain.request_filters]
            self._request_filters = [each for each in found if each is not None]

    def body_received(self, piece: bytes, ended: bool) -> bytes | None:
        """
        Show a piece of the request's body to the hooks; return what may be sent on of it, or `None` if it was answered.
        """
        exchange = self._exchange
        if not piece and not ended:
            return piece
        if exchange.passed < self._chain.length:
            # They see it when the head has passed.
            return piece
        for hook in self._chain.bodies:
            response = hook(exchange, piece, ended)
            if response is not None:
                self._answer(self._position_of(hook), response)
                return None
        if not self._request_filters:
            return piece
        try:
            return _through(self._request_filters, piece, ended, ())
        except ProtocolError as error:
            exchange.request_refused(error.outcome, str(error))
            return None

    def allowed_trailers(self, trailers: Sequence[Field]) -> Sequence[Field]:
        """
        Return the trailers that the client may send.
        """
        return without_identity(trailers, self._chain.identity) if self._chain.identity else trailers

    # -- attempts

    def excluded(self, candidates: Sequence[Backend]) -> tuple[list[Backend], Outcome]:
        """
        Return those of `candidates` that a middleware keeps from being chosen, and what that is called if none is left.
        """
        found = []
        outcome = Outcome.NO_BACKEND
        for backend in candidates:
            for hook in self._chain.backends:
                if not hook.may_use(self._exchange, backend):
                    found.append(backend)
                    outcome = hook.refusal
                    break
        return found, outcome

    def attempt_begun(self, backend: Backend) -> None:
        """
        A server was chosen.
        """
        for hook in self._chain.backends:
            hook.on_attempt_begun(self._exchange, backend)

    def attempt_ended(self, backend: Backend, outcome: Outcome, status: int) -> None:
        """
        An attempt is over, well or badly.
        """
        for hook in self._chain.backends:
            try:
                hook.on_attempt_ended(self._exchange, backend, outcome, status)
            except Exception:
                self._log.failure("bug in {hook!r}", hook=hook)

    def pause_before_next(self, outcome: Outcome, status: int) -> float | None:
        """
        Return how long to wait before another attempt, or `None` if nobody wants one.
        """
        for hook in self._chain.attempts:
            try:
                delay: float | None = hook(self._exchange, outcome, status)
            except Exception:
                self._log.failure("bug in {hook!r}", hook=hook)
                continue
            if delay is not None:
                return delay
        return None

    # -- the response

    def response_received(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        Show a response to the hooks, then let the exchange send it.

        Mostly none of them makes it wait or answers itself, and then nothing is kept of it: 0.3 µs less.
        """
        exchange = self._exchange
        chain = self._chain
        hooks = chain.responses[exchange.passed]
        asked = 0
        answer = None
        try:
            for hook in hooks:
                asked += 1
                answer = hook(exchange, head)
                if answer is not None:
                    break
        except Exception:
            answer = self._crashed(hooks[asked - 1])
        if answer is not None:
            response = _Held(head, piece, ended, (), asked)
            if self._goes_on(response, hooks[asked - 1], answer):
                self._show(response)
        elif head.length and chain.filters[exchange.passed]:
            self._send(_Held(head, piece, ended, (), asked))
        else:
            exchange.send_response(head, piece, ended)

    def _show(self, response: _Held) -> None:
        """
        Ask the response hooks from the next one on.
        """
        exchange = self._exchange
        hooks = self._chain.responses[exchange.passed]
        while response.next < len(hooks):
            hook = hooks[response.next]
            response.next += 1
            try:
                answer = hook(exchange, response.head)
            except Exception:
                answer = self._crashed(hook)
            if answer is not None and not self._goes_on(response, hook, answer):
                return
        self._send(response)

    def _goes_on(self, response: _Held, hook: Any, answer: LocalResponse | Deferred[Any]) -> bool:
        """
        Do as a response hook wants; return whether the next one can be asked, or else it will be later.
        """
        if isinstance(answer, LocalResponse):
            self._put_in_place(response, answer)
            return True
        self._held = response
        self._exchange.hold_upstream()
        self._wait_for(answer, self._position_of(hook), self._released)
        return False

    def _crashed(self, hook: Any) -> LocalResponse:
        self._report(self._position_of(hook), Failure())
        return self._exchange.own_refusal(Outcome.INTERNAL_ERROR)

    def _put_in_place(self, response: _Held, answer: LocalResponse) -> None:
        response.head, response.piece = self._exchange.replace_response(answer)
        response.ended = True
        response.trailers = ()

    def _released(self, answer: LocalResponse | None) -> None:
        response = self._held
        assert response is not None
        self._held = None
        if answer is not None:
            self._put_in_place(response, answer)
        self._show(response)
        if self._held is None:
            self._exchange.free_upstream()

    def _send(self, response: _Held) -> None:
        head, piece, ended = response.head, response.piece, response.ended
        sources = self._chain.filters[self._exchange.passed]
        if sources and head.length:
            try:
                filters = [found for source in sources if (found := source(self._exchange, head)) is not None]
                if filters:
                    self._filters = filters
                    self.takes_trailers = any(ITrailerFilter.providedBy(each) for each in filters)
                    piece = _through(filters, piece, ended, response.trailers)
                    if ended and (self.takes_trailers or not response.trailers):
                        head.length = head.declared_length = len(piece)
                    else:
                        head.length = CHUNKED
            except Exception:
                # Nothing has been sent, but what was changed for the filter cannot be unsaid.
                self._log.failure("bug in a body filter")
                head, piece = self._exchange.replace_response(self._exchange.own_refusal(Outcome.INTERNAL_ERROR))
                self._filters = None
                ended = True
        self._exchange.send_response(head, piece, ended, response.trailers if ended and not self.takes_trailers else ())

    def response_body_received(self, piece: bytes, ended: bool, trailers: Sequence[Field]) -> bytes | None:
        """
        Return what of the next piece can be sent now, or `None` if it is kept until a hook has decided.

        Raises whatever a filter raises.
        """
        held = self._held
        if held is not None:
            held.piece += piece
            held.ended = ended
            held.trailers = trailers
            return None
        return piece if self._filters is None else _through(self._filters, piece, ended, trailers)

    def last_words(self, trailers: Sequence[Field]) -> bytes:
        """
        Return what ends a body that breaks off, where `takes_trailers`.
        """
        return _through(self._filters or (), b"", True, trailers)

    # -- the end

    def complete(self) -> None:
        """
        Tell everybody who let the request pass that the exchange is over.
        """
        if self._waiting is not None:
            self.stop_waiting()
        self._held = None
        exchange = self._exchange
        for hook in self._chain.completions[exchange.passed]:
            try:
                hook(exchange)
            except Exception:
                self._log.failure("bug in {hook!r}", hook=hook)

    # -- waiting

    def _wait_for(self, answer: Deferred[Any], position: int, resume: Callable[[LocalResponse | None], None]) -> None:
        exchange = self._exchange
        self._waiting = answer
        self._began_waiting = monotonic()
        self._timer = exchange.entrypoint.later(self.LONGEST_WAIT, self._time_over, position)

        def came(response: LocalResponse | None) -> None:
            if self._waiting is answer:
                self._end_wait(position)
                try:
                    resume(response)
                except Exception:
                    exchange.hook_failed(Failure())

        def failed(failure: Failure) -> None:
            if self._waiting is answer:
                self._end_wait(position)
                self._held = None
                self._hook_failed(position, failure)

        answer.addCallbacks(came, failed)

    def _end_wait(self, position: int) -> None:
        self._waiting = None
        self._timer.cancel()
        series = self._chain.links[position].series
        series.waits += 1
        series.wait_seconds += monotonic() - self._began_waiting

    def _time_over(self, position: int) -> None:
        waiting, self._waiting = self._waiting, None
        self._held = None
        if waiting is not None:
            waiting.cancel()
        self._exchange.answered_by = self._chain.links[position].name
        self._exchange.answer_instead(self._exchange.own_refusal(Outcome.MIDDLEWARE_TIMEOUT))

    def stop_waiting(self) -> None:
        """
        The exchange ends while a hook makes it wait.
        """
        waiting, self._waiting = self._waiting, None
        self._held = None
        if waiting is not None:
            self._timer.cancel()
            waiting.cancel()

    # -- bugs

    def _position_of(self, hook: Any) -> int:
        return next(position for position, link in enumerate(self._chain.links) if link.middleware is hook.__self__)

    def _report(self, position: int, failure: Failure) -> None:
        link = self._chain.links[position]
        self._exchange.answered_by = link.name
        self._log.failure("bug in middleware {name} of type {type}", failure=failure, name=link.name, type=link.type_name)

    def _hook_failed(self, position: int, failure: Failure) -> None:
        self._report(position, failure)
        self._exchange.answer_instead(self._exchange.own_refusal(Outcome.INTERNAL_ERROR))


def _through(filters: Sequence[IBodyFilter], piece: bytes, ended: bool, trailers: Sequence[Field]) -> bytes:
    """
    Return what becomes of a piece of a body on its way through `filters`.
    """
    for each in filters:
        if piece:
            piece = each.feed(piece)
        if ended:
            piece += each.end_with(trailers) if hasattr(each, "end_with") else each.end()
    return piece


def _explained(response: LocalResponse) -> LocalResponse:
    """
    Return an answer that names its reason, as all of the gateway's own do.
    """
    if response.outcome is None:
        response.outcome = Outcome.ANSWERED
    if not any(field[0] == b"proxy-status" for field in response.fields):
        response.fields.append(proxy_status(response.outcome))
    return response
