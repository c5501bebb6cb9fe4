"""
Tests of `a3sgw.wire.resp`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.resp import ErrorReply, ReplyReader, encode_command

CASES = [
    (b"+OK\r\n", b"OK"),
    (b"+\r\n", b""),
    (b"-ERR no such thing\r\n", ErrorReply("ERR", "ERR no such thing")),
    (b"-NOSCRIPT\r\n", ErrorReply("NOSCRIPT", "NOSCRIPT")),
    (b"-\r\n", ErrorReply("", "")),
    (b":0\r\n", 0),
    (b":-17\r\n", -17),
    (b":9223372036854775807\r\n", 2**63 - 1),
    (b"$0\r\n\r\n", b""),
    (b"$5\r\nhello\r\n", b"hello"),
    (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*2\r\n:1\r\n$4\r\n0.25\r\n", [1, b"0.25"]),
    (b"*3\r\n*1\r\n+a\r\n$-1\r\n-ERR\r\n", [[b"a"], None, ErrorReply("ERR", "ERR")]),
]


class ReplyTests(SynchronousTestCase):
    """
    What Redis answers.
    """

    def test_cases(self):
        """Each kind of reply is read whole, byte by byte, and with another behind it."""
        for data, expected in CASES:
            self.assertEqual(ReplyReader().feed(data), [expected], data)
            reader = ReplyReader()
            replies = [reply for byte in data for reply in reader.feed(bytes([byte]))]
            self.assertEqual(replies, [expected], data)
            self.assertEqual(ReplyReader().feed(data + b":7\r\n"), [expected, 7], data)

    def test_whole_only(self):
        """Nothing is given before its last byte has come."""
        for data, expected in CASES:
            reader = ReplyReader()
            self.assertEqual(reader.feed(data[:-1]), [], data)
            self.assertEqual(reader.feed(data[-1:] + b"$1\r\n"), [expected], data)

    @given(st.lists(st.sampled_from(CASES), max_size=20), st.lists(st.integers(1, 30), max_size=20))
    @settings(max_examples=50, deadline=None)
    def test_any_cut(self, cases, cuts):
        """Wherever the network cuts, the replies are the same."""
        data = b"".join(wire for wire, _ in cases)
        reader = ReplyReader()
        replies = []
        for size in [*cuts, len(data)]:
            piece, data = data[:size], data[size:]
            replies += reader.feed(piece)
        self.assertEqual(replies, [expected for _, expected in cases])

    def test_nonsense(self):
        """What is no reply is refused: an HTTP server is not taken for a Redis."""
        for data in (
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b":x\r\n",
            b":1_0\r\n",
            b": 1\r\n",
            b":\r\n",
            b":99999999999999999999\r\n",
            b"$-2\r\n",
            b"$1\r\nab\r\n",
            b"$x\r\n",
            b"*-2\r\n",
            b"_\r\n",
        ):
            self.assertRaises(ValueError, ReplyReader().feed, data)

    def test_bounds(self):
        """Nothing makes the reader keep more than its limit, or nest without end."""
        for data in (b"$101\r\n", b"*101\r\n", b"+" + b"a" * 101, b"*1\r\n" * 9, b"*2\r\n$60\r\n" + b"a" * 60 + b"\r\n$60\r\n" + b"a" * 59):
            self.assertRaises(ValueError, ReplyReader(limit=100).feed, data)
        self.assertEqual(ReplyReader(limit=100).feed(b"+a\r\n" * 1000), [b"a"] * 1000)


class CommandTests(SynchronousTestCase):
    """
    What Redis is asked.
    """

    def test_encode(self):
        """A command is an array of strings that may hold anything."""
        self.assertEqual(encode_command(b"PING"), b"*1\r\n$4\r\nPING\r\n")
        self.assertEqual(encode_command(b"SET", b"", b"a\r\nb"), b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n")

    @given(st.lists(st.binary(max_size=20), max_size=5))
    @settings(max_examples=30, deadline=None)
    def test_read_back(self, parts):
        """What is written is what is read."""
        self.assertEqual(ReplyReader().feed(encode_command(*parts)), [parts])
