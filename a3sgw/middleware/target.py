"""
What middlewares do with a request's path, and with the URL that it was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from a3sgw.config.kinds import Text
from a3sgw.errors import Outcome, ProtocolError
from a3sgw.message import LocalResponse, RequestHead, make_field
from a3sgw.wire.fields import parse_authority
from a3sgw.wire.path import PathPolicy, canonical_path

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["CANONICAL_PATH", "DEFAULT_PORTS", "change_path", "public_host", "redirection"]

DEFAULT_PORTS: Final = {b"http": b"80", b"https": b"443"}

# Who may configure the gateway may say what a backend is asked for; only what no two servers read alike is refused.
_OPERATOR: Final = PathPolicy(allow_encoded_slash=True)


def _check_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError('which does not begin with "/"')
    for mark in "?#":
        if mark in text:
            raise ValueError(f'which holds "{mark}"; a path ends before it')
    if any(not "!" <= character <= "~" for character in text):
        raise ValueError("which holds a blank or a character outside ASCII; write it percent-encoded, %20 for a blank")
    try:
        canonical = canonical_path(text.encode("ascii"), _OPERATOR)
    except ProtocolError as error:
        raise ValueError(f"which holds {_article(error.detail.partition(' in ')[0])}") from None
    if canonical != text.encode("ascii"):
        raise ValueError(
            'which is not canonical; leave out "//", "." and "..", decode escapes of letters, digits and - . _ ~, and write others like %2F'
        )
    return text


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"


CANONICAL_PATH: Final = Text('a path like "/api"', _check_path)


def change_path(head: RequestHead, path: bytes) -> None:
    """
    Put `path`, which is canonical, in the place of the path of `head`; the query stays as it is.
    """
    head.target = path + head.target[len(head.path) :]
    head.path = path


def public_host(exchange: Exchange) -> tuple[bytes, bytes]:
    """
    Return the host that the client asked for, in lower case, and its port, which is empty if the client named none.

    A trusted proxy may have said which host it was asked for itself. Both are empty for an HTTP/1.0 request without a host.
    """
    head = exchange.head
    assert head is not None
    reported = exchange.forwarding.host
    if reported:
        try:
            return parse_authority(reported), _port_of(reported)
        except ProtocolError:
            # It looks like a host, but is none.
            pass
    return head.host, _port_of(head.authority)


def _port_of(authority: bytes) -> bytes:
    host, _, port = authority.rpartition(b":")
    # What follows the last colon of an IPv6 address without port ends with a bracket.
    return port if host and port.isdigit() else b""


def redirection(exchange: Exchange, location: bytes, *, permanent: bool) -> LocalResponse:
    """
    Return the answer that sends the client to `location`.

    As in Traefik: 301 and 302 for GET and HEAD, where every client does what is meant; 308 and 307 otherwise, so that a POST stays one
    (RFC 9110 section 15.4).
    """
    head = exchange.head
    assert head is not None
    if head.method in (b"GET", b"HEAD"):
        status = 301 if permanent else 302
    else:
        status = 308 if permanent else 307
    return LocalResponse(status, [make_field(b"Location", location)], b"", Outcome.REDIRECTED)
