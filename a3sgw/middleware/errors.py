"""
`errors`: show pages of one's own in place of errors.

The status stays, and so do fields that are about the error (`WWW-Authenticate`, `Retry-After`, `Set-Cookie`, what `cors` has added); only
what describes the content goes with it. If a page cannot be had, the error is passed on as it is: a page must never make an error worse.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from os.path import splitext
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import quote

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from a3sgw.config.kinds import FILE, NAME, STATUS_RANGE, Integer, Text, parse_status_range
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.errors import MiddlewareError, UpstreamError
from a3sgw.interfaces import IDestination, IResponseHook, IRetirable
from a3sgw.message import Field, LocalResponse, ResponseHead, make_field
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Errors", "ErrorsConfig", "factory"]

_HTML: Final = "text/html; charset=utf-8"
_TYPES: Final = {
    ".html": _HTML,
    ".htm": _HTML,
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".xml": "application/xml",
}
_DEFAULT_QUERY: Final = "/{status}.html"
_DEFAULT_TIMEOUT_MS: Final = 5000
_DEFAULT_PAGE_BYTES: Final = 1 << 20

_QUERY: Final = re.compile(r"/[!-~]*", re.ASCII)
_BRACES: Final = re.compile(r"\{([^{}]*)\}|[{}]")
_QUERY_WORDS: Final = ("status", "url")
_PAGE_WORDS: Final = re.compile(rb"\{(status|request_id)\}")

# What describes the content that is replaced, or the message it came in (RFC 9110 sections 8 and 14, RFC 9530).
_OF_CONTENT: Final = frozenset(
    [
        b"accept-ranges",
        b"content-digest",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"date",
        b"digest",
        b"etag",
        b"last-modified",
        b"repr-digest",
        b"trailer",
    ]
)
_FROM_PAGES: Final = frozenset([b"content-encoding", b"content-language", b"content-type", b"vary"])
_PASSED_ON: Final = frozenset([b"accept", b"accept-language"])
# The client may understand less than the gateway; and what comes back may be compressed on the way out.
_PLAIN: Final = make_field(b"Accept-Encoding", b"identity")


def _check_query(text: str) -> str:
    if _QUERY.fullmatch(text) is None or "#" in text:
        raise ValueError('which does not begin with "/", or holds a blank or "#"')
    for match in _BRACES.finditer(text):
        if match[1] not in _QUERY_WORDS:
            raise ValueError("which has a brace that is no part of a placeholder; there are {status} and {url}")
    return text


def _check_type(text: str) -> str:
    if not text.isascii() or not text.isprintable() or "/" not in text:
        raise ValueError('which is none; write one like "text/html; charset=utf-8"')
    return text


@attrs.frozen(kw_only=True)
class ErrorsConfig:
    """
    Show pages of one's own in place of errors, those of servers and those that the gateway makes for requests on their way through a
    router. The status stays the same. Give one of `service`, `file` and `body`.

    List it before the middlewares whose refusals it shall replace. If a service does not answer a page in time, or not with a status in the
    200s or the error's own, the error is passed on as it is. In a file or a body, `{status}` and `{request_id}` are filled in.
    """

    type: ClassVar[str] = "errors"
    one_of: ClassVar[tuple[str, ...]] = ("service", "file", "body")
    names: ClassVar[Mapping[str, str]] = {"service": "service"}
    example: ClassVar[str] = """
        middlewares "pages" {
          type    = "errors"
          status  = ["404", "500-599"]
          service = "error-pages"
          query   = "/{status}.html"
        }
        """

    name: str = label()
    status: tuple[str, ...] = setting(ListKind(STATUS_RANGE, min_items=1), "Which errors, of those from 400 to 599.")
    service: str | None = setting(NAME, "Who has the pages.", default=None)
    query: str | None = setting(
        Text('a path like "/{status}.html"', _check_query),
        f'Where it has them. `{{status}}` is filled in, and `{{url}}`, what the client asked for; without it, `"{_DEFAULT_QUERY}"`.',
        default=None,
    )
    file: str | None = setting(FILE, "A file that holds the page; a reload takes up what has changed in it.", default=None)
    body: str | None = setting(Text("the text of a page"), "The page itself.", default=None)
    content_type: str | None = setting(
        Text("a media type", _check_type),
        "What a file or a body is; without it, what the end of the file's name says, or else HTML.",
        default=None,
    )
    timeout_ms: int | None = setting(
        Integer(minimum=1, maximum=60_000, unit="milliseconds"),
        f"How long to wait for the service; without it, {_DEFAULT_TIMEOUT_MS}.",
        default=None,
    )
    max_page_bytes: int | None = setting(
        Integer(minimum=1, maximum=1 << 30, unit="bytes"), f"The largest page; without it, {_DEFAULT_PAGE_BYTES}.", default=None
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        for text in self.status:
            if parse_status_range(text)[0] < 400:
                yield "status", "replaces what is no error; errors are from 400 to 599"
                break
        if self.service is None:
            for key in ("query", "timeout_ms"):
                if getattr(self, key) is not None:
                    yield key, f"has {key} but no service to ask; remove it"
        elif self.content_type is not None:
            yield "content_type", "has a content_type, but its service says what each page is; remove it"
        if self.body is not None and self.max_page_bytes is not None:
            yield "max_page_bytes", "has max_page_bytes, but its page is written here; remove it"


class _OwnPage:
    """
    A page that is known from the beginning.
    """

    def __init__(self, page: bytes, content_type: str) -> None:
        # Texts, and between each two of them what is filled in.
        self._pieces = _PAGE_WORDS.split(page)
        self._fields = (make_field(b"Content-Type", content_type.encode("ascii")),)

    def replace(self, exchange: Exchange, head: ResponseHead) -> LocalResponse:
        """
        Return the page for the error in `head`.
        """
        pieces = self._pieces
        if len(pieces) > 1:
            assert exchange.head is not None
            words = {b"status": b"%d" % head.status, b"request_id": exchange.head.request_id}
            pieces = [words[piece] if index % 2 else piece for index, piece in enumerate(pieces)]
        return _in_place_of(head, self._fields, b"".join(pieces))


class _FetchedPage:
    """
    A page that a service is asked for.
    """

    _log = Logger()

    def __init__(self, config: ErrorsConfig, destination: IDestination) -> None:
        self._name = config.name
        self._query = (config.query or _DEFAULT_QUERY).encode("ascii")
        self._needs_url = b"{url}" in self._query
        self._timeout = (config.timeout_ms or _DEFAULT_TIMEOUT_MS) / 1000
        self._limit = config.max_page_bytes or _DEFAULT_PAGE_BYTES
        self._destination = destination
        self._is_failing = False

    def replace(self, exchange: Exchange, head: ResponseHead) -> Deferred[LocalResponse | None]:
        """
        Ask for the page for the error in `head`; gives `None` if there is none.
        """
        target = self._query.replace(b"{status}", b"%d" % head.status)
        if self._needs_url:
            target = target.replace(b"{url}", quote(_url_of(exchange), safe="").encode("ascii"))
        asked = self._destination.fetch(b"GET", target, _page_fields(exchange), body=b"", timeout=self._timeout, max_body_bytes=self._limit)

        def came(page: LocalResponse) -> LocalResponse | None:
            if not (200 <= page.status < 300 or page.status == head.status):
                self._has_failed(f"the answer was {page.status}")
                return None
            if self._is_failing:
                self._is_failing = False
                self._log.info("error pages of middleware {name} can be fetched again", name=self._name)
            return _in_place_of(head, [field for field in page.fields if field[0] in _FROM_PAGES], page.body)

        def failed(failure: Failure) -> None:
            failure.trap(UpstreamError)
            self._has_failed(failure.getErrorMessage())

        return asked.addCallbacks(came, failed)

    def _has_failed(self, reason: str) -> None:
        if not self._is_failing:
            # Once, because there may be as many errors as requests.
            self._is_failing = True
            self._log.warn(
                "an error page of middleware {name} cannot be fetched: {reason}; clients get errors as they are",
                name=self._name,
                reason=reason,
            )


def _url_of(exchange: Exchange) -> bytes:
    """
    Return the URL that the client asked for.
    """
    head = exchange.head
    assert head is not None
    target = head.raw_path
    if not target.startswith(b"/"):
        # A whole URL, as clients send it to proxies, or the asterisk.
        return target
    forwarding = exchange.forwarding
    return b"%b://%b%b" % (forwarding.scheme, forwarding.host or head.authority, target)


def _page_fields(exchange: Exchange) -> list[Field]:
    """
    Return what a page may depend on besides its path: what the client can read, and where it thinks it is.
    """
    head = exchange.head
    assert head is not None
    forwarding = exchange.forwarding
    host = forwarding.host or head.authority
    fields = [field for field in head.fields if field[0] in _PASSED_ON]
    fields += [_PLAIN, make_field(b"X-Request-Id", head.request_id), make_field(b"X-Forwarded-Proto", forwarding.scheme)]
    if host:
        fields.append(make_field(b"X-Forwarded-Host", host))
    return fields


def _in_place_of(head: ResponseHead, fields: Sequence[Field], page: bytes) -> LocalResponse:
    """
    Return the error in `head` with `page`, which `fields` describe. It is called what it was called before.
    """
    return LocalResponse(head.status, [*(field for field in head.fields if field[0] not in _OF_CONTENT), *fields], page)


@implementer(IResponseHook, IRetirable)
class Errors:
    """
    The pages of one router or entrypoint.
    """

    def __init__(self, config: ErrorsConfig, surroundings: Surroundings) -> None:
        self._statuses = frozenset(status for text in config.status for status in parse_status_range(text))
        self._destination: IDestination | None = None
        self._page: _OwnPage | _FetchedPage
        if config.service is not None:
            self._destination = surroundings.destination_of(config.service)
            self._page = _FetchedPage(config, self._destination)
        elif config.file is not None:
            page = _read(config.file, config.max_page_bytes or _DEFAULT_PAGE_BYTES)
            self._page = _OwnPage(page, config.content_type or _TYPES.get(splitext(config.file)[1].lower(), _HTML))
        else:
            self._page = _OwnPage((config.body or "").encode(), config.content_type or _HTML)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> LocalResponse | Deferred[LocalResponse | None] | None:
        """
        Put a page in the place of an error.
        """
        return self._page.replace(exchange, head) if head.status in self._statuses else None

    def retire(self) -> None:
        """
        Give up the way to the service.
        """
        if self._destination is not None:
            self._destination.close()


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as stream:
            page = stream.read(limit + 1)
    except OSError as error:
        raise MiddlewareError("file", f"cannot be read: {error.strerror or error}") from error
    if len(page) > limit:
        raise MiddlewareError("file", f"holds more than {limit} bytes; make the page smaller or give max_page_bytes")
    return page


factory = MiddlewareFactory(ErrorsConfig, Errors)
