"""
Middlewares of the real command, with curl before it and real servers behind: what each does for a user, end to end.

What single middlewares decide is told in `a3sgw/middleware/test`; here they meet real clients, files, threads, processes and time.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import bcrypt
import brotli
import jwt
import zstandard
from cryptography.hazmat.primitives.asymmetric import ec

from tests.setting import GatewayCase, OwnGatewayCase, configure, metrics, service
from tests.support import PATIENCE, Conversation, RawServer, fetch, free_port, missing, run_command, wait_until
from tests.wire import Scene, Stage

KEY = ec.generate_private_key(ec.SECP256R1())
TEXT = b"All work and no play makes Jack a dull boy.\n" * 2000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def router(name: str, *middlewares: str, service: str = "app") -> str:
    """
    Return a router for `/NAME` that lists these middlewares.
    """
    listed = ", ".join(f'"{each}"' for each in middlewares)
    return f'routers "{name}" {{\n  rule = "PathPrefix(`/{name}`)"\n  service = "{service}"\n  middlewares = [{listed}]\n}}\n'


def middleware(name: str, kind: str, *attributes: str) -> str:
    """
    Return a block of that type.
    """
    body = "\n".join(f"  {line}" for line in (f'type = "{kind}"', *attributes))
    return f'middlewares "{name}" {{\n{body}\n}}\n'


def token(**claims: object) -> str:
    """
    Return a token that the issuer of these tests signs.
    """
    return jwt.encode({"exp": time.time() + 600, **claims}, KEY, "ES256", headers={"kid": "k"})


class CurlCase(GatewayCase):
    """
    Tests in which curl asks.
    """

    skip = missing("curl")

    def curl(self, path: str, *options: str) -> tuple[int, dict[str, str], bytes]:
        """
        Return the status, the header fields (the last of each name) and the body that curl got, decoded if it was told to.
        """
        with tempfile.TemporaryDirectory() as folder:
            head, body = Path(folder) / "head", Path(folder) / "body"
            run_command(["curl", "-sS", "--max-time", "15", "-D", head, "-o", body, *options, f"http://127.0.0.1:{self.port}{path}"])
            lines = head.read_bytes().decode("latin-1").split("\r\n\r\n")[-2].split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            return int(lines[0].split()[1]), fields, body.read_bytes() if body.exists() else b""


class AuthenticationTests(CurlCase):
    """
    Who may pass.
    """

    files: Path
    issuer: Stage
    guard: Stage

    @classmethod
    def parts(cls) -> list[str]:
        cls.files = Path(tempfile.mkdtemp(prefix="a3sgw-"))
        hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(5)).decode()
        (cls.files / "users").write_text(f"anna:{hashed}\nbert:{{SHA}}VBPuJHI7uixaa6LQGWx4s+5GKNE=\n")
        cls.issuer = cls.enter(Stage())
        numbers = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(KEY.public_key()))
        keys = json.dumps({"keys": [{**numbers, "kid": "k"}]}).encode()
        cls.issuer.on("/keys", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(keys), keys))
        cls.guard = cls.enter(Stage())
        cls.guard.on("/check", cls.judge)
        return [
            router("key", "key"),
            middleware("key", "api-key", 'keys = ["open sesame"]', "remove_key = true"),
            router("users", "users"),
            middleware("users", "basic-auth", f'users_file = "{cls.files / "users"}"', 'header_field = "X-User"'),
            router("token", "token"),
            middleware("token", "jwt", f'jwks_url = "http://127.0.0.1:{cls.issuer.port}/keys"', 'issuers = ["us"]'),
            router("asked", "asked"),
            middleware(
                "asked",
                "forward-auth",
                f'forward_auth_url = "http://127.0.0.1:{cls.guard.port}/check"',
                'forward_auth_response_headers = ["X-Who"]',
            ),
            router("local", "elsewhere"),
            middleware("elsewhere", "ip-allow", 'allowed_ips = ["198.51.100.0/24"]'),
        ]

    @staticmethod
    def judge(conversation: Scene, head: bytes) -> None:
        if b"session=good" in head:
            conversation.send(b"HTTP/1.1 200 OK\r\nX-Who: anna\r\nContent-Length: 0\r\n\r\n")
        else:
            conversation.send(b"HTTP/1.1 302 Found\r\nLocation: http://id.test/?to=/\r\nSet-Cookie: try=1\r\nContent-Length: 0\r\n\r\n")

    def heard(self) -> bytes:
        """
        Return the head of the last request that reached the backend.
        """
        return self.stage.heads[-1]

    def test_api_key(self) -> None:
        """A key lets in and is not passed on; without one the answer is 401, and the backend hears nothing."""
        self.assertEqual(self.curl("/key/x", "-H", "X-API-Key: open sesame")[0], 200)
        self.assertNotIn(b"sesame", self.heard())
        before = len(self.stage.heads)
        for options in ([], ["-H", "X-API-Key: open"], ["-H", "X-API-Key;"]):
            self.assertEqual(self.curl("/key/x", *options)[0], 401)
        self.assertEqual(len(self.stage.heads), before)

    def test_users(self) -> None:
        """Users of an htpasswd file log in with curl, with fast and slow hashes; the server is told who it is."""
        for user, name in (("anna:correct horse", "anna"), ("bert:myPassword", "bert")):
            self.assertEqual(self.curl("/users", "-u", user, "-H", "X-User: root")[0], 200)
            self.assertIn(f"\r\nX-User: {name}\r\n".encode(), self.heard())
            self.assertNotIn(b"root", self.heard())
        status, fields, _ = self.curl("/users", "-u", "anna:wrong")
        self.assertEqual(status, 401)
        self.assertEqual(fields["www-authenticate"], 'Basic realm="Restricted", charset="UTF-8"')

    def test_wrong_passwords_stop_nobody(self) -> None:
        """While many wrong passwords are checked, other requests are answered as quickly as ever."""
        flood = [threading.Thread(target=lambda: self.curl("/users", "-u", "anna:wrong")) for _ in range(10)]
        for thread in flood:
            thread.start()
        started = time.monotonic()
        for _ in range(20):
            self.assertEqual(fetch(self.port, "/plain").status, 200)
        self.assertLess(time.monotonic() - started, 5)
        for thread in flood:
            thread.join(PATIENCE)

    def test_token(self) -> None:
        """Tokens are verified with keys fetched from the issuer, once."""
        for _ in range(3):
            self.assertEqual(self.curl("/token", "-H", f"Authorization: Bearer {token(sub='anna', iss='us')}")[0], 200)
            self.assertIn(b"\r\nX-Jwt-Subject: anna\r\n", self.heard())
        status, fields, _ = self.curl("/token", "-H", f"Authorization: Bearer {token(iss='them')}")
        self.assertEqual(status, 401)
        self.assertIn('error="invalid_token"', fields["www-authenticate"])
        self.assertEqual(self.issuer.count("/keys"), 1)

    def test_asked(self) -> None:
        """Another service decides: its redirect with cookies reaches the client, its yes the server."""
        status, fields, _ = self.curl("/asked", "-H", "X-Who: root")
        self.assertEqual((status, fields["location"], fields["set-cookie"]), (302, "http://id.test/?to=/", "try=1"))
        self.assertEqual(self.curl("/asked", "-b", "session=good", "-H", "X-Who: root", "-d", "a body")[0], 200)
        self.assertIn(b"\r\nX-Who: anna\r\n", self.heard())
        self.assertNotIn(b"root", self.heard())
        asked = self.guard.head_for("/check")
        self.assertIn(b"\r\nX-Forwarded-Uri: /asked\r\n", asked)

    def test_addresses(self) -> None:
        """Only the addresses named pass; who claims to be one does not."""
        self.assertEqual(self.curl("/local", "-H", "X-Forwarded-For: 198.51.100.7")[0], 403)


class ChangeTests(CurlCase):
    """
    What is changed on the way.
    """

    @classmethod
    def parts(cls) -> list[str]:
        def text(conversation: Scene, head: bytes) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \"x\"\r\nContent-Length: %d\r\n\r\n" % len(TEXT))
            conversation.send(TEXT)

        for path in ("/smaller", "/all/of/it"):
            cls.stage.on(path, text)
        cls.stage.on("/broken", b"HTTP/1.1 503 No\r\nContent-Length: 6\r\n\r\nbroken")
        page = Path(tempfile.mkdtemp(prefix="a3sgw-")) / "page.html"
        page.write_text("<h1>{status}</h1>\n")
        return [
            router("smaller", "smaller"),
            middleware("smaller", "compress"),
            router("site", "sites"),
            middleware("sites", "cors", 'allowed_origins = ["https://app.test", "https://*.b.test"]', "allow_credentials = true"),
            router("api", "without-api", "say"),
            middleware("without-api", "strip-prefix", 'prefixes = ["/api"]'),
            middleware(
                "say",
                "headers",
                'request_headers = { "X-From" = "{client_ip} to {host}", "User-Agent" = "" }',
                'response_headers = { "X-Served-By" = "gateway", "Server" = "" }',
            ),
            router("limited", "small"),
            middleware("small", "body-limit", "max_body_bytes = 1000"),
            router("broken", "pages"),
            middleware("pages", "errors", 'status = ["500-599"]', f'file = "{page}"', 'content_type = "text/html"'),
            router("secure", "secure"),
            middleware("secure", "redirect-scheme", 'scheme = "https"'),
            router("moved", "moved"),
            middleware("moved", "redirect-regex", 'regex = "^http://([^/]+)/moved/(.*)"', 'replacement = "http://$1/new/$2"'),
            router("all", "everything"),
            middleware("everything", "chain", 'middlewares = ["say", "smaller"]'),
        ]

    def test_compress(self) -> None:
        """curl gets the same text, smaller, by each coding that it knows, and the whole of it where it asks for none."""
        status, fields, body = self.curl("/smaller")
        self.assertEqual((status, body), (200, TEXT))
        self.assertEqual(fields["vary"], "Accept-Encoding")
        for name, decode in (
            ("gzip", gzip.decompress),
            ("br", brotli.decompress),
            ("zstd", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
        ):
            status, fields, body = self.curl("/smaller", "-H", f"Accept-Encoding: {name}")
            self.assertEqual((fields["content-encoding"], fields["etag"]), (name, 'W/"x"'))
            self.assertEqual(decode(body), TEXT)
            self.assertLess(len(body), 2000)
        status, _, body = self.curl("/smaller", "--compressed")
        self.assertEqual(body, TEXT)

    def test_cors(self) -> None:
        """A browser's question is answered for sites that may, and refused for others; answers name the site."""
        ask = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: PUT"]
        before = len(self.stage.heads)
        _, fields, _ = self.curl("/site", *ask, "-H", "Origin: https://x.b.test")
        self.assertEqual(fields["access-control-allow-origin"], "https://x.b.test")
        self.assertEqual(fields["access-control-allow-credentials"], "true")
        self.assertIn("PUT", fields["access-control-allow-methods"])
        self.assertEqual(self.curl("/site", *ask, "-H", "Origin: https://evil.test")[0], 403)
        self.assertEqual(len(self.stage.heads), before)
        _, fields, _ = self.curl("/site", "-H", "Origin: https://app.test")
        self.assertEqual(fields["access-control-allow-origin"], "https://app.test")
        self.assertNotIn("access-control-allow-origin", self.curl("/site", "-H", "Origin: https://evil.test")[1])

    def test_headers_and_prefix(self) -> None:
        """The server sees another path and other headers, the client another server."""
        status, fields, _ = self.curl("/api/users?x=%20", "-A", "spy")
        self.assertEqual((status, fields["x-served-by"]), (200, "gateway"))
        head = self.stage.heads[-1]
        self.assertTrue(head.startswith(b"GET /users?x=%20 HTTP/1.1\r\n"), head)
        self.assertIn(b"\r\nX-Forwarded-Prefix: /api\r\n", head)
        self.assertIn(b"\r\nX-From: 127.0.0.1 to 127.0.0.1", head)
        self.assertNotIn(b"spy", head)

    def test_body_limit(self) -> None:
        """curl is told 413 whether it says how much will come or not, and does not have to send it first."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x" * 5_000_000)
            file.flush()
            for options in ([], ["-H", "Transfer-Encoding: chunked"], ["--expect100-timeout", "20", "-H", "Expect: 100-continue"]):
                status, _, body = self.curl("/limited", "-T", file.name, *options)
                self.assertEqual(status, 413, options)
                self.assertEqual(json.loads(body)["max_bytes"], 1000)
        self.assertEqual(self.curl("/limited", "-d", "x" * 1000)[0], 200)

    def test_pages(self) -> None:
        """An error keeps its status and gets a page."""
        status, fields, body = self.curl("/broken")
        self.assertEqual((status, fields["content-type"].partition(";")[0], body), (503, "text/html", b"<h1>503</h1>\n"))

    def test_redirects(self) -> None:
        """Redirects lead where they say, with everything that was asked for."""
        status, fields, _ = self.curl("/secure/x?y=z")
        self.assertEqual((status // 100, fields["location"]), (3, "https://127.0.0.1/secure/x?y=z"))
        status, fields, _ = self.curl("/moved/a/b?c=d")
        self.assertEqual((status // 100, fields["location"]), (3, f"http://127.0.0.1:{self.port}/new/a/b?c=d"))

    def test_chain(self) -> None:
        """A chain is everything in it."""
        _, fields, body = self.curl("/all/of/it", "-H", "Accept-Encoding: gzip")
        self.assertEqual((fields["x-served-by"], fields["content-encoding"], gzip.decompress(body)), ("gateway", "gzip", TEXT))


class LimitTests(OwnGatewayCase):
    """
    How much, how often, and what happens when servers fail.
    """

    def run_with(self, *parts: str, entrypoint: str = "", stages: list[Stage] | None = None, extra: str = "") -> None:
        ports = [stage.port for stage in (stages or [self.old])]
        self.gateway = self.start(configure(self.port, service("app", ports, extra), *parts, entrypoint=entrypoint, log=self.log))

    def statuses(self, count: int, path: str = "/it", **options: object) -> list[int]:
        return [fetch(self.port, path, **options).status for _ in range(count)]  # type: ignore[arg-type]

    def test_rate_limit(self) -> None:
        """So many requests pass at once, then as many as the rate allows; each answer says how many are left."""
        self.run_with(router("it", "slow"), middleware("slow", "rate-limit", "rate = 5", "burst = 3"))
        self.assertEqual(self.statuses(4), [200, 200, 200, 429])
        answer = fetch(self.port, "/it")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (429, "1"))
        self.assertEqual(json.loads(answer.body)["reason"], "rate-limited")
        time.sleep(0.45)
        self.assertEqual(self.statuses(3), [200, 200, 429])
        self.assertGreaterEqual(metrics(self.port)['gateway_middleware_answers_total{middleware="slow",status="429"}'], 3)

    def test_entrypoint(self) -> None:
        """A middleware of the entrypoint counts for all its routers together."""
        self.run_with(
            router("it"), router("other"), middleware("few", "rate-limit", "rate = 1", "burst = 2"), entrypoint='middlewares = ["few"]'
        )
        self.assertEqual(self.statuses(1, "/it") + self.statuses(2, "/other"), [200, 200, 429])

    def test_reload_keeps_buckets(self) -> None:
        """A reload that changes something else gives nobody a new bucket."""
        parts = [router("it", "slow"), middleware("slow", "rate-limit", "rate = 1", "period_secs = 60", "burst = 2")]
        self.run_with(*parts)
        self.assertEqual(self.statuses(3), [200, 200, 429])
        self.gateway.reload(configure(self.port, service("app", [self.old.port]), router("new"), *parts, log=self.log))
        self.assertEqual(self.statuses(1), [429])

    def test_in_flight(self) -> None:
        """So many requests at a time, and the next one when one is done."""
        go = self.hold(self.old, "/it")
        self.run_with(router("it", "two"), middleware("two", "in-flight", "amount = 2"))
        busy = [threading.Thread(target=self.statuses, args=(1,)) for _ in range(2)]
        for thread in busy:
            thread.start()
        wait_until(lambda: self.old.count("/it") == 2, "both are under way")
        self.assertEqual(self.statuses(1), [429])
        go.set()
        for thread in busy:
            thread.join(PATIENCE)
        self.assertEqual(self.statuses(1), [200])

    def test_retry(self) -> None:
        """While one of two servers answers 503 or breaks off, no client notices."""

        def refuse(conversation: Scene, head: bytes) -> bool:
            if len(self.old.heads) % 2:
                conversation.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                return False
            return True

        self.old.on("/it", refuse)
        again = middleware("again", "retry", "max_retries = 2", "retry_interval_ms = 1")
        self.run_with(router("it", "again"), again, stages=[self.old, self.new])
        self.assertEqual(set(self.statuses(20)), {200})
        self.assertGreaterEqual(metrics(self.port)['gateway_retries_total{service="app"}'], 5)

    def test_circuit_breaker(self) -> None:
        """A service that fails is left alone for a while, and used again when it answers."""
        self.old.on("/it", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        fuse = middleware("fuse", "circuit-breaker", "failure_threshold = 3", "cooldown_secs = 1", "success_threshold = 1")
        self.run_with(router("it", "fuse"), fuse)
        self.assertEqual(self.statuses(6), [500, 500, 500, 503, 503, 503])
        state = [value for key, value in metrics(self.port).items() if key.startswith("gateway_circuit_state")]
        self.assertEqual(state, [2.0])
        self.assertEqual(self.old.count("/it"), 3)
        self.old.on("/it", ANSWER)
        time.sleep(1.1)
        self.assertEqual(self.statuses(2), [200, 200])

    def test_connections(self) -> None:
        """A filter of connections turns the next one away at the door."""
        self.run_with(router("it"), middleware("door", "tcp-filter", "max_connections = 1"), entrypoint='middlewares = ["door"]')
        with self.connect() as client:
            self.assertEqual(client.fetch("/it").status, 200)
            self.assertEqual(self.statuses(1), [503])
        wait_until(lambda: self.statuses(1) == [200], "the place is free again")

    def test_streaming_through_a_chain(self) -> None:
        """A stream passes a chain of middlewares piece by piece, encoded and flushed, and ends with its client."""
        go = threading.Event()
        self.addCleanup(go.set)

        def stream(accepted: Conversation) -> None:
            accepted.read_request()
            accepted.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for number in range(3):
                accepted.send(b"data: %d\n\n" % number)
                go.wait(PATIENCE)
                go.clear()

        server = RawServer(stream)
        self.addCleanup(server.stop)
        listed = '"smaller", "say"'
        text = (
            f'routers "it" {{\n  rule = "PathPrefix(`/it`)"\n  service = "events"\n  middlewares = [{listed}]\n}}\n'
            + service("events", [server.port])
            + middleware("smaller", "compress", "event_streams = true")
            + middleware("say", "headers", 'response_headers = { "X-A" = "1" }')
        )
        self.run_with(text)
        client = subprocess.Popen(
            ["curl", "-sSN", "--compressed", f"http://127.0.0.1:{self.port}/it"], stdout=subprocess.PIPE
        )
        self.addCleanup(client.wait, PATIENCE)
        self.addCleanup(client.kill)
        assert client.stdout is not None
        for number in range(3):
            self.assertEqual(os.read(client.stdout.fileno(), 100), b"data: %d\n\n" % number)
            go.set()

    test_streaming_through_a_chain.skip = missing("curl")  # type: ignore[attr-defined]


class ValidateTests(OwnGatewayCase):
    """
    Broken configuration never reaches a request.
    """

    def test_every_problem(self) -> None:
        """`validate` builds every middleware and names what is wrong with each, at its place."""
        import sys

        text = configure(
            free_port(),
            service("app", [1]),
            router("it", "a", "b", "c"),
            middleware("a", "jwt", 'public_key_file = "/nowhere.pem"'),
            middleware("b", "basic-auth", 'users = ["anna:plain"]'),
            middleware("c", "redirect-regex", 'regex = "("', 'replacement = "x"'),
        )
        path = self.log.parent / "gateway.hcl"
        path.write_text(text)
        result = run_command([sys.executable, "-m", "a3sgw.cli", "validate", "--config", path])
        self.assertEqual(result.returncode, 1)
        for part in ("middlewares.a.public_key_file cannot be read", "middlewares.b.users cannot be used", "middlewares.c.regex"):
            self.assertIn(part, result.stderr + result.stdout)
        self.assertNotIn("Traceback", result.stderr)
