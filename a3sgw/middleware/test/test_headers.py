"""
Tests of `headers`.
"""

import json

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook, IResponseHook
from a3sgw.loading import load_string
from a3sgw.middleware import headers
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract


def block(**maps):
    """
    Return the attributes of a middleware with these maps.
    """
    lines = [
        f"{key} = {{ {', '.join(f'{json.dumps(name)} = {json.dumps(value)}' for name, value in of.items())} }}" for key, of in maps.items()
    ]
    return "\n".join(['type = "headers"', *lines])


class HeadersContract(
    middleware_contract(headers.factory, 'request_headers = { "Authorization" = "{host}" }\nresponse_headers = { "A" = "" }')
):
    """
    `headers` is a middleware.
    """

    def test_phases(self):
        """It looks at both heads."""
        built = headers.Headers(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, built)
        verifyObject(IResponseHook, built)

    def test_idle_phases(self):
        """It looks at no head in which there is nothing to change."""
        for maps, phases in [
            ({"request_headers": {"A": "1"}}, (True, False)),
            ({"request_headers": {"Host": "b.test"}}, (True, False)),
            ({"request_headers": {"X-Forwarded-Proto": "https"}}, (True, False)),
            ({"append_request_headers": {"A": "1"}}, (True, False)),
            ({"response_headers": {"A": ""}}, (False, True)),
            ({"append_response_headers": {"A": "1"}}, (False, True)),
            ({}, (False, False)),
        ]:
            loaded = load_string(f'entrypoints "web" {{ address = ":80" }}\nmiddlewares "it" {{\n{block(**maps)}\n}}', "test.hcl", {})
            built = headers.Headers(loaded.valid_config().middlewares["it"], still_surroundings("x"))
            self.assertEqual((IRequestHook.providedBy(built), IResponseHook.providedBy(built)), phases, maps)


class HeadersCase(MiddlewareCase):
    """
    Messages whose headers are changed.
    """

    def asked(self, *lines, target="/", method="GET", host="a.test"):
        """
        Return the header lines that the server hears.
        """
        data = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""])
        return self.exchange(data.encode("latin-1"))[0].partition(b"\r\n\r\n")[0].decode("utf-8").split("\r\n")[1:]

    def told(self, answer):
        """
        Return the header lines that the client hears when the server answers so.
        """
        return self.exchange(answer=answer)[1].partition(b"\r\n\r\n")[0].decode("utf-8").split("\r\n")[1:]

    def assert_lines(self, lines, *wanted, name=None):
        """
        Fail unless the lines of the headers in `wanted` are exactly those; a bare name is a header that must not be there.
        """
        names = {each.partition(":")[0].lower() for each in wanted}
        found = [line for line in lines if line.partition(":")[0].lower() in names]
        self.assertEqual(found, [each for each in wanted if ":" in each])


class RequestTests(HeadersCase):
    """
    B29: what servers get.
    """

    def test_set(self):
        """A header that is set replaces all by its name, whatever their letter case, and keeps the case of the file."""
        self.pass_through(block(request_headers={"X-Tenant": "acme", "X-New": "1"}))
        lines = self.asked("x-tenant: evil", "X-TENANT: evil", "X-Tenant-Id: 7")
        self.assert_lines(lines, "X-Tenant-Id: 7", "X-Tenant: acme", "X-New: 1")

    def test_remove(self):
        """An empty value removes the header."""
        self.pass_through(block(request_headers={"Cookie": "", "X-Debug": " "}))
        self.assert_lines(self.asked("Cookie: a=b", "cookie: c=d", "X-Debug: 1", "X-Kept: 1"), "X-Kept: 1", "Cookie", "X-Debug")

    def test_append(self):
        """What is appended leaves the others as they are."""
        self.pass_through(block(append_request_headers={"X-Tag": "two", "X-New": "1"}))
        self.assert_lines(self.asked("X-Tag: one"), "X-Tag: one", "X-Tag: two", "X-New: 1")

    def test_set_and_append(self):
        """First is set and removed, then appended."""
        self.pass_through(block(append_request_headers={"X-A": "2", "X-B": "2"}, request_headers={"X-A": "1", "X-B": ""}))
        self.assert_lines(self.asked("X-A: 0", "X-B: 0"), "X-A: 1", "X-A: 2", "X-B: 2")

    def test_underscores(self):
        """Where underscores are allowed, nobody gets past it by writing them: servers may take both for the same."""
        self.pass_through(block(request_headers={"X-Real-Tenant": "acme", "X-Debug": ""}), entrypoint="allow_underscores_in_headers = true")
        lines = self.asked("X_Real-Tenant: evil", "X_REAL_TENANT: evil", "X_Debug: 1", "X_Other: 1")
        self.assert_lines(lines, "X_Other: 1", "X-Real-Tenant: acme", "X_Real-Tenant", "X_Real_Tenant", "X_Debug", "X-Debug")

    def test_placeholders(self):
        """Values are filled in from the request as it is at this point."""
        value = "{client_ip} {method} {scheme} {host} {path} {query} {router} {entrypoint} {request_id}"
        self.pass_through('type = "strip-prefix"\nprefixes = ["/api"]', block(request_headers={"X-All": value, "X-Brace": "{{host}}"}))
        lines = self.asked("X-Request-Id: r-1", target="/api/x?y=1", method="PUT", host="A.test:8080")
        self.assert_lines(lines, "X-Brace: {host}", "X-All: 192.0.2.1 PUT http a.test /x y=1 app web r-1")

    def test_placeholder_behind_a_proxy(self):
        """The client and its scheme are those that a trusted proxy reports."""
        lines = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: wss")
        for entrypoint, told in [("", "192.0.2.1 http"), ('forwarded_headers { trusted_ips = ["192.0.2.1"] }', "203.0.113.7 https")]:
            self.pass_through(block(request_headers={"X-Caller": "{client_ip} {scheme}"}), entrypoint=entrypoint)
            self.assert_lines(self.asked(*lines), f"X-Caller: {told}")

    def test_filled_in_empty(self):
        """A header whose value comes out empty is not sent."""
        self.pass_through(block(request_headers={"X-Query": "{query}"}, append_request_headers={"X-More": "{query}"}))
        self.assert_lines(self.asked("X-Query: evil"), "X-Query", "X-More")
        self.assert_lines(self.asked(target="/?a"), "X-Query: a", "X-More: a")

    def test_nothing_is_smuggled(self):
        """No client can begin a header of its own through a placeholder."""
        self.pass_through(block(request_headers={"X-All": "{path} {query} {host} {request_id}"}))
        for target in ("/%0d%0aX-Evil:%201", "/?%0d%0aX-Evil:1", "/;X-Evil:1"):
            lines = self.asked(target=target)
            self.assertEqual([line for line in lines if line.lower().startswith("x-evil")], [])
            self.assertEqual(len([line for line in lines if line.startswith("X-All: ")]), 1)

    def test_credentials(self):
        """A header that authenticates the gateway is set only for the server: what stands before it sees the client's own."""
        self.pass_through(
            block(request_headers={"X-Copy": "1"}, append_request_headers={}),
            block(request_headers={"Authorization": "Bearer gateway"}),
        )
        self.assert_lines(self.asked("Authorization: Bearer client"), "X-Copy: 1", "Authorization: Bearer gateway")


class SpecialTests(HeadersCase):
    """
    Headers that are more than lines.
    """

    def test_host(self):
        """The server is asked for another host; what the client asked for is told beside it."""
        self.pass_through(block(request_headers={"Host": "app.internal:8080"}))
        self.assert_lines(self.asked(host="A.test:81"), "Host: app.internal:8080", "X-Forwarded-Host: A.test:81")

    def test_host_behind_a_proxy(self):
        """What a trusted proxy was asked for is told still, and no other host."""
        self.pass_through(block(request_headers={"Host": "app.internal"}), entrypoint='forwarded_headers { trusted_ips = ["192.0.2.1"] }')
        self.assert_lines(self.asked("X-Forwarded-Host: shop.test"), "Host: app.internal", "X-Forwarded-Host: shop.test")

    def test_host_made_of_the_request(self):
        """The host may be made of the client's."""
        self.pass_through(block(request_headers={"Host": "{host}.internal"}))
        self.assert_lines(self.asked(host="A.test:81"), "Host: a.test.internal")
        for host in ("[2001:db8::1]", "a" * 250):
            self.say(self.client, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            self.assert_refused(400, "host-malformed")

    def test_host_without_one(self):
        """A client of HTTP/1.0 that names no host gets the one that is set."""
        self.pass_through(block(request_headers={"Host": "app.internal"}))
        asked, _ = self.exchange(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"\r\nHost: app.internal\r\n", asked)
        self.assertIn(b"\r\nX-Forwarded-Host: app.internal\r\n", asked)

    def test_forwarding(self):
        """What the gateway says of the client can be said otherwise or left out; nothing is said twice."""
        self.pass_through(
            block(
                request_headers={
                    "X-Forwarded-Proto": "https",
                    "x-forwarded-port": "443",
                    "X-Forwarded-Server": "",
                    "X-Real-Ip": "{client_ip}",
                    "X-Forwarded-Host": "shop.test",
                    "X-Forwarded-For": "",
                    "Forwarded": "for={client_ip}",
                }
            )
        )
        lines = self.asked("X-Forwarded-Proto: gopher", "Forwarded: for=evil")
        self.assert_lines(
            [line for line in lines if "orwarded" in line or "Real" in line],
            "X-Forwarded-Proto: https",
            "x-forwarded-port: 443",
            "X-Real-Ip: 192.0.2.1",
            "Forwarded: for=192.0.2.1",
            "X-Forwarded-Host: shop.test",
            "X-Forwarded-Server",
            "X-Forwarded-For",
        )
        self.assertIn("Via: 1.1 a3s-gateway", lines)

    def test_forwarding_filled_in(self):
        """What is said of the client may be filled in, anew for each request."""
        self.pass_through(block(request_headers={"X-Forwarded-Server": "{method}"}))
        for method in ("GET", "PUT", "GET"):
            self.assert_lines(self.asked(method=method), f"X-Forwarded-Server: {method}")

    def test_forwarding_constant(self):
        """On one connection every request is told of in the same way."""
        self.pass_through(block(request_headers={"X-Forwarded-Proto": "https"}))
        for _ in range(3):
            backend = self.ask()
            heard = self.hear(backend)
            self.assertEqual((heard.count(b"X-Forwarded-Proto:"), heard.count(b"X-Forwarded-Proto: https\r\n")), (1, 1))
            self.say(backend, OK)
            self.hear(self.client)


class ResponseTests(HeadersCase):
    """
    B29: what clients get.
    """

    def test_set_append_remove(self):
        """Headers of responses are set, removed and appended like those of requests."""
        self.pass_through(
            block(
                response_headers={"Server": "", "X-Frame-Options": "DENY", "X-Powered-By": ""},
                append_response_headers={"Set-Cookie": "seen=1", "Link": "</a>"},
            )
        )
        lines = self.told(
            response(
                "204 No Content",
                "Server: x",
                "x-powered-by: y",
                "X-Frame-Options: ALLOW",
                "X-Frame-Options: ALL",
                "Set-Cookie: a=b",
                "Etag: e",
            )
        )
        self.assertEqual(lines, ["Date: D", "Set-Cookie: a=b", "Etag: e", "X-Frame-Options: DENY", "Set-Cookie: seen=1", "Link: </a>"])

    def test_placeholders(self):
        """Values are filled in from the request."""
        self.pass_through(block(response_headers={"X-Served": "{router} {request_id}"}))
        _, told = self.exchange(request("GET", "/", "X-Request-Id: r-1"))
        self.assertIn(b"\r\nX-Served: app r-1\r\n", told)

    def test_date(self):
        """A date that is set is the only one; one that is removed is replaced by the gateway's, because a response has one."""
        self.pass_through(block(response_headers={"Date": "today"}))
        self.assert_lines(self.told(OK), "Date: today")
        self.pass_through(block(response_headers={"Date": ""}))
        (line,) = [line for line in self.told(OK) if line.startswith("Date: ")]
        self.assertNotEqual(line, "Date: D")

    def test_own_answers(self):
        """B30: the headers are also on what the gateway and other middlewares answer, and on HEAD."""
        self.pass_through(block(response_headers={"X-Frame-Options": "DENY"}), 'type = "body-limit"\nmax_body_bytes = 1')
        for data in (request("POST", "/", "Content-Length: 5"), request("HEAD", "/", "Content-Length: 5")):
            _, told = self.exchange(data)
            self.assertTrue(told.startswith(b"HTTP/1.1 413 "), told)
            self.assertIn(b"\r\nX-Frame-Options: DENY\r\n", told)
        self.pass_through(block(response_headers={"X-Frame-Options": "DENY"}), answers_dials=False)
        self.say(self.client, request())
        self.dialogue.attempts[0].fail()
        told = self.hear(self.client)
        self.assertTrue(told.startswith(b"HTTP/1.1 502 "), told)
        self.assertIn(b"\r\nX-Frame-Options: DENY\r\n", told)

    def test_body(self):
        """The body passes as it comes."""
        self.pass_through(block(response_headers={"Content-Type": "text/plain"}))
        backend = self.ask()
        self.say(backend, response("200 OK", "Transfer-Encoding: chunked", "Content-Type: x/y", body=b"2\r\nab\r\n"))
        self.assertTrue(self.hear(self.client).endswith(b"\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"))
        self.say(backend, b"0\r\n\r\n")
        self.assertEqual(self.hear(self.client), b"0\r\n\r\n")

    def test_reload(self):
        """Another value counts from the next request on."""
        self.pass_through(block(response_headers={"X-A": "1"}))
        self.assert_lines(self.told(OK), "X-A: 1")
        self.dialogue.reload(config(middlewares=[block(response_headers={"X-A": "2"})]))
        self.assert_lines(self.told(OK), "X-A: 2")


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "headers"

    def test_accepted(self):
        """Most headers can be changed, and a middleware may change nothing."""
        self.assert_accepted(
            "",
            'request_headers = { User-Agent = "", Referer = "x", Forwarded = "", "X-Forwarded-For" = "", Trailer = "a" }',
            'response_headers = { Via = "", Date = "", "Set-Cookie" = "", "Content-Type" = "a/b", "X-Request-Id" = "1", Forwarded = "x" }',
            'append_response_headers = { Vary = "Cookie" }',
        )

    def test_connection(self):
        """What belongs to the connection or frames the body cannot be changed, in either direction."""
        for name in (
            "Connection",
            "content-length",
            "Transfer-Encoding",
            "Keep-Alive",
            "Upgrade",
            "Proxy-Authorization",
            "TE",
            "HTTP2-Settings",
        ):
            for key in ("request_headers", "append_request_headers", "response_headers", "append_response_headers"):
                (problem,) = self.problems(f'{key} = {{ "{name}" = "x" }}')
                self.assertTrue(problem.startswith("gw.hcl:13:"), problem)
                self.assertIn(f'the header "{name}", which belongs to a single connection or frames the body', problem)

    def test_refusals(self):
        """Some headers of requests have a meaning that a middleware must not take from them."""
        self.assert_refused(
            [
                (
                    'request_headers = { Host = "" }',
                    'gw.hcl:13:28: middleware "m1" sets the header "Host", without which there is no request',
                ),
                ('request_headers = { Host = "a b" }', 'gw.hcl:13:28: middleware "m1" sets the header "Host", but its value is no host'),
                (
                    'append_request_headers = { Host = "a" }',
                    'gw.hcl:13:35: middleware "m1" appends to the header "Host", of which there is one',
                ),
                ('request_headers = { Via = "x" }', 'gw.hcl:13:27: middleware "m1" sets the header "Via", which proxies have to send'),
                ('request_headers = { Expect = "" }', 'gw.hcl:13:30: middleware "m1" sets the header "Expect", which is between'),
                (
                    'request_headers = { "X-Request-Id" = "x" }',
                    'gw.hcl:13:38: middleware "m1" sets the header "X-Request-Id", which is the matter of middlewares of type "request-id"',
                ),
                (
                    'request_headers = { "X-Forwarded-Host" = "" }',
                    'gw.hcl:13:42: middleware "m1" sets the header "X-Forwarded-Host", which is always sent',
                ),
                (
                    'append_request_headers = { "X-Forwarded-For" = "x" }',
                    'gw.hcl:13:48: middleware "m1" appends to the header "X-Forwarded-For", of which there is one only; set it',
                ),
                (
                    'request_headers = { "X_Forwarded_For" = "x" }',
                    'gw.hcl:13:41: middleware "m1" sets the header "X_Forwarded_For", which servers take for "x-forwarded-for"',
                ),
                ('append_response_headers = { Date = "x" }', 'gw.hcl:13:36: middleware "m1" appends to the header "Date", of which'),
                (
                    'append_response_headers = { A = "" }',
                    'gw.hcl:13:33: middleware "m1" appends to the header "A", but there is nothing to append',
                ),
                (
                    'response_headers = { A = "{hots}" }',
                    'gw.hcl:13:26: middleware "m1" sets the header "A" to a value that holds "{hots}", which is no placeholder',
                ),
                ('response_headers = { A = "{" }', 'gw.hcl:13:26: middleware "m1" sets the header "A" to a value that has a single "{"'),
                ('response_headers = { A = "a\\nb" }', 'gw.hcl:13:26: middlewares.m1.response_headers.A is "a\\nb", which holds a control'),
            ]
        )

    def test_all_at_once(self):
        """Every fault of a block is reported."""
        self.assertEqual(len(self.problems('request_headers = { TE = "x", Via = "y" }\nresponse_headers = { A = "{x}{y}" }')), 4)

    def test_secrets(self):
        """What comes from the environment is sent as it is and never shown."""
        environ = {"TOKEN": "hunter2{{", "BAD": "hunter2 {host}", "HOST": "hunter2 x"}
        loaded = self.load('request_headers = { "X-Key" = "${TOKEN}" }', environ)
        self.assertEqual(loaded.problems, ())
        self.assertNotIn("hunter2", repr(loaded.config))
        self.assert_refused(
            [
                (
                    'request_headers = { "X-Key" = "${BAD}" }',
                    'gw.hcl:13:31: middleware "m1" sets the header "X-Key" to a value that holds {host}',
                ),
                (
                    'request_headers = { Host = "${HOST}" }',
                    'gw.hcl:13:28: middleware "m1" sets the header "Host", but its value is no host',
                ),
            ],
            environ,
        )
        for attributes in ('request_headers = { "X-Key" = "${BAD}" }', 'request_headers = { Host = "${HOST}" }'):
            self.assertNotIn("hunter2", self.problems(attributes, environ)[0])
