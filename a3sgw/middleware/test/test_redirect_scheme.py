"""
Tests of `redirect-scheme`.
"""

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook
from a3sgw.middleware import redirect_scheme
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

TO_HTTPS = 'type = "redirect-scheme"'
TRUSTING = 'forwarded_headers { trusted_ips = ["192.0.2.1"] }'


class RedirectSchemeContract(middleware_contract(redirect_scheme.factory)):
    """
    `redirect-scheme` is a middleware.
    """

    def test_phases(self):
        """It looks at heads."""
        verifyObject(IRequestHook, redirect_scheme.RedirectScheme(self.config(), still_surroundings("x")))


class RedirectCase(MiddlewareCase):
    """
    Requests that are sent elsewhere.
    """

    def assert_sent(self, data, location, status=302):
        """
        Fail unless the client is sent to `location`, and no server is asked.
        """
        asked, told = self.exchange(data)
        self.assertEqual(asked, b"")
        lines = told.decode("latin-1").split("\r\n")
        self.assertTrue(lines[0].startswith(f"HTTP/1.1 {status} "), told)
        self.assertEqual([line for line in lines if line.lower().startswith("location:")], [f"Location: {location}"])
        self.assertTrue(told.endswith(b"\r\n\r\n"), told)

    def assert_passes(self, data):
        asked, told = self.exchange(data)
        self.assertNotEqual(asked, b"")
        self.assertEqual(told, OK)


class SchemeTests(RedirectCase):
    """
    Clients that came by the other scheme are sent to this one.
    """

    def test_targets(self):
        """Host, path and query stay as the client wrote them; the port is the other scheme's own."""
        self.pass_through(TO_HTTPS)
        for target in ("/", "/a/b?c=d&e", "/x?", "/%7Euser/..%20", "//other.test/x", "/a/../b"):
            self.assert_sent(request("GET", target), f"https://a.test{target}")
        self.assertEqual(set(self.dialogue.outcomes()), {"redirected"})

    def test_hosts(self):
        """Ports are left out, IPv6 addresses keep their brackets."""
        self.pass_through(TO_HTTPS)
        for host, kept in [
            ("a.test:8080", "a.test"),
            ("A.Test.:80", "a.test"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:DB8::1]:8080", "[2001:db8::1]"),
            ("192.0.2.9:80", "192.0.2.9"),
            ("a.test:", "a.test"),
        ]:
            self.assert_sent(f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), f"https://{kept}/x")

    def test_port(self):
        """A port is named if it is not the scheme's own."""
        for attributes, url in [
            ("port = 8443", "https://a.test:8443/x"),
            ("port = 443", "https://a.test/x"),
            ('scheme = "https"\nport = 80', "https://a.test:80/x"),
        ]:
            self.pass_through(f"{TO_HTTPS}\n{attributes}")
            self.assert_sent(b"GET /x HTTP/1.1\r\nHost: a.test:8080\r\n\r\n", url)
            self.client.close()

    def test_statuses(self):
        """301 and 302 are for methods that every client repeats unchanged; a POST is sent on with its body."""
        for attributes, statuses in [("", (302, 302, 307, 307, 307)), ("\npermanent = true", (301, 301, 308, 308, 308))]:
            self.pass_through(TO_HTTPS + attributes)
            for method, status in zip(("GET", "HEAD", "POST", "DELETE", "OPTIONS"), statuses, strict=True):
                self.assert_sent(request(method, "/x"), "https://a.test/x", status)
            self.client.close()

    def test_body(self):
        """A body that comes along is not sent anywhere, and the connection lives on."""
        self.pass_through(TO_HTTPS)
        self.say(self.client, request("POST", "/x", "Content-Length: 3", body=b"abc") + request("GET", "/y"))
        heard = self.hear(self.client)
        self.assertEqual((heard.count(b"HTTP/1.1 307 "), heard.count(b"HTTP/1.1 302 ")), (1, 1))
        self.assertEqual(self.dialogue.backends, [])

    def test_other_middlewares(self):
        """What middlewares before it do to the path does not change where the client is sent."""
        self.pass_through('type = "strip-prefix"\nprefixes = ["/api"]', TO_HTTPS)
        self.assert_sent(request("GET", "/api/x?y"), "https://a.test/api/x?y")

    def test_special_targets(self):
        """A target with scheme and host is sent to its path, one without a path to the root."""
        self.pass_through(TO_HTTPS)
        self.assert_sent(request("GET", "http://a.test/x?y"), "https://a.test/x?y")
        self.assert_sent(request("GET", "http://a.test"), "https://a.test/")
        self.dialogue.reload(config(middlewares=[TO_HTTPS]).replace("PathPrefix(`/`)", "Host(`a.test`)"))
        self.assert_sent(request("OPTIONS", "*"), "https://a.test/", 307)

    def test_no_host(self):
        """A client that names no host cannot be sent anywhere: 400."""
        self.pass_through(TO_HTTPS)
        self.say(self.client, b"GET / HTTP/1.0\r\n\r\n")
        self.assert_refused(400, "host-missing")


class ProxyTests(RedirectCase):
    """
    Behind a proxy that ends TLS, its word about the scheme counts.
    """

    def test_no_circles(self):
        """What came to a trusted proxy by the scheme already passes, WebSockets included."""
        self.pass_through(TO_HTTPS, entrypoint=TRUSTING)
        for proto in ("https", "wss"):
            self.assert_passes(request("GET", "/x", f"X-Forwarded-Proto: {proto}"))
        for proto in ("http", "ws", "gopher", "https, http"):
            self.assert_sent(request("GET", "/x", f"X-Forwarded-Proto: {proto}"), "https://a.test/x")

    def test_back(self):
        """To `http` it is the same the other way round."""
        self.pass_through('type = "redirect-scheme"\nscheme = "http"\nport = 8080', entrypoint=TRUSTING)
        self.assert_passes(request("GET", "/x"))
        self.assert_sent(request("GET", "/x", "X-Forwarded-Proto: https"), "http://a.test:8080/x")

    def test_untrusted(self):
        """Nobody gets past it by saying so."""
        self.pass_through(TO_HTTPS)
        self.assert_sent(request("GET", "/x", "X-Forwarded-Proto: https"), "https://a.test/x")
        self.assert_sent(request("GET", "/x", "X-Forwarded-Host: evil.test", "Forwarded: proto=https;host=evil.test"), "https://a.test/x")

    def test_host(self):
        """The client is sent to the host that it asked the proxy for, if that is one."""
        self.pass_through(TO_HTTPS, entrypoint=TRUSTING)
        for value, host in [
            ("shop.test", "shop.test"),
            ("Shop.test:8080", "shop.test"),
            ("[2001:db8::1]:80", "[2001:db8::1]"),
            ("[:", "a.test"),
            ("shop.test, evil.test", "a.test"),
            ("evil.test/x", "a.test"),
            ("a..b", "a.test"),
        ]:
            self.assert_sent(request("GET", "/x", f"X-Forwarded-Host: {value}"), f"https://{host}/x")

    def test_configured(self):
        """Who sets `X-Forwarded-Proto` before it, because the proxy does not, is believed."""
        self.pass_through('type = "headers"\nrequest_headers = { "X-Forwarded-Proto" = "https" }', TO_HTTPS)
        self.assert_passes(request("GET", "/x"))


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "redirect-scheme"

    def test_refusals(self):
        """There are two schemes, and ports are numbers of ports."""
        self.assert_accepted("", 'scheme = "http"\nport = 8080\npermanent = true')
        self.assert_refused(
            [
                ('scheme = "ftp"', 'gw.hcl:13:10: middlewares.m1.scheme is "ftp", expected one of "https", "http"'),
                ("port = 0", "gw.hcl:13:8: middlewares.m1.port is 0, which is not from 1 to 65535"),
                ("port = 65536", "gw.hcl:13:8: middlewares.m1.port is 65536, which is not from 1 to 65535"),
            ]
        )
