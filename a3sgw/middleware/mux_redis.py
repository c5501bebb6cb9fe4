"""
Carry the messages of `ws-mux` between processes and gateways, by the publish and subscribe commands of Redis.

Redis keeps nothing: what is published while nobody can hear it is lost, and so is what is published while Redis cannot be reached. Those
who are connected to the same process hear each other all the same. Two connections are used, because one that has subscribed can do
nothing else: `RedisLink` publishes, `_Listener` hears.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from a3sgw.config.redis_url import RedisAddress
from a3sgw.interfaces import IMuxBus
from a3sgw.middleware.redis_endpoint import Opener, greeting_for, make_opener
from a3sgw.middleware.redis_link import RedisLink, Unanswered
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.backoff import Backoff
from a3sgw.wire.resp import ErrorReply, Reply, ReplyReader, encode_command

__all__ = ["RedisBus"]

_PAUSES: Final = Backoff(initial=0.1, maximum=3.0, jitter=0.5)
_CONNECT_SECS: Final = 5.0
_PUBLISH_SECS: Final = 5.0
_PING_SECS: Final = 10.0
_LARGEST_REPLY: Final = 1 << 21
_ORIGIN_BYTES: Final = 8


class _Listener(Protocol):
    """
    One connection that subscribes: what arrives goes to the bus while it is the bus's.
    """

    def __init__(self) -> None:
        self.bus: RedisBus | None = None
        self._reader = ReplyReader(_LARGEST_REPLY)

    def dataReceived(self, data: bytes) -> None:
        try:
            replies = self._reader.feed(data)
        except ValueError as error:
            if self.bus is not None:
                self.bus.give_up(f"does not speak as Redis does: it sent {error}")
            return
        for reply in replies:
            if self.bus is not None:
                self.bus.reply_received(reply)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 - as Twisted has it
        if self.bus is not None:
            self.bus.give_up(f"closed the connection: {' '.join(reason.getErrorMessage().split())[:200]}")

    def send(self, *words: bytes) -> None:
        """
        Send a command.
        """
        assert self.transport is not None
        self.transport.write(encode_command(*words))

    def abort(self) -> None:
        """
        Give the connection up; nothing of it is heard any more.
        """
        self.bus = None
        transport: Any = self.transport
        transport.abortConnection()


class _Listeners(Factory):
    """
    Makes them; without a line in the log for each.
    """

    noisy = False
    protocol = _Listener


@implementer(IMuxBus)
class RedisBus:
    """
    The bus of one hub in this process.

    The connection that listens is made when the first channel is wanted, and again after every loss, after a pause that grows. Ten seconds
    without a sign of life are answered by a question, ten more by giving it up.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        address: RedisAddress,
        files: Sequence[str | None],
        surroundings: Surroundings,
        open_connection: Opener | None = None,
    ) -> None:
        ca_file, cert_file, key_file = files
        if open_connection is None:
            open_connection = make_opener(address, surroundings.reactor, ca_file, cert_file, key_file)
        greeting = greeting_for(address)
        self.hub: Any = None
        self._open = open_connection
        self._greeting = greeting
        self._link = RedisLink(str(address), open_connection, greeting, surroundings.reactor, surroundings.seconds, surroundings.chance)
        self._prefix = f"a3s-gateway:ws-mux:{name}:".encode()
        self._origin = os.urandom(_ORIGIN_BYTES)
        self._seconds = surroundings.seconds
        self._later = surroundings.reactor.callLater
        self._chance = surroundings.chance
        self._where = f"hub {name}: Redis at {address}"
        self._wanted: dict[str, None] = {}
        self._attempt: Deferred[Any] | None = None
        self._connection: _Listener | None = None
        self._awaited = 0
        self._was_heard = False
        self._failures = 0
        self._call: Any = None
        self._is_closed = False
        self._unshared = 0

    def __repr__(self) -> str:
        return f"<RedisBus {self._where}, {self.state}, {len(self._wanted)} channels>"

    @property
    def state(self) -> str:
        """
        Whether it listens: `idle`, `connecting`, `ready` or `down`.
        """
        if self._connection is not None and not self._awaited:
            return "ready"
        if self._failures:
            return "down"
        return "connecting" if self._attempt is not None or self._connection is not None else "idle"

    # -- what the hub calls

    def subscribe(self, channel: str) -> None:
        """
        Listen to `channel` too.
        """
        self._wanted[channel] = None
        if self.state == "ready":
            assert self._connection is not None
            self._connection.send(b"SUBSCRIBE", self._prefix + channel.encode())
        elif self._attempt is None and self._connection is None and self._call is None and not self._is_closed:
            self._connect()

    def unsubscribe(self, channel: str) -> None:
        """
        Listen to it no more.
        """
        self._wanted.pop(channel, None)
        if self.state == "ready":
            assert self._connection is not None
            self._connection.send(b"UNSUBSCRIBE", self._prefix + channel.encode())

    def publish(self, channel: str, data: bytes) -> None:
        """
        Publish `data`, marked as ours.
        """
        if not self._link.is_available:
            self._unshared += 1
            return
        command = encode_command(b"PUBLISH", self._prefix + channel.encode(), self._origin + data)
        self._link.ask(command, self._seconds() + _PUBLISH_SECS).addCallbacks(self._published, self._not_published)

    def _published(self, reply: Reply) -> None:
        self._unshared += isinstance(reply, ErrorReply)

    def _not_published(self, failure: Failure) -> None:
        failure.trap(Unanswered)
        self._unshared += 1

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return whether it listens, and how many messages others did not get.
        """
        return {"redis": self.state, "messages_unshared": self._unshared}

    def close(self) -> None:
        """
        Close both connections.
        """
        self._is_closed = True
        self._link.close()
        self._stop_waiting()
        self._hang_up()

    # -- listening

    def _connect(self) -> None:
        self._call = self._later(_CONNECT_SECS, self.give_up, "cannot be reached in time")
        attempt = self._attempt = maybeDeferred(self._open, _Listeners(), _CONNECT_SECS)

        def made(connection: _Listener) -> None:
            if self._attempt is attempt:
                self._attempt = None
                self._connected(connection)
            else:
                connection.abort()

        def failed(failure: Failure) -> None:
            if self._attempt is attempt:
                self.give_up(f"cannot be reached: {' '.join(failure.getErrorMessage().split())[:200]}")

        attempt.addCallbacks(made, failed)

    def _connected(self, connection: _Listener) -> None:
        self._connection = connection
        connection.bus = self
        words = [*self._greeting, (b"PING",)]
        self._awaited = len(words)
        for command in words:
            connection.send(*command)

    def reply_received(self, reply: Reply) -> None:
        """
        The next reply arrived, or a message.
        """
        self._was_heard = True
        if self._awaited:
            self._greeting_answered(reply)
        elif isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            _, name, data = reply
            if isinstance(name, bytes) and isinstance(data, bytes) and not data.startswith(self._origin):
                channel = name[len(self._prefix) :].decode("utf-8", "replace")
                self.hub.arrived(channel, data[_ORIGIN_BYTES:])
        elif isinstance(reply, ErrorReply):
            self.give_up(f"answers {reply.text}")

    def _greeting_answered(self, reply: Reply) -> None:
        if isinstance(reply, ErrorReply):
            # The words of an error may repeat the password.
            self.give_up(f"refuses the connection: {reply.code}")
            return
        self._awaited -= 1
        if self._awaited:
            return
        if self._failures:
            self._log.info("{where} is heard again", where=self._where)
        self._failures = 0
        self._stop_waiting()
        self._call = self._later(_PING_SECS, self._look_for_life)
        if self._wanted:
            assert self._connection is not None
            self._connection.send(b"SUBSCRIBE", *[self._prefix + channel.encode() for channel in self._wanted])

    def _look_for_life(self) -> None:
        self._call = None
        if not self._was_heard:
            self.give_up("does not answer")
            return
        self._was_heard = False
        assert self._connection is not None
        self._connection.send(b"PING")
        self._call = self._later(_PING_SECS, self._look_for_life)

    def give_up(self, trouble: str) -> None:
        """
        Give up the connection, or the attempt to make one, for the reason `trouble`, and try again later.
        """
        self._stop_waiting()
        self._hang_up()
        if self._is_closed:
            return
        if not self._failures:
            self._log.warn("{where} {trouble}; messages stay in this process until it answers", where=self._where, trouble=trouble)
        self._failures += 1
        self._call = self._later(_PAUSES.delay(self._failures, self._chance), self._try_again)

    def _try_again(self) -> None:
        self._call = None
        self._connect()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        attempt, self._attempt = self._attempt, None
        self._awaited = 0
        if connection is not None:
            connection.abort()
        if attempt is not None:
            attempt.cancel()

    def _stop_waiting(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
