"""
Read the keys that tokens are verified with.

What a key may verify follows from the key: a secret takes the HS algorithms, an RSA key RS and PS, a curve the ES algorithm of that curve,
an Edwards key EdDSA. So no algorithm that a token names can pass a public key off as a secret (RFC 8725 section 3.1), and `none`, which
needs no key, is never one of them.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import InvalidVersion, load_pem_x509_certificate

__all__ = ["ALGORITHMS", "Key", "public_key", "read_jwks", "secret_key"]

_SECRET_ALGORITHMS: Final = frozenset(["HS256", "HS384", "HS512"])
_RSA_ALGORITHMS: Final = frozenset(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_SHORTEST_RSA: Final = 2048
ALGORITHMS: Final = (*sorted(_SECRET_ALGORITHMS), *sorted(_RSA_ALGORITHMS), "ES256", "ES384", "ES512", "EdDSA")
"""Every algorithm that can be named in a configuration."""


class Key(NamedTuple):
    """
    Something to verify with. `key` is what the library takes, `algorithms` are those it may be used for, `kid` is its name in a set.
    """

    key: Any
    algorithms: frozenset[str]
    kid: str | None = None

    def __repr__(self) -> str:
        # The tuple's own would show a secret.
        return f"<Key {self.kid!r} for {' '.join(sorted(self.algorithms))}>"


def secret_key(secret: bytes) -> Key:
    """
    Return the key for a shared secret.

    Raises `ValueError` for what must not be one: nothing at all, or a public key or key set, which everybody may have. The reason continues
    "the secret …".
    """
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        fault = "is a key, a certificate or a key set, which is no secret; give it as such" if secret else "is empty"
        raise ValueError(fault) from None
    return Key(secret, _SECRET_ALGORITHMS)


def public_key(pem: bytes) -> Key:
    """
    Return the key in a PEM file, which holds a public key or a certificate; of several certificates the first counts.

    Whether a certificate has expired is not asked: it only brings the key. Raises `ValueError` with a reason that continues "the file …".
    """
    try:
        if b"BEGIN CERTIFICATE" in pem:
            return _key_of(load_pem_x509_certificate(pem).public_key(), None)
        return _key_of(load_pem_public_key(pem), None)
    except (ValueError, UnsupportedAlgorithm, InvalidVersion, TypeError) as error:
        if isinstance(error, _UnfitError):
            raise
        remedy = "; it holds a private key: give what `openssl pkey -pubout` makes of it" if b"PRIVATE KEY-" in pem else ""
        raise ValueError(f"is neither a public key nor a certificate in PEM{remedy}") from None


class _UnfitError(ValueError):
    """
    A key that nothing may be verified with.
    """


def _key_of(key: Any, kid: str | None) -> Key:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _SHORTEST_RSA:
            raise _UnfitError(f"has an RSA key of {key.key_size} bits; use at least {_SHORTEST_RSA}")
        return Key(key, _RSA_ALGORITHMS, kid)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return Key(key, frozenset([_CURVES[key.curve.name]]), kid)
    if isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
        return Key(key, frozenset(["EdDSA"]), kid)
    raise _UnfitError("has a key of a kind that no token is signed with")


def read_jwks(text: bytes) -> list[Key]:
    """
    Return the keys of a JWK set (RFC 7517). Keys for something else, and those of unknown kinds, are left out, as the RFC asks.

    So are secrets and private keys: where they can be fetched, everybody can sign. Raises `ValueError` if it is no set, or holds no key
    that can be used.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('the answer has no list "keys"')
    found = [key for key in map(_read_entry, entries) if key is not None]
    if not found:
        raise ValueError("the answer has no key that tokens could be signed with")
    return found


def _read_entry(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    purposes, kid, named = entry.get("key_ops", ["verify"]), entry.get("kid"), entry.get("alg")
    if not isinstance(purposes, list) or "verify" not in purposes or not isinstance(kid, (str, type(None))):
        return None
    try:
        # Secrets and private keys are read as what they are, which `_key_of` does not take.
        key = _key_of(jwt.PyJWK(entry).key, kid)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    if named is not None:
        key = key._replace(algorithms=key.algorithms & {named})
    return key if key.algorithms else None
