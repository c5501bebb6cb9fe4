"""
Read addresses: where to listen, which networks are meant, and where a backend lives.

Every function takes configured text and raises `ValueError` with the reason if it cannot be used. A reason never repeats the text, which
may be a secret or come from the environment. Nothing here asks the DNS.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

__all__ = [
    "LISTEN_ANY",
    "ServerAddress",
    "check_host",
    "check_network",
    "http_url",
    "parse_listen_address",
    "parse_server_url",
    "split_http_url",
]

LISTEN_ANY = ""
"""The host of an address that names none, as in `:8080`: every address of the machine."""

_DEFAULT_PORTS: dict[str, int | None] = {
    "http": 80,
    "https": 443,
    "h2c": 80,
    "ws": 80,
    "wss": 443,
    "tcp": None,
    "udp": None,
}
_SCHEMES_WITH_PATH = frozenset({"http", "https", "h2c", "ws", "wss"})

_LABELS = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?", re.ASCII).fullmatch
_NUMBERS_AND_DOTS = re.compile(r"[0-9.]+", re.ASCII).fullmatch
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII).fullmatch

# What may stand in a path as RFC 3986 has it.
_URL_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+", re.ASCII).fullmatch

# The room for a path in a Unix socket address, without the closing NUL.
_LONGEST_SOCKET_PATH = 107


@attrs.frozen
class ServerAddress:
    """
    A backend's URL in its parts.

    `scheme` is `http`, `https`, `h2c`, `ws`, `wss`, `tcp`, `udp`, `unix`, or empty for a bare `host:port`. `host` has no brackets. For
    `unix` the `path` is the socket's and `port` is 0; otherwise it is the prefix of every request path, without a final slash.
    """

    scheme: str
    host: str
    port: int
    path: str


def parse_listen_address(text: str) -> tuple[str, int]:
    """
    Return host and port of `:8080`, `localhost:8080`, `0.0.0.0:80` or `[::1]:8080`; an absent host is `LISTEN_ANY`.

    Port 0 lets the system choose one.
    """
    if "://" in text or text.startswith(("unix:", "/")):
        raise ValueError("which is not host:port; only TCP and UDP ports can be listened on")
    host, port = _split_port(text, 0)
    if port is None:
        raise ValueError('which names no port; write host:port, as in ":8080"')
    if host.startswith("["):
        return _check_ipv6(host), port
    if host:
        check_host(host)
    return host, port


def parse_server_url(text: str) -> ServerAddress:
    """
    Return the parts of a server's URL.
    """
    if text.startswith("unix:"):
        return ServerAddress(scheme="unix", host="", port=0, path=_check_socket_path(text[5:]))
    scheme, separator, rest = text.partition("://")
    if separator:
        scheme = scheme.lower()
        if scheme not in _DEFAULT_PORTS:
            raise ValueError('whose scheme is none of http, https, h2c, tcp, udp and "unix:"')
    else:
        scheme, rest = "", text
    for mark, name in (("?", "a query"), ("#", "a fragment"), ("@", "a user name")):
        if mark in rest:
            raise ValueError(f"which holds {name}, but a server's URL cannot")
    slash = rest.find("/")
    authority, path = (rest, "") if slash < 0 else (rest[:slash], rest[slash:])
    if path and scheme not in _SCHEMES_WITH_PATH:
        raise ValueError("which holds a path, but only HTTP servers have one; did you leave out http://?")
    if path and _URL_PATH(path) is None:
        raise ValueError("whose path holds a character that must be percent-encoded")
    host, port = _split_port(authority, 1)
    if not host:
        raise ValueError("which names no host")
    if port is None:
        port = _DEFAULT_PORTS.get(scheme)
        if port is None:
            raise ValueError("which names no port")
    host = _check_ipv6(host) if host.startswith("[") else check_host(host)
    return ServerAddress(scheme=scheme, host=host, port=port, path=path.rstrip("/"))


def http_url(url: str) -> str:
    """
    Return a server's URL with `http` or `https` where it says `ws` or `wss`, which only names what else is spoken there.
    """
    return f"http{url[2:]}" if url[:2].lower() == "ws" and parse_server_url(url).scheme in ("ws", "wss") else url


def split_http_url(text: str) -> ServerAddress:
    """
    Check the URL of an HTTP service that the gateway itself calls: `http` or `https`, and a query may follow the path.
    """
    address = parse_server_url(text.partition("?")[0])
    if address.scheme not in ("http", "https"):
        raise ValueError("which does not begin with http:// or https://")
    return address


def check_network(text: str) -> str:
    """
    Return an IP address or a CIDR network without blanks around it. Host bits may be set: `10.1.2.3/8` means `10.0.0.0/8`.
    """
    text = text.strip()
    if "%" in text:
        raise ValueError("which names a zone; addresses are compared without")
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("which is neither an IP address nor a network in CIDR form") from None
    return text


def check_host(host: str) -> str:
    """
    Return `host` if it is a domain name or an IPv4 address.
    """
    if _NUMBERS_AND_DOTS(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError("whose host is not a valid IPv4 address") from None
    elif len(host) > 253 or _LABELS(host) is None:
        raise ValueError("whose host is not a valid name (write an international name in its xn-- form)")
    return host


def _check_ipv6(host: str) -> str:
    if not host.endswith("]"):
        raise ValueError("whose bracket is not closed")
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise ValueError("whose brackets hold no valid IPv6 address") from None
    return host[1:-1]


def _check_socket_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("which names no absolute socket path, as in unix:/run/app.sock")
    if "\0" in path or len(path.encode("utf-8", "surrogatepass")) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"whose socket path is longer than {_LONGEST_SOCKET_PATH} bytes or holds a NUL")
    return path


def _split_port(authority: str, smallest: int) -> tuple[str, int | None]:
    """
    Split `host:port`; the host keeps its brackets, an absent port is `None`.
    """
    if authority.startswith("["):
        bracket = authority.find("]") + 1
        host, rest = authority[:bracket], authority[bracket:]
        if not bracket:
            raise ValueError("whose bracket is not closed")
        if rest and not rest.startswith(":"):
            raise ValueError("which has something other than a port behind its bracket")
        separator, port_text = rest[:1], rest[1:]
    else:
        host, separator, port_text = authority.partition(":")
        if ":" in port_text:
            raise ValueError("which holds several colons; an IPv6 address is written in brackets, as in [::1]:8080")
    if not separator:
        return host, None
    if _PORT(port_text) is None or not smallest <= int(port_text) <= 65535:
        raise ValueError(f"whose port is not a number from {smallest} to 65535")
    return host, int(port_text)
