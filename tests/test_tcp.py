"""
Connections that are passed on as they are: with real Redis, nginx, HAProxy and OpenSSL at their ends.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.resp import Reply, ReplyReader, encode_command
from tests.setting import peak_memory
from tests.support import (
    PATIENCE,
    Conversation,
    GatewayProcess,
    NginxServer,
    Process,
    RawServer,
    accepts,
    find_program,
    free_port,
    missing,
    run_command,
    wait_until,
)
from tests.test_rate_limit_redis import RedisServer


def entrypoint(name: str, port: int, *urls: str, rule: str = "HostSNI(`*`)", more: str = "", service: str = "", balancing: str = "") -> str:
    """
    Return a tcp entrypoint with a router and a service of the same name.
    """
    servers = ", ".join(f'{{ url = "{url}" }}' for url in urls)
    return f"""
entrypoints "{name}" {{
  address  = "127.0.0.1:{port}"
  protocol = "tcp"
  {more}
}}
routers "{name}" {{
  rule        = "{rule}"
  service     = "{name}"
  entrypoints = ["{name}"]
}}
services "{name}" {{
  load_balancer {{
    servers = [{servers}]
    {balancing}
  }}
  {service}
}}
"""


def at(port: int) -> str:
    """
    Return the URL of a tcp server on a loopback port.
    """
    return f"tcp://127.0.0.1:{port}"


class Redis:
    """
    A client that speaks Redis, with as many commands ahead as one likes.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None = None, name: str | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname=name)
        self._reader = ReplyReader(1 << 24)
        self._replies: list[Reply] = []

    def send(self, *commands: tuple[bytes, ...]) -> None:
        """
        Send commands without waiting for their replies.
        """
        self._socket.sendall(b"".join(encode_command(*command) for command in commands))

    def replies(self, count: int) -> list[Reply]:
        """
        Return the next replies.
        """
        while len(self._replies) < count:
            data = self._socket.recv(1 << 16)
            assert data, "Redis has closed"
            self._replies += self._reader.feed(data)
        taken, self._replies = self._replies[:count], self._replies[count:]
        return taken

    def ask(self, *command: bytes) -> Reply:
        """
        Send a command and return its reply.
        """
        self.send(command)
        return self.replies(1)[0]

    def close(self) -> None:
        """
        Leave.
        """
        self._socket.close()


class TcpCase(SynchronousTestCase):
    def start(self, text: str) -> GatewayProcess:
        """
        Start a gateway that must not meet a bug.
        """
        log = Path(self.directory()) / "log"
        self.log = log
        gateway = GatewayProcess(text + f'\nobservability {{\n  access_log {{\n    file = "{log}"\n  }}\n}}\n')
        self.addCleanup(gateway.kill)
        self.addCleanup(lambda: self.assertNotIn("Traceback", gateway.stderr()))
        return gateway

    def directory(self) -> str:
        """
        Return a directory for this test.
        """
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(directory.cleanup)
        return directory.name

    def connect(self, port: int) -> socket.socket:
        """
        Return a connected socket, closed at the end.
        """
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.addCleanup(sock.close)
        return sock

    def server(self, play: Any) -> RawServer:
        """
        Return a server that plays a part, stopped at the end.
        """
        server = RawServer(play)
        self.addCleanup(server.stop)
        return server

    def records(self, count: int) -> list[dict[str, Any]]:
        """
        Return the lines of the log when there are so many.
        """

        def lines() -> list[str]:
            return self.log.read_text("utf-8").splitlines() if self.log.exists() else []

        wait_until(lambda: len(lines()) >= count, lambda: f"{count} lines are written: {lines()}")
        return [json.loads(line) for line in lines()]


class RedisTests(TcpCase):
    """
    Redis through the gateway.
    """

    skip = missing("redis-server")

    def test_redis(self) -> None:
        """Commands, thousands of them ahead, large values and subscriptions work as without a gateway; each connection leaves a line."""
        server = RedisServer()
        self.addCleanup(server.stop)
        port = free_port()
        self.start(entrypoint("redis", port, at(server.port), balancing='health_check {\n interval = "1s"\n }'))
        redis = Redis(port)
        self.addCleanup(redis.close)
        self.assertEqual(redis.ask(b"PING"), b"PONG")
        value = hashlib.sha512(b"x").digest() * 16384
        self.assertEqual(redis.ask(b"SET", b"large", value), b"OK")
        self.assertEqual(redis.ask(b"GET", b"large"), value)
        redis.send(*[(b"INCR", b"count")] * 5000)
        self.assertEqual(redis.replies(5000), list(range(1, 5001)))
        listener = Redis(port)
        self.assertEqual(listener.ask(b"SUBSCRIBE", b"news"), [b"subscribe", b"news", 1])
        self.assertEqual(redis.ask(b"PUBLISH", b"news", b"hello"), 1)
        self.assertEqual(listener.replies(1), [[b"message", b"news", b"hello"]])
        listener.close()
        redis.close()
        first, second = self.records(2)
        self.assertEqual((first["protocol"], first["router"], first["backend"]), ("TCP", "redis", at(server.port)))
        self.assertGreater(second["response_bytes"], len(value))
        self.assertEqual({first["outcome"], second["outcome"]}, {"completed"})

    def test_unix(self) -> None:
        """A server may listen on a Unix domain socket."""
        server = RedisServer("--port", "0", "--unixsocket", "redis.sock")
        self.addCleanup(server.stop)
        port = free_port()
        check = 'health_check {\n protocol = "tcp"\n interval = "200ms"\n }'
        self.start(entrypoint("redis", port, f"unix:{server.path}/redis.sock", balancing=check))
        redis = Redis(port)
        self.addCleanup(redis.close)
        self.assertEqual(redis.ask(b"PING"), b"PONG")

    def test_killed(self) -> None:
        """When a server is killed its clients notice, and the next ones come to another."""
        one, two = RedisServer(), RedisServer()
        for server in (one, two):
            self.addCleanup(server.stop)
        port = free_port()
        self.start(entrypoint("redis", port, at(one.port), at(two.port), balancing='health_check {\n interval = "200ms"\n }'))
        clients = [Redis(port), Redis(port)]
        for number, client in enumerate(clients):
            self.addCleanup(client.close)
            client.ask(b"SET", b"who", b"%d" % number)
        one.kill()
        self.assertRaises((AssertionError, OSError), clients[0].ask, b"PING")
        self.assertEqual(clients[1].ask(b"GET", b"who"), b"1")
        for _ in range(4):
            client = Redis(port)
            self.assertEqual(client.ask(b"GET", b"who"), b"1")
            client.close()


class EndsTests(TcpCase):
    """
    Who speaks first, and who stops.
    """

    def test_server_speaks_first(self) -> None:
        """A greeting comes without the client saying anything."""

        def greet(conversation: Conversation) -> None:
            conversation.send(b"220 mail.test ESMTP\r\n")
            said = conversation.read_until(b"\r\n")
            conversation.send(b"250 hello " + said)

        port = free_port()
        self.start(entrypoint("mail", port, at(self.server(greet).port)))
        client = self.connect(port)
        self.assertEqual(client.recv(100), b"220 mail.test ESMTP\r\n")
        client.sendall(b"EHLO me\r\n")
        self.assertEqual(client.recv(100), b"250 hello EHLO me\r\n")

    def test_silence_beside_names(self) -> None:
        """Where other routers go by name, a client that waits for a greeting gets it after `tcp_hello_timeout`."""
        port = free_port()
        greeter = self.server(lambda conversation: conversation.send(b"hello\n"))
        text = entrypoint("mail", port, at(greeter.port), more='tcp_hello_timeout = "500ms"')
        named = 'routers "named" {\n rule = "HostSNI(`a.test`)"\n service = "mail"\n entrypoints = ["mail"]\n}\n'
        self.start(text + named)
        began = time.monotonic()
        self.assertEqual(self.connect(port).recv(100), b"hello\n")
        self.assertGreater(time.monotonic() - began, 0.4)

    def test_half_close(self) -> None:
        """A client that has said everything and ends its sending gets the whole answer, however long it takes."""

        def count(conversation: Conversation) -> None:
            data = conversation.read_to_end()
            time.sleep(0.3)
            conversation.send(hashlib.sha256(data).hexdigest().encode() * 10_000)

        port = free_port()
        self.start(entrypoint("sums", port, at(self.server(count).port)))
        client = self.connect(port)
        data = bytes(range(256)) * 20_000
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            self.assertEqual(stream.read(), hashlib.sha256(data).hexdigest().encode() * 10_000)
        (record,) = self.records(1)
        self.assertEqual((record["request_bytes"], record["response_bytes"], record["outcome"]), (len(data), 640_000, "completed"))

    def test_slow_reader(self) -> None:
        """A client that does not read holds the server back, and the gateway keeps little of it; nothing is lost."""
        piece = bytes(range(256)) * 4096
        pieces = 64

        def pour(conversation: Conversation) -> None:
            for _ in range(pieces):
                conversation.send(piece)

        port = free_port()
        gateway = self.start(entrypoint("flood", port, at(self.server(pour).port)))
        client = self.connect(port)
        before = peak_memory(gateway.pid)
        time.sleep(1.0)
        total, digest = 0, hashlib.sha256()
        while data := client.recv(1 << 16):
            total += len(data)
            digest.update(data)
        self.assertEqual(total, pieces * len(piece))
        self.assertEqual(digest.digest(), hashlib.sha256(piece * pieces).digest())
        self.assertLess(peak_memory(gateway.pid) - before, 8 << 20)

    def test_next_server(self) -> None:
        """A server that is not there costs nobody a connection, and when none is, the service that steps in serves."""
        port, spare = free_port(), free_port()
        server = self.server(lambda conversation: conversation.send(b"here"))
        text = entrypoint("db", port, at(free_port()), at(server.port))
        text += entrypoint("sick", spare, at(free_port()), service='failover {\n service = "db"\n }')
        self.start(text)
        for each in (port, port, spare, spare):
            self.assertEqual(self.connect(each).recv(10), b"here")

    def test_stop(self) -> None:
        """A stop lets open connections end, accepts no new one, and breaks off what is left when its time is over."""

        def echo(conversation: Conversation) -> None:
            conversation.send(b"hi\n")
            conversation.send(conversation.read_until(b"\n"))

        server = self.server(echo)
        port = free_port()
        gateway = self.start(entrypoint("echo", port, at(server.port)) + "shutdown_timeout_secs = 2\n")
        ends, stays = self.connect(port), self.connect(port)
        for client in (ends, stays):
            self.assertEqual(client.recv(100), b"hi\n")
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(port), "the door is closed")
        ends.sendall(b"still here\n")
        self.assertEqual(ends.recv(100), b"still here\n")
        ends.close()
        gateway.wait()
        with self.assertRaises(ConnectionResetError):
            stays.recv(1)
        outcomes = {record["outcome"] for record in self.records(2)}
        self.assertIn("shutting-down", outcomes)


def write_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """
    Write a certificate that vouches for itself, and its key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


class PassthroughTests(TcpCase):
    """
    TLS that is for the servers.
    """

    skip = missing("nginx")

    def test_names(self) -> None:
        """Each name leads to the server that has its certificate, whose TLS nobody has opened; others lead nowhere."""
        folder = Path(self.directory())
        port = free_port()
        text = f'entrypoints "tls" {{\n address = "127.0.0.1:{port}"\n protocol = "tcp"\n}}\n'
        files = {}
        for name in ("a.test", "b.test"):
            files[name], key = write_certificate(folder, name)
            inner = free_port()
            nginx = NginxServer(
                f"listen 127.0.0.1:{inner} ssl;\nssl_certificate {files[name]};\nssl_certificate_key {key};\n"
                f'location / {{ return 200 "I am {name}"; }}'
            )
            self.addCleanup(nginx.stop)
            short = name[0]
            text += f'routers "{short}" {{\n rule = "HostSNI(`{name}`)"\n service = "{short}"\n}}\n'
            text += f'services "{short}" {{\n load_balancer {{\n servers = [{{ url = "{at(inner)}" }}]\n }}\n}}\n'
        self.start(text)
        for name, certificate in files.items():
            context = ssl.create_default_context(cafile=str(certificate))
            with context.wrap_socket(self.connect(port), server_hostname=name) as secured:
                secured.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                said = b""
                while data := secured.recv(4096):
                    said += data
            self.assertTrue(said.endswith(f"I am {name}".encode()), said)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.assertRaises(OSError, context.wrap_socket, self.connect(port), server_hostname="c.test")
        self.assertEqual([record["outcome"] for record in self.records(3)], ["completed", "completed", "no-route"])
        self.assertEqual([record["host"] for record in self.records(3)], ["a.test", "b.test", "c.test"])


class TerminationTests(TcpCase):
    """
    TLS that ends here.
    """

    skip = missing("redis-server", "nginx")

    def test_redis(self) -> None:
        """Clients speak TLS to a Redis that has none, by name; a router that passes TLS through has it untouched, on the same port."""
        folder = Path(self.directory())
        redis_files, web_files = write_certificate(folder, "redis.test"), write_certificate(folder, "web.test")
        server = RedisServer()
        self.addCleanup(server.stop)
        inner, port = free_port(), free_port()
        nginx = NginxServer(
            f"listen 127.0.0.1:{inner} ssl;\nssl_certificate {web_files[0]};\nssl_certificate_key {web_files[1]};\n"
            'location / { return 200 "nginx itself"; }'
        )
        self.addCleanup(nginx.stop)
        tls = f'tls {{\n cert_file = "{redis_files[0]}"\n key_file = "{redis_files[1]}"\n }}'
        text = entrypoint("redis", port, at(server.port), rule="HostSNI(`redis.test`)", more=tls)
        through = 'entrypoints = ["redis"]\n tls {\n passthrough = true\n }'
        text += f'routers "web" {{\n rule = "HostSNI(`web.test`)"\n service = "web"\n {through}\n}}\n'
        text += f'services "web" {{\n load_balancer {{\n servers = [{{ url = "{at(inner)}" }}]\n }}\n}}\n'
        self.start(text)
        trusting = ssl.create_default_context(cafile=str(redis_files[0]))
        redis = Redis(port, trusting, "redis.test")
        value = hashlib.sha512(b"y").digest() * 50_000
        self.assertEqual((redis.ask(b"SET", b"k", value), redis.ask(b"GET", b"k")), (b"OK", value))
        redis.send(*[(b"INCR", b"n")] * 1000)
        self.assertEqual(redis.replies(1000), list(range(1, 1001)))
        redis.close()
        with ssl.create_default_context(cafile=str(web_files[0])).wrap_socket(self.connect(port), server_hostname="web.test") as secured:
            secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
            said = b""
            while data := secured.recv(4096):
                said += data
        self.assertTrue(said.endswith(b"nginx itself"), said)
        first, second = self.records(2)
        self.assertEqual((first["router"], first["host"], first["scheme"]), ("redis", "redis.test", "tls"))
        self.assertEqual((second["router"], second["host"], second["scheme"]), ("web", "web.test", "tcp"))
        # Who speaks no TLS, or names nobody whom a router knows, is not served.
        plain = self.connect(port)
        plain.sendall(b"PING\r\n")
        with contextlib.suppress(ConnectionResetError):
            self.assertNotIn(b"PONG", plain.recv(100))
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with self.assertRaises((OSError, AssertionError)):
            Redis(port, trusting, "other.test").ask(b"PING")


class UpstreamTlsTests(TcpCase):
    """
    TLS towards servers.
    """

    skip = missing("redis-server")

    def test_redis(self) -> None:
        """A client without TLS speaks to a Redis that has nothing else; one with another certificate is not believed."""
        folder = Path(self.directory())
        certificate, key = write_certificate(folder, "redis.test")
        other, _ = write_certificate(folder, "other.test")
        inner, port, wrong = free_port(), free_port(), free_port()
        options = ("--port", "0", "--tls-port", str(inner), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
        server = subprocess.Popen(
            [str(find_program("redis-server")), *options, "--tls-auth-clients", "no", "--save", "", "--dir", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(server.wait, PATIENCE)
        self.addCleanup(server.terminate)
        wait_until(lambda: accepts(inner), "Redis listens")
        tls = 'upstream_tls {{\n ca_file = "{}"\n server_name = "redis.test"\n }}'
        text = entrypoint("redis", port, at(inner), service=tls.format(certificate))
        self.start(text + entrypoint("wrong", wrong, at(inner), service=tls.format(other)))
        redis = Redis(port)
        self.addCleanup(redis.close)
        value = b"x" * 3_000_000
        self.assertEqual((redis.ask(b"SET", b"k", value), redis.ask(b"GET", b"k")), (b"OK", value))
        self.assertRaises((AssertionError, OSError), Redis(wrong).ask, b"PING")


def _postgres_programs() -> Path | None:
    """
    Return the folder with PostgreSQL's own programs, which Debian keeps off the path.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _missing_postgres() -> str | None:
    if find_program("psql") is None or _postgres_programs() is None:
        return "peer missing: psql and initdb (Debian package postgresql)"
    if os.getuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


class PostgresServer:
    """
    A PostgreSQL of our own, which speaks TLS with the certificate of `name`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        programs = _postgres_programs()
        assert programs is not None
        self.port = free_port()
        self._user = "postgres" if os.getuid() == 0 else None
        files = write_certificate(folder, name)
        data = folder / "data"
        for path in (folder, *files):
            os.chmod(path, 0o700 if path.is_dir() else 0o600)
            if self._user is not None:
                shutil.chown(path, self._user)
        self._run(programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off", "ssl=on"]
        settings += [f"ssl_cert_file={files[0]}", f"ssl_key_file={files[1]}"]
        argv = [str(programs / "postgres"), "-D", str(data), *(word for each in settings for word in ("-c", each))]
        nowhere = subprocess.DEVNULL
        self._child = subprocess.Popen(argv, user=self._user, cwd=folder, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        try:
            wait_until(lambda: accepts(self.port), "PostgreSQL listens")
        except BaseException:
            self.stop()
            raise

    def _run(self, *argv: object) -> None:
        subprocess.run([str(word) for word in argv], user=self._user, cwd="/", check=True, capture_output=True, timeout=60)

    def stop(self) -> None:
        """
        End it.
        """
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(PATIENCE)


class PostgresTests(TcpCase):
    """
    PostgreSQL through the gateway.
    """

    skip = _missing_postgres()

    def test_postgres(self) -> None:
        """`psql` asks for TLS as PostgreSQL's clients do, and comes to the server that it names, whose certificate it verifies."""
        folder = Path(self.directory())
        server = PostgresServer(folder, "orders.test")
        self.addCleanup(server.stop)
        port = free_port()
        self.start(entrypoint("orders", port, at(server.port), rule="HostSNI(`orders.test`)"))
        said = self.ask(f"host=orders.test hostaddr=127.0.0.1 port={port} sslmode=verify-full sslrootcert={folder}/orders.test.pem")
        self.assertEqual(said.strip(), "t|5050")
        (record,) = self.records(1)
        self.assertEqual((record["host"], record["router"]), ("orders.test", "orders"))
        # Neither reads the other's farewell within TLS: the kernel of whoever is gone first when one comes resets its connection.
        self.assertIn(record["outcome"], ("completed", "backend-closed", "client-closed"))

    def test_terminated(self) -> None:
        """The gateway's own certificate is shown to clients that ask for TLS as PostgreSQL's do, and the server gets none of it."""
        server = PostgresServer(Path(self.directory()), "inner.test")
        self.addCleanup(server.stop)
        folder = Path(self.directory())
        certificate, key = write_certificate(folder, "outer.test")
        port = free_port()
        tls = f'tls {{\n cert_file = "{certificate}"\n key_file = "{key}"\n }}'
        self.start(entrypoint("orders", port, at(server.port), rule="HostSNI(`outer.test`)", more=tls))
        said = self.ask(f"host=outer.test hostaddr=127.0.0.1 port={port} sslmode=verify-full sslrootcert={certificate}")
        self.assertEqual(said.strip(), "f|5050")
        (record,) = self.records(1)
        self.assertEqual((record["host"], record["scheme"]), ("outer.test", "tls"))
        # The client does not wait for the gateway's farewell either.
        self.assertIn(record["outcome"], ("completed", "client-closed"))

    def test_plain(self) -> None:
        """Without TLS it works where no rule asks for a name."""
        server = PostgresServer(Path(self.directory()), "orders.test")
        self.addCleanup(server.stop)
        port = free_port()
        self.start(entrypoint("orders", port, at(server.port)))
        self.assertEqual(self.ask(f"host=127.0.0.1 port={port} sslmode=disable").strip(), "f|5050")
        self.assertEqual(self.ask(f"host=127.0.0.1 port={port} sslmode=require").strip(), "t|5050")

    def ask(self, where: str) -> str:
        """
        Return what a query gives that asks whether there is TLS.
        """
        query = "SELECT ssl, (SELECT sum(n) FROM generate_series(1, 100) AS n) FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        program = find_program("psql")
        assert program is not None
        done = run_command([program, "-X", "-A", "-t", "-c", query, f"{where} user=tester dbname=postgres"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout


class ProxyProtocolTests(TcpCase):
    """
    The PROXY protocol with others' programs.
    """

    skip = missing("nginx", "haproxy")

    def test_to_nginx(self) -> None:
        """nginx understands what it is told about the client, in both versions."""
        inner = free_port()
        nginx = NginxServer(
            f'listen 127.0.0.1:{inner} proxy_protocol;\nlocation / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port '
            '$proxy_protocol_server_port"; }'
        )
        self.addCleanup(nginx.stop)
        ports = {"v1": free_port(), "v2": free_port()}
        told = {version: f'proxy_protocol = "{version}"' for version in ports}
        self.start("".join(entrypoint(version, port, at(inner), service=told[version]) for version, port in ports.items()))
        for port in ports.values():
            client = self.connect(port)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as stream:
                body = stream.read().rpartition(b"\r\n")[2]
            self.assertEqual(body.decode(), f"127.0.0.1 {client.getsockname()[1]} {port}")

    def test_from_haproxy(self) -> None:
        """HAProxy in front tells whom it speaks for, in both versions, to http and to tcp entrypoints; others cannot."""
        inner = free_port()
        nginx = NginxServer(f'listen 127.0.0.1:{inner} proxy_protocol;\nlocation / {{ return 200 "$proxy_protocol_port"; }}')
        self.addCleanup(nginx.stop)
        echo = NginxServer('location / { return 200 "$http_x_forwarded_for"; }')
        self.addCleanup(echo.stop)
        tcp, web = free_port(), free_port()
        trust = 'proxy_protocol {\n trusted_ips = ["127.0.0.1"]\n timeout = "1s"\n }'
        text = entrypoint("tcp", tcp, at(inner), more=trust, service='proxy_protocol = "v2"')
        text += f"""
entrypoints "web" {{
  address = "127.0.0.1:{web}"
  {trust}
}}
routers "web" {{
  rule    = "PathPrefix(`/`)"
  service = "web"
}}
services "web" {{
  load_balancer {{
    servers = [{{ url = "http://127.0.0.1:{echo.port}" }}]
  }}
}}
"""
        self.start(text)
        fronts = {(port, option): free_port() for port in (tcp, web) for option in ("send-proxy", "send-proxy-v2")}
        with HaproxyServer({front: f"127.0.0.1:{port} {option}" for (port, option), front in fronts.items()}):
            for (port, _), front in fronts.items():
                connection = http.client.HTTPConnection("127.0.0.1", front, timeout=PATIENCE, source_address=("127.0.0.2", 0))
                connection.request("GET", "/")
                assert connection.sock is not None
                ours = connection.sock.getsockname()[1]
                body = connection.getresponse().read().decode()
                connection.close()
                self.assertEqual(body, "127.0.0.2" if port == web else str(ours))
        for port in (tcp, web):
            client = self.connect(port)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            # What it said was not read, so it may be reset.
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.recv(100), b"")


class HaproxyServer(Process):
    """
    HAProxy that passes connections on: from each port to a server with options.
    """

    stop_codes = (0, 130, 143, -signal.SIGTERM)

    def __init__(self, ways: dict[int, str]) -> None:
        program = find_program("haproxy")
        assert program is not None
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-haproxy-")
        config = Path(directory.name) / "haproxy.cfg"
        text = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        for front, server in ways.items():
            text += f"listen p{front}\n  bind 127.0.0.1:{front}\n  server s {server}\n"
        config.write_text(text, "utf-8")
        super().__init__([program, "-f", config, "-db"], directory=Path(directory.name))
        self._owned = directory
        try:
            wait_until(lambda: all(accepts(port) for port in ways) or not self.is_running(), "HAProxy listens")
            assert self.is_running(), self.stderr()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> HaproxyServer:
        return self
