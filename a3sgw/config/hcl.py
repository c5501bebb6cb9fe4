"""
Turn HCL text into the tree of `config.tree`.

The language is HCL2's native syntax without its operators: bodies, blocks, attributes, literals, lists, objects, heredocs, and as the only
templates and functions what brings in the environment and files (see `hcl_template`). What HashiCorp's parser refuses is refused here;
what the subset leaves out (arithmetic, conditionals, `for`, indexes, references, directives) is refused by name, never taken for text.
Three things are stricter than theirs: control characters, a key twice in an object, and a name that is both attribute and block.

The parser is recursive descent with one token in hand. A method begins on the first token of what it reads and ends on the token after it.
A syntax error ends the reading; everything else that is wrong is collected, so that one run shows it all. Messages name attributes,
blocks and functions, never what a value says: it may be a secret that lost its quotes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from a3sgw.config.hcl_lexer import END, HEREDOC, NAME, NEWLINE, NUMBER, PLAIN, QUOTE, HclError, Scanner
from a3sgw.config.hcl_template import Terms, number_text, plain_text
from a3sgw.config.tree import Attribute, Block, Body, ListValue, ObjectEntry, ObjectValue, Position, Scalar, Value

__all__ = ["HclError", "parse"]

_NUMBER = re.compile(r"[0-9]+(?P<rest>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)").fullmatch
_DIGITS_LIMIT: Final = 100

_LITERALS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_NEARLY: Final = {"yes": "true", "on": "true", "no": "false", "off": "false", "none": "null", "nil": "null"}
_LABELS: Final = frozenset({NAME, PLAIN, QUOTE})
_KEYS: Final = frozenset({NAME, PLAIN, QUOTE, HEREDOC, NUMBER, "-", "("})


def parse(
    text: str,
    source: str,
    *,
    environ: Mapping[str, str],
    read_file: Callable[[str], str] | None = None,
) -> Body:
    """
    Return the tree of `text`, or raise `HclError` with every problem that could be found.

    `source` is what positions call the text. `environ` is where `${NAME}` and `env()` look. `read_file` returns the text of a file for
    `file()`, resolving relative paths as it sees fit, and raises `OSError` or `UnicodeError` if it cannot; without it `file()` is refused.
    """
    return _Parser(text, source, environ, read_file).whole()


class _Parser:
    """
    The reading of one text.
    """

    __slots__ = ("_scanner", "_terms")

    def __init__(self, text: str, source: str, environ: Mapping[str, str], read_file: Callable[[str], str] | None) -> None:
        self._scanner = Scanner(text, source)
        self._terms = Terms(self._scanner, environ, read_file, self._value)

    def whole(self) -> Body:
        """
        Read everything.
        """
        scanner = self._scanner
        scanner.advance()
        body = self._items(Position(scanner.source, 1, 1), END)
        scanner.check(body)
        return body

    # -- bodies -----------------------------------------------------------------------------------------------------------------------

    def _items(self, position: Position, closer: str) -> Body:
        """
        Read attributes and blocks up to `closer`, which is a brace or the end of the file.
        """
        scanner = self._scanner
        attributes: dict[str, Attribute] = {}
        blocks: list[Block] = []
        while True:
            while scanner.kind == NEWLINE:
                scanner.advance()
            if scanner.kind != NAME:
                break
            name, place = scanner.lexeme, scanner.start
            scanner.advance()
            if scanner.kind == "=":
                self._attribute(name, place, attributes)
            else:
                blocks.append(self._block(name, place))
            if scanner.kind != NEWLINE and scanner.kind != END:
                raise scanner.unexpected("the end of the line")
        if scanner.kind != closer:
            raise self._no_item()
        self._report_conflicts(attributes, blocks)
        return Body(tuple(attributes.values()), tuple(blocks), position)

    def _attribute(self, name: str, place: int, attributes: dict[str, Attribute]) -> None:
        """
        Read `= value` and add the attribute, unless it is there already.
        """
        scanner = self._scanner
        position = scanner.position(place)
        scanner.path.append(name)
        scanner.advance()
        if scanner.kind == NEWLINE:
            raise scanner.error(scanner.start, f'attribute "{name}" has no value; it begins on the same line as the equals sign')
        value = self._value()
        if name in attributes:
            first = attributes[name].position
            scanner.report(place, f'attribute "{name}" is already set at {first}; keep one of the two')
        else:
            attributes[name] = Attribute(name, value, position)
        scanner.path.pop()

    def _block(self, name: str, place: int) -> Block:
        """
        Read labels, braces and body of a block.
        """
        scanner = self._scanner
        labels: list[str] = []
        label_positions: list[Position] = []
        while scanner.kind in _LABELS:
            label_positions.append(scanner.position(scanner.start))
            if scanner.kind == QUOTE:
                labels.append(str(self._terms.quoted(may_insert=False).value))
                continue
            labels.append(scanner.lexeme if scanner.kind == NAME else scanner.lexeme[1:-1])
            scanner.advance()
        if scanner.kind != "{":
            raise self._no_body(name, bool(labels))
        position = scanner.position(place)
        steps = len(scanner.path)
        scanner.path += (name, *labels)
        opening = scanner.start
        outer = scanner.enter_line(opening)
        scanner.advance()
        start = scanner.position(opening)
        body = self._items(start, "}") if scanner.kind in (NEWLINE, END, "}") else self._one_line(name, start)
        scanner.leave(outer)
        scanner.advance()
        del scanner.path[steps:]
        return Block(name, tuple(labels), tuple(label_positions), body, position)

    def _one_line(self, block: str, position: Position) -> Body:
        """
        Read the one attribute of `block { attribute = value }`.
        """
        scanner = self._scanner
        if scanner.kind != NAME:
            raise scanner.unexpected("an attribute")
        name, place = scanner.lexeme, scanner.start
        scanner.advance()
        if scanner.kind in _LABELS or scanner.kind == "{":
            raise scanner.error(place, f'a block cannot stand within block "{block}" on one line; break the line after the brace')
        if scanner.kind != "=":
            raise scanner.unexpected('"=" and a value')
        attributes: dict[str, Attribute] = {}
        self._attribute(name, place, attributes)
        if scanner.kind in (NEWLINE, ",", NAME):
            raise scanner.error(
                scanner.start,
                f'block "{block}" begins with an attribute on its own line, so it may hold no more than that and must end there with "}}"; '
                "for more, put each attribute and the closing brace on lines of their own",
            )
        if scanner.kind != "}":
            raise scanner.unexpected('"}"')
        return Body(tuple(attributes.values()), (), position)

    def _report_conflicts(self, attributes: dict[str, Attribute], blocks: list[Block]) -> None:
        """
        Report names that are both attribute and block: what the two together mean nobody could say.
        """
        first_blocks: dict[str, Block] = {}
        for block in blocks:
            if block.type in attributes:
                first_blocks.setdefault(block.type, block)
        for name, block in first_blocks.items():
            attribute = attributes[name]
            first, second = sorted((attribute.position, block.position))
            here, there = ("attribute", "block") if second is attribute.position else ("block", "attribute")
            self._scanner.report_at(second, name, f'{here} "{name}" is already set as {there} at {first}; keep one of the two')

    # -- values -----------------------------------------------------------------------------------------------------------------------

    def _value(self) -> Value:
        scanner = self._scanner
        kind = scanner.kind
        if kind == PLAIN:
            scalar = Scalar(plain_text(scanner.lexeme[1:-1]), scanner.position(scanner.start))
            scanner.advance()
            return scalar
        if kind == NUMBER or kind == "-":
            return self._number()
        if kind == NAME:
            name, place = scanner.lexeme, scanner.start
            scanner.advance()
            return self._terms.call(name, place) if scanner.kind == "(" else self._word(name, place)
        if kind == "[":
            return self._list()
        if kind == "{":
            return self._object()
        if kind == QUOTE:
            return self._terms.quoted()
        if kind == HEREDOC:
            return self._terms.heredoc()
        if kind == "(":
            return self._parenthesised()
        raise self._no_value()

    def _word(self, name: str, place: int) -> Scalar:
        """
        Return what the keyword `name` means; the scanner is past it.
        """
        scanner = self._scanner
        if name in _LITERALS:
            return Scalar(_LITERALS[name], scanner.position(place))
        keyword = _NEARLY.get(name.lower(), name.lower())
        remedy = f"write {keyword}" if keyword in _LITERALS else "text stands in double quotes"
        raise scanner.error(place, f"a bare word is not a value; {remedy}")

    def _number(self) -> Scalar:
        """
        Read a number with or without a minus sign. HCL has one kind of number, so `3.0` and `3e0` are the integer 3.
        """
        scanner = self._scanner
        place = scanner.start
        sign = 1
        if scanner.kind == "-":
            sign = -1
            scanner.advance()
            if scanner.kind != NUMBER:
                raise scanner.error(place, "a minus sign stands before a number only; arithmetic is not supported here")
        match = _NUMBER(scanner.lexeme)
        if match is None:
            raise scanner.error(scanner.start, "malformed number; one is like 10, 2.5 or 1e3, and anything else stands in double quotes")
        if len(scanner.lexeme) > _DIGITS_LIMIT:
            raise scanner.error(scanner.start, f"a number of more than {_DIGITS_LIMIT} characters; write a shorter one")
        number: int | float
        if match["rest"]:
            number = float(scanner.lexeme)
            if not math.isfinite(number):
                raise scanner.error(scanner.start, "a number too large to be held; write a smaller one")
            exact = Decimal(scanner.lexeme)
            if exact == exact.to_integral_value():
                number = int(exact)
        else:
            number = int(scanner.lexeme)
        scanner.advance()
        return Scalar(sign * number, scanner.position(place))

    def _parenthesised(self) -> Value:
        scanner = self._scanner
        opening = scanner.start
        outer = scanner.enter_free(opening)
        scanner.advance()
        value = self._value()
        if scanner.kind != ")":
            raise scanner.unexpected('")"')
        scanner.leave(outer)
        scanner.advance()
        return value

    def _list(self) -> ListValue:
        scanner = self._scanner
        opening = scanner.start
        outer = scanner.enter_free(opening)
        scanner.advance()
        self._refuse_for()
        items: list[Value] = []
        scanner.path.append(0)
        while scanner.kind != "]":
            items.append(self._value())
            scanner.path[-1] = len(items)
            if scanner.kind == ",":
                scanner.advance()
            elif scanner.kind != "]":
                raise scanner.unexpected('"," or "]"')
        scanner.path.pop()
        scanner.leave(outer)
        scanner.advance()
        return ListValue(tuple(items), scanner.position(opening))

    def _object(self) -> ObjectValue:
        scanner = self._scanner
        opening = scanner.start
        outer = scanner.enter_line(opening)
        scanner.advance()
        self._refuse_for()
        entries: dict[str, ObjectEntry] = {}
        while True:
            while scanner.kind == NEWLINE:
                scanner.advance()
            if scanner.kind == "}":
                break
            self._entry(entries)
            if scanner.kind == ",":
                scanner.advance()
            elif scanner.kind != NEWLINE and scanner.kind != "}":
                raise scanner.unexpected('"," or a new line or "}"')
        scanner.leave(outer)
        scanner.advance()
        return ObjectValue(tuple(entries.values()), scanner.position(opening))

    def _entry(self, entries: dict[str, ObjectEntry]) -> None:
        """
        Read `key = value` or `key : value` and add it, unless the key is there already.
        """
        scanner = self._scanner
        place = scanner.start
        key = self._key()
        if scanner.kind != "=" and scanner.kind != ":":
            raise scanner.unexpected('"=" or ":" after the key of an object')
        scanner.path.append(key)
        scanner.advance()
        value = self._value()
        if key in entries:
            scanner.report(place, f'the key "{key}" is already set at {entries[key].position}; keep one of the two')
        else:
            entries[key] = ObjectEntry(key, value, scanner.position(place))
        scanner.path.pop()

    def _key(self) -> str:
        """
        Read the key of an object: a name, which is itself, or a string or number, which may stand in parentheses.
        """
        scanner = self._scanner
        place = scanner.start
        if scanner.kind == NAME:
            key = plain_text(scanner.lexeme)
            scanner.advance()
            return key
        if scanner.kind not in _KEYS:
            raise scanner.unexpected("the key of an object")
        value = self._value()
        if not isinstance(value, Scalar) or value.value is None or isinstance(value.value, bool):
            raise scanner.error(place, "the key of an object is a name, a string or a number")
        if value.is_foreign:
            # Keys are printed freely, in errors and in the configuration shown to operators; values are not.
            scanner.report(place, "the key of an object is a name and must be written out, not come from the environment or a file")
            return ""
        return value.value if isinstance(value.value, str) else number_text(value.value)

    # -- refusals ---------------------------------------------------------------------------------------------------------------------

    def _refuse_for(self) -> None:
        scanner = self._scanner
        if scanner.kind == NAME and scanner.lexeme == "for":
            raise scanner.error(scanner.start, 'for expressions are not supported here; a key of that name is written "for"')

    def _no_item(self) -> HclError:
        scanner = self._scanner
        if scanner.kind == "}":
            return scanner.error(scanner.start, 'this "}" closes nothing; remove it, or add the "{" it belongs to')
        if scanner.kind in (PLAIN, QUOTE):
            return scanner.error(scanner.start, "the name of an attribute or block stands without quotes")
        return scanner.unexpected("an attribute or a block")

    def _no_body(self, name: str, has_labels: bool) -> HclError:
        scanner = self._scanner
        if scanner.kind == "=":
            return scanner.error(scanner.start, f'block "{name}" takes no "="; with labels it is a block, and an attribute has none')
        if scanner.kind == ":" and not has_labels:
            return scanner.error(scanner.start, f'an attribute is written with "=": {name} = …')
        if has_labels:
            return scanner.unexpected('another label or "{" on the same line')
        return scanner.unexpected(f'"=" and a value, or "{{" and a body, on the same line as "{name}"')

    def _no_value(self) -> HclError:
        scanner = self._scanner
        if scanner.kind == "<":
            return scanner.error(scanner.start, "a heredoc begins with << or <<-, then at once a name, then at once a new line")
        return scanner.unexpected("a value: a string, a number, true, false, null, a list or an object")
