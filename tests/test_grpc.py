"""
Calls through the gateway, by clients and servers of the gRPC project.
"""

from __future__ import annotations

import base64
import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from a3sgw.proxy.test.certificates import Authority
from a3sgw.wire.grpc import FrameReader, frame, read_trailers
from tests.grpc_peers import GrpcServer, connect, method
from tests.setting import GatewayCase, configure, metrics, peak_memory, read_records, service_at
from tests.support import GatewayProcess, free_port, wait_until

LARGE = 64 << 20
PATIENCE = 20.0


def grpc_service(name: str, urls: list[str], *, extra: str = "", middlewares: str = "") -> str:
    """
    Return a service, and a router that leads to it for calls that say `x-to: NAME`.
    """
    text = service_at(name, urls, extra)
    return text.replace(f'"PathPrefix(`/{name}`)"', f'"PathPrefix(`/test.Echo/`) && Header(`x-to`, `{name}`)"').replace(
        f'  service = "{name}"', f'  service = "{name}"\n  middlewares = [{middlewares}]', 1
    )


class GrpcCase(GatewayCase):
    """
    A gateway before gRPC servers, one for each way to name one.
    """

    servers: dict[str, GrpcServer]

    @classmethod
    def parts(cls) -> list[str]:
        cls.servers = {name: cls.enter(GrpcServer(name)) for name in ("one", "two", "three")}
        ports = {name: server.port for name, server in cls.servers.items()}
        nobody = free_port()
        return [
            grpc_service("h2c", [f"h2c://127.0.0.1:{ports['one']}"]),
            grpc_service("http", [f"http://127.0.0.1:{ports['one']}"]),
            grpc_service("both", [f"h2c://127.0.0.1:{ports[name]}" for name in ("one", "two")]),
            grpc_service("dead", [f"h2c://127.0.0.1:{nobody}"]),
            grpc_service("lame", [f"h2c://127.0.0.1:{nobody}", f"h2c://127.0.0.1:{ports['one']}"]),
            grpc_service("shut", [f"h2c://127.0.0.1:{ports['one']}"], middlewares='"nobody"'),
            grpc_service("keyed", [f"h2c://127.0.0.1:{ports['one']}"], middlewares='"key"'),
            grpc_service("small", [f"h2c://127.0.0.1:{ports['one']}"], middlewares='"small"'),
            grpc_service("rare", [f"h2c://127.0.0.1:{ports['one']}"], middlewares='"rare"'),
            grpc_service("again", [f"h2c://127.0.0.1:{ports['one']}"], middlewares='"again"'),
            grpc_service("hurry", [f"h2c://127.0.0.1:{ports['one']}"], extra='  timeouts {\n    total = "1s"\n  }'),
            'middlewares "nobody" {\n  type = "ip-allow"\n  allowed_ips = ["192.0.2.1"]\n}\n',
            'middlewares "key" {\n  type = "api-key"\n  header = "x-api-key"\n  keys = ["0123456789abcdef0123"]\n}\n',
            'middlewares "small" {\n  type = "body-limit"\n  max_body_bytes = 10\n}\n',
            'middlewares "rare" {\n  type = "rate-limit"\n  rate = 1\n  burst = 1\n}\n',
            'middlewares "again" {\n  type = "retry"\n  max_retries = 3\n  retry_interval_ms = 10\n}\n',
        ]

    def setUp(self) -> None:
        super().setUp()
        self.channel = connect(self.port)
        self.addCleanup(self.channel.close)

    def call(self, name: str, *arguments: Any, to: str = "h2c", metadata: tuple[tuple[str, Any], ...] = (), **options: Any) -> Any:
        """
        Call a method of the service `to`.
        """
        options.setdefault("timeout", PATIENCE)
        return method(self.channel, name)(*arguments, metadata=[("x-to", to), *metadata], **options)

    def fail(self, name: str, *arguments: Any, **options: Any) -> grpc.RpcError:  # type: ignore[override]
        """
        Call a method, which must fail; return how.
        """
        try:
            answer = self.call(name, *arguments, **options)
            if not isinstance(answer, bytes):
                list(answer)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"{name} went well")

    def check_at_rest(self) -> None:
        """
        Fail unless nothing is in flight any more.
        """

        def busy() -> float:
            samples = metrics(self.port)
            return sum(value for key, value in samples.items() if key.startswith(("gateway_backend_active", "gateway_backend_leased")))

        wait_until(lambda: busy() == 0, "no exchange is left", 8.0)


class CallTests(GrpcCase):
    """
    All shapes of calls.
    """

    def test_unary(self) -> None:
        """A call reaches the server with its metadata, and the answer comes back with its own, binary ones too."""
        for to in ("h2c", "http"):
            metadata = (("x-text", "a"), ("x-data-bin", bytes(range(256))))
            answer, call = method(self.channel, "Once").with_call(b"hello", metadata=[("x-to", to), *metadata], timeout=PATIENCE)
            self.assertEqual(answer, b"hello")
            self.assertEqual((call.code(), call.details()), (grpc.StatusCode.OK, ""))
            first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
            self.assertEqual((first["x-server"], first["x-both-bin"]), ("one", b"\x00\xff"))
            self.assertEqual((last["x-late"], last["x-late-bin"]), ("1", b"\xfe\x00"))
            heard = self.servers["one"].calls[-1]
            self.assertEqual((heard["x-text"], heard["x-data-bin"], heard["x-forwarded-for"]), ("a", bytes(range(256)), "127.0.0.1"))

    def test_streams(self) -> None:
        """Streams of messages go either way, and both."""
        for to in ("h2c", "http"):
            self.assertEqual(list(self.call("Many", b"abc", to=to)), [b"a", b"b", b"c"])
            self.assertEqual(self.call("Gather", iter([b"a", b"b", b"c"]), to=to), b"abc")
            self.assertEqual(list(self.call("Talk", iter([b"a", b"b", b"c"]), to=to)), [b"a", b"b", b"c"])

    def test_conversation(self) -> None:
        """In a conversation each message arrives as it is said."""
        turn = threading.Semaphore(0)
        said = []

        def say() -> Iterator[bytes]:
            for number in range(5):
                said.append(number)
                yield b"%d" % number
                # Nothing more before the answer.
                turn.acquire(timeout=PATIENCE)

        for answer in self.call("Talk", say()):
            self.assertEqual(answer, b"%d" % (len(said) - 1))
            turn.release()
        self.assertEqual(said, list(range(5)))

    def test_status(self) -> None:
        """A server's status arrives with its text and its details, whatever the code."""
        for code in (1, 2, 3, 4, 5, 7, 8, 13, 14, 16):
            error: Any = self.fail("Fail", b"%d" % code)
            self.assertEqual((error.code().value[0], error.details()), (code, "no such thing: größe"))
            trailers = dict(error.trailing_metadata())
            self.assertEqual((trailers["grpc-status-details-bin"], trailers["x-late"]), (b"\x08\x05\x12\x02no", "2"))

    def test_large(self) -> None:
        """Messages of 64 MiB pass both ways, in little memory."""
        message = bytes(1024) * (LARGE // 1024)
        for to in ("h2c", "http"):
            self.assertEqual(len(self.call("Once", message, to=to, timeout=60)), LARGE)
        self.assertLess(peak_memory(self.gateway.pid), 100)

    def test_many_at_a_time(self) -> None:
        """A hundred calls at a time share connections."""
        futures = [method(self.channel, "Once").future(b"%d" % n, metadata=[("x-to", "h2c")], timeout=PATIENCE) for n in range(100)]
        self.assertEqual([future.result() for future in futures], [b"%d" % n for n in range(100)])
        self.check_at_rest()


class EndingTests(GrpcCase):
    """
    Calls that end early.
    """

    def test_deadline(self) -> None:
        """When the caller's time is over it is told so, and the server's side is cancelled."""
        server = self.servers["one"]
        server.cancelled.clear()
        begun = time.monotonic()
        error = self.fail("Wait", b"", timeout=0.5)
        self.assertEqual(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - begun, 3)
        self.assertTrue(server.cancelled.wait(5))
        self.check_at_rest()

    def test_gateway_s_deadline(self) -> None:
        """When the time that the gateway gives is over, the caller is told in gRPC, also within an answer."""
        self.servers["one"].cancelled.clear()
        error: Any = self.fail("Wait", b"", to="hurry", timeout=10)
        self.assertEqual((error.code(), error.details()), (grpc.StatusCode.DEADLINE_EXCEEDED, "The exchange took too long"))
        self.assertTrue(self.servers["one"].cancelled.wait(5))
        self.check_at_rest()

    def test_client_cancels(self) -> None:
        """A call that the client gives up ends at the server at once."""
        server = self.servers["one"]
        server.cancelled.clear()
        call = self.call("Wait", b"")
        self.assertEqual(next(call), b"begun")
        begun = time.monotonic()
        call.cancel()
        self.assertTrue(server.cancelled.wait(5))
        self.assertLess(time.monotonic() - begun, 1)
        self.check_at_rest()

    def test_client_vanishes(self) -> None:
        """So do the calls of a client that closes its connection."""
        server = self.servers["one"]
        server.cancelled.clear()
        call = self.call("Wait", b"")
        self.assertEqual(next(call), b"begun")
        self.channel.close()
        self.assertTrue(server.cancelled.wait(5))
        self.check_at_rest()

    def test_server_dies(self) -> None:
        """A server that dies within a call makes it unavailable."""
        doomed = GrpcServer("doomed")
        port = free_port()
        with GatewayProcess(configure(port, grpc_service("doomed", [f"h2c://127.0.0.1:{doomed.port}"]))):
            channel = connect(port)
            self.addCleanup(channel.close)
            call = method(channel, "Wait")(b"", metadata=[("x-to", "doomed")], timeout=PATIENCE)
            self.assertEqual(next(call), b"begun")
            doomed.stop()
            with self.assertRaises(grpc.RpcError) as raised:
                list(call)
            error: Any = raised.exception
            self.assertIn(error.code(), (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED))


class RefusalTests(GrpcCase):
    """
    What the gateway says itself.
    """

    def test_codes(self) -> None:
        """Each refusal is a status that a client can act on."""
        for to, code, details in (
            ("dead", grpc.StatusCode.UNAVAILABLE, "Backend refused the connection"),
            ("shut", grpc.StatusCode.PERMISSION_DENIED, "Forbidden"),
            ("keyed", grpc.StatusCode.UNAUTHENTICATED, "Invalid or missing API key"),
            ("small", grpc.StatusCode.RESOURCE_EXHAUSTED, "Request body too large"),
        ):
            error: Any = self.fail("Once", b"more than ten bytes", to=to)
            self.assertEqual(error.code(), code, to)
            if details is not None:
                self.assertEqual(error.details(), details)
        with self.assertRaises(grpc.RpcError) as raised:
            self.channel.unary_unary("/nowhere/Once")(b"", timeout=PATIENCE)
        lost: Any = raised.exception
        self.assertEqual((lost.code(), lost.details()), (grpc.StatusCode.UNIMPLEMENTED, "No route matched"))
        self.check_at_rest()

    def test_rate(self) -> None:
        """A caller that calls too often is told to hold back."""
        codes = set()
        for _ in range(5):
            try:
                self.call("Once", b"", to="rare")
            except grpc.RpcError as error:
                found: Any = error
                codes.add((found.code(), found.details()))
        self.assertEqual(codes, {(grpc.StatusCode.RESOURCE_EXHAUSTED, "Rate limit exceeded")})

    def test_reason_is_named(self) -> None:
        """The reason stands in the metadata and in the access log."""
        error: Any = self.fail("Once", b"", to="shut")
        said = {**dict(error.initial_metadata() or ()), **dict(error.trailing_metadata() or ())}
        self.assertIn('details="access-denied"', said["proxy-status"])
        wait_until(lambda: self.logged(outcome="access-denied", grpc_status=7), "the log tells of it", 5.0)

    def test_statuses_are_logged(self) -> None:
        """The access log tells each call's status, whoever it came from."""
        self.call("Once", b"")
        self.fail("Fail", b"5")
        for status in (0, 5):
            wait_until(lambda told=status: self.logged(outcome="completed", grpc_status=told), f"the log tells of {status}", 5.0)

    def logged(self, **expected: Any) -> bool:
        """
        Tell whether the access log has a line with all of this.
        """
        return any(expected.items() <= record.items() for record in read_records(self.log))


class ServiceTests(GrpcCase):
    """
    What holds for requests holds for calls.
    """

    def test_balancing(self) -> None:
        """Calls on one connection of a client are shared out among the servers."""
        once = method(self.channel, "Once")
        calls = [once.with_call(b"", metadata=[("x-to", "both")], timeout=PATIENCE)[1] for _ in range(10)]
        servers = Counter(dict(call.initial_metadata())["x-server"] for call in calls)
        self.assertEqual(servers, {"one": 5, "two": 5})

    def test_next_server(self) -> None:
        """A call that a server cannot be reached for goes to the next."""
        for _ in range(4):
            self.assertEqual(self.call("Once", b"x", to="lame"), b"x")

    def test_not_repeated(self) -> None:
        """A call that a server has answered is never repeated, whatever its status."""
        before = len(self.servers["one"].calls)
        self.fail("Fail", b"14", to="again")
        self.assertEqual(len(self.servers["one"].calls), before + 1)


class LifeTests(GrpcCase):
    """
    Gateways and servers that come and go.
    """

    def test_tls(self) -> None:
        """A client and a server that speak TLS agree on HTTP/2 with the gateway."""
        authority = Authority()
        identity = authority.issue("localhost")
        key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = identity.certificate.public_bytes(Encoding.PEM)
        root = authority.certificate.public_bytes(Encoding.PEM)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "ca.pem").write_bytes(root)
        (folder / "own.pem").write_bytes(key + chain)
        server = GrpcServer("secure", credentials=grpc.ssl_server_credentials([(key, chain)]))
        self.addCleanup(server.stop)
        port = free_port()
        text = configure(
            port,
            grpc_service("secure", [f"https://localhost:{server.port}"], extra=f'  upstream_tls {{\n    ca_file = "{folder}/ca.pem"\n  }}'),
            entrypoint=f'  tls {{\n    cert_file = "{folder}/own.pem"\n    key_file = "{folder}/own.pem"\n  }}',
        )
        with GatewayProcess(text):
            channel = connect(port, secure=root)
            self.addCleanup(channel.close)
            answer = method(channel, "Once")(b"safe", metadata=[("x-to", "secure")], timeout=PATIENCE)
            self.assertEqual(answer, b"safe")
            self.assertEqual(list(method(channel, "Many")(b"abc", metadata=[("x-to", "secure")], timeout=PATIENCE)), [b"a", b"b", b"c"])

    def test_restart(self) -> None:
        """A server that is restarted costs no call that is made afterwards."""
        port, own = free_port(), free_port()
        server = GrpcServer("first", port=own)
        with GatewayProcess(configure(port, grpc_service("app", [f"h2c://127.0.0.1:{own}"]))):
            channel = connect(port)
            self.addCleanup(channel.close)
            call = method(channel, "Once")
            self.assertEqual(call(b"1", timeout=PATIENCE), b"1")
            server.stop()
            server = GrpcServer("second", port=own)
            self.addCleanup(server.stop)
            self.assertEqual(call(b"2", timeout=PATIENCE), b"2")

    def test_health(self) -> None:
        """A server that says it is not serving gets no calls until it says that it is."""
        servers = [GrpcServer(name) for name in ("well", "ill")]
        for each in servers:
            self.addCleanup(each.stop)
        port = free_port()
        check = '  health_check {\n    protocol = "grpc"\n    interval = "200ms"\n    unhealthy_threshold = 1\n  }\n'
        urls = [f"h2c://127.0.0.1:{each.port}" for each in servers]
        text = grpc_service("app", urls).replace("load_balancer {\n", "load_balancer {\n" + check)
        with GatewayProcess(configure(port, text)):
            channel = connect(port)
            self.addCleanup(channel.close)

            def who() -> set[str]:
                calls = [method(channel, "Once").with_call(b"", timeout=PATIENCE)[1] for _ in range(4)]
                return {dict(call.initial_metadata())["x-server"] for call in calls}

            wait_until(lambda: who() == {"well", "ill"}, "both are used")
            servers[1].state = b"\x08\x02"
            wait_until(lambda: who() == {"well"}, "the ill one is left out")
            servers[1].state = b"\x08\x01"
            wait_until(lambda: who() == {"well", "ill"}, "both are used again")


class ChoiceTests(GatewayCase):
    """
    Who answers a call: what a cookie, a header or a share says of requests holds for calls too.
    """

    @classmethod
    def parts(cls) -> list[str]:
        cls.servers = [cls.enter(GrpcServer(name)) for name in ("one", "two", "shadow")]
        one, two, shadow = [f"h2c://127.0.0.1:{server.port}" for server in cls.servers]
        sticky = '  sticky {\n    cookie = "who"\n  }\n'
        shares = ", ".join(
            f'{{ name = "{name}", traffic_percent = {percent}, servers = [{{ url = "{url}" }}] }}'
            for name, percent, url in (("v1", 100, one), ("v2", 0, two))
        )
        revisions = f'  revisions = [{shares}]\n  revision_header = "x-revision"\n'
        revised = grpc_service("revised", [], extra=revisions).replace("  load_balancer {\n    servers = []\n  }\n", "")
        return [
            grpc_service("sticky", [one, two]).replace("load_balancer {\n", "load_balancer {\n" + sticky),
            revised,
            grpc_service("shadowed", [one], extra='  mirror {\n    service = "shadow"\n  }\n'),
            grpc_service("shadow", [shadow]),
        ]

    servers: list[GrpcServer]

    def who(self, to: str, *metadata: tuple[str, str]) -> tuple[str, str]:
        """
        Call; return which server answered, and the cookie that came with the answer.
        """
        channel = connect(self.port)
        self.addCleanup(channel.close)
        _, call = method(channel, "Once").with_call(b"x", metadata=[("x-to", to), *metadata], timeout=PATIENCE)
        said = dict(call.initial_metadata())
        return said["x-server"], said.get("set-cookie", "")

    def test_sticky(self) -> None:
        """A caller that sends the cookie back stays with its server."""
        server, cookie = self.who("sticky")
        name = cookie.partition(";")[0]
        self.assertTrue(name.startswith("who="))
        self.assertEqual({self.who("sticky", ("cookie", name))[0] for _ in range(5)}, {server})
        self.assertEqual({self.who("sticky")[0] for _ in range(4)}, {"one", "two"})

    def test_revisions(self) -> None:
        """A header chooses the revision."""
        self.assertEqual({self.who("revised")[0] for _ in range(3)}, {"one"})
        self.assertEqual(self.who("revised", ("x-revision", "v2"))[0], "two")

    def test_mirror(self) -> None:
        """A shadow service gets its copies in gRPC."""
        before = len(self.servers[2].calls)
        self.assertEqual(self.who("shadowed")[0], "one")
        wait_until(lambda: len(self.servers[2].calls) == before + 1, "the shadow was called", 5.0)
        self.assertEqual(self.servers[2].calls[-1]["x-shadow"], "true")


class WebTests(GatewayCase):
    """
    Browsers, which know neither HTTP/2 frames nor trailers, before a server of the gRPC project.
    """

    server: GrpcServer

    @classmethod
    def parts(cls) -> list[str]:
        cls.server = cls.enter(GrpcServer("one"))
        return [
            grpc_service("web", [f"http://127.0.0.1:{cls.server.port}"], middlewares='"web"'),
            'middlewares "web" {\n  type = "grpc-web"\n}\n',
        ]

    def ask(self, name: str, message: bytes, *, is_text: bool = False) -> tuple[str | None, list[bytes], dict[bytes, bytes]]:
        """
        Call a method as a browser does; return the content type, the messages and the trailers of the answer.
        """
        kind = "application/grpc-web-text" if is_text else "application/grpc-web+proto"
        body = frame(message)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        sent = base64.b64encode(body) if is_text else body
        connection.request("POST", f"/test.Echo/{name}", sent, {"Content-Type": kind, "Accept": kind, "X-To": "web", "X-Grpc-Web": "1"})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        told = answer.read()
        if is_text:
            told = b"".join(base64.b64decode(told[at : at + 4]) for at in range(0, len(told), 4))
        *messages, (flags, last) = FrameReader(1 << 20).feed(told)
        trailers = read_trailers(flags, last)
        assert trailers is not None
        return answer.getheader("content-type"), [each for _, each in messages], {field.name: field.value for field in trailers}

    def test_calls(self) -> None:
        """A browser's calls are answered, one message or many, in bytes and in text."""
        for is_text, kind in ((False, "application/grpc-web"), (True, "application/grpc-web-text")):
            for name, expected in (("Once", [b"abc"]), ("Many", [b"a", b"b", b"c"])):
                content_type, messages, trailers = self.ask(name, b"abc", is_text=is_text)
                self.assertEqual((content_type, messages), (kind, expected))
                self.assertEqual((trailers[b"grpc-status"], trailers[b"x-late"]), (b"0", b"1"))

    def test_status(self) -> None:
        """A status reaches the browser with its details."""
        _, messages, trailers = self.ask("Fail", b"5")
        self.assertEqual((messages, trailers[b"grpc-status"]), ([], b"5"))
        self.assertEqual(trailers[b"grpc-status-details-bin"], b"CAUSAm5v")

    def test_no_method(self) -> None:
        """So does that of a method which does not exist."""
        self.assertEqual(self.ask("Nothing", b"")[2][b"grpc-status"], b"12")
