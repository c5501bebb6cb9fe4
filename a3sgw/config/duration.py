"""
Durations as people write them: `10s`, `1.5s`, `250ms`, `1m30s`, `2h`; a bare number is seconds.
"""

from __future__ import annotations

import re

__all__ = ["format_duration", "parse_duration"]

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

# Each unit at most once, from the largest to the smallest: "1m1h" is more likely a slip than a wish.
_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII,
).fullmatch
_BARE = re.compile(r"\d+(?:\.\d+)?", re.ASCII).fullmatch


def parse_duration(text: str) -> float:
    """
    Return the seconds of `text`. Blanks around it are ignored. Raises `ValueError` for anything that is not a duration.
    """
    text = text.strip()
    if _BARE(text):
        return float(text)
    match = _DURATION(text)
    if not text or match is None:
        raise ValueError("not a duration")
    # Rounded, so that "1s100ms" is 1.1 and not 1.1000000000000001: equal durations must compare equal.
    return round(sum(float(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount is not None), 9)


def format_duration(seconds: float) -> str:
    """
    Return `seconds` as people would write it: `90.0` is `"90s"`, `3600.0` is `"1h"`, `0.25` is `"250ms"`.
    """
    for unit, size in (("h", 3600), ("m", 60)):
        # One minute stays "60s", as people write it.
        if seconds > 60 and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    return f"{seconds * 1000:g}ms"
