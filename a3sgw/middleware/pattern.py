"""
Regular expressions in options, and what replaces their matches.

Patterns are RE2's, as in rules: matching takes time linear in the text, so no request can make one run for long. Replacements are those of
Traefik, which are Go's: `$1`, `${1}` and `${name}` stand for groups, `$$` for a dollar sign. What Go takes for an empty group because there
is none is refused when the configuration is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from a3sgw.config.kinds import Text
from a3sgw.errors import MiddlewareError
from a3sgw.route.argument import quote, read_pattern

__all__ = ["PATTERN", "REPLACEMENT", "Replacement", "ReplacementTooLongError"]

LONGEST_RESULT: Final = 16384

_REFERENCE: Final = re.compile(r"\$(?:(\$)|\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))?")
_ILLEGAL: Final = re.compile(r"[^!-~]")


class ReplacementTooLongError(Exception):
    """
    A replacement made more of a text than any server would take.
    """


def _check_pattern(text: str) -> str:
    try:
        read_pattern(text)
    except ValueError as error:
        reason = str(error).removeprefix(f"{quote(text)} ").removeprefix("the pattern ")
        # RE2 repeats the part that it does not like after a second colon, and the text may not be for everybody's eyes.
        raise ValueError(f"which {': '.join(reason.split(': ')[:2])}") from None
    return text


def _check_replacement(text: str) -> str:
    if _ILLEGAL.search(text):
        raise ValueError("which holds a blank or a character outside ASCII; write %20 for a blank, and others percent-encoded too")
    return text


PATTERN: Final = Text("a regular expression as RE2 has it", _check_pattern)
REPLACEMENT: Final = Text("a text with `$1` or `$${name}` for groups of the pattern", _check_replacement, may_be_empty=True)


class Replacement:
    """
    A pattern and what its matches become.
    """

    __slots__ = ("_parts", "_pattern")

    def __init__(self, pattern: str, replacement: str, attribute: str = "replacement") -> None:
        self._pattern: Final = read_pattern(pattern)
        self._parts: Final = _read_replacement(replacement, self._pattern, attribute)

    def apply(self, text: bytes) -> bytes | None:
        """
        Return `text` with every match replaced, or `None` if there is none. Raises `ReplacementTooLongError`.
        """
        search = self._pattern.search
        match = search(text)
        if match is None:
            return None
        pieces: list[bytes] = []
        room = LONGEST_RESULT
        copied = begin = 0
        while match is not None:
            start, end = match.span()
            pieces.append(text[copied:start])
            # As in Go: an empty match right behind another one is none. Else `.*` would be replaced twice.
            if end > copied or start == 0:
                made = b"".join([part if isinstance(part, bytes) else match.group(part) or b"" for part in self._parts])
                pieces.append(made)
                room -= len(made)
                if room < 0:
                    raise ReplacementTooLongError
            copied = end
            begin = max(end, begin + 1)
            match = search(text, begin) if begin <= len(text) else None
        pieces.append(text[copied:])
        return b"".join(pieces)


def _read_replacement(text: str, pattern: Any, attribute: str) -> tuple[bytes | int, ...]:
    """
    Return what `text` consists of: constants and numbers of groups.
    """
    parts: list[bytes | int] = []
    end = 0
    for match in _REFERENCE.finditer(text):
        parts.append(text[end : match.start()].encode("ascii"))
        end = match.end()
        if match[1]:
            parts.append(b"$")
            continue
        name = match[2] or match[3]
        if name is None:
            raise MiddlewareError(attribute, 'has a "$" that names no group; write "$$" for a dollar sign')
        parts.append(_number_of(name, pattern.groups, pattern.groupindex, attribute))
    parts.append(text[end:].encode("ascii"))
    return tuple(part for part in parts if part != b"")


def _number_of(name: str, count: int, by_name: Mapping[str, int], attribute: str) -> int:
    if name.isdecimal():
        if int(name[:9]) <= count:
            return int(name)
        has = f"has only {count}" if count else "has none"
        raise MiddlewareError(attribute, f"names the group {name}, but the pattern {has}")
    if name in by_name:
        return by_name[name]
    number = re.match("[0-9]+", name)
    if number is not None:
        remedy = f'write "$${{{number[0]}}}" if the group {number[0]} is meant'
    else:
        remedy = f"its named groups are {', '.join(map(quote, by_name))}" if by_name else "it has no named groups"
    raise MiddlewareError(attribute, f"names the group {quote(name)}, which the pattern does not have; {remedy}")
