"""
Every seam of the house, grouped by room.

An interface stands here when two implementations meet behind it or a plugin may provide it; everything else is a class. The docstrings
are the contract: when a method is called, how often, whether it may call back, and what it must not do. All methods are called on the
reactor thread. This module imports nothing of ours.
"""

# zope interfaces declare methods without `self`.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from a3sgw.config.model import GatewayConfig
    from a3sgw.message import Field, LocalResponse, RequestHead, ResponseHead
    from a3sgw.observe.record import Record
    from a3sgw.service.backend import Backend

__all__ = [
    "IBalancer",
    "IBalancerFactory",
    "ICarrier",
    "IControl",
    "IDownstream",
    "ILogSink",
    "IObserver",
    "IReceiver",
    "IUpstream",
]


# -- net ------------------------------------------------------------------------------------------------------------------------------


class IReceiver(Interface):
    """
    Whatever reads what arrives on a stream.
    """

    def data_received(data: bytes) -> None:
        """
        Take the next bytes; never empty. May write to, pause or close any stream.
        """

    def eof_received() -> None:
        """
        The peer will send nothing more. Called at most once; the stream can still be written to, and must be closed by the receiver.
        """

    def stream_lost(error: BaseException | None) -> None:
        """
        The stream is gone, called exactly once and last. `error` is `None` after an orderly close by us.
        """

    def stream_congested() -> None:
        """
        More than the high-water mark is waiting to be sent. Followed by `stream_drained` unless the stream is lost.
        """

    def stream_drained() -> None:
        """
        Everything that was waiting has been given to the kernel.
        """

    def deadline_passed() -> None:
        """
        The moment in the stream's `deadline` has come; it was reset to never before this call.
        """


# -- proxy ----------------------------------------------------------------------------------------------------------------------------


class IDownstream(Interface):
    """
    The client's side of one exchange: its turn on an HTTP/1 connection, or one HTTP/2 stream.

    The exchange calls `send_interim` any number of times, then `send_head` once, then `send_body` and one end (either `ended` or
    `send_end`), or `abort` at any point. None of these calls back into the exchange before it returns, except that the end of the
    response may begin the next exchange.
    """

    def send_interim(head: ResponseHead) -> None:
        """
        Relay a 1xx response, if this client can read one.
        """

    def send_head(head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        Send the final response's head with the first piece of its body; `ended` says that this was all of it.
        """

    def send_body(piece: bytes, ended: bool) -> None:
        """
        Send the next piece of the body.
        """

    def send_end(trailers: Sequence[Field]) -> None:
        """
        End the body, with trailer fields if the protocol can carry them.
        """

    def abort() -> None:
        """
        Break off so that the client can tell the response is incomplete.
        """

    def hold_request(pauser: int) -> None:
        """
        Read no further request body for `pauser`, one of the reasons in `net.valve`.
        """

    def free_request(pauser: int) -> None:
        """
        Withdraw `pauser`; reading goes on when no other is left.
        """


class IUpstream(Interface):
    """
    The backend's side of one exchange: a leased HTTP/1 connection, or one HTTP/2 stream.
    """

    def send_request(exchange: Any, piece: bytes, ended: bool) -> None:
        """
        Send the request head of `exchange` with the first piece of the body. Reports go to `exchange`.
        """

    def send_body(piece: bytes, ended: bool) -> None:
        """
        Send the next piece of the request body.
        """

    def send_end(trailers: Sequence[Field]) -> None:
        """
        End the request body.
        """

    def abort() -> None:
        """
        Give the response up; nothing is reported to the exchange afterwards. Counts as the lease's end.
        """

    def hold_response(pauser: int) -> None:
        """
        Read no further response for `pauser`.
        """

    def free_response(pauser: int) -> None:
        """
        Withdraw `pauser`.
        """


# -- service --------------------------------------------------------------------------------------------------------------------------


class IBalancerFactory(Interface):
    """
    Build balancers for one configured strategy.
    """

    strategy: str = Attribute("The name in `strategy = \"…\"`.")

    def build(backends: Sequence[Backend]) -> IBalancer:
        """
        Return a new balancer for a service with these backends.
        """


class IBalancer(Interface):
    """
    Choose a backend for one attempt.

    Called once per attempt on the reactor thread, on the hot path. Must not block, wait, or keep `candidates`.
    """

    def choose(candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return one of `candidates`, or `None` if none should be used now.

        `candidates` are usable, in configured order, never empty. On a retry the backends already tried are left out.
        """


# -- observe --------------------------------------------------------------------------------------------------------------------------


class IObserver(Interface):
    """
    Read the record of each finished exchange.
    """

    def exchange_ended(record: Record) -> None:
        """
        Called exactly once per exchange, in the order in which they end and within half a second of it; `record.ended` says when. Must not
        keep `record`, which holds the request and is not changed any more. An observer that raises is disabled and reported.
        """


class ILogSink(Interface):
    """
    Where finished log lines go.
    """

    def write(data: bytes) -> None:
        """
        Take whole lines. Must not block; what does not fit its bound is dropped and counted.
        """

    def reopen() -> None:
        """
        Open the file anew by name, because it was rotated.
        """

    def close() -> None:
        """
        Write out what is left and close. Called once.
        """


# -- edges ----------------------------------------------------------------------------------------------------------------------------


class ICarrier(Interface):
    """
    The carrying side: it owns listeners, exchanges, pools and all their state, in this process or in another.

    A configuration is taken in two steps so that several carriers swap together or not at all.
    """

    def prepare(config: GatewayConfig) -> Deferred[None]:
        """
        Build the next generation beside the running one, binding new listeners. On failure nothing has changed.

        Only one generation can be prepared at a time: `commit` or `abandon` must follow a success.
        """

    def commit() -> None:
        """
        Make the prepared generation the running one. Cannot fail.
        """

    def abandon() -> None:
        """
        Drop the prepared generation and what was bound for it.
        """

    def snapshot() -> Deferred[Mapping[str, Any]]:
        """
        Return counters and gauges, as plain dicts that can cross a process border and be added up.
        """

    def reopen_logs() -> None:
        """
        Open log files anew by name.
        """

    def drain(timeout: float) -> Deferred[int]:
        """
        Stop accepting, end what is idle, wait for what is in flight, at most `timeout` seconds.

        Gives how many exchanges had to be aborted. Everything is closed when it fires.
        """


class IControl(Interface):
    """
    The deciding side, as a carrier sees it.
    """

    def admin_request(head: RequestHead) -> LocalResponse | Deferred[LocalResponse]:
        """
        Answer a request to the dashboard API that the carrier has already admitted by address and path.
        """
