"""
Tests for `a3sgw.wire.body`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import DownstreamError, Outcome, UpstreamError
from a3sgw.message import make_field
from a3sgw.wire.body import BodyReader, ChunkedReader, CloseReader, LengthReader, chunk
from a3sgw.wire.fields import REQUEST_KINDS, RESPONSE_KINDS, LineTable
from a3sgw.wire.http1 import field_block
from a3sgw.wire.test.reading import NEXT, body_reading, few_ways, ways

CASES = settings(deadline=None, max_examples=200, derandomize=True)

_REQUEST_LINES = LineTable(REQUEST_KINDS, internal_prefix=b"x-gateway-")
_RESPONSE_LINES = LineTable(RESPONSE_KINDS)
CHUNK, TRAILER = Outcome.CHUNK_MALFORMED, Outcome.TRAILER_REFUSED


def for_request(nominated=frozenset()):
    return ChunkedReader(_REQUEST_LINES, is_request=True, nominated=nominated)


def for_response(nominated=frozenset()):
    return ChunkedReader(_RESPONSE_LINES, is_request=False, nominated=nominated)


def refusal(make_reader, data, cut=ways):
    """
    Return the outcome with which `data` is refused, in every way, and with more behind it.
    """
    outcome = body_reading(make_reader, data, cut)[4]
    assert body_reading(make_reader, data + NEXT, few_ways)[4] is outcome, data
    return outcome


class LengthReaderTests(SynchronousTestCase):
    """
    Tests for `LengthReader`.
    """

    def test_all_ways(self):
        """
        A body of known length ends at its last byte, and what follows is kept for the next message.
        """
        self.assertEqual(body_reading(lambda: LengthReader(5), b"hello"), (b"hello", True, b"", [], None))
        self.assertEqual(body_reading(lambda: LengthReader(5), b"hello" + NEXT, few_ways), (b"hello", True, NEXT, [], None))
        self.assertEqual(body_reading(lambda: LengthReader(5), b"hell"), (b"hell", False, b"", [], None))

    def test_broken_off(self):
        """
        A body that breaks off is not complete.
        """
        reader = LengthReader(5)
        reader.feed(b"hell")
        self.assertFalse(reader.finish())


class CloseReaderTests(SynchronousTestCase):
    """
    Tests for `CloseReader`.
    """

    def test_end(self):
        """
        The body is whatever comes until the connection ends.
        """
        self.assertEqual(body_reading(CloseReader, b"0\r\n\r\nHTTP/1.1 200 OK"), (b"0\r\n\r\nHTTP/1.1 200 OK", False, b"", [], None))
        reader = CloseReader()
        reader.feed(b"a")
        self.assertTrue(reader.finish())
        self.assertTrue(reader.ended)


class ChunkedReaderTests(SynchronousTestCase):
    """
    Tests for `ChunkedReader`.
    """

    def test_data(self):
        """
        The data of all chunks come out, sizes and extensions do not.
        """
        for data, expected in {
            b"0\r\n\r\n": b"",
            b"5\r\nhello\r\n0\r\n\r\n": b"hello",
            b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n": b"hello world",
            b"a\r\n0123456789\r\n0\r\n\r\n": b"0123456789",
            b"A\r\n0\r\n\r\n56789\r\n0\r\n\r\n": b"0\r\n\r\n56789",
            b"000000000000005\r\nhello\r\n000000000000000\r\n\r\n": b"hello",
            b"2\r\n\r\n\r\n0\r\n\r\n": b"\r\n",
            b"1;a\r\nx\r\n0;b=c\r\n\r\n": b"x",
            b'1;a=";\\"\t\xe9";b=c;d\r\nx\r\n0;e=""\r\n\r\n': b"x",
        }.items():
            for make_reader in (for_request, for_response):
                self.assertEqual(body_reading(make_reader, data), (expected, True, b"", [], None), data)
                self.assertEqual(body_reading(make_reader, data + NEXT, few_ways), (expected, True, NEXT, [], None), data)

    def test_incomplete(self):
        """
        A chunked body goes on until its last chunk and trailer section have come, and is never complete before.
        """
        body = b"5;a=b\r\nhello\r\n0\r\nX-A: b\r\n\r\n"
        for end in range(1, len(body)):
            data, *others = body_reading(for_request, body[:end], few_ways)
            self.assertEqual((others[0], others[1], others[3]), (False, b"", None))
            self.assertTrue(b"hello".startswith(data))
        reader = for_request()
        reader.feed(body[:-1])
        self.assertFalse(reader.finish())

    def test_sizes_refused(self):
        """
        A size that is not one to fifteen hex digits is refused, and so is anything around it.
        """
        for line in [
            b"",
            b"0x5",
            b"0X5",
            b"x5",
            b"+5",
            b"-5",
            b"-0",
            b" 5",
            b"5 ",
            b"\t5",
            b"5\t",
            b"5 ;a",
            b"5.",
            b"5_0",
            b"5,5",
            b"5g",
            b"g",
            b"five",
            b'"5"',
            b"\xef\xbc\x95",
            b"5\x00",
            b"5\x0b",
            b"\x005",
            b"1000000000000000",
            b"0000000000000005",
            b"00000000000000005",
            b"ffffffffffffffff",
            b"10000000000000005",
            b"f" * 2000,
            # A line end that only some take for one.
            b"5\n",
            b"\n5",
            b"5\r",
            b"\r5",
            b"5\rhello",
            b"5\nhello",
        ]:
            for tail in (b"\r\nhello\r\n0\r\n\r\n", b"\r\n"):
                self.assertIs(refusal(for_request, line + tail, few_ways), CHUNK, line)
                self.assertIs(refusal(for_response, line + tail, few_ways), Outcome.RESPONSE_MALFORMED, line)

    def test_extensions_refused(self):
        """
        An extension that ends elsewhere for others, at a bare CR or LF or within its quotes, is refused.
        """
        for line in [
            b"5;",
            b"5;;",
            b"5;a;",
            b"5; a",
            b"5;a ",
            b"5;a =b",
            b"5;a= b",
            b"5;=b",
            b"5;a=",
            b"5;a==b",
            b"5;a=\n",
            b"5;\nhello",
            b"5;a\n\nhello",
            b"5;a\rb",
            b"5;\r",
            b"5;a=b\r",
            b"5;a\x00",
            b"5;a\x7f",
            b"5;\xe9",
            b'5;a="',
            b'5;a="b',
            b'5;a="b\\"',
            b'5;a="b"c',
            b'5;a="\n"',
            b'5;a="\x00"',
            b";a",
            b"5;a=" + b"b" * 1024,
        ]:
            data = line + b"\r\nhello\r\n0\r\n\r\n"
            self.assertIs(refusal(for_request, data, few_ways), CHUNK, line)
            self.assertIs(refusal(for_response, data, few_ways), Outcome.RESPONSE_MALFORMED, line)

    def test_data_end_refused(self):
        """
        A chunk whose data are not followed by CRLF is refused.
        """
        for data in [
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhello\n\r0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"5\r\nhell\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"0\n\n",
            b"5\r\nhello\r\n\r\n0\r\n\r\n",
        ]:
            self.assertIs(refusal(for_request, data), CHUNK, data)

    def test_known_early(self):
        """
        What cannot become right is refused at once, not when its line ends.
        """
        for data in [b"g", b"+", b" ", b"5 ", b"5\n", b"5;a\n", b"5\rx", b"\r", b"1" * 16, b";", b"5;" + b"a" * 1100, b"1\r\nx0"]:
            self.assertIs(body_reading(for_request, data, few_ways)[4], CHUNK, data)
        for data in [b"0\r\nA: b\n", b"0\r\nA: b\rc", b"0\r\n\n", b"0\r\n" + b"a" * 17000]:
            self.assertIs(body_reading(for_request, data, few_ways)[4], TRAILER, data)

    def test_longest_lines(self):
        """
        A line that just keeps within its bound is accepted whichever way it comes, one byte more is refused.
        """
        extension = b"a" * (ChunkedReader.MAX_SIZE_LINE - 2)
        self.assertEqual(body_reading(for_request, b"1;" + extension + b"\r\nx\r\n0\r\n\r\n", few_ways)[0], b"x")
        self.assertIs(refusal(for_request, b"1;a" + extension + b"\r\nx\r\n0\r\n\r\n", few_ways), CHUNK)
        value = b"v" * (ChunkedReader.MAX_TRAILER_BYTES - 5)
        self.assertEqual(len(body_reading(for_request, b"0\r\na: " + value + b"\r\n\r\n", few_ways)[3]), 1)
        self.assertIs(refusal(for_request, b"0\r\na: v" + value + b"\r\n\r\n", few_ways), TRAILER)

    def test_extension_flood(self):
        """
        Extensions that outweigh the data by far are refused, those that come with data are not.
        """
        piece = b"1;" + b"a" * 998 + b"\r\nx\r\n"
        self.assertIs(refusal(for_request, piece * 17 + b"0\r\n\r\n", few_ways), CHUNK)
        self.assertEqual(body_reading(for_request, piece * 16 + b"0\r\n\r\n", few_ways)[0], b"x" * 16)
        signed = b"200;chunk-signature=" + b"a" * 64 + b"\r\n" + b"x" * 512 + b"\r\n"
        self.assertEqual(body_reading(for_request, signed * 500 + b"0\r\n\r\n", lambda data: [[data]])[0], b"x" * 256000)

    def test_trailers(self):
        """
        Trailer fields are kept in their order and letter case.
        """
        data = b"1\r\nx\r\n0\r\nX-Checksum: 7\r\ngrpc-status:0 \r\nX-Checksum: 8\r\n\r\n"
        for make_reader in (for_request, for_response):
            found = body_reading(make_reader, data + NEXT, few_ways)
            self.assertEqual(found[:3], (b"x", True, NEXT))
            self.assertEqual(
                [tuple(field) for field in found[3]],
                [
                    (b"x-checksum", b"7", b"X-Checksum: 7"),
                    (b"grpc-status", b"0", b"grpc-status:0 "),
                    (b"x-checksum", b"8", b"X-Checksum: 8"),
                ],
            )

    def test_malformed_trailers(self):
        """
        A trailer line is as strictly read as a header line.
        """
        for line in [b"A", b"A : b", b" folded", b"A: b\nC: d", b"A: b\rC: d", b"A: \x00", b": b", b"A\n", b"\rA: b", b"A: b\r"]:
            self.assertIs(refusal(for_request, b"0\r\n" + line + b"\r\n\r\n"), TRAILER, line)
            self.assertIs(refusal(for_response, b"0\r\n" + line + b"\r\n\r\n"), Outcome.RESPONSE_MALFORMED, line)

    def test_forbidden_trailers(self):
        """
        A trailer field that frames, routes or authenticates, or is the gateway's own, is refused in a request and dropped from a response.
        """
        for name in [
            b"Content-Length",
            b"Transfer-Encoding",
            b"Host",
            b"Authorization",
            b"Cookie",
            b"Set-Cookie",
            b"Content-Type",
            b"Connection",
            b"Trailer",
            b"TE",
            b"Upgrade",
        ]:
            value = {b"Content-Length": b"5", b"Transfer-Encoding": b"chunked"}.get(name, b"a")
            data = b"0\r\nX-A: b\r\n%b: %b\r\n\r\n" % (name, value)
            self.assertIs(refusal(for_request, data), TRAILER, name)
            self.assertEqual(body_reading(for_response, data)[3], [make_field(b"X-A", b"b")], name)
        for name in [b"X-Forwarded-For", b"Forwarded", b"X-Real-Ip", b"X-Request-Id", b"X-Gateway-A", b"x_user", b"X_Forwarded_For"]:
            data = b"0\r\n%b: a\r\n\r\n" % name
            self.assertIs(refusal(for_request, data), TRAILER, name)
        self.assertEqual(body_reading(for_response, b"0\r\nmy_key: a\r\n\r\n")[3], [make_field(b"my_key", b"a")])

    def test_nominated_trailers(self):
        """
        A trailer field that `Connection` named is for this hop and goes no further.
        """
        data = b"0\r\nX-A: a\r\nX-B: b\r\n\r\n"
        for make_reader in (for_request, for_response):
            found = body_reading(lambda make_reader=make_reader: make_reader(frozenset([b"x-a"])), data)
            self.assertEqual(found[3], [make_field(b"X-B", b"b")])

    def test_many_trailers(self):
        """
        A trailer section has bounds in bytes and in fields.
        """
        few = b"a:b\r\n" * ChunkedReader.MAX_TRAILER_COUNT
        self.assertEqual(len(body_reading(for_request, b"0\r\n" + few + b"\r\n", few_ways)[3]), ChunkedReader.MAX_TRAILER_COUNT)
        self.assertIs(refusal(for_request, b"0\r\na:b\r\n" + few + b"\r\n", few_ways), TRAILER)
        large = b"a: " + b"b" * 8190 + b"\r\n"
        self.assertIs(refusal(for_request, b"0\r\n" + large * 2 + b"\r\n", few_ways), TRAILER)

    def test_blame(self):
        """
        A request's fault is laid to the client and a response's to the backend.
        """
        with self.assertRaises(DownstreamError):
            for_request().feed(b"x")
        with self.assertRaises(UpstreamError) as caught:
            for_response().feed(b"x")
        self.assertIn("chunk", str(caught.exception))


_SIZES = st.builds(
    lambda number, zeros, upper: (b"0" * zeros + (b"%X" if upper else b"%x") % number), st.integers(0, 20), st.integers(0, 3), st.booleans()
)
# Bodies that are nearly right, so that hypothesis does not have to find the grammar.
_NEARLY = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=20).map(chunk),
        st.sampled_from([b"0\r\n\r\n", b"0\r\n", b"\r\n", b"\n", b"\r", b";a=b", b"5", b"A: b\r\n", b"Host: a\r\n", b'"', b"0", b" "]),
        _SIZES,
        st.binary(max_size=3),
    ),
    max_size=8,
).map(b"".join)


class PropertyTests(SynchronousTestCase):
    """
    What holds for every body.
    """

    @CASES
    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=5),
        st.dictionaries(st.sampled_from([b"X-A", b"B"]), st.just(b"v")),
        st.binary(),
    )
    def test_written_and_read(self, pieces, trailers, rest):
        """
        What was written as chunks is read as it was, with its trailers, up to the byte where it ends.
        """
        fields = [make_field(name, value) for name, value in trailers.items()]
        data = b"".join(map(chunk, pieces)) + b"0\r\n" + field_block(fields) + b"\r\n"
        for make_reader in (for_request, for_response):
            self.assertEqual(body_reading(make_reader, data + rest, few_ways), (b"".join(pieces), True, rest, fields, None))

    @CASES
    @given(_NEARLY, st.data())
    def test_any_cut(self, data, choices):
        """
        However a body is cut, its data, its end, its trailers and its refusal are the same.
        """
        cuts = sorted(choices.draw(st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=6)))
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        for make_reader in (for_request, for_response):
            body_reading(make_reader, data, lambda data: [*few_ways(data), [piece for piece in pieces if piece]])

    @CASES
    @given(st.one_of(st.binary(max_size=60), _NEARLY), st.integers(1, 20))
    def test_only_peers_are_blamed(self, data, length):
        """
        Whatever bytes come, a reader gives data or says whose fault it is.
        """
        if not data:
            return
        for make_reader in (for_request, for_response, CloseReader, lambda: LengthReader(length)):
            reader: BodyReader = make_reader()
            try:
                piece = reader.feed(data)
            except (DownstreamError, UpstreamError) as error:
                self.assertIs(type(error), DownstreamError if make_reader is for_request else UpstreamError)
            else:
                self.assertLessEqual(len(piece) + len(reader.rest), len(data))
