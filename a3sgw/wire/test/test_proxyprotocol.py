"""
Tests of `a3sgw.wire.proxyprotocol`.
"""

import random
import struct

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.proxyprotocol import (
    MAX_HEADER_BYTES,
    Endpoint,
    ProxyHeader,
    ProxyProtocolError,
    encode_v1,
    encode_v2,
    endpoint_of,
    read_proxy_header,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
A4, B4 = endpoint_of("192.0.2.7", 56324), endpoint_of("203.0.113.9", 443)
A6, B6 = endpoint_of("2001:db8::7", 1), endpoint_of("2001:db8::9", 65535)


def v2(command, family, block, extensions=b""):
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) + len(extensions)) + block + extensions


BLOCK4 = A4.packed + B4.packed + struct.pack("!HH", 56324, 443)
BLOCK6 = A6.packed + B6.packed + struct.pack("!HH", 1, 65535)

CASES = [
    (b"PROXY TCP4 192.0.2.7 203.0.113.9 56324 443\r\n", ProxyHeader(1, A4, B4)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::9 1 65535\r\n", ProxyHeader(1, A6, B6)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:203.0.113.9 56324 443\r\n", ProxyHeader(1, A4, B4)),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ProxyHeader(1, Endpoint(bytes(4), 0), Endpoint(b"\xff" * 4, 65535))),
    (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", ProxyHeader(1)),
    (v2(0x21, 0x11, BLOCK4), ProxyHeader(2, A4, B4)),
    (v2(0x21, 0x21, BLOCK6), ProxyHeader(2, A6, B6)),
    (v2(0x21, 0x12, BLOCK4), ProxyHeader(2, A4, B4)),
    (v2(0x21, 0x31, b"/run/a.sock".ljust(108, b"\0") * 2), ProxyHeader(2)),
    (v2(0x21, 0x00, b""), ProxyHeader(2)),
    (v2(0x20, 0x00, b""), ProxyHeader(2)),
    (v2(0x20, 0x11, b"anything"), ProxyHeader(2)),
    (v2(0x21, 0x11, BLOCK4, b"\x01\x00\x02h2" + b"\x02\x00\x06a.test" + b"\x04\x00\x00"), ProxyHeader(2, A4, B4)),
]


class ReadTests(SynchronousTestCase):
    """
    What a proxy says.
    """

    def test_cases(self):
        """Each header is read whole, with what follows it, and only when its last byte is there."""
        for data, expected in CASES:
            self.assertEqual(read_proxy_header(data), (expected, len(data)), data)
            self.assertEqual(read_proxy_header(data + b"PROXY \x16\x03"), (expected, len(data)), data)
            for cut in range(len(data)):
                self.assertIsNone(read_proxy_header(data[:cut]), (data, cut))

    def test_checksum(self):
        """A checksum is verified wherever it stands among the extensions."""
        for before, after in ((b"", b""), (b"\x01\x00\x02h2", b"\x04\x00\x01\0")):
            bare = v2(0x21, 0x11, BLOCK4, before + b"\x03\x00\x04" + bytes(4) + after)
            at = len(bare) - len(after) - 4
            crc = _reference_crc32c(bare)
            good = bare[:at] + struct.pack("!I", crc) + bare[at + 4 :]
            self.assertEqual(read_proxy_header(good), (ProxyHeader(2, A4, B4), len(good)))
            bad = bare[:at] + struct.pack("!I", crc ^ 1) + bare[at + 4 :]
            self.assertRaisesRegex(ProxyProtocolError, "checksum", read_proxy_header, bad)
        self.assertRaisesRegex(ProxyProtocolError, "checksum", read_proxy_header, v2(0x21, 0x11, BLOCK4, b"\x03\x00\x02ab"))

    def test_nonsense(self):
        """What is no PROXY header is refused, as soon as that is certain."""
        for data, why in (
            (b"G", "no PROXY"),
            (b"GET / HTTP/1.1\r\n", "no PROXY"),
            (b"proxy TCP4", "no PROXY"),
            (b"PROXYTCP4", "no PROXY"),
            (b"\r\n\r\nX", "no PROXY"),
            (b"PROXY \r\n", "neither"),
            (b"PROXY TCP5 192.0.2.7 203.0.113.9 1 2\r\n", "neither"),
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 1\r\n", "neither"),
            (b"PROXY TCP4  192.0.2.7 203.0.113.9 1 2\r\n", "neither"),
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 1 2 \r\n", "neither"),
            (b"PROXY TCP4 2001:db8::7 2001:db8::9 1 2\r\n", "address"),
            (b"PROXY TCP6 192.0.2.7 203.0.113.9 1 2\r\n", "address"),
            (b"PROXY TCP4 192.0.2.07 203.0.113.9 1 2\r\n", "address"),
            (b"PROXY TCP4 192.0.2 203.0.113.9 1 2\r\n", "address"),
            (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "address"),
            (b"PROXY TCP4 \xff.0.2.7 203.0.113.9 1 2\r\n", "address"),
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 65536 2\r\n", "port"),
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 01 2\r\n", "port"),
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 -1 2\r\n", "port"),
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 1 \r\n", "port"),
            (b"PROXY UNKNOWN " + b"x" * 100, "107"),
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 1 2\n" + b"x" * 80, "107"),
            (v2(0x11, 0x11, BLOCK4), "version"),
            (v2(0x22, 0x11, BLOCK4), "version"),
            (v2(0x21, 0x41, BLOCK4), "family"),
            (v2(0x21, 0x13, BLOCK4), "family"),
            (v2(0x21, 0x11, BLOCK4[:-1]), "too short"),
            (v2(0x21, 0x21, BLOCK4), "too short"),
            (v2(0x21, 0x11, BLOCK4, b"\x04\x00"), "extension"),
            (v2(0x21, 0x11, BLOCK4, b"\x04\x00\x02a"), "extension"),
            (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65535), str(MAX_HEADER_BYTES)),
        ):
            self.assertRaisesRegex(ProxyProtocolError, why, read_proxy_header, data)

    def test_longest(self):
        """The longest header of either version is read, and one byte more is refused."""
        line = b"PROXY UNKNOWN".ljust(105, b" ") + b"\r\n"
        self.assertEqual(read_proxy_header(line), (ProxyHeader(1), 107))
        self.assertRaises(ProxyProtocolError, read_proxy_header, line[:-2] + b" \r\n")
        filler = MAX_HEADER_BYTES - 16 - 12 - 3
        header = v2(0x21, 0x11, BLOCK4, struct.pack("!BH", 4, filler) + bytes(filler))
        self.assertEqual(read_proxy_header(header), (ProxyHeader(2, A4, B4), MAX_HEADER_BYTES))
        header = v2(0x21, 0x11, BLOCK4, struct.pack("!BH", 4, filler + 1) + bytes(filler + 1))
        self.assertRaises(ProxyProtocolError, read_proxy_header, header)

    def test_mutations(self):
        """Whatever comes is a header, the beginning of one, or refused; nothing else ever happens."""
        chance = random.Random(7)
        seeds = [data for data, _ in CASES]
        refused = 0
        for _ in range(20_000):
            data = bytearray(chance.choice(seeds))
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(data))
                match chance.randrange(3):
                    case 0:
                        data[at] = chance.randrange(256)
                    case 1:
                        del data[at : at + chance.randrange(4)]
                    case _:
                        data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(4)))
                data = data or bytearray(b"x")
            try:
                found = read_proxy_header(bytes(data))
            except ProxyProtocolError:
                refused += 1
            else:
                self.assertTrue(found is None or 0 < found[1] <= len(data))
        self.assertGreater(refused, 5000)


class WriteTests(SynchronousTestCase):
    """
    What backends are told.
    """

    def test_round_trip(self):
        """What is written is read back, in both versions, and an IPv4 end beside an IPv6 end is written as IPv6."""
        for version, encode in ((1, encode_v1), (2, encode_v2)):
            for source, destination in ((A4, B4), (A6, B6), (A4, B6), (A6, B4)):
                data = encode(source, destination)
                self.assertEqual(read_proxy_header(data), (ProxyHeader(version, source, destination), len(data)))
            data = encode(None, None)
            self.assertEqual(read_proxy_header(data), (ProxyHeader(version), len(data)))

    def test_bytes(self):
        """The forms are those of the specification."""
        self.assertEqual(encode_v1(A4, B4), b"PROXY TCP4 192.0.2.7 203.0.113.9 56324 443\r\n")
        self.assertEqual(encode_v1(A4, B6), b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::9 56324 65535\r\n")
        self.assertEqual(encode_v2(A4, B4), v2(0x21, 0x11, BLOCK4))


def _reference_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
