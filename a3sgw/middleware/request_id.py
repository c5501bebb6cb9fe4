"""
`request-id`: name each request, for the server, the client and the logs.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FLAG, HEADER_NAME, Word
from a3sgw.config.setting import label, setting
from a3sgw.config.wording import quote
from a3sgw.interfaces import IRequestHook, IResponseHook
from a3sgw.message import ResponseHead, get_field, make_field, set_field
from a3sgw.middleware.chain import without_identity
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.wire.fields import PLAIN, REQUEST_ID, REQUEST_KINDS, RESPONSE_KINDS
from a3sgw.wire.request_id import is_own, is_usable, new_request_id, ulid, uuid4, uuid7

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["RequestId", "RequestIdConfig", "factory"]

_USUAL: Final = b"x-request-id"
_TAKEN: Final = frozenset([b"authorization", b"content-type", b"cookie", b"date", b"location", b"set-cookie", b"via"])


@attrs.frozen(kw_only=True)
class RequestIdConfig:
    """
    Name each request, for the server, the client and the logs.

    Every request has an identifier, with or without this middleware: servers find it in `X-Request-Id`, and it stands in the access log
    and in the gateway's errors. This middleware decides whether a client's own is kept, what a new one looks like, in which header it
    stands, and whether the client gets to know it.

    A client's identifier is kept if it is a token of at most 128 characters. With another `header` than `X-Request-Id`, that header is
    where a client's identifier is looked for first; servers get the identifier under both names.
    """

    type: ClassVar[str] = "request-id"
    example: ClassVar[str] = """
        middlewares "correlation" {
          type         = "request-id"
          header       = "X-Correlation-Id"
          trust_client = false
          generator    = "uuid7"
        }
        """

    name: str = label()
    header: str = setting(HEADER_NAME, "Where the identifier stands, in requests and responses.", default="X-Request-Id")
    trust_client: bool = setting(FLAG, "Keep the identifier that a client sends.", default=True)
    generator: str = setting(
        Word(("hex", "uuid4", "uuid7", "ulid")),
        "What a new one looks like: 22 hexadecimal digits, a random UUID, or a UUID or ULID that sorts by time.",
        default="hex",
    )
    response: bool = setting(FLAG, "Send it to the client too.", default=True)

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Find a header that means something else.
        """
        name = self.header.lower().replace("_", "-").encode("ascii")
        kinds = {REQUEST_KINDS.get(name, PLAIN), RESPONSE_KINDS.get(name, PLAIN)}
        if kinds - {PLAIN, REQUEST_ID} or name in _TAKEN or (name == _USUAL and "_" in self.header):
            yield "header", f'puts the identifier in {quote(self.header)}, which means something else; write a name like "X-Correlation-Id"'


def _make_generator(name: str, surroundings: Surroundings) -> Callable[[], bytes]:
    bits = surroundings.chance.getrandbits
    wall_clock = surroundings.wall_clock
    generators: dict[str, Callable[[], bytes]] = {
        "hex": new_request_id,
        "uuid4": lambda: uuid4(bits(128)),
        "uuid7": lambda: uuid7(int(wall_clock() * 1000), bits(128)),
        "ulid": lambda: ulid(int(wall_clock() * 1000), bits(128)),
    }
    return generators[name]


@implementer(IRequestHook, IResponseHook)
class RequestId:
    """
    The naming of one router's or entrypoint's requests.
    """

    def __init__(self, config: RequestIdConfig, surroundings: Surroundings) -> None:
        self._header = config.header.encode("ascii")
        self._lower = self._header.lower()
        self._spellings = frozenset([self._lower.replace(b"_", b"-")])
        self._is_usual = self._lower == _USUAL
        self._trusts_client = config.trust_client
        self._is_hex = config.generator == "hex"
        self._generate = _make_generator(config.generator, surroundings)
        self._tells_client = config.response

    def on_request(self, exchange: Exchange) -> None:
        """
        Find or make the identifier.
        """
        head = exchange.head
        assert head is not None
        sent = None if self._is_usual or not self._trusts_client else get_field(head.fields, self._lower)
        if sent is not None and is_usable(sent):
            head.request_id = sent
        elif not self._trusts_client or (is_own(head.request_id) and not self._is_hex):
            # What looks like our own may still be an untrusted client's.
            head.request_id = self._generate()
        if not self._is_usual:
            head.fields = without_identity(head.fields, self._spellings)
            head.fields.append(make_field(self._header, head.request_id))

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Tell the client, in the place of whatever the server says.
        """
        if self._tells_client:
            assert exchange.head is not None
            set_field(head.fields, self._header, exchange.head.request_id)


factory = MiddlewareFactory(RequestIdConfig, RequestId)
