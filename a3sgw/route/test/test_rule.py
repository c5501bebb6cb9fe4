"""
Tests of `a3sgw.route.rule`.
"""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.route.rule import MAX_DEPTH, SIGNATURES, And, Matcher, Not, Or, RuleError, parse_rule
from a3sgw.route.test.strategies import HTTP_RULES, TCP_RULES

GET = Matcher("Method", ("GET",), ())
PUT = Matcher("Method", ("PUT",), ())
ROOT = Matcher("Path", ("/",), ())


def parse_matcher(text, kind="http"):
    rule = parse_rule(text, kind)
    assert isinstance(rule, Matcher)
    return rule


class ParseRuleTests(SynchronousTestCase):
    def test_trees(self):
        """
        `!` binds more tightly than `&&`, `&&` more tightly than `||`; parentheses overrule both; blanks and line breaks are free.
        """
        for text, expected in [
            ("Method(`GET`)", GET),
            ("Method(`GET`) && Path(`/`)", And((GET, ROOT))),
            ("Method(`GET`)||Path(`/`)", Or((GET, ROOT))),
            ("Method(`GET`) || Method(`PUT`) && Path(`/`)", Or((GET, And((PUT, ROOT))))),
            ("Method(`GET`) && Method(`PUT`) || Path(`/`)", Or((And((GET, PUT)), ROOT))),
            ("(Method(`GET`) || Method(`PUT`)) && Path(`/`)", And((Or((GET, PUT)), ROOT))),
            ("!Method(`GET`) && Path(`/`)", And((Not(GET), ROOT))),
            ("!(Method(`GET`) && Path(`/`))", Not(And((GET, ROOT)))),
            ("!!Method(`GET`)", Not(Not(GET))),
            ("((Method(`GET`)))", GET),
            ("Method(`GET`) && (Method(`PUT`) && Path(`/`))", And((GET, PUT, ROOT))),
            ("(Method(`GET`) || Method(`PUT`)) || Path(`/`)", Or((GET, PUT, ROOT))),
            ("\n Method\t( `GET` )\r\n  && ! ( Path (\n`/`)\n)", And((GET, Not(ROOT)))),
        ]:
            self.assertEqual(parse_rule(text, "http"), expected, text)

    def test_arguments(self):
        """
        Arguments stand in backticks, where nothing is special, or in double quotes with escapes; the comma may be left out.
        """
        for text, expected in [
            ("Header(`X`, `a&&b || (c)`)", ("X", "a&&b || (c)")),
            (r"Header(`X`, `a\d\`)", ("X", "a\\d\\")),
            ('Header("X", "a")', ("X", "a")),
            (r'Header("X", "say \"hi\" \\ \u00e9\x41\U0001F600\`")', ("X", 'say "hi" \\ éA\N{GRINNING FACE}`')),
            (r'Query("a", "1\n2\t3")', ("a", "1\n2\t3")),
            ("Header(`X` `a`)", ("X", "a")),
            ("Header(`X`,`a`)", ("X", "a")),
            ("Query(`a`, ``)", ("a", "")),
            ("Method(`GET`,`PUT` `POST`)", ("GET", "PUT", "POST")),
        ]:
            self.assertEqual(parse_matcher(text).arguments, expected, text)

    def test_names(self):
        """
        Matcher names are known in any letter case, and under the names of the original gateway.
        """
        for text, kind, name in [
            ("host(`a`)", "http", "Host"),
            ("PATHPREFIX(`/`)", "http", "PathPrefix"),
            ("Headers(`a`, `b`)", "http", "Header"),
            ("headersregexp(`a`, `b`)", "http", "HeaderRegexp"),
            ("clientip(`::1`)", "http", "ClientIP"),
            ("clientip(`::1`)", "tcp", "ClientIP"),
            ("hostsni(`*`)", "tcp", "HostSNI"),
            ("alpn(`h2`)", "tcp", "ALPN"),
        ]:
            self.assertEqual(parse_matcher(text, kind).name, name)

    def test_errors(self):
        """
        What is wrong is named with its column, what was found, and what was expected.
        """
        for text, column, part in [
            ("", 1, "the rule is empty"),
            (" \n", 1, "the rule is empty"),
            ("Host", 5, "expected ( after Host"),
            ("Host(", 6, "the rule ends here"),
            ("Host(`a`", 9, "the rule ends here"),
            ("Host(`a", 6, "never closed"),
            ('Host("a', 6, "never closed"),
            ('Host("a\\', 6, "never closed"),
            ("Host(a)", 6, 'found "a"'),
            ("Host('a')", 6, "backticks or double quotes"),
            ("Host(`a`,)", 10, "after the comma"),
            ("Host(,`a`)", 6, 'found ","'),
            ("Host(`a`,,`b`)", 10, "after the comma"),
            ("Host(`a`) Path(`/`)", 11, "expected && or ||"),
            ("Host(`a`))", 10, 'found ")"'),
            ("Host(`a`) garbage", 11, 'found "g"'),
            ("Host(`a`) &", 11, 'found "&"'),
            ("Host(`a`) && ", 14, "expected a matcher"),
            ("|| Host(`a`)", 1, "expected a matcher"),
            ("(Host(`a`)", 11, "expected &&, || or )"),
            ("()", 2, "expected a matcher"),
            ("!", 2, "expected a matcher"),
            ("Host(`a`)\N{NO-BREAK SPACE}&& Path(`/`)", 10, "expected &&"),
            ("Host()", 1, "Host() expects at least 1 argument, got 0"),
            ("Host(`a`) && Header(`K`)", 14, "Header() expects 2 arguments, got 1"),
            ("Header(`K`, `v`, `w`)", 1, "Header() expects 2 arguments, got 3"),
            ("HostRegexp(`a`, `b`)", 1, "HostRegexp() expects 1 argument, got 2"),
            ("Query()", 1, "Query() expects 1 or 2 arguments, got 0"),
            ("Query(`a`, `b`, `c`)", 1, "Query() expects 1 or 2 arguments, got 3"),
            ("QueryRegexp(`a`)", 1, "QueryRegexp() expects 2 arguments, got 1"),
            ("Path(`/`) && Hots(`a`)", 14, 'unknown matcher "Hots"; did you mean Host?'),
            ("PathPrefx(`/`)", 1, "did you mean PathPrefix?"),
            ("Xyzzy(`/`)", 1, "the matchers are Host, HostRegexp"),
            ("HostSNI(`a`)", 1, "HostSNI is a matcher for routers of tcp entrypoints"),
            ("Host(`a`, `b c`)", 11, 'Host(): "b c" is not a host name'),
            ("PathRegexp(`(`)", 12, "PathRegexp(): "),
            ("ClientIP(`10.0.0.0/8`, `x`)", 24, "ClientIP(): "),
            (r'Path("/a\d")', 9, "unknown escape"),
            (r'Path("/\uD800")', 8, "not a character"),
            (r'Path("/\U00110000")', 8, "not a character"),
            ("Path(`/\ud800`)", 8, "surrogate"),
        ]:
            error = self.assertRaises(RuleError, parse_rule, text, "http")
            self.assertIn(part, error.message, text)
            self.assertEqual(error.column, column, text)
        self.assertIn("for routers of http", self.assertRaises(RuleError, parse_rule, "Host(`a`)", "tcp").message)

    def test_error_text(self):
        """
        An error reads as one line with its column.
        """
        self.assertEqual(str(RuleError("the rule is empty", 7)), "column 7: the rule is empty")

    def test_depth(self):
        """
        Nesting is bounded; within the bound everything works, and beyond it is a plain error.
        """
        for opened, closed in [("!", ""), ("(", ")"), ("!(Path(`/`) || ", ")")]:
            levels = MAX_DEPTH // 2 if opened.startswith("!(") else MAX_DEPTH
            rule = parse_rule(opened * levels + "Path(`/`)" + closed * levels, "http")
            self.assertEqual(parse_rule(str(rule), "http"), rule)
            for depth in (levels + 1, 100_000):
                error = self.assertRaises(RuleError, parse_rule, opened * depth + "Path(`/`)" + closed * depth, "http")
                self.assertIn("nest deeper than 100", error.message)

    def test_length(self):
        """
        A rule may be long without being deep.
        """
        rule = parse_rule(" || ".join(f"Path(`/{number}`)" for number in range(5000)), "http")
        assert isinstance(rule, Or)
        self.assertEqual(len(rule.operands), 5000)

    def test_print(self):
        """
        A printed tree has only the parentheses it needs.
        """
        for text in [
            "Host(`a`) && (Path(`/a`) || !PathPrefix(`/b`, `/c`))",
            "!(Host(`a`) && Path(`/a`)) || Method(`GET`)",
            r'Header(`X`, "a`b\\\"")',
        ]:
            self.assertEqual(str(parse_rule(text, "http")), text)
        self.assertEqual(str(parse_rule('((host("a")))&&(path(`/`)&&method(`get`))', "http")), "Host(`a`) && Path(`/`) && Method(`get`)")

    def test_signatures(self):
        """
        Every matcher of the language is there.
        """
        self.assertEqual(
            {name for name, signature in SIGNATURES.items() if "http" in signature.kinds},
            {
                *("Host", "HostRegexp", "Path", "PathPrefix", "PathRegexp", "PathSegments", "Method"),
                *("Header", "HeaderRegexp", "Query", "QueryRegexp", "ClientIP"),
            },
        )
        self.assertEqual(
            {name for name, signature in SIGNATURES.items() if "tcp" in signature.kinds}, {"HostSNI", "HostSNIRegexp", "ClientIP", "ALPN"}
        )

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.text(st.sampled_from('`"\\()!&|, \n/*HostPathMedGE10u:[]%.?')) | st.text(), st.sampled_from(["http", "tcp"]))
    @example("Host(`" + "." * 300 + "`)", "http")
    def test_any_text(self, text, kind):
        """
        Any text is a rule or a `RuleError` with a column within the text or right behind it.
        """
        try:
            rule = parse_rule(text, kind)
        except RuleError as error:
            self.assertTrue(1 <= error.column <= len(text) + 1, error)
        else:
            self.assertEqual(parse_rule(str(rule), kind), rule)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.sampled_from(sorted(SIGNATURES)), st.lists(st.text(), max_size=3), st.sampled_from(["http", "tcp"]))
    def test_any_argument(self, name, arguments, kind):
        """
        Whatever stands within the quotes is read or refused, and survives printing.
        """
        text = str(Matcher(name, tuple(arguments), ()))
        try:
            rule = parse_matcher(text, kind)
        except RuleError:
            return
        self.assertEqual(rule.arguments, tuple(arguments))
        self.assertEqual(str(rule), text)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.one_of(HTTP_RULES.map(lambda text: (text, "http")), TCP_RULES.map(lambda text: (text, "tcp"))))
    def test_round_trip(self, case):
        """
        To print a tree and to read it again gives the same tree.
        """
        text, kind = case
        rule = parse_rule(text, kind)
        self.assertEqual(parse_rule(str(rule), kind), rule)
