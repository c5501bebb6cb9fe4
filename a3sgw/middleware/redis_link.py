"""
Ask a Redis, over one connection that is made when it is first needed and again when it is lost.

Whoever asks gets a reply or a reason, at the latest at the deadline that he gave. While it is known that there will be no reply, because
nobody answers, `is_available` says so and nobody needs to wait:

- *idle*: nothing was asked yet, or Redis closed a connection that nobody was using. The next question connects.
- *connecting*: questions wait.
- *ready*: questions are sent at once, one behind the other; Redis answers in order.
- *silent*: somebody waited in vain. Nothing is asked until Redis shows a sign of life; if there is none for a second, it is *down*.
- *down*: connecting failed, or the connection broke. It is tried again after a pause, which grows, and nothing is asked meanwhile.

One connection is enough: Redis does one thing at a time, and questions do not wait for each other's answers. A new connection is greeted
with who we are and a `PING`; only the reply makes it ready, because a frozen Redis still accepts connections.

Not `txredisapi`: it runs on the global reactor from its import on, stops trying for ever after one refused greeting, and gives the replies
of one connection one reactor turn at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from a3sgw.middleware.redis_endpoint import Opener
from a3sgw.policy.backoff import Backoff
from a3sgw.wire.resp import ErrorReply, Reply, ReplyReader, encode_command

__all__ = ["RedisLink", "Unanswered"]

_PAUSES: Final = Backoff(initial=0.1, maximum=3.0, jitter=0.5)
_CONNECT_SECS: Final = 5.0
"""How long connecting and the greeting may take together."""
_SILENT_SECS: Final = 1.0


class Unanswered(Exception):  # noqa: N818 - not an error of ours
    """
    There was no reply; the text says why, and never repeats a secret.
    """


class _Question:
    """
    A command whose reply has yet to come. `result` is `None` once nobody waits for it any more.
    """

    __slots__ = ("deadline", "result")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.result: Deferred[Reply] | None = Deferred(self._forget)

    def _forget(self, _: object) -> None:
        self.result = None

    def end(self, reply: Reply | Failure) -> None:
        """
        Give the reply, or the reason, to whoever still waits.
        """
        result, self.result = self.result, None
        if result is not None:
            result.callback(reply)


class _Connection(Protocol):
    """
    One connection: what arrives on it goes to the link while it is the link's.
    """

    def __init__(self) -> None:
        self.link: RedisLink | None = None
        self._reader = ReplyReader()

    def dataReceived(self, data: bytes) -> None:
        try:
            replies = self._reader.feed(data)
        except ValueError as error:
            if self.link is not None:
                self.link.give_up(f"does not speak as Redis does: it sent {error}")
            return
        for reply in replies:
            if self.link is not None:
                self.link.reply_received(reply)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 - as Twisted has it
        if self.link is not None:
            self.link.connection_lost(reason)

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)

    def send(self, data: bytes) -> None:
        """
        Send commands.
        """
        assert self.transport is not None
        self.transport.write(data)

    def abort(self) -> None:
        """
        Give the connection up; nothing of it is heard any more.
        """
        self.link = None
        transport: Any = self.transport
        transport.abortConnection()


class _Connections(Factory):
    """
    Makes them; without a line in the log for each.
    """

    noisy = False
    protocol = _Connection


class RedisLink:
    """
    The connection to one Redis. `where` is its address for the log, `trouble` says why nothing can be asked, or what went wrong last.
    """

    def __init__(
        self,
        where: str,
        open_connection: Opener,
        greeting: Sequence[tuple[bytes, ...]],
        reactor: Any,
        seconds: Callable[[], float],
        chance: Random,
    ) -> None:
        self.where = where
        self.trouble = ""
        self._open = open_connection
        # The password is in the greeting, so it is kept as bytes and shown nowhere.
        self._greeting = [*greeting, (b"PING",)]
        self._later: Callable[..., Any] = reactor.callLater
        self._seconds = seconds
        self._chance = chance
        self._attempt: Deferred[Any] | None = None
        self._connection: _Connection | None = None
        self._greeted = 0
        self._is_ready = False
        self._is_silent = False
        self._is_closed = False
        self._failures = 0
        self._unsent: list[bytes] = []
        self._questions: deque[_Question] = deque()
        self._pause: Any = None
        self._patience: Any = None
        self._watch: Any = None
        self._watch_ends = 0.0

    def __repr__(self) -> str:
        return f"<RedisLink {self.where}, {self.state}, {len(self._questions)} questions>"

    @property
    def is_available(self) -> bool:
        """
        Whether a question has a chance to be answered.
        """
        return not self._is_silent and not self._is_closed and (self._is_ready or not self._failures)

    @property
    def state(self) -> str:
        """
        How it stands, in one of the words above.
        """
        if self._is_silent:
            return "silent"
        if self._is_ready:
            return "ready"
        if self._failures:
            return "down"
        return "connecting" if self._attempt is not None or self._connection is not None else "idle"

    # -- asking

    def ask(self, command: bytes, deadline: float) -> Deferred[Reply]:
        """
        Send `command`; give the reply, or fail with `Unanswered` at the `deadline`, a time of the clock `seconds`.

        Must not be called while the link is not available. Cancelling the Deferred forgets the question; Redis may answer it nevertheless.
        """
        question = _Question(deadline)
        result = question.result
        assert result is not None
        assert self.is_available
        self._questions.append(question)
        if self._watch is None or deadline < self._watch_ends:
            self._watch_until(deadline)
        if self._is_ready:
            assert self._connection is not None
            self._connection.send(command)
        else:
            self._unsent.append(command)
            if self._attempt is None and self._connection is None:
                self._connect()
        return result

    def _watch_until(self, deadline: float) -> None:
        self._watch = _stopped(self._watch)
        self._watch_ends = deadline
        # One turn more than the time given: a reply that came while the gateway itself was late lies in the socket, and counts.
        self._watch = self._later(max(deadline - self._seconds(), 0.0), self._begin_last_turn)

    def _begin_last_turn(self) -> None:
        self._watch = self._later(0, self._end_overdue)

    def _end_overdue(self) -> None:
        self._watch = None
        now = self._seconds()
        overdue = [question for question in self._questions if question.result is not None and question.deadline <= now]
        if overdue:
            self._is_silent = True
            self.trouble = "does not answer in time"
            if self._patience is None:
                self._patience = self._later(_SILENT_SECS, self.give_up, "does not answer")
        waiting = [question.deadline for question in self._questions if question.result is not None and question.deadline > now]
        if waiting:
            self._watch_until(min(waiting))
        for question in overdue:
            question.end(Failure(Unanswered("does not answer in time")))
        self._close_if_done()

    # -- connecting

    def _connect(self) -> None:
        self._pause = None
        self._patience = self._later(_CONNECT_SECS, self.give_up, "cannot be reached in time")
        attempt = self._attempt = maybeDeferred(self._open, _Connections(), _CONNECT_SECS)

        def made(connection: _Connection) -> None:
            if self._attempt is attempt:
                self._attempt = None
                self._connected(connection)
            else:
                connection.abort()

        def failed(failure: Failure) -> None:
            if self._attempt is attempt:
                self._attempt = None
                self._failed(f"cannot be reached: {_in_one_line(failure)}")

        attempt.addCallbacks(made, failed)

    def _connected(self, connection: _Connection) -> None:
        self._connection = connection
        self._greeted = 0
        connection.link = self
        connection.send(b"".join(encode_command(*words) for words in self._greeting))

    def _greeting_answered(self, reply: Reply) -> None:
        words = self._greeting[self._greeted]
        if isinstance(reply, ErrorReply):
            # The words of an error may repeat what was sent, and that may be the password.
            told = reply.code if words[0] == b"AUTH" else reply.text
            self.give_up(f"refuses {words[0].decode()}: {told}")
            return
        self._greeted += 1
        if self._greeted == len(self._greeting):
            self._is_ready = True
            self._show_life()
            assert self._connection is not None
            self._connection.send(b"".join(self._unsent))
            self._unsent.clear()
            self._close_if_done()

    # -- what the connection reports

    def reply_received(self, reply: Reply) -> None:
        """
        The next reply arrived.
        """
        if not self._is_ready:
            self._greeting_answered(reply)
            return
        if not self._questions:
            self.give_up("talks unasked")
            return
        self._show_life()
        if not isinstance(reply, ErrorReply):
            self._failures = 0
        self._questions.popleft().end(reply)
        self._close_if_done()

    def connection_lost(self, reason: Failure) -> None:
        """
        The connection is gone.
        """
        is_idle = self._is_ready and not self._questions and not self._failures
        self._connection = None
        self._is_ready = False
        if is_idle:
            self._show_life()
        else:
            self._failed(f"closed the connection: {_in_one_line(reason)}")

    def give_up(self, trouble: str) -> None:
        """
        Give up the connection, or the attempt to make one, for the reason `trouble`, and try again later.
        """
        if self._hang_up():
            self._failed(trouble)

    def _hang_up(self) -> bool:
        """
        Break the connection off, or the attempt to make one; return whether there was any.
        """
        connection, self._connection = self._connection, None
        attempt, self._attempt = self._attempt, None
        if connection is not None:
            connection.abort()
        if attempt is not None:
            attempt.cancel()
        return connection is not None or attempt is not None

    def _show_life(self) -> None:
        self._is_silent = False
        self._patience = _stopped(self._patience)

    def _failed(self, trouble: str) -> None:
        self._is_ready = self._is_silent = False
        self._patience = _stopped(self._patience)
        self._watch = _stopped(self._watch)
        self._unsent.clear()
        self.trouble = trouble
        self._failures += 1
        if not self._is_closed:
            self._pause = self._later(_PAUSES.delay(self._failures, self._chance), self._connect)
        questions, self._questions = self._questions, deque()
        for question in questions:
            question.end(Failure(Unanswered(trouble)))

    # -- the end

    def close(self) -> None:
        """
        Ask nothing more, and close the connection when what was asked has been answered.
        """
        self._is_closed = True
        self.trouble = "was given up"
        self._pause = _stopped(self._pause)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._is_closed or any(question.result is not None for question in self._questions):
            return
        self._patience = _stopped(self._patience)
        self._watch = _stopped(self._watch)
        self._is_ready = False
        self._hang_up()


def _stopped(call: Any) -> Any:
    """
    Cancel a timed call, if there is one that has yet to come; return `None` for its place.
    """
    if call is not None and call.active():
        call.cancel()
    return None


def _in_one_line(failure: Failure) -> str:
    return " ".join(failure.getErrorMessage().split())[:200]
