"""
Tests of addresses, networks and URLs.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.address import ServerAddress, check_network, parse_listen_address, parse_server_url, split_http_url


class ListenAddressTests(SynchronousTestCase):
    """
    `parse_listen_address` reads where to listen (C8).
    """

    def test_good(self):
        """
        All usual spellings are read.
        """
        cases = {
            "0.0.0.0:80": ("0.0.0.0", 80),
            ":8080": ("", 8080),
            "localhost:8080": ("localhost", 8080),
            "[::1]:8080": ("::1", 8080),
            "[::]:443": ("::", 443),
            "127.0.0.1:0": ("127.0.0.1", 0),
            "my-host.example:65535": ("my-host.example", 65535),
        }
        for text, expected in cases.items():
            self.assertEqual(parse_listen_address(text), expected, text)

    def test_bad(self):
        """
        What cannot be listened on is refused with the reason.
        """
        cases = {
            "": "names no port",
            "8080": "names no port",
            "127.0.0.1": "names no port",
            "[::1]": "names no port",
            ":": "port is not a number",
            ":http": "port is not a number",
            ":65536": "port is not a number from 0 to 65535",
            ":-1": "port is not a number",
            ":\uff18\uff10": "port is not a number",
            "::1:80": "brackets",
            "[::1:80": "not closed",
            "[127.0.0.1]:80": "no valid IPv6",
            "[::1]80": "other than a port",
            "256.0.0.1:80": "not a valid IPv4",
            "1.2.3:80": "not a valid IPv4",
            "a b:80": "not a valid name",
            "-a:80": "not a valid name",
            "münchen.test:80": "xn--",
            "unix:/run/gw.sock": "host:port",
            "/run/gw.sock": "host:port",
            "http://a:80": "host:port",
        }
        for text, reason in cases.items():
            self.assertIn(reason, str(self.assertRaises(ValueError, parse_listen_address, text)), text)


class ServerUrlTests(SynchronousTestCase):
    """
    `parse_server_url` reads where a server is (C19, decision on server URLs).
    """

    def test_good(self):
        """
        Every scheme is read, with its usual port; a final slash makes no difference.
        """
        cases = {
            "http://127.0.0.1:8001": ("http", "127.0.0.1", 8001, ""),
            "http://a.test": ("http", "a.test", 80, ""),
            "HTTP://a.test/": ("http", "a.test", 80, ""),
            "https://a.test/base/v1/": ("https", "a.test", 443, "/base/v1"),
            "http://[::1]:81/x%20y": ("http", "::1", 81, "/x%20y"),
            "h2c://grpc:50051": ("h2c", "grpc", 50051, ""),
            "ws://a:1": ("ws", "a", 1, ""),
            "tcp://db:5432": ("tcp", "db", 5432, ""),
            "udp://log:514": ("udp", "log", 514, ""),
            "db:5432": ("", "db", 5432, ""),
            "unix:/run/app.sock": ("unix", "", 0, "/run/app.sock"),
            "unix:/run/a b?c": ("unix", "", 0, "/run/a b?c"),
        }
        for text, (scheme, host, port, path) in cases.items():
            self.assertEqual(parse_server_url(text), ServerAddress(scheme=scheme, host=host, port=port, path=path), text)

    def test_bad(self):
        """
        What no server can be reached by is refused at load, with the reason.
        """
        cases = {
            "": "names no host",
            "http://": "names no host",
            "http://:80": "names no host",
            "ftp://a": "scheme",
            "htp://a": "scheme",
            "http:/a:1": "path",
            "a.test": "names no port",
            "tcp://a": "names no port",
            "tcp://a:1/x": "path",
            "a:1/x": "http://",
            "http://a:0": "port is not a number from 1",
            "http://a:99999": "port is not a number",
            "http://a:b": "port is not a number",
            "http://u:p@a": "user name",
            "http://a?x=1": "query",
            "http://a/#x": "fragment",
            "http://a/ b": "percent-encoded",
            "http://a/%zz": "percent-encoded",
            "http://a/ä": "percent-encoded",
            "http://a b": "not a valid name",
            "http://300.1.1.1": "not a valid IPv4",
            "http://::1": "brackets",
            "http://[zz]:1": "no valid IPv6",
            "unix:run/app.sock": "absolute",
            "unix:": "absolute",
            "unix:/" + "x" * 120: "longer than",
        }
        for text, reason in cases.items():
            self.assertIn(reason, str(self.assertRaises(ValueError, parse_server_url, text)), text)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.text(alphabet="ahtp:/[].0129@?#% \0ä", max_size=20))
    def test_any_text(self, text):
        """
        Any text is either read or refused with a reason that does not repeat it.
        """
        for parse in (parse_server_url, parse_listen_address, check_network, split_http_url):
            try:
                parse(text)
            except ValueError as error:
                reason = str(error)
                self.assertTrue(reason.startswith(("which", "whose")), reason)


class NetworkTests(SynchronousTestCase):
    """
    `check_network` and `split_http_url`.
    """

    def test_good(self):
        """
        Addresses and networks of both kinds are taken, without blanks around them.
        """
        for text in ("10.0.0.0/8", "10.1.2.3/8", "192.0.2.7", "::1", "2001:db8::/32", "0.0.0.0/0"):
            self.assertEqual(check_network(f" {text} "), text)

    def test_bad(self):
        """
        What is neither is refused.
        """
        for text in ("", "10.0.0", "10.0.0.0/33", "::/129", "localhost", "fe80::1%eth0", "1", "10.0.0.0/255.255.0.0/8"):
            self.assertRaises(ValueError, check_network, text)

    def test_http_url(self):
        """
        Services the gateway calls itself speak HTTP; they may have a query.
        """
        self.assertEqual(split_http_url("https://auth.test/check?x=1").path, "/check")
        self.assertRaises(ValueError, split_http_url, "tcp://auth.test:1")
        self.assertRaises(ValueError, split_http_url, "auth.test:1")
