"""
Tests of `request-id`.
"""

import json
import random
import uuid

import attrs
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook, IResponseHook
from a3sgw.middleware import request_id
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.testing import middleware_contract

PLAIN = 'type = "request-id"'
DISTRUSTING = f"{PLAIN}\ntrust_client = false"
CORRELATION = f'{PLAIN}\nheader = "X-Correlation-Id"'


class RequestIdContract(middleware_contract(request_id.factory, 'header = "X-Plain"\ngenerator = "ulid"')):
    """
    `request-id` is a middleware.
    """

    def test_phases(self):
        """It looks at both heads."""
        built = request_id.RequestId(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, built)
        verifyObject(IResponseHook, built)


class RequestIdCase(MiddlewareCase):
    """
    Requests with names.
    """

    def named(self, *lines, answer=OK, header="X-Request-Id"):
        """
        Return what the server and the client are told in `header`.
        """
        asked, told = self.exchange(request("GET", "/", *lines), answer)
        return [
            [line.partition(": ")[2] for line in heard.decode("latin-1").split("\r\n") if line.lower().startswith(f"{header.lower()}:")]
            for heard in (asked, told)
        ]

    def logged(self):
        """
        Return the names in the access log.
        """
        self.dialogue.reactor.advance(1)
        return [json.loads(line)["request_id"] for line in self.dialogue.sink.data.splitlines()]


class TrustTests(RequestIdCase):
    """
    Whether a client's own name is kept.
    """

    def test_trusted(self):
        """A client's name is kept, for the server, the client and the log."""
        self.pass_through(PLAIN)
        self.assertEqual(self.named("X-Request-Id: mine-1"), [["mine-1"], ["mine-1"]])
        self.assertEqual(self.logged(), ["mine-1"])

    def test_new(self):
        """A request without a name, or with one that is not safe to log, gets a new one, the same for all."""
        self.pass_through(PLAIN)
        seen = []
        for lines in ((), ('X-Request-Id: a"b',), ("X-Request-Id: " + "x" * 129,), ("X-Request-Id: \xe9",), ("X-Request-Id:",)):
            (asked,), (told,) = self.named(*lines)
            self.assertEqual(asked, told)
            self.assertEqual(len(asked), 22)
            seen.append(asked)
        self.assertEqual(self.logged(), seen)
        self.assertEqual(len(set(seen)), len(seen))

    def test_untrusted(self):
        """A client that is not trusted cannot choose, not even by sending what looks like the gateway's own."""
        self.pass_through(DISTRUSTING)
        (asked,), (told,) = self.named("X-Request-Id: mine-1")
        self.assertEqual(asked, told)
        self.assertNotEqual(asked, "mine-1")
        (again,), _ = self.named(f"X-Request-Id: {asked}")
        self.assertNotEqual(again, asked)
        self.assertEqual(self.logged(), [asked, again])

    def test_refusals(self):
        """What the gateway refuses further inside has the name too."""
        self.pass_through(DISTRUSTING, 'type = "body-limit"\nmax_body_bytes = 1')
        _, told = self.exchange(request("POST", "/", "Content-Length: 5", "X-Request-Id: mine-1"))
        head, _, body = told.partition(b"\r\n\r\n")
        name = json.loads(body)["request_id"]
        self.assertNotEqual(name, "mine-1")
        self.assertIn(f"\r\nX-Request-Id: {name}\r\n".encode(), head + b"\r\n")


class HeaderTests(RequestIdCase):
    """
    In which header the name stands.
    """

    def test_other_header(self):
        """Another header is where a client's name is looked for, and the server is told under both."""
        self.pass_through(CORRELATION)
        lines = ("x-correlation-id: mine-1", "X-Request-Id: mine-2")
        self.assertEqual(self.named(*lines, header="X-Correlation-Id"), [["mine-1"], ["mine-1"]])
        self.assertEqual(self.named(*lines), [["mine-1"], []])
        self.assertEqual(self.logged(), ["mine-1", "mine-1"])

    def test_usual_header(self):
        """Without it, the usual header counts."""
        self.pass_through(CORRELATION)
        for lines in (
            ("X-Request-Id: mine-2",),
            ("X-Request-Id: mine-2", "X-Correlation-Id: a b"),
            ("X-Request-Id: mine-2", "X-Correlation-Id:"),
        ):
            self.assertEqual(self.named(*lines, header="X-Correlation-Id"), [["mine-2"], ["mine-2"]], lines)

    def test_untrusted(self):
        """Neither counts if the client is not trusted; the server hears one name."""
        self.pass_through(CORRELATION + "\ntrust_client = false", entrypoint="allow_underscores_in_headers = true")
        (asked,), (told,) = self.named(
            "X-Correlation-Id: mine-1", "X-Correlation-Id: mine-2", "X-Request-Id: mine-3", header="X-Correlation-Id"
        )
        self.assertEqual(asked, told)
        self.assertNotIn("mine", asked)
        data, _ = self.exchange(request("GET", "/", "X_Correlation_Id: mine-1"))
        self.assertNotIn(b"mine", data)

    def test_response(self):
        """The server's own word about it is replaced; a client that is not to know is not told."""
        answer = response("204 No Content", "X-Request-Id: theirs", "x-request-id: other")
        self.pass_through(PLAIN)
        self.assertEqual(self.named("X-Request-Id: mine-1", answer=answer)[1], ["mine-1"])
        self.pass_through(f"{PLAIN}\nresponse = false")
        self.assertEqual(self.named("X-Request-Id: mine-1"), [["mine-1"], []])


class GeneratorTests(RequestIdCase):
    """
    What a new name looks like.
    """

    def test_forms(self):
        """Each form is what it says, and names of a client that is trusted are kept whatever their form."""
        for generator, check in [
            ("uuid4", lambda name: self.assertEqual(uuid.UUID(name).version, 4)),
            ("uuid7", lambda name: self.assertEqual(uuid.UUID(name).version, 7)),
            ("ulid", lambda name: self.assertRegex(name, "^[0-7][0-9A-HJKMNP-TV-Z]{25}$")),
            ("hex", lambda name: self.assertRegex(name, "^[0-9a-f]{22}$")),
        ]:
            self.pass_through(f'{PLAIN}\ngenerator = "{generator}"')
            (asked,), (told,) = self.named()
            self.assertEqual(asked, told)
            check(asked)
            # Such as another of these gateways makes them.
            self.assertEqual(self.named("X-Request-Id: 0123456789abcdef012345")[0], ["0123456789abcdef012345"])
            self.assertNotEqual(self.named()[0], [asked])

    def test_chance_and_time(self):
        """Chance and time are those of its surroundings."""
        surroundings = attrs.evolve(still_surroundings("x"), chance=random.Random(1), wall_clock=lambda: 1469918176.385)
        made = [request_id._make_generator("ulid", surroundings)() for _ in range(2)]
        self.assertEqual([name[:10] for name in made], [b"01ARYZ6S41"] * 2)
        self.assertNotEqual(*made)


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "request-id"

    def test_refusals(self):
        """The header is one that means nothing else."""
        self.assert_accepted("", 'header = "x-request-ID"', 'header = "X-Amzn-Trace-Id"', 'header = "Trace_Id"')
        for name in (
            "Host",
            "content-length",
            "Connection",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "Date",
            "Set-Cookie",
            "X_Request_Id",
            "Referer",
        ):
            (problem,) = self.problems(f'header = "{name}"')
            self.assertTrue(
                problem.startswith(f'gw.hcl:13:10: middleware "m1" puts the identifier in "{name}", which means something'), problem
            )
        self.assert_refused(
            [
                ('header = "a b"', 'gw.hcl:13:10: middlewares.m1.header is "a b", which is not a valid header name'),
                ('generator = "uuid"', 'gw.hcl:13:13: middlewares.m1.generator is "uuid", expected one of "hex", "uuid4"'),
            ]
        )
