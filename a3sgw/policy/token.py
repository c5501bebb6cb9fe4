"""
Verify JSON Web Tokens (RFC 7519, RFC 8725).

A token names an algorithm and perhaps a key, which only choose among what the keys at hand may be used for; see `token_key`. Everything
else in it is somebody's claim until the signature is good, and most of it afterwards. It is read strictly: base64 as an encoder writes it,
JSON in UTF-8 without names that stand twice, and no extension that must be understood.

The library computes signatures and nothing more, because a stranger's token is read on the way of every request: what is unreadable, or
signed by nobody known, costs a few microseconds.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import base64
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

from a3sgw.policy.memo import Memo
from a3sgw.policy.token_key import ALGORITHMS, Key, public_key, read_jwks, secret_key

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

_VERIFIERS: Final = {name: jwt.get_algorithm_by_name(name) for name in ALGORITHMS}

_LONGEST_TOKEN: Final = 16384
_SHAPE: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_FARTHEST: Final = 1e300
"""Times past this one, in seconds, are not added to."""


class TokenRefused(enum.Enum):
    """
    Why a token is not good. The values are for the log and for `WWW-Authenticate`; they tell a client nothing it does not know.
    """

    MALFORMED = "the token cannot be read"
    ALGORITHM = "the token is signed in a way that is not accepted"
    KEY_UNKNOWN = "the token was signed with a key that is not known"
    SIGNATURE = "the signature does not verify"
    EXPIRED = "the token has expired"
    NOT_YET_VALID = "the token is not valid yet"
    ISSUER = "the token is from another issuer"
    AUDIENCE = "the token is for another audience"
    CLAIM_MISSING = "the token lacks a required claim"


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

    At most `REMEMBERED` are, for at most `LONGEST_MEMORY` seconds, none longer than `LONGEST_REMEMBERED` bytes. `salt`, of at most 64
    bytes, is random unless given; nobody can choose the digests that tokens are remembered by.
    """

    REMEMBERED: Final = 4096
    LONGEST_MEMORY: Final = 300.0
    LONGEST_REMEMBERED: Final = 4096
    MOST_TRIED: Final = 8
    """How many keys are tried for one token, where it does not say which: what a stranger sends must not cost more."""

    def __init__(self, keys: Sequence[Key], rules: TokenRules, salt: bytes | None = None) -> None:
        self._rules = rules
        self._algorithms = rules.algorithms or frozenset(ALGORITHMS)
        self._known: Memo[dict[str, Any]] = Memo(self.REMEMBERED)
        self._salt = os.urandom(16) if salt is None else salt
        self.keys: list[Key] = []
        self.replace_keys(keys)

    def __repr__(self) -> str:
        return f"<TokenVerifier with {len(self.keys)} keys>"

    def replace_keys(self, keys: Sequence[Key]) -> None:
        """
        Verify with these keys from now on. If they differ from those before, all tokens are forgotten.
        """
        limited = [key._replace(algorithms=key.algorithms & self._algorithms) for key in keys]
        usable = [key for key in limited if key.algorithms]
        if usable != self.keys:
            self.keys = usable
            self._known.clear()

    def verify(self, token: bytes, now: float) -> dict[str, Any] | TokenRefused:
        """
        Return the claims of `token`, or why it is refused. `now` is in seconds since 1970. Never raises.

        The claims are the same object each time; they must not be changed.
        """
        if len(token) > _LONGEST_TOKEN:
            return TokenRefused.MALFORMED
        digest = hashlib.blake2b(token, digest_size=16, key=self._salt).digest()
        known = self._known.get(digest, now)
        if known is not None:
            return known
        claims = self._signed_claims(token)
        if isinstance(claims, TokenRefused):
            return claims
        refused = self._judge(claims, now)
        if refused is not None:
            return refused
        if len(token) <= self.LONGEST_REMEMBERED:
            until = now + self.LONGEST_MEMORY
            if "exp" in claims:
                until = min(until, claims["exp"] + self._rules.leeway)
            self._known.put(digest, claims, now, until)
        return claims

    def _signed_claims(self, token: bytes) -> dict[str, Any] | TokenRefused:
        if _SHAPE.fullmatch(token) is None:
            return TokenRefused.MALFORMED
        signed, _, signature_text = token.rpartition(b".")
        header_text, _, payload_text = signed.partition(b".")
        header, signature = _read_object(header_text), _read_part(signature_text)
        if header is None or signature is None:
            return TokenRefused.MALFORMED
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(kid, (str, type(None))):
            return TokenRefused.MALFORMED
        if "crit" in header or header.get("b64", True) is not True:
            # Extensions that must be understood are not (RFC 7515 section 4.1.11, RFC 7797).
            return TokenRefused.MALFORMED
        if algorithm not in self._algorithms:
            return TokenRefused.ALGORITHM
        candidates = self._candidates(algorithm, kid)
        if not candidates:
            return TokenRefused.KEY_UNKNOWN
        verifier = _VERIFIERS[algorithm]
        if not any(verifier.verify(signed, key.key, signature) for key in candidates):
            return TokenRefused.SIGNATURE
        claims = _read_object(payload_text)
        return TokenRefused.MALFORMED if claims is None else claims

    def _candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """
        Return the keys of that name; else those without a name, to which any token may refer; else the only one there is, for a token
        that names none.
        """
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid is None and len(fitting) == 1:
            return fitting
        named = [key for key in fitting if key.kid == kid]
        return (named or [key for key in fitting if key.kid is None])[: self.MOST_TRIED]

    def _judge(self, claims: dict[str, Any], now: float) -> TokenRefused | None:
        rules = self._rules
        for name in ("exp", "nbf", "iat"):
            if name in claims and not _is_time(claims[name]):
                return TokenRefused.MALFORMED
        if not isinstance(claims.get("sub", ""), str) or not isinstance(claims.get("iss", ""), str):
            return TokenRefused.MALFORMED
        if "exp" not in claims:
            if rules.requires_expiry:
                return TokenRefused.CLAIM_MISSING
        elif now >= claims["exp"] + rules.leeway:
            return TokenRefused.EXPIRED
        if max(claims.get("nbf", 0), claims.get("iat", 0)) > now + rules.leeway:
            return TokenRefused.NOT_YET_VALID
        if rules.issuers and claims.get("iss") not in rules.issuers:
            return TokenRefused.ISSUER
        if rules.audiences and not _audiences_of(claims) & rules.audiences:
            return TokenRefused.AUDIENCE
        if any(_claim_at(claims, path) is None for path in rules.required_claims):
            return TokenRefused.CLAIM_MISSING
        return None


def _read_part(text: bytes) -> bytes | None:
    """
    Return what is encoded, unless another text would be the usual one for the same bytes (RFC 7515 section 2).
    """
    try:
        found = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return None
    return found if base64.urlsafe_b64encode(found).rstrip(b"=") == text else None


def _read_object(text: bytes) -> dict[str, Any] | None:
    part = _read_part(text)
    if part is None:
        return None
    try:
        found = json.loads(part.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_time(value: Any) -> bool:
    # A bool is an int, and no time; what is not a number compares false.
    return type(value) in (int, float) and -_FARTHEST <= value <= _FARTHEST


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


def _claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """
    Return the claim that `path` leads to, or `None`. Dots lead into nested objects, except those that belong to a name, as in a URL.
    """
    if path in claims:
        return claims[path]
    dot = path.find(".")
    while dot >= 0:
        inner = claims.get(path[:dot])
        if isinstance(inner, dict):
            found = _claim_at(inner, path[dot + 1 :])
            if found is not None:
                return found
        dot = path.find(".", dot + 1)
    return None


def claim_text(claims: Mapping[str, Any], path: str) -> bytes | None:
    """
    Return a claim as a header's value: a string, number or bool as it is, a list of those joined by commas; `None` if there is none.

    `path` leads into nested objects by dots. No two strings or lists give the same text: what is not printable ASCII is percent-encoded as
    UTF-8, and so are the percent sign, commas, and blanks at either end, which would be lost on the way. No value can end the header line.
    Text that is not Unicode and numbers without end are `None`.
    """
    value = _claim_at(claims, path)
    parts = value if isinstance(value, list) else [value]
    texts = [_scalar_text(part) for part in parts]
    if not texts or any(text is None for text in texts):
        return None
    return b",".join(text for text in texts if text is not None)


_AS_IT_IS: Final = "".join(chr(code) for code in range(32, 127) if chr(code) not in "%,")


def _scalar_text(value: Any) -> bytes | None:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, (int, float)):
        return repr(value).encode("ascii") if isinstance(value, int) or math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    try:
        text = quote(value, safe=_AS_IT_IS)
    except UnicodeEncodeError:
        return None
    behind = text.lstrip(" ")
    bare = behind.rstrip(" ")
    return ("%20" * (len(text) - len(behind)) + bare + "%20" * (len(behind) - len(bare))).encode("ascii")


def read_bearer(value: bytes) -> bytes | None:
    """
    Return the token of an `Authorization` value: what follows `Bearer` (RFC 6750), or the whole value if it has no scheme.
    """
    first, blank, rest = value.partition(b" ")
    if not blank:
        return None if first.lower() in (b"bearer", b"basic", b"") else first
    return rest.strip(b" ") or None if first.lower() == b"bearer" else None
