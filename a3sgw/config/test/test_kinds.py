"""
Tests of what one value may be.
"""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.kinds import (
    ADDRESS,
    COOKIE_NAME,
    DOMAIN,
    FILE,
    FLAG,
    HEADER_NAME,
    HTTP_URL,
    METHOD,
    NAME,
    NETWORK,
    PATH,
    SECRET,
    SERVER_URL,
    USER_NAME,
    Duration,
    Integer,
    IntegerOrWord,
    Number,
    Text,
    Word,
)
from a3sgw.config.setting import ScalarKind
from a3sgw.config.values import Secret

_SMALL = Integer(minimum=1, maximum=9)
_PART = Number(minimum=0.0, maximum=1.0, excludes_minimum=True)


class ScalarKindTests(SynchronousTestCase):
    """
    Each kind takes what it should and nothing else.
    """

    def test_taken(self):
        """
        Good values come out as the model holds them; text from the environment becomes the number or bool that is expected.
        """
        cases: list[tuple[ScalarKind, Any, bool, Any]] = [
            (_SMALL, 5, False, 5),
            (_SMALL, 5.0, False, 5),
            (_SMALL, " 5 ", True, 5),
            (Integer(minimum=-5), -5, False, -5),
            (Integer(minimum=-5), "-5", True, -5),
            (_PART, 1, False, 1.0),
            (_PART, 0.25, False, 0.25),
            (_PART, "2.5e-1", True, 0.25),
            (FLAG, True, False, True),
            (FLAG, "True", True, True),
            (FLAG, "false", True, False),
            (Duration(), "1m30s", False, 90.0),
            (Duration(), 15, False, 15.0),
            (Duration(), 0.5, False, 0.5),
            (Duration(), "15", True, 15.0),
            (Word(("a", "b")), "b", False, "b"),
            (IntegerOrWord(_SMALL, "auto"), "auto", False, "auto"),
            (IntegerOrWord(_SMALL, "auto"), 4, False, 4),
            (IntegerOrWord(_SMALL, "auto"), "4", True, 4),
            (Text(may_be_empty=True), "", False, ""),
            (SECRET, "x", False, Secret("x")),
            (ADDRESS, ":80", False, ":80"),
            (NETWORK, " 10.0.0.0/8 ", False, "10.0.0.0/8"),
            (SERVER_URL, "http://a/", False, "http://a/"),
            (HTTP_URL, "https://a/?b", False, "https://a/?b"),
            (PATH, "/a?b=1", False, "/a?b=1"),
            (HEADER_NAME, "X-A", False, "X-A"),
            (DOMAIN, "*.example.com", False, "*.example.com"),
            (NAME, "Größe", False, "Größe"),
        ]
        for kind, value, is_foreign, expected in cases:
            found = kind.read(value, is_foreign)
            self.assertEqual((found, type(found)), (expected, type(expected)), f"{kind.type_name} {value!r}")

    def test_refused(self):
        """
        Other types, values out of bounds and malformed texts are refused. A string is no number unless it came from elsewhere.
        """
        cases: list[tuple[ScalarKind, list[Any]]] = [
            (_SMALL, ["5", True, 0, 10, 1.5, float("inf"), float("nan"), ""]),
            (_PART, ["0.5", True, 0, 1.01, -1, float("inf"), float("nan")]),
            (FLAG, ["true", 1, 0, "yes"]),
            (Duration(), ["0s", 0, -1, True, "soon", "", "10000d", float("inf"), "0.0001s"]),
            (Word(("a", "b")), ["A", "c", "", 1, True]),
            (IntegerOrWord(_SMALL, "auto"), ["Auto", "4", 0, True]),
            (Text(), ["", "  ", 5, True]),
            (SECRET, ["", " \n", 5, True]),
            (ADDRESS, ["80", 80, ""]),
            (NETWORK, ["x", ""]),
            (SERVER_URL, ["ftp://a", ""]),
            (HTTP_URL, ["tcp://a:1", "a"]),
            (PATH, ["health", "/a b", "/ä", "/\n"]),
            (FILE, ["a\0b", ""]),
            (HEADER_NAME, ["X A", "X:A", "Ä", "X\n"]),
            (COOKIE_NAME, ["a;b", "a=b", "a b"]),
            (METHOD, ["GE T", ""]),
            (DOMAIN, ["a b.test", "*", "a.*.test", "-a.test", "localhost", "x" * 64 + ".test"]),
            (NAME, ["a\nb", "a\x1bb"]),
            (USER_NAME, ["a:b", ""]),
        ]
        for kind, values in cases:
            for value in values:
                with self.assertRaises(ValueError, msg=f"{kind.type_name} {value!r}"):
                    kind.read(value, False)

    def test_foreign_text_is_read_strictly(self):
        """
        Text from the environment that is almost a number or a bool is refused.
        """
        cases = [
            (_SMALL, ["", "5x", "0x5", "5_0", "\u0665", "1" * 400]),
            (_PART, ["", "nan", "inf", "1e999"]),
            (FLAG, ["1", "yes", ""]),
        ]
        for kind, values in cases:
            for value in values:
                with self.assertRaises(ValueError, msg=f"{kind.type_name} {value!r}"):
                    kind.read(value, True)

    def test_bounds(self):
        """
        The reference says what is allowed.
        """
        cases = [
            (_SMALL, "from 1 to 9"),
            (Integer(minimum=1, unit="bytes"), "1 or more bytes"),
            (Integer(), ""),
            (_PART, "greater than 0 and at most 1"),
            (Number(maximum=1.0), "from 0 to 1"),
            (Word(("a", "b")), '`"a"`, `"b"`'),
        ]
        for kind, expected in cases:
            self.assertEqual(kind.bounds(), expected)
