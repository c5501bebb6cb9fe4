"""
HTTP/2 with other people's clients: curl, and h2load of the nghttp2 project.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import tempfile
import threading
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from a3sgw.proxy.test.certificates import Authority
from tests.setting import GatewayCase, OwnGatewayCase, configure, peak_memory, read_records, service
from tests.support import NginxServer, free_port, missing, run_command, wait_until
from tests.wire import Scene, read_body

AUTHORITY = Authority()
LOCALHOST = AUTHORITY.issue("localhost", "127.0.0.1")


def write_identity(folder: Path) -> str:
    """
    Write certificate and key; return the block for the entrypoint.
    """
    (folder / "ca.pem").write_bytes(AUTHORITY.certificate.public_bytes(Encoding.PEM))
    (folder / "cert.pem").write_bytes(LOCALHOST.certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(LOCALHOST.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return f'tls {{\n  cert_file = "{folder}/cert.pem"\n  key_file = "{folder}/key.pem"\n}}'


class CurlTests(GatewayCase):
    """
    One request after the other, on plain text and under TLS.
    """

    skip = missing("curl", "nginx")
    folder: Path
    tls_port: int
    nginx: NginxServer

    @classmethod
    def parts(cls) -> list[str]:
        """
        An entrypoint with TLS, and nginx with a large file.
        """
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        cls._stacks[cls].callback(folder.cleanup)
        cls.folder = Path(folder.name)
        os.chmod(folder.name, 0o755)
        (cls.folder / "files").mkdir()
        (cls.folder / "files" / "large").write_bytes(os.urandom(1 << 20) * 40)
        cls.tls_port = free_port()
        cls.nginx = cls.enter(NginxServer(f"location / {{ root {cls.folder}; }}"))
        secured = f'entrypoints "secured" {{\n  address = "127.0.0.1:{cls.tls_port}"\n  {write_identity(cls.folder)}\n}}\n'
        return [secured, service("files", [cls.nginx.port])]

    def curl(self, *arguments: str, path: str = "/", secure: bool = False, output: str = "-") -> tuple[str, str]:
        """
        Return the version that was spoken, and what came.
        """
        address = f"https://localhost:{self.tls_port}" if secure else f"http://127.0.0.1:{self.port}"
        command = ["curl", "-sS", "--path-as-is", "--cacert", str(self.folder / "ca.pem"), "-o", output, "-w", "\n%{http_version}"]
        done = run_command([*command, *arguments, address + path])
        self.assertEqual(done.returncode, 0, done.stderr)
        body, _, version = done.stdout.rpartition("\n")
        return version, body

    def test_versions(self) -> None:
        """A client that knows gets HTTP/2 on plain text, everybody who can under TLS, and others get HTTP/1.1."""
        for arguments, secure, version in (
            (["--http2-prior-knowledge"], False, "2"),
            (["--http2"], False, "1.1"),
            ([], False, "1.1"),
            (["--http2"], True, "2"),
            (["--http1.1"], True, "1.1"),
            (["--no-alpn"], True, "1.1"),
        ):
            self.stage.on("/", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            self.assertEqual(self.curl(*arguments, secure=secure), (version, "hello"), arguments)

    def test_upload(self) -> None:
        """A large body arrives whole, whether its length is declared or not."""
        data = os.urandom(1 << 20) * 8
        file = self.folder / "upload"
        file.write_bytes(data)

        def play(conversation: Scene, head: bytes) -> None:
            body, _ = read_body(conversation, head)
            digest = hashlib.sha256(body).hexdigest().encode()
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(digest), digest))

        self.stage.on("/upload", play)
        for arguments in (["-T", str(file)], ["-T", str(file), "-H", "Content-Length:"]):
            version, answer = self.curl("--http2-prior-knowledge", *arguments, path="/upload")
            self.assertEqual((version, answer), ("2", hashlib.sha256(data).hexdigest()))

    def test_download(self) -> None:
        """A large answer arrives whole, on plain text and under TLS."""
        expected = hashlib.sha256((self.folder / "files" / "large").read_bytes()).hexdigest()
        for secure in (False, True):
            output = self.folder / "download"
            how = "--http2" if secure else "--http2-prior-knowledge"
            version, _ = self.curl(how, path="/files/large", secure=secure, output=str(output))
            self.assertEqual((version, hashlib.sha256(output.read_bytes()).hexdigest()), ("2", expected))

    def test_slow_client(self) -> None:
        """A client that takes its time holds the backend, and not the answer in memory."""
        before = peak_memory(self.gateway.pid)
        self.curl("--http2-prior-knowledge", "--limit-rate", "12M", path="/files/large", output=os.devnull)
        self.assertLess(peak_memory(self.gateway.pid) - before, 10)

    def test_several_at_a_time(self) -> None:
        """The answers to many requests at a time are not mixed up."""
        count = 40
        for number in range(count):
            self.stage.on(f"/n{number}", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%03d" % number)
        urls = [word for number in range(count) for word in ("-o", "-", f"https://localhost:{self.tls_port}/n{number}")]
        done = run_command(["curl", "-sS", "-Z", "--http2", "--cacert", self.folder / "ca.pem", *urls])
        self.assertEqual(sorted(re.findall("...", done.stdout)), [f"{number:03}" for number in range(count)])

    def test_log(self) -> None:
        """The access log says which version it was."""
        self.curl("--http2-prior-knowledge", path="/logged")
        record = self.wait_for_record("/logged")
        self.assertEqual((record["protocol"], record["status"], record["outcome"]), ("HTTP/2.0", 200, "completed"))

    def test_refused(self) -> None:
        """What is refused is refused in HTTP/2 too, with the reason."""
        _, answer = self.curl("--http2-prior-knowledge", path="/%2f/x")
        self.assertIn('"reason": "path-refused"', answer)


class LoadTests(GatewayCase):
    """
    Many requests at a time.
    """

    skip = missing("h2load", "nginx")
    tls_port: int
    nginx: NginxServer

    @classmethod
    def parts(cls) -> list[str]:
        """
        An entrypoint with TLS, and nginx.
        """
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        cls._stacks[cls].callback(folder.cleanup)
        cls.tls_port = free_port()
        cls.nginx = cls.enter(NginxServer('location / { return 200 "nginx"; }'))
        tls = write_identity(Path(folder.name))
        secured = f'entrypoints "secured" {{\n  address = "127.0.0.1:{cls.tls_port}"\n  {tls}\n}}\n'
        return [secured, service("nginx", [cls.nginx.port], "  connection_pool {\n    max_connections = 32\n  }")]

    def test_load(self) -> None:
        """Thousands of requests on a few connections are all answered, on plain text and under TLS."""
        for address in (f"http://127.0.0.1:{self.port}", f"https://localhost:{self.tls_port}"):
            done = run_command(["h2load", "-n", "3000", "-c", "4", "-m", "25", f"{address}/nginx"])
            self.assertIn("3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout", done.stdout)
            self.assertIn("3000 2xx", done.stdout)

    def test_posts(self) -> None:
        """So are thousands of uploads."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(20_000))
            file.flush()
            done = run_command(["h2load", "-n", "500", "-c", "2", "-m", "10", "-d", file.name, f"http://127.0.0.1:{self.port}/"])
        self.assertIn("500 succeeded, 0 failed", done.stdout)

    def test_small_windows(self) -> None:
        """So are they with the smallest windows."""
        done = run_command(["h2load", "-n", "500", "-c", "2", "-m", "10", "-w", "1", "-W", "1", f"http://127.0.0.1:{self.port}/nginx"])
        self.assertIn("500 succeeded, 0 failed", done.stdout)


class ChangeTests(OwnGatewayCase):
    """
    Reloads under load.
    """

    skip = missing("h2load", "nginx")

    def test_reload(self) -> None:
        """Not one of thousands of requests is lost while the gateway takes configuration after configuration."""
        with NginxServer('location / { return 200 "nginx"; }') as nginx:
            # Another route table each time, and another pool.
            texts = [
                configure(self.port, service("app", [nginx.port], f"  connection_pool {{\n    max_idle_connections = {number}\n  }}"))
                for number in (20, 40)
            ]
            gateway = self.start(texts[0])
            counted: list[str] = []

            def load() -> None:
                counted.append(run_command(["h2load", "-n", "20000", "-c", "4", "-m", "20", f"http://127.0.0.1:{self.port}/"]).stdout)

            loading = threading.Thread(target=load)
            loading.start()
            for number in range(6):
                gateway.reload(texts[(number + 1) % 2])
            loading.join(60)
            self.assertIn("20000 succeeded, 0 failed, 0 errored, 0 timeout", counted[0])
            self.stop(gateway)


class EndTests(OwnGatewayCase):
    """
    The end of a gateway.
    """

    skip = missing("curl")

    def test_drain(self) -> None:
        """A request that is under way when the gateway is told to stop is answered."""
        gateway = self.start(self.config(self.old))
        go = self.hold(self.old, "/held", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        answers: list[str] = []

        def ask() -> None:
            done = run_command(["curl", "-sS", "--http2-prior-knowledge", f"http://127.0.0.1:{self.port}/held"])
            answers.append(done.stdout + done.stderr)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: self.old.count("/held"), "the request has arrived")
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: "drain" in gateway.stderr() or "stopping" in gateway.stderr(), "the gateway drains")
        go.set()
        asking.join(20)
        self.assertEqual(answers, ["late"])
        self.assertEqual(gateway.wait(), 0)
        self.assertEqual([record["protocol"] for record in read_records(self.log)], ["HTTP/2.0"])

    def test_switched_off(self) -> None:
        """Where HTTP/2 is switched off, nobody gets it."""
        gateway = self.start(configure(self.port, service("app", [self.old.port]), entrypoint="http2 {\n  enabled = false\n}"))
        done = run_command(["curl", "-sS", "--http2", "-w", "\n%{http_version}", f"http://127.0.0.1:{self.port}/"])
        self.assertEqual(done.stdout, "old\n1.1")
        self.stop(gateway)
