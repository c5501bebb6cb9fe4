"""
Ask a candidate a few questions before and after it is measured: a fast wrong answer is worth nothing.

Each question goes over one kept connection (unless the case closes it) and is judged from both ends: what came back here, and what the
upstream's account says came through.
"""

from __future__ import annotations

import itertools
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from .cases import HOST, Case, Request
from .processes import Child, VoidRunError
from .tls import client_context
from .upstream import Upstream
from .variations import PLAIN, Variation

__all__ = ["Answer", "Target", "check_candidate", "parse_answer", "read_answer"]

_numbers = itertools.count(1)


@dataclass
class Target:
    """
    A candidate that runs: where it is reached, its process, if it has one, and the log that must grow.

    `forwarded` says that the upstream must see `X-Forwarded-For`, `routed` that a host without a route must not get to it. `variation` says
    what the middlewares of a gateway do. `tls` says that it is spoken to over TLS.
    """

    name: str
    port: int
    child: Child | None
    access_log: Path | None
    forwarded: bool
    routed: bool
    variation: Variation = PLAIN
    tls: bool = False

    def connect(self) -> socket.socket:
        """
        Return a new connection to it. Raises `OSError`.
        """
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        return client_context().wrap_socket(connection, server_hostname=HOST) if self.tls else connection


@dataclass(frozen=True)
class Answer:
    """
    One response. Header names are in lower case; `size` is its length on the wire.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    size: int


def parse_answer(raw: bytes) -> Answer | int:
    """
    Read one whole response with a Content-Length, or return how many bytes are still to come at least.

    Only as much of HTTP as the upstream speaks: a candidate that answers in chunks has changed the message, and that is refused.
    """
    head, blank, body = raw.partition(b"\r\n\r\n")
    if not blank:
        return 1
    status_line, *lines = head.decode("latin-1").split("\r\n")
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise ValueError(f"{status_line!r} is not the status line of an HTTP/1 response")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise ValueError(f"the response has no Content-Length, though the upstream sends one; its status is {parts[1]}")
    missing = int(length) - len(body)
    if missing > 0:
        return missing
    if missing < 0:
        raise ValueError(f"{-missing} bytes follow the response")
    return Answer(int(parts[1]), headers, body, len(raw))


def read_answer(connection: socket.socket) -> Answer:
    """
    Receive one response. Raises `ValueError` if it is none, `OSError` if the connection fails.
    """
    raw = b""
    while isinstance(answer := parse_answer(raw), int):
        more = connection.recv(262144)
        if not more:
            raise ValueError(f"the connection was closed after {len(raw)} bytes of the response")
        raw += more
    return answer


def check_candidate(target: Target, case: Case, upstream: Upstream, questions: int = 3) -> int:
    """
    Ask the case's requests and judge the answers. Returns the size of a response on the wire; raises `VoidRunError` at the first fault.
    """
    seen: set[str] = set()
    size = 0
    connection: socket.socket | None = None
    try:
        for _ in range(questions):
            number = next(_numbers)
            verify_id = f"v{os.getpid()}-{number}"
            request = case.make(number)
            if connection is None:
                connection = target.connect()
            connection.sendall(request.encode(X_Verify=verify_id))
            answer = read_answer(connection)
            _judge(request, case, answer, upstream, verify_id, target)
            seen.add(answer.headers.get("x-response-id", f"none, {number}"))
            size = answer.size
            if request.headers.get("Connection") == "close":
                connection.close()
                connection = None
        if len(seen) != questions:
            raise ValueError(f"{questions} requests brought {len(seen)} different X-Response-Id: answers are kept and given again")
        if target.routed:
            _check_unknown_host(target)
        if target.variation.guards:
            _check_guard(target, case)
    except (OSError, ValueError) as error:
        raise VoidRunError(f"{target.name} failed the check of case {case.name}: {error or type(error).__name__}.") from error
    finally:
        if connection is not None:
            connection.close()
    return size


def _judge(request: Request, case: Case, answer: Answer, upstream: Upstream, verify_id: str, target: Target) -> None:
    variation = target.variation
    if answer.status != variation.status:
        raise ValueError(f"status {answer.status} instead of {variation.status}")
    if variation.shows and variation.shows not in answer.headers:
        raise ValueError(f"the answer has no {variation.shows}, so the middleware did not see it")
    if variation.is_refusal:
        if "x-response-id" in answer.headers:
            raise ValueError("the upstream was asked, though it was to be refused")
        return
    if answer.body != case.answer:
        raise ValueError(f"the body of {len(answer.body)} bytes is not the upstream's of {len(case.answer)}")
    if "x-response-id" not in answer.headers:
        raise ValueError("the upstream's header X-Response-Id was lost")
    account = upstream.account_of(verify_id)
    wanted = {"method": request.method, "target": variation.asks(request.target), "body": request.body.decode()}
    for what, value in wanted.items():
        if account[what] != value:
            raise ValueError(f"the upstream saw {what} {account[what]!r:.80} instead of {value!r:.80}")
    if target.forwarded and "127.0.0.1" not in account["forwarded_for"]:
        raise ValueError(f"the upstream saw X-Forwarded-For {account['forwarded_for']!r}, which does not name the client")


def _check_unknown_host(target: Target) -> None:
    """
    Ask for a host no candidate routes: one that answers from the upstream does not route at all.
    """
    if b"x-response-id" in _ask_once(target, Request("GET", "/", "unknown.invalid", {})).lower():
        raise ValueError("a host without a route was forwarded")


def _check_guard(target: Target, case: Case) -> None:
    """
    Ask without what the middleware looks for: one that lets this pass has checked nothing.
    """
    request = case.make(next(_numbers))
    without = {name: value for name, value in request.headers.items() if name not in target.variation.headers}
    raw = _ask_once(target, replace(request, headers=without))
    if not raw.startswith(b"HTTP/1.1 401 ") or b"x-response-id" in raw.lower():
        names = ", ".join(target.variation.headers)
        raise ValueError(f"a request without {names} was answered {raw[9:12].decode('latin-1')!r} and not 401")


def _ask_once(target: Target, request: Request) -> bytes:
    with target.connect() as connection:
        connection.sendall(request.encode(Connection="close"))
        raw = b""
        while more := connection.recv(65536):
            raw += more
    return raw
