"""
Where the messages of `ws-mux` meet: who is subscribed to which channel, here and elsewhere.

A `Hub` hands what is published to every subscriber in this process, at once and in the order of publication. A bus, if there is one,
carries it to the hubs of the same name in other processes, which hand it to theirs. Nothing is kept: who is not subscribed when a message
is published never sees it.
"""

from __future__ import annotations

from typing import Any, Protocol
from weakref import WeakSet

import attrs

from a3sgw.interfaces import IMuxBus
from a3sgw.wire.websocket import text_frame

__all__ = ["Hub", "Member", "MuxTally"]


class Member(Protocol):
    """
    A connection, as its hub sees it.
    """

    def deliver(self, channel: str, frame: bytes) -> None:
        """
        Send a message of a channel, as a finished frame, or keep it, or drop it. May leave the hub, and nothing else there.
        """

    def dismiss(self) -> None:
        """
        The hub is given up: end, so that the client comes back.
        """


@attrs.define
class MuxTally:
    """
    What one middleware counts: connections now, messages that clients sent and got, and those dropped because a client did not keep up.
    """

    connections: int = 0
    received: int = 0
    sent: int = 0
    dropped: int = 0


class Hub:
    """
    The channels of one name.

    `users` are the middlewares that lead here; when the last of them goes, those who are connected are dismissed. `bus` leads to other
    processes. One that `is_closed` is used no more.
    """

    def __init__(self, name: str, bus: IMuxBus | None = None) -> None:
        self.name = name
        self.bus = bus
        self.is_closed = False
        self.users: WeakSet[Any] = WeakSet()
        self._members: set[Member] = set()
        self._channels: dict[str, dict[Member, None]] = {}
        if bus is not None:
            bus.hub = self

    def __repr__(self) -> str:
        return f"<Hub {self.name}: {len(self._members)} connections, {len(self._channels)} channels>"

    @property
    def channel_names(self) -> list[str]:
        """
        The channels that somebody here is subscribed to.
        """
        return list(self._channels)

    def enter(self, member: Member) -> None:
        """
        Take a connection in.
        """
        self._members.add(member)

    def leave(self, member: Member, channels: list[str]) -> None:
        """
        A connection is gone, which was subscribed to `channels`.
        """
        self._members.discard(member)
        for channel in channels:
            self.unsubscribe(member, channel)

    def subscribe(self, member: Member, channel: str) -> None:
        """
        From now on `member` gets what is published in `channel`.
        """
        members = self._channels.get(channel)
        if members is not None:
            members[member] = None
            return
        self._channels[channel] = {member: None}
        if self.bus is not None:
            self.bus.subscribe(channel)

    def unsubscribe(self, member: Member, channel: str) -> None:
        """
        From now on it does not.
        """
        members = self._channels.get(channel)
        if members is None or member not in members:
            return
        del members[member]
        if not members:
            del self._channels[channel]
            if self.bus is not None:
                self.bus.unsubscribe(channel)

    def publish(self, channel: str, payload: str, without: Member | None) -> None:
        """
        Hand a message to all subscribers of `channel`, here and elsewhere, but not to the one that is `without` it.
        """
        data = f"{channel}:{payload}".encode()
        self.arrived(channel, data, without)
        if self.bus is not None:
            self.bus.publish(channel, data)

    def arrived(self, channel: str, data: bytes, without: Member | None = None) -> None:
        """
        Hand a message, `CHANNEL:PAYLOAD`, to all subscribers here.
        """
        members = self._channels.get(channel)
        if members:
            # The same frame for all: what a server says is not masked.
            frame = text_frame(data)
            for member in list(members):
                if member is not without:
                    member.deliver(channel, frame)

    def give_up(self, user: Any) -> None:
        """
        A middleware leads here no more.
        """
        self.users.discard(user)
        if not self.users:
            self.is_closed = True
            for member in list(self._members):
                member.dismiss()
            if self.bus is not None:
                self.bus.close()
