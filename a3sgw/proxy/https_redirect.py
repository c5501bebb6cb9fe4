"""
Send everybody who comes over plain HTTP to the entrypoint with TLS.

It stands where the gateway's own API does, before routing: a redirecting entrypoint needs no routers, and no router is in the way.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from a3sgw.errors import Outcome
from a3sgw.message import LocalResponse, RequestHead, make_field
from a3sgw.proxy.entrypoint import AdminGate
from a3sgw.refusal import refusal

__all__ = ["HttpsRedirect"]


class HttpsRedirect:
    """
    Takes the place of the gate to the gateway's own API, and keeps that gate: what `admin` admits is still answered by it.

    `port` is where TLS is spoken. The answer is 301 for GET and HEAD, else 308, so that a POST stays one (RFC 9110 section 15.4).
    """

    __slots__ = ("_admin", "_is_for_admin", "_port")

    prefix: Final = b""

    def __init__(self, port: int, admin: AdminGate | None) -> None:
        self._admin = admin
        self._is_for_admin = False
        self._port = b"" if port == 443 else b":%d" % port

    def admits(self, head: RequestHead, *, is_forwarded: bool) -> bool:
        """
        Take every request. `ask` follows at once.
        """
        admin = self._admin
        self._is_for_admin = (
            admin is not None and head.path.startswith(admin.prefix) and admin.admits(head, is_forwarded=is_forwarded)
        )
        return True

    def ask(self, head: RequestHead) -> LocalResponse | Deferred[LocalResponse]:
        """
        Send the client on, to what it asked for.
        """
        if self._is_for_admin:
            assert self._admin is not None
            return self._admin.ask(head)
        if not head.host:
            return refusal(Outcome.HOST_MISSING, head.request_id)
        # An absolute form and `*` have no path to repeat.
        target = head.raw_path if head.raw_path[0] == 47 else head.target if head.target[0] == 47 else b"/"
        status = 301 if head.method in (b"GET", b"HEAD") else 308
        location = make_field(b"Location", b"https://%b%b%b" % (head.host, self._port, target))
        return LocalResponse(status, [location], b"", Outcome.REDIRECTED)
