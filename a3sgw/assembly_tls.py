"""
TLS of entrypoints: what they show, and what stands before everything else on their connections.

Whoever imports this imports OpenSSL, so only those do who have TLS on an entrypoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from a3sgw.assembly_parts import Kit, Parts
from a3sgw.config.model import EntrypointConfig, TlsConfig
from a3sgw.errors import AssemblyError
from a3sgw.interfaces import IBeginning
from a3sgw.listen.certificates import CertificateFiles, Certificates, Credential, ServerTerms, load_credential
from a3sgw.listen.tls import TlsBeginning
from a3sgw.net.pem import PemError, read_certificates

__all__ = ["assemble_tls", "server_terms", "tls_problems", "tls_warnings"]


def server_terms(tls: TlsConfig, protocols: tuple[bytes, ...] = ()) -> ServerTerms:
    """
    Return how the entrypoint meets its clients; `protocols` are those of ALPN, best first.
    """
    files = [CertificateFiles(each.cert_file, each.key_file, f"certificates[{index}].") for index, each in enumerate(tls.certificates)]
    if tls.cert_file is not None and tls.key_file is not None:
        files.insert(0, CertificateFiles(tls.cert_file, tls.key_file))
    return ServerTerms(
        files=tuple(files),
        min_version=tls.min_version,
        cipher_suites=tls.cipher_suites,
        client_ca_file=tls.client_ca_file if tls.client_auth != "none" else None,
        needs_client=tls.client_auth == "require",
        is_strict=tls.strict_sni,
        protocols=protocols,
    )


def assemble_tls(entrypoint: EntrypointConfig, following: Mapping[bytes, IBeginning], parts: Parts, kit: Kit) -> TlsBeginning:
    """
    Return the step before `following`, the steps by protocol; see `TlsBeginning`.

    Certificates on unchanged terms are taken over, so that clients can resume their sessions after a reload. Raises `AssemblyError`.
    """
    tls = entrypoint.tls
    assert tls is not None
    terms = server_terms(tls, tuple(protocol for protocol in following if protocol))
    make = partial(Certificates, entrypoint.name, terms, kit.dialer.deadlines.seconds, kit.wall_clock)
    try:
        certificates = parts.take(("certificates", entrypoint.name, terms), make)
    except PemError as error:
        raise AssemblyError(f'TLS error: entrypoint "{entrypoint.name}": {error.attribute} {error.reason}') from error
    return TlsBeginning(certificates, following, tls.handshake_timeout, tells_subject=tls.client_subject_header is not None)


def tls_problems(tls: TlsConfig) -> Iterator[PemError]:
    """
    Give what is wrong with the files, each with the attribute that names it.
    """
    terms = server_terms(tls)
    authorities = []
    if terms.client_ca_file is not None:
        try:
            authorities = list(read_certificates("client_ca_file", terms.client_ca_file))
        except PemError as error:
            yield error
    for files in terms.files:
        try:
            load_credential(files, terms, authorities)
        except PemError as error:
            yield error


def tls_warnings(tls: TlsConfig, now: float) -> Iterator[tuple[str, str]]:
    """
    Give the attribute and what is noteworthy of each certificate that can be used, but that clients will not like.
    """
    terms = server_terms(tls)
    for files in terms.files:
        try:
            credential: Credential = load_credential(files, terms, ())
        except PemError:
            continue
        if credential.expires < now:
            yield f"{files.place}cert_file", f"has expired: the certificate for {credential.title}"
