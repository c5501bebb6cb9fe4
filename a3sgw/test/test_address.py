"""
Tests of `a3sgw.address`.
"""

from ipaddress import ip_address, ip_network

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.address import AddressSet, pack_address

NETWORKS4 = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}")
NETWORKS6 = st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(lambda pair: f"{pair[0]}/{pair[1]}")


def contains(networks, address):
    return AddressSet(networks).contains(pack_address(address))


class PackAddressTests(SynchronousTestCase):
    def test_addresses(self):
        """
        An address becomes 4 or 16 bytes; an IPv4-mapped one becomes IPv4, and a zone is dropped.
        """
        for text, packed in [
            ("192.0.2.7", bytes([192, 0, 2, 7])),
            ("::1", bytes(15) + b"\x01"),
            ("2001:DB8::5", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x05"),
            ("::ffff:10.1.2.3", bytes([10, 1, 2, 3])),
            ("::ffff:0a01:0203", bytes([10, 1, 2, 3])),
            ("fe80::1%eth0", b"\xfe\x80" + bytes(13) + b"\x01"),
        ]:
            self.assertEqual(pack_address(text), packed, text)

    def test_refused(self):
        """
        What only looks like an address is refused, the short and octal forms of old included.
        """
        for text in [
            "", " ", "a.test", "10.1", "010.0.0.1", "0x7f.1", "1.2.3.4.5", "256.1.1.1", "1.2.3.4 ", "1.2.3.4%eth0", "fe80::1%", "%eth0",
            "[::1]", ":::1", "10.0.0.0/8", "1.2.3.4\0", "1.2.3.\N{ARABIC-INDIC DIGIT FOUR}", "\ud800",
        ]:  # fmt: skip
            self.assertRaises(ValueError, pack_address, text)


class AddressSetTests(SynchronousTestCase):
    def test_membership(self):
        """
        An address is in the set when one of its networks holds it.
        """
        for networks, address, expected in [
            (["10.0.0.0/8"], "10.255.255.255", True),
            (["10.0.0.0/8"], "11.0.0.0", False),
            (["10.0.0.0/8"], "9.255.255.255", False),
            (["10.0.0.1/8"], "10.9.9.9", True),
            ([" 10.0.0.0/8\t"], "10.0.0.0", True),
            (["192.0.2.7"], "192.0.2.7", True),
            (["192.0.2.7"], "192.0.2.8", False),
            (["0.0.0.0/0"], "255.255.255.255", True),
            (["0.0.0.0/0"], "::1", False),
            (["::/0"], "ffff::", True),
            (["::/0"], "10.0.0.1", False),
            (["::1"], "::1", True),
            (["2001:db8::/32"], "2001:db8:ffff::1", True),
            (["2001:db8::/32"], "2001:db9::", False),
            (["::ffff:10.0.0.0/104"], "10.1.1.1", True),
            (["::ffff:10.0.0.0/104"], "11.1.1.1", False),
            (["::ffff:192.0.2.7"], "192.0.2.7", True),
            (["10.0.0.0/8"], "::ffff:10.1.1.1", True),
            (["192.168.0.0/16", "10.0.0.0/8", "10.1.0.0/16", "::1"], "10.2.0.0", True),
            ([], "10.0.0.1", False),
        ]:
            self.assertEqual(contains(networks, address), expected, (networks, address))

    def test_mapped_bytes(self):
        """
        Sixteen bytes of an IPv4-mapped address are found among the IPv4 networks.
        """
        self.assertTrue(AddressSet(["10.0.0.0/8"]).contains(bytes(10) + b"\xff\xff\x0a\x01\x01\x01"))
        self.assertFalse(AddressSet(["::/0"]).contains(bytes(10) + b"\xff\xff\x0a\x01\x01\x01"))

    def test_unknown_client(self):
        """
        A client without an address is in no set.
        """
        self.assertFalse(AddressSet(["0.0.0.0/0", "::/0"]).contains(b""))

    def test_refused(self):
        """
        A wrong network is refused with its text and what to write instead.
        """
        for text, part in [
            ("", "not an IP address"),
            ("localhost", "not an IP address"),
            ("10.0.0/8", "not an IP address"),
            ("fe80::1%eth0", "without its zone"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/", "prefix length"),
            ("10.0.0.0/+8", "prefix length"),
            ("10.0.0.0/ 8", "prefix length"),
            ("10.0.0.0/\N{ARABIC-INDIC DIGIT EIGHT}", "prefix length"),
            ("10.0.0.0/255.0.0.0", "prefix length"),
            ("10.0.0.0/8/8", "prefix length"),
        ]:
            error = self.assertRaises(ValueError, AddressSet, ["::1", text])
            self.assertIn(part, str(error), text)
            self.assertIn(f'"{text}"', str(error))

    def test_repr(self):
        """
        A set shows its networks as they were written.
        """
        self.assertEqual(repr(AddressSet(["10.0.0.1/8", "::1"])), "<AddressSet 10.0.0.1/8, ::1>")

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.lists(st.one_of(NETWORKS4, NETWORKS6), max_size=20), st.lists(st.ip_addresses(), min_size=1, max_size=10))
    def test_agrees_with_the_standard_library(self, networks, addresses):
        """
        The set says what `ipaddress` says, at the edges of the networks too.
        """
        parsed = [ip_network(text, strict=False) for text in networks]
        mapped = ip_network("::ffff:0:0/96")
        # The library takes those for IPv6, and here they are IPv4.
        assume(not any(network.version == 6 and network.subnet_of(mapped) for network in parsed))
        edges = [edge for network in parsed for edge in (network.network_address, network.broadcast_address)]
        subject = AddressSet(networks)
        for address in [*addresses, *edges, *[edge + 1 for edge in edges if int(edge) + 1 < 1 << edge.max_prefixlen]]:
            if address.version == 6 and address in mapped:
                continue
            self.assertEqual(subject.contains(address.packed), any(address in network for network in parsed), address)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.text(max_size=30))
    def test_any_text(self, text):
        """
        Any text is a network or a `ValueError`, and every address is a network of one.
        """
        try:
            packed = pack_address(text)
        except ValueError:
            return
        self.assertTrue(AddressSet([str(ip_address(packed))]).contains(packed))
