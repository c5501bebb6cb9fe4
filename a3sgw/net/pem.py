"""
Read certificates and keys from PEM files.

Nothing that is said about a file says anything of what is in it: keys are in none of the messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["PemError", "parse_certificates", "parse_key", "read_certificates", "read_file", "read_key"]


class PemError(ValueError):
    """
    A file cannot be what `attribute` (its name in the configuration) asks for; `reason` says why.
    """

    def __init__(self, attribute: str, reason: str) -> None:
        super().__init__(attribute, reason)
        self.attribute = attribute
        self.reason = reason


def read_file(attribute: str, path: str) -> bytes:
    """
    Return what is in the file. Raises `PemError`, as all here do.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise PemError(attribute, f"cannot be read: {error.strerror}") from None


def parse_certificates(attribute: str, text: bytes) -> Sequence[Certificate]:
    """
    Return the certificates in `text`, in order; at least one.
    """
    if not text.strip():
        raise PemError(attribute, "is empty")
    try:
        return load_pem_x509_certificates(text)
    except ValueError:
        raise PemError(attribute, "holds no certificate in PEM") from None


def parse_key(attribute: str, text: bytes, chain: Sequence[Certificate]) -> Any:
    """
    Return the private key in `text`, which must be that of the first certificate in `chain`, if there is one.
    """
    if not text.strip():
        raise PemError(attribute, "is empty")
    try:
        key: Any = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PemError(attribute, "is no private key in PEM without a passphrase") from None
    if chain and chain[0].public_key() != key.public_key():
        if any(link.public_key() == key.public_key() for link in chain[1:]):
            raise PemError(attribute, "is not the key of the first certificate in cert_file, but of another; the server's own comes first")
        raise PemError(attribute, "is not the key of the certificate in cert_file")
    return key


def read_certificates(attribute: str, path: str) -> Sequence[Certificate]:
    """
    Return the certificates in the file.
    """
    return parse_certificates(attribute, read_file(attribute, path))


def read_key(attribute: str, path: str, chain: Sequence[Certificate]) -> Any:
    """
    Return the private key in the file.
    """
    return parse_key(attribute, read_file(attribute, path), chain)
