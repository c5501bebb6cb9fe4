"""
`forward-auth`: ask another service whether a request may pass.

The service is told of the request as Traefik tells it: its headers, and in `X-Forwarded-*` who asks for what. It never sees a body, so none
is read, let alone kept: what arrives meanwhile waits in the exchange's waiting room.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from a3sgw.config.kinds import COOKIE_NAME, FLAG, HEADER_NAME, HTTP_URL, Integer
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.errors import Outcome, UpstreamError
from a3sgw.interfaces import IIdentitySource, IRequestHook, IResponseHook, IRetirable
from a3sgw.message import Field, LocalResponse, get_all_fields, make_field, remove_fields
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.refusal import refusal

if TYPE_CHECKING:
    from a3sgw.message import ResponseHead
    from a3sgw.proxy.exchange import Exchange

__all__ = ["ForwardAuth", "ForwardAuthConfig", "factory"]

# They are about the body, which the service does not get, or would make it answer something else than yes or no.
_NOT_TOLD: Final = frozenset(
    [
        b"content-encoding",
        b"content-length",
        b"expect",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
        b"trailer",
    ]
)
_TIMEOUTS: Final = (Outcome.CONNECT_TIMEOUT, Outcome.RESPONSE_TIMEOUT)


@attrs.frozen(kw_only=True)
class ForwardAuthConfig:
    """
    Ask another service whether a request may pass.

    It is asked with GET and the headers of the request, and told `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri` and `-For`. An answer in
    the 200s lets the request pass; any other goes to the client as it is, with its status, headers and body. No redirect is followed. If
    the service cannot be reached the client is answered 502, if it is too slow 504.
    """

    type: ClassVar[str] = "forward-auth"
    example: ClassVar[str] = """
        middlewares "sso" {
          type                          = "forward-auth"
          forward_auth_url              = "http://127.0.0.1:4180/check"
          forward_auth_response_headers = ["X-Auth-User", "X-Auth-Groups"]
        }
        """

    name: str = label()
    forward_auth_url: str = setting(HTTP_URL, "Whom to ask.")
    forward_auth_response_headers: tuple[str, ...] = setting(
        ListKind(HEADER_NAME),
        "Headers of a good answer that servers get too; what clients send under these names is removed.",
        default=(),
    )
    auth_request_headers: tuple[str, ...] = setting(
        ListKind(HEADER_NAME), "The only headers of the request that the service gets; empty means all.", default=()
    )
    add_auth_cookies_to_response: tuple[str, ...] = setting(
        ListKind(COOKIE_NAME), "Cookies which a good answer sets and that are passed on to the client.", default=()
    )
    timeout_ms: int = setting(Integer(minimum=1, maximum=600_000, unit="milliseconds"), "How long asking may take.", default=5000)
    max_response_bytes: int = setting(
        Integer(minimum=0, maximum=2**30, unit="bytes"),
        "The largest body of an answer; a larger one counts as a failure.",
        default=1_048_576,
    )
    preserve_request_method: bool = setting(FLAG, "Whether the service is asked with the method of the request.", default=False)


@implementer(IRequestHook, IResponseHook, IIdentitySource, IRetirable)
class ForwardAuth:
    """
    Asks over connections of its own, which are kept.
    """

    _log = Logger()

    def __init__(self, config: ForwardAuthConfig, surroundings: Surroundings) -> None:
        parts = urlsplit(config.forward_auth_url)
        self._url = config.forward_auth_url
        self._target = (parts.path or "/").encode("ascii") + (b"?" + parts.query.encode("ascii") if parts.query else b"")
        self._destination = surroundings.outbound.open(config.forward_auth_url)
        self._copied = [name.encode("ascii") for name in config.forward_auth_response_headers]
        self.identity_fields = frozenset(name.lower() for name in self._copied)
        self._told = frozenset(name.lower().encode("ascii") for name in config.auth_request_headers)
        self._cookies = frozenset(name.encode("ascii") for name in config.add_auth_cookies_to_response)
        self._timeout = config.timeout_ms / 1000
        self._max_bytes = config.max_response_bytes
        self._keeps_method = config.preserve_request_method
        self._is_failing = False

    def on_request(self, exchange: Exchange) -> Deferred[LocalResponse | None]:
        """
        Ask, and let the request pass if the answer is yes.
        """
        head = exchange.head
        assert head is not None
        method = head.method if self._keeps_method else b"GET"
        asking = self._destination.fetch(
            method, self._target, self._question(exchange), body=b"", timeout=self._timeout, max_body_bytes=self._max_bytes
        )
        return asking.addCallbacks(self._answered, self._failed, callbackArgs=(exchange,), errbackArgs=(exchange,))

    def _question(self, exchange: Exchange) -> list[Field]:
        head, forwarding = exchange.head, exchange.forwarding
        assert head is not None
        told = self._told
        fields = [field for field in head.fields if field[0] not in _NOT_TOLD and (not told or field[0] in told)]
        fields += [
            make_field(b"X-Forwarded-Method", head.method),
            make_field(b"X-Forwarded-Proto", forwarding.scheme),
            make_field(b"X-Forwarded-Host", forwarding.host or head.authority),
            make_field(b"X-Forwarded-Uri", head.target),
            make_field(b"X-Forwarded-For", forwarding.client),
            make_field(b"X-Request-Id", head.request_id),
        ]
        return fields

    def _answered(self, answer: LocalResponse, exchange: Exchange) -> LocalResponse | None:
        self._is_failing = False
        if not 200 <= answer.status < 300:
            return LocalResponse(answer.status, answer.fields, answer.body, Outcome.AUTH_SERVICE_DENIED)
        head = exchange.head
        assert head is not None
        for name in self._copied:
            # What an earlier middleware set gives way too.
            remove_fields(head.fields, name.lower())
            head.fields += [make_field(name, value) for value in get_all_fields(answer.fields, name.lower())]
        if self._cookies:
            exchange.notes[self] = [
                field
                for field in answer.fields
                if field[0] == b"set-cookie" and field[1].partition(b"=")[0].strip() in self._cookies
            ]
        return None

    def _failed(self, failure: Failure, exchange: Exchange) -> LocalResponse:
        failure.trap(UpstreamError)
        error = failure.value
        assert isinstance(error, UpstreamError)
        if not self._is_failing:
            # Once an outage, not once a request.
            self._is_failing = True
            self._log.warn("{url} cannot be asked whether requests may pass: {reason}", url=self._url, reason=str(error))
        assert exchange.head is not None
        outcome = Outcome.AUTH_SERVICE_TIMEOUT if error.outcome in _TIMEOUTS else Outcome.AUTH_SERVICE_FAILED
        return refusal(outcome, exchange.head.request_id)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Pass on the cookies that the service has set, in the place of the server's of the same names.
        """
        cookies: list[Field] = exchange.notes.get(self, [])
        if cookies:
            names = {field[1].partition(b"=")[0].strip() for field in cookies}
            head.fields[:] = [
                field for field in head.fields if field[0] != b"set-cookie" or field[1].partition(b"=")[0].strip() not in names
            ] + cookies

    def retire(self) -> None:
        """
        Close the connections to the service.
        """
        self._destination.close()


factory = MiddlewareFactory(ForwardAuthConfig, ForwardAuth)
