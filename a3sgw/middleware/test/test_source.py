"""
Tests of `a3sgw.middleware.source`.
"""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.address import pack_address
from a3sgw.message import RequestHead, make_field
from a3sgw.middleware.source import (
    ipv4_prefix_setting,
    ipv6_prefix_setting,
    key_reader,
    source_header_setting,
    source_problems,
    source_setting,
)


@attrs.frozen(kw_only=True)
class Config:
    """
    What a middleware declares.
    """

    source: str = source_setting()
    header: str | None = source_header_setting()
    ipv4_prefix: int = ipv4_prefix_setting()
    ipv6_prefix: int = ipv6_prefix_setting()


def make_head(address="", *lines, host="a.test"):
    """
    Return the head of a request from `address` with these header lines.
    """
    head = RequestHead(b"GET", b"/")
    head.host = host.encode()
    head.client_packed = pack_address(address) if address else b""
    head.fields = [make_field(*(part.strip().encode() for part in line.split(":", 1))) for line in lines]
    return head


class KeyTests(SynchronousTestCase):
    """
    Who shares a limit with whom.
    """

    def assert_parted(self, config, *groups):
        """
        Fail unless all heads of a group have one key, and each group another one.
        """
        key_of = key_reader(config)
        keys = [{key_of(head) for head in group} for group in groups]
        self.assertEqual([len(group) for group in keys], [1] * len(groups), keys)
        self.assertEqual(len(set().union(*keys)), len(groups), keys)

    def test_addresses(self):
        """By default each IPv4 address is a client, and each /64 of IPv6; an IPv4 address in IPv6 form is the IPv4 one."""
        self.assert_parted(
            Config(),
            [make_head("192.0.2.1"), make_head("::ffff:192.0.2.1")],
            [make_head("192.0.2.2")],
            [make_head("2001:db8::1"), make_head("2001:db8::ffff:ffff:ffff:ffff")],
            [make_head("2001:db8:0:1::1")],
            [make_head()],
        )

    def test_prefixes(self):
        """Whole networks can be one client."""
        self.assert_parted(
            Config(ipv4_prefix=24, ipv6_prefix=56),
            [make_head("192.0.2.1"), make_head("192.0.2.255")],
            [make_head("192.0.3.1")],
            [make_head("2001:db8::1"), make_head("2001:db8:0:ff::1")],
            [make_head("2001:db8:0:100::1")],
        )

    def test_unmapped(self):
        """An address that was not unmapped before is."""
        head = make_head("192.0.2.1")
        mapped = make_head()
        mapped.client_packed = bytes(10) + b"\xff\xff" + head.client_packed
        self.assert_parted(Config(), [head, mapped])

    def test_header(self):
        """With a header each value is a client, in whatever case the header is written; without it the address is."""
        self.assert_parted(
            Config(source="header", header="X-Tenant"),
            [make_head("192.0.2.1", "X-Tenant: a"), make_head("192.0.2.2", "x-tenant: a", "X-Tenant: b")],
            [make_head("192.0.2.1", "X-Tenant: A")],
            [make_head("192.0.2.1", "X-Tenant:")],
            [make_head("192.0.2.1"), make_head("192.0.2.1", "Tenant: a")],
            [make_head("192.0.2.2")],
        )

    def test_header_is_no_address(self):
        """Nobody takes from an address's limit by sending its bytes."""
        victim = make_head("97.98.99.100")
        liars = [make_head("192.0.2.1", f"X-Tenant: {value}") for value in ("abcd", "bcd", "@abcd", "=abcd")]
        self.assert_parted(Config(source="header", header="X-Tenant"), [victim], *([liar] for liar in liars))

    def test_host(self):
        """With `host` each host is a client, whatever the address."""
        self.assert_parted(
            Config(source="host"), [make_head("192.0.2.1"), make_head("192.0.2.2")], [make_head("192.0.2.1", host="b.test")]
        )

    def test_router(self):
        """With `router` all are one."""
        self.assert_parted(Config(source="router"), [make_head("192.0.2.1"), make_head("2001:db8::1", host="b.test"), make_head()])

    @given(st.text("ab", max_size=9000), st.text("ab", max_size=9000))
    @settings(max_examples=30, deadline=None)
    def test_long_values(self, one, other):
        """However long a value is, its key is short, and different values are told apart."""
        key_of = key_reader(Config(source="header", header="X-Tenant"))
        keys = [key_of(make_head("192.0.2.1", f"X-Tenant: {value}")) for value in (one, other, one + "a" * 8000)]
        self.assertTrue(all(len(key) <= 65 for key in keys), keys)
        self.assertEqual(len({one, other, one + "a" * 8000}), len(set(keys)))


class ProblemTests(SynchronousTestCase):
    """
    What cannot be meant.
    """

    def test_good(self):
        """Every source is fine with what it needs."""
        for config in (
            Config(),
            Config(source="host"),
            Config(source="router"),
            Config(source="header", header="X-Tenant"),
            Config(source="header", header="User-Agent"),
            Config(source="header", header="Authorization"),
        ):
            self.assertEqual(list(source_problems(config)), [])

    def test_bad(self):
        """A source without its header, a header without its source, and a header that the gateway takes away are named."""
        for config, attribute, text in [
            (Config(source="header"), "source", 'has source = "header" but names none'),
            (Config(header="X-Tenant"), "header", 'has a header but its source is "client-ip"'),
            (Config(source="header", header="X-Forwarded-For"), "header", "tells clients apart by X-Forwarded-For, which the gateway"),
            (Config(source="header", header="host"), "header", "tells clients apart by host, which the gateway"),
            (Config(source="header", header="X-Request-Id"), "header", "tells clients apart by X-Request-Id"),
            (Config(source="header", header="Connection"), "header", "tells clients apart by Connection"),
        ]:
            ((found, told),) = source_problems(config)
            self.assertEqual(found, attribute)
            self.assertTrue(told.startswith(text), told)
