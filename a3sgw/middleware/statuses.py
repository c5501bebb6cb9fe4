"""
Lists of statuses by which a middleware tells failures, as they are written: `[503, "520-529"]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs

from a3sgw.config.kinds import Integer, parse_status_range
from a3sgw.config.setting import ListKind, ScalarKind, setting

__all__ = ["ErrorStatuses", "statuses_of", "statuses_setting"]

_ERROR: Final = Integer(minimum=400, maximum=599)


@attrs.frozen
class ErrorStatuses(ScalarKind):
    """
    One status of an error, as a number or as text, or a range of them; text in the model.
    """

    type_name: str = "status or range"
    expectation: str = 'a status like 503 or a range like "500-599"'

    def read(self, value: str | int | float | bool, is_foreign: bool) -> str:
        """
        Return the text that `parse_status_range` reads.
        """
        if not isinstance(value, str):
            return str(_ERROR.read(value, is_foreign))
        if parse_status_range(value)[0] < _ERROR.minimum:
            raise ValueError("which is not within 400 to 599, the statuses of errors")
        return value.strip()

    def bounds(self) -> str:
        """
        Return the range.
        """
        return "from 400 to 599"


def statuses_setting(doc: str, default: tuple[str, ...]) -> Any:
    """
    Declare `status_codes: tuple[str, ...]`.
    """
    return setting(ListKind(ErrorStatuses()), doc, default=default)


def statuses_of(texts: Iterable[str]) -> frozenset[int]:
    """
    Return every status that `texts` name.
    """
    return frozenset(status for text in texts for status in parse_status_range(text))
