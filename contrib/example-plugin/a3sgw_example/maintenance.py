"""
`example-maintenance`: a page instead of a site, while the site is being worked on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.address import AddressSet
from a3sgw.config.kinds import FILE, NETWORK, Integer
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.errors import MiddlewareError
from a3sgw.interfaces import IRequestHook, IStateSource
from a3sgw.message import LocalResponse, make_field
from a3sgw.middleware.factory import MiddlewareFactory

if TYPE_CHECKING:
    from a3sgw.middleware.surroundings import Surroundings
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Maintenance", "MaintenanceConfig", "factory"]

_PAGE = b"<!doctype html>\n<title>Back soon</title>\n<h1>Back soon</h1>\n<p>This site is being worked on.</p>\n"


@attrs.frozen(kw_only=True)
class MaintenanceConfig:
    """
    Answer 503 with a page for people, as long as a file exists; some addresses may pass.

    `touch` the file and the site is closed, remove it and it is open again; the gateway need not be told.
    """

    type: ClassVar[str] = "example-maintenance"
    example: ClassVar[str] = """
        middlewares "closed" {
          type        = "example-maintenance"
          file        = "/run/shop/closed"
          page        = "/srv/shop/closed.html"
          allowed_ips = ["192.0.2.0/24"]
        }
        """

    name: str = label()
    file: str = setting(FILE, "While this file exists, the site is closed.")
    page: str | None = setting(FILE, "A file with the page to show, in HTML and UTF-8; without it, a plain one.", default=None)
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK), "Clients that may pass all the same.", default=())
    retry_after_secs: int = setting(Integer(minimum=1, maximum=604_800, unit="seconds"), "When to come back.", default=300)
    check_interval_ms: int = setting(
        Integer(minimum=100, maximum=60_000, unit="milliseconds"), "How old what is known of the file may be.", default=1000
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Find what each attribute alone cannot show: pairs of an attribute and a text that continues `middleware "closed" …`.
        """
        if self.page == self.file:
            yield "page", f'shows the page "{self.page}", whose existence closes the site; name another file'

    def advice(self) -> Iterator[tuple[str, str]]:
        """
        Find what is probably a mistake: pairs of an attribute and a text that continues `middlewares.closed.file …`.
        """
        if not os.path.isabs(self.file):
            yield "file", "is a relative path, and counts from the directory in which the gateway was started"


@implementer(IRequestHook, IStateSource)
class Maintenance:
    """
    The door sign of one router or entrypoint.

    Asking for a file takes some microseconds on a local disk, and much longer on a network's, so it is done once in a while and not for
    each request.
    """

    def __init__(self, config: MaintenanceConfig, surroundings: Surroundings) -> None:
        self._file = config.file
        self._allowed = AddressSet(config.allowed_ips)
        self._page = _PAGE if config.page is None else _read(config.page)
        self._fields = (
            make_field(b"Content-Type", b"text/html; charset=utf-8"),
            make_field(b"Cache-Control", b"no-store"),
            make_field(b"Retry-After", b"%d" % config.retry_after_secs),
        )
        self._interval = config.check_interval_ms / 1000
        self._seconds = surroundings.seconds
        self._checked = float("-inf")
        self._is_closed = False

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Answer with the page if the site is closed for this client.
        """
        now = self._seconds()
        if now - self._checked >= self._interval:
            self._checked = now
            self._is_closed = os.path.exists(self._file)
        head = exchange.head
        assert head is not None
        if not self._is_closed or self._allowed.contains(head.client_packed):
            return None
        return LocalResponse(503, self._fields, self._page)

    def describe(self) -> Mapping[str, str]:
        """
        Tell whether the site is closed.
        """
        return {"site": "closed" if self._is_closed else "open"}


def _read(path: str) -> bytes:
    # At build time, which `validate` is too. A reload builds a new middleware when the content has changed, because the kind is `FILE`.
    try:
        with open(path, "rb") as stream:
            page = stream.read()
        page.decode("utf-8")
    except OSError as error:
        raise MiddlewareError("page", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MiddlewareError("page", "is not text in UTF-8") from None
    return page


factory = MiddlewareFactory(MaintenanceConfig, Maintenance)
