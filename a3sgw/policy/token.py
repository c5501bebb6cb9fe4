"""
Verify JSON Web Tokens (RFC 7519, RFC 8725).

What a key may verify follows from the key: a secret takes the HS algorithms, an RSA key RS and PS, a curve the ES algorithm of that curve,
an Edwards key EdDSA. The algorithm that a token names can only choose among those, so none can be passed off as another, and `none` is
not among them. Everything in a token is somebody's claim until the signature is good, and most of it afterwards.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

__all__ = [
    "ALGORITHMS",
    "Key",
    "TokenRefused",
    "TokenRules",
    "TokenVerifier",
    "claim_text",
    "public_key",
    "read_bearer",
    "read_jwks",
    "secret_key",
]

_SECRET_ALGORITHMS: Final = frozenset(["HS256", "HS384", "HS512"])
_RSA_ALGORITHMS: Final = frozenset(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_SHORTEST_RSA: Final = 2048
ALGORITHMS: Final = (*sorted(_SECRET_ALGORITHMS), *sorted(_RSA_ALGORITHMS), "ES256", "ES384", "ES512", "EdDSA")
"""Every algorithm that can be named in a configuration."""

_LONGEST_TOKEN: Final = 16384
_SHAPE: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class TokenRefused(enum.Enum):
    """
    Why a token is not good. The values are for the log and for `WWW-Authenticate`; they tell a client nothing it does not know.
    """

    MALFORMED = "the token cannot be read"
    KEY_UNKNOWN = "the token was signed with a key that is not known"
    SIGNATURE = "the signature does not verify"
    EXPIRED = "the token has expired"
    NOT_YET_VALID = "the token is not valid yet"
    ISSUER = "the token is from another issuer"
    AUDIENCE = "the token is for another audience"
    CLAIM_MISSING = "the token lacks a required claim"


class Key(NamedTuple):
    """
    Something to verify with. `key` is what the library takes, `algorithms` are those it may be used for, `kid` is its name in a set.
    """

    key: Any
    algorithms: frozenset[str]
    kid: str | None = None


def secret_key(secret: bytes) -> Key:
    """
    Return the key for a shared secret.
    """
    return Key(secret, _SECRET_ALGORITHMS)


def public_key(pem: bytes) -> Key:
    """
    Return the key in a PEM file, which holds a public key or a certificate.

    Raises `ValueError` with a reason that continues "the file …".
    """
    try:
        if b"BEGIN CERTIFICATE" in pem:
            return _key_of(load_pem_x509_certificate(pem).public_key(), None)
        return _key_of(load_pem_public_key(pem), None)
    except (ValueError, UnsupportedAlgorithm, TypeError) as error:
        if isinstance(error, _UnfitError):
            raise
        raise ValueError("is neither a public key nor a certificate in PEM") from None


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

    Raises `ValueError` if it is no set, or holds no key that can be used.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('the answer has no list "keys"')
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
            # A secret has no place in a public set.
            continue
        kid = entry.get("kid")
        try:
            key = _key_of(jwt.PyJWK(entry).key, kid if isinstance(kid, str) else None)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
            continue
        named = entry.get("alg")
        if isinstance(named, str):
            key = key._replace(algorithms=key.algorithms & {named})
        if key.algorithms:
            found.append(key)
    if not found:
        raise ValueError("the answer has no key that tokens could be signed with")
    return found


class TokenRules(NamedTuple):
    """
    What a good token says. An empty `issuers` or `audiences` means any; `leeway` is in seconds.
    """

    algorithms: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    required_claims: tuple[str, ...] = ()
    leeway: float = 60.0
    requires_expiry: bool = True


class TokenVerifier:
    """
    Verifies tokens with a set of keys, and remembers those that were good until they expire, so that a signature is not paid for twice.
    """

    REMEMBERED: Final = 4096
    LONGEST_MEMORY: Final = 300.0

    def __init__(self, keys: Sequence[Key], rules: TokenRules) -> None:
        self._rules = rules
        self._known: dict[bytes, tuple[float, dict[str, Any]]] = {}
        self._salt = os.urandom(16)
        self._jwt = jwt.PyJWS()
        self.keys: list[Key] = []
        self.replace_keys(keys)

    def replace_keys(self, keys: Sequence[Key]) -> None:
        """
        Verify with these keys from now on; what others signed is forgotten.
        """
        allowed = self._rules.algorithms
        limited = [key._replace(algorithms=key.algorithms & allowed) if allowed else key for key in keys]
        self.keys = [key for key in limited if key.algorithms]
        self._known.clear()

    def verify(self, token: bytes, now: float) -> dict[str, Any] | TokenRefused:
        """
        Return the claims of `token`, or why it is refused. `now` is in seconds since 1970. Never raises.
        """
        digest = hashlib.blake2b(token, digest_size=16, key=self._salt).digest()
        known = self._known.get(digest)
        if known is not None and now < known[0]:
            return known[1]
        if len(token) > _LONGEST_TOKEN or _SHAPE.fullmatch(token) is None:
            return TokenRefused.MALFORMED
        try:
            claims = self._signed_claims(token)
            refused = claims if isinstance(claims, TokenRefused) else self._judge(claims, now)
        except Exception:
            # The library raises what it likes for what it cannot read, and so do numbers without bounds; nothing of that is for a client.
            return TokenRefused.MALFORMED
        if isinstance(claims, TokenRefused) or refused is not None:
            return refused or TokenRefused.MALFORMED
        self._remember(digest, claims, now)
        return claims

    def _remember(self, digest: bytes, claims: dict[str, Any], now: float) -> None:
        if len(self._known) >= self.REMEMBERED:
            self._known.clear()
        expiry = claims.get("exp")
        until = now + self.LONGEST_MEMORY
        self._known[digest] = (until if expiry is None else min(until, expiry + self._rules.leeway), claims)

    def _signed_claims(self, token: bytes) -> dict[str, Any] | TokenRefused:
        header = self._jwt.get_unverified_header(token.decode("ascii"))
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or "crit" in header or header.get("b64", True) is not True:
            # Extensions that must be understood are not.
            return TokenRefused.MALFORMED
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        named = [key for key in fitting if key.kid == kid] if kid is not None else fitting
        # A set without names is tried whole; a name that is not in it means another key.
        candidates = named or [key for key in fitting if key.kid is None]
        if not candidates:
            return TokenRefused.KEY_UNKNOWN
        for key in candidates:
            try:
                payload = self._jwt.decode_complete(token.decode("ascii"), key.key, algorithms=[algorithm])["payload"]
            except jwt.InvalidSignatureError:
                continue
            claims = json.loads(payload, object_pairs_hook=_unique, parse_constant=_no_constant)
            return claims if isinstance(claims, dict) else TokenRefused.MALFORMED
        return TokenRefused.SIGNATURE

    def _judge(self, claims: dict[str, Any], now: float) -> TokenRefused | None:
        rules = self._rules
        for name in ("exp", "nbf", "iat"):
            value = claims.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)):
                return TokenRefused.MALFORMED
        if not isinstance(claims.get("sub", ""), str) or not isinstance(claims.get("iss", ""), str):
            return TokenRefused.MALFORMED
        if rules.requires_expiry and "exp" not in claims:
            return TokenRefused.CLAIM_MISSING
        if claims.get("exp") is not None and now >= claims["exp"] + rules.leeway:
            return TokenRefused.EXPIRED
        if max(claims.get("nbf") or 0, claims.get("iat") or 0) > now + rules.leeway:
            return TokenRefused.NOT_YET_VALID
        if rules.issuers and claims.get("iss") not in rules.issuers:
            return TokenRefused.ISSUER
        if rules.audiences and not _audiences_of(claims) & rules.audiences:
            return TokenRefused.AUDIENCE
        if any(claims.get(name) is None for name in rules.required_claims):
            return TokenRefused.CLAIM_MISSING
        return None


def _audiences_of(claims: Mapping[str, Any]) -> frozenset[str]:
    value = claims.get("aud")
    values = value if isinstance(value, list) else [value]
    return frozenset(each for each in values if isinstance(each, str))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    Two claims of one name are read differently by different libraries; RFC 7519 section 4 lets us refuse them.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a claim stands twice")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def claim_text(claims: Mapping[str, Any], path: str) -> bytes | None:
    """
    Return a claim as a header's value: a string, number or bool as it is, a list of those joined by commas; `None` if there is none.

    `path` leads into nested objects by dots, unless a claim is called so as a whole. What is not printable ASCII is percent-encoded, so
    that no value can end the header line or mean two things to two servers; a percent sign is encoded for the same reason.
    """
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    parts = value if isinstance(value, list) else [value]
    texts = [_scalar_text(part) for part in parts]
    if not texts or any(text is None for text in texts):
        return None
    return b",".join(text for text in texts if text is not None)


_AS_IT_IS: Final = "".join(chr(code) for code in range(33, 127) if chr(code) not in "%,") + " "


def _scalar_text(value: Any) -> bytes | None:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, (int, float)):
        return repr(value).encode("ascii")
    if isinstance(value, str):
        return quote(value, safe=_AS_IT_IS, errors="replace").strip().encode("ascii")
    return None


def read_bearer(value: bytes) -> bytes | None:
    """
    Return the token of an `Authorization` value: what follows `Bearer` (RFC 6750), or the whole value if it has no scheme.
    """
    first, blank, rest = value.partition(b" ")
    if not blank:
        return None if first.lower() in (b"bearer", b"basic", b"") else first
    return rest.strip(b" ") or None if first.lower() == b"bearer" else None
