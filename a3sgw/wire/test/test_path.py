"""
Tests for `a3sgw.wire.path`.
"""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome, ProtocolError
from a3sgw.wire.path import PathPolicy, canonical_path

STRICT = PathPolicy()
LAX = PathPolicy(
    merge_slashes=False,
    allow_encoded_slash=True,
    allow_encoded_backslash=True,
    allow_encoded_null_character=True,
    allow_malformed_escapes=True,
)

CANONICAL = {
    b"/": b"/",
    b"/a/b.html": b"/a/b.html",
    b"/.hidden/..name/.../a..": b"/.hidden/..name/.../a..",
    # Escapes: unreserved characters are decoded, the others get upper-case digits.
    b"/%61%7A%2d%2E%5f%7e": b"/az-._~",
    b"/%c3%a9": b"/%C3%A9",
    b"/a%20b%3f%23%25": b"/a%20b%3F%23%25",
    b"/%252e%252e/%252F": b"/%252e%252e/%252F",
    b"/%2541": b"/%2541",
    # Dot segments.
    b"/a/./b": b"/a/b",
    b"/a/../b": b"/b",
    b"/a/b/..": b"/a/",
    b"/a/b/.": b"/a/b/",
    b"/a/b/../": b"/a/",
    b"/..": b"/",
    b"/.": b"/",
    b"/../../etc/passwd": b"/etc/passwd",
    b"/a/%2e%2e/b": b"/b",
    b"/a/.%2E/b": b"/b",
    b"/a/%2e/b": b"/a/b",
    # Slashes.
    b"//a///b//": b"/a/b/",
    b"/a//../b": b"/b",
    b"/.//a": b"/a",
    # What is reserved stays as it is.
    b"/a;v=1/b;..": b"/a;v=1/b;..",
    b"/a:b@c!$&'()*+,=": b"/a:b@c!$&'()*+,=",
}

REFUSED = [
    b"/a%2Fb",
    b"/a%2fb",
    b"/a%5Cb",
    b"/a%5cb",
    b"/a\\b",
    b"/a%00b",
    b"/a%",
    b"/a%2",
    b"/a%zz",
    b"/a%%32e",
    b"/a% 20",
    b"/a%u002e",
    b"/..;/admin",
    b"/a/..;x=1/admin",
    b"/a/.;/b",
    b"/a/..;",
    b"/a/%2e%2e;/b",
    b"/a/..%3b/b",
    b"/a/..%3B",
]


def refusal(path, policy=STRICT):
    try:
        return "accepted as", canonical_path(path, policy)
    except ProtocolError as error:
        return error.outcome


class TableTests(SynchronousTestCase):
    """
    Known paths, and what becomes of them.
    """

    def test_canonical(self):
        """
        Different spellings of a path become one, and what is canonical stays as it is.
        """
        for path, expected in CANONICAL.items():
            self.assertEqual(canonical_path(path, STRICT), expected, path)
            self.assertEqual(canonical_path(expected, STRICT), expected)

    def test_refused(self):
        """
        A path that servers read in different ways is refused.
        """
        for path in REFUSED:
            self.assertEqual(refusal(path), Outcome.PATH_REFUSED, path)

    def test_relaxed(self):
        """
        Each relaxation allows one thing and keeps it as it was written, but for the digits of the escape.
        """
        for attribute, path, expected in [
            ("allow_encoded_slash", b"/a%2fb", b"/a%2Fb"),
            ("allow_encoded_backslash", b"/a%5cb", b"/a%5Cb"),
            ("allow_encoded_backslash", b"/a\\b", b"/a\\b"),
            ("allow_encoded_null_character", b"/a%00b", b"/a%00b"),
            ("allow_malformed_escapes", b"/a%zz%", b"/a%25zz%25"),
            ("allow_malformed_escapes", b"/%%32%65", b"/%252e"),
        ]:
            policy = PathPolicy(**{attribute: True})
            self.assertEqual(canonical_path(path, policy), expected, path)
            for other in REFUSED:
                allowed = {
                    "allow_encoded_slash": rb"%2[Ff]",
                    "allow_encoded_backslash": rb"%5[Cc]|\\",
                    "allow_encoded_null_character": rb"%00",
                    "allow_malformed_escapes": rb"%(?![0-9A-Fa-f]{2})",
                }[attribute]
                if not re.search(allowed, other):
                    self.assertEqual(refusal(other, policy), Outcome.PATH_REFUSED, (attribute, other))

    def test_disguised_dots(self):
        """
        A dot segment that only some servers see is refused even where its parts are allowed.
        """
        for path in [
            b"/a/..%2Fb",
            b"/a/..%2f..%2fb",
            b"/a%2F..",
            b"/a%2f../b",
            b"/a%2F..%2Fb",
            b"/a%2F.",
            b"/a/..\\b",
            b"/a\\..\\b",
            b"/a\\..",
            b"/a/..%5cb",
            b"/a%5C..%5Cb",
            b"/a/..%00/b",
            b"/a/%2e%2e%2fb",
            b"/a%2f%2e%2e;/b",
            # Even if a later segment would climb over it.
            b"/a%2F../../b",
        ]:
            self.assertEqual(refusal(path, LAX), Outcome.PATH_REFUSED, path)
        for path in [b"/a%2Fb", b"/a..%2Fb", b"/a%2F..b", b"/a%2F.b/c", b"/a\\.b", b"/a%00..b"]:
            self.assertEqual(canonical_path(path, LAX), path)

    def test_slashes_kept(self):
        """
        Where slashes are not merged, an empty segment is a segment.
        """
        policy = PathPolicy(merge_slashes=False)
        for path, expected in [(b"/a//b", b"/a//b"), (b"/a//../b", b"/a/b"), (b"//", b"//"), (b"/a//..//b", b"/a//b")]:
            self.assertEqual(canonical_path(path, policy), expected, path)

    def test_long(self):
        """
        A very long path is read like a short one.
        """
        for path, expected in [
            (b"/.." * 20000, b"/"),
            (b"/." * 20000 + b"/a", b"/a"),
            (b"/" * 60000, b"/"),
            (b"/%2e%2E" * 20000, b"/"),
            (b"/a" * 20000 + b"/.." * 19999, b"/a/"),
        ]:
            self.assertEqual(canonical_path(path, STRICT), expected)


# Few characters, so that the ones which matter often meet.
_PIECES = b"/ / . .. a B % %2e %2E %2f %5c %41 %c3 %00 ; %3b \\ 2 ~".split()
PATHS = st.one_of(
    st.lists(st.sampled_from(_PIECES), max_size=14).map(lambda pieces: b"/" + b"".join(pieces)),
    st.binary(max_size=30).map(lambda rest: b"/" + rest),
)
POLICIES = st.builds(PathPolicy, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
CASES = settings(deadline=None, max_examples=200, derandomize=True)


class PropertyTests(SynchronousTestCase):
    """
    What holds for every path.
    """

    @CASES
    @given(PATHS, POLICIES)
    def test_fixed_point(self, path, policy):
        """
        A canonical path is its own canonical form, and only a refusal keeps a path from having one.
        """
        try:
            once = canonical_path(path, policy)
        except ProtocolError as error:
            self.assertIs(error.outcome, Outcome.PATH_REFUSED)
            return
        self.assertEqual(canonical_path(once, policy), once)

    @CASES
    @given(PATHS, POLICIES)
    def test_form(self, path, policy):
        """
        A canonical path begins with a slash and has no dot segment, no escape of an unreserved character and no half escape.
        """
        try:
            found = canonical_path(path, policy)
        except ProtocolError:
            return
        self.assertEqual(found[:1], b"/")
        self.assertFalse({b".", b".."} & set(found.split(b"/")), found)
        self.assertIsNone(re.search(rb"%(?:2[DE]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])", found), found)
        self.assertIsNone(re.search(rb"%(?![0-9A-F]{2})", found), found)
        if policy.merge_slashes:
            self.assertNotIn(b"//", found)
        if not policy.allow_encoded_slash:
            self.assertNotIn(b"%2F", found)
        if not policy.allow_encoded_backslash:
            self.assertIsNone(re.search(rb"%5C|\\", found), found)
        if not policy.allow_encoded_null_character:
            self.assertNotIn(b"%00", found)

    @CASES
    @given(st.lists(st.text("abzAZ059-_~!$&'()*+,;=:@", min_size=1, max_size=5), max_size=5), st.booleans())
    def test_untouched(self, segments, slash):
        """
        A path without dots, escapes and empty segments is never changed.
        """
        path = b"/" + "/".join(segments).encode() + (b"/" if slash and segments else b"")
        self.assertEqual(canonical_path(path, STRICT), path)

    @CASES
    @given(PATHS)
    def test_relaxing(self, path):
        """
        A relaxation never changes the canonical form of a path that is accepted without it.
        """
        try:
            found = canonical_path(path, STRICT)
        except ProtocolError:
            return
        for attribute in (
            "allow_encoded_slash",
            "allow_encoded_backslash",
            "allow_encoded_null_character",
            "allow_malformed_escapes",
        ):
            self.assertEqual(canonical_path(path, PathPolicy(**{attribute: True})), found)
