"""
The scalar kinds: what one string, number or bool may be. Long because it is a list of them.

See `setting` for what a kind is. `read` raises `ValueError` with a reason that can follow "routers.api.priority is …," and that does not
repeat the value; without a reason the problem says what was expected instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import attrs

from a3sgw.config.address import check_host, check_network, parse_listen_address, parse_server_url, split_http_url
from a3sgw.config.duration import format_duration, parse_duration
from a3sgw.config.setting import MapKind, ScalarKind
from a3sgw.config.values import Secret
from a3sgw.config.wording import quote_all

__all__ = [
    "ADDRESS",
    "COOKIE_NAME",
    "DOMAIN",
    "FILE",
    "FLAG",
    "FOLDER",
    "HEADER_MAP",
    "HEADER_NAME",
    "HOST",
    "HTTP_URL",
    "METHOD",
    "NAME",
    "NETWORK",
    "OUTPUT_FILE",
    "PATH",
    "SECRET",
    "SERVER_URL",
    "STATUS_RANGE",
    "USER_NAME",
    "Duration",
    "Flag",
    "Integer",
    "IntegerOrWord",
    "Number",
    "OpenWord",
    "SecretText",
    "Text",
    "Word",
    "parse_status_range",
]

_LARGEST = 2**53
"""Beyond this a number in HCL, JSON or JavaScript is no longer exact."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,16}", re.ASCII).fullmatch
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII).fullmatch
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII).fullmatch
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch
_DOMAIN_NAME = re.compile(r"(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63}", re.ASCII).fullmatch
_PATH_TEXT = re.compile(r"/[!-~]*", re.ASCII).fullmatch


def _number_in(value: object, is_foreign: bool) -> int | float:
    """
    Return the number in `value`; one that came from elsewhere is text and may be converted.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if is_foreign and isinstance(value, str):
        text = value.strip()
        if _INTEGER(text):
            return int(text)
        if _NUMBER(text):
            return float(text)
    raise ValueError


@attrs.frozen
class Integer(ScalarKind):
    """
    A whole number within bounds.
    """

    minimum: int = 0
    maximum: int = _LARGEST
    unit: str = ""
    type_name: str = "integer"
    expectation: str = "an integer"

    def read(self, value: str | int | float | bool, is_foreign: bool) -> int:
        """
        Return an int.
        """
        number = _number_in(value, is_foreign)
        if number != number or number in (math.inf, -math.inf) or number != int(number):
            raise ValueError
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"which is not {self._range()}")
        return int(number)

    def bounds(self) -> str:
        """
        Return the range, and the unit.
        """
        text = self._range() if (self.minimum or self.maximum != _LARGEST) else ""
        return " ".join(part for part in (text, self.unit) if part)

    def _range(self) -> str:
        return f"{self.minimum} or more" if self.maximum == _LARGEST else f"from {self.minimum} to {self.maximum}"


@attrs.frozen
class IntegerOrWord(ScalarKind):
    """
    A whole number, or one word.
    """

    number: Integer
    word: str

    @property
    def type_name(self) -> str:  # type: ignore[override]
        return f'integer or "{self.word}"'

    @property
    def expectation(self) -> str:  # type: ignore[override]
        return f'an integer or "{self.word}"'

    def read(self, value: str | int | float | bool, is_foreign: bool) -> int | str:
        """
        Return an int or the word.
        """
        return self.word if value == self.word else self.number.read(value, is_foreign)

    def bounds(self) -> str:
        """
        Return the number's range.
        """
        return self.number.bounds()


@attrs.frozen
class Number(ScalarKind):
    """
    A number within bounds, with or without a fraction; a float in the model.
    """

    minimum: float = 0.0
    maximum: float = math.inf
    excludes_minimum: bool = False
    unit: str = ""
    type_name: str = "number"
    expectation: str = "a number"

    def read(self, value: str | int | float | bool, is_foreign: bool) -> float:
        """
        Return a finite float.
        """
        number = float(_number_in(value, is_foreign))
        if not math.isfinite(number):
            raise ValueError
        if not self.minimum <= number <= self.maximum or (self.excludes_minimum and number == self.minimum):
            raise ValueError(f"which is not {self.bounds()}")
        return number

    def bounds(self) -> str:
        """
        Return the range.
        """
        if self.excludes_minimum:
            text = f"greater than {self.minimum:g}"
            text = text if math.isinf(self.maximum) else f"{text} and at most {self.maximum:g}"
        else:
            text = f"{self.minimum:g} or more" if math.isinf(self.maximum) else f"from {self.minimum:g} to {self.maximum:g}"
        return f"{text} {self.unit}".rstrip()


@attrs.frozen
class Flag(ScalarKind):
    """
    true or false.
    """

    type_name: str = "bool"
    expectation: str = "true or false"

    def read(self, value: str | int | float | bool, is_foreign: bool) -> bool:
        """
        Return a bool.
        """
        if isinstance(value, bool):
            return value
        if is_foreign and isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        raise ValueError


@attrs.frozen
class Duration(ScalarKind):
    """
    A span of time, never zero; seconds as a float in the model.

    The upper bound keeps a slip of the pen from overflowing what the operating system takes for a timeout.
    """

    minimum: float = 0.001
    maximum: float = 366 * 86400.0
    type_name: str = "duration"
    expectation: str = 'a duration like "10s", "1m30s" or "250ms"'

    def read(self, value: str | int | float | bool, is_foreign: bool) -> float:
        """
        Return seconds.
        """
        if isinstance(value, str):
            try:
                seconds = parse_duration(value)
            except ValueError:
                raise ValueError from None
        else:
            seconds = float(_number_in(value, is_foreign))
        if seconds == 0:
            raise ValueError("which is no time at all; give a long duration to wait long")
        if not self.minimum <= seconds <= self.maximum:
            raise ValueError(f"which is not {self.bounds()}")
        return seconds

    def bounds(self) -> str:
        """
        Return the range.
        """
        return f"from {format_duration(self.minimum)} to {format_duration(self.maximum)}"


@attrs.frozen
class Word(ScalarKind):
    """
    One of a few words, written exactly so.
    """

    words: tuple[str, ...]
    type_name: str = "string"

    @property
    def expectation(self) -> str:  # type: ignore[override]
        return f"one of {quote_all(self.words)}"

    def read(self, value: str | int | float | bool, is_foreign: bool) -> str:
        """
        Return the word.
        """
        if isinstance(value, str) and value in self.words:
            return value
        raise ValueError

    def bounds(self) -> str:
        """
        Return the words.
        """
        return ", ".join(f'`"{word}"`' for word in self.words)

    def candidates(self) -> tuple[str, ...]:
        """
        Return the words.
        """
        return self.words


@attrs.frozen
class OpenWord(Word):
    """
    One of a few words, or another that somebody else must know; whoever does has to check that.
    """

    others: str = ""
    """How the reference calls the others."""

    def read(self, value: str | int | float | bool, is_foreign: bool) -> str:
        """
        Return the word.
        """
        if isinstance(value, str) and value.strip():
            return value
        raise ValueError

    def bounds(self) -> str:
        """
        Return the words, and what others there may be.
        """
        return f"{super().bounds()}, or {self.others}"


@attrs.frozen
class Text(ScalarKind):
    """
    A string; `check` returns what the model holds, or raises with the reason why not.
    """

    expectation: str = "a string"
    check: Callable[[str], str] | None = None
    may_be_empty: bool = False
    type_name: str = "string"

    def read(self, value: str | int | float | bool, is_foreign: bool) -> str:
        """
        Return a str.
        """
        if not isinstance(value, str):
            raise ValueError
        if not value.strip() and not self.may_be_empty:
            raise ValueError(f"which is empty; expected {self.expectation}")
        return value if self.check is None else self.check(value)


@attrs.frozen
class SecretText(ScalarKind):
    """
    A string that nobody may read; a `Secret` in the model. An empty one protects nothing and is refused.
    """

    expectation: str = "a string that is not empty"
    check: Callable[[str], str] | None = None
    type_name: str = "secret"
    is_secret: bool = True

    def read(self, value: str | int | float | bool, is_foreign: bool) -> Secret:
        """
        Return a `Secret`.
        """
        if not isinstance(value, str):
            raise ValueError
        if not value.strip():
            raise ValueError("which is empty; a secret must not be")
        return Secret(value if self.check is None else self.check(value))


def _validated_by(parse: Callable[[str], Any]) -> Callable[[str], str]:
    """
    Make a check of a parser: the text stays as it was written.
    """

    def check(text: str) -> str:
        parse(text)
        return text

    return check


def _check_header_name(text: str) -> str:
    if _TOKEN(text) is None:
        raise ValueError("which is not a valid header name")
    return text


def _check_header_value(text: str) -> str:
    if _HEADER_VALUE(text) is None:
        raise ValueError("which holds a control character")
    return text


def _check_cookie_name(text: str) -> str:
    if _TOKEN(text) is None:
        raise ValueError("which is not a valid cookie name")
    return text


def _check_user_name(text: str) -> str:
    if ":" in text or not text.isprintable():
        raise ValueError("which holds a colon or a control character, and HTTP has no way to send that")
    return text


def _check_method(text: str) -> str:
    if _TOKEN(text) is None:
        raise ValueError("which is not a valid method")
    return text


def _check_domain(text: str) -> str:
    if len(text) > 253 or _DOMAIN_NAME(text) is None:
        raise ValueError("which is not a domain name")
    return text


def _check_path(text: str) -> str:
    if _PATH_TEXT(text) is None:
        raise ValueError('which does not begin with "/" or holds a blank')
    return text


def _check_file(text: str) -> str:
    if "\0" in text:
        raise ValueError("which holds a NUL")
    return text


def _check_name(text: str) -> str:
    if not text.isprintable():
        raise ValueError("which holds a control character")
    return text


def _check_status_range(text: str) -> str:
    parse_status_range(text)
    return text


def parse_status_range(text: str) -> range:
    """
    Return the statuses that `200` or `500-599` names. Raises `ValueError`.
    """
    first, dash, last = text.strip().partition("-")
    if not (first.isascii() and first.isdecimal() and (not dash or (last.isascii() and last.isdecimal()))):
        raise ValueError('which is neither a status like "200" nor a range like "500-599"')
    low, high = int(first), int(last) if dash else int(first)
    if not 100 <= low <= high <= 599:
        raise ValueError("which is not within 100 to 599, the lower one first")
    return range(low, high + 1)


FLAG = Flag()
NAME = Text("a name", _check_name)
FILE = Text("the path of a file", _check_file)
OUTPUT_FILE = Text("the path of a file", _check_file)
FOLDER = Text("the path of a folder", _check_file)
ADDRESS = Text('an address like "0.0.0.0:80", ":8080" or "[::1]:443"', _validated_by(parse_listen_address), type_name="address")
NETWORK = Text("an IP address or a network in CIDR form", check_network, type_name="IP or CIDR")
SERVER_URL = Text('a URL like "http://127.0.0.1:8080" or "unix:/run/app.sock"', _validated_by(parse_server_url), type_name="URL")
HTTP_URL = Text('a URL like "http://127.0.0.1:8080"', _validated_by(split_http_url), type_name="URL")
HOST = Text("a host name", check_host)
PATH = Text('a path like "/health"', _check_path)
HEADER_NAME = Text("a header name", _check_header_name)
USER_NAME = Text("a user's name", _check_user_name)
COOKIE_NAME = Text("a cookie name", _check_cookie_name)
METHOD = Text("a method like GET", _check_method)
DOMAIN = Text('a domain name like "example.com" or "*.example.com"', _check_domain)
SECRET = SecretText()
STATUS_RANGE = Text('a status or a range of them, like "200" or "500-599"', _check_status_range)
HEADER_MAP = MapKind(_check_header_name, _check_header_value)
