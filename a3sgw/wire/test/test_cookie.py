"""
Tests for `a3sgw.wire.cookie`.
"""

from http.cookies import SimpleCookie

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import make_field
from a3sgw.wire.cookie import read_cookie, remove_cookie, set_cookie_value

CASES = settings(deadline=None, max_examples=150, derandomize=True)

OCTETS = "!#$%&'()*+-./0123456789:<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"

ACCEPT = make_field(b"Accept", b"node=1")


def cookies(*values):
    """
    Return the fields of a request that has these `Cookie` fields, among others.
    """
    return [ACCEPT, *(make_field(b"Cookie", value) for value in values), ACCEPT]


class ReadTests(SynchronousTestCase):
    """
    Tests for `read_cookie`.
    """

    def test_found(self):
        """Every value of the cookie is found, wherever it stands, and nothing that only looks like it."""
        for value, found in [
            (b"node=1", [b"1"]),
            (b"a=b; node=1; c=d", [b"1"]),
            (b"a=b;node=1;c=d", [b"1"]),
            (b" node = 1 ", [b"1"]),
            (b"\tnode\t=\t1\t", [b"1"]),
            (b"node=1; node=2", [b"1", b"2"]),
            (b"node=", [b""]),
            (b'node="1"', [b"1"]),
            (b'node=""', [b""]),
            (b"node=a=b==", [b"a=b=="]),
            (b"node", []),
            (b"=node", []),
            (b"Node=1", []),
            (b"NODE=1; node=2", [b"2"]),
            (b"xnode=1", []),
            (b"nodex=1", []),
            (b"x=node=1", []),
            (b"x=node", []),
            (b"", []),
            (b";;;", []),
        ]:
            self.assertEqual(read_cookie(cookies(value), b"node"), found, value)

    def test_refused(self):
        """A value with what RFC 6265 does not allow is left out; a good one beside it is not."""
        for value in [b"a b", b"a,b", b'a"b', b'"', b'"a', b'a"', b'"a"b"', b"a\\b", b"a\tb", b"a\x7f", b"a\xc3\xa4", b"a\0", b'"a b"']:
            self.assertEqual(read_cookie(cookies(b"node=%b; node=good" % value), b"node"), [b"good"], value)

    def test_fields(self):
        """A client may send several cookie fields, as over HTTP/2; other fields are none of ours."""
        self.assertEqual(read_cookie(cookies(b"node=1", b"a=b", b"c=d; node=2"), b"node"), [b"1", b"2"])
        self.assertEqual(read_cookie(cookies(), b"node"), [])
        self.assertEqual(read_cookie([make_field(b"cookie2", b"node=1"), make_field(b"COOKIE", b"node=3")], b"node"), [b"3"])


class RemoveTests(SynchronousTestCase):
    """
    Tests for `remove_cookie`.
    """

    def test_removed(self):
        """The cookie goes, malformed or repeated, and the others stay as they were."""
        for value, left in [
            (b"node=1", None),
            (b"node=1; node=2", None),
            (b"node=1;", None),
            (b"node=1; a=b", b"a=b"),
            (b"a=b; node=1", b"a=b"),
            (b"a=b; node=1; c=d", b"a=b; c=d"),
            (b"a=b;node=1;c=d", b"a=b; c=d"),
            (b'a=b; node = x y,"z ; c=d', b"a=b; c=d"),
            (b'a="b c"; node=1; \xc3\xa4=,;e', b'a="b c"; \xc3\xa4=,; e'),
            (b"node=1; node; x=node=1", b"node; x=node=1"),
        ]:
            fields = cookies(value)
            remove_cookie(fields, b"node")
            self.assertEqual(fields, cookies(left) if left is not None else cookies(), value)

    def test_untouched(self):
        """Where the cookie is not, no byte changes."""
        for value in [b"a=b", b"a=b;c=d ;; ", b"xnode=1;nodex=2", b"Node=1", b"node", b"x=node=1", b""]:
            fields = cookies(value)
            remove_cookie(fields, b"node")
            self.assertEqual(fields, cookies(value), value)

    def test_fields(self):
        """It goes from every cookie field; the name of the field keeps its letter case, and fields their places."""
        fields = [make_field(b"cookie", b"node=1"), make_field(b"COOKIE", b"a=b; node=1"), ACCEPT, make_field(b"Cookie", b"c=d;e=f")]
        remove_cookie(fields, b"node")
        self.assertEqual([field.line for field in fields], [b"COOKIE: a=b", b"Accept: node=1", b"Cookie: c=d;e=f"])

    @CASES
    @given(st.lists(st.lists(st.sampled_from([b"a", b"node", b"=", b";", b" ", b"1", b'"', b","]), max_size=12).map(b"".join), max_size=3))
    def test_nothing_left(self, values):
        """What was removed is not read again, and the pairs of others are all there."""
        fields = cookies(*values)
        before = read_cookie(fields, b"a")
        remove_cookie(fields, b"node")
        self.assertEqual(read_cookie(fields, b"node"), [])
        self.assertEqual(read_cookie(fields, b"a"), before)


class SetTests(SynchronousTestCase):
    """
    Tests for `set_cookie_value`.
    """

    def test_attributes(self):
        """Attributes stand in one order, and only those that were asked for."""
        for options, expected in [
            ({}, b"node=1; Path=/; HttpOnly; SameSite=Lax"),
            ({"path": None, "http_only": False, "same_site": None}, b"node=1"),
            ({"max_age": 3600}, b"node=1; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
            ({"max_age": 0}, b"node=1; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"),
            ({"path": b"/shop", "domain": b"example.com"}, b"node=1; Path=/shop; Domain=example.com; HttpOnly; SameSite=Lax"),
            ({"secure": True, "same_site": "strict"}, b"node=1; Path=/; Secure; HttpOnly; SameSite=Strict"),
            ({"secure": True, "same_site": "none"}, b"node=1; Path=/; Secure; HttpOnly; SameSite=None"),
            ({"same_site": "none"}, b"node=1; Path=/; HttpOnly"),
        ]:
            self.assertEqual(set_cookie_value(b"node", b"1", **options), expected)

    def test_refused(self):
        """Nothing that was given can end its attribute and begin another, or a header line."""
        for name, value, options in [
            (b"", b"1", {}),
            (b"a b", b"1", {}),
            (b"a=b", b"1", {}),
            (b"a;b", b"1", {}),
            (b"node", b"1; Domain=evil.test", {}),
            (b"node", b"1\r\nX: y", {}),
            (b"node", b"\xc3\xa4", {}),
            (b"node", b'"1"', {}),
            (b"node", b"1", {"path": b"/;Secure"}),
            (b"node", b"1", {"path": b"/\n"}),
            (b"node", b"1", {"path": b""}),
            (b"node", b"1", {"domain": b"a;b"}),
            (b"node", b"1", {"same_site": "Lax"}),
            (b"node", b"1", {"domain": b"\x7f"}),
        ]:
            self.assertRaises(ValueError, set_cookie_value, name, value, **options)

    def test_errors_name_the_cookie(self):
        """What is wrong is said with the cookie at fault."""
        error = self.assertRaises(ValueError, set_cookie_value, b"node", b"1", domain=b"a;b")
        self.assertIn("b'a;b' cannot be the Domain of cookie b'node'", str(error))

    @CASES
    @given(st.text(OCTETS, max_size=20).map(str.encode))
    def test_round_trip(self, value):
        """What was set is what is read, by us and by other software."""
        line = set_cookie_value(b"node", value, max_age=5)
        self.assertEqual(SimpleCookie(line.decode("ascii"))["node"].value.encode(), value)
        self.assertEqual(read_cookie(cookies(line), b"node"), [value])
