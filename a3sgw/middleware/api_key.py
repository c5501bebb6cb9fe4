"""
`api-key`: let through only requests that bear one of some keys.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import COOKIE_NAME, FILE, FLAG, HEADER_NAME, NAME, SECRET
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.config.values import Secret
from a3sgw.errors import MiddlewareError, Outcome
from a3sgw.interfaces import IRequestHook
from a3sgw.message import LocalResponse, get_all_fields, remove_fields
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.parameters import query_value, without_parameter
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.refusal import refusal
from a3sgw.wire.cookie import read_cookie, remove_cookie

if TYPE_CHECKING:
    from a3sgw.message import RequestHead
    from a3sgw.proxy.exchange import Exchange

__all__ = ["ApiKey", "ApiKeyConfig", "factory"]


@attrs.frozen(kw_only=True)
class ApiKeyConfig:
    """
    Let through only requests that bear one of some keys; others are answered 401. Give `keys` or `keys_file`.
    """

    type: ClassVar[str] = "api-key"
    one_of: ClassVar[tuple[str, ...]] = ("keys", "keys_file")
    example: ClassVar[str] = """
        middlewares "partners" {
          type   = "api-key"
          header = "X-Partner-Key"
          keys   = ["${PARTNER_A}", "${PARTNER_B}"]
        }
        """

    name: str = label()
    header: str = setting(HEADER_NAME, "The header that bears the key.", default="X-API-Key")
    cookie: str | None = setting(COOKIE_NAME, "A cookie that may bear it instead.", default=None)
    query: str | None = setting(
        NAME, "A query parameter that may bear it instead; mind that URLs end up in logs and histories.", default=None
    )
    keys: tuple[Secret, ...] = setting(ListKind(SECRET, min_items=1), "The keys.", default=())
    keys_file: str | None = setting(
        FILE, "A file with one key on each line; empty lines and those that begin with `#` do not count.", default=None
    )
    remove_key: bool = setting(FLAG, "Whether servers do not get to see the key.", default=False)


@implementer(IRequestHook)
class ApiKey:
    """
    Compares keyed digests, so that the time an answer takes tells nothing about the keys, however many there are.
    """

    def __init__(self, config: ApiKeyConfig, surroundings: Surroundings) -> None:
        self._header = config.header.lower().encode("ascii")
        self._cookie = None if config.cookie is None else config.cookie.encode("ascii")
        self._query = None if config.query is None else config.query.encode("utf-8")
        self._removes = config.remove_key
        self._salt = os.urandom(32)
        keys = [key.reveal() for key in config.keys] if config.keys_file is None else _read_keys(config.keys_file)
        self._digests = frozenset(self._digest(key.encode("utf-8", "surrogatepass")) for key in keys)

    def _digest(self, key: bytes) -> bytes:
        return hmac.digest(self._salt, key, hashlib.sha256)

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Let a request with a key pass.
        """
        head = exchange.head
        assert head is not None
        given = self._keys_in(head)
        # A set of digests under a key that nobody knows: how it compares them says nothing about the keys.
        if len(given) != 1 or self._digest(given[0]) not in self._digests:
            return refusal(Outcome.API_KEY_REFUSED, head.request_id)
        if self._removes:
            self._remove(head)
        return None

    def _keys_in(self, head: RequestHead) -> list[bytes]:
        """
        Return the keys that a request bears, from the first place that has any; more than one is nobody's way to ask.
        """
        given = get_all_fields(head.fields, self._header)
        if not given and self._cookie is not None:
            given = read_cookie(head.fields, self._cookie)
        if not given and self._query is not None:
            given = query_value(head.query, self._query)
        return given

    def _remove(self, head: RequestHead) -> None:
        remove_fields(head.fields, self._header)
        if self._cookie is not None:
            remove_cookie(head.fields, self._cookie)
        if self._query is not None:
            without_parameter(head, self._query)


def _read_keys(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            lines = [line.strip() for line in stream]
    except OSError as error:
        raise MiddlewareError("keys_file", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MiddlewareError("keys_file", "is not text in UTF-8") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise MiddlewareError("keys_file", "has no key in it")
    return keys


factory = MiddlewareFactory(ApiKeyConfig, ApiKey)
