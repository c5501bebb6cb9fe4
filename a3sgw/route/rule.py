"""
Read Traefik's rule language into a tree.

    rule    = term *( "||" term )
    term    = factor *( "&&" factor )
    factor  = "!" factor | "(" rule ")" | matcher
    matcher = NAME "(" [ text *( [","] text ) ] ")"
    text    = "`" any character but a backtick "`"  |  '"' characters and escapes '"'

Blanks and line breaks are free between the tokens, and names may be written in any letter case. Everything that can be wrong with a
rule is found here: its tree always compiles. Depth is bounded, so neither this parser nor whoever walks a tree needs a deep stack.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NoReturn, Union

import attrs

from a3sgw.route import argument

__all__ = ["MAX_DEPTH", "And", "Kind", "Matcher", "Not", "Or", "Rule", "RuleError", "parse_rule"]

MAX_DEPTH = 100
"""How deep parentheses and negations may nest."""

Kind = Literal["http", "tcp"]


class RuleError(ValueError):
    """
    A rule that cannot be read. `message` says why, `column` where: it counts the characters of the rule's text from 1.
    """

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message, column)
        self.message = message
        self.column = column

    def __str__(self) -> str:
        return f"column {self.column}: {self.message}"


# -- the tree -------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Matcher:
    """
    One condition, under its proper name.

    `arguments` are the texts, unquoted; `operands` what `argument` made of them, one for one. Two matchers are equal if name and
    arguments are.
    """

    name: str
    arguments: tuple[str, ...]
    operands: tuple[Any, ...] = attrs.field(eq=False, repr=False)

    def __str__(self) -> str:
        return _print(self)


@attrs.frozen(slots=True)
class Not:
    """
    `! …`.
    """

    operand: Rule

    def __str__(self) -> str:
        return _print(self)


@attrs.frozen(slots=True)
class And:
    """
    `… && …`: two operands or more, none of them an `And`.
    """

    operands: tuple[Rule, ...]

    def __str__(self) -> str:
        return _print(self)


@attrs.frozen(slots=True)
class Or:
    """
    `… || …`: two operands or more, none of them an `Or`.
    """

    operands: tuple[Rule, ...]

    def __str__(self) -> str:
        return _print(self)


Rule = Union[Matcher, Not, And, Or]


def _print(rule: Rule) -> str:
    """
    Return the text of a tree, with the parentheses it needs and no other.

    A loop, not a comprehension: one stack frame for each level, like all that walks a tree.
    """
    if isinstance(rule, Matcher):
        return f"{rule.name}({', '.join(map(_quote_argument, rule.arguments))})"
    texts = []
    for operand in (rule.operand,) if isinstance(rule, Not) else rule.operands:
        text = _print(operand)
        # A compound needs them everywhere but for `&&` within `||`.
        needs_none = isinstance(operand, (Matcher, Not)) or (isinstance(operand, And) and isinstance(rule, Or))
        texts.append(text if needs_none else f"({text})")
    if isinstance(rule, Not):
        return f"!{texts[0]}"
    return (" && " if isinstance(rule, And) else " || ").join(texts)


def _quote_argument(text: str) -> str:
    if "`" not in text:
        return f"`{text}`"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# -- the matchers ---------------------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class _Signature:
    """
    What a matcher takes: at least `least` and at most `most` arguments (`None`: any number), read by `readers`, the last of which reads
    all that are left.
    """

    kinds: tuple[Kind, ...]
    readers: tuple[Callable[[str], Any], ...]
    least: int = 1
    most: int | None = None


_HTTP: tuple[Kind, ...] = ("http",)
_TCP: tuple[Kind, ...] = ("tcp",)

SIGNATURES = {
    "Host": _Signature(_HTTP, (argument.read_host,)),
    "HostRegexp": _Signature(_HTTP, (argument.read_pattern,), most=1),
    "Path": _Signature(_HTTP, (argument.read_path,)),
    "PathPrefix": _Signature(_HTTP, (argument.read_path_prefix,)),
    "PathRegexp": _Signature(_HTTP, (argument.read_pattern,), most=1),
    "PathSegments": _Signature(_HTTP, (argument.read_path_segments,)),
    "Method": _Signature(_HTTP, (argument.read_method,)),
    "Header": _Signature(_HTTP, (argument.read_field_name, argument.read_field_value), least=2, most=2),
    "HeaderRegexp": _Signature(_HTTP, (argument.read_field_name, argument.read_pattern), least=2, most=2),
    "Query": _Signature(_HTTP, (argument.read_query_part,), most=2),
    "QueryRegexp": _Signature(_HTTP, (argument.read_query_part, argument.read_pattern), least=2, most=2),
    "ClientIP": _Signature(("http", "tcp"), (argument.read_network,)),
    "HostSNI": _Signature(_TCP, (argument.read_server_name,)),
    "HostSNIRegexp": _Signature(_TCP, (argument.read_pattern,), most=1),
    "ALPN": _Signature(_TCP, (argument.read_protocol,)),
}
"""Every matcher there is; `match` and `explain` have a test that they know all of them."""

_SYNONYMS = {"headers": "Header", "headersregexp": "HeaderRegexp"}
_NAMES = {**{name.lower(): name for name in SIGNATURES}, **_SYNONYMS}


def _resolve_name(word: str, kind: Kind, column: int) -> str:
    name = _NAMES.get(word.lower())
    if name is None:
        near = difflib.get_close_matches(word.lower(), _NAMES, n=1, cutoff=0.6) if len(word) <= 64 else []
        hint = f"did you mean {_NAMES[near[0]]}?" if near else f"the matchers are {', '.join(_names_of(kind))}"
        raise RuleError(f"unknown matcher {argument.quote(word)}; {hint}", column)
    if kind not in SIGNATURES[name].kinds:
        other = "tcp" if kind == "http" else "http"
        raise RuleError(
            f"{name} is a matcher for routers of {other} entrypoints and this rule is for {kind}; use {', '.join(_names_of(kind))}", column
        )
    return name


def _names_of(kind: Kind) -> list[str]:
    return [name for name, signature in SIGNATURES.items() if kind in signature.kinds]


def _read_operands(name: str, arguments: list[tuple[str, int]], column: int) -> tuple[Any, ...]:
    signature = SIGNATURES[name]
    least, most = signature.least, signature.most
    count = len(arguments)
    if count < least or (most is not None and count > most):
        if most is None:
            expected = f"at least {least}"
        elif least == most:
            expected = f"{least}"
        else:
            expected = f"{least} or {most}"
        plural = "" if expected.endswith("1") else "s"
        raise RuleError(f"{name}() expects {expected} argument{plural}, got {count}", column)
    operands = []
    last = len(signature.readers) - 1
    for at, (text, place) in enumerate(arguments):
        try:
            operands.append(signature.readers[min(at, last)](text))
        except ValueError as error:
            raise RuleError(f"{name}(): {error}", place) from None
    return tuple(operands)


# -- the parser -----------------------------------------------------------------------------------------------------------------------

_BLANKS = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPE = re.compile(r"""\\(?:([abfnrtv\\"'`])|x([0-7][0-9A-Fa-f])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))""")
_RAW = re.compile(r"`([^`]*)`")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@lru_cache(maxsize=32768)
def parse_rule(text: str, kind: Kind) -> Rule:
    """
    Return the tree of a rule. Raises `RuleError`.

    Trees are kept: a rule is read when it is checked, when its protocol is found out, and when its table is built, at every reload.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RuleError("a lone surrogate is not a character", error.start + 1) from None
    parser = _Parser(text, kind)
    if not parser.has_more():
        raise RuleError("the rule is empty; write at least one matcher, such as PathPrefix(`/`)", 1)
    rule = parser.read_rule(0)
    if parser.has_more():
        parser.refuse("&& or || or the end of the rule")
    return rule


class _Parser:
    """
    One descent through a text. `_at` is the next character that was not taken, never a blank once `has_more` was asked.
    """

    __slots__ = ("_at", "_kind", "_text")

    def __init__(self, text: str, kind: Kind) -> None:
        self._text = text
        self._kind: Kind = kind
        self._at = 0

    def has_more(self) -> bool:
        match = _BLANKS.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._at < len(self._text)

    def refuse(self, expected: str) -> NoReturn:
        found = f"found {argument.quote(self._text[self._at])}" if self.has_more() else "the rule ends here"
        raise RuleError(f"expected {expected}, {found}", self._at + 1)

    def _take(self, token: str) -> bool:
        if self.has_more() and self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def read_rule(self, depth: int) -> Rule:
        terms = [self._read_term(depth)]
        while self._take("||"):
            terms.append(self._read_term(depth))
        return _join(Or, terms)

    def _read_term(self, depth: int) -> Rule:
        factors = [self._read_factor(depth)]
        while self._take("&&"):
            factors.append(self._read_factor(depth))
        return _join(And, factors)

    def _read_factor(self, depth: int) -> Rule:
        if depth > MAX_DEPTH:
            raise RuleError(f"parentheses and negations nest deeper than {MAX_DEPTH}", self._at + 1)
        if self._take("!"):
            return Not(self._read_factor(depth + 1))
        if self._take("("):
            rule = self.read_rule(depth + 1)
            if not self._take(")"):
                self.refuse("&&, || or )")
            return rule
        return self._read_matcher()

    def _read_matcher(self) -> Matcher:
        self.has_more()
        column = self._at + 1
        word = _NAME.match(self._text, self._at)
        if word is None:
            self.refuse("a matcher, ! or (")
        name = _resolve_name(word[0], self._kind, column)
        self._at = word.end()
        if not self._take("("):
            self.refuse(f"( after {name}")
        arguments: list[tuple[str, int]] = []
        while not self._take(")"):
            # The comma may be left out, as the original gateway allowed.
            if arguments and self._take(",") and self.has_more() and self._text[self._at] not in '`"':
                self.refuse("an argument in backticks or double quotes after the comma")
            arguments.append(self._read_argument(name))
        operands = _read_operands(name, arguments, column)
        return Matcher(name, tuple(text for text, _ in arguments), operands)

    def _read_argument(self, name: str) -> tuple[str, int]:
        if not self.has_more() or self._text[self._at] not in '`"':
            self.refuse(f"an argument of {name} in backticks or double quotes, or )")
        column = self._at + 1
        quoted = _RAW.match(self._text, self._at) or _STRING.match(self._text, self._at)
        if quoted is None:
            raise RuleError("this quote is never closed", column)
        self._at = quoted.end()
        return (quoted[1] if quoted[0][0] == "`" else _unescape(quoted[1], column + 1)), column


def _join(kind: type[And] | type[Or], operands: list[Rule]) -> Rule:
    if len(operands) == 1:
        return operands[0]
    # Parentheses around the same operator say nothing: (a && b) && c is a && b && c.
    flat: list[Rule] = []
    for operand in operands:
        if isinstance(operand, kind):
            flat.extend(operand.operands)
        else:
            flat.append(operand)
    return kind(tuple(flat))


def _unescape(text: str, column: int) -> str:
    """
    Return `text`, the first character of which stands at `column`, with Go's escapes decoded.
    """
    pieces = []
    at = 0
    while (slash := text.find("\\", at)) >= 0:
        pieces.append(text[at:slash])
        match = _ESCAPE.match(text, slash)
        if match is None:
            raise RuleError(
                f"unknown escape {argument.quote(text[slash : slash + 2])}; write \\\\ for a backslash, or use backticks", column + slash
            )
        letter, *codes = match.groups()
        if letter is not None:
            pieces.append(_LETTERS.get(letter, letter))
        else:
            code = int(next(filter(None, codes)), 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise RuleError(f"{argument.quote(match[0])} is not a character", column + slash)
            pieces.append(chr(code))
        at = match.end()
    pieces.append(text[at:])
    return "".join(pieces)
