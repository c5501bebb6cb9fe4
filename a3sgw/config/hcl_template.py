"""
Read strings, heredocs and calls, and put in what they ask of the environment and of files.

`Terms` works on the scanner of one text. What comes from outside is a value from the moment it is fetched: it is never looked at as HCL
again, it is marked foreign in the tree, and no message repeats it. A variable that is not set or a file that cannot be read is reported
and reading goes on, so that one start shows all of them.

Literal text is brought to Unicode's normal form C, as HashiCorp's parser does; foreign text is left as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import groupby
from typing import Final, cast

from a3sgw.config.hcl_lexer import HEREDOC, NAME, NUMBER, PLAIN, QUOTE, HclError, Scanner
from a3sgw.config.tree import Scalar, Value

__all__ = ["Terms", "number_text", "plain_text"]

_Matcher = Callable[[str, int], "re.Match[str]"]
_Piece = str | Scalar

_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}

# A sign stands for itself unless it begins an insertion or a doubled sign; a line of a heredoc is cut after its newline.
_SIGNS = r"\$(?!\$?\{) | %(?!%?\{)"
_SPECIAL = r"(?P<doubled> \$\$\{ | %%\{ ) | (?P<insertion> \$\{ ) | (?P<directive> %\{ )"
_QUOTED_RUN = rf'(?P<run> (?: [^"\\$%\r\n]++ | {_SIGNS} )+ )'
_QUOTED_PIECE = re.compile(rf'{_QUOTED_RUN} | {_SPECIAL} | (?P<close> ") | (?P<escape> \\)', re.VERBOSE).match
_HEREDOC_PIECE = re.compile(rf"(?P<run> (?: [^$%\n]++ | {_SIGNS} )+ \n? | \n ) | {_SPECIAL}", re.VERBOSE).match

_ESCAPE = re.compile(r'\\(?:(?P<short>[nrt"\\])|u(?P<four>[0-9A-Fa-f]{4})|U(?P<eight>[0-9A-Fa-f]{8}))').match
_DEFAULTED = re.compile(r"[ \t\r\n]*+([A-Za-z_][A-Za-z0-9_]*+):-").match
_QUOTED_DEFAULT = cast(_Matcher, re.compile(r'(?: [^"\\{}\r\n]++ | \\[^\r\n] )*', re.VERBOSE).match)
_HEREDOC_DEFAULT = cast(_Matcher, re.compile(r"[^{}\r\n]*+").match)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_LAST_LINE_BREAK = re.compile(r"\r?\n\Z")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]").search
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*").fullmatch



def plain_text(text: str) -> str:
    """
    Return literal text as it goes into the tree.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def number_text(number: int | float) -> str:
    """
    Return a number as text, never with an exponent.
    """
    return str(number) if isinstance(number, int) else format(Decimal(repr(number)), "f")


class Terms:
    """
    The strings and calls of one text.

    A method begins with the scanner on the first token of what it reads and ends with the scanner on the token after it. `read_value` is
    the parser's, for the arguments of calls. `read_file` may be `None` where files must not be read.
    """

    __slots__ = ("_environ", "_read_file", "_read_value", "_scanner")

    def __init__(
        self,
        scanner: Scanner,
        environ: Mapping[str, str],
        read_file: Callable[[str], str] | None,
        read_value: Callable[[], Value],
    ) -> None:
        self._scanner = scanner
        self._environ = environ
        self._read_file = read_file
        self._read_value = read_value

    # -- strings ----------------------------------------------------------------------------------------------------------------------

    def quoted(self, *, may_insert: bool = True) -> Scalar:
        """
        Read a string in double quotes. With an insertion and nothing else it is the inserted value, which may then be a number.
        """
        scanner = self._scanner
        opening = scanner.start
        offset = opening + 1
        pieces: list[_Piece] = []
        while True:
            match = _QUOTED_PIECE(scanner.text, offset)
            if match is None:
                raise scanner.error(opening, 'the string opened here does not end on its line; end it with ", write \\n, or use a heredoc')
            kind = cast(str, match.lastgroup)
            if kind == "run":
                pieces.append(match[0])
                offset = match.end()
            elif kind == "escape":
                text, offset = self._escape(offset)
                pieces.append(text)
            elif kind == "close":
                scanner.end = offset + 1
                scanner.advance()
                return self._joined(pieces, opening)
            elif kind == "insertion" and not may_insert:
                raise scanner.error(offset, "the label of a block is a name and takes no ${…}; write $${ for the two characters themselves")
            else:
                piece, offset = self._special(kind, offset, _QUOTED_DEFAULT)
                pieces.append(piece)

    def heredoc(self) -> Scalar:
        """
        Read a heredoc, whose last newline belongs to it. `<<-` takes from each line the blanks that all of them begin with.
        """
        scanner = self._scanner
        text, opening, offset = scanner.text, scanner.start, scanner.end
        is_indented = scanner.lexeme[2] == "-"
        marker = scanner.lexeme[3 if is_indented else 2 :].rstrip("\r\n")
        pieces: list[_Piece] = []
        line_heads: list[int] = []
        at_line_start = True
        while True:
            if at_line_start:
                line_end = text.find("\n", offset)
                if text[offset : line_end if line_end >= 0 else None].strip() == marker:
                    break
                line_heads.append(len(pieces))
            match = _HEREDOC_PIECE(text, offset)
            if match is None:
                raise scanner.error(opening, f'the heredoc opened here is never closed; end it with a line "{marker}"')
            kind = cast(str, match.lastgroup)
            if kind == "run":
                pieces.append(match[0])
                offset = match.end()
            else:
                piece, offset = self._special(kind, offset, _HEREDOC_DEFAULT)
                pieces.append(piece)
            at_line_start = text[offset - 1] == "\n"
        if line_end < 0:
            raise scanner.error(offset, f'the line "{marker}" that ends a heredoc must itself end with a line break; add one')
        scanner.end = line_end
        scanner.advance()
        return self._joined(_without_margin(pieces, line_heads) if is_indented else pieces, opening)

    def _special(self, kind: str, offset: int, default_text: _Matcher) -> tuple[_Piece, int]:
        """
        Read what begins with `$` or `%`; return it and where the text goes on.
        """
        scanner = self._scanner
        if kind == "doubled":
            return scanner.text[offset + 1 : offset + 3], offset + 3
        if kind == "directive":
            raise scanner.error(offset, "template directives (%{if …}, %{for …}) are not supported here; write %%{ for the two characters")
        return self._insertion(offset, default_text), scanner.end

    def _escape(self, offset: int) -> tuple[str, int]:
        match = _ESCAPE(self._scanner.text, offset)
        if match is None:
            raise self._scanner.error(offset, r'unknown escape; there are \n, \r, \t, \", \\, \uXXXX and \UXXXXXXXX, and \\ is a backslash')
        if match["short"]:
            return _ESCAPED[match["short"]], match.end()
        code = int(match["four"] or match["eight"], 16)
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise self._scanner.error(offset, f"{match[0]} is not a character; one beyond U+FFFF is written as \\UXXXXXXXX")
        return chr(code), match.end()

    def _joined(self, pieces: list[_Piece], opening: int) -> Scalar:
        position = self._scanner.position(opening)
        if len(pieces) == 1 and isinstance(pieces[0], Scalar):
            return Scalar(pieces[0].value, position, pieces[0].is_foreign)
        texts: list[str] = []
        is_foreign = False
        for is_literal, group in groupby(pieces, lambda piece: isinstance(piece, str)):
            if is_literal:
                texts.append(plain_text("".join(cast("list[str]", list(group)))))
                continue
            for scalar in cast("list[Scalar]", list(group)):
                value = scalar.value
                texts.append(value if isinstance(value, str) else number_text(cast(float, value)))
                is_foreign = is_foreign or scalar.is_foreign
        return Scalar("".join(texts), position, is_foreign)

    # -- insertions -------------------------------------------------------------------------------------------------------------------

    def _insertion(self, opening: int, default_text: _Matcher) -> Scalar:
        """
        Read `${…}`, leaving the scanner on the closing brace. The value is a string or a number.
        """
        scanner = self._scanner
        defaulted = _DEFAULTED(scanner.text, opening + 2)
        if defaulted is not None:
            return self._defaulted(opening, defaulted, default_text)
        outer = scanner.enter_free(opening)
        scanner.end = opening + 2
        scanner.advance()
        if scanner.kind == NAME:
            name, place = scanner.lexeme, scanner.start
            scanner.advance()
            value: Value = self.call(name, place) if scanner.kind == "(" else self._variable(name, opening)
        elif scanner.kind not in _INSERTABLE:
            raise self._unsupported()
        else:
            value = self._read_value()
        if scanner.kind != "}":
            raise self._unsupported()
        scanner.leave(outer)
        return cast(Scalar, value)

    def _variable(self, name: str, opening: int) -> Scalar:
        scanner = self._scanner
        if scanner.kind != "}":
            raise self._unsupported()
        if name in ("true", "false", "null"):
            raise scanner.error(opening, f"{name} has no place within a string; write it as text")
        if _VARIABLE(name) is None:
            raise scanner.error(
                opening,
                'the NAME of ${NAME} has letters, digits and "_" only; '
                f'a default is written ${{NAME:-default}}, and any other name env("{name}")',
            )
        return self._from_environment(name, None, opening, f"write ${{{name}:-default}}")

    def _defaulted(self, opening: int, head: re.Match[str], default_text: _Matcher) -> Scalar:
        """
        Read `${NAME:-default}`: the default runs to the closing brace, on one line, with the escapes of the string it stands in.
        """
        scanner = self._scanner
        text, end = scanner.text, default_text(scanner.text, head.end()).end()
        if text[end : end + 1] in ("", "\r", "\n"):
            raise scanner.error(opening, "the ${ opened here is not closed on its line; a default ends with }")
        if text[end] != "}":
            remedy = "" if default_text is _HEREDOC_DEFAULT else '; write \\u007b for { and \\" for a quote'
            raise scanner.error(end, f"a default runs to the closing brace and cannot hold another brace or a bare quote{remedy}")
        pieces: list[str] = []
        offset = head.end()
        while offset < end:
            backslash = text.find("\\", offset, end) if default_text is _QUOTED_DEFAULT else -1
            pieces.append(text[offset : backslash if backslash >= 0 else end])
            if backslash < 0:
                break
            piece, offset = self._escape(backslash)
            pieces.append(piece)
        scanner.end = end + 1
        return self._from_environment(head[1], plain_text("".join(pieces)), opening, "")

    def _unsupported(self) -> HclError:
        return self._scanner.unexpected(
            'NAME, NAME:-default, env("NAME"), file("path"), a string or a number, and then "}"; '
            "$${ writes the two characters themselves"
        )

    # -- calls ------------------------------------------------------------------------------------------------------------------------

    def call(self, name: str, place: int) -> Scalar:
        """
        Read the arguments of the function `name`, which stands at `place`; return its value. The scanner is on the parenthesis.
        """
        scanner = self._scanner
        outer = scanner.enter_free(scanner.start)
        scanner.advance()
        arguments: list[Value] = []
        while scanner.kind != ")":
            arguments.append(self._read_value())
            if scanner.kind == ",":
                scanner.advance()
            elif scanner.kind != ")":
                raise scanner.unexpected('"," or ")" after an argument')
        scanner.leave(outer)
        scanner.advance()
        if name == "env":
            return self._env(arguments, place)
        if name == "file":
            return self._file(arguments, place)
        scanner.report(place, f'there is no function {name}(); there are env("NAME"), env("NAME", "default") and file("path")')
        return self._nothing(place)

    def _env(self, arguments: list[Value], place: int) -> Scalar:
        if not 1 <= len(arguments) <= 2 or not _are_strings(arguments):
            self._scanner.report(place, 'env() takes the name of a variable, and perhaps a default, as strings: env("NAME", "default")')
            return self._nothing(place)
        name = cast(Scalar, arguments[0])
        text = cast(str, name.value)
        if name.is_foreign:
            # Looked up and not found, the name would be printed; and then it was a secret.
            self._scanner.report(place, "the name of a variable must be written out, not come from the environment or a file")
            return self._nothing(place)
        if _ENVIRONMENT_NAME(text) is None:
            self._scanner.report(place, 'the name given to env() is not that of an environment variable: letters, digits, "_", "." and "-"')
            return self._nothing(place)
        default = cast(str, cast(Scalar, arguments[1]).value) if len(arguments) == 2 else None
        return self._from_environment(text, default, place, f'write env("{text}", "default")')

    def _from_environment(self, name: str, default: str | None, place: int, remedy: str) -> Scalar:
        """
        Return the variable `name`. A default takes the place of one that is not set or empty, as in a shell.

        The default counts as foreign too, so that `"${PORT:-8080}"` is the same kind of value whether the variable is set or not.
        """
        value = self._environ.get(name)
        if not value and default is not None:
            value = default
        if value is None:
            self._scanner.report(place, f'environment variable "{name}" is not set; set it, or {remedy}')
        elif not _is_text(value):
            self._scanner.report(place, f'environment variable "{name}" is not text in UTF-8; set it anew')
            value = ""
        return Scalar(value or "", self._scanner.position(place), True)

    def _file(self, arguments: list[Value], place: int) -> Scalar:
        """
        Return a file's text without its last line break, which editors add and no secret means.
        """
        if len(arguments) != 1 or not _are_strings(arguments):
            self._scanner.report(place, 'file() takes the path of a file as a string: file("path")')
            return self._nothing(place)
        path = cast(Scalar, arguments[0])
        shown = "named here (by a value from elsewhere)" if path.is_foreign else f'"{path.value}"'
        if self._read_file is None:
            self._scanner.report(place, f"the file {shown} cannot be read here: this configuration has no access to files")
            return self._nothing(place)
        try:
            text = self._read_file(cast(str, path.value))
        except OSError as error:
            self._scanner.report(place, f"the file {shown} cannot be read: {error.strerror or type(error).__name__}")
        except UnicodeError:
            self._scanner.report(place, f"the file {shown} is not text in UTF-8")
        except ValueError:
            self._scanner.report(place, f"the file {shown} cannot be read: that is not a path")
        else:
            if _is_text(text):
                return Scalar(_LAST_LINE_BREAK.sub("", text), self._scanner.position(place), True)
            self._scanner.report(place, f"the file {shown} is not text in UTF-8")
        return self._nothing(place)

    def _nothing(self, place: int) -> Scalar:
        """
        Return what stands in for a value that was reported; the tree it is part of is never handed out.
        """
        return Scalar("", self._scanner.position(place), True)


_INSERTABLE: Final = frozenset({PLAIN, QUOTE, HEREDOC, NUMBER, "-"})
"""Tokens that begin a string or a number."""


def _are_strings(values: list[Value]) -> bool:
    return all(isinstance(value, Scalar) and isinstance(value.value, str) for value in values)


def _is_text(text: str) -> bool:
    """
    Is this free of the half characters by which Python smuggles undecodable bytes through text?
    """
    return text.isascii() or _HALF_CHARACTER(text) is None


def _without_margin(pieces: list[_Piece], line_heads: list[int]) -> list[_Piece]:
    """
    Take the common indentation off the pieces that begin a line. Blank lines have no say in it and keep their blanks.
    """
    heads = [at for at in line_heads if at < len(pieces) and not _is_blank_line(pieces[at])]
    margin = min((_indentation(pieces[at]) for at in heads), default=0)
    shorter = list(pieces)
    for at in heads:
        piece = pieces[at]
        if isinstance(piece, str):
            shorter[at] = piece[margin:]
    return shorter


def _is_blank_line(piece: _Piece) -> bool:
    return isinstance(piece, str) and piece.endswith("\n") and not piece.strip()


def _indentation(piece: _Piece) -> int:
    return len(piece) - len(piece.lstrip()) if isinstance(piece, str) else 0
