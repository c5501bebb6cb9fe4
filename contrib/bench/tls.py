"""
The certificate that everybody shows in the cases over TLS, and a client that accepts it.

One for ECDSA on P-256, which is what issuers give today unless asked for something else; with RSA the handshakes would measure little but
one multiplication that is OpenSSL's for all.
"""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from .cases import HOST

__all__ = ["Certificate", "client_context", "make_certificate"]


@dataclass(frozen=True)
class Certificate:
    """
    Where a certificate and its key are; `both` holds the two of them, for HAProxy.
    """

    cert: Path
    key: Path
    both: Path


def make_certificate(directory: Path) -> Certificate:
    """
    Write a new certificate for the bench's hosts, signed by itself.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST), x509.DNSName(f"*.shop.{HOST}")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    found = Certificate(directory / "bench.crt", directory / "bench.key", directory / "bench.pem")
    cert_pem = signed.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, content in ((found.cert, cert_pem), (found.key, key_pem), (found.both, cert_pem + key_pem)):
        path.write_bytes(content)
        path.chmod(0o600)
    return found


def client_context() -> ssl.SSLContext:
    """
    Return a context that accepts any certificate, and speaks HTTP/1.1.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
