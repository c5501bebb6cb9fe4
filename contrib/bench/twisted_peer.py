"""
A peer: Twisted's own reverse proxy, as its documentation shows it, with an access log and `X-Forwarded-For` as the others have.
"""

from __future__ import annotations

import sys
from typing import TextIO

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import endpoints, reactor  # noqa: E402 - the reactor is chosen first
from twisted.web.proxy import ReverseProxyResource  # noqa: E402
from twisted.web.resource import Resource  # noqa: E402
from twisted.web.server import Request, Site  # noqa: E402


class ForwardingResource(ReverseProxyResource):
    """
    The stock resource, telling the upstream who asked.
    """

    def getChild(self, path: bytes, request: Request) -> Resource:
        child = super().getChild(path, request)  # type: ignore[no-untyped-call]
        return ForwardingResource(child.host, child.port, child.path)  # type: ignore[no-untyped-call]

    def render(self, request: Request) -> int:
        request.requestHeaders.addRawHeader(b"X-Forwarded-For", request.getClientAddress().host.encode())
        return super().render(request)  # type: ignore[no-any-return,no-untyped-call]


class LoggingSite(Site):
    """
    The stock site with a plain, buffered access log: the stock one is sent to the kernel line by line and renamed every megabyte.
    """

    def _openLogFile(self, path: str | bytes) -> TextIO:
        return open(path, "a", 8192)


def main() -> None:
    port, upstream_port, log = sys.argv[1:]
    resource = ForwardingResource("127.0.0.1", int(upstream_port), b"")  # type: ignore[no-untyped-call]
    site = LoggingSite(resource, logPath=log)  # type: ignore[no-untyped-call]
    endpoints.TCP4ServerEndpoint(reactor, int(port), 4096, "127.0.0.1").listen(site)
    reactor.run()


if __name__ == "__main__":
    main()
