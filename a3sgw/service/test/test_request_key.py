"""
Tests of what of a request says where it belongs.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import make_field
from a3sgw.service.request_key import make_key_reader
from a3sgw.service.test.servers import record


class KeyReaderTests(SynchronousTestCase):
    """
    `make_key_reader` finds a request's key.
    """

    def test_keys(self):
        """The key is the client's address, the path, or the first value of the header, cookie or parameter of that name."""
        fields = [
            make_field(b"X-Shop", b"7"),
            make_field(b"x-shop", b"8"),
            make_field(b"X-Empty", b""),
            make_field(b"Cookie", b'other=1; cart="a1"; cart=a2; Cart=a3'),
        ]
        head = record(b"\x0a\0\0\1", fields, b"/a/b", b"x=1&user=a%20b&user=c&User=d&flag").head
        for source, name, key in (
            ("client-ip", "", b"\x0a\0\0\1"),
            ("path", "", b"/a/b"),
            ("header", "X-Shop", b"7"),
            ("header", "x-SHOP", b"7"),
            ("header", "X-Other", None),
            ("header", "X-Empty", b""),
            ("cookie", "cart", b"a1"),
            ("cookie", "Cart", b"a3"),
            ("cookie", "CART", None),
            ("query", "user", b"a b"),
            ("query", "User", b"d"),
            ("query", "flag", b""),
            ("query", "y", None),
        ):
            self.assertEqual(make_key_reader(source, name)(head), key, f"{source} {name}")

    def test_bare_request(self):
        """A request without anything has no key but its path."""
        head = record().head
        for source, key in (("client-ip", b""), ("path", b"/"), ("header", None), ("cookie", None), ("query", None)):
            self.assertEqual(make_key_reader(source, "a")(head), key, source)
