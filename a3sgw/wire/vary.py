"""
Say in `Vary` what a response depends on (RFC 9110 section 12.5.5).
"""

from __future__ import annotations

from a3sgw.message import Field, make_field

__all__ = ["add_vary"]


def add_vary(fields: list[Field], token: bytes) -> None:
    """
    Add the field name `token` to `Vary`, in place: to the last one there is, unless one of them names it already, or says `*`.
    """
    wanted = token.lower()
    place = -1
    for position, (name, value, _) in enumerate(fields):
        if name == b"vary":
            members = [member.strip().lower() for member in value.split(b",")]
            if wanted in members or b"*" in members:
                return
            place = position
    if place < 0:
        fields.append(make_field(b"Vary", token))
    else:
        value = fields[place][1].rstrip(b", \t")
        fields[place] = make_field(b"Vary", b"%b, %b" % (value, token) if value else token)
