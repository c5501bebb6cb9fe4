"""
Answer requests to the dashboard API: what the gateway is, does and was told.

The data path decides who gets here at all: it has checked the client's address and that the path lies under the prefix, segment by
segment. This module checks credentials, if any are configured, and reads the gateway through `IGatewayView`; it changes nothing. Without
credentials the address list alone protects it.

Everything is JSON but the metrics page. An answer to HEAD carries the body that GET would have; whoever sends it states its length and
leaves it out (RFC 9110 section 9.3.2).
"""

# zope interfaces declare methods without `self`.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from twisted.internet.defer import Deferred
from zope.interface import Interface

from a3sgw.message import Field, LocalResponse, RequestHead, get_all_fields, make_field
from a3sgw.observe.exposition import CONTENT_TYPE

__all__ = ["AdminApi", "IGatewayView"]

Answer = LocalResponse | Deferred[LocalResponse]

_REALM = b'realm="a3s-gateway"'

_EXPLAIN_PARAMETERS = ("method", "url", "client", "header")


class IGatewayView(Interface):
    """
    What of the running gateway may be shown. Reading it changes nothing.

    All values are plain JSON ones, made for this call: the reader may keep and change them. A method that fails raises, or its Deferred
    does; the request is answered with 500 then.
    """

    def health() -> dict[str, Any]:
        """
        Return `state` (`Running`, `Reloading`, or another word while requests should go elsewhere), `uptime_secs`, `active_connections`,
        `total_requests`, `reload`: the result of the last reload, or `None`, and `broken_files`: the files of the configuration that are
        not in force as they stand, each with `file`, `kept` (whether what it said before goes on) and `problems`; and `workers`: how many
        are `wanted` and `serving` and how many were `replaced`, or `None` in one process.
        """

    def metrics_page() -> Deferred[bytes]:
        """
        Give the Prometheus text page of all carriers together.
        """

    def config_json() -> dict[str, Any]:
        """
        Return the running configuration by its HCL names, with every secret masked.
        """

    def routes() -> list[dict[str, Any]]:
        """
        Return `name`, `rule`, `service`, `entrypoints`, `middlewares` and `priority` of each route, highest priority first.
        """

    def services() -> Deferred[list[dict[str, Any]]]:
        """
        Give for each service `name`, `strategy` (in kebab-case, as configured), `backends_total`, `backends_healthy`, the requests that are
        `waiting` for a server and that have a place (`in_use`; both `null` without a waiting room), `failovers` and `retries` since the
        start, `revisions` (`name`, `traffic_percent`, `strategy`), and `backends`.

        `backends` is a list of `url`, `revision`, `weight`, `healthy` (whether it may be chosen now), `state` (`usable`, or all that speaks
        against it: `draining`, `unhealthy`, `ejected`, `half-open`), `reason` (why this last changed), and `active_connections`.
        """

    def middlewares() -> Deferred[list[dict[str, Any]]]:
        """
        Give for each configured middleware `name`, `type`, the `routers` and `entrypoints` that list it (by itself or in a chain), how many
        requests came to it (`invocations`), how many of them it answered itself (`answers`, by status), how many it made wait and for how
        long (`waits`, `wait_seconds`), and its `states`.

        `states` has, for each router or entrypoint that lists a middleware which tells of itself, `router`, `entrypoint` (the other is
        `null`) and `state`.
        """

    def version() -> str:
        """
        Return the gateway's version.
        """

    def explain(method: str, url: str, client: str, headers: list[tuple[str, str]]) -> dict[str, Any] | None:
        """
        Tell which route a request for `url`, an absolute `http` or `https` one, from the address `client` would take, and why; or a
        connection, if `url` is `tcp://` and the server's name, or no name. A header `ALPN` gives the protocols it offers.

        Returns `None` if no entrypoint would take such a request or connection.
        """


class AdminApi:
    """
    The API below `path_prefix`.

    With `username` and `password` it asks for HTTP Basic credentials, with `keys` for one of them in `X-API-Key` or as a bearer token;
    with both, either will do. Raises `ValueError` for credentials that would protect nothing.
    """

    def __init__(
        self,
        view: IGatewayView,
        path_prefix: str,
        username: str | None = None,
        password: str | None = None,
        keys: Sequence[str] = (),
    ) -> None:
        if (username is None) != (password is None):
            raise ValueError("dashboard: username and password belong together, but only one is given: give both or neither")
        if username == "" or password == "" or "" in keys:
            raise ValueError("dashboard: an empty username, password or key protects nothing: give a value or leave it out")
        if username is not None and ":" in username:
            raise ValueError(f"dashboard: username {username!r} contains a colon, which HTTP Basic authentication cannot carry")
        self._view = view
        self._prefix = path_prefix.rstrip("/").encode()
        self._login = None if username is None else _digest(f"{username}:{password}".encode())
        self._keys = [_digest(key.encode()) for key in keys]
        self._challenges: list[Field] = []
        if self._login is not None:
            self._challenges.append(make_field(b"WWW-Authenticate", b"Basic " + _REALM + b', charset="UTF-8"'))
        if self._keys:
            self._challenges.append(make_field(b"WWW-Authenticate", b"Bearer " + _REALM))

    def answer(self, method: bytes, path: bytes, query: bytes, head: RequestHead) -> Answer:
        """
        Return the answer to one request, or a Deferred of it.

        `path` is the canonical path, `query` what follows its question mark; `head` is read for credentials and the client's address.
        """
        if self._challenges and not self._is_authentic(head):
            return _json_answer(401, {"error": "Unauthorized"}, self._challenges)
        page = self._page(path, query, head)
        if page is None:
            return _error(404, "Not found")
        if method not in (b"GET", b"HEAD"):
            return _json_answer(405, {"error": "Method not allowed"}, [make_field(b"Allow", b"GET, HEAD")])
        return page()

    # -- who asks ---------------------------------------------------------------------------------------------------------------------

    def _is_authentic(self, head: RequestHead) -> bool:
        login, keys = _credentials(head)
        # Every comparison is made, whatever the others gave, so that the time taken tells nothing.
        matches = [hmac.compare_digest(_digest(key), known) for key in keys for known in self._keys]
        if login is not None and self._login is not None:
            matches.append(hmac.compare_digest(_digest(login), self._login))
        return any(matches)

    # -- what for ---------------------------------------------------------------------------------------------------------------------

    def _page(self, path: bytes, query: bytes, head: RequestHead) -> Callable[[], Answer] | None:
        """
        Return what answers `path`, or `None` if it names nothing of ours.
        """
        if not path.startswith(self._prefix + b"/"):
            return None
        rest = path[len(self._prefix) + 1 :]
        # A name may contain slashes, because those that come from Kubernetes do.
        kind, slash, raw_name = rest.removesuffix(b"/").partition(b"/")
        if not slash:
            if kind == b"explain":
                return lambda: self._explain(query, head)
            page = _PAGES.get(kind)
            return None if page is None else lambda: page(self)
        named = _NAMED.get(kind)
        if named is None or not raw_name:
            return None
        # What is not UTF-8 becomes a name that nothing has.
        name = unquote_to_bytes(raw_name).decode("utf-8", "replace")
        return lambda: named(self, name)

    def _health(self) -> Answer:
        health = self._view.health()
        return _json_answer(200 if health["state"] in ("Running", "Reloading") else 503, health)

    def _metrics(self) -> Answer:
        return self._view.metrics_page().addCallback(lambda page: _answer(200, CONTENT_TYPE, page))

    def _config(self) -> Answer:
        return _json_answer(200, self._view.config_json())

    def _version(self) -> Answer:
        return _json_answer(200, {"name": "a3s-gateway", "version": self._view.version()})

    def _routes(self) -> Answer:
        return _json_answer(200, self._view.routes())

    def _route(self, name: str) -> Answer:
        return _named_row(self._view.routes(), name, "Route not found")

    def _services(self) -> Answer:
        return self._view.services().addCallback(lambda services: _json_answer(200, services))

    def _service(self, name: str) -> Answer:
        return self._view.services().addCallback(_named_row, name, "Service not found")

    def _middlewares(self) -> Answer:
        return self._view.middlewares().addCallback(lambda middlewares: _json_answer(200, middlewares))

    def _middleware(self, name: str) -> Answer:
        return self._view.middlewares().addCallback(_named_row, name, "Middleware not found")

    def _backends(self) -> Answer:
        def flattened(services: list[dict[str, Any]]) -> LocalResponse:
            return _json_answer(200, [{"service": service["name"], **backend} for service in services for backend in service["backends"]])

        return self._view.services().addCallback(flattened)

    def _explain(self, query: bytes, head: RequestHead) -> Answer:
        try:
            method, url, client, headers = _explain_arguments(query, head.client.decode("ascii", "replace"))
        except ValueError as error:
            return _error(400, str(error))
        explanation = self._view.explain(method, url, client, headers)
        if explanation is None:
            return _error(404, "No entrypoint takes such a request")
        return _json_answer(200, explanation)


# Not in each instance, which would refer to itself then, and stay until a garbage collection.
_PAGES: Final[Mapping[bytes, Callable[[AdminApi], Answer]]] = {
    b"health": AdminApi._health,
    b"metrics": AdminApi._metrics,
    b"config": AdminApi._config,
    b"routes": AdminApi._routes,
    b"services": AdminApi._services,
    b"backends": AdminApi._backends,
    b"middlewares": AdminApi._middlewares,
    b"version": AdminApi._version,
}
_NAMED: Final[Mapping[bytes, Callable[[AdminApi, str], Answer]]] = {
    b"routes": AdminApi._route,
    b"services": AdminApi._service,
    b"middlewares": AdminApi._middleware,
}


def _named_row(rows: list[dict[str, Any]], name: str, complaint: str) -> LocalResponse:
    """
    Return the row called `name`, or the complaint that there is none.
    """
    for row in rows:
        if row["name"] == name:
            return _json_answer(200, row)
    return _error(404, complaint)


def _digest(secret: bytes) -> bytes:
    """
    Return a digest of fixed length, because comparing texts would tell theirs.
    """
    return hashlib.sha256(secret).digest()


def _credentials(head: RequestHead) -> tuple[bytes | None, list[bytes]]:
    """
    Return the `user:password` and the keys that a request bears. Repeated `Authorization` fields are no credentials.
    """
    keys = get_all_fields(head.fields, b"x-api-key")
    authorizations = get_all_fields(head.fields, b"authorization")
    if len(authorizations) != 1:
        return None, keys
    scheme, _, value = authorizations[0].partition(b" ")
    scheme, value = scheme.lower(), value.strip()
    if scheme == b"bearer":
        keys.append(value)
    elif scheme == b"basic":
        try:
            return base64.b64decode(value, validate=True), keys
        except binascii.Error:
            pass
    return None, keys


def _explain_arguments(query: bytes, asker: str) -> tuple[str, str, str, list[tuple[str, str]]]:
    """
    Read the query of `explain`; what is not said of the client is taken from `asker`. Raises `ValueError` with a sentence.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise ValueError("the query is not readable: expected at most 100 percent-encoded UTF-8 parameters") from None
    single: dict[str, str] = {}
    headers: list[tuple[str, str]] = []
    for name, value in pairs:
        if name not in _EXPLAIN_PARAMETERS:
            raise ValueError(f"unknown parameter {name!r}: expected {', '.join(_EXPLAIN_PARAMETERS)}")
        if name == "header":
            field, colon, content = value.partition(":")
            if not colon or not field.strip():
                raise ValueError(f"header {value!r}: expected a name, a colon and a value, such as X-Canary: 1")
            headers.append((field.strip(), content.strip()))
        elif name in single:
            raise ValueError(f"parameter {name!r} is given twice: give it once")
        else:
            single[name] = value
    method = single.get("method", "GET")
    if not method.isascii() or not method.replace("-", "").isalnum():
        raise ValueError(f"method {method!r}: expected an HTTP method, such as GET")
    url = single.get("url", "")
    _check_url(url)
    client = single.get("client", asker)
    try:
        ipaddress.ip_address(client)
    except ValueError:
        raise ValueError(f"client {client!r}: expected an IP address, such as 192.0.2.1") from None
    return method, url, client, headers


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        # A connection need not name anybody.
        is_usable = (parts.scheme == "tcp" or (parts.scheme in ("http", "https") and bool(parts.hostname))) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError(f"url {url!r}: expected an absolute http or https URL, such as http://shop.example/cart?id=7, or tcp://name")


def _error(status: int, text: str) -> LocalResponse:
    return _json_answer(status, {"error": text})


def _json_answer(status: int, value: Any, fields: Sequence[Field] = ()) -> LocalResponse:
    """
    Return `value` as indented JSON. A value that is not plain JSON raises `TypeError`: shown as text it might be a secret.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # A lone surrogate, which UTF-8 cannot carry, becomes its JSON escape.
    return _answer(status, b"application/json", text.encode("utf-8", "backslashreplace"), fields)


def _answer(status: int, content_type: bytes, body: bytes, fields: Sequence[Field] = ()) -> LocalResponse:
    common = (
        make_field(b"Content-Type", content_type),
        make_field(b"Cache-Control", b"no-store"),
        make_field(b"X-Content-Type-Options", b"nosniff"),
    )
    return LocalResponse(status, [*common, *fields], body)
