"""
Gateways that share a rate limit in a real Redis: what they admit together, and what becomes of requests while Redis is away.
"""

from __future__ import annotations

import datetime
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.resp import ErrorReply, Reply, ReplyReader, encode_command
from tests.setting import configure, metrics, service
from tests.support import PATIENCE, GatewayProcess, fetch, find_program, free_port, missing, wait_until
from tests.wire import Client, Stage

NO_REFILL = "rate = 1\nperiod_secs = 86400"
LOST = 2.0
"""Seconds within which everything is answered, whatever Redis does; the bound itself is a tenth of one."""


class RedisServer:
    """
    A Redis of our own, that can be killed, frozen and started again on the same port.
    """

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="a3sgw-redis-")
        self.path = Path(self._directory.name)
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """
        Start it, with nothing in it, and wait until it answers.
        """
        program = find_program("redis-server")
        assert program is not None, "guard tests that use Redis with missing()"
        ports = () if "--port" in self._options else ("--port", str(self.port))
        argv = [program, *ports, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.path), *self._options]
        self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: (self.path / "redis.sock").exists() if "--unixsocket" in self._options else self._accepts(), "Redis listens")

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def send_signal(self, number: int) -> None:
        """
        Send it a signal.
        """
        assert self._child is not None
        self._child.send_signal(number)

    def kill(self) -> None:
        """
        End it without a word.
        """
        if self._child is not None:
            self._child.kill()
            self._child.wait(PATIENCE)
            self._child = None

    def stop(self) -> None:
        """
        End it, and leave nothing behind.
        """
        self.kill()
        self._directory.cleanup()

    def ask(self, *words: str) -> Reply:
        """
        Give it a command over a connection of its own.
        """
        reader = ReplyReader(1 << 20)
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(encode_command(*(word.encode() for word in words)))
            replies: list[Reply] = []
            while not replies:
                data = connection.recv(65536)
                assert data, "Redis hung up"
                replies = reader.feed(data)
        assert not isinstance(replies[0], ErrorReply), replies[0]
        return replies[0]

    def count(self, name: str) -> int:
        """
        Return a number from `INFO`.
        """
        told = self.ask("INFO")
        assert isinstance(told, bytes)
        return next(int(line.partition(b":")[2]) for line in told.split(b"\r\n") if line.startswith(name.encode() + b":"))


def limit(name: str, url: str, attributes: str) -> str:
    """
    Return a router for `/NAME` with a limit of the same name.
    """
    return (
        f'routers "{name}" {{\n  rule = "PathPrefix(`/{name}`)"\n  service = "app"\n  middlewares = ["{name}"]\n}}\n'
        f'middlewares "{name}" {{\n  type = "rate-limit-redis"\n  redis_url = "{url}"\n{attributes}\n}}\n'
    )


def make_certificate(directory: Path, name: str, host: str, issuer: str | None = None) -> None:
    """
    Write `NAME.pem` and `NAME.key`: a certificate for `host`, vouched for by that of `issuer` or by itself.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    if issuer is None:
        signer, signed_by = key, subject
    else:
        loaded = serialization.load_pem_private_key((directory / f"{issuer}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer, signed_by = loaded, x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)])
    builder = x509.CertificateBuilder(signed_by, subject, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1))
    builder = builder.add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    (directory / f"{name}.pem").write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class RedisCase(SynchronousTestCase):
    """
    Gateways before one backend, and a Redis for each test.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        self.stage = Stage()
        self.addCleanup(self.stage.stop)

    def redis(self, *options: str) -> RedisServer:
        server = RedisServer(*options)
        self.addCleanup(server.stop)
        return server

    def gateway(self, *parts: str) -> tuple[GatewayProcess, int]:
        port = free_port()
        gateway = GatewayProcess(configure(port, service("app", [self.stage.port]), *parts))
        self.addCleanup(gateway.kill)
        return gateway, port

    def stop(self, *gateways: GatewayProcess) -> None:
        """
        Stop gateways in order; fail if one met a bug.
        """
        for gateway in gateways:
            written = gateway.stderr()
            gateway.stop()
            self.assertNotIn("Traceback", written)

    def statuses(self, port: int, path: str, count: int) -> list[int]:
        """
        Ask so many times on one connection, and let no answer take long.
        """
        with Client(port, timeout=LOST) as client:
            return [client.fetch(path).status for _ in range(count)]


class SharedTests(RedisCase):
    """
    What gateways admit together.
    """

    def test_exact(self):
        """
        Two gateways that are asked at the same time by many clients admit together exactly as many requests as the limit says.
        """
        redis = self.redis()
        text = limit("shared", f"redis://127.0.0.1:{redis.port}", f'{NO_REFILL}\nburst = 100\nsource = "router"')
        (one, first), (other, second) = self.gateway(text), self.gateway(text)
        found: Counter[int] = Counter()
        lock = threading.Lock()

        def ask(port: int) -> None:
            mine = Counter(self.statuses(port, "/shared", 50))
            with lock:
                found.update(mine)

        threads = [threading.Thread(target=ask, args=(port,), daemon=True) for port in (first, second) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(found, {200: 100, 429: 300})
        self.assertEqual(self.stage.count("/shared"), 100)
        self.stop(one, other)

    def test_refill(self):
        """
        A token comes when its time has come, and not before; the answers say so.
        """
        redis = self.redis()
        gateway, port = self.gateway(limit("slow", f"redis://127.0.0.1:{redis.port}", "rate = 2\nburst = 2"))
        began = time.monotonic()
        answers = [fetch(port, "/slow") for _ in range(2)]
        self.assertEqual([answer.headers["ratelimit-remaining"] for answer in answers], ["1", "0"])
        wait_until(lambda: fetch(port, "/slow").status == 429, "the limit is reached")
        wait_until(lambda: fetch(port, "/slow").status == 200, "a token has come")
        self.assertGreaterEqual(time.monotonic() - began, 0.49)
        self.stop(gateway)

    def test_in_redis(self):
        """
        A bucket is a hash with its tokens and the time of Redis's own clock, and is forgotten when it is full for certain.
        """
        redis = self.redis()
        url = f"redis://127.0.0.1:{redis.port}/3"
        gateway, port = self.gateway(limit("kept", url, "rate = 30\nperiod_secs = 60\nburst = 7"))
        self.assertEqual(redis.count("total_connections_received"), 2)
        self.assertEqual(self.statuses(port, "/kept", 1), [200])
        key = "a3s:ratelimit:kept:kept:127.0.0.1"
        self.assertEqual(redis.ask("INFO", "keyspace").split(b",")[0], b"# Keyspace\r\ndb3:keys=1")
        script = f"redis.call('SELECT', 3) return {{redis.call('TTL', '{key}'), redis.call('HGETALL', '{key}'), redis.call('TIME')}}"
        ttl, fields, now = redis.ask("EVAL", script, "0")
        self.assertIn(ttl, (23, 24))
        self.assertEqual((fields[0], fields[1], fields[2]), (b"tokens", b"6", b"last_refill"))
        self.assertTrue(0 <= float(now[0]) + 1 - float(fields[3]) < 10, (now, fields))
        self.stop(gateway)

    def test_clock_set_back(self):
        """
        When Redis's clock is set back nobody is locked out until it has caught up.
        """
        redis = self.redis()
        gateway, port = self.gateway(limit("back", f"redis://127.0.0.1:{redis.port}", "rate = 5"))
        redis.ask("HSET", "a3s:ratelimit:back:back:127.0.0.1", "tokens", "0.5", "last_refill", str(time.time() + 86400))
        self.assertEqual(self.statuses(port, "/back", 1), [429])
        wait_until(lambda: fetch(port, "/back").status == 200, "a token has come", 5.0)
        self.stop(gateway)

    def test_scripts_flushed(self):
        """
        A Redis that forgets its scripts between two requests loses no count and costs no request.
        """
        redis = self.redis()
        gateway, port = self.gateway(limit("flushed", f"redis://127.0.0.1:{redis.port}", f"{NO_REFILL}\nburst = 6\nfail_open = false"))
        found = []
        for _ in range(4):
            found += self.statuses(port, "/flushed", 2)
            redis.ask("SCRIPT", "FLUSH")
        self.assertEqual(found, [200] * 6 + [429] * 2)
        self.stop(gateway)


class OutageTests(RedisCase):
    """
    While Redis is away: `/open` lets requests pass, `/closed` does not, and neither makes anybody wait.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.redis()
        url = f"redis://127.0.0.1:{self.server.port}"
        text = [limit(name, url, f"{NO_REFILL}\nburst = 5\nfail_open = {value}") for name, value in (("open", "true"), ("closed", "false"))]
        self.process, self.port = self.gateway(*text)

    def both(self, count: int) -> tuple[list[int], list[int]]:
        return self.statuses(self.port, "/open", count), self.statuses(self.port, "/closed", count)

    def wait_for_recovery(self) -> None:
        """
        Wait until both limits count again.
        """
        for name in ("open", "closed"):
            # Until the limit is reached, which it never is while nothing is counted.
            wait_until(lambda name=name: fetch(self.port, f"/{name}").status == 429, f"/{name} is limited again", 10.0)

    def check_outage(self) -> None:
        """
        Fail unless everything is answered in time by the rule for outages.
        """
        # What was refused just before is refused for another second, whatever becomes of Redis.
        wait_until(lambda: self.both(1) == ([200], [503]), "what was refused before is forgotten", 5.0)
        opened, closed = self.both(20)
        self.assertEqual((opened, closed), ([200] * 20, [503] * 20))
        samples = metrics(self.port)
        for name in ("open", "closed"):
            where = f'router="{name}",entrypoint="",service="",middleware="{name}"'
            self.assertGreaterEqual(samples[f"gateway_rate_limit_unchecked_total{{{where}}}"], 20)

    def test_never_there(self):
        """
        A Redis that is not there when the gateway starts is used as soon as it is.
        """
        self.server.kill()
        self.check_outage()
        self.server.start()
        self.wait_for_recovery()
        self.stop(self.process)

    def test_killed(self):
        """
        After a Redis was killed and started again, everything is counted as before, without the gateway being touched.
        """
        self.assertEqual(self.both(2), ([200] * 2, [200] * 2))
        for _ in range(2):
            self.server.kill()
            self.check_outage()
            self.server.start()
            self.wait_for_recovery()
            self.assertEqual(self.both(3), ([429] * 3, [429] * 3))
        self.assertIn("requests pass uncounted until it answers", self.process.stderr())
        self.assertIn("answers again", self.process.stderr())
        self.stop(self.process)

    def test_frozen(self):
        """
        A Redis that is stopped for a moment or for long, and takes connections all the while, is known for what it is; then it goes on.
        """
        self.assertEqual(self.both(2), ([200] * 2, [200] * 2))
        for seconds in (0.0, 3.0):
            self.server.send_signal(signal.SIGSTOP)
            self.check_outage()
            time.sleep(seconds)
            self.check_outage()
            self.server.send_signal(signal.SIGCONT)
            self.wait_for_recovery()
            self.assertEqual(self.both(3), ([429] * 3, [429] * 3))
        self.stop(self.process)

    def test_frozen_under_load(self):
        """
        Clients that ask all the time do not notice, but for being let through, or told so.
        """
        stopped = threading.Event()
        self.addCleanup(stopped.set)
        found: dict[str, set[int]] = {"open": set(), "closed": set()}
        failed: list[str] = []

        def ask(name: str) -> None:
            try:
                while not stopped.is_set():
                    found[name].update(self.statuses(self.port, f"/{name}", 20))
            except Exception as error:
                failed.append(repr(error))

        threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in ("open", "closed") * 3]
        for thread in threads:
            thread.start()
        for number in (signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL):
            self._wait_for(found, 429)
            self.server.send_signal(number)
            self._wait_for(found, 503)
            if number == signal.SIGKILL:
                self.server.kill()
                self.server.start()
            else:
                self.server.send_signal(signal.SIGCONT)
        self._wait_for(found, 429)
        stopped.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(failed, [])
        self.assertEqual(found, {"open": {200, 429}, "closed": {429}})
        self.stop(self.process)

    def _wait_for(self, found: dict[str, set[int]], status: int) -> None:
        """
        Wait until `/closed` is answered `status` and nothing else.
        """

        def has_come() -> bool:
            told = set(found["closed"])
            found["closed"].clear()
            time.sleep(0.1)
            return told == {status}

        wait_until(has_come, f"/closed is answered {status}")

    def test_idle_connections_closed(self):
        """
        A Redis that closes connections which are not used costs no request.
        """
        self.assertEqual(self.both(1), ([200], [200]))
        for _ in range(3):
            self.server.ask("CLIENT", "KILL", "TYPE", "normal")
            # The end needs a moment to arrive; what comes within that moment is an outage of a tenth of a second.
            time.sleep(0.2)
            self.assertEqual(self.both(1), ([200], [200]))
        self.assertNotIn("requests are answered 503", self.process.stderr())
        self.stop(self.process)


class WayTests(RedisCase):
    """
    The ways to a Redis, and who may go them.
    """

    def test_password(self):
        """
        A user is known by his password; with a wrong one nothing is counted, and the log says so without it, until it becomes right.
        """
        redis = self.redis()
        redis.ask("ACL", "SETUSER", "me", "on", ">p@ss/word", "~a3s:ratelimit:*", "+@all", "-@admin")
        redis.ask("CONFIG", "SET", "requirepass", "default-pass")
        good = limit("good", f"redis://me:p%40ss%2Fword@127.0.0.1:{redis.port}", f"{NO_REFILL}\nfail_open = false")
        plain = limit("plain", f"redis://:default-pass@127.0.0.1:{redis.port}", f"{NO_REFILL}\nfail_open = false")
        bad = limit("bad", f"redis://me:hunter2@127.0.0.1:{redis.port}", f"{NO_REFILL}\nfail_open = false")
        gateway, port = self.gateway(good, plain, bad)
        self.assertEqual(self.statuses(port, "/good", 2), [200, 429])
        self.assertEqual(self.statuses(port, "/plain", 2), [200, 429])
        self.assertEqual(self.statuses(port, "/bad", 2), [503, 503])
        self.assertIn("refuses AUTH: WRONGPASS", gateway.stderr())
        self.assertNotIn("hunter2", gateway.stderr())
        with socket.create_connection(("127.0.0.1", redis.port), PATIENCE) as connection:
            connection.sendall(encode_command(b"AUTH", b"default-pass") + encode_command(b"ACL", b"SETUSER", b"me", b">hunter2"))
            connection.recv(100)
        wait_until(lambda: fetch(port, "/bad").status == 200, "the password is accepted")
        self.stop(gateway)

    def test_unix_socket(self):
        """
        A Redis on the same machine needs no port.
        """
        redis = self.redis("--port", "0", "--unixsocket", "redis.sock")
        gateway, port = self.gateway(limit("unix", f"unix://{redis.path}/redis.sock?db=1", f"{NO_REFILL}\nfail_open = false"))
        self.assertEqual(self.statuses(port, "/unix", 2), [200, 429])
        redis.kill()
        self.assertEqual(self.statuses(port, "/unix", 1), [429])
        wait_until(lambda: fetch(port, "/unix").status == 503, "the outage is noticed")
        (redis.path / "redis.sock").unlink()
        redis.start()
        wait_until(lambda: fetch(port, "/unix").status == 200, "it is back")
        self.stop(gateway)

    def test_tls(self):
        """
        Over TLS only a Redis with the right name and a certificate of the right authority is told anything, and learns who the gateway is.
        """
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(directory.cleanup)
        path = Path(directory.name)
        make_certificate(path, "ca", "ca.test")
        make_certificate(path, "stranger", "ca.test")
        make_certificate(path, "server", "localhost", "ca")
        make_certificate(path, "client", "gateway.test", "ca")
        port = free_port()
        files = ("--tls-cert-file", f"{path}/server.pem", "--tls-key-file", f"{path}/server.key", "--tls-ca-cert-file", f"{path}/ca.pem")
        redis = self.redis("--tls-port", str(port), *files)
        closed = f"{NO_REFILL}\nfail_open = false\ntimeout_ms = 2000"
        own = f'redis_cert_file = "{path}/client.pem"\nredis_key_file = "{path}/client.key"\n{closed}'
        trusting = f'redis_ca_file = "{path}/ca.pem"\n{own}'
        gateway, there = self.gateway(
            limit("good", f"rediss://localhost:{port}", trusting),
            limit("name", f"rediss://127.0.0.1:{port}", trusting),
            limit("authority", f"rediss://localhost:{port}", f'redis_ca_file = "{path}/stranger.pem"\n{own}'),
            limit("system", f"rediss://localhost:{port}", own),
            limit("unknown", f"rediss://localhost:{port}", f'redis_ca_file = "{path}/ca.pem"\n{closed}'),
        )
        self.assertEqual([fetch(there, "/good").status for _ in range(2)], [200, 429])
        for name in ("name", "authority", "system", "unknown"):
            self.assertEqual([fetch(there, f"/{name}").status for _ in range(2)], [503, 503], name)
        self.assertEqual(redis.ask("KEYS", "*"), [b"a3s:ratelimit:good:good:127.0.0.1"])
        self.stop(gateway)
