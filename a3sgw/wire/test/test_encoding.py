"""
Tests of content codings, decoded by those who did not make them.
"""

import gzip
import os
import zlib
from itertools import pairwise

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from a3sgw.wire import encoding
from a3sgw.wire.encoding import ENCODINGS, choose_encoding, is_compressible, make_encoder, weaken_etag

CASES = settings(deadline=None, max_examples=100, derandomize=True)

TEXT = b"".join(b'{"number": %d, "square": %d, "text": "some words that come again"}\n' % (n, n * n) for n in range(16_000))


def decode(name, data):
    """
    Decode a whole body; fail if it is not complete, or if something follows it.
    """
    if name == b"gzip":
        return gzip.decompress(data)
    if name == b"br":
        return brotli.decompress(data)
    reader = zlib.decompressobj(15) if name == b"deflate" else zstandard.ZstdDecompressor().decompressobj()
    found = reader.decompress(data)
    assert reader.eof, "the body is not complete"
    assert not reader.unused_data, "something follows the body"
    return found


def decode_so_far(name, data):
    """
    Decode as much as can be decoded of a body that goes on.
    """
    if name in (b"gzip", b"deflate"):
        return zlib.decompressobj(47).decompress(data)
    if name == b"br":
        return brotli.Decompressor().process(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def resident_bytes():
    """
    Return how much memory this process has.
    """
    try:
        with open("/proc/self/statm", "rb") as source:
            return int(source.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        raise SkipTest("the memory of a process is read from /proc") from None


def brotli_window_bits(data):
    """
    Return what the first byte of a body in br says (RFC 7932 section 9.1).
    """
    first = data[0]
    if not first & 1:
        return 16
    if first >> 1 & 7:
        return 17 + (first >> 1 & 7)
    return 8 + (first >> 4 & 7) if first >> 4 & 7 else 17


class EncoderTests(SynchronousTestCase):
    """
    What goes in comes out.
    """

    @CASES
    @given(st.sampled_from(ENCODINGS), st.integers(1, 9), st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=8))
    def test_round_trip(self, name, level, pieces):
        """A body is the same again however it was cut, and after each flush all of it so far can be read, at every level."""
        encoder = make_encoder(name, level)
        fed = made = b""
        for piece, flush in pieces:
            fed += piece
            made += encoder.feed(piece, flush)
            if flush:
                self.assertEqual(decode_so_far(name, made), fed)
        self.assertEqual(decode(name, made + encoder.end()), fed)

    @settings(CASES, max_examples=25)
    @given(st.sampled_from(ENCODINGS), st.integers(1, 9), st.lists(st.integers(0, len(TEXT)), max_size=6))
    def test_cuts(self, name, level, cuts):
        """A body larger than every window is the same again wherever it was cut."""
        places = [0, *sorted(cuts), len(TEXT)]
        encoder = make_encoder(name, level)
        made = b"".join([encoder.feed(TEXT[start:end]) for start, end in pairwise(places)])
        self.assertEqual(decode(name, made + encoder.end()), TEXT)

    def test_byte_by_byte(self):
        """A body that arrives in single bytes is the same again."""
        for name in ENCODINGS:
            encoder = make_encoder(name, 6)
            made = b"".join([encoder.feed(TEXT[at : at + 1]) for at in range(3_000)]) + encoder.end()
            self.assertEqual(decode(name, made), TEXT[:3_000], name)

    def test_empty(self):
        """A body without bytes is a complete one in each coding."""
        for name in ENCODINGS:
            self.assertEqual(decode(name, make_encoder(name, 6).end()), b"", name)

    def test_smaller(self):
        """A large body gets much smaller, at every level, and most of it is given before the end."""
        for name in ENCODINGS:
            for level in range(1, 10):
                encoder = make_encoder(name, level)
                early = sum(len(encoder.feed(TEXT[at : at + 65536])) for at in range(0, len(TEXT), 65536))
                late = len(encoder.end())
                self.assertLess(early + late, len(TEXT) / 4, (name, level))
                self.assertLess(late, early, (name, level))

    def test_levels(self):
        """The highest level makes less of a body than the lowest."""
        for name in ENCODINGS:
            sizes = []
            for level in (1, 9):
                encoder = make_encoder(name, level)
                sizes.append(len(encoder.feed(TEXT) + encoder.end()))
            self.assertLess(sizes[1], sizes[0], name)

    def test_no_such_encoder(self):
        """A level that does not exist, or a coding that cannot be made, is an error that says so."""
        for level in (-1, 0, 10):
            for name in ENCODINGS:
                error = self.assertRaises(ValueError, make_encoder, name, level)
                self.assertIn(f"level {level} ", str(error))
        for name in (b"compress", b"identity", b"x-gzip", b"GZIP", b""):
            error = self.assertRaises(ValueError, make_encoder, name, 6)
            self.assertIn(repr(name), str(error))
            self.assertIn("br, zstd, gzip, deflate", str(error))

    def test_no_time(self):
        """The header of gzip tells no time, so the same body always gives the same bytes."""
        made = make_encoder(b"gzip", 6).end()
        self.assertEqual(made[:3], b"\x1f\x8b\x08")
        # RFC 1952 section 2.3: neither a name nor a comment, and an MTIME of zero.
        self.assertEqual(made[3:8], bytes(5))

    def test_same_bytes(self):
        """Two encoders give the same bytes for the same body."""
        for name in ENCODINGS:
            one, other = (make_encoder(name, 5) for _ in range(2))
            self.assertEqual(one.feed(TEXT) + one.end(), other.feed(TEXT) + other.end(), name)


class MemoryTests(SynchronousTestCase):
    """
    What a stream costs this side and the other.
    """

    def test_streams(self):
        """No stream holds more than 2 MiB, at any level, however large its body is."""
        for name in ENCODINGS:
            for level in range(1, 10):
                before = resident_bytes()
                streams = [make_encoder(name, level) for _ in range(4)]
                for stream in streams:
                    for at in range(0, 393216, 65536):
                        stream.feed(TEXT[at : at + 65536])
                self.assertLess((resident_bytes() - before) / len(streams), 2 << 20, (name, level))

    def test_windows(self):
        """No client needs a window of more than 256 KiB to decode."""
        for level in range(1, 10):
            made = make_encoder(b"zstd", level).feed(TEXT, flush=True)
            self.assertLessEqual(zstandard.get_frame_parameters(made).window_size, 1 << 18, level)
            made = make_encoder(b"br", level).feed(TEXT, flush=True)
            self.assertLessEqual(brotli_window_bits(made), 18, level)


def weight_texts(weight):
    """
    Return the ways to write a weight in thousandths.
    """
    full = b"%d.%03d" % divmod(weight, 1000)
    texts = [full]
    while texts[-1][-1:] in (b"0", b"."):
        texts.append(texts[-1][:-1])
        if len(texts[-1]) == 1:
            break
    return texts


@st.composite
def acceptances(draw):
    """
    Make the weights a client gives, and a header value that says so in some spelling.
    """
    names = draw(st.lists(st.sampled_from([*ENCODINGS, b"*", b"identity", b"compress"]), unique=True, min_size=1))
    weights = {name: draw(st.one_of(st.sampled_from([0, 500, 1000]), st.integers(0, 1000))) for name in names}
    blanks = st.sampled_from([b"", b" ", b"\t "])
    members = []
    for name, weight in weights.items():
        spelt = draw(st.sampled_from([name, name.upper(), name.title(), *([b"x-gzip"] if name == b"gzip" else [])]))
        if weight != 1000 or draw(st.booleans()):
            spelt += draw(blanks) + b";" + draw(blanks) + draw(st.sampled_from([b"q=", b"Q="]))
            spelt += draw(st.sampled_from(weight_texts(weight)))
        members.append(draw(blanks) + spelt + draw(blanks))
        members.extend(draw(st.lists(st.sampled_from([b"", b" ", b"br;q=7", b"gzip x", b'"br"', b"zstd;q=1.0001"]), max_size=1)))
    return weights, b",".join(members)


class ChooseTests(SynchronousTestCase):
    """
    `choose_encoding` reads what clients accept.
    """

    def test_table(self):
        """Weights decide, then our order; what is excluded or unknown is not used."""
        for accepted, chosen in [
            (None, None),
            (b"", None),
            (b"identity", None),
            (b"gzip", b"gzip"),
            (b"GZip", b"gzip"),
            (b"gzip, br", b"br"),
            (b"gzip, deflate, br, zstd", b"br"),
            (b"gzip;q=1.0, br;q=0.9", b"gzip"),
            (b"gzip;q=0.999, br;q=0.998", b"gzip"),
            (b"gzip;q=0.251, br;q=0.25", b"gzip"),
            (b"gzip ; q=0.5 , deflate", b"deflate"),
            (b"gzip\t;\tq=0.001", b"gzip"),
            (b"gzip;Q=0.5", b"gzip"),
            (b"gzip;q=1.", b"gzip"),
            (b"gzip;q=0.", None),
            (b"br;q=0, gzip", b"gzip"),
            (b"br;q=0.0, gzip;q=0.000", None),
            (b",,gzip,,", b"gzip"),
            (b"gzip;q=0, gzip", None),
            (b"compress, pack200-gzip", None),
            # An old name of gzip is gzip.
            (b"x-gzip", b"gzip"),
            (b"X-GZIP;q=0.7, br;q=0.6", b"gzip"),
            (b"x-gzip;q=0, gzip", None),
            # A star stands for what is not named.
            (b"*", b"br"),
            (b"*;q=0", None),
            (b"*;q=0, gzip", b"gzip"),
            (b"br;q=0, *", b"zstd"),
            (b"br;q=0, *;q=0.1", b"zstd"),
            (b"gzip;q=0.5, *;q=0.2", b"gzip"),
            (b"*, gzip", b"br"),
            # No coding at all may be what the client likes best, but it is not what we like best.
            (b"identity, gzip;q=0.5", None),
            (b"identity, gzip", b"gzip"),
            (b"identity;q=0.5, gzip", b"gzip"),
            (b"identity;q=0", None),
            (b"identity;q=0, gzip;q=0.1", b"gzip"),
            (b"identity;q=0, *", b"br"),
            (b"identity, *;q=0.5", None),
            # What cannot be read is passed over.
            (b"gzip;q=1.0001", None),
            (b"gzip;q=1.001", None),
            (b"gzip;q=1.0000, deflate;q=0.1", b"deflate"),
            (b"gzip;q=2", None),
            (b"gzip;q=-1", None),
            (b"gzip;q=+1", None),
            (b"gzip;q=.5", None),
            (b"gzip;q=0.1234", None),
            (b"gzip;q=1e0", None),
            (b"gzip;q=\xd9\xa1", None),
            (b"gzip;q=", None),
            (b"gzip;q", None),
            (b"gzip;", None),
            (b"gzip;q =1", None),
            (b"gzip;q= 1", None),
            (b'gzip;q="1"', None),
            (b"gzip;x=1", None),
            (b"gzip;q=1;x=1", None),
            (b"gzip;q=1;q=1", None),
            (b"gzip deflate", None),
            (b'"gzip"', None),
            (b"br\x00, gzip", b"gzip"),
            (b"br\n, gzip", b"gzip"),
            (b"br\x0b, gzip", b"gzip"),
        ]:
            self.assertEqual(choose_encoding(accepted, ENCODINGS), chosen, accepted)

    def test_offered(self):
        """Nothing is chosen but what is offered, in the order offered."""
        self.assertEqual(choose_encoding(b"br, gzip, zstd", (b"gzip", b"br")), b"gzip")
        self.assertEqual(choose_encoding(b"br, gzip, zstd", [b"zstd", b"br"]), b"zstd")
        self.assertIsNone(choose_encoding(b"br", (b"gzip",)))
        self.assertIsNone(choose_encoding(b"*", ()))
        # The star stands for identity too, which is liked better than the only one we have.
        self.assertIsNone(choose_encoding(b"gzip;q=0.5, *", (b"gzip",)))

    @CASES
    @given(acceptances(), st.permutations(ENCODINGS), st.integers(0, 4))
    def test_every_spelling(self, acceptance, order, count):
        """However it is written, the first of those with the greatest weight is chosen."""
        weights, value = acceptance
        offered = order[:count]
        star = weights.get(b"*", 0)
        best = max([weights.get(name, star) for name in offered], default=0)
        liked = [name for name in offered if weights.get(name, star) == best]
        expected = liked[0] if best and best >= weights.get(b"identity", star) else None
        for _ in range(2):
            self.assertEqual(choose_encoding(value, offered), expected, value)

    def test_hostile(self):
        """A header of ten thousand members or a million bytes is read like any other."""
        for value, chosen in [
            (b"a;q=0.1," * 10_000 + b"gzip", b"gzip"),
            (b"".join(b"a%d," % number for number in range(10_000)) + b"gzip", b"gzip"),
            (b"," * 1_000_000 + b"gzip", b"gzip"),
            (b" \t" * 500_000 + b"gzip", b"gzip"),
            # Were any of them read in square time, the test would not end.
            (b";q=" * 300_000, None),
            (b"gzip" + b" " * 1_000_000 + b"x", None),
            (b"gzip" + b" " * 1_000_000 + b";" + b"\t" * 1_000_000 + b"q=1", b"gzip"),
            (b"gzip;" + b" " * 1_000_000 + b"x", None),
            (b"a" * 1_000_000 + b"(", None),
            (b"gzip;q=0." + b"0" * 1_000_000, None),
        ]:
            self.assertEqual(choose_encoding(value, ENCODINGS), chosen, value[:20])

    def test_memory(self):
        """What clients send is remembered only as long as it is not much."""
        for number in range(5_000):
            self.assertEqual(choose_encoding(b"gzip, x%d" % number, ENCODINGS), b"gzip")
        self.assertEqual(choose_encoding(b"br, " + b"y" * 10_000, ENCODINGS), b"br")
        self.assertLessEqual(len(encoding._chosen), 1024)
        self.assertLessEqual(max(len(value) for value, _ in encoding._chosen), 256)
        self.assertIn((b"gzip, x4999", ENCODINGS), encoding._chosen)

    @CASES
    @given(st.one_of(st.binary(max_size=60), st.text("gzipbr*,; q=01.\t", max_size=40).map(str.encode)))
    def test_any_bytes(self, value):
        """Whatever a client sends, the answer is one of those offered, or none, and the same each time."""
        chosen = choose_encoding(value, ENCODINGS)
        self.assertIn(chosen, (None, *ENCODINGS))
        self.assertEqual(choose_encoding(value, ENCODINGS), chosen)


class TypeTests(SynchronousTestCase):
    """
    Types and tags.
    """

    def test_types(self):
        """Text in all its forms is worth encoding; pictures, sound and archives are not."""
        for value in (
            b"text/plain",
            b"TEXT/HTML; charset=x",
            b"text/event-stream",
            b"application/json",
            b"application/ld+json",
            b"Application/Problem+JSON",
            b"application/xhtml+xml",
            b"application/javascript",
            b"image/svg+xml",
            b"application/wasm",
            b"application/yaml",
        ):
            self.assertTrue(is_compressible(value), value)
        for value in (
            b"",
            b"text",
            b"image/png",
            b"video/mp4",
            b"audio/text",
            b"application/octet-stream",
            b"application/zip",
            b"application/grpc",
            b"font/woff2; x=json",
            b"multipart/byteranges; boundary=text/html",
        ):
            self.assertFalse(is_compressible(value), value)

    def test_tags(self):
        """A strong tag becomes weak, everything else stays."""
        for before, after in [
            (b'"a"', b'W/"a"'),
            (b'""', b'W/""'),
            (b'"W/"', b'W/"W/"'),
            (b'W/"a"', b'W/"a"'),
            (b"odd", b"odd"),
            (b"", b""),
        ]:
            self.assertEqual(weaken_etag(before), after)
