"""
Carry the messages of `ws-mux` between the workers of one gateway.

Every message goes to every other worker, which drops it if nobody there is subscribed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zope.interface import implementer

from a3sgw.interfaces import IMuxBus
from a3sgw.middleware.post import Post

__all__ = ["PostBus"]


@implementer(IMuxBus)
class PostBus:
    """
    The bus of one hub, called `name`, in this worker.
    """

    def __init__(self, name: str, post: Post) -> None:
        self.hub: Any = None
        self._post = post
        self._topic = f"ws-mux {name}"
        self._is_listening = False
        self._unshared = 0

    def subscribe(self, channel: str) -> None:
        """
        Listen to the other workers, once there is somebody who wants to know.
        """
        if not self._is_listening:
            self._is_listening = True
            self._post.listen(self._topic, self._arrived)

    def unsubscribe(self, channel: str) -> None:
        """
        Nothing to do: what nobody wants is dropped when it comes.
        """

    def publish(self, channel: str, data: bytes) -> None:
        """
        Tell the other workers. `data` begins with the channel, as all messages do.
        """
        if not self._post.send(self._topic, data):
            self._unshared += 1

    def _arrived(self, letter: bytes) -> None:
        self.hub.arrived(letter.partition(b":")[0].decode(), letter)

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return how many messages the other workers did not get.
        """
        return {"messages_unshared": self._unshared}

    def close(self) -> None:
        """
        Listen no more.
        """
        if self._is_listening:
            self._is_listening = False
            self._post.ignore(self._topic)
