"""
Read, remove and set single cookies (RFC 6265).

The gateway has few cookies of its own and no business with the others, so nothing here takes a whole cookie header apart into a mapping:
one name is looked for, and what belongs to others stays as it was, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from a3sgw.message import Field, make_field
from a3sgw.wire.fields import ONLY_TOKEN, only

__all__ = ["read_cookie", "remove_cookie", "set_cookie_value"]

_ONLY_VALUE: Final = only(bytes(code for code in range(0x21, 0x7F) if code not in b'",;\\'))
"""For the `cookie-octet`s of RFC 6265 section 4.1.1."""

_ONLY_ATTRIBUTE: Final = only(bytes(code for code in range(0x20, 0x7F) if code != 0x3B))
"""For the value of an attribute: no control character, and no semicolon, which would begin another."""

_SAME_SITE: Final = {"lax": b"Lax", "strict": b"Strict", "none": b"None"}


def read_cookie(fields: Iterable[Field], name: bytes) -> list[bytes]:
    """
    Return every value of the cookie called `name`, in wire order. Names are told apart by letter case.

    A client may send several: for different paths or domains, or because somebody planted one. Quotes around a value are taken off; a
    value that RFC 6265 does not allow is left out.
    """
    found = []
    for field in fields:
        # Most common case first: the cookie is not there. Its name may still be part of another.
        if field[0] == b"cookie" and name in field[1]:
            for pair in field[1].split(b";"):
                key, equals, value = pair.partition(b"=")
                if equals and key.strip(b" \t") == name:
                    value = value.strip(b" \t")
                    if len(value) > 1 and value[0] == value[-1] == 0x22:
                        value = value[1:-1]
                    if value.translate(_ONLY_VALUE) == value:
                        found.append(value)
    return found


def remove_cookie(fields: list[Field], name: bytes) -> None:
    """
    Remove every cookie called `name`, well-formed or not, in place. Other cookies keep their order and their bytes.
    """
    for at in range(len(fields) - 1, -1, -1):
        field = fields[at]
        if field[0] != b"cookie" or name not in field[1]:
            continue
        pairs = [pair.strip(b" \t") for pair in field[1].split(b";")]
        kept = [pair for pair in pairs if not _is_named(pair, name)]
        if len(kept) == len(pairs):
            continue
        value = b"; ".join(filter(None, kept))
        if value:
            fields[at] = make_field(field.line.partition(b":")[0], value)
        else:
            del fields[at]


def _is_named(pair: bytes, name: bytes) -> bool:
    key, equals, _ = pair.partition(b"=")
    return bool(equals) and key.rstrip(b" \t") == name


def set_cookie_value(
    name: bytes,
    value: bytes,
    *,
    max_age: int | None = None,
    path: bytes | None = b"/",
    domain: bytes | None = None,
    secure: bool = False,
    http_only: bool = True,
    same_site: str | None = "lax",
) -> bytes:
    """
    Return the value of a `Set-Cookie` field. `max_age` is in seconds, 0 removes the cookie, `None` keeps it until the browser closes.

    `same_site` is `lax`, `strict` or `none`. With `none` but without `secure` the attribute is left out, because browsers refuse such a
    cookie altogether, while one without the attribute at least works on its own site. Raises `ValueError` for what may not stand there.
    """
    if not name or name.translate(ONLY_TOKEN) != name:
        raise ValueError(f"{name!r} is no cookie name; use letters, digits and !#$%&'*+-.^_`|~")
    if value.translate(_ONLY_VALUE) != value:
        raise ValueError(f"the value of cookie {name!r} needs printable ASCII without blanks, quotes, commas, semicolons and backslashes")
    if same_site is not None and same_site not in _SAME_SITE:
        raise ValueError(f'"{same_site}" cannot be the SameSite of cookie {name!r}; write lax, strict or none')
    parts = [b"%b=%b" % (name, value)]
    if path is not None:
        parts.append(_attribute(name, b"Path", path))
    if domain is not None:
        parts.append(_attribute(name, b"Domain", domain))
    if max_age is not None:
        parts.append(b"Max-Age=%d" % max_age)
    if secure:
        parts.append(b"Secure")
    if http_only:
        parts.append(b"HttpOnly")
    if same_site is not None and (secure or same_site != "none"):
        parts.append(b"SameSite=%b" % _SAME_SITE[same_site])
    return b"; ".join(parts)


def _attribute(name: bytes, attribute: bytes, value: bytes) -> bytes:
    if not value or value.translate(_ONLY_ATTRIBUTE) != value:
        raise ValueError(f"{value!r} cannot be the {attribute.decode()} of cookie {name!r}; it needs printable ASCII without semicolons")
    return b"%b=%b" % (attribute, value)
