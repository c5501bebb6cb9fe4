"""
The gateway with middlewares: how each is configured to be measured, what its requests bear, and by what it is known to be at work.

The same variations are measured alone, as pieces, and end to end, by `--middlewares`. End to end everybody is sent the same requests, which
bear what any of them looks for, so that the reading of it is in nobody's figure.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import bcrypt
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["ALL", "FIVE", "ORIGIN", "PLAIN", "REFUSED", "REFUSED_UNTOLD", "Variation", "credentials"]

ORIGIN = "https://app.bench.test"
_API_KEY = "bench-" + "k" * 26
_PASSWORD = b"correct horse battery staple"
_SECRET = "s" * 48
_HOURS = 24 * 3600
_PUBLIC_KEY_FILE = "variation.pem"


@dataclass(frozen=True)
class Variation:
    """
    One way to configure the router: the bodies of its middlewares' `blocks`, in which `{directory}` is where files are.

    `headers` are those of a request that it looks for. `shows` is a header, in lower case, that every answer must bear; `guards` says that
    without `headers` a request must be answered 401. `asks` is what the server is asked for instead of a target. `status` is what every
    request is answered; unless it is 200, no request may get to the server.
    """

    name: str
    blocks: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    shows: str = ""
    guards: bool = False
    asks: Callable[[str], str] = field(default=str)
    status: int = 200

    @property
    def is_refusal(self) -> bool:
        return self.status != 200

    def middlewares(self, directory: Path) -> str:
        """
        Return the blocks of the configuration, called `m0`, `m1` and so on. Writes the files that they name.
        """
        text = ""
        for number, block in enumerate(self.blocks):
            if _PUBLIC_KEY_FILE in block:
                pem = _key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                (directory / _PUBLIC_KEY_FILE).write_bytes(pem)
            lines = "\n  ".join(block.replace("{directory}", str(directory)).split("\n"))
            text += f'middlewares "m{number}" {{\n  {lines}\n}}\n'
        return text

    @property
    def listed(self) -> str:
        """
        The names of the middlewares as a list of the configuration.
        """
        return "[" + ", ".join(f'"m{number}"' for number in range(len(self.blocks))) + "]"


@cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def credentials() -> dict[str, str]:
    """
    Return the headers that satisfy every variation. They are the same for a whole run.
    """
    claims = {"sub": "ann", "iat": int(time.time()), "exp": int(time.time()) + _HOURS, "jti": os.urandom(8).hex()}
    return {
        "X-API-Key": _API_KEY,
        "Authorization": "Basic " + base64.b64encode(b"ann:" + _PASSWORD).decode(),
        "X-Token": jwt.encode(claims, _SECRET, "HS256"),
        "X-Token-2": jwt.encode(claims, _key(), "ES256"),
        "Origin": ORIGIN,
    }


def _hash() -> str:
    # The usual cost: what is measured is that it is paid once.
    return bcrypt.hashpw(_PASSWORD, bcrypt.gensalt(10)).decode()


def _without_shop(target: str) -> str:
    return target.removeprefix("/shop")


PLAIN = Variation("a3sgw")

FIVE = Variation(
    "five-idle",
    (
        'type        = "ip-allow"\nallowed_ips = ["127.0.0.0/8", "::1"]',
        'type = "retry"',
        'type     = "strip-prefix"\nprefixes = ["/elsewhere"]',
        'type           = "body-limit"\nmax_body_bytes = 1048576',
        'type            = "cors"\nallowed_origins = ["https://elsewhere.test"]',
    ),
)
"""Five middlewares that look at the bench's requests, and find nothing to do."""

REFUSED = Variation(
    "rate-limit-refused", ('type        = "rate-limit"\nrate        = 1\nperiod_secs = 31536000',), shows="retry-after", status=429
)
REFUSED_UNTOLD = Variation("rate-limit-refused-untold", (REFUSED.blocks[0] + "\nheaders     = false",), shows="retry-after", status=429)

ALL = (
    FIVE,
    Variation("ip-allow", ('type        = "ip-allow"\nallowed_ips = ["127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]',)),
    Variation("api-key", (f'type = "api-key"\nkeys = ["{_API_KEY}", "another"]',), ("X-API-Key",), guards=True),
    Variation("basic-auth", (f'type  = "basic-auth"\nusers = ["ann:{_hash()}"]',), ("Authorization",), guards=True),
    Variation("jwt-hs256", (f'type   = "jwt"\nheader = "X-Token"\nvalue  = "{_SECRET}"',), ("X-Token",), guards=True),
    Variation(
        "jwt-es256",
        (f'type            = "jwt"\nheader          = "X-Token-2"\npublic_key_file = "{{directory}}/{_PUBLIC_KEY_FILE}"',),
        ("X-Token-2",),
        guards=True,
    ),
    Variation("rate-limit", ('type = "rate-limit"\nrate = 4000000000',), shows="ratelimit-limit"),
    Variation("rate-limit-untold", ('type    = "rate-limit"\nrate    = 4000000000\nheaders = false',)),
    Variation("in-flight", ('type   = "in-flight"\namount = 1000',)),
    Variation(
        "cors",
        (f'type            = "cors"\nallowed_origins = ["{ORIGIN}", "https://elsewhere.test"]',),
        ("Origin",),
        shows="access-control-allow-origin",
    ),
    Variation(
        "headers-2+2",
        (
            (
                'type             = "headers"\n'
                'request_headers  = { "X-Tenant" = "bench", "X-Stage" = "test" }\n'
                'response_headers = { "X-Frame-Options" = "DENY", "Referrer-Policy" = "no-referrer" }'
            ),
        ),
        shows="x-frame-options",
    ),
    Variation("strip-prefix", ('type     = "strip-prefix"\nprefixes = ["/shop"]',), asks=_without_shop),
    Variation("add-prefix", ('type   = "add-prefix"\nprefix = "/app"',), asks=lambda target: f"/app{target}"),
    Variation(
        "replace-path",
        ('type        = "replace-path"\nregex       = "^/shop/(.*)"\nreplacement = "/$1"',),
        asks=_without_shop,
    ),
    Variation("redirect-scheme", ('type   = "redirect-scheme"\nscheme = "http"',)),
    Variation(
        "redirect-regex",
        ('type        = "redirect-regex"\nregex       = "^https?://www\\\\.bench\\\\.test/(.*)"\nreplacement = "https://bench.test/$1"',),
    ),
    Variation("request-id", ('type      = "request-id"\ngenerator = "uuid7"',), shows="x-request-id"),
    Variation("body-limit", ('type           = "body-limit"\nmax_body_bytes = 1048576',)),
    Variation("retry", ('type = "retry"',)),
    Variation("circuit-breaker", ('type = "circuit-breaker"',)),
    Variation("circuit-breaker-backend", ('type  = "circuit-breaker"\nscope = "backend"',)),
    Variation("compress", ('type = "compress"',)),
    Variation("errors", ('type   = "errors"\nstatus = ["500-599"]\nbody   = "<h1>{status}</h1>"',)),
)
"""Each type with a typical configuration, and a request that passes."""
