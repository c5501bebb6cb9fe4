"""
Tests of `a3sgw.wire.opening`.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.proxy.test.test_tcp_connection import client_hello
from a3sgw.wire.opening import Opening
from a3sgw.wire.postgres import SSL_REQUEST

GSS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x30"
HELLO = client_hello("a.test", ("h2", "postgresql"))
FOUND = (b"a.test", (b"h2", b"postgresql"))


class OpeningTests(SynchronousTestCase):
    """
    A client's first words.
    """

    def play(self, *pieces):
        """
        Return the answers, what was found, and what is left for the server; fail if anything is found before the last piece.
        """
        opening = Opening()
        answers = b""
        for piece in pieces[:-1]:
            answers += opening.take(piece)
            self.assertIsNone(opening.read())
        answers += opening.take(pieces[-1])
        return answers, opening.read(), opening.pending, opening.asked

    def test_openings(self):
        """TLS at once, TLS after a question or two, and something else: whole, and byte by byte."""
        for answers, data, found, pending in (
            (b"", HELLO, FOUND, HELLO),
            (b"S", SSL_REQUEST + HELLO, FOUND, HELLO),
            (b"NS", GSS_REQUEST + SSL_REQUEST + HELLO, FOUND, HELLO),
            (b"", b"S", (None, ()), b"S"),
            (b"", b"\0\0\0\x09", (None, ()), b"\0\0\0\x09"),
            (b"N", GSS_REQUEST + b"\0\0\0\x54", (None, ()), b"\0\0\0\x54"),
            (b"S", SSL_REQUEST + b"\0", (None, ()), b"\0"),
        ):
            expected = (answers, found, pending, b"S" in answers)
            self.assertEqual(self.play(data), expected, data)
            self.assertEqual(self.play(*(data[at : at + 1] for at in range(len(data)))), expected, data)

    def test_asked_once(self):
        """Who has been told yes is not told again."""
        opening = Opening()
        self.assertEqual(opening.take(SSL_REQUEST * 2), b"S")
        self.assertEqual((opening.pending, opening.read()), (SSL_REQUEST, (None, ())))

    def test_silence(self):
        """Nothing is found in nothing."""
        self.assertIsNone(Opening().read())
        self.assertEqual(Opening().take(b""), b"")
