"""
The carrying side in a process of its own: a carrier, and whoever does there what the deciding side asks.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.carrier import Carrier
from a3sgw.errors import AssemblyError
from a3sgw.interfaces import IControl
from a3sgw.listen.places import Place
from a3sgw.message import LocalResponse, RequestHead
from a3sgw.middleware.post import Post
from a3sgw.policy.arena import Arena
from a3sgw.workers.crossing import pack_head, unpack_response
from a3sgw.workers.link import Ask, Link

__all__ = ["Inherited", "RemoteControl", "Terms", "Worker"]


@attrs.frozen(kw_only=True)
class Terms:
    """
    What a worker is told first: which one it is (from 0), of how many, the key that all sign cookies with, and what
    they share.
    """

    slot: int
    size: int
    sticky_key: bytes
    arena: Arena | None = None


@implementer(IControl)
class RemoteControl:
    """
    The deciding side, at the other end of `link`.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def admin_request(self, head: RequestHead) -> Deferred[LocalResponse]:
        """
        Have a request answered there.
        """
        return self._link.ask("admin", pack_head(head)).addCallback(lambda reply: unpack_response(reply.value, reply.blob))


class Inherited:
    """
    Listening sockets that another process has bound.
    """

    def __init__(self) -> None:
        self._sockets: dict[tuple[str, Place], socket.socket] = {}

    def __repr__(self) -> str:
        return f"<Inherited {list(self._sockets)}>"

    def add(self, name: str, place: Place, sock: socket.socket) -> None:
        """
        Keep a socket until its door is built.
        """
        self._sockets[name, place] = sock

    def take(self, name: str, host: str, port: int) -> socket.socket:
        """
        Return the socket for a door, as `listen.door.bind` does.
        """
        sock = self._sockets.pop((name, (host, port)), None)
        if sock is None:
            raise AssemblyError(f'entrypoint "{name}": nobody has bound {host}:{port} for this process')
        return sock

    def drop(self) -> None:
        """
        Close what nobody has taken.
        """
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


class Worker:
    """
    Does what the deciding side asks over `link`, from the terms on that come first.

    `make_carrier` makes the carrier of terms, control and what gives listening sockets; `settled` is called when a configuration runs;
    `ended` once, when everything is closed: because the deciding side wants that, or because it is gone. Then what is in flight may end
    within the time that the configuration has for that, and nothing new is accepted. `adopt` makes a socket of a descriptor.
    """

    TOTALS_SECONDS: Final = 0.5
    ALIVE_TURNS: Final = 20
    """After so many turns without anything new the totals are told once more, so that the deciding side hears that all is well."""
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        make_carrier: Callable[[Terms, IControl, Callable[[str, str, int], socket.socket]], Carrier],
        settled: Callable[[], object],
        ended: Callable[[], object],
        adopt: Callable[[int], socket.socket] = lambda descriptor: socket.socket(fileno=descriptor),
    ) -> None:
        self._reactor = reactor
        self._make_carrier = make_carrier
        self._settled = settled
        self._ended = ended
        self._adopt = adopt
        self._carrier: Carrier | None = None
        self._inherited = Inherited()
        self._patience = 0.0
        self._prepared_patience = 0.0
        self._told: tuple[int, int] | None = None
        self._turns = 0
        self._totals_call: Any = None
        self._draining: Deferred[int] | None = None
        self._is_drained = False
        self.post = Post(lambda topic, letter: self.link.mention("letter", topic, blob=letter))
        self.link = Link(
            {
                "terms": self._take_terms,
                "sockets": self._take_sockets,
                "prepare": self._prepare,
                "commit": self._commit,
                "abandon": self._abandon,
                "verdict": lambda asked: self.carrier.set_verdict(*asked.arguments),
                "judged": lambda asked: self.carrier.judged_elsewhere(),
                "letter": lambda asked: self.post.arrived(asked.arguments[0], asked.blob),
                "snapshot": lambda asked: self.carrier.snapshot(),
                "reopen": lambda asked: self.carrier.reopen_logs(),
                "drain": lambda asked: self._drain(float(asked.arguments[0])),
            },
            self._link_lost,
        )

    @property
    def carrier(self) -> Carrier:
        """
        The carrier.
        """
        assert self._carrier is not None, "asked before the terms were told"
        return self._carrier

    def _take_terms(self, asked: Ask) -> None:
        slot, size, key = asked.arguments
        arena = Arena(asked.descriptors[0], slot, size) if asked.descriptors else None
        terms = Terms(slot=slot, size=size, sticky_key=bytes.fromhex(key), arena=arena)
        self._carrier = self._make_carrier(terms, RemoteControl(self.link), self._inherited.take)
        self._tell_totals()

    def _take_sockets(self, asked: Ask) -> None:
        self._inherited.drop()
        for (name, host, port), descriptor in zip(asked.arguments[0], asked.descriptors, strict=True):
            self._inherited.add(name, (host, port), self._adopt(descriptor))

    def _prepare(self, asked: Ask) -> Deferred[None]:
        # It comes from the process that made this one.
        config = pickle.loads(asked.blob)
        self._prepared_patience = float(config.shutdown_timeout_secs)
        return self.carrier.prepare(config)

    def _commit(self, asked: Ask) -> Deferred[None]:
        self._patience = self._prepared_patience
        self._inherited.drop()
        committed = self.carrier.commit()
        self._settled()
        return committed

    def _abandon(self, asked: Ask) -> None:
        self._inherited.drop()
        self.carrier.abandon()

    def _tell_totals(self) -> None:
        self._totals_call = self._reactor.callLater(self.TOTALS_SECONDS, self._tell_totals)
        totals = self.carrier.totals()
        self._turns += 1
        if totals != self._told or self._turns >= self.ALIVE_TURNS:
            self._told = totals
            self._turns = 0
            self.link.tell("totals", *totals)

    # -- the end

    def _drain(self, timeout: float) -> Deferred[int]:
        self._inherited.drop()
        draining = self.carrier.drain(timeout)
        self._draining = Deferred()

        def drained(aborted: int) -> int:
            self._is_drained = True
            assert self._draining is not None
            self._draining.callback(aborted)
            return aborted

        return draining.addCallback(drained)

    def _link_lost(self) -> None:
        if self._totals_call is not None:
            self._totals_call.cancel()
            self._totals_call = None
        if self._carrier is None or self._is_drained:
            self._ended()
            return
        self._log.warn("the process that decides is gone: this one serves what is in flight, and ends")
        if self._draining is None:
            self._carrier.abandon()
            self._drain(self._patience)
        assert self._draining is not None
        self._draining.addBoth(lambda _: self._ended())
