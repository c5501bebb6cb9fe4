"""
The words of problems: how a place, a value and a guess are written, so that every problem of a configuration reads alike.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

from a3sgw.config.tree import Scalar

__all__ = ["Suggester", "article", "item_path", "quote", "quote_all", "show"]

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\-]+").fullmatch
_LONGEST_SHOWN = 80

_MOST_CANDIDATES = 2000
_MOST_SUGGESTIONS = 50


def item_path(kind: str, name: str) -> str:
    """
    Return the path of a named object: `routers.api`, or `routers["a.b"]` for a name that would not read as one word.
    """
    return f"{kind}.{name}" if _PLAIN_NAME(name) else f"{kind}[{quote(name)}]"


def quote(text: str) -> str:
    """
    Return `text` in double quotes, on one line and not longer than a line should be.
    """
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[:_LONGEST_SHOWN]}…"
    return json.dumps(text, ensure_ascii=False)


def quote_all(words: Iterable[object]) -> str:
    """
    Return the words quoted and joined: `"a", "b"`; numbers stay bare.
    """
    return ", ".join(quote(word) if isinstance(word, str) else str(word) for word in words)


def article(noun: str) -> str:
    """
    Return `noun` with its indefinite article.
    """
    return f"an {noun}" if noun[:1].lower() in "aeiou" and not noun.startswith("u") else f"a {noun}"


def show(scalar: Scalar, is_secret: bool = False) -> str:
    """
    Return how a problem names a value: as it would be written, except that nobody may read secrets or what came from elsewhere.
    """
    value = scalar.value
    if value is None:
        return "null"
    if is_secret:
        return "a hidden value"
    if scalar.is_foreign:
        return "a value from the environment or a file"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(value) if isinstance(value, str) else str(value)


class Suggester:
    """
    Guess what a misspelt word was meant to be.

    Comparing words is slow, and a file with one wrong name may have ten thousand: the number of guesses per load is bounded, and so is
    the number of words compared for each.
    """

    __slots__ = ("_left",)

    def __init__(self, limit: int = _MOST_SUGGESTIONS) -> None:
        self._left = limit

    def nearest(self, word: str, candidates: Iterable[str]) -> str | None:
        """
        Return the candidate most like `word`, or `None`.
        """
        if self._left <= 0 or not word or len(word) > 64:
            return None
        self._left -= 1
        folded = _fold(word)
        alike: list[str] = []
        for candidate in candidates:
            if abs(len(candidate) - len(word)) <= max(2, len(word) // 3):
                if _fold(candidate) == folded:
                    return candidate
                if len(alike) < _MOST_CANDIDATES:
                    alike.append(candidate)
        found = difflib.get_close_matches(word, alike, n=1, cutoff=0.65)
        return found[0] if found else None

    def hint(self, word: str, candidates: Iterable[str]) -> str:
        """
        Return `; did you mean "…"?`, or nothing.
        """
        found = self.nearest(word, candidates)
        return f"; did you mean {quote(found)}?" if found is not None else ""


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
