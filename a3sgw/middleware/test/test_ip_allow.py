"""
Tests of `ip-allow`.
"""

import json

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook
from a3sgw.loading import load_string
from a3sgw.middleware import ip_allow
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

OFFICE = 'type = "ip-allow"\nallowed_ips = ["198.51.100.0/24", "203.0.113.7", "2001:db8::/32"]'
TRUSTING = 'forwarded_headers { trusted_ips = ["10.0.0.0/8"] }'


class IpAllowContract(middleware_contract(ip_allow.factory, 'allowed_ips = ["192.0.2.0/24"]')):
    """
    `ip-allow` is a middleware.
    """

    def test_phases(self):
        """It looks at heads."""
        verifyObject(IRequestHook, ip_allow.IpAllow(self.config(), still_surroundings("x")))


class IpAllowCase(MiddlewareCase):
    """
    Clients of several addresses.
    """

    def arrive(self, peer, *lines):
        """
        Return how a request from `peer` is answered.
        """
        client = self.dialogue.connect(peer)
        self.say(client, request("GET", "/", *lines))
        for backend in self.dialogue.backends:
            if self.hear(backend):
                self.say(backend, OK)
        heard = self.hear(client)
        client.close()
        self.dialogue.reactor.settle()
        return heard

    def assert_passes(self, peer, *lines):
        self.assertEqual(self.arrive(peer, *lines), OK, (peer, lines))

    def assert_forbidden(self, peer, *lines):
        heard = self.arrive(peer, *lines)
        self.assertTrue(heard.startswith(b"HTTP/1.1 403 "), (peer, lines, heard))


class AddressTests(IpAllowCase):
    """
    B26: who is in the list may pass.
    """

    def test_peers(self):
        """Addresses and networks of both kinds are recognised; an IPv4 address that comes in IPv6 form is the IPv4 address."""
        self.pass_through(OFFICE)
        for peer in ("198.51.100.1", "198.51.100.255", "203.0.113.7", "::ffff:198.51.100.1", "2001:db8::1", "2001:db8:ffff::"):
            self.assert_passes(peer)
        for peer in ("192.0.2.1", "198.51.101.0", "203.0.113.8", "::ffff:192.0.2.1", "2001:db9::1", "::1", "127.0.0.1"):
            self.assert_forbidden(peer)

    def test_mapped_in_the_list(self):
        """An IPv4 network that is written in IPv6 form means the IPv4 one."""
        self.pass_through('type = "ip-allow"\nallowed_ips = ["::ffff:198.51.100.0/120"]')
        self.assert_passes("198.51.100.1")
        self.assert_passes("::ffff:198.51.100.1")
        self.assert_forbidden("198.51.101.1")

    def test_families_are_apart(self):
        """Every IPv6 address is not every address."""
        self.pass_through('type = "ip-allow"\nallowed_ips = ["::/0"]')
        self.assert_passes("2001:db8::1")
        self.assert_forbidden("198.51.100.1")

    def test_answer(self):
        """Others are told no more than that."""
        self.pass_through(OFFICE)
        self.say(self.client, request("GET", "/", "X-Request-Id: r-1"))
        head, _, body = self.hear(self.client).partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Type: application/json\r\n", head)
        self.assertEqual(json.loads(body), {"error": "Forbidden", "reason": "access-denied", "request_id": "r-1"})
        self.assertEqual((self.dialogue.backends, self.dialogue.outcomes()), ([], ["access-denied"]))

    def test_head(self):
        """The answer to HEAD has no body."""
        self.pass_through(OFFICE)
        self.say(self.client, request("HEAD"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 403 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)

    def test_on_an_entrypoint(self):
        """The list of an entrypoint holds for all its routers."""
        self.converse(entrypoint='middlewares = ["office"]', more=f'middlewares "office" {{\n{OFFICE}\n}}')
        self.assert_passes("198.51.100.1")
        self.assert_forbidden("192.0.2.1")

    def test_reload(self):
        """Another list counts from the next request on, on connections that are open too."""
        self.pass_through(OFFICE)
        client = self.dialogue.connect("198.51.100.1")
        self.say(client, request())
        self.say(self.dialogue.backend(), OK)
        self.hear(self.dialogue.backend())
        self.assertEqual(self.hear(client), OK)
        self.dialogue.reload(config(middlewares=[OFFICE.replace("198.51.100.0/24", "192.0.2.1")]))
        self.say(client, request())
        self.assertTrue(self.hear(client).startswith(b"HTTP/1.1 403 "))
        client.close()


class ProxyTests(IpAllowCase):
    """
    B26: what proxies say of the client is believed where they are trusted, and nowhere else.
    """

    def test_trusted_proxy(self):
        """Behind a trusted proxy the client's own address counts, and the proxy's does not."""
        self.pass_through(OFFICE, entrypoint=TRUSTING)
        self.assert_passes("10.0.0.1", "X-Forwarded-For: 198.51.100.1")
        self.assert_passes("10.0.0.1", "X-Forwarded-For: 192.0.2.9, 198.51.100.1, 10.0.0.2")
        self.assert_passes("10.0.0.1", 'Forwarded: for="[2001:db8::1]:4711"')
        self.assert_passes("10.0.0.1", "X-Forwarded-For: ::ffff:198.51.100.1")
        self.assert_forbidden("10.0.0.1", "X-Forwarded-For: 192.0.2.9")
        self.assert_forbidden("10.0.0.1")

    def test_lies(self):
        """Nobody gets in by saying so: neither through a proxy that hears it from the client, nor without one."""
        self.pass_through(OFFICE, entrypoint=TRUSTING)
        self.assert_forbidden("10.0.0.1", "X-Forwarded-For: 198.51.100.1, 192.0.2.9")
        self.assert_forbidden("10.0.0.1", "X-Forwarded-For: 198.51.100.1, nonsense")
        for line in ("X-Forwarded-For: 198.51.100.1", "Forwarded: for=198.51.100.1", "X-Real-Ip: 198.51.100.1"):
            self.assert_forbidden("192.0.2.1", line)

    def test_peer(self):
        """`use_peer` judges the proxy itself, whatever it says."""
        for peer in ("10.0.0.1", "::ffff:10.0.0.1"):
            self.pass_through('type = "ip-allow"\nallowed_ips = ["10.0.0.1"]\nuse_peer = true', entrypoint=TRUSTING)
            self.assert_passes(peer, "X-Forwarded-For: 192.0.2.9")
            self.assert_forbidden("10.0.0.2", "X-Forwarded-For: 10.0.0.1")
            self.assert_forbidden("2001:db8::1")


class ConfigTests(SynchronousTestCase):
    """
    What is refused when the configuration is loaded.
    """

    def problems(self, attributes):
        text = config(middlewares=[f'type = "ip-allow"\n{attributes}'])
        return [str(problem) for problem in load_string(text, "gw.hcl", {}).problems]

    def test_refusals(self):
        """There is at least one address, and each is one."""
        self.assertEqual(self.problems('allowed_ips = [" 192.0.2.1 "]'), [])
        for attributes, text in [
            ("", 'gw.hcl:11:1: middleware "m1" lacks "allowed_ips"'),
            ("allowed_ips = []", "gw.hcl:13:15: middlewares.m1.allowed_ips is an empty list"),
            ('allowed_ips = ["192.0.2.1", "192.0.2.0/33"]', 'gw.hcl:13:29: middlewares.m1.allowed_ips[1] is "192.0.2.0/33"'),
            ('allowed_ips = ["example.com"]', 'gw.hcl:13:16: middlewares.m1.allowed_ips[0] is "example.com"'),
        ]:
            (problem,) = self.problems(attributes)
            self.assertTrue(problem.startswith(text), problem)
