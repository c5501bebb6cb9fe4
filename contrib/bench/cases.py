"""
What is asked of every candidate: the cases, their requests, and what a right answer looks like.

A case is written down twice, as a Lua script for `wrk` and as a `Request` made in Python for the checks; both come from the same parts,
so what is checked is what is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["CASES", "HOST", "LARGE_BODY", "SMALL_BODY", "Case", "Request", "route_host", "varied_requests"]

HOST = "bench.test"
"""The host of every case without routes of its own."""

SMALL_BODY = b'{"id":4711,"name":"a small answer of the kind an API gives","tags":["bench","json"],"price":"12.50"}'.ljust(119) + b"\n"
LARGE_BODY = bytes(range(32, 96)) * 1024
POST_BODY = b"0123456789abcdef" * 640

_BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br",
    "X-Requested-With": "XMLHttpRequest",
}

# Park and Miller's generator: its products stay below 2**53, where Lua's numbers are exact. A different start for each run, so that nothing
# remembered from the last one helps.
_LUA_RANDOM = "local x = os.time() % 2147483646 + 1\nlocal function draw() x = x * 16807 % 2147483647; return x end\n"

SCRIPT_END = """
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\nbench {"duration_us":%d,"requests":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,' ..
    '"timeout":%d,"status":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.duration, summary.requests, summary.bytes, errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Request:
    """
    One request as the checks send it. `headers` do not name the host and the length.
    """

    method: str
    target: str
    host: str
    headers: dict[str, str]
    body: bytes = b""

    def encode(self, **more: str) -> bytes:
        """
        Return the bytes of the request, with `more` headers (underscores stand for hyphens) at its end.
        """
        headers = {"Host": self.host, **self.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Case:
    """
    One case. `make(number)` gives a request, `script` is the same for `wrk`; `routes` is the number of host routes the candidates must have
    (0: the one of `HOST`); `paced` cases are asked at a fixed rate by the prober instead of `wrk`. `tls` cases come over TLS, `h2` ones
    over HTTP/2 from `h2load`, which the checks do not speak.
    """

    name: str
    meaning: str
    make: Callable[[int], Request]
    script: str
    answer: bytes = SMALL_BODY
    routes: int = 0
    paced: bool = False
    tls: bool = False
    h2: bool = False


def route_host(number: int) -> str:
    """
    Return the name of one of the hosts in the cases with many routes.
    """
    return f"h{number}.shop.bench.test"


def _fixed(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> tuple[Callable[[int], Request], str]:
    request = Request(method, target, HOST, {**_BROWSER, **headers}, body)
    # wrk serialises such a request once, and so spends the least on it.
    lines = [f"wrk.method = {json.dumps(method)}", f"wrk.path = {json.dumps(target)}"]
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in {"Host": HOST, **request.headers}.items()]
    if body:
        lines.append(f"wrk.body = {json.dumps(body.decode('ascii'))}")
    return lambda number: request, "\n".join([*lines, SCRIPT_END])


def varied_requests(more: Mapping[str, str]) -> tuple[Callable[[int], Request], str]:
    """
    Return a function that makes requests which differ in path, query and cookie, all with `more` headers, and the same as a script.
    """
    common = {**_BROWSER, **more}

    def make(number: int) -> Request:
        cookie = f"session=s{number * 7919}; theme=dark"
        return Request("GET", f"/shop/item/{number}?page={number % 97}&q=n{number}", HOST, {**common, "Cookie": cookie})

    tail = Request("GET", "", HOST, common).encode().decode().partition(" HTTP/1.1")[2].removesuffix("\r\n")
    script = (
        f"{_LUA_RANDOM}local tail = {json.dumps(' HTTP/1.1' + tail)}\n"
        "function request()\n"
        "  local n = draw()\n"
        '  return "GET /shop/item/" .. n .. "?page=" .. n % 97 .. "&q=n" .. n .. tail .. "Cookie: session=s" .. draw() .. '
        '"; theme=dark\\r\\n\\r\\n"\n'
        "end\n"
    )
    return make, script + SCRIPT_END


def _routes(count: int) -> tuple[Callable[[int], Request], str]:
    def make(number: int) -> Request:
        return Request("GET", f"/shop/item/{number}", route_host(number * 7919 % count), _BROWSER)

    head = "".join(f"{name}: {value}\r\n" for name, value in _BROWSER.items())
    before, after = route_host(0).split("0", 1)
    tail = json.dumps(after + "\r\n" + head + "\r\n")
    script = (
        f"{_LUA_RANDOM}local tail = {tail}\n"
        "function request()\n"
        f'  return "GET /shop/item/" .. draw() .. " HTTP/1.1\\r\\nHost: {before}" .. draw() % {count} .. tail\n'
        "end\n"
    )
    return make, script + SCRIPT_END


CASES = {
    case.name: case
    for case in (
        Case("same", "the same small request again and again", *_fixed("GET", "/shop/item/1?page=1", {"Cookie": "session=s1; theme=dark"})),
        Case("varied", "path, query and cookie differ in every request, a header in every response", *varied_requests({})),
        Case("64k", "responses of 64 KiB", *_fixed("GET", "/static/64k.bin", {}), answer=LARGE_BODY),
        Case("post10k", "requests with a body of 10 KiB, read whole by the upstream", *_fixed("POST", "/post", {}, POST_BODY)),
        Case("newconn", "a new client connection for every request", *_fixed("GET", "/shop/item/1?page=1", {"Connection": "close"})),
        Case("paced", "latency of varied requests at a fixed rate, below what any candidate can do", *varied_requests({}), paced=True),
        Case("https", "varied requests over TLS, connections kept", *varied_requests({}), tls=True),
        Case(
            "handshake",
            "a new TLS connection for every request",
            *_fixed("GET", "/shop/item/1?page=1", {"Connection": "close"}),
            tls=True,
        ),
        Case("h2", "varied requests over HTTP/2 and TLS, 8 at a time on each connection", *varied_requests({}), tls=True, h2=True),
        Case("routes1000", "1,000 host routes, the requests spread over them", *_routes(1000), routes=1000),
        Case("routes10000", "10,000 host routes, the requests spread over them", *_routes(10000), routes=10000),
    )
}
