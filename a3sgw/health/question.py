"""
Ask one server once whether it is well.

The answer is what speaks against the server, in words for logs and dashboards, or nothing at all. A question never takes longer than its
time limit. It has a connection of its own, which is closed after it: one that was kept would say nothing about a server that lets nobody
in any more. The kubelet and HAProxy probe the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from a3sgw._version import __version__
from a3sgw.config.address import ServerAddress, parse_server_url
from a3sgw.config.kinds import parse_status_range
from a3sgw.config.model import HealthCheckConfig
from a3sgw.config.values import Secret
from a3sgw.errors import Outcome, UpstreamError
from a3sgw.message import Field, LocalResponse, get_field, make_field
from a3sgw.net.connect import Address, Connecting, Dialer
from a3sgw.net.deadline import NEVER
from a3sgw.proxy.outbound import Outbound
from a3sgw.wire.grpc import HEALTH_STATES, SERVING, STATUS_NAMES, encode_health_request, read_health_response

if TYPE_CHECKING:
    from a3sgw.proxy.outbound_tls import Terms

__all__ = ["ConnectQuestion", "GrpcQuestion", "HttpQuestion", "Question"]

_USER_AGENT: Final = f"a3s-gateway/{__version__} (health check)".encode("ascii")


class Question(Protocol):
    """
    What is asked of one server, again and again.
    """

    def ask(self) -> Deferred[str]:
        """
        Ask once, and give what speaks against the server; an empty text if nothing does. Cancelling gives the question up.
        """


class HttpQuestion:
    """
    Ask for a path over HTTP, and look at the status of the answer.

    `outbound` must keep no connections. The server's URL is `http`, `https`, `h2c` or `unix`, and its path is put before that of the check.
    `terms` are those for TLS with it, if there are any.
    """

    MAX_BODY_BYTES: Final = 65536
    """So much of an answer's body is waited for before the connection is cut."""

    def __init__(self, outbound: Outbound, url: str, check: HealthCheckConfig, terms: Terms | None = None) -> None:
        address = parse_server_url(url)
        prefix = "" if address.scheme == "unix" else address.path
        self._destination = outbound.open(url, None if check.host is None else check.host.encode("ascii"), terms)
        self._method = check.method.encode("ascii")
        self._target = f"{prefix}{check.path or '/'}".encode("ascii")
        self._fields = _fields(check)
        self._timeout = check.timeout
        self._good = frozenset(status for text in check.status_codes for status in parse_status_range(text))
        self._url = url

    def __repr__(self) -> str:
        return f"<HttpQuestion {self._method.decode()} {self._target.decode()} of {self._url}>"

    def ask(self) -> Deferred[str]:
        """
        Ask.
        """
        asked = self._destination.ask(
            self._method, self._target, self._fields, timeout=self._timeout, max_body_bytes=self.MAX_BODY_BYTES
        )
        return asked.addCallbacks(self._judge, _describe)

    def _judge(self, status: int) -> str:
        return "" if status in self._good else f"status {status}"


class GrpcQuestion:
    """
    Ask by the health protocol of gRPC (`grpc.health.v1`), as kubelet, Envoy and Traefik do.

    `outbound` and `terms` are as in `HttpQuestion`. Only `SERVING` is well.
    """

    MAX_BODY_BYTES: Final = 65536

    def __init__(self, outbound: Outbound, url: str, check: HealthCheckConfig, terms: Terms | None = None) -> None:
        address = parse_server_url(url)
        prefix = "" if address.scheme == "unix" else address.path
        self._destination = outbound.open(url, None if check.host is None else check.host.encode("ascii"), terms)
        self._target = f"{prefix}/grpc.health.v1.Health/Check".encode("ascii")
        self._fields = _fields(check)
        self._message = encode_health_request(check.grpc_service)
        self._timeout = check.timeout
        self._what = check.grpc_service or "the server"
        self._url = url

    def __repr__(self) -> str:
        return f"<GrpcQuestion for {self._what} of {self._url}>"

    def ask(self) -> Deferred[str]:
        """
        Ask.
        """
        asked = self._destination.call(
            self._target, self._fields, self._message, timeout=self._timeout, max_body_bytes=self.MAX_BODY_BYTES
        )
        return asked.addCallbacks(self._judge, _describe)

    def _judge(self, response: LocalResponse) -> str:
        if response.status != 200:
            return f"status {response.status}"
        code = get_field(response.fields, b"grpc-status")
        if code not in (None, b"0"):
            number = int(code) if code is not None and code.isdigit() else -1
            name = STATUS_NAMES[number] if 0 <= number < len(STATUS_NAMES) else "of no meaning"
            return f"gRPC status {number} {name}"
        try:
            state = read_health_response(response.body)
        except ValueError as error:
            return f"no health response: {error}"
        if state == SERVING:
            return ""
        return HEALTH_STATES[state] if state < len(HEALTH_STATES) else f"state {state}"


def _fields(check: HealthCheckConfig) -> list[Field]:
    fields = []
    for name, value in check.headers.items():
        text = value.reveal() if isinstance(value, Secret) else value
        # As the configuration has it; what came from the environment may not be UTF-8.
        fields.append(make_field(name.encode("ascii"), text.encode("utf-8", "surrogateescape")))
    if not any(field.name == b"user-agent" for field in fields):
        fields.append(make_field(b"User-Agent", _USER_AGENT))
    return fields


def _describe(failure: Failure) -> str:
    failure.trap(UpstreamError)
    error = failure.value
    assert isinstance(error, UpstreamError)
    return f"{error.outcome.word} ({error.detail})" if error.detail else error.outcome.word


class ConnectQuestion:
    """
    Connect, say nothing, and close.
    """

    def __init__(self, dialer: Dialer, address: ServerAddress, timeout: float, later: Callable[..., Any]) -> None:
        self._dialer = dialer
        self._address = address
        self._timeout = timeout
        self._later = later

    def __repr__(self) -> str:
        return f"<ConnectQuestion {self._address}>"

    def ask(self) -> Deferred[str]:
        """
        Ask.
        """
        return _Attempt(self._dialer, self._later).start(self._address, self._timeout)


class _Attempt:
    """
    One attempt to connect, which has a timed call of its own because the sweep of deadlines would be too coarse.
    """

    def __init__(self, dialer: Dialer, later: Callable[..., Any]) -> None:
        self._dialer = dialer
        self._later = later
        self._result: Deferred[str] | None = None
        self._timer: Any = None
        self._connecting: Connecting | None = None

    def start(self, address: ServerAddress, timeout: float) -> Deferred[str]:
        """
        Set out.
        """
        result: Deferred[str] = Deferred(lambda _: self._end())
        self._result = result
        self._timer = self._later(timeout, self._timed_out, timeout)
        if address.scheme == "unix":
            self._resolved([self._dialer.unix_address(address.path)])
        else:
            self._dialer.resolve(address.host, address.port, self._resolved)
        return result

    def _resolved(self, found: Sequence[Address]) -> None:
        if self._result is None:
            # Nobody waits for the name any more.
            return
        if found:
            self._connecting = self._dialer.connect(found, NEVER, self._connected)
        else:
            self._answer(Outcome.DNS_ERROR.word)

    def _connected(self, sock: Any, outcome: Outcome | None) -> None:
        self._connecting = None
        if sock is not None:
            sock.close()
        self._answer("" if outcome is None else outcome.word)

    def _timed_out(self, timeout: float) -> None:
        self._answer(f"{Outcome.CONNECT_TIMEOUT.word} (no connection within {timeout:g} s)")

    def _answer(self, objection: str) -> None:
        result = self._result
        assert result is not None
        self._end()
        result.callback(objection)

    def _end(self) -> None:
        self._result = None
        if self._timer.active():
            self._timer.cancel()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
