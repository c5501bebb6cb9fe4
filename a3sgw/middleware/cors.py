"""
`cors`: tell browsers which other sites may use these resources.

Cross-origin resource sharing as in the Fetch standard, section 3.2. Browsers enforce it, so a request from a site that is not allowed is
served like any other unless it is a preflight; what is missing then is the permission to read the answer. Everything that can be said is
formatted when the middleware is built; only the origin is the request's own.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FLAG, HEADER_NAME, METHOD, Integer, Text
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import IRequestHook, IResponseHook
from a3sgw.message import Field, LocalResponse, RequestHead, ResponseHead, get_all_fields, get_field, make_field
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.origin import OriginSet, read_origin
from a3sgw.middleware.pattern import PATTERN
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.refusal import refusal
from a3sgw.wire.fields import ONLY_TOKEN
from a3sgw.wire.vary import add_vary

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Cors", "CorsConfig", "factory"]


def _check_origin(text: str) -> str:
    if text not in ("*", "null"):
        read_origin(text)
    return text


def _check_star_or_header(text: str) -> str:
    return text if text == "*" else str(HEADER_NAME.read(text, False))


_ORIGIN: Final = Text('an origin like "https://app.example.com", or "*"', _check_origin)
_HEADER_OR_STAR: Final = Text('a header name, or "*"', _check_star_or_header)
_STRANGERS: Final = (b"https://stranger.invalid", b"http://stranger.invalid")
"""No configuration means these sites, so one that lets them in lets everybody in."""


@attrs.frozen(kw_only=True)
class CorsConfig:
    """
    Tell browsers which other sites may use these resources.

    List it before middlewares that authenticate: browsers send preflights without credentials. A preflight (`OPTIONS` with `Origin` and
    `Access-Control-Request-Method`) is answered here, 204, or 403 for a site that is not allowed; any other `OPTIONS` goes to the server.
    What servers say in `Access-Control-…` is replaced, on errors too. An allowed site is named back to itself and to nobody else, with
    `Vary: Origin` for caches.

    Without `allowed_origins` and `allowed_origin_patterns`, every site is allowed. An origin is a scheme and a host, with a port unless it
    is the scheme's own. `https://*.example.com` is every site one label below `example.com`, as in rules and certificates, and not
    `example.com` itself; `http://localhost:*` is any port. A pattern is RE2's and has to match the whole origin. `null`, which pages
    without a site of their own send, has to be named.

    With `allow_credentials`, browsers may send cookies and other credentials, and sites act in the name of their visitors. So sites have to
    be named then: `*`, `null` and patterns that every site matches are refused. A `*` among methods or headers stands for whatever a
    preflight asks for, and only that is named in the answer; so it works with credentials and covers `Authorization`.
    """

    type: ClassVar[str] = "cors"
    example: ClassVar[str] = """
        middlewares "for-our-pages" {
          type              = "cors"
          allowed_origins   = ["https://app.example.com", "https://*.preview.example.com", "http://localhost:*"]
          allowed_methods   = ["GET", "POST", "PATCH"]
          allowed_headers   = ["*"]
          exposed_headers   = ["X-Request-Id"]
          allow_credentials = true
          max_age           = 600
        }
        """

    name: str = label()
    allowed_origins: tuple[str, ...] = setting(
        ListKind(_ORIGIN, min_items=1), "The sites; `*` is every site, and so is leaving it out.", default=()
    )
    allowed_origin_patterns: tuple[str, ...] = setting(ListKind(PATTERN), "More sites, as patterns of whole origins.", default=())
    allowed_methods: tuple[str, ...] = setting(
        ListKind(METHOD), "What they may do; `*` is whatever they ask for.", default=("GET", "POST", "PUT", "DELETE", "OPTIONS")
    )
    allowed_headers: tuple[str, ...] = setting(
        ListKind(_HEADER_OR_STAR), "Which headers they may send; `*` is whatever they ask for.", default=("Content-Type", "Authorization")
    )
    exposed_headers: tuple[str, ...] = setting(
        ListKind(_HEADER_OR_STAR), "Which headers of responses they may read, besides the harmless ones.", default=()
    )
    allow_credentials: bool = setting(FLAG, "Whether they may send cookies and other credentials.", default=False)
    allow_private_network: bool = setting(FLAG, "Whether public sites may reach into the private network where this is.", default=False)
    max_age: int = setting(Integer(maximum=366 * 86400, unit="seconds"), "How long browsers may remember this.", default=86400)

    @property
    def is_for_all(self) -> bool:
        """
        Whether every site is allowed.
        """
        return "*" in self.allowed_origins or not (self.allowed_origins or self.allowed_origin_patterns)

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Find what would let every site act in the name of its visitors.
        """
        if not self.allow_credentials:
            return
        if self.is_for_all:
            yield (
                "allow_credentials",
                "allows credentials to every site, so any of them could act in the name of its visitors; name the sites in allowed_origins",
            )
        elif "null" in self.allowed_origins:
            yield "allowed_origins", 'allows credentials to "null", which every site can be if it likes; leave "null" out'
        else:
            for index, pattern in enumerate(self.allowed_origin_patterns):
                if any(stranger in OriginSet((), (pattern,)) for stranger in _STRANGERS):
                    yield f"allowed_origin_patterns[{index}]", "allows credentials to every site, because each matches this pattern"
        if "*" in self.exposed_headers:
            yield "exposed_headers", 'exposes "*", which browsers take for a header\'s name when credentials are allowed; name the headers'

    def advice(self) -> Iterator[tuple[str, str]]:
        """
        Find sites that are named beside every site.
        """
        if "*" in self.allowed_origins and (len(self.allowed_origins) > 1 or self.allowed_origin_patterns):
            yield "allowed_origins", 'holds "*", which is every site, so naming others changes nothing'


_EVERY_SITE: Final = make_field(b"Access-Control-Allow-Origin", b"*")
_CREDENTIALS: Final = make_field(b"Access-Control-Allow-Credentials", b"true")
_PRIVATE_NETWORK: Final = make_field(b"Access-Control-Allow-Private-Network", b"true")
_OURS: Final = frozenset(
    b"access-control-" + name
    for name in (
        b"allow-credentials",
        b"allow-headers",
        b"allow-methods",
        b"allow-origin",
        b"allow-private-network",
        b"expose-headers",
        b"max-age",
    )
)

_CONCERNED: Final = _OURS | {b"vary"}
_VARY: Final = make_field(b"Vary", b"Origin")


def _listed(name: bytes, values: Iterable[str]) -> list[Field]:
    """
    Return the field that lists `values`, if there are any.
    """
    joined = ", ".join(values).encode("ascii")
    return [make_field(name, joined)] if joined else []


@implementer(IRequestHook, IResponseHook)
class Cors:
    """
    The policy of one router or entrypoint. `_origins` is `None` if every site is allowed.

    What an exchange's origin was is kept for its response, because a middleware further inside may take the header away.
    """

    def __init__(self, config: CorsConfig, surroundings: Surroundings) -> None:
        self._origins = None if config.is_for_all else OriginSet(config.allowed_origins, config.allowed_origin_patterns)
        self._allows_any_method = "*" in config.allowed_methods
        self._allows_any_header = "*" in config.allowed_headers
        self._allows_private_network = config.allow_private_network
        credentials = [_CREDENTIALS] if config.allow_credentials else []
        self._on_responses = [*credentials, *_listed(b"Access-Control-Expose-Headers", config.exposed_headers)]
        methods = [] if self._allows_any_method else [method.upper() for method in config.allowed_methods]
        headers = [] if self._allows_any_header else config.allowed_headers
        self._on_preflights = [
            *credentials,
            *_listed(b"Access-Control-Allow-Methods", methods),
            *_listed(b"Access-Control-Allow-Headers", headers),
            make_field(b"Access-Control-Max-Age", b"%d" % config.max_age),
        ]
        # Whether an OPTIONS is a preflight at all depends on the first two.
        varying = ["Origin", "Access-Control-Request-Method"]
        varying += ["Access-Control-Request-Headers"] if self._allows_any_header else []
        varying += ["Access-Control-Request-Private-Network"] if self._allows_private_network else []
        (self._vary,) = _listed(b"Vary", varying)

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Answer a preflight.
        """
        head = exchange.head
        assert head is not None
        # As `get_field` does, without its call: most requests name no origin.
        for field in head.fields:
            if field[0] == b"origin":
                origin = field[1]
                break
        else:
            return None
        if head.method == b"OPTIONS":
            method = get_field(head.fields, b"access-control-request-method")
            if method is not None:
                return self._answer(head, origin, method)
        if self._origins is not None:
            exchange.notes[self] = origin
        return None

    def _answer(self, head: RequestHead, origin: bytes, method: bytes) -> LocalResponse:
        if self._origins is None:
            site = _EVERY_SITE
        elif origin in self._origins:
            site = make_field(b"Access-Control-Allow-Origin", origin)
        else:
            return refusal(Outcome.ORIGIN_REFUSED, head.request_id, [self._vary])
        fields = [site, *self._on_preflights, self._vary]
        if self._allows_any_method and _is_token(method):
            fields.append(make_field(b"Access-Control-Allow-Methods", method))
        if self._allows_any_header:
            asked = b",".join(get_all_fields(head.fields, b"access-control-request-headers")).split(b",")
            names = [name for name in (part.strip(b" \t") for part in asked) if _is_token(name)]
            if names:
                fields.append(make_field(b"Access-Control-Allow-Headers", b", ".join(names)))
        if self._allows_private_network and get_field(head.fields, b"access-control-request-private-network") == b"true":
            fields.append(_PRIVATE_NETWORK)
        return LocalResponse(204, fields, b"", Outcome.PREFLIGHT)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Say whether the site that asked may read the response.
        """
        fields = head.fields
        origins = self._origins
        # One look at all of them, for the answers in which nothing is to be replaced.
        for field in fields:
            if field[0] in _CONCERNED:
                head.fields = fields = [other for other in fields if other[0] not in _OURS]
                if origins is not None:
                    add_vary(fields, b"Origin")
                break
        else:
            if origins is not None:
                fields.append(_VARY)
        if origins is None:
            fields.append(_EVERY_SITE)
            fields += self._on_responses
            return
        origin = exchange.notes.get(self)
        if origin is not None and origin in origins:
            fields.append(make_field(b"Access-Control-Allow-Origin", origin))
            fields += self._on_responses


def _is_token(text: bytes) -> bool:
    return bool(text) and text.translate(ONLY_TOKEN) == text


factory = MiddlewareFactory(CorsConfig, Cors)
