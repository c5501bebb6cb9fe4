"""
Backends as they are found in the wild: addressed in many ways, dead, slow, mute, and out of their minds.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path
from unittest import skipIf

from tests.setting import GatewayCase, service, service_at
from tests.support import NginxServer, find_program, free_port, missing, run_command
from tests.wire import FullBacklog, Scene, Stage, head_fields, read_body, request


class ServerTests(GatewayCase):
    """
    Servers are addressed as their URLs say, taken in turn, and passed over when they cannot be reached.
    """

    turns: list[Stage]
    dead: list[int]

    @classmethod
    def parts(cls) -> list[str]:
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        cls._stacks[cls].callback(directory.cleanup)
        path = Path(directory.name) / "backend.sock"
        cls.turns = [cls.enter(Stage()) for _ in range(3)]
        cls.dead = [free_port(), free_port()]
        brief = 'timeouts {\n  connect = "500ms"\n}'
        blackhole = cls.enter(FullBacklog()).port
        blocks = [
            service("turns", [stage.port for stage in cls.turns]),
            service("own-host", [cls.stage.port], "pass_host_header = false"),
            service_at("below", [f"http://127.0.0.1:{cls.stage.port}/base/dir/"]),
            service_at("named", [f"http://localhost:{cls.stage.port}"], "pass_host_header = false"),
            service("one-dead", [cls.dead[0], cls.stage.port]),
            service("all-dead", cls.dead),
            service("hole", [blackhole], brief),
            service("hole-first", [blackhole, cls.stage.port], brief),
            service_at("no-socket", [f"unix:{directory.name}/missing.sock"]),
        ]
        if find_program("nginx"):
            cls.enter(NginxServer(f'listen unix:{path};\nlocation / {{ return 200 "$http_host $request_uri"; }}'))
            blocks.append(service_at("local", [f"unix:{path}"]))
            blocks.append(service_at("local-own-host", [f"unix:{path}"], "pass_host_header = false"))
        return blocks

    def test_host_passed_on(self):
        """
        The backend sees the host the client asked for, unless its service wants the host of its own URL.
        """
        client = self.connect()
        for target, host in (
            ("/plain", "test"),
            ("/own-host/x", f"127.0.0.1:{self.stage.port}"),
            ("/named/x", f"localhost:{self.stage.port}"),
        ):
            self.assertEqual(client.fetch(target).status, 200)
            fields = head_fields(self.stage.head_for(target))
            self.assertEqual([value for name, value in fields if name == "host"], [host])
            self.assertEqual(dict(fields)["x-forwarded-host"], "test")

    def test_url_with_a_path(self):
        """
        The path of a server's URL is put before the path of each request, and the query stays as it is.
        """
        client = self.connect()
        self.assertEqual(client.fetch("/below/x?q=%2F&r=../").status, 200)
        self.assertTrue(self.stage.heads[-1].startswith(b"GET /base/dir/below/x?q=%2F&r=../ HTTP/1.1\r\n"))

    @skipIf(missing("nginx"), str(missing("nginx")))
    def test_unix_socket(self):
        """
        A server may listen on a Unix domain socket.
        """
        client = self.connect()
        self.assertEqual(client.fetch("/local/x?y").body, b"test /local/x?y")
        self.assertEqual(client.fetch("/local-own-host").body, b"localhost /local-own-host")

    def test_turns(self):
        """
        Servers are asked in turn, in their configured order.
        """
        client = self.connect()
        order = []
        for number, stage in enumerate(self.turns):
            stage.on("/turns", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        for _ in range(9):
            order.append(int(client.fetch("/turns").body))
        first = order[0]
        self.assertEqual(order, [(first + step) % 3 for step in range(9)])

    def test_refused_connection_passes_to_the_next_server(self):
        """
        A server that refuses connections costs no request, not even one that must not be sent twice.
        """
        client = self.connect()
        for number in range(6):
            answer = client.fetch(f"/one-dead/{number}", method="POST", body=b"payload")
            self.assertEqual(answer.status, 200, number)
        # An upload in one piece and one that waits at the door.
        client.send(request("/one-dead/slow", "Content-Length: 10", method="POST") + b"01234")
        threading.Event().wait(0.1)
        client.send(b"56789")
        self.assertEqual(client.read_answer("POST").status, 200)

    def test_connecting_takes_too_long_passes_to_the_next_server(self):
        """
        A server to which connecting takes too long is passed over as well.
        """
        client = self.connect()
        for number in range(2):
            self.assertEqual(client.fetch(f"/hole-first/{number}", method="POST", body=b"payload").status, 200)

    def test_all_servers_dead(self):
        """
        When no server can be reached, the client is told how the last attempt failed, and keeps its connection.
        """
        client = self.connect()
        for target, status, error, reason in (
            ("/all-dead", 502, "connection_refused", "connect-refused"),
            ("/no-socket", 502, "connection_refused", "connect-refused"),
            ("/hole", 504, "connection_timeout", "connect-timeout"),
        ):
            for method in ("GET", "POST"):
                answer = client.fetch(target, method=method, body=b"x" if method == "POST" else b"")
                self.assertEqual((answer.status, answer.get("connection")), (status, None))
                self.assertEqual(answer.get("proxy-status"), f'a3s-gateway; error={error}; details="{reason}"')
                self.assertEqual(answer.get("content-type"), "application/json")
            record = self.wait_for_record(target)
            self.assertEqual((record["outcome"], record["upstream_status"]), (reason, None))
        self.assertEqual(self.wait_for_record("/all-dead")["attempts"], 2)
        for name in ("all-dead", "no-socket", "hole"):
            self.assertEqual(self.active(name), 0)


class NginxTests(GatewayCase):
    """
    nginx behind the gateway and curl before it get along as they do without it.
    """

    skip = missing("nginx", "curl")
    nginx: NginxServer

    @classmethod
    def parts(cls) -> list[str]:
        server = (
            "root /nonexistent; gzip on; gzip_proxied any; gzip_types *; gzip_min_length 1; client_max_body_size 0;\n"
            f"location /web/ {{ root {cls.log.parent}; }}\n"
            f"location /web/passed {{ proxy_pass http://127.0.0.1:{cls.stage.port}; }}\n"
            'location /web/old { return 301 "/web/file"; }\n'
        )
        (cls.log.parent / "web").mkdir()
        (cls.log.parent / "web" / "file").write_bytes(_CONTENT)
        # nginx may have given its privileges up.
        for path in (cls.log.parent, cls.log.parent / "web"):
            path.chmod(0o755)
        cls.nginx = cls.enter(NginxServer(server))
        return [service("web", [cls.nginx.port])]

    def test_whole_file(self):
        """
        A file arrives whole, by HTTP/1.1 and HTTP/1.0, compressed on the way or not, and again on the same connection.
        """
        for options in ((), ("--http1.0",), ("--compressed",), ("--http1.0", "--compressed")):
            first, second = self.log.parent / "first", self.log.parent / "second"
            url = f"http://127.0.0.1:{self.port}/web/file"
            done = run_command(["curl", "-sSf", *options, "-w", "%{http_code} ", "-o", first, url, "-o", second, url])
            self.assertEqual((done.returncode, done.stdout), (0, "200 200 "), done.stderr)
            self.assertEqual((first.read_bytes() == _CONTENT, second.read_bytes() == _CONTENT), (True, True), options)

    def test_parts_and_conditions(self):
        """
        Ranges, conditions and HEAD work as they do at nginx itself.
        """
        for options in (
            ("-r", "100-299"),
            ("-r", "-5"),
            ("-r", "99999999-"),
            ("-I",),
            ("-z", "tomorrow"),
            ("-H", "If-Match: never"),
            ("-X", "OPTIONS"),
            ("-I", "-H", "Accept-Encoding: gzip"),
        ):
            answers = []
            for port in (self.nginx.port, self.port):
                arguments = ["curl", "-s", "-o", "-", "-D", "-", *options, f"http://127.0.0.1:{port}/web/file"]
                lines = run_command(arguments).stdout.splitlines()
                answers.append([line for line in lines if not line.startswith(("Date: ", "Connection: "))])
            self.assertTrue(answers[0][0].startswith("HTTP/1.1 "))
            self.assertEqual(sorted(answers[0]), sorted(answers[1]), options)

    def test_redirect_is_the_clients(self):
        """
        A redirect reaches the client and is not followed by the gateway.
        """
        done = run_command(["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", f"http://127.0.0.1:{self.port}/web/old"])
        self.assertEqual(done.stdout, "301")

    def test_upload(self):
        """
        curl's uploads arrive whole, of known length and in chunks, with the wait for permission that curl insists on.
        """
        bodies = []

        def play(conversation: Scene, head: bytes) -> None:
            bodies.append(read_body(conversation, head)[0])
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        self.stage.on("/web/passed", play)
        source = self.log.parent / "web" / "file"
        for options in ((), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue"), ("-H", "Expect:"), ("--http1.0",)):
            url = f"http://127.0.0.1:{self.port}/web/passed"
            done = run_command(["curl", "-sSf", "--expect100-timeout", "20", *options, "-T", source, url])
            self.assertEqual((done.returncode, done.stdout), (0, "ok"), done.stderr)
            self.assertTrue(bodies.pop() == _CONTENT, options)


_CONTENT = b"".join(b"line %d of a file that is worth compressing\n" % number for number in range(60_000))


class BrokenBackendTests(GatewayCase):
    """
    A backend that misbehaves costs its own answer, and the client can tell.
    """

    app = 'timeouts {\n  response_header = "1s"\n  idle = "1s"\n}'

    def test_no_answer(self):
        """
        A backend that does not answer in time is given up, and the client is told 504.
        """
        ended = threading.Event()

        def play(conversation: Scene, head: bytes) -> bool:
            try:
                conversation.read_to_end()
            finally:
                ended.set()
            return True

        self.stage.on("/mute", play)
        client = self.connect()
        started = time.monotonic()
        answer = client.fetch("/mute")
        self.assertEqual((answer.status, answer.get("connection")), (504, None))
        self.assertEqual(answer.get("proxy-status"), 'a3s-gateway; error=http_response_timeout; details="response-timeout"')
        self.assertTrue(0.9 < time.monotonic() - started < 2.5)
        self.assertTrue(ended.wait(1.0), "the backend did not see the end")
        self.check_unharmed()

    def test_half_a_head(self):
        """
        A backend that stops within its response head is given up in the same time.
        """

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(b"HTTP/1.1 200 OK\r\nX-Half")
            conversation.read_to_end()
            return True

        self.stage.on("/half-head", play)
        self.assertEqual(self.connect().fetch("/half-head").status, 504)

    def test_time_counts_from_the_end_of_the_upload(self):
        """
        A client that uploads slowly does not use up the backend's time for its answer.
        """
        client = self.connect()
        client.send(request("/slow-upload", "Content-Length: 8", method="POST"))
        for _ in range(8):
            threading.Event().wait(0.3)
            client.send(b"x")
        self.assertEqual(client.read_answer("POST").status, 200)

    def test_slow_answer_that_moves(self):
        """
        An answer that takes longer than any of the times is not broken off as long as it moves.
        """

        def play(conversation: Scene, head: bytes) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
            for _ in range(8):
                threading.Event().wait(0.3)
                conversation.send(b"x")

        self.stage.on("/moving", play)
        self.assertEqual(self.connect().fetch("/moving").body, b"x" * 8)

    def test_stalled_answer(self):
        """
        An answer that stalls is broken off so that the client can tell: its connection is reset, never ended as if all were well.
        """
        for case, head in enumerate((b"Content-Length: 100", b"Transfer-Encoding: chunked", b"X-No: length")):
            data = b"4\r\npart\r\n" if b"chunked" in head else b"part"
            path = f"/stalling/{case}"
            self.stage.on(path, self._send_and(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (head, data), Scene.read_to_end))
            client = self.connect()
            client.ask(path)
            client.read_head()
            self.assertEqual(client.ending(), "reset")
        self.wait_for_outcomes({f"/stalling/{case}": "response-idle" for case in range(3)})
        self.check_unharmed()

    def test_answer_broken_off(self):
        """
        An answer that the backend breaks off is broken off for the client, who got what there was.
        """
        for case, (head, leave) in enumerate(
            (framing, leave)
            for framing in (b"Content-Length: 100", b"Transfer-Encoding: chunked")
            for leave in (lambda conversation: None, Scene.reset)
        ):
            data = b"4\r\npart\r\n" if b"chunked" in head else b"part"
            path = f"/breaking/{case}"
            self.stage.on(path, self._send_and(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (head, data), self._after_a_moment(leave)))
            client = self.connect()
            client.ask(path)
            client.read_head()
            self.assertEqual(client.ending(), "reset")
        self.wait_for_outcomes({f"/breaking/{case}": "response-incomplete" for case in range(4)})
        self.assertEqual(self.wait_for_record("/breaking/0")["status"], 200)
        self.check_unharmed()

    @skipIf(missing("curl"), str(missing("curl")))
    def test_curl_notices(self):
        """
        curl reports broken answers as such.
        """
        for case, head in enumerate((b"Content-Length: 100", b"Transfer-Encoding: chunked")):
            data = b"4\r\npart\r\n" if b"chunked" in head else b"part"
            for kind, leave in (("breaks", lambda conversation: None), ("stalls", Scene.read_to_end)):
                path = f"/curl/{kind}/{case}"
                self.stage.on(path, self._send_and(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (head, data), leave))
                done = run_command(["curl", "-sS", "-o", os.devnull, f"http://127.0.0.1:{self.port}{path}"])
                # 18 is "partial file", 56 "failure in receiving".
                self.assertIn(done.returncode, (18, 56), (path, done.stderr))

    def test_http10_client_notices(self):
        """
        A client of HTTP/1.0, for whom the end of the connection would be the end of the answer, sees a reset instead.
        """
        self.stage.on(
            "/old-break",
            self._send_and(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", self._after_a_moment(lambda _: None)),
        )
        client = self.connect()
        client.send(b"GET /old-break HTTP/1.0\r\n\r\n")
        client.read_head()
        self.assertEqual(client.ending(), "reset")

    def test_malformed_answers(self):
        """
        An answer that is not HTTP, or that could be read two ways, becomes 502; nothing of it reaches the client.
        """
        client = self.connect()
        for case, response in enumerate(
            (
                b"garbage\r\n\r\n",
                b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
                b"HTTP/2 200\r\n\r\n",
                b"HTTP/1.1 20 OK\r\n\r\n",
                b"HTTP/1.1 999 OK\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
                b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
                b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nX-A: 1\nX-B: 2\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nX-A: \x00\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            )
        ):
            path = f"/malformed/{case}"
            self.stage.on(path, self._send_and(response, Scene.read_to_end))
            client.ask(path)
            answer = client.read_answer()
            self.assertEqual((answer.status, answer.get("x-a")), (502, None), response)
            self.assertEqual(answer.get("proxy-status"), 'a3s-gateway; error=http_protocol_error; details="response-malformed"', response)
        self.wait_for_outcomes({f"/malformed/{number}": "response-malformed" for number in range(case + 1)})
        self.check_unharmed()

    def test_answer_that_never_was(self):
        """
        A backend that closes without a word, or within its head, becomes 502 with the reason.
        """
        client = self.connect()
        reasons = {}
        for case, (response, leave, reason) in enumerate(
            (
                (b"", lambda conversation: None, "backend-closed"),
                (b"", Scene.reset, "backend-closed"),
                (b"HTTP/1.1 200 OK\r\nX-Ha", lambda conversation: None, "response-malformed"),
            )
        ):
            path = f"/never/{case}"
            self.stage.on(path, self._send_and(response, self._after_a_moment(leave)))
            self.assertEqual(client.fetch(path).status, 502)
            reasons[path] = reason
        self.wait_for_outcomes(reasons)

    def test_oversized_head(self):
        """
        A response head without bound is given up, whether it is one line or many.
        """
        client = self.connect()
        for case, filler in enumerate((b"X-Long: " + b"x" * 70_000 + b"\r\n", b"X-Many: 1\r\n" * 300, b"X-Endless: " + b"x" * 200_000)):
            path = f"/oversized/{case}"
            self.stage.on(path, self._send_and(b"HTTP/1.1 200 OK\r\n%b\r\n" % filler, Scene.read_to_end))
            answer = client.fetch(path)
            self.assertEqual(answer.status, 502)
            self.assertEqual(
                answer.get("proxy-status"), 'a3s-gateway; error=http_response_header_section_size; details="response-headers-too-large"'
            )
        self.check_unharmed()

    def test_upgrade_unasked(self):
        """
        A backend that changes the protocol without being asked becomes 502.
        """
        self.stage.on(
            "/upgrade", self._send_and(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Scene.read_to_end)
        )
        answer = self.connect().fetch("/upgrade")
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer.get("proxy-status"), 'a3s-gateway; error=http_upgrade_failed; details="response-upgrade-refused"')

    def test_malformed_within_the_body(self):
        """
        Chunks that break the rules after the answer has begun break it off.
        """
        path = "/bad-chunk"
        first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"

        def spoil(conversation: Scene) -> None:
            threading.Event().wait(0.1)
            conversation.send(b"zz\r\n")
            conversation.read_to_end()

        self.stage.on(path, self._send_and(first, spoil))
        client = self.connect()
        client.ask(path)
        client.read_head()
        self.assertEqual(client.ending(), "reset")
        self.assertEqual(self.wait_for_record(path)["outcome"], "response-malformed")

    @staticmethod
    def _send_and(response: bytes, then):
        """
        Return a play that sends a response, does something with the conversation, and closes.
        """

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(response)
            with contextlib.suppress(ConnectionError):
                then(conversation)
            return True

        return play

    @staticmethod
    def _after_a_moment(then):
        def wait(conversation: Scene) -> None:
            threading.Event().wait(0.1)
            then(conversation)

        return wait
