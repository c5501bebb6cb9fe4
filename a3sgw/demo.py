"""
Show the gateway at work with nothing else installed: two tiny backends in this process, and a configuration that routes to them.

The backends are plain `twisted.web` on loopback ports the system chooses. This is the only module that uses `twisted.web`; the gateway
itself does not.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

__all__ = ["ADDRESS", "NAMES", "EchoResource", "invitation", "listen_backends", "sample_text"]

ADDRESS = "127.0.0.1:8080"
"""Where the demonstration's gateway listens unless told otherwise."""

NAMES = ("blue", "green")
"""The backends, in the order in which `listen_backends` gives their ports."""

_SAMPLE = """\
# The configuration of `a3s-gateway demo`.

entrypoints "web" {{
  address = "{address}"
}}

# Both backends in turn.
routers "all" {{
  rule    = "PathPrefix(`/`)"
  service = "both"
}}

# A longer rule goes first unless a priority says otherwise.
routers "green" {{
  rule    = "PathPrefix(`/green`) || Host(`green.localhost`)"
  service = "green"
}}

routers "beta" {{
  rule     = "Header(`X-Beta`, `yes`) && Method(`GET`)"
  service  = "blue"
  priority = 100
}}

services "both" {{
  load_balancer {{
    strategy = "round-robin"
    servers  = [{{ url = "http://127.0.0.1:{blue}" }}, {{ url = "http://127.0.0.1:{green}" }}]
  }}
}}

services "blue" {{
  load_balancer {{
    servers = [{{ url = "http://127.0.0.1:{blue}" }}]
  }}
}}

services "green" {{
  load_balancer {{
    servers = [{{ url = "http://127.0.0.1:{green}" }}]
  }}
}}
"""


class EchoResource(Resource):
    """
    Answers every request with JSON that says which backend this is and what reached it.
    """

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name

    def render(self, request: Request) -> bytes:
        """
        Return the answer to `request`, whatever its method.
        """
        seen: dict[str, Any] = {
            "backend": self._name,
            "method": request.method.decode("latin-1"),
            "path": request.uri.decode("latin-1"),
            "headers": {
                name.decode("latin-1"): ", ".join(value.decode("latin-1") for value in values)
                for name, values in sorted(request.requestHeaders.getAllRawHeaders())
            },
        }
        if request.content is not None:
            seen["body_bytes"] = len(request.content.read())
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(b"X-Backend", self._name.encode("ascii"))
        return json.dumps(seen, indent=2).encode("ascii") + b"\n"


def listen_backends(reactor: Any) -> list[int]:
    """
    Open the backends, one for each of `NAMES`, on loopback ports the system chooses; return the ports.
    """
    return [reactor.listenTCP(0, Site(EchoResource(name)), interface="127.0.0.1").getHost().port for name in NAMES]


def sample_text(address: str, ports: list[int]) -> str:
    """
    Return the sample configuration for a gateway at `address` and backends at `ports`.
    """
    blue, green = ports
    return _SAMPLE.format(address=address, blue=blue, green=green)


def invitation(address: str) -> str:
    """
    Return what to try, for a gateway that listens at `address`.
    """
    host, _, port = address.rpartition(":")
    here = f"{'127.0.0.1' if host in ('', '0.0.0.0', '[::]') else host}:{port}"
    return f"""\
The gateway listens on {address}; two backends, blue and green, run beside it. Try, in another terminal:

  curl http://{here}/                                  # blue and green in turn
  curl http://{here}/green/tea                         # by path, always green
  curl -H 'Host: green.localhost' http://{here}/       # by host, always green
  curl -H 'X-Beta: yes' http://{here}/                 # by header, always blue
  curl -i http://{here}/a%2Fb                          # refused: an encoded slash is ambiguous
  curl http://{here}/api/gateway/health                # the gateway's own API
  curl http://{here}/api/gateway/metrics               # Prometheus metrics
  curl http://{here}/api/gateway/config                # what is configured

Its access log follows below, one JSON object a line. Ctrl-C stops it.
"""
