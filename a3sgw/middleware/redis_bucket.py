"""
Buckets that stand in Redis: what Redis is asked, and what its answer means.

The bucket of a client is a hash with `tokens` and `last_refill` (seconds of Redis's own clock, so that the clocks of gateways do not
matter), under `a3s:ratelimit:ROUTER:MIDDLEWARE:CLIENT`. One script refills it, takes a token if there is one and tells how many are left;
nothing can come in between. A bucket that nobody took from for as long as it takes to fill is full, and Redis forgets it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from hashlib import blake2b, sha1
from math import ceil, isfinite
from typing import Final

from a3sgw.middleware.quota import Quota
from a3sgw.wire.resp import Reply, encode_part

__all__ = ["RedisBuckets", "read_verdict"]

_SCRIPT: Final = b"""\
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'last_refill')
local tokens, last = tonumber(bucket[1]), tonumber(bucket[2])
if not tokens or not last then
  tokens, last = burst, now
end
tokens = math.min(burst, tokens + math.max(0, now - last) * rate)
local admitted = 0
if tokens >= 1 then
  tokens, admitted = tokens - 1, 1
end
-- A refusal changes nothing, unless the clock was set back: then the bucket goes on from here.
if admitted == 1 or now < last then
  redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens), 'last_refill', string.format('%.17g', now))
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return {admitted, string.format('%.17g', tokens)}
"""

_BY_HASH: Final = b"*7\r\n" + b"".join(map(encode_part, (b"EVALSHA", sha1(_SCRIPT).hexdigest().encode(), b"1")))
_BY_SCRIPT: Final = b"*7\r\n" + b"".join(map(encode_part, (b"EVAL", _SCRIPT, b"1")))
_LONGEST_LIFE: Final = 10 * 366 * 86400
"""In seconds; Redis refuses numbers that are larger by far."""


class RedisBuckets:
    """
    The buckets of `quota` for the middleware `name` of `owner`, whose clients are told apart by `source`.

    `owner` is as in `Surroundings`: `router "NAME"`, or `entrypoint "NAME"`, whose buckets are not those of the router of that name.
    """

    def __init__(self, quota: Quota, owner: str, name: str, source: str) -> None:
        noun, _, quoted = owner.partition(" ")
        names = [quoted.strip('"'), name] if noun == "router" else [noun, quoted.strip('"'), name]
        # A name that holds a colon must not look like two.
        prefix = ":".join(["a3s", "ratelimit", *(part.replace("%", "%25").replace(":", "%3A") for part in names)])
        self._prefix = prefix.encode("utf-8", "surrogatepass")
        self._client_text = _TEXTS[source]
        life = min(ceil(quota.burst / quota.per_second) + 10, _LONGEST_LIFE)
        self._numbers = b"".join(encode_part(str(number).encode()) for number in (quota.per_second, quota.burst, life))

    def redis_key(self, key: bytes) -> bytes:
        """
        Return the name in Redis of a client's bucket, for the key that `source.key_reader` made of the client.
        """
        return self._prefix + self._client_text(key)

    def take_by_hash(self, key: bytes) -> bytes:
        """
        Return the command that takes a token, for a Redis that knows the script.
        """
        return b"%b%b%b" % (_BY_HASH, encode_part(self.redis_key(key)), self._numbers)

    def take_by_script(self, key: bytes) -> bytes:
        """
        Return the command that takes a token and makes the script known.
        """
        return b"%b%b%b" % (_BY_SCRIPT, encode_part(self.redis_key(key)), self._numbers)


def read_verdict(reply: Reply) -> tuple[bool, float] | None:
    """
    Return whether a token was taken, and how many are left; `None` for what the script cannot have said.
    """
    if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[0], int) and isinstance(reply[1], bytes)):
        return None
    try:
        tokens = float(reply[1])
    except ValueError:
        return None
    return (reply[0] == 1, tokens) if isfinite(tokens) else None


def _address_text(packed: bytes) -> bytes:
    if not packed:
        return b":unknown"
    return b":" + socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed).encode("ascii")


def _value_text(key: bytes) -> bytes:
    # Hashed, for it may be an API key, and who may look into Redis need not know it.
    return b":=" + blake2b(key, digest_size=16).hexdigest().encode() if key.startswith(b"=") else _address_text(key[1:])


_TEXTS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "client-ip": _address_text,
    "header": _value_text,
    "host": lambda key: b":" + key,
    "router": lambda key: b"",
}
