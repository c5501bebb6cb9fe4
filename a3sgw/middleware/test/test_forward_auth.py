"""
Dialogues through `forward-auth`; the test plays the service that is asked, too.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IIdentitySource, IRequestHook, IResponseHook, IRetirable
from a3sgw.loading import load_string
from a3sgw.middleware import forward_auth
from a3sgw.middleware.forward_auth import ForwardAuth, ForwardAuthConfig
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

URL = 'forward_auth_url = "http://198.51.100.7:4180/check?a=b"\n'
SETTINGS = f'type = "forward-auth"\n{URL}'
YES = response("204 Yes")


class ForwardAuthContract(middleware_contract(forward_auth.factory, URL)):
    """
    `forward-auth` keeps the contract of middlewares.
    """


class ForwardAuthCase(MiddlewareCase):
    """
    A dialogue of three: the client, the service that is asked, and the server.
    """

    def begin(self, *lines, method="GET", target="/", body=b""):
        """
        Send a request; return the client's end and that of the service which is asked, with what it heard.
        """
        client = self.dialogue.connect()
        self.say(client, request(method, target, *lines, body=body))
        for backend in self.dialogue.backends:
            if b"/check?a=b HTTP/1.1\r\nHost: 198.51.100.7:4180\r\n" in bytes(backend.arrived):
                return client, backend, backend.take()
        return client, None, b""

    def server(self):
        """
        Return what the server heard, and its end.
        """
        for backend in self.dialogue.backends:
            if backend.arrived and b"198.51.100.7" not in bytes(backend.arrived):
                return backend, backend.take()
        return None, b""


class ForwardAuthTests(ForwardAuthCase):
    """
    Another service decides.
    """

    def test_question(self):
        """The service hears who asks for what, with the headers of the request and without its body."""
        self.pass_through(SETTINGS)
        lines = ("Cookie: a=b", "X-A: 1", "X-A: 2", "Content-Type: x/y", "Expect: 100-continue", "If-None-Match: *", "Content-Length: 3")
        client, service, heard = self.begin(*lines, method="POST", target="/p/./q?x=%20", body=b"abc")
        self.assertTrue(heard.startswith(b"GET /check?a=b HTTP/1.1\r\n"), heard)
        for part in (
            b"\r\nCookie: a=b\r\n",
            b"\r\nX-A: 1\r\nX-A: 2\r\n",
            b"\r\nX-Forwarded-Method: POST\r\n",
            b"\r\nX-Forwarded-Proto: http\r\n",
            b"\r\nX-Forwarded-Host: a.test\r\n",
            b"\r\nX-Forwarded-Uri: /p/q?x=%20\r\n",
            b"\r\nX-Forwarded-For: 192.0.2.1\r\n",
        ):
            self.assertIn(part, heard)
        for part in (b"Content-Length", b"Expect", b"If-None-Match", b"abc"):
            self.assertNotIn(part, heard)
        self.say(service, YES)
        backend, heard = self.server()
        self.assertTrue(heard.endswith(b"\r\n\r\nabc"), heard)
        self.say(backend, OK)
        self.assertTrue(self.hear(client).endswith(b"ok"))
        client.close()

    def test_yes(self):
        """Headers of a good answer reach the server, all values of them, and nobody else can set them."""
        self.pass_through(SETTINGS + 'forward_auth_response_headers = ["X-User", "X-Group"]')
        _, service, heard = self.begin("X-User: root", "x-group: admin")
        self.assertNotIn(b"root", heard)
        self.say(service, response("200 OK", "X-User: anna", "X-Other: 1", "Content-Length: 2", body=b"ok"))
        backend, heard = self.server()
        self.assertIn(b"\r\nX-User: anna\r\n", heard)
        for part in (b"root", b"admin", b"X-Other"):
            self.assertNotIn(part, heard)
        self.say(backend, OK)
        _, service, _ = self.begin()
        self.say(service, response("200 OK", "X-Group: a", "X-Group: b", "Content-Length: 0"))
        backend, heard = self.server()
        self.assertIn(b"\r\nX-Group: a\r\nX-Group: b\r\n", heard)
        self.say(backend, OK)

    def test_no(self):
        """Any other answer reaches the client with its status, headers, cookies and body; no redirect is followed."""
        self.pass_through(SETTINGS)
        for status, lines, body in (
            ("302 Found", ("Location: http://id.test/login?back=%2F", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2"), b""),
            ("401 Who", ('WWW-Authenticate: Digest realm="x"', "Content-Type: text/html"), b"<p>who?"),
            ("500 Oh", (), b"broken"),
        ):
            client, service, _ = self.begin()
            self.say(service, response(status, *lines, f"Content-Length: {len(body)}", body=body))
            heard = self.hear(client)
            self.assertTrue(heard.startswith(b"HTTP/1.1 " + status[:3].encode()), heard)
            for line in lines:
                self.assertIn(f"\r\n{line}\r\n".encode(), heard)
            self.assertTrue(heard.endswith(b"\r\n\r\n" + body), heard)
            self.assertIn(b'details="auth-service-denied"', heard)
            self.assertEqual(heard.count(b"\r\nDate: "), 1)
            self.assertEqual(self.server(), (None, b""))
            client.close()
        self.assertEqual(self.dialogue.outcomes(), ["auth-service-denied"] * 3)

    def test_head(self):
        """HEAD is asked about with GET, and its answer has no body."""
        self.pass_through(SETTINGS)
        client, service, heard = self.begin(method="HEAD")
        self.assertIn(b"X-Forwarded-Method: HEAD", heard)
        self.say(service, response("403 No", "Content-Length: 2", body=b"no"))
        self.assertTrue(self.hear(client).endswith(b"\r\n\r\n"))
        client.close()

    def test_less_told(self):
        """The service may be told only some headers, and asked with the method of the request."""
        self.pass_through(SETTINGS + 'auth_request_headers = ["Cookie"]\npreserve_request_method = true')
        client, service, heard = self.begin("Cookie: a=b", "Authorization: x", method="DELETE")
        self.assertTrue(heard.startswith(b"DELETE /check"), heard)
        self.assertIn(b"\r\nCookie: a=b\r\n", heard)
        self.assertNotIn(b"Authorization", heard)
        self.say(service, YES)
        self.say(self.server()[0], OK)
        client.close()

    def test_cookies(self):
        """Cookies that the service sets reach the client where that is configured, in the place of the server's."""
        self.pass_through(SETTINGS + 'add_auth_cookies_to_response = ["session"]')
        client, service, _ = self.begin()
        self.say(service, response("200 OK", "Set-Cookie: session=new; Path=/", "Set-Cookie: other=1", "Content-Length: 0"))
        backend, _ = self.server()
        self.say(backend, response("200 OK", "Set-Cookie: session=old", "Set-Cookie: own=1", "Content-Length: 0"))
        heard = self.hear(client)
        self.assertEqual(heard.count(b"Set-Cookie"), 2)
        self.assertIn(b"session=new", heard)
        self.assertIn(b"own=1", heard)
        client.close()

    def test_unreachable(self):
        """A service that cannot be reached, breaks off, or says too much is answered 502, one that is slow 504."""
        self.pass_through(SETTINGS + "max_response_bytes = 5\ntimeout_ms = 2000")
        for answer in (b"garbage\r\n\r\n", response("200 OK", "Content-Length: 6", body=b"123456")):
            client, service, _ = self.begin()
            self.say(service, answer)
            heard = self.hear(client)
            self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), heard)
            self.assertIn(b'{"error": "Auth service unavailable", "reason": "auth-service-failed"', heard)
            client.close()
        client, service, _ = self.begin()
        self.dialogue.reactor.advance(2.5)
        self.assertIn(b'"reason": "auth-service-timeout"', self.hear(client))
        client.close()
        self.tearDown()
        self.pass_through(SETTINGS, answers_dials=False)
        self.say(self.client, request())
        self.dialogue.attempts[0].fail()
        self.assert_refused(502, "auth-service-failed")

    def test_client_leaves(self):
        """A client that leaves while the service thinks takes its question back."""
        self.pass_through(SETTINGS)
        client, service, _ = self.begin()
        client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(service.was_reset)
        self.assertEqual(self.server(), (None, b""))
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_reload(self):
        """A reload that removes the middleware closes its connections; a question under way is answered."""
        self.pass_through(SETTINGS)
        client, service, _ = self.begin()
        self.dialogue.reload(config())
        self.say(service, YES)
        backend, _ = self.server()
        self.say(backend, OK)
        self.assertTrue(self.hear(client).endswith(b"ok"))
        self.assertTrue(service.has_ended)
        client.close()


class ConfigTests(SynchronousTestCase):
    """
    What is refused at load.
    """

    def test_interfaces(self):
        """A middleware provides its phases."""
        middleware = ForwardAuth(ForwardAuthConfig(name="x", forward_auth_url="http://a/b"), still_surroundings("x"))
        verifyObject(IRequestHook, middleware)
        verifyObject(IResponseHook, middleware)
        verifyObject(IIdentitySource, middleware)
        verifyObject(IRetirable, middleware)

    def test_refused(self):
        """A URL that is none, and bounds out of bounds, are named with their place."""
        for attribute, part in [
            ("", 'lacks "forward_auth_url"'),
            ('forward_auth_url = "127.0.0.1:80"', "forward_auth_url is"),
            (f"{URL}timeout_ms = 0", "from 1 to 600000"),
            (f'{URL}forward_auth_response_headers = ["X Y"]', "not a valid header name"),
        ]:
            text = f'entrypoints "web" {{ address = ":80" }}\nmiddlewares "m" {{\n type = "forward-auth"\n {attribute}\n}}'
            (problem,) = load_string(text, "gw.hcl", {}).problems
            self.assertIn(part, str(problem))
