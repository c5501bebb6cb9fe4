"""
Cut HCL text into tokens, and remember what is wrong with it.

`Scanner` holds one token at a time and is moved on by whoever reads it. It knows two modes, as the language does: in a *line* a newline is
a token that ends something; *free*, between parentheses or square brackets, newlines are blanks. The mode decides how the next token
is cut, so it is changed before `advance`. Strings with an escape or an insertion and heredocs are only announced here (`QUOTE`,
`HEREDOC`); `hcl_template` reads them.

Every token is one match of one compiled pattern. All repetition in the patterns is possessive, or lazy up to a fixed end, so no text takes
more than linear time. A line and column are worked out only for a place that is asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, cast

from a3sgw.config.tree import Body, Position, Problem

__all__ = ["COMMENT", "DEPTH_LIMIT", "END", "HEREDOC", "NAME", "NEWLINE", "NUMBER", "PLAIN", "QUOTE", "HclError", "Scanner"]

DEPTH_LIMIT: Final = 100
"""How deep blocks, lists, objects, parentheses, calls and insertions may stand within each other, all counted together."""

NAME: Final = "name"
NEWLINE: Final = "newline"
"""A line break with the comment before it and every blank or commented line after it."""
PLAIN: Final = "plain"
"""A whole quoted string without backslash, `$` and `%`: its value is what stands between the quotes."""
QUOTE: Final = "quote"
"""The opening quote of any other string."""
HEREDOC: Final = "heredoc"
"""The first line of a heredoc."""
NUMBER: Final = "number"
END: Final = "end"
COMMENT: Final = "comment"
_WIDE: Final = "wide"
_MARK: Final = "mark"
_BAD: Final = "bad"

_WIDE_RANGE = "\x80-\U0010ffff"
_TOKENS = rf"""
    (?P<name>     [A-Za-z_][A-Za-z0-9_-]*+ (?![{_WIDE_RANGE}]) )
  | (?P<newline>  (?: (?:\#|//)[^\n]*+(?:\n|\Z) | \r?\n ) (?: [ \t\r\n]++ | (?:\#|//)[^\n]*+ )* )
  | (?P<comment>  /\* )
  | (?P<heredoc>  <<-?[A-Za-z_{_WIDE_RANGE}][A-Za-z0-9_{_WIDE_RANGE}-]*+\r?\n )
  | (?P<mark>     && | \|\| | [=!<>]= | => | \.\.\. | :: | [][{{}}()=,:.+*/%<>!?&|^~-] )
  | (?P<plain>    "[^"\\$%\r\n]*+" )
  | (?P<number>   [0-9](?: [eE][+-] | [0-9A-Za-z_.] )* )
  | (?P<quote>    " )
  | (?P<end>      \Z )
  | (?P<wide>     [A-Za-z_{_WIDE_RANGE}][A-Za-z0-9_{_WIDE_RANGE}-]*+ )
  | (?P<bad>      . )
"""
# The last two alternatives leave no text without a match, which is what the casts rely on.
_Matcher = Callable[[str, int], "re.Match[str]"]
_LINE = cast(_Matcher, re.compile(rf"(?: [ \t]++ | /\*(?s:.*?)\*/ )* (?:{_TOKENS})", re.VERBOSE).match)
_FREE = cast(
    _Matcher,
    re.compile(rf"(?: [ \t\r\n]++ | (?:\#|//)[^\n]*+ | /\*(?s:.*?)\*/ )* (?:{_TOKENS})", re.VERBOSE).match,
)

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]|\r(?!\n)")
_BYTE_ORDER_MARK = "\ufeff"

_CLOSERS = {"{": "}", "[": "]", "(": ")", "${": "}"}
_LEFT_OUT: Final = {
    "?": "a conditional",
    ".": "access to an attribute",
    "[": "an index or a list",
    "...": "expansion of arguments",
    "=>": "a for expression",
    "::": "a namespace",
    "(": "a call or a parenthesis",
    **dict.fromkeys(("+", "-", "*", "/", "%", "==", "!=", "<", ">", "<=", ">=", "&&", "||", "!", "&", "|", "^", "~"), "an operator"),
}
_REMEDIES = {
    "$": "${NAME} stands within double quotes",
    "'": "a string stands in double quotes",
    "`": "a string stands in double quotes, and one of several lines in a heredoc",
    ";": "attributes and blocks stand on lines of their own, and the items of a list or object are separated by commas",
}


class HclError(Exception):
    """
    A text could not be read; `problems` has everything that was found, in the order of the text, and is never empty.

    `body` is the tree if the syntax was right and only values are missing, so that the rest can be checked as well; otherwise `None`.
    """

    def __init__(self, problems: tuple[Problem, ...], body: Body | None = None) -> None:
        super().__init__(problems)
        self.problems = problems
        self.body = body

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Scanner:
    """
    One token of a text after the other.

    `kind` is one of this module's constants, or the token itself if it is a mark such as `=` or `&&`; `lexeme` is its text, which stands
    from `start` to `end`. `path` is where in the configuration the reader is, kept by the reader, and goes into every problem.
    """

    __slots__ = ("_line_starts", "_match", "_openings", "_problems", "end", "kind", "lexeme", "path", "source", "start", "text")

    text: str
    source: str
    kind: str
    lexeme: str
    start: int
    end: int
    path: list[str | int]

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.kind = END
        self.lexeme = ""
        self.path = []
        self._match = _LINE
        self._openings: list[int] = []
        self._problems: list[Problem] = []
        # Windows editors write the mark and show nothing; like HashiCorp's parser we look past it, and it takes up no column.
        self.start = self.end = 1 if text.startswith(_BYTE_ORDER_MARK) else 0
        self._line_starts = [self.end, *(match.end() for match in re.finditer("\n", text))]
        forbidden = _FORBIDDEN.search(text)
        if forbidden is not None:
            raise self._forbidden(forbidden.start())

    def advance(self) -> None:
        """
        Go to the next token.
        """
        match = self._match(self.text, self.end)
        kind = cast(str, match.lastgroup)
        self.lexeme = lexeme = match[kind]
        self.end = end = match.end()
        self.start = end - len(lexeme)
        self.kind = lexeme if kind == _MARK else kind
        if kind in _RARE:
            self._check_rare(kind)

    def enter_line(self, opening: int) -> _Matcher:
        """
        Begin something that newlines divide, opened at `opening`; return what `leave` wants.
        """
        return self._enter(_LINE, opening)

    def enter_free(self, opening: int) -> _Matcher:
        """
        Begin something in which newlines are blanks, opened at `opening`; return what `leave` wants.
        """
        return self._enter(_FREE, opening)

    def leave(self, outer: _Matcher) -> None:
        """
        Go back to the mode there was before, when the current token is the closing one.
        """
        self._match = outer
        self._openings.pop()

    def position(self, offset: int) -> Position:
        """
        Return where `offset` is.
        """
        line = bisect_right(self._line_starts, offset)
        return Position(self.source, line, offset - self._line_starts[line - 1] + 1)

    def report(self, offset: int, message: str) -> None:
        """
        Remember a problem that need not stop the reading.
        """
        self._problems.append(self._problem(offset, message))

    def report_at(self, position: Position, name: str, message: str) -> None:
        """
        Remember a problem of what is called `name`, at a place that was passed already.
        """
        self._problems.append(Problem(position, self._joined_path(name), message))

    def error(self, offset: int, message: str) -> HclError:
        """
        Return the exception for a problem after which nothing that follows could be trusted, with all that were found before it.
        """
        self.report(offset, message)
        return HclError(self._sorted_problems())

    def check(self, body: Body) -> None:
        """
        Raise `HclError` with `body`, the whole tree, if anything was reported.
        """
        if self._problems:
            raise HclError(self._sorted_problems(), body)

    def unexpected(self, expected: str) -> HclError:
        """
        Return the error for a token that cannot stand where it does.

        What the language has and we leave out is called by its name. At the end of the file the fault lies with what is still open.
        """
        if self.kind == END and self._openings:
            opening = self._openings[-1]
            opener = "${" if self.text[opening] == "$" else self.text[opening]
            return self.error(opening, f'the "{opener}" opened here is never closed; a "{_CLOSERS[opener]}" is missing')
        if self.kind in _LEFT_OUT:
            return self.error(self.start, f'"{self.kind}" ({_LEFT_OUT[self.kind]}) is not supported here; expected {expected}')
        return self.error(self.start, f"{self.found()} is not expected here; expected {expected}")

    def found(self) -> str:
        """
        Name the current token for a message; what a string or a value says is left out, because it may be a secret.
        """
        words = {NEWLINE: "the end of the line", END: "the end of the file", PLAIN: "a string", QUOTE: "a string", HEREDOC: "a heredoc"}
        return words.get(self.kind) or {NAME: "a word", NUMBER: "a number"}.get(self.kind) or f'"{self.kind}"'

    def _enter(self, matcher: _Matcher, opening: int) -> _Matcher:
        if len(self._openings) == DEPTH_LIMIT:
            raise self.error(opening, f"this stands more than {DEPTH_LIMIT} levels deep; nest less")
        self._openings.append(opening)
        outer, self._match = self._match, matcher
        return outer

    def _check_rare(self, kind: str) -> None:
        """
        Refuse what can be no token; names beyond ASCII follow Unicode's rule for identifiers.
        """
        if kind == _WIDE:
            if self.lexeme.replace("-", "_").isidentifier():
                self.kind = NAME
                return
            # A name begins with a letter and goes on with letters and digits, so only its first character is judged as a beginning.
            wrong = (at for at, character in enumerate(self.lexeme) if not ("_" * bool(at) + character.replace("-", "_")).isidentifier())
            raise self._misplaced(self.start + next(wrong, 0))
        if kind == HEREDOC:
            if not self.lexeme.lstrip("<-").rstrip("\r\n").replace("-", "_").isidentifier():
                raise self.error(self.start, "the name that ends a heredoc consists of letters, digits, _ and -")
            return
        if kind == COMMENT:
            raise self.error(self.start, 'the comment opened here is never closed; end it with "*/"')
        raise self._misplaced(self.start)

    def _misplaced(self, offset: int) -> HclError:
        character = self.text[offset]
        shown = f'"{character}" (U+{ord(character):04X})' if character.isprintable() else f"U+{ord(character):04X}"
        remedy = _REMEDIES.get(character, "remove it, or put it into a string")
        return self.error(offset, f"the character {shown} is not used in HCL; {remedy}")

    def _forbidden(self, offset: int) -> HclError:
        character = self.text[offset]
        if character == "\r":
            return self.error(offset, "a carriage return without a line feed; end lines with LF or CRLF, or write \\r in a string")
        name = f"U+{ord(character):04X}"
        if "\ud800" <= character <= "\udfff":
            return self.error(offset, f"half of a surrogate pair, {name}; save the file as UTF-8")
        return self.error(offset, f"the control character {name}; remove it, or write \\u{ord(character):04x} in a string")

    def _problem(self, offset: int, message: str) -> Problem:
        return Problem(self.position(offset), self._joined_path(), message)

    def _joined_path(self, *more: str) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*self.path, *more))
        return "".join(steps).removeprefix(".")

    def _sorted_problems(self) -> tuple[Problem, ...]:
        return tuple(sorted(self._problems, key=lambda problem: cast(Position, problem.position)))


_RARE: Final = frozenset({_WIDE, HEREDOC, COMMENT, _BAD})
