"""
Certificates for tests.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Identity"]


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class Identity:
    """
    A certificate and its key.
    """

    def __init__(self, certificate: x509.Certificate, key: Key) -> None:
        self.certificate = certificate
        self.key = key

    def certificate_pem(self) -> bytes:
        """
        Return the certificate alone.
        """
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        """
        Return the key alone.
        """
        return self.key.private_bytes(Encoding.PEM, form, NoEncryption())

    def pem(self) -> bytes:
        """
        Return both, as servers read them.
        """
        return self.key_pem() + self.certificate_pem()


class Authority:
    """
    Somebody who issues certificates, called `name`.
    """

    def __init__(self, name: str = "test authority") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key, timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def pem(self) -> bytes:
        """
        Return its own certificate, as those read it who trust it.
        """
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self, *names: str, lasts: timedelta = timedelta(hours=1), common_name: str = "server", key: Key | None = None
    ) -> Identity:
        """
        Return a certificate for `names`, which may be addresses. One that lasts less than no time has run out.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]), key, lasts)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        return Identity(builder.sign(self._key, hashes.SHA256()), key)

    def _builder(self, subject: x509.Name, key: Key, lasts: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=2),
            not_valid_after=now + lasts,
        )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found
