"""
Ask and answer between two processes.

Each side says what it answers to: a function for each name. An answer is a plain JSON value, raw bytes, or both, at once or as a Deferred;
an error crosses as its text. Messages arrive in the order in which they were sent, and each is dealt with before the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.errors import AssemblyError, MiddlewareError
from a3sgw.wire.frame import Frame

__all__ = ["Ask", "Frames", "Link", "LinkError", "Reply"]


class LinkError(Exception):
    """
    The other process is gone, or something went wrong there; the text says what.
    """


class Frames(Protocol):
    """
    Whatever carries frames; see `net.channel.Channel`.
    """

    @property
    def backlog(self) -> int:
        """
        How many frames the other end has not taken yet.
        """

    def send(self, message: Any, blob: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """
        Send a frame.
        """

    def close(self) -> None:
        """
        Close this end, and the other soon.
        """


@attrs.frozen
class Ask:
    """
    What the other side wants: its arguments, raw bytes, and descriptors to be closed by whoever answers.
    """

    arguments: Sequence[Any]
    blob: bytes = b""
    descriptors: Sequence[int] = ()


@attrs.frozen
class Reply:
    """
    An answer that has raw bytes.
    """

    value: Any
    blob: bytes = b""


class Link:
    """
    One side of a link. `answers` are functions that take an `Ask`; `lost` is called once, when the other side is gone.
    """

    MOST_WAITING: Final = 1024
    _log = Logger()

    def __init__(self, answers: Mapping[str, Callable[[Ask], Any]], lost: Callable[[], None]) -> None:
        self._answers = answers
        self._tell_lost = lost
        self._frames: Frames | None = None
        self._next = count(1).__next__
        self._pending: dict[int, Deferred[Reply]] = {}
        self._is_lost = False

    def __repr__(self) -> str:
        return f"<Link {'lost' if self._is_lost else 'up'}, {len(self._pending)} unanswered>"

    @property
    def is_lost(self) -> bool:
        """
        Whether the other side is gone.
        """
        return self._is_lost

    def connect(self, frames: Frames) -> None:
        """
        Send by `frames` from now on, which must call `received` and `frames_lost`.
        """
        self._frames = frames

    def tell(self, name: str, *arguments: Any, blob: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """
        Say something that is not answered.
        """
        self._send([name, 0, *arguments], blob, descriptors)

    def mention(self, name: str, *arguments: Any, blob: bytes = b"") -> bool:
        """
        Say something that may be lost, unless the other side has too much to read already. Return whether it was said.
        """
        if self._is_lost or self._frames is None or self._frames.backlog >= self.MOST_WAITING:
            return False
        self._send([name, 0, *arguments], blob)
        return True

    def ask(self, name: str, *arguments: Any, blob: bytes = b"", descriptors: Sequence[int] = ()) -> Deferred[Reply]:
        """
        Ask and give the answer. Fails with `AssemblyError` if one was raised there, else with `LinkError`.
        """
        if self._is_lost:
            return fail(LinkError("the other process is gone"))
        serial = self._next()
        answer = self._pending[serial] = Deferred(lambda _: self._give_up(serial))
        self._send([name, serial, *arguments], blob, descriptors)
        return answer

    def close(self) -> None:
        """
        Break the link off.
        """
        if self._frames is not None:
            self._frames.close()

    def _give_up(self, serial: int) -> None:
        self._pending.pop(serial, None)

    def _send(self, message: list[Any], blob: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        if self._frames is not None and not self._is_lost:
            self._frames.send(message, blob, descriptors)

    # -- what the frames call

    def received(self, frame: Frame, descriptors: list[int]) -> None:
        """
        Take a frame.
        """
        name, serial, *arguments = frame.message
        if name == "answer":
            pending = self._pending.pop(serial, None)
            if pending is not None:
                pending.callback(Reply(arguments[0], frame.blob))
        elif name == "failed":
            pending = self._pending.pop(serial, None)
            if pending is not None:
                kind, text = arguments
                pending.errback(Failure(AssemblyError(text) if kind == "assembly" else LinkError(text)))
        else:
            asked = Ask(arguments, frame.blob, descriptors)
            answering = maybeDeferred(self._answer, name, asked)
            if serial:
                answering.addCallbacks(self._answered, self._failed, callbackArgs=(serial,), errbackArgs=(serial,))
            answering.addErrback(lambda failure: self._log.failure("bug in the answer to {name}", failure, name=name))

    def frames_lost(self) -> None:
        """
        The other side is gone.
        """
        if self._is_lost:
            return
        self._is_lost = True
        pending, self._pending = self._pending, {}
        # First, so that whoever asks again in vain does not ask this one.
        self._tell_lost()
        for each in pending.values():
            each.errback(Failure(LinkError("the other process is gone")))

    def _answer(self, name: str, asked: Ask) -> Any:
        answer = self._answers.get(name)
        if answer is None:
            for descriptor in asked.descriptors:
                os.close(descriptor)
            raise LinkError(f"nobody answers to {name!r}")
        return answer(asked)

    def _answered(self, result: Any, serial: int) -> None:
        reply = result if isinstance(result, Reply) else Reply(result)
        self._send(["answer", serial, reply.value], reply.blob)

    def _failed(self, failure: Failure, serial: int) -> None:
        error = failure.value
        is_expected = isinstance(error, (AssemblyError, MiddlewareError))
        if not is_expected:
            self._log.failure("a question of another process could not be answered", failure)
        self._send(["failed", serial, "assembly" if is_expected else "other", str(error) or error.__class__.__name__])
