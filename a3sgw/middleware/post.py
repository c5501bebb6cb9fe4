"""
What the middlewares of one worker say to those of the others, by topic.

It may be lost: if the others have too much to read, and when a worker ends. Whoever needs more has Redis.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Post"]


class Post:
    """
    The post of one worker. `send` carries a letter to all others, and says whether it was taken.
    """

    def __init__(self, send: Callable[[str, bytes], bool]) -> None:
        self.send = send
        self._listeners: dict[str, Callable[[bytes], None]] = {}

    def __repr__(self) -> str:
        return f"<Post about {sorted(self._listeners)}>"

    def listen(self, topic: str, listener: Callable[[bytes], None]) -> None:
        """
        Have letters about `topic` read by `listener`, and by nobody else.
        """
        self._listeners[topic] = listener

    def ignore(self, topic: str) -> None:
        """
        Have letters about `topic` thrown away.
        """
        self._listeners.pop(topic, None)

    def arrived(self, topic: str, letter: bytes) -> None:
        """
        A letter from another worker came.
        """
        listener = self._listeners.get(topic)
        if listener is not None:
            listener(letter)
