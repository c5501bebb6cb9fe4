"""
A carrier in another process, as the deciding side sees it.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.python.failure import Failure
from zope.interface import implementer

from a3sgw.config.model import GatewayConfig
from a3sgw.errors import AssemblyError
from a3sgw.interfaces import ICarrier, IControl
from a3sgw.listen.places import Place
from a3sgw.workers.crossing import pack_response, unpack_head
from a3sgw.workers.link import Ask, Link, LinkError, Reply

__all__ = ["RemoteCarrier", "answer_control"]


@implementer(ICarrier)
class RemoteCarrier:
    """
    The carrier at the other end of `link`, where a `worker.Worker` answers.

    `reactor` is for timeouts. `unfit` is called with what is wrong when the other process is of no use any more, though it is there.
    """

    PREPARE_SECONDS: Final = 60.0
    COMMIT_SECONDS: Final = 30.0
    SNAPSHOT_SECONDS: Final = 5.0
    DRAIN_GRACE_SECONDS: Final = 3.0

    def __init__(self, link: Link, reactor: Any, unfit: Callable[[str], None] = lambda reason: None) -> None:
        self.link = link
        self._reactor = reactor
        self._unfit = unfit

    def __repr__(self) -> str:
        return f"<RemoteCarrier over {self.link!r}>"

    def hand_over(self, sockets: Sequence[tuple[str, Place, socket.socket]]) -> None:
        """
        Give the listening sockets, by entrypoint and place, for the configuration that is prepared next.
        """
        if sockets:
            rows = [[name, *place] for name, place, _ in sockets]
            self.link.tell("sockets", rows, descriptors=[sock.fileno() for _, _, sock in sockets])

    def prepare(self, config: GatewayConfig) -> Deferred[None]:
        """
        Build and bind the next generation there.
        """
        # The other process is of our own making, and so is what it reads here.
        asked = self.link.ask("prepare", blob=pickle.dumps(config, pickle.HIGHEST_PROTOCOL))
        return self._bounded(asked, self.PREPARE_SECONDS, "to take a configuration").addCallback(_nothing)

    def commit(self) -> Deferred[None]:
        """
        Make it the running one there.
        """
        committed = self._bounded(self.link.ask("commit"), self.COMMIT_SECONDS, "to run a configuration")
        return committed.addCallbacks(_nothing, self._not_committed)

    def _not_committed(self, failure: Failure) -> None:
        failure.trap(LinkError, AssemblyError)
        # Whoever is gone runs nothing old; whoever is there must not.
        if not self.link.is_lost:
            self._unfit(f"cannot run a configuration that it had prepared: {failure.getErrorMessage()}")

    def abandon(self) -> None:
        """
        Drop the prepared generation there.
        """
        self.link.tell("abandon")

    def set_verdict(self, service: str, revision: str | None, url: str, is_healthy: bool, reason: str) -> None:
        """
        Pass the verdict on.
        """
        self.link.tell("verdict", service, revision, url, is_healthy, reason)

    def snapshot(self) -> Deferred[Mapping[str, Any]]:
        """
        Give what was counted there.
        """
        asked: Deferred[Any] = self.link.ask("snapshot").addTimeout(self.SNAPSHOT_SECONDS, self._reactor)
        return asked.addCallback(lambda reply: reply.value)

    def reopen_logs(self) -> None:
        """
        Have log files opened anew.
        """
        self.link.tell("reopen")

    def drain(self, timeout: float) -> Deferred[int]:
        """
        Drain the other process.
        """
        asked = self._bounded(self.link.ask("drain", timeout), timeout + self.DRAIN_GRACE_SECONDS, "to drain")
        return asked.addCallback(lambda reply: int(reply.value))

    def _bounded(self, asked: Deferred[Reply], seconds: float, what: str) -> Deferred[Any]:
        def gone(failure: Failure) -> Failure:
            if failure.check(TimeoutError):
                reason = f"took longer than {seconds:g} seconds {what}"
                self._unfit(reason)
                raise LinkError(f"it {reason}")
            return failure

        bounded: Deferred[Any] = asked.addTimeout(seconds, self._reactor)
        return bounded.addErrback(gone)


def answer_control(control: IControl) -> dict[str, Callable[[Ask], Any]]:
    """
    Return the answers to what the other process asks the deciding side.
    """

    def answer_admin(asked: Ask) -> Any:
        def packed(response: Any) -> Reply:
            return Reply(pack_response(response), response.body)

        answer = control.admin_request(unpack_head(asked.arguments[0]))
        return answer.addCallback(packed) if isinstance(answer, Deferred) else packed(answer)

    return {"admin": answer_admin}


def _nothing(result: object) -> None:
    return None
