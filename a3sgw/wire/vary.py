"""
Say in `Vary` what a response depends on (RFC 9110 section 12.5.5).
"""

from __future__ import annotations

from functools import cache

from a3sgw.message import Field, make_field

__all__ = ["add_vary"]


@cache
def _vary(token: bytes) -> Field:
    return make_field(b"Vary", token)


def add_vary(fields: list[Field], token: bytes) -> None:
    """
    Add the field name `token` to `Vary`, in place: to the last one there is, unless one of them names it already, or says `*`.

    What the gateway itself depends on are a few names, which are remembered for ever; a client's word must not come here.
    """
    # Most common case first.
    for field in fields:
        if field[0] == b"vary":
            break
    else:
        fields.append(_vary(token))
        return
    wanted = token.lower()
    place = -1
    for position, (name, value, _) in enumerate(fields):
        if name == b"vary":
            members = [member.strip().lower() for member in value.split(b",")]
            if wanted in members or b"*" in members:
                return
            place = position
    value = fields[place][1].rstrip(b", \t")
    fields[place] = make_field(b"Vary", b"%b, %b" % (value, token) if value else token)
