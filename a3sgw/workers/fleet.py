"""
All workers together, as one carrier.

A configuration is prepared by every worker and then run by every worker, or by none. One that dies is replaced: the next begins with the
configuration that runs, and the verdicts that hold. What it had counted is kept as far as it was ever shown.

Long because it is one story: how workers come, change together, and go.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredList, gatherResults, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from a3sgw.assembly import Generation, places_of
from a3sgw.config.address import parse_listen_address
from a3sgw.config.model import GatewayConfig
from a3sgw.errors import AssemblyError
from a3sgw.interfaces import ICarrier, IControl
from a3sgw.observe.snapshot import merge_snapshots, remainder_of
from a3sgw.policy.arena import Arena
from a3sgw.workers.link import Ask, Link, LinkError
from a3sgw.workers.remote import RemoteCarrier, answer_control
from a3sgw.workers.sockets import Sockets

__all__ = ["Fleet", "Processes", "refuse_other_size", "worker_count"]


def worker_count(workers: int | str) -> int:
    """
    Return how many processes `workers` of a configuration asks for: `"auto"` is one for each core that this process may use.
    """
    if not isinstance(workers, str):
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_other_size(size: int, config: GatewayConfig) -> None:
    """
    Raise `AssemblyError` if `config` asks for another number of workers than there are.
    """
    wanted = worker_count(config.workers)
    if wanted != size:
        raise AssemblyError(f"workers cannot change from {size} to {wanted} by a reload; send USR2, or restart the gateway")


class Processes(Protocol):
    """
    Where workers come from.
    """

    def bear(self, slot: int, link: Link) -> None:
        """
        Begin a worker and connect `link` with it. What goes wrong is told by the link's being lost.
        """

    def end(self, pid: int) -> None:
        """
        End a worker at once, however busy it is.
        """

    def stop(self) -> None:
        """
        No more workers are wanted.
        """


class _Member:
    """
    One worker: its place in the fleet, and what is known of it.
    """

    link: Link
    remote: RemoteCarrier

    def __init__(self, slot: int, since: float) -> None:
        self.slot = slot
        self.since = since
        self.heard = since
        self.pid = 0
        self.totals = (0, 0)
        self.snapshot: Mapping[str, Any] | None = None
        self.config: GatewayConfig | None = None
        # Whether it could run `config`, and whether it does.
        self.is_ready = False
        self.is_serving = False
        # Whether it was begun for the configuration in hand, because there was nobody else.
        self.is_recruit = False

    def __repr__(self) -> str:
        return f"<Worker {self.slot} ({self.pid or 'unborn'}) {'serving' if self.is_serving else 'joining'}>"


@implementer(ICarrier)
class Fleet:
    """
    `size` workers from `processes`. `bind` gives listening sockets, `arena` is what they share, `relay` takes the events that workers log.
    """

    STEADY_SECONDS: Final = 5.0
    """One that has lived so long may be replaced at once; one that has not waits, longer each time."""
    FIRST_PAUSE: Final = 0.1
    LONGEST_PAUSE: Final = 10.0
    ASK_AGAIN_SECONDS: Final = 0.05
    LOOK_SECONDS: Final = 10.0
    SILENCE_SECONDS: Final = 60.0
    MOST_QUESTIONS: Final = 100
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        control: IControl,
        size: int,
        processes: Processes,
        bind: Callable[..., Any],
        sticky_key: bytes,
        arena: Arena | None = None,
        relay: Callable[[int, Ask], object] = lambda slot, event: None,
    ) -> None:
        self.size = size
        self._reactor = reactor
        self._control = control
        self._processes = processes
        self._sockets = Sockets(bind)
        self._sticky_key = sticky_key
        self._arena = arena
        self._relay = relay
        self._members: dict[int, _Member] = {}
        self._config: GatewayConfig | None = None
        self._preparing: GatewayConfig | None = None
        self._verdicts: dict[tuple[str, str | None, str], str] = {}
        self._pauses: dict[int, float] = {}
        self._returns: dict[int, Any] = {}
        self._is_ending = False
        self._look_call: Any = None
        # What was counted by workers that are gone.
        self._past: Mapping[str, Any] | None = None
        self._past_requests = 0
        self.replaced = 0

    def __repr__(self) -> str:
        return f"<Fleet {list(self._members.values())}>"

    # -- taking a configuration

    @inlineCallbacks
    def prepare(self, config: GatewayConfig) -> Any:
        """
        Have every worker build the next generation. The first time they are begun.
        """
        if self._preparing is not None:
            raise AssemblyError("another configuration is being prepared")
        self._preparing = config
        try:
            refuse_other_size(self.size, config)
            self._sockets.prepare(places_of(config))
            try:
                yield self._prepare_members(config)
            except LinkError as error:
                if self._config is None or self._is_ending:
                    raise AssemblyError(f"a worker could not be started: {error}") from error
                # One died on the way, perhaps for no fault of the configuration's. Those that are left are asked once more.
                self._abandon_members()
                yield self._prepare_members(config)
        except BaseException as error:
            self.abandon()
            if isinstance(error, LinkError):
                raise AssemblyError(f"workers end when they take this configuration: {error}") from error
            raise

    def _prepare_members(self, config: GatewayConfig) -> Deferred[Any]:
        if not self._taking():
            # What runs may be what ends them, and this the cure.
            self._recruit()
        asked = []
        for member in self._taking():
            member.remote.hand_over(self._sockets.wanted() if member.is_recruit else self._sockets.new())
            asked.append(member.remote.prepare(config))
        # Each has to be waited for: those that succeed must be told what becomes of it.
        return DeferredList(asked, consumeErrors=True).addCallback(_first_failure)

    def _taking(self) -> list[_Member]:
        """
        Return whom the configuration in hand is for: those that serve, or who was begun for it.
        """
        return [member for member in self._members.values() if member.is_serving or member.is_recruit]

    def _recruit(self) -> None:
        """
        Begin a worker in each place, for the configuration in hand.
        """
        members, self._members = self._members, {}
        for member in members.values():
            # Those that would have taken what runs.
            member.link.close()
        for call in self._returns.values():
            call.cancel()
        self._returns.clear()
        for slot in range(self.size):
            self._open(slot).is_recruit = True

    def abandon(self) -> None:
        """
        Drop the prepared generation everywhere.
        """
        self._preparing = None
        self._sockets.abandon()
        if self._config is None:
            self._close_members()
            self._processes.stop()
        else:
            self._abandon_members()
            for member in list(self._members.values()):
                if member.is_recruit:
                    member.link.close()
            self._resume_joining()

    def _abandon_members(self) -> None:
        for member in self._taking():
            member.remote.abandon()

    def commit(self) -> Deferred[None]:
        """
        Make it the running one everywhere.
        """
        config = self._preparing
        assert config is not None, "commit without prepare"
        taking = self._taking()
        self._preparing = None
        if self._config is None:
            self._look_call = self._reactor.callLater(self.LOOK_SECONDS, self._look)
        self._config = config
        # The prober tells them anew.
        self._verdicts.clear()
        if self._past is not None:
            self._past = remainder_of(self._past, config)
        self._sockets.commit()
        committed: list[Deferred[None]] = []
        for member in taking:
            member.is_serving = True
            member.is_recruit = False
            member.config = config
            committed.append(member.remote.commit())
        self._resume_joining()
        return gatherResults(committed).addCallback(lambda _: None)

    def set_verdict(self, service: str, revision: str | None, url: str, is_healthy: bool, reason: str) -> None:
        """
        Tell every worker, and those that come later.
        """
        if is_healthy:
            self._verdicts.pop((service, revision, url), None)
        else:
            self._verdicts[service, revision, url] = reason
        for member in self._serving():
            member.remote.set_verdict(service, revision, url, is_healthy, reason)

    def _pass_on_judgement(self, slot: int) -> None:
        for member in self._serving():
            if member.slot != slot:
                member.link.tell("judged")

    def _pass_on_letter(self, slot: int, asked: Ask) -> None:
        for member in self._serving():
            if member.slot != slot:
                member.link.mention("letter", *asked.arguments, blob=asked.blob)

    # -- workers come and go

    def _serving(self) -> Iterator[_Member]:
        return (member for member in list(self._members.values()) if member.is_serving)

    def _open(self, slot: int) -> _Member:
        member = _Member(slot, self._reactor.seconds())

        def note_pid(asked: Ask) -> None:
            member.pid = asked.arguments[0]

        def note_totals(asked: Ask) -> None:
            connections, requests = asked.arguments
            member.totals = (connections, requests)
            member.heard = self._reactor.seconds()

        answers: dict[str, Callable[[Ask], Any]] = {
            **answer_control(self._control),
            "hello": note_pid,
            "totals": note_totals,
            "judged": lambda asked: self._pass_on_judgement(slot),
            "letter": partial(self._pass_on_letter, slot),
            "event": partial(self._relay, slot),
        }
        member.link = link = Link(answers, lambda: self._member_lost(member))
        member.remote = RemoteCarrier(link, self._reactor, lambda reason: self._end_unfit(member, reason))
        self._members[slot] = member
        self._processes.bear(slot, link)
        shared = [] if self._arena is None else [self._arena.descriptor]
        link.tell("terms", slot, self.size, self._sticky_key.hex(), descriptors=shared)
        return member

    def _look(self) -> None:
        """
        End every worker that has not been heard of for long: its reactor hangs.
        """
        self._look_call = self._reactor.callLater(self.LOOK_SECONDS, self._look)
        for member in list(self._members.values()):
            silence = self._reactor.seconds() - member.heard
            if silence > self.SILENCE_SECONDS:
                self._end_unfit(member, f"has not been heard of for {silence:.0f} s")

    def _end_unfit(self, member: _Member, reason: str) -> None:
        self._log.error("worker {slot} ({pid}) {reason}; it is ended", slot=member.slot, pid=member.pid, reason=reason)
        if member.pid:
            # Its link is lost then, which is how everybody learns of it.
            self._processes.end(member.pid)
        else:
            member.link.close()

    def _member_lost(self, member: _Member) -> None:
        if self._members.get(member.slot) is not member:
            return
        del self._members[member.slot]
        if self._arena is not None:
            self._arena.clear(member.slot)
        self._keep_counts(member)
        if self._is_ending or self._config is None:
            return
        has_lived = self._reactor.seconds() - member.since
        pause = 0.0
        if has_lived < self.STEADY_SECONDS:
            pause = min(max(self._pauses.get(member.slot, 0.0) * 2, self.FIRST_PAUSE), self.LONGEST_PAUSE)
        self._pauses[member.slot] = pause
        self._log.error(
            "worker {slot} ({pid}) ended unexpectedly after {lived:.1f} s; its connections are lost, and another takes its place{when}",
            slot=member.slot,
            pid=member.pid,
            lived=has_lived,
            when=f" in {pause:g} s" if pause else "",
        )
        self._returns[member.slot] = self._reactor.callLater(pause, self._replace, member.slot)

    def _replace(self, slot: int) -> None:
        self._returns.pop(slot, None)
        self.replaced += 1
        self._join(self._open(slot))

    def _join(self, member: _Member) -> None:
        """
        Have a new worker take what runs.
        """
        config = self._config
        assert config is not None
        member.config = config
        member.is_ready = False
        member.remote.hand_over(self._sockets.all())
        member.remote.prepare(config).addCallbacks(lambda _: self._joined(member), lambda failure: self._not_joined(member, failure))

    def _joined(self, member: _Member) -> None:
        member.is_ready = True
        if self._preparing is not None or self._is_ending:
            # It serves nothing old once the others do not. The end of the reload, either way, comes back to it.
            return
        if member.config is not self._config:
            member.remote.abandon()
            self._join(member)
            return
        member.is_serving = True
        member.remote.commit().addCallback(lambda _: self._log.info("worker {slot} ({pid}) serves", slot=member.slot, pid=member.pid))
        for (service, revision, url), reason in self._verdicts.items():
            member.remote.set_verdict(service, revision, url, False, reason)

    def _resume_joining(self) -> None:
        for member in list(self._members.values()):
            if member.is_ready and not member.is_serving:
                self._joined(member)

    def _not_joined(self, member: _Member, failure: Failure) -> None:
        if not member.link.is_lost:
            self._log.error(
                "worker {slot} ({pid}) cannot take the configuration that runs: {reason}",
                slot=member.slot,
                pid=member.pid,
                reason=failure.getErrorMessage(),
            )
            member.link.close()

    def _close_members(self) -> None:
        members, self._members = self._members, {}
        for member in members.values():
            self._keep_counts(member)
            member.link.close()

    # -- observation

    @inlineCallbacks
    def snapshot(self) -> Any:
        """
        Give the counts of all workers together, and of those that are gone.
        """
        for _ in range(self.MOST_QUESTIONS):
            asked = [self._snapshot_of(member) for member in self._serving()]
            found = yield gatherResults(asked)
            parts = [each for each in found if each is not None]
            if self._past is not None:
                parts.append(self._past)
            if not parts:
                raise LinkError("no worker is left that could be asked")
            if all(part["buckets"] == parts[0]["buckets"] for part in parts):
                return merge_snapshots(parts)
            # A reload is on its way to some.
            waited: Deferred[None] = Deferred()
            self._reactor.callLater(self.ASK_AGAIN_SECONDS, waited.callback, None)
            yield waited
        raise LinkError("workers count by different buckets")

    def _snapshot_of(self, member: _Member) -> Deferred[Mapping[str, Any] | None]:
        def keep(snapshot: Mapping[str, Any]) -> Mapping[str, Any]:
            member.snapshot = snapshot
            return snapshot

        # What one does not tell now it has told before.
        return member.remote.snapshot().addCallbacks(keep, lambda failure: None if member.link.is_lost else member.snapshot)

    def _keep_counts(self, member: _Member) -> None:
        self._past_requests += member.totals[1]
        if member.snapshot is not None and self._config is not None:
            counted = remainder_of(member.snapshot, self._config)
            self._past = counted if self._past is None else merge_snapshots([self._past, counted])
        member.snapshot = None

    def totals(self) -> tuple[int, int]:
        """
        Return how many client connections are open and how many requests have ended, as the workers told within the last half second.
        """
        members = self._members.values()
        return sum(each.totals[0] for each in members), self._past_requests + sum(each.totals[1] for each in members)

    def listening(self) -> list[socket.socket]:
        """
        Return the sockets on which connections are accepted. Raises `AssemblyError` if there are others, which only the workers have.
        """
        for name, entrypoint in {} if self._config is None else self._config.entrypoints.items():
            if entrypoint.protocol == "udp":
                raise AssemblyError(
                    f'entrypoint "{name}" is udp, and the sockets that each of the {self.size} workers has for it cannot be handed over; '
                    "stop the gateway and start it again, or have udp entrypoints in a gateway with workers = 1"
                )
        return [sock for _, _, sock in self._sockets.all()]

    def passed_on(self, sockets: Collection[socket.socket]) -> None:
        """
        Another process serves on these `sockets` as well now. Connections are accepted by either until this one drains.
        """

    def ports(self) -> dict[str, int]:
        """
        Return the ports of the open doors by entrypoint.
        """
        ports = self._sockets.ports()
        for name, entrypoint in {} if self._config is None else self._config.entrypoints.items():
            if entrypoint.protocol == "udp":
                # Each worker has a socket of its own there.
                ports[name] = parse_listen_address(entrypoint.address)[1]
        return ports

    def generation(self) -> Generation | None:
        """
        Return `None`: generations run elsewhere.
        """
        return None

    def workers(self) -> list[dict[str, Any]]:
        """
        Return how each worker stands, by its place.
        """
        rows = []
        for slot in range(self.size):
            member = self._members.get(slot)
            state = "serving" if member is not None and member.is_serving else "starting"
            rows.append({"worker": slot, "pid": member.pid if member is not None else None, "state": state})
        return rows

    def standing(self) -> dict[str, int]:
        """
        Return how many workers are `wanted`, how many are `serving`, and how many were `replaced`.
        """
        return {"wanted": self.size, "serving": sum(1 for _ in self._serving()), "replaced": self.replaced}

    def reopen_logs(self) -> None:
        """
        Have every worker open its log files anew.
        """
        for member in self._serving():
            member.remote.reopen_logs()

    # -- the end

    def drain(self, timeout: float) -> Deferred[int]:
        """
        Drain every worker, and end it.
        """
        self._is_ending = True
        for call in self._returns.values():
            call.cancel()
        self._returns.clear()
        if self._look_call is not None:
            self._look_call.cancel()
            self._look_call = None
        self._sockets.close()
        drained = [member.remote.drain(timeout).addErrback(lambda failure: 0) for member in self._serving()]
        done: Deferred[Any] = gatherResults(drained) if drained else succeed([])
        return done.addCallback(self._drained)

    def _drained(self, aborted: list[int]) -> int:
        self._close_members()
        self._processes.stop()
        return sum(aborted)


def _first_failure(results: list[tuple[bool, Any]]) -> None:
    failures = [result for succeeded, result in results if not succeeded]
    # What is wrong with the configuration tells more than a worker that is gone.
    for failure in sorted(failures, key=lambda each: each.check(AssemblyError) is None):
        failure.raiseException()
