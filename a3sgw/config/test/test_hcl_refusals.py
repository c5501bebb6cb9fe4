"""
Tests for what the HCL parser refuses, message by message.
"""

from a3sgw.config.hcl import HclError
from a3sgw.config.test.hcl_documents import ParserTestCase, read

VALUE = "a value: a string, a number, true, false, null, a list or an object"
INSERTED = (
    'NAME, NAME:-default, env("NAME"), file("path"), a string or a number, and then "}"; $${ writes the two characters themselves'
)
ONE_LINE = (
    'block "a" begins with an attribute on its own line, so it may hold no more than that and must end there with "}"; '
    "for more, put each attribute and the closing brace on lines of their own"
)
OPEN_STRING = 'the string opened here does not end on its line; end it with ", write \\n, or use a heredoc'
HEREDOC = "a heredoc begins with << or <<-, then at once a name, then at once a new line"
NUMBER = "malformed number; one is like 10, 2.5 or 1e3, and anything else stands in double quotes"
ESCAPE = r'unknown escape; there are \n, \r, \t, \", \\, \uXXXX and \UXXXXXXXX, and \\ is a backslash'
BRACE = 'the "{" opened here is never closed; a "}" is missing'
FOR = 'for expressions are not supported here; a key of that name is written "for"'
NOT_TAKEN = "is not used in HCL; remove it, or put it into a string"
MINUS = "a minus sign stands before a number only; arithmetic is not supported here"
DEFAULT = "a default runs to the closing brace and cannot hold another brace or a bare quote"


class RefusalTests(ParserTestCase):
    """
    Texts that are no configuration.
    """

    TEXTS = [
        # Bodies.
        ('"a" = 1', "1:1: the name of an attribute or block stands without quotes"),
        ("1 = 2", "1:1: a number is not expected here; expected an attribute or a block"),
        ("= 1", '1:1: "=" is not expected here; expected an attribute or a block'),
        ("a = 1\n}", '2:1: this "}" closes nothing; remove it, or add the "{" it belongs to'),
        ("{}", '1:1: "{" is not expected here; expected an attribute or a block'),
        ("a", '1:2: the end of the file is not expected here; expected "=" and a value, or "{" and a body, on the same line as "a"'),
        ("a\n{}", '1:2: the end of the line is not expected here; expected "=" and a value, or "{" and a body, on the same line as "a"'),
        ('a "x"\n{}', '1:6: the end of the line is not expected here; expected another label or "{" on the same line'),
        (
            "a.b = 1",
            (
                '1:2: "." (access to an attribute) is not supported here; '
                'expected "=" and a value, or "{" and a body, on the same line as "a"'
            ),
        ),
        ("a: 1", '1:2: an attribute is written with "=": a = …'),
        ('a "x" = 1', '1:7: block "a" takes no "="; with labels it is a block, and an attribute has none'),
        ("a = ", f"1:5: the end of the file is not expected here; expected {VALUE}"),
        ("a =\n1", '1:4: attribute "a" has no value; it begins on the same line as the equals sign'),
        ("a = 1 b = 2", "1:7: a word is not expected here; expected the end of the line"),
        ('a = "x" "y"', "1:9: a string is not expected here; expected the end of the line"),
        ("a = 1, b = 2", '1:6: "," is not expected here; expected the end of the line'),
        ("a = 1 /*\n*/ b = 2", "2:4: a word is not expected here; expected the end of the line"),
        ("a {} b {}", "1:6: a word is not expected here; expected the end of the line"),
        ("a {\n b = 1 }", '2:8: "}" is not expected here; expected the end of the line'),
        ("a {\n}}", '2:2: "}" is not expected here; expected the end of the line'),
        ("a { b {} }", '1:5: a block cannot stand within block "a" on one line; break the line after the brace'),
        ('a { b "c" {} }', '1:5: a block cannot stand within block "a" on one line; break the line after the brace'),
        ("a { b = 1, c = 2 }", f"1:10: {ONE_LINE}"),
        ("a { b = 1, }", f"1:10: {ONE_LINE}"),
        ("a { b = 1 c = 2 }", f"1:11: {ONE_LINE}"),
        ("a { b = 1\n}", f"1:10: {ONE_LINE}"),
        ("a { b = <<E\nE\n}", f"2:2: {ONE_LINE}"),
        ("a { b }", '1:7: "}" is not expected here; expected "=" and a value'),
        ('a { "b" = 1 }', "1:5: a string is not expected here; expected an attribute"),
        ('a "${X}" {}', "1:4: the label of a block is a name and takes no ${…}; write $${ for the two characters themselves"),
        # What is still open at the end is reported where it was opened, the innermost first.
        ("a {", f"1:3: {BRACE}"),
        ("a {\n b = 1", f"1:3: {BRACE}"),
        ("b {\n a {\n}\n", f"1:3: {BRACE}"),
        ("b {\n a {\n", f"2:4: {BRACE}"),
        ("a { b = 1", f"1:3: {BRACE}"),
        ("a { b", f"1:3: {BRACE}"),
        ("a = {", f"1:5: {BRACE}"),
        ("a = { b", f"1:5: {BRACE}"),
        ("a = { b =", f"1:5: {BRACE}"),
        ("a = { b = 1,\n", f"1:5: {BRACE}"),
        ("a = [", '1:5: the "[" opened here is never closed; a "]" is missing'),
        ("a = [1, [2]\n\n", '1:5: the "[" opened here is never closed; a "]" is missing'),
        ("a = (1", '1:5: the "(" opened here is never closed; a ")" is missing'),
        ('a = env("X",', '1:8: the "(" opened here is never closed; a ")" is missing'),
        ('a = "x', f"1:5: {OPEN_STRING}"),
        ('a = "x\ny"', f"1:5: {OPEN_STRING}"),
        ('a = "x\\', f"1:7: {ESCAPE}"),
        ('a = "x ${X}', f"1:5: {OPEN_STRING}"),
        ('a = "x ${X', '1:8: the "${" opened here is never closed; a "}" is missing'),
        ('a = "${X:-d', "1:6: the ${ opened here is not closed on its line; a default ends with }"),
        ('a = "${X:-d\n}"', "1:6: the ${ opened here is not closed on its line; a default ends with }"),
        ("a = <<E\n${X:-d\n}\nE\n", "2:1: the ${ opened here is not closed on its line; a default ends with }"),
        ("\n a = <<E\nx\n", '2:6: the heredoc opened here is never closed; end it with a line "E"'),
        ("a = <<E\nx\nE", '3:1: the line "E" that ends a heredoc must itself end with a line break; add one'),
        (" /* x", '1:2: the comment opened here is never closed; end it with "*/"'),
        ("a = [1 /* x]", '1:8: the comment opened here is never closed; end it with "*/"'),
        # Lists and objects.
        ("a = [1 2]", '1:8: a number is not expected here; expected "," or "]"'),
        ("a = [1}", '1:7: "}" is not expected here; expected "," or "]"'),
        ("a = [,]", f'1:6: "," is not expected here; expected {VALUE}'),
        ("a = [1,,2]", f'1:8: "," is not expected here; expected {VALUE}'),
        ("a = (1]", '1:7: "]" is not expected here; expected ")"'),
        ("a = { b }", '1:9: "}" is not expected here; expected "=" or ":" after the key of an object'),
        ("a = { b c }", '1:9: a word is not expected here; expected "=" or ":" after the key of an object'),
        ("a = { b = 1 c = 2 }", '1:13: a word is not expected here; expected "," or a new line or "}"'),
        ("a = { b = 1 /*\n*/ c = 2 }", '2:4: a word is not expected here; expected "," or a new line or "}"'),
        ("a = { b = 1\n, c = 2 }", '2:1: "," is not expected here; expected the key of an object'),
        ("a = { b = 1,, }", '1:13: "," is not expected here; expected the key of an object'),
        ("a = { b\n= 1 }", '1:8: the end of the line is not expected here; expected "=" or ":" after the key of an object'),
        ("a = { b =\n1 }", f"1:10: the end of the line is not expected here; expected {VALUE}"),
        ("a = { b = 1 ]", '1:13: "]" is not expected here; expected "," or a new line or "}"'),
        ("a = { b.c = 1 }", '1:8: "." (access to an attribute) is not supported here; expected "=" or ":" after the key of an object'),
        ("a = { [1] = 1 }", '1:7: "[" (an index or a list) is not supported here; expected the key of an object'),
        ("a = { (null) = 1 }", "1:7: the key of an object is a name, a string or a number"),
        ("a = { ([1]) = 1 }", "1:7: the key of an object is a name, a string or a number"),
        # What HCL has and the gateway has not.
        ("a = x", "1:5: a bare word is not a value; text stands in double quotes"),
        ("a = x.y", "1:5: a bare word is not a value; text stands in double quotes"),
        ("a = x[0]", "1:5: a bare word is not a value; text stands in double quotes"),
        ("a = True", "1:5: a bare word is not a value; write true"),
        ("a = off", "1:5: a bare word is not a value; write false"),
        ("a = 1 + 2", '1:7: "+" (an operator) is not supported here; expected the end of the line'),
        ('a = "x" == "y"', '1:9: "==" (an operator) is not supported here; expected the end of the line'),
        ("a = [1 * 2]", '1:8: "*" (an operator) is not supported here; expected "," or "]"'),
        ("a = [1 -2]", '1:8: "-" (an operator) is not supported here; expected "," or "]"'),
        ("a = true ? 1 : 2", '1:10: "?" (a conditional) is not supported here; expected the end of the line'),
        ("a = [1][0]", '1:8: "[" (an index or a list) is not supported here; expected the end of the line'),
        ("a = {}.b", '1:7: "." (access to an attribute) is not supported here; expected the end of the line'),
        ("a { b = 1 + 2 }", '1:11: "+" (an operator) is not supported here; expected "}"'),
        ("a = !true", f'1:5: "!" (an operator) is not supported here; expected {VALUE}'),
        ("a = [for x in y : x]", f"1:6: {FOR}"),
        ("a = { for x, y in z : x => y }", f"1:7: {FOR}"),
        ("a = { for = 1 }", f"1:7: {FOR}"),
        ('a = env("X"...)', '1:12: "..." (expansion of arguments) is not supported here; expected "," or ")" after an argument'),
        ('a = env("X" "Y")', '1:13: a string is not expected here; expected "," or ")" after an argument'),
        ("a = -x", f"1:5: {MINUS}"),
        ("a = --1", f"1:5: {MINUS}"),
        ("a = -(1)", f"1:5: {MINUS}"),
        ("a = +1", f'1:5: "+" (an operator) is not supported here; expected {VALUE}'),
        # Numbers.
        *((f"a = {text}", f"1:5: {NUMBER}") for text in ("1.2.3", "10s", "0x1F", "1.", "1e", "1_000", "127.0.0.1", "1e5e5")),
        ("a = .5", f'1:5: "." (access to an attribute) is not supported here; expected {VALUE}'),
        ("a = -1e999", "1:6: a number too large to be held; write a smaller one"),
        ("a = " + "1" * 101, "1:5: a number of more than 100 characters; write a shorter one"),
        # Templates.
        ('a = "x%{if X}"', "1:7: template directives (%{if …}, %{for …}) are not supported here; write %%{ for the two characters"),
        ("a = <<E\n%{for}\nE\n", "2:1: template directives (%{if …}, %{for …}) are not supported here; write %%{ for the two characters"),
        ('a = "${}"', f'1:8: "}}" is not expected here; expected {INSERTED}'),
        ('a = "${X + 1}"', f'1:10: "+" (an operator) is not supported here; expected {INSERTED}'),
        ('a = "${X ? 1 : 2}"', f'1:10: "?" (a conditional) is not supported here; expected {INSERTED}'),
        ('a = "${X[0]}"', f'1:9: "[" (an index or a list) is not supported here; expected {INSERTED}'),
        ('a = "${X.y}"', f'1:9: "." (access to an attribute) is not supported here; expected {INSERTED}'),
        ('a = "${[1]}"', f'1:8: "[" (an index or a list) is not supported here; expected {INSERTED}'),
        ('a = "${"x" "y"}"', f"1:12: a string is not expected here; expected {INSERTED}"),
        ('a = "${1 + 1}"', f'1:10: "+" (an operator) is not supported here; expected {INSERTED}'),
        ('a = "${X:=d}"', f'1:9: ":" is not expected here; expected {INSERTED}'),
        ('a = "${~X~}"', f'1:8: "~" (an operator) is not supported here; expected {INSERTED}'),
        ('a = "${!X}"', f'1:8: "!" (an operator) is not supported here; expected {INSERTED}'),
        ('a = "${true}"', "1:6: true has no place within a string; write it as text"),
        (
            'a = "${X-d}"',
            (
                '1:6: the NAME of ${NAME} has letters, digits and "_" only; '
                'a default is written ${NAME:-default}, and any other name env("X-d")'
            ),
        ),
        ('a = "${X:-${X}}"', f'1:12: {DEFAULT}; write \\u007b for {{ and \\" for a quote'),
        ('a = "${X:-"q"}"', f'1:11: {DEFAULT}; write \\u007b for {{ and \\" for a quote'),
        ("a = <<E\n${X:-{}}\nE\n", f"2:6: {DEFAULT}"),
        ('a = "${X:-\\q}"', f"1:11: {ESCAPE}"),
        # Heredocs and escapes.
        *((f"a = {text}\nE\n", f"1:5: {HEREDOC}") for text in ("<< E", "<<E ", "<<E # x", '<<"E"', "<<~E", "<<1", "<<", "<<E, 2")),
        ("a = <<é\u00a0\nE\n", "1:5: the name that ends a heredoc consists of letters, digits, _ and -"),
        *((f'a = "{text}"', f"1:6: {ESCAPE}") for text in (r"\q", r"\$", r"\u12", r"\u12g4", r"\U0001F60", r"\/", r"\x41", r"\'")),
        (r'a = "\uD800"', r"1:6: \uD800 is not a character; one beyond U+FFFF is written as \UXXXXXXXX"),
        (r'a = "\U00110000"', r"1:6: \U00110000 is not a character; one beyond U+FFFF is written as \UXXXXXXXX"),
        # Characters.
        ("a = 'x'", "1:5: the character \"'\" (U+0027) is not used in HCL; a string stands in double quotes"),
        (
            "a = `x`",
            (
                '1:5: the character "`" (U+0060) is not used in HCL; '
                "a string stands in double quotes, and one of several lines in a heredoc"
            ),
        ),
        (
            "a = 1;",
            (
                '1:6: the character ";" (U+003B) is not used in HCL; '
                "attributes and blocks stand on lines of their own, and the items of a list or object are separated by commas"
            ),
        ),
        ("a = ${X}", '1:5: the character "$" (U+0024) is not used in HCL; ${NAME} stands within double quotes'),
        ("a = @", f'1:5: the character "@" (U+0040) {NOT_TAKEN}'),
        ("é\u00a0= 1", f"1:2: the character U+00A0 {NOT_TAKEN}"),
        ("²=1", f'1:1: the character "²" (U+00B2) {NOT_TAKEN}'),
        ("a²=1", f'1:2: the character "²" (U+00B2) {NOT_TAKEN}'),
        ("a = 1\u2028", f"1:6: the character U+2028 {NOT_TAKEN}"),
        ("a = 1\n\ufeff", f"2:1: the character U+FEFF {NOT_TAKEN}"),
        ('a = "x\0"', "1:7: the control character U+0000; remove it, or write \\u0000 in a string"),
        ("# \x1b", "1:3: the control character U+001B; remove it, or write \\u001b in a string"),
        ("a\n\x85", "2:1: the control character U+0085; remove it, or write \\u0085 in a string"),
        ("a = 1\rb = 2", "1:6: a carriage return without a line feed; end lines with LF or CRLF, or write \\r in a string"),
        ('a = "\udc80"', "1:6: half of a surrogate pair, U+DC80; save the file as UTF-8"),
    ]

    def test_refusals(self):
        """
        Each fault is reported with its place, what it is and what to do.
        """
        for text, problem in self.TEXTS:
            self.assertRefused(text, problem)

    def test_nothing_left_out_of_an_insertion(self):
        """
        Every operator within `${…}` is refused, never taken for text.
        """
        for operator in ("+", "-", "*", "/", "%", "==", "!=", "<", ">", "<=", ">=", "&&", "||", "?", ".", "...", "::", "=>", "&", "|", "^"):
            for text in (f'a = "${{X {operator} X}}"', f'a = "${{1 {operator} 1}}"', f"a = <<E\n${{X {operator} X}}\nE\n"):
                problem = str(self.assertRaises(HclError, read, text))
                self.assertIn(f'"{operator}" (', problem, text)
                self.assertIn("is not supported here", problem, text)
