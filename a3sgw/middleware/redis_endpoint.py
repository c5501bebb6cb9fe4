"""
Connect to a Redis: over TCP, over TLS with its certificate verified, or through a socket of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory

from a3sgw.config.redis_url import RedisAddress
from a3sgw.errors import MiddlewareError

if TYPE_CHECKING:
    from twisted.internet.ssl import Certificate

__all__ = ["Opener", "greeting_for", "make_opener"]

Opener = Callable[[IProtocolFactory, float], "Deferred[Any]"]
"""Begins to connect, and gives the protocol; the number is how many seconds one address may take."""

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def greeting_for(address: RedisAddress) -> list[tuple[bytes, ...]]:
    """
    Return the commands with which a connection to `address` begins.
    """
    greeting: list[tuple[bytes, ...]] = []
    if address.password:
        greeting.append((b"AUTH", address.user, address.password) if address.user else (b"AUTH", address.password))
    if address.db:
        greeting.append((b"SELECT", b"%d" % address.db))
    return greeting


def make_opener(address: RedisAddress, reactor: Any, ca_file: str | None, cert_file: str | None, key_file: str | None) -> Opener:
    """
    Return what connects to `address`. Files are read now, nothing is connected. Raises `MiddlewareError` for files that cannot be used.
    """
    if address.path:
        return lambda factory, timeout: UNIXClientEndpoint(reactor, address.path, timeout).connect(factory)
    if not address.is_tls:
        return lambda factory, timeout: HostnameEndpoint(reactor, address.host, address.port, timeout).connect(factory)
    options = _tls_options(address.host, ca_file, cert_file, key_file)

    def open_tls(factory: IProtocolFactory, timeout: float) -> Deferred[Any]:
        return wrapClientTLS(options, HostnameEndpoint(reactor, address.host, address.port, timeout), reactor).connect(factory)

    return open_tls


def _tls_options(host: str, ca_file: str | None, cert_file: str | None, key_file: str | None) -> Any:
    # Only where TLS is asked for: it takes a tenth of a second to import.
    from twisted.internet import ssl

    roots = ssl.platformTrust() if ca_file is None else ssl.trustRootFromCertificates(list(_certificates(ca_file)))
    if cert_file is None or key_file is None:
        return ssl.optionsForClientTLS(host, trustRoot=roots)
    pem = _read("redis_cert_file", cert_file) + b"\n" + _read("redis_key_file", key_file)
    try:
        return ssl.optionsForClientTLS(host, trustRoot=roots, clientCertificate=ssl.PrivateCertificate.loadPEM(pem))
    except Exception as error:
        raise MiddlewareError("redis_cert_file", "and redis_key_file hold no certificate and its key in PEM form") from error


def _certificates(path: str) -> Iterator[Certificate]:
    from twisted.internet import ssl

    found = _CERTIFICATE.findall(_read("redis_ca_file", path))
    if not found:
        raise MiddlewareError("redis_ca_file", f'names "{path}", which holds no certificate in PEM form')
    for pem in found:
        try:
            yield ssl.Certificate.loadPEM(pem)
        except Exception as error:
            raise MiddlewareError("redis_ca_file", f'names "{path}", which holds a broken certificate') from error


def _read(attribute: str, path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise MiddlewareError(attribute, f'names "{path}", which cannot be read: {error.strerror}') from error
