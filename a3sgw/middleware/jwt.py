"""
`jwt`: let through only requests with a valid JSON Web Token.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Union

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from a3sgw.config.kinds import COOKIE_NAME, FILE, FLAG, HEADER_NAME, HTTP_URL, NAME, SECRET, Integer, Text, Word
from a3sgw.config.setting import ListKind, MapKind, label, setting
from a3sgw.config.values import FrozenMap, Secret, reveal
from a3sgw.errors import MiddlewareError, Outcome
from a3sgw.interfaces import IIdentitySource, IRequestHook, IRetirable
from a3sgw.message import LocalResponse, get_all_fields, make_field, remove_fields
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.jwks import KeySet
from a3sgw.middleware.parameters import query_value, without_parameter
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.token import (
    ALGORITHMS,
    Key,
    TokenRefused,
    TokenRules,
    TokenVerifier,
    claim_text,
    public_key,
    read_bearer,
    secret_key,
)
from a3sgw.refusal import refusal
from a3sgw.wire.cookie import read_cookie, remove_cookie

if TYPE_CHECKING:
    from a3sgw.message import RequestHead
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Jwt", "JwtConfig", "factory"]

_SHORTEST_HS256_SECRET: Final = 32
"""Bytes: as many as the hash, RFC 7518 section 3.2."""

_SUBJECT: Final = b"X-Jwt-Subject"


def _check_header(text: str) -> str:
    return str(HEADER_NAME.read(text, False))


def _check_claim(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("which is no path of claims")
    return text


_CLAIMS_BY_HEADER = MapKind(_check_header, _check_claim)
_URI = Text("a text without control characters", lambda text: str(NAME.read(text, False)))


@attrs.frozen(kw_only=True)
class JwtConfig:
    """
    Let through only requests with a valid JSON Web Token; others are answered 401.

    The keys come from one place: `value` or `value_file` (a secret, for HS256, HS384 and HS512), `public_key_file`, or `jwks_url`. A token
    has an `exp`; `nbf` and `iat` count where they are there. The subject is passed on as `X-Jwt-Subject`. What clients send under that
    name, or under one of `forward_claims`, is removed.
    """

    type: ClassVar[str] = "jwt"
    one_of: ClassVar[tuple[str, ...]] = ("value", "value_file", "public_key_file", "jwks_url")
    example: ClassVar[str] = """
        middlewares "signed-in" {
          type           = "jwt"
          jwks_url       = "https://id.example.com/.well-known/jwks.json"
          issuers        = ["https://id.example.com"]
          audiences      = ["shop"]
          forward_claims = { "X-User-Roles" = "realm_access.roles" }
        }
        """

    name: str = label()
    header: str = setting(HEADER_NAME, "The header that bears the token, with or without `Bearer`.", default="Authorization")
    cookie: str | None = setting(COOKIE_NAME, "A cookie that may bear it instead.", default=None)
    query: str | None = setting(NAME, "A query parameter that may bear it instead; mind that URLs end up in logs.", default=None)
    value: Secret | None = setting(SECRET, "The shared secret; fewer than 32 bytes are worth a warning.", default=None)
    value_file: str | None = setting(FILE, "A file that holds the secret.", default=None)
    public_key_file: str | None = setting(FILE, "A PEM file with a public key or a certificate.", default=None)
    jwks_url: str | None = setting(HTTP_URL, "Where the issuer's keys are; they are fetched with the first request.", default=None)
    jwks_refresh_secs: int = setting(
        Integer(minimum=10, maximum=86400, unit="seconds"), "How long the keys are used before they are fetched again.", default=300
    )
    jwks_timeout_ms: int = setting(
        Integer(minimum=1, maximum=60_000, unit="milliseconds"), "How long fetching them may take.", default=5000
    )
    algorithms: tuple[str, ...] = setting(
        ListKind(Word(ALGORITHMS)), "The algorithms to accept, of those that the keys are for; empty means all.", default=()
    )
    issuers: tuple[str, ...] = setting(ListKind(_URI), "The issuers to accept; empty means any.", default=())
    audiences: tuple[str, ...] = setting(ListKind(_URI), "The audiences, one of which a token must be for; empty means any.", default=())
    required_claims: tuple[str, ...] = setting(ListKind(_URI), "Claims that a token must have.", default=())
    leeway_secs: int = setting(
        Integer(maximum=3600, unit="seconds"), "How far the clocks of issuer and gateway may be apart.", default=60
    )
    require_expiry: bool = setting(FLAG, "Whether a token without `exp` is refused.", default=True)
    forward_claims: FrozenMap[str, Union[str, Secret]] = setting(
        _CLAIMS_BY_HEADER,
        "Headers that tell servers a claim each; dots lead into nested claims, lists are joined by commas.",
        default=FrozenMap(),
    )
    remove_token: bool = setting(FLAG, "Whether servers do not get to see the token.", default=False)

    def advice(self) -> Iterator[tuple[str, str]]:
        """
        Give what is allowed but unwise, by attribute.
        """
        if self.value is not None and len(self.value.reveal().encode("utf-8", "surrogatepass")) < _SHORTEST_HS256_SECRET:
            yield "value", f"has fewer than {_SHORTEST_HS256_SECRET} bytes, which makes HS256 tokens easier to forge"


@implementer(IRequestHook, IIdentitySource, IRetirable)
class Jwt:
    """
    Verifies tokens; where the keys are fetched, the first requests wait for them.
    """

    def __init__(self, config: JwtConfig, surroundings: Surroundings) -> None:
        self._header = config.header.lower().encode("ascii")
        self._cookie = None if config.cookie is None else config.cookie.encode("ascii")
        self._query = None if config.query is None else config.query.encode("utf-8")
        self._removes = config.remove_token
        self._now = surroundings.wall_clock
        self._forwarded = [(name.encode("ascii"), reveal(path)) for name, path in config.forward_claims.items()]
        self.identity_fields = frozenset([_SUBJECT.lower(), *(name.lower() for name, _ in self._forwarded)])
        rules = TokenRules(
            algorithms=frozenset(config.algorithms),
            issuers=frozenset(config.issuers),
            audiences=frozenset(config.audiences),
            required_claims=config.required_claims,
            leeway=float(config.leeway_secs),
            requires_expiry=config.require_expiry,
        )
        self._verifier = TokenVerifier(_keys_of(config), rules)
        self._keys: KeySet | None = None
        if config.jwks_url is None:
            if not self._verifier.keys:
                raise MiddlewareError("algorithms", "names none that the key is for")
        else:
            timeout = config.jwks_timeout_ms / 1000
            self._keys = KeySet(
                config.jwks_url, surroundings, float(config.jwks_refresh_secs), timeout, self._verifier.replace_keys
            )

    def on_request(self, exchange: Exchange) -> LocalResponse | Deferred[LocalResponse | None] | None:
        """
        Let a request with a good token pass.
        """
        head = exchange.head
        assert head is not None
        if self._keys is not None:
            if not self._keys.has_keys:
                return self._keys.wait().addCallback(self._with_keys, head)
            self._keys.begin()
        return self._judge(head, may_wait=True)

    def _with_keys(self, ignored: None, head: RequestHead) -> LocalResponse | None:
        assert self._keys is not None
        if not self._keys.has_keys:
            return refusal(Outcome.KEYS_UNAVAILABLE, head.request_id)
        answer = self._judge(head, may_wait=False)
        assert not isinstance(answer, Deferred)
        return answer

    def _judge(self, head: RequestHead, *, may_wait: bool) -> LocalResponse | Deferred[LocalResponse | None] | None:
        tokens = self._tokens_in(head)
        if not tokens:
            return self._refuse(head, None, "Missing token")
        if len(tokens) > 1:
            return self._refuse(head, TokenRefused.MALFORMED, "More than one token")
        claims = self._verifier.verify(tokens[0], self._now())
        if isinstance(claims, TokenRefused):
            if claims is TokenRefused.KEY_UNKNOWN and may_wait and self._keys is not None and self._keys.key_unknown():
                # The issuer may have changed its keys a moment ago.
                return self._keys.wait_for_fetch().addCallback(self._with_keys, head)
            return self._refuse(head, claims, "Invalid token")
        self._pass_on(head, claims)
        return None

    def _tokens_in(self, head: RequestHead) -> list[bytes]:
        """
        Return the tokens from the first place that has any.
        """
        given = get_all_fields(head.fields, self._header)
        found = [token for value in given if (token := read_bearer(value)) is not None]
        if not found and self._cookie is not None:
            found = read_cookie(head.fields, self._cookie)
        if not found and self._query is not None:
            found = query_value(head.query, self._query)
        return found

    def _pass_on(self, head: RequestHead, claims: Mapping[str, Any]) -> None:
        if self._removes:
            remove_fields(head.fields, self._header)
            if self._cookie is not None:
                remove_cookie(head.fields, self._cookie)
            if self._query is not None:
                without_parameter(head, self._query)
        subject = claim_text(claims, "sub")
        if subject:
            head.fields.append(make_field(_SUBJECT, subject))
        for name, path in self._forwarded:
            text = claim_text(claims, path)
            if text is not None:
                head.fields.append(make_field(name, text))

    def _refuse(self, head: RequestHead, reason: TokenRefused | None, message: str) -> LocalResponse:
        # RFC 6750 section 3: who brought nothing is told no error.
        challenge = "Bearer" if reason is None else f'Bearer error="invalid_token", error_description="{reason.value}"'
        return refusal(Outcome.TOKEN_REFUSED, head.request_id, [make_field(b"WWW-Authenticate", challenge.encode("ascii"))], message)

    def retire(self) -> None:
        """
        Stop fetching keys.
        """
        if self._keys is not None:
            self._keys.close()


def _keys_of(config: JwtConfig) -> list[Key]:
    if config.value is not None:
        return _key("value", secret_key, config.value.reveal().encode("utf-8", "surrogatepass"))
    if config.value_file is not None:
        secret = _read("value_file", config.value_file).rstrip(b"\r\n")
        if not secret:
            raise MiddlewareError("value_file", "is empty")
        return _key("value_file", secret_key, secret)
    if config.public_key_file is not None:
        return _key("public_key_file", public_key, _read("public_key_file", config.public_key_file))
    return []


def _key(attribute: str, read: Callable[[bytes], Key], data: bytes) -> list[Key]:
    try:
        return [read(data)]
    except ValueError as error:
        raise MiddlewareError(attribute, str(error)) from None


def _read(key: str, path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise MiddlewareError(key, f"cannot be read: {error.strerror}") from None


factory = MiddlewareFactory(JwtConfig, Jwt)
