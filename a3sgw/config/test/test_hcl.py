"""
Tests for what the HCL parser reads.

What comes from the environment and from files is in `test_hcl_template`, what is refused in `test_hcl_refusals`, and what other parsers
make of the same texts in `test_hcl_oracle`.
"""

import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from a3sgw.config.hcl import HclError
from a3sgw.config.hcl_lexer import DEPTH_LIMIT
from a3sgw.config.test.hcl_documents import (
    ParserTestCase,
    at,
    documents,
    expected,
    normal,
    read,
    value,
    value_of,
    values,
    values_of,
    write,
)
from a3sgw.config.tree import Attribute, Block, Body, ListValue, ObjectEntry, ObjectValue, Scalar


class LiteralTests(ParserTestCase):
    """
    Values that stand in the file.
    """

    VALUES = [
        # Keywords and numbers. HCL has one kind of number: what has no fraction is an integer.
        ("true", True),
        ("false", False),
        ("null", None),
        ("0", 0),
        ("007", 7),
        ("-5", -5),
        ("- 5", -5),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("1.5", 1.5),
        ("-0.25", -0.25),
        ("3.0", 3),
        ("1e3", 1000),
        ("1E+2", 100),
        ("1e31", 10**31),
        ("25e-1", 2.5),
        ("0.5e-3", 0.0005),
        ("(1)", 1),
        ("((\n-1\n))", -1),
        # Quoted strings.
        ('""', ""),
        ('"plain # // /* text"', "plain # // /* text"),
        (r'"\n\r\t\"\\"', '\n\r\t"\\'),
        (r'"\u00e9\u0041\U0001F600\u0000"', "éA😀\0"),
        ('"tab\there"', "tab\there"),
        ('"é 漢 😀"', "é 漢 😀"),
        ('"$"', "$"),
        ('"$$"', "$$"),
        ('"100%"', "100%"),
        ('"$5 %d {x}"', "$5 %d {x}"),
        ('"$${X}"', "${X}"),
        ('"%%{if}"', "%{if}"),
        ('"$$${X}"', "$${X}"),
        ('"$$$${X}"', "$$${X}"),
        ('"a$"', "a$"),
        ('"e\u0301"', "é"),
        (r'"e\u0301"', "é"),
        ('"${"x"}"', "x"),
        ('"a${"b${"c"}"}d"', "abcd"),
        ('"${5}"', 5),
        ('"${-5}"', -5),
        ('"x${5}"', "x5"),
        ('"x${1.50}${1e3}${1e-7}"', "x1.510000.0000001"),
        ('"${\n"x"\n}"', "x"),
        ('"${ /* why */ 1 # not\n }"', 1),
        # Lists and objects.
        ("[]", []),
        ("[1, 2]", [1, 2]),
        ("[1, 2,]", [1, 2]),
        ("[\n1\n,\n\n2 # two\n, // three\n3\n,\n]", [1, 2, 3]),
        ('["a", ["b", []], {}]', ["a", ["b", []], {}]),
        ("{}", {}),
        ("{ b = 1 }", {"b": 1}),
        ("{ b = 1, c : 2, }", {"b": 1, "c": 2}),
        ("{\n\n# one\nb = 1 # note\n\n/* two */\n\nc = 2,\nd = 3\n}", {"b": 1, "c": 2, "d": 3}),
        ('{ "b c" = 1, "$${x}" = 2, ("d") = 3, (("e")) = 4 }', {"b c": 1, "${x}": 2, "d": 3, "e": 4}),
        ("{ 1 = 2, 1.50 = 3, -1 = 4 }", {"1": 2, "1.5": 3, "-1": 4}),
        ("{ true = 1, null = 2, x-y = 3, if = 4, x = 5, for = 6 }", {"true": 1, "null": 2, "x-y": 3, "if": 4, "x": 5, "for": 6}),
        ('{ "for" = 1 }', {"for": 1}),
        ("{ b = [1,\n2]\nc = (\n3\n) }", {"b": [1, 2], "c": 3}),
        ("{ b = /* note */ 1 /* note */ , c = 2 }", {"b": 1, "c": 2}),
        ("[{\nb = 1\n}, {\nb = 2\n}]", [{"b": 1}, {"b": 2}]),
    ]

    def test_values(self):
        """
        Each literal means what HCL says.
        """
        for text, meaning in self.VALUES:
            found = value_of(value(text))
            self.assertEqual((found, type(found)), (meaning, type(meaning)), text)

    def test_values_are_not_foreign(self):
        """
        What stands in the file itself may be printed, and a number in quotes is no number.
        """
        self.assertEqual(value('"80"'), Scalar("80", at(1, 5)))
        self.assertEqual(value('"${"80"}"'), Scalar("80", at(1, 5)))

    HEREDOCS = [
        ("<<E\nE\n", ""),
        ("<<E\nx\nE\n", "x\n"),
        ("<<E\n  x\n\n y\nE\n", "  x\n\n y\n"),
        ("<<E-F\nx\nE\nE-F\n", "x\nE\n"),
        ("<<é_1\nx\né_1\n", "x\n"),
        ("<<E\nE F\nxE\nE x\n \t E \t\n", "E F\nxE\nE x\n"),
        ("<<E\r\nx\r\ny\r\nE\r\n", "x\r\ny\r\n"),
        ('<<E\n"quoted" \\n \\u0041 # not // a /* comment\nE\n', '"quoted" \\n \\u0041 # not // a /* comment\n'),
        ("<<E\n$ % $$ %% $5\n$\nE\n", "$ % $$ %% $5\n$\n"),
        ("<<E\n$${X} %%{if}\nE\n", "${X} %{if}\n"),
        ("<<E\na ${X} b\n${X}\nE\n", "a v b\nv\n"),
        ("<<E\n${X}E\nE\n", "vE\n"),
        ('<<E\n${"E"}\nE\n', "E\n"),
        ("<<E\n${X:-\"d\" \\n}\n${NOPE:-\"d\" \\n}\nE\n", 'v\n"d" \\n\n'),
        ("<<-E\n    x\n  y\n  E\n", "  x\ny\n"),
        ("<<-E\n    x\n\n  y\n      E\n", "  x\n\ny\n"),
        ("<<-E\n      \n    x\nE\n", "      \nx\n"),
        ("<<-E\n\tx\n\t\ty\nE\n", "x\n\ty\n"),
        ("<<-E\n   ${5}\n  b\nE\n", " 5\nb\n"),
        ("<<-E\n${5}x\n  b\nE\n", "5x\n  b\n"),
        ("<<-E\n  $${5}\n  %\n   $\nE\n", "${5}\n%\n $\n"),
        ("<<-E\n  a ${X}\n    b\nE\n", "a v\n  b\n"),
        ("<<-E\n  x\r\n\r\n  y\r\nE\n", "x\r\n\r\ny\r\n"),
        ("<<-E\nE\n", ""),
        ("[<<E\nx\nE\n, <<-F\n  y\n  F\n]", ["x\n", "y\n"]),
        ("{ b = <<E\nx\nE\nc = 2 }", {"b": "x\n", "c": 2}),
        ("(<<E\nx\nE\n)", "x\n"),
    ]

    def test_heredocs(self):
        """
        A heredoc is its lines; one opened with `<<-` loses the indentation its lines share, however deep its last line stands.
        """
        for text, meaning in self.HEREDOCS:
            self.assertEqual(value_of(value(text)), meaning, text)

    def test_text_after_a_heredoc(self):
        """
        Reading goes on after the line that ends a heredoc, with the right positions.
        """
        body = read("a = <<E\nx\n  E\n  b = 1\n")
        self.assertEqual([attribute.position for attribute in body.attributes], [at(1, 1), at(4, 3)])


class BodyTests(ParserTestCase):
    """
    Attributes and blocks.
    """

    def test_positions(self):
        """
        Everything in the tree knows its line and its column, counted in characters.
        """
        body = read('é = "漢" # x\n\n  r "web" x {\n\tk = [1, { é = null }]\n}\n')
        inner = ObjectValue((ObjectEntry("é", Scalar(None, at(4, 16)), at(4, 12)),), at(4, 10))
        self.assertEqual(
            body,
            Body(
                (Attribute("é", Scalar("漢", at(1, 5)), at(1, 1)),),
                (
                    Block(
                        "r",
                        ("web", "x"),
                        (at(3, 5), at(3, 11)),
                        Body((Attribute("k", ListValue((Scalar(1, at(4, 7)), inner), at(4, 6)), at(4, 2)),), (), at(3, 13)),
                        at(3, 3),
                    ),
                ),
                at(1, 1),
            ),
        )

    def test_positions_of_values(self):
        """
        The position of a string is its opening quote, of a heredoc its sign, of a negative number its minus, of a call its name.
        """
        body = read('a = "x${X}"\nb = <<E\nE\nc = -5\nd = env("X")\ne = (  1)\nf = "${env("X")}"\n')
        self.assertEqual(
            [attribute.value.position for attribute in body.attributes],
            [at(1, 5), at(2, 5), at(4, 5), at(5, 5), at(6, 8), at(7, 5)],
        )

    def test_positions_after_crlf_and_byte_order_mark(self):
        """
        A file from a Windows editor has the same positions.
        """
        body = read("\ufeffa = 1\r\n  b = 2\r\n")
        self.assertEqual([attribute.position for attribute in body.attributes], [at(1, 1), at(2, 3)])
        self.assertEqual(body.position, at(1, 1))

    BODIES = [
        ("", {}),
        ("\n\n", {}),
        ("# only a comment", {}),
        ("a = 1", {"a": 1}),
        ("a = 1 # note", {"a": 1}),
        ("a = 1 // note", {"a": 1}),
        ("/* x\n */ a = 1 /* y */\n/* z\n */\n/* z */\n", {"a": 1}),
        ("a=1\r\nb=2\r\n", {"a": 1, "b": 2}),
        (
            "true = 1\nnull = 2\nfor = 3\nx-y_z = 4\n_q = 5\nक्ष = 6\nxé-1 = 7",
            {"true": 1, "null": 2, "for": 3, "x-y_z": 4, "_q": 5, "क्ष": 6, "xé-1": 7},
        ),
        ("a {}", {"a": {}}),
        ("a {\n}", {"a": {}}),
        ("a { /* x\n */ }\n", {"a": {}}),
        ("a { # { note\n}", {"a": {}}),
        ("a { b = 1 }", {"a": {"b": 1}}),
        ("a      { b = [\n1\n] }", {"a": {"b": [1]}}),
        ("a{b=1}", {"a": {"b": 1}}),
        ('a"x"{b=1}', {"a": {"x": {"b": 1}}}),
        ('a "x" y "z" {\n\n\n b = 1\n\n}\n\n', {"a": {"x": {"y": {"z": {"b": 1}}}}}),
        ('a "" {}\nb "x\\n\\u00e9 $${y} $z %" {}\nc d9 {}', {"a": {"": {}}, "b": {"x\né ${y} $z %": {}}, "c": {"d9": {}}}),
        ("a {\n b {\n  c {}\n }\n d = 1\n}", {"a": {"b": {"c": {}}, "d": 1}}),
        ("a {}\na {}\na { b = 1 }\n", {"a": [{}, {}, {"b": 1}]}),
        ('a "x" {}\na "x" {}\na "y" {}', {"a": {"x": [{}, {}], "y": {}}}),
    ]

    def test_bodies(self):
        """
        Attributes end with their line; blocks may be labelled, nested, empty, on one line, and repeated.
        """
        for text, meaning in self.BODIES:
            self.assertEqual(values_of(read(text)), meaning, text)

    def test_order(self):
        """
        Attributes and blocks keep the order of the file.
        """
        body = read('z = 1\nr "b" {}\na = 2\nr "a" {}\nq {}\n')
        self.assertEqual([attribute.name for attribute in body.attributes], ["z", "a"])
        self.assertEqual([(block.type, block.labels) for block in body.blocks], [("r", ("b",)), ("r", ("a",)), ("q", ())])


class CollectionTests(ParserTestCase):
    """
    Several problems at once.
    """

    def test_everything_at_once(self):
        """
        Unset variables, unreadable files, unknown functions and duplicates are all reported, in the order of the file.
        """
        self.assertRefused(
            'a = "${NOPE} ${NADA}"\nb {\n  c = [1, file("gone")]\n  c = 2\n}\na = nope("x")\nd = { e = 1, "e" = 2 }\nd {}\n',
            '1:6: environment variable "NOPE" is not set; set it, or write ${NOPE:-default}',
            '1:14: environment variable "NADA" is not set; set it, or write ${NADA:-default}',
            '3:11: the file "gone" cannot be read: No such file or directory',
            '4:3: attribute "c" is already set at gw.hcl:3:3; keep one of the two',
            '6:1: attribute "a" is already set at gw.hcl:1:1; keep one of the two',
            '6:5: there is no function nope(); there are env("NAME"), env("NAME", "default") and file("path")',
            '7:14: the key "e" is already set at gw.hcl:7:7; keep one of the two',
            '8:1: block "d" is already set as attribute at gw.hcl:7:1; keep one of the two',
        )

    def test_attribute_and_block(self):
        """
        A name that is both attribute and block is refused whichever comes first, and once only.
        """
        self.assertRefused("a = 1\na {}\na {}\n", '2:1: block "a" is already set as attribute at gw.hcl:1:1; keep one of the two')
        self.assertRefused("a {}\na {}\na = 1\n", '3:1: attribute "a" is already set as block at gw.hcl:1:1; keep one of the two')

    def test_keys_equal_in_normal_form(self):
        """
        Two spellings of one character make one key.
        """
        self.assertRefused('a = { "é" = 1, "e\u0301" = 2 }', '1:16: the key "é" is already set at gw.hcl:1:7; keep one of the two')
        self.assertRefused("a = { é = 1, e\u0301 = 2 }", '1:14: the key "é" is already set at gw.hcl:1:7; keep one of the two')

    def test_syntax_error_comes_with_what_was_found_before(self):
        """
        A syntax error ends the reading but hides nothing that was found on the way.
        """
        self.assertRefused(
            'a = "${NOPE}"\nb = @\nc = "${NADA}"\n',
            '1:6: environment variable "NOPE" is not set; set it, or write ${NOPE:-default}',
            '2:5: the character "@" (U+0040) is not used in HCL; remove it, or put it into a string',
        )

    def test_paths(self):
        """
        A problem says to which attribute it belongs.
        """
        text = 'r "api" {\n  s {\n    u = [{}, { v = "${NOPE}" }]\n  }\n  t = 1\n  t = 2\n}\nw = 1\nw {}\nx "y" {\n z = \n'
        error = self.assertRaises(HclError, read, text)
        self.assertEqual([problem.path for problem in error.problems], ["r.api.s.u[1].v", "r.api.t", "x.y.z"])
        error = self.assertRaises(HclError, read, 'x = [[1], "${NOPE}"]\ny = { a = [1], b = "${NOPE}" }\nz = "${NOPE}"\n')
        self.assertEqual([problem.path for problem in error.problems], ["x[1]", "y.b", "z"])
        error = self.assertRaises(HclError, read, "w = 1\nq {\n  w {}\n  w = 2\n}\n")
        self.assertEqual([problem.path for problem in error.problems], ["q.w"])


class DepthTests(ParserTestCase):
    """
    Nesting without end.
    """

    SHAPES = [
        ("", "a {\n", "", "}\n"),
        ("a = ", "[", "1", "]"),
        ("a = ", "(", "1", ")"),
        ("a = ", "{ b = ", "1", " }"),
        ("a = ", '"${', "1", '}"'),
    ]

    def nested(self, shape, depth):
        """
        Return `depth` times the shape within itself.
        """
        head, opening, inside, closing = shape
        return f"{head}{opening * depth}{inside}{closing * depth}\n"

    def test_limit(self):
        """
        A hundred levels are read; one more is refused where it opens, and never costs the process its stack.
        """
        for shape in self.SHAPES:
            read(self.nested(shape, DEPTH_LIMIT))
            for depth in (DEPTH_LIMIT + 1, 100_000):
                error = self.assertRaises(HclError, read, self.nested(shape, depth))
                self.assertIn("this stands more than 100 levels deep; nest less", str(error))

    def test_calls_within_insertions(self):
        """
        The deepest way to spend a hundred levels also fits into the stack, from wherever the parser is called.
        """
        text = 'a = "' + '${env("NOPE", "' * (DEPTH_LIMIT // 2) + "x" + '")}' * (DEPTH_LIMIT // 2) + '"\n'

        def descend(frames):
            return read(text) if frames == 0 else descend(frames - 1)

        self.assertEqual(value_of(descend(sys.getrecursionlimit() // 4).attributes[0].value), "x")

    def test_levels_side_by_side(self):
        """
        Only what stands within each other counts.
        """
        self.assertEqual(len(read("a {}\n" * 500).blocks), 500)
        self.assertEqual(len(value("[" + "[{}, (1)]," * 500 + "]").items), 500)


class PropertyTests(ParserTestCase):
    """
    What holds for every text.
    """

    FRAGMENTS = st.sampled_from(
        [
            *"{}[]()=:,.+-*/<>!?&|^~;'`\\$%@#\"\n\n\r\t\0\ufeff\u00a0\ud800\u0301", *("a", "b-c", "é", '"x"', '"${X}"', '"${', '"${X:-'),
            *("$${", "%{", "//", "/*", "*/", "<<E\n", "<<-E\n", "\nE\n", "1", "2.5", "1e9", "true", "null", "for", "env(", "file(", "\r\n"),
        ]
    )

    def never_else(self, text):
        """
        Parsing gives a tree or the one exception, which has problems with places in the text.
        """
        lines = text.split("\n")
        try:
            self.assertIsInstance(read(text), Body)
        except HclError as error:
            self.assertTrue(error.problems)
            for place in [problem.position for problem in error.problems]:
                assert place is not None
                self.assertLessEqual(place.line, len(lines))
                self.assertLessEqual(place.column, len(lines[place.line - 1]) + 1)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.text(st.characters()))
    def test_arbitrary_text(self, text):
        """
        No text makes the parser fail in any way but its own.
        """
        self.never_else(text)

    @settings(deadline=None, max_examples=400, derandomize=True)
    @given(st.lists(FRAGMENTS, max_size=30).flatmap(lambda parts: st.sampled_from(["", " "]).map(lambda blank: blank.join(parts))))
    def test_arbitrary_tokens(self, text):
        """
        No heap of tokens does either.
        """
        self.never_else(text)

    @settings(deadline=None, max_examples=300, derandomize=True)
    @given(documents(), st.randoms(use_true_random=False), st.data())
    def test_truncated(self, document, random, data):
        """
        No text that was cut off or lost a piece does either.
        """
        text = write(document, random)
        start = data.draw(st.integers(0, len(text)))
        self.never_else(text[:start])
        self.never_else(text[:start] + text[start + data.draw(st.integers(1, 5)) :])

    @settings(deadline=None, max_examples=300, derandomize=True)
    @given(values(), st.randoms(use_true_random=False))
    def test_values_come_back(self, meaning, random):
        """
        A value that is written as HCL, in whatever layout, is read as the same value.
        """
        self.assertEqual(values_of(read(write([("a", meaning)], random))), {"a": expected(meaning)})

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(documents(), st.randoms(use_true_random=False))
    def test_documents_come_back(self, document, random):
        """
        So is a whole document, with its blocks and labels in order.
        """

        def shape(body):
            items = {attribute.position: (attribute.name, value_of(attribute.value)) for attribute in body.attributes}
            blocks = {block.position: (block.type, list(block.labels), shape(block.body)) for block in body.blocks}
            return [item for _, item in sorted([*items.items(), *blocks.items()], key=lambda entry: entry[0])]

        def meant(items):
            return [
                (item[0], expected(item[1])) if len(item) == 2 else (item[0], [normal(label) for label in item[1]], meant(item[2]))
                for item in items
            ]

        self.assertEqual(shape(read(write(document, random))), meant(document))
