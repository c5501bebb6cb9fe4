"""
Datagrams through the real command: DNS, several servers, servers that go away, reloads, bursts, garbage.
"""

import random
import socket
import sys
import threading
from collections.abc import Sequence

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.setting import metrics
from tests.support import GatewayProcess, Process, child_environ, free_port, wait_until

NAME_SERVER = """
import sys
from twisted.internet import defer, reactor
from twisted.names import common, dns, error, server

class Answers(common.ResolverBase):
    def _lookup(self, name, cls, type, timeout=None):
        if name.lower().endswith(b".test") and type in (dns.A, dns.AAAA):
            record = dns.Record_A("192.0.2.77", 60) if type == dns.A else dns.Record_AAAA("2001:db8::77", 60)
            return defer.succeed(([dns.RRHeader(name, type, dns.IN, 60, record, auth=True)], [], []))
        return defer.fail(error.DomainError(name))

factory = server.DNSServerFactory(clients=[Answers()])
reactor.listenUDP(int(sys.argv[1]), dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
sys.stderr.write("listening\\n")
reactor.run()
"""


class EchoServer:
    """
    A UDP server that answers each datagram with its own name, a colon and the datagram. `got` is what has arrived.
    """

    def __init__(self, name: bytes, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.got: list[bytes] = []
        self._sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, port))
        self._sock.settimeout(0.2)
        self.host = host
        self.port = self._sock.getsockname()[1]
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """
        Where the gateway finds it.
        """
        return f"udp://[{self.host}]:{self.port}" if ":" in self.host else f"udp://{self.host}:{self.port}"

    def _run(self) -> None:
        while not self._is_ending:
            try:
                data, sender = self._sock.recvfrom(65535)
            except TimeoutError:
                continue
            self.got.append(data)
            self._sock.sendto(self.name + b":" + data[:60000], sender)
        self._sock.close()

    def stop(self) -> None:
        """
        Close the port.
        """
        self._is_ending = True
        self._thread.join(5)


class UdpCase(SynchronousTestCase):
    """
    A gateway with a udp entrypoint, and an http one to ask for metrics.
    """

    def setUp(self) -> None:
        self.admin = free_port()
        self.port = free_port()

    def server(self, name: bytes, host: str = "127.0.0.1", port: int = 0) -> EchoServer:
        server = EchoServer(name, host, port)
        self.addCleanup(server.stop)
        return server

    def config(self, urls: Sequence[str], *, entrypoint: str = "", balancing: str = "", host: str = "127.0.0.1", top: str = "") -> str:
        listed = ", ".join(f'{{ url = "{url}" }}' for url in urls)
        return (
            f'{top}\nentrypoints "web" {{\n  address = "127.0.0.1:{self.admin}"\n}}\n'
            f'entrypoints "udp" {{\n  address  = "{host}:{self.port}"\n  protocol = "udp"\n  {entrypoint}\n}}\n'
            'routers "udp" {\n  rule = "HostSNI(`*`)"\n  service = "servers"\n}\n'
            f'services "servers" {{\n  load_balancer {{\n    servers = [{listed}]\n    {balancing}\n  }}\n}}\n'
        )

    def start(self, *urls: str, **parts: str) -> GatewayProcess:
        gateway = GatewayProcess(self.config(urls, **parts))
        self.addCleanup(gateway.kill)
        return gateway

    def stop(self, gateway: GatewayProcess) -> None:
        written = gateway.stderr()
        gateway.stop()
        self.assertNotIn("Traceback", written)

    def client(self, host: str = "127.0.0.1", timeout: float = 5.0) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.settimeout(timeout)
        # Connected, so that an answer from any other address would not be heard.
        sock.connect((host, self.port))
        return sock

    def ask(self, client: socket.socket, data: bytes) -> bytes:
        client.send(data)
        return client.recv(65535)

    def metric(self, name: str) -> float:
        return metrics(self.admin).get(name, 0.0)


class DnsTests(UdpCase):
    """
    DNS is really spoken.
    """

    def test_dns(self):
        """Questions for names are answered through the gateway, by a server of Twisted's, addresses of both families and refusals alike."""
        port = free_port()
        with Process([sys.executable, "-c", NAME_SERVER, str(port)], environ=child_environ()) as names:
            names.stop_codes = (0, -15)
            names.wait_for("listening")
            gateway = self.start(f"udp://127.0.0.1:{port}")
            client = self.client()
            for name, kind, expected in (
                (b"a.test", dns.A, "192.0.2.77"),
                (b"b.test", dns.AAAA, "2001:db8::77"),
                (b"no.such.name", dns.A, None),
            ):
                question = dns.Message(id=random.randrange(65536), recDes=1)
                question.addQuery(name, kind)
                answer = dns.Message()
                answer.fromStr(self.ask(client, question.toStr()))
                self.assertEqual(answer.id, question.id)
                if expected is None:
                    self.assertEqual((answer.rCode, answer.answers), (dns.ENAME, []))
                else:
                    payload = answer.answers[0].payload
                    packed = payload.address
                    self.assertEqual(socket.inet_ntop(socket.AF_INET if kind == dns.A else socket.AF_INET6, packed), expected)
            self.stop(gateway)


class ServersTests(UdpCase):
    """
    Which server a client has.
    """

    def test_turns(self):
        """Two servers take turns with clients, and each client stays with its own."""
        gateway = self.start(self.server(b"one").url, self.server(b"two").url)
        clients = [self.client() for _ in range(6)]
        first = [self.ask(client, b"x") for client in clients]
        self.assertEqual(first, [b"one:x", b"two:x"] * 3)
        self.assertEqual([self.ask(client, b"y")[:3] for client in clients], [each[:3] for each in first])
        self.assertEqual(self.metric('gateway_udp_sessions{entrypoint="udp"}'), 6)
        self.stop(gateway)

    def test_ipv6(self):
        """IPv6 is spoken on both sides, also from one family to the other, and answers come from the address that was spoken to."""
        gateway = self.start(self.server(b"six", "::1").url, host="")
        for host in ("::1", "127.0.0.1", "127.0.0.5"):
            self.assertEqual(self.ask(self.client(host), b"x"), b"six:x")
        self.stop(gateway)

    def test_name(self):
        """A server may have a name, which is looked up while the client's first datagrams wait."""
        server = self.server(b"named")
        gateway = self.start(f"udp://localhost:{server.port}")
        client = self.client()
        for number in range(5):
            client.send(b"%d" % number)
        self.assertEqual(sorted(client.recv(100) for _ in range(5)), [b"named:%d" % number for number in range(5)])
        self.stop(gateway)

    def test_killed(self):
        """When a server is gone, its client's datagrams go to the other, after the one that was lost."""
        doomed, other = self.server(b"one"), self.server(b"two")
        gateway = self.start(doomed.url, other.url)
        client = self.client(timeout=0.3)
        self.assertEqual(self.ask(client, b"x"), b"one:x")
        doomed.stop()

        def answered() -> bool:
            try:
                return self.ask(client, b"y") == b"two:y"
            except TimeoutError:
                return False

        self.assertFalse(answered(), "this one was lost")
        self.assertTrue(answered(), "and the next was not")
        self.stop(gateway)

    def test_nobody(self):
        """Where nobody listens datagrams are lost, and a server that comes back is found by the same client."""
        port = free_port()
        gateway = self.start(f"udp://127.0.0.1:{port}")
        client = self.client(timeout=0.2)
        client.send(b"x")
        self.assertRaises(TimeoutError, client.recv, 100)
        self.server(b"back", port=port)
        self.assertEqual(self.ask(client, b"y"), b"back:y")
        self.stop(gateway)


class BoundsTests(UdpCase):
    """
    How many, and for how long.
    """

    def test_sessions(self):
        """At the bound further clients are not served and counted; when somebody has been silent for long enough they are."""
        gateway = self.start(self.server(b"s").url, entrypoint="udp_max_sessions = 2\n  udp_session_timeout_secs = 1")
        known = [self.client(), self.client()]
        for client in known:
            self.assertEqual(self.ask(client, b"x"), b"s:x")
        late = self.client(timeout=0.3)
        late.send(b"x")
        self.assertRaises(TimeoutError, late.recv, 100)
        self.assertEqual(self.metric('gateway_udp_datagrams_dropped_total{entrypoint="udp",reason="session-limit"}'), 1)
        wait_until(lambda: self.metric('gateway_udp_sessions{entrypoint="udp"}') == 0, "the sessions have ended")
        self.assertEqual(self.ask(late, b"y"), b"s:y")
        way = 'entrypoint="udp",router="udp",service="servers"'
        self.assertEqual(self.metric(f'gateway_udp_sessions_ended_total{{{way},outcome="completed"}}'), 2)
        self.assertEqual(self.metric(f"gateway_udp_received_datagrams_total{{{way}}}"), 2)
        self.stop(gateway)

    def test_burst(self):
        """Ten thousand datagrams of ten clients pass, each to its own server and back, in order and none twice."""
        gateway = self.start(self.server(b"s").url)
        clients = [self.client() for _ in range(10)]
        window = 10
        for start in range(0, 1000, window):
            for number in range(start, start + window):
                for client in clients:
                    client.send(b"%d" % number)
            for client in clients:
                got = [client.recv(100) for _ in range(window)]
                self.assertEqual(got, [b"s:%d" % number for number in range(start, start + window)])
        self.assertEqual(self.metric('gateway_udp_sessions{entrypoint="udp"}'), 10)
        self.stop(gateway)

    def test_garbage(self):
        """Nothing that anybody sends is looked at, so nothing can be wrong with it, from nothing at all to the largest datagram."""
        server = self.server(b"s")
        gateway = self.start(server.url)
        client = self.client()
        chance = random.Random(5)
        for size in (0, 1, 2, 511, 1472, 1473, 9000, 60000, 65507, *(chance.randrange(2000) for _ in range(50))):
            data = chance.randbytes(size)
            self.assertEqual(self.ask(client, data), b"s:" + data[:60000])
            self.assertEqual(server.got[-1], data)
        self.stop(gateway)


class LifeTests(UdpCase):
    """
    Reloads, workers and the end.
    """

    def test_reload(self):
        """Sessions live through a reload; a client whose server is taken away has another with its next datagram."""
        one, two = self.server(b"one"), self.server(b"two")
        gateway = self.start(one.url)
        client = self.client()
        self.assertEqual(self.ask(client, b"x"), b"one:x")
        gateway.reload(self.config([one.url, two.url]))
        self.assertEqual(self.ask(client, b"y"), b"one:y")
        self.assertEqual(self.metric('gateway_udp_sessions_begun_total{entrypoint="udp"}'), 1)
        gateway.reload(self.config([two.url]))
        self.assertEqual(self.ask(client, b"z"), b"two:z")
        self.assertEqual(self.metric('gateway_udp_sessions_begun_total{entrypoint="udp"}'), 1)
        self.stop(gateway)

    def test_unrouted(self):
        """An entrypoint without a router does not keep the gateway from starting; what comes there is dropped and counted."""
        text = self.config([self.server(b"s").url])
        gateway = GatewayProcess(text[: text.index("routers")] + text[text.index("services") :])
        self.addCleanup(gateway.kill)
        self.client().send(b"x")
        name = 'gateway_udp_datagrams_dropped_total{entrypoint="udp",reason="no-route"}'
        wait_until(lambda: self.metric(name) == 1, "it is counted")
        self.assertIn('entrypoint "udp" has no router', gateway.stderr())
        self.stop(gateway)

    def test_workers(self):
        """Several workers share the port, and each client is always with the same: it has one session, and one server."""
        gateway = self.start(self.server(b"one").url, self.server(b"two").url, top="workers = 2")
        clients = [self.client() for _ in range(8)]
        for _ in range(3):
            for client in clients:
                self.assertIn(self.ask(client, b"x"), (b"one:x", b"two:x"))
        self.assertEqual(self.metric('gateway_udp_sessions{entrypoint="udp"}'), 8)
        self.stop(gateway)
