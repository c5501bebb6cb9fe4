"""
Every seam of the house, grouped by room.

An interface stands here when two implementations meet behind it or a plugin may provide it; everything else is a class. The docstrings
are the contract: when a method is called, how often, whether it may call back, and what it must not do. All methods are called on the
reactor thread. This module imports nothing of ours. Long because every seam stands here, and nowhere else.
"""

# zope interfaces declare methods without `self`.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from a3sgw.config.model import GatewayConfig
    from a3sgw.errors import Outcome
    from a3sgw.message import Field, LocalResponse, RequestHead, ResponseHead
    from a3sgw.middleware.surroundings import Surroundings
    from a3sgw.net.caller import Caller
    from a3sgw.observe.record import Record
    from a3sgw.proxy.exchange import Exchange
    from a3sgw.service.backend import Backend, BackendAddress
    from a3sgw.service.roster import BalancerSettings
    from a3sgw.service.service import Service, ServiceSettings

__all__ = [
    "IAttemptHook",
    "IBackendHook",
    "IBalancer",
    "IBalancerFactory",
    "IBeginning",
    "IBodyFilter",
    "IBodyFilterSource",
    "ICarrier",
    "ICompletionHook",
    "IConfigSink",
    "IConnection",
    "IConnectionGate",
    "IControl",
    "IDestination",
    "IDownstream",
    "IIdentitySource",
    "ILessee",
    "ILogSink",
    "IMiddlewareFactory",
    "IMuxBus",
    "IObserver",
    "IOutbound",
    "IProvider",
    "IProviderFactory",
    "IReceiver",
    "IRequestBodyHook",
    "IRequestFilterSource",
    "IRequestHook",
    "IResponseHook",
    "IRetirable",
    "IStateSource",
    "ITrailerFilter",
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


# -- listen ---------------------------------------------------------------------------------------------------------------------------


class IConnection(Interface):
    """
    A client's connection, as its door sees it: what serves it now, or what deals with its beginning.

    It is the receiver of its stream too, and tells the door of its end by `door.connection_ended(self)`, once and last.
    """

    def exchange_count() -> int:
        """
        Return how many exchanges are under way.
        """

    def drain() -> None:
        """
        End the connection when its exchanges have ended, at once if it has none.
        """

    def stop() -> None:
        """
        End the connection now. Exchanges that have not been answered are told why, others are broken off.
        """


class IBeginning(Interface):
    """
    A step at the beginning of connections: a header to read, TLS, and what serves them in the end. Made once for a generation.

    A step that is not the last makes a connection which deals with its part and then calls `door.hand_over` with the next step.
    """

    def begin(door: Any, stream: Any, caller: Any) -> Any:
        """
        Return an `IConnection` that takes `stream`, with itself set as its receiver and a deadline on it.

        `door` has `entrypoint`, `is_draining`, `hand_over`, `count_refused` and `connection_ended`; `caller` is a `net.caller.Caller`. Must
        not close the stream or call out: the door does not know of the connection yet. What has arrived follows by `data_received`.
        """

    def goodbye(outcome: Outcome) -> bytes:
        """
        Return what is sent to somebody who is turned away at the door; empty if there are no words for it.
        """


# -- proxy ----------------------------------------------------------------------------------------------------------------------------


class IDownstream(Interface):
    """
    The client's side of one exchange: its turn on an HTTP/1 connection, or one HTTP/2 stream.

    The exchange calls `send_interim` any number of times, then `send_head` once, then `send_body` and one end (either `ended` or
    `send_end`), or `abort` at any point. None of these calls back into the exchange before it returns, except that the end of the
    response may begin the next exchange.
    """

    caller: Caller = Attribute("Who is at the other end of the connection, a `net.caller.Caller`.")

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


class ILessee(Interface):
    """
    Whoever leases connections from a pool to send requests on them: an exchange, or an errand of the gateway's own.

    The pool answers each `lease` that gave no connection at once by one of `upstream_leased` and `lease_failed`, unless the lessee calls
    `cancel` first. After `send_request` the upstream reports to the lessee: `interim_received` any number of times, then `head_received`
    and, unless that ended it, `response_body_received` until the end. `upstream_failed` comes instead of any of them and is the last
    report. When a report says that the response ended or failed, the upstream has let go of the lessee; the lessee may lease and send
    again, or abort an upstream that is still there, before any of these calls returns.
    """

    head: RequestHead | None = Attribute("The request: its method, and how its body is framed. Set before `send_request`.")
    settings: ServiceSettings = Attribute("Those of the service, or what a router makes of them. Set before `send_request`.")
    connect_timeout: float = Attribute("Seconds that a connection may take to be made, or to come free. Set before `lease`.")
    response_header_timeout: float = Attribute("Seconds that the upstream may take until the response begins.")

    def upstream_leased(upstream: IUpstream) -> None:
        """
        A connection was found. It is the lessee's until the response has ended, or failed, or the lessee aborts it.
        """

    def lease_failed(outcome: Outcome) -> None:
        """
        No connection was found: nothing was sent.
        """

    def request_lines(address: BackendAddress) -> list[bytes]:
        """
        Return the request as HTTP/1 lines for the server at `address`, without CRLF, all but the framing of its body. The list is the
        caller's to change.
        """

    def request_fields(address: BackendAddress) -> list[tuple[bytes, bytes]]:
        """
        Return the request as HTTP/2 header fields for the server at `address`, pseudo-header fields first, framing included.
        """

    def interim_received(head: ResponseHead) -> None:
        """
        A 1xx response arrived, but not 101.
        """

    def head_received(head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        The response arrived: its head and the first piece of its body, `ended` if this was all of it.
        """

    def response_body_received(piece: bytes, ended: bool, trailers: Sequence[Field]) -> None:
        """
        The next piece of the response's body arrived.
        """

    def upstream_failed(outcome: Outcome, *, is_stale: bool, detail: str) -> None:
        """
        The upstream broke off and is gone. `is_stale` says that it was a kept connection which had not answered anything.
        """

    def upstream_congested() -> None:
        """
        The backend does not keep up with the request's body. Followed by `upstream_drained` unless the upstream fails.
        """

    def upstream_drained() -> None:
        """
        The backend has taken everything.
        """


# -- service --------------------------------------------------------------------------------------------------------------------------


class IBalancerFactory(Interface):
    """
    Build balancers for one configured strategy.
    """

    strategy: str = Attribute("The name in `strategy = \"…\"`.")

    def build(backends: Sequence[Backend], settings: BalancerSettings) -> IBalancer:
        """
        Return a new balancer for a service, or a revision of one, with these backends.
        """


class IBalancer(Interface):
    """
    Choose a backend for one attempt.

    Called once per attempt on the reactor thread, on the hot path. Must not block or wait. `candidates` may be kept if it is a tuple: the
    same tuple means the same candidates; a list is good for this call only.
    """

    def choose(candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return one of `candidates`, or `None` if none should be used now.

        `candidates` are usable, in configured order, never empty. On a retry the backends already tried are left out.
        """


# -- middleware -----------------------------------------------------------------------------------------------------------------------
#
# A middleware is an object that provides one or more of these phases. Each router (or entrypoint) that lists it has one of its own, which
# lives as long as its configuration and the files named there do not change. A chain asks once, when it is compiled, which phases there
# are; a phase that is not provided costs nothing. What a middleware wants to remember of one exchange goes into `exchange.notes`, a dict
# whose keys should be the middleware itself.
#
# A hook that raises costs its exchange (500, or the connection is broken off), never another one.


class IMiddlewareFactory(Interface):
    """
    Build the middlewares of one configured `type`. Third parties provide one through `twisted.plugin`, in `a3sgw.plugins`.
    """

    type_name: str = Attribute("What stands in `type = \"…\"`.")
    config_class: type = Attribute(
        "A frozen attrs class whose attributes are declared with `config.setting`; its `type` is `type_name`. It validates, documents and "
        "shows the options. If it has `is_per_service` and that is true, all routers that lead to the same service share one middleware."
    )

    def build(config: Any, surroundings: Surroundings) -> Any:
        """
        Return a middleware for `config`, an instance of `config_class`.

        Raises `errors.MiddlewareError` if it cannot be built. Called by `validate` too, so it must have no side effect: no connection, no
        thread, no timed call, nothing written. Files may be read. What is needed later is begun by the first request.
        """


class IRequestHook(Interface):
    """
    Look at a request, or change it, before a server is chosen.
    """

    def on_request(exchange: Exchange) -> LocalResponse | Deferred[LocalResponse | None] | None:
        """
        Let the request pass (`None`), answer it, or make it wait for either.

        Called once per exchange, in the configured order, when the head has been read; the body has yet to come. `exchange.head` may be
        changed. An answer that is a `message.SwitchingResponse` takes the client's connection over, to speak another protocol on it. A
        Deferred is cancelled if the client leaves; whoever makes one bounds its time. One that fails is answered 500.
        """


class IRequestBodyHook(Interface):
    """
    Watch the request's body as it comes.
    """

    def on_request_body(exchange: Exchange, piece: bytes, ended: bool) -> LocalResponse | None:
        """
        Let a piece pass, or answer instead: then it is not sent on, and the server's connection is given up.

        Called for each piece, never for a request without a body, once the request hooks have let the head pass. If an answer has begun
        already, the connection is broken off instead.
        """


class IRequestFilterSource(Interface):
    """
    Change the body of requests.
    """

    def request_filter(exchange: Exchange) -> IBodyFilter | None:
        """
        Return a filter for the body of this request, or `None` to leave it alone.

        Called in the configured order when every request hook has let the head pass, for requests that have a body. Whoever changes its
        length says so in `exchange.head` before. A filter raises `errors.ProtocolError` for a body that is not what it should be.
        """


class IAttemptHook(Interface):
    """
    Decide whether a failed attempt is repeated.
    """

    def on_attempt_failed(exchange: Exchange, outcome: Outcome, status: int) -> float | None:
        """
        Return how many seconds to wait before the next attempt, or `None` for no opinion; the first hook that has one is followed.

        Called only while another attempt is possible: nothing has been sent to the client, and the request's body is whole. `status` is
        that of a response of 400 and above (`outcome` is `COMPLETED` then) or 0 if there was none. `outcome.was_sent` says whether the
        server may have seen the request. `exchange.attempts` counts the attempts so far.
        """


class IBackendHook(Interface):
    """
    Keep single servers from being chosen, and hear how attempts at them end.
    """

    refusal: Outcome = Attribute("What it is called when no server is left because of this middleware.")

    def may_use(exchange: Exchange, backend: Backend) -> bool:
        """
        Say whether `backend` may be chosen for the next attempt. Called for each candidate, on the hot path; must not change anything.
        """

    def on_attempt_begun(exchange: Exchange, backend: Backend) -> None:
        """
        `backend` was chosen. With hedging there may be an attempt at another backend under way, which ends on its own.
        """

    def on_attempt_ended(exchange: Exchange, backend: Backend, outcome: Outcome, status: int) -> None:
        """
        The attempt is over. Called once for each `on_attempt_begun`; `status` is that of the response, or 0 if there was none.
        """


class IResponseHook(Interface):
    """
    Look at a response, or change it, before the client sees it.
    """

    def on_response(exchange: Exchange, head: ResponseHead) -> LocalResponse | Deferred[LocalResponse | None] | None:
        """
        Let the response pass, put another in its place, or make it wait for either.

        Called once for each final response, in reverse order, and only for middlewares that let the request pass: also for responses the
        gateway makes itself. `head.fields` may be changed; framing and status may not. A Deferred is as in `IRequestHook`.
        """


class IBodyFilterSource(Interface):
    """
    Change the body of responses.
    """

    def body_filter(exchange: Exchange, head: ResponseHead) -> IBodyFilter | None:
        """
        Return a filter for the body of this response, or `None` to leave it alone.

        Called after the response hooks, in reverse order, for responses that have a body. `head.length` is its length or below zero if it
        is not known; the exchange sees to the framing of what the filter makes.
        """


class IBodyFilter(Interface):
    """
    Change one body, piece by piece.
    """

    def feed(piece: bytes) -> bytes:
        """
        Take a piece, not empty; return what can be sent now, possibly nothing.
        """

    def end() -> bytes:
        """
        Return what is left. Called once, at the end of the body, and never if the exchange is broken off.
        """


class ITrailerFilter(IBodyFilter):
    """
    Change one body, and put its trailers into it: there are none behind it then.
    """

    def end_with(trailers: Sequence[Field]) -> bytes:
        """
        Return what is left, as `end` does, which is not called.
        """


class ICompletionHook(Interface):
    """
    Hear how exchanges end.
    """

    def on_complete(exchange: Exchange) -> None:
        """
        The exchange is over; `exchange.outcome` and `exchange.status` say how. Called exactly once for each exchange whose request this
        middleware let pass, however it ends.
        """


class IConnectionGate(Interface):
    """
    Decide about connections, before anything is read. For middlewares of an entrypoint.
    """

    def admit(peer_packed: bytes) -> Outcome | None:
        """
        Let a connection in (`None`) or say why not. The peer's address is packed as in `a3sgw.address`.
        """

    def connection_ended(peer_packed: bytes) -> None:
        """
        A connection that was let in has ended. Called once for each.
        """


class IIdentitySource(Interface):
    """
    Name the request fields that only this middleware may set, because servers take them for the truth about who is asking.
    """

    identity_fields: Set[bytes] = Attribute(
        "Names in lower case. What the client sends under these names, in the head or in trailers, and under names that differ only in `_` "
        "for `-`, is removed before any request hook is called."
    )


class IStateSource(Interface):
    """
    Show how a middleware stands.
    """

    def describe() -> Mapping[str, str | int | float]:
        """
        Return plain values for the gateway's API and metrics. `circuit` (`closed`, `open`, `half-open`), `clients`, `in_flight` and
        `queued` have metrics of their own.
        """


class IRetirable(Interface):
    """
    Give up what a middleware holds.
    """

    def retire() -> None:
        """
        No new exchange will come, though some may still be under way. Close connections, cancel timed calls. Called once.
        """


class IMuxBus(Interface):
    """
    Carry the messages of a hub of `ws-mux` to the hubs of the same name in other processes.
    """

    hub: Any = Attribute("Where what comes from elsewhere goes, by `arrived(channel, data)`. Set before anything is called.")

    def subscribe(channel: str) -> None:
        """
        Somebody here wants the messages of `channel` now. May begin to connect.
        """

    def unsubscribe(channel: str) -> None:
        """
        Nobody here wants them any more.
        """

    def publish(channel: str, data: bytes) -> None:
        """
        Carry `data` to all others who want it, and not back to this hub. Never waits; what cannot be carried now is lost.
        """

    def describe() -> Mapping[str, str | int | float]:
        """
        Return how it stands, as `IStateSource` does.
        """

    def close() -> None:
        """
        Give up what is held.
        """


class IOutbound(Interface):
    """
    Send small requests of the gateway's own: to an authentication service, for keys, for an error page.
    """

    def open(url: str) -> IDestination:
        """
        Return a destination for the server of an `http://` or `https://` URL, whose path is not looked at, or for the one that listens on
        the socket of `unix:/path`. Nothing is connected yet.
        """

    def open_service(service: Service) -> IDestination:
        """
        Return a destination that asks a service of the configuration, whichever of its servers is chosen. Closing it closes nothing else.
        """


class IDestination(Interface):
    """
    A server that is asked now and then; connections to it are kept.
    """

    def fetch(
        method: bytes, target: bytes, fields: Sequence[Field], *, body: bytes, timeout: float, max_body_bytes: int
    ) -> Deferred[LocalResponse]:
        """
        Ask for `target` (path and query) and give the whole answer, whatever its status; redirects are not followed.

        Fails with `errors.UpstreamError` whose outcome says what went wrong, at the latest after `timeout` seconds, or if the answer's body
        is larger than `max_body_bytes`. `Host` and framing fields are added; such fields among `fields` are left out. Cancelling gives the
        request up. Raises `ValueError` if the request would not be well-formed, because a field has a line break in it, say.
        """

    def close() -> None:
        """
        Close what is idle. Called once, when nothing more will be asked.
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


class IProviderFactory(Interface):
    """
    Make one type of source of configuration.

    A plugin module under `a3sgw.plugins` provides one, together with `twisted.plugin.IPlugin`.
    """

    type_name: str = Attribute("What `type` says in `providers { plugin \"NAME\" { type = … } }`.")
    config_class: type = Attribute("An attrs class that is declared as those of middlewares are; see docs/plugins.md.")

    def build(config: Any, reactor: Any) -> IProvider:
        """
        Return the provider for one configured block. Nothing happens before it is started: no call, no connection, no file.
        """


class IProvider(Interface):
    """
    A source of routers, services and middlewares: an inventory, a platform, a table.

    All calls, in both directions, are made on the reactor thread. Nothing here may block.
    """

    def start(sink: IConfigSink) -> None:
        """
        Begin to look, and offer `sink` what there is, whenever it changes; at once, if that is possible. Called once.
        """

    def stop() -> None:
        """
        Leave `sink` alone, and close and cancel everything. Called once, after `start`, also while something is under way.
        """


class IConfigSink(Interface):
    """
    Where a provider leaves what it has found.
    """

    def offer(config: GatewayConfig) -> None:
        """
        Take all that the provider has now, in the place of what it had before. Only `routers`, `services` and `middlewares` count.

        Routers may name what others have: the main configuration's entrypoints, middlewares and services. An object that is wrong, or whose
        name is taken by somebody with more say, is left out and reported; the others are used. Equal offers cost nothing.
        """

    def failed(reason: str) -> None:
        """
        Note that there is no telling what there is now; what was offered last goes on. `reason` is shown until the next offer.
        """


class ICarrier(Interface):
    """
    The carrying side: it owns listeners, exchanges, pools and all their state, in this process or in another.

    A configuration is taken in two steps so that several carriers swap together or not at all.
    """

    def prepare(config: GatewayConfig) -> Deferred[None]:
        """
        Build the next generation beside the running one, binding new listeners. On failure nothing has changed. A large one is built in
        steps, between which the running one serves.

        Only one generation can be prepared at a time: `commit` or `abandon` must follow a success.
        """

    def commit() -> Deferred[None]:
        """
        Make the prepared generation the running one. Cannot fail; fires when it runs, everywhere.
        """

    def abandon() -> None:
        """
        Drop the generation that is prepared, or being prepared, and what was bound for it. What waits for it to be prepared fails.
        """

    def set_verdict(service: str, revision: str | None, url: str, is_healthy: bool, reason: str) -> None:
        """
        Take the deciding side's verdict on the servers of a service, or of its `revision`, that have this `url`. Said when it changes, and
        after each `commit` for what is unhealthy. Servers begin healthy; what is not there, or has no health check, is passed over.
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
