"""
Tests of patterns and replacements in options.
"""

from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import MiddlewareError
from a3sgw.middleware.pattern import LONGEST_RESULT, PATTERN, REPLACEMENT, Replacement, ReplacementTooLongError


class ReplacementTests(SynchronousTestCase):
    """
    Replacements are Go's.
    """

    def test_apply(self):
        """Every match becomes what the replacement makes of its groups; without a match there is no result."""
        for pattern, replacement, text, result in [
            ("b", "x", b"abcb", b"axcx"),
            ("(a)(b)?", "<$2$1>", b"abac", b"<ba><a>c"),
            ("(a)", "${1}0", b"a", b"a0"),
            ("(?P<one>a)(?P<two>b)", "$two$one${one}s", b"ab", b"baas"),
            ("a", "$0$0", b"xa", b"xaa"),
            ("a", "$$0", b"a", b"$0"),
            ("a", "", b"ab", b"b"),
            ("^", "x", b"a", b"xa"),
            ("$", "x", b"a", b"ax"),
            ("a", "b", b"c", None),
            (".*", "x", b"abc", b"x"),
            ("(.*)", "<$1>", b"", b"<>"),
            ("a*", "-", b"baac", b"-b-c-"),
            ("b*", "-", b"aba", b"-a-a-"),
            ("a?$", "-", b"aa", b"a-"),
            # A replacement is not replaced again, and backslashes mean nothing.
            ("(a)", r"a\1$1", b"a", rb"a\1a"),
            ("(.*)", "$1", b"$1", b"$1"),
        ]:
            self.assertEqual(Replacement(pattern, replacement).apply(text), result, (pattern, replacement))

    def test_references(self):
        """A group that there is not is refused, with a remedy."""
        for pattern, replacement, reason in [
            ("a", "$1", "names the group 1, but the pattern has none"),
            ("(a)", "$2", "names the group 2, but the pattern has only 1"),
            ("(a)", "$99999999999999999999", "names the group 99999999999999999999, but the pattern has only 1"),
            ("(a)", "$1x", 'names the group "1x", which the pattern does not have; write "$${1}" if the group 1 is meant'),
            (
                "(?P<one>a)(?P<two>b)",
                "$three",
                'names the group "three", which the pattern does not have; its named groups are "one", "two"',
            ),
            ("(a)", "${name}", 'names the group "name", which the pattern does not have; it has no named groups'),
            ("a", "a$", 'has a "$" that names no group; write "$$" for a dollar sign'),
            ("a", "$-", 'has a "$" that names no group; write "$$" for a dollar sign'),
            ("a", "${}", 'has a "$" that names no group; write "$$" for a dollar sign'),
            ("a", "${a", 'has a "$" that names no group; write "$$" for a dollar sign'),
        ]:
            error = self.assertRaises(MiddlewareError, Replacement, pattern, replacement)
            self.assertEqual((error.attribute, error.reason), ("replacement", reason))

    def test_bounded(self):
        """A result has a bound, whatever the text."""
        doubling = Replacement("a", "$0$0")
        self.assertEqual(len(doubling.apply(b"a" * (LONGEST_RESULT // 2))), LONGEST_RESULT)
        self.assertRaises(ReplacementTooLongError, doubling.apply, b"a" * (LONGEST_RESULT // 2 + 1))

    def test_linear(self):
        """A pattern that other engines take for ever on is no trouble."""
        started = process_time()
        self.assertIsNone(Replacement("(a*)*b", "$1").apply(b"a" * 8000))
        self.assertLess(process_time() - started, 5)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=30))
    def test_any_text(self, text):
        """No text makes it fail, and what is not matched stays as it was."""
        result = Replacement("[a-f]", "[$0]").apply(text)
        if result is not None:
            self.assertEqual(result.replace(b"[", b"").replace(b"]", b""), text.replace(b"[", b"").replace(b"]", b""))


class KindTests(SynchronousTestCase):
    """
    What may be written.
    """

    def test_patterns(self):
        """A pattern is RE2's and not too costly; reasons do not repeat it."""
        self.assertEqual(PATTERN.read("^a.*$", False), "^a.*$")
        for text, reason in [
            ("a(secret", "which is not an RE2 pattern: missing )"),
            ("(?=secret)", "which is not an RE2 pattern: invalid perl operator"),
            (r"(s)\1", "which is not an RE2 pattern: invalid escape sequence"),
            ("*secret", "which is not an RE2 pattern: no argument for repetition operator"),
            ("secret" * 200, "which is 1200 characters long; at most 1000 are allowed"),
            ("((secret){100}){30}", "which is"),
        ]:
            error = self.assertRaises(ValueError, PATTERN.read, text, False)
            self.assertTrue(str(error).startswith(reason), error)
            self.assertNotIn("secret", str(error))

    def test_replacements(self):
        """A replacement is what may stand in a URL; it may be empty."""
        for text in ("", "/a?b#c", "$1", "~"):
            self.assertEqual(REPLACEMENT.read(text, False), text)
        for text in (" ", "a b", "a\n", "ä", "\x7f"):
            self.assertRaises(ValueError, REPLACEMENT.read, text, False)
