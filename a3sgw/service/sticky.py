"""
Keep clients on the server that answered them first, by a cookie.

The cookie names the server and its revision in a form that only holders of the key can read or make (`a3sgw.policy.sticky`), so nothing
is remembered here, and several gateways with the same key agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from a3sgw.message import Field, RequestHead, ResponseHead, make_field
from a3sgw.policy.sticky import NO_REVISION, Binding, StickySigner, name_revision
from a3sgw.service.backend import Backend
from a3sgw.wire.cookie import read_cookie, set_cookie_value

__all__ = ["CookieSettings", "Stickiness"]


@attrs.frozen(slots=True)
class CookieSettings:
    """
    The cookie's attributes; the names are those of the configuration. `secure` is `None` for "if the client's connection is".
    """

    name: bytes
    ttl: int = 3600
    secure: bool | None = None
    http_only: bool = True
    same_site: str = "lax"
    domain: bytes | None = None


class Stickiness:
    """
    Reads and writes the cookies of one service. `wall_clock` gives seconds since 1970.
    """

    __slots__ = ("_service_name", "_settings", "_signer", "_wall_clock")

    def __init__(self, service_name: str, settings: CookieSettings, keys: Sequence[bytes], wall_clock: Callable[[], float]) -> None:
        self._service_name = service_name
        self._settings = settings
        self._signer = StickySigner(keys, service_name)
        self._wall_clock = wall_clock

    def binding_of(self, head: RequestHead) -> Binding | None:
        """
        Return what the client's cookie says, or `None`. Of several cookies of the name the first good one counts.
        """
        now = self._wall_clock()
        for token in read_cookie(head.fields, self._settings.name):
            binding = self._signer.verify(token, now)
            if binding is not None:
                return binding
        return None

    def bind(self, head: ResponseHead, backend: Backend, binding: Binding | None, scheme: bytes) -> None:
        """
        Bind the client to the backend that answers it, unless it is bound to it for long enough.
        """
        settings = self._settings
        now = self._wall_clock()
        if binding is not None and binding.server == backend.sticky_name and not binding.is_due(now, settings.ttl):
            return
        head.fields.append(self._field(backend, int(now) + settings.ttl, scheme))

    def _field(self, backend: Backend, expires: int, scheme: bytes) -> Field:
        settings = self._settings
        revision = NO_REVISION if backend.revision is None else name_revision(self._service_name, backend.revision)
        value = set_cookie_value(
            settings.name,
            self._signer.sign(backend.sticky_name, revision=revision, expires=expires),
            max_age=settings.ttl,
            domain=settings.domain,
            secure=scheme in (b"https", b"wss") if settings.secure is None else settings.secure,
            http_only=settings.http_only,
            same_site=settings.same_site,
        )
        return make_field(b"Set-Cookie", value)
