"""
Channels over WebSockets that end at the gateway, with other people's clients, several workers, several gateways and a real Redis.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import skipIf

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.setting import OwnGatewayCase, configure, metrics, service
from tests.support import PATIENCE, free_port, missing, wait_until
from tests.test_rate_limit_redis import RedisServer

MUX = 'middlewares "mux" {{\n  type = "ws-mux"\n{attributes}\n}}\n'


@contextmanager
def client_of(port: int, *channels: str, path: str = "/events") -> Iterator[ClientConnection]:
    """
    Open a WebSocket that is subscribed to channels.
    """
    with connect(f"ws://127.0.0.1:{port}{path}", ping_interval=None, close_timeout=PATIENCE) as client:
        for channel in channels:
            client.send(f"_sub:{channel}")
            assert client.recv(PATIENCE) == f"_ok:subscribed to {channel}"
        yield client


class MuxCase(OwnGatewayCase):
    """
    Gateways whose router lists `ws-mux`.
    """

    def text(self, port: int, attributes: str = "", more: str = "") -> str:
        app = service("app", [self.old.port]).replace("priority", 'middlewares = ["mux"]\n  priority')
        return more + configure(port, app, MUX.format(attributes=attributes), log=self.log)


class OneGatewayTests(MuxCase):
    """
    One gateway, one process.
    """

    def test_many(self):
        """
        Two hundred messages of each of twenty clients reach all of them, each sender's in order; metrics tell of all of it.
        """
        gateway = self.start(self.text(self.port))
        heard: list[list[str]] = []

        def take(client: ClientConnection) -> None:
            heard.append([str(client.recv(PATIENCE)) for _ in range(20 * 200)])

        with ExitStack() as stack:
            clients = [stack.enter_context(client_of(self.port, "all")) for _ in range(20)]
            threads = [threading.Thread(target=take, args=(client,), daemon=True) for client in clients]
            for thread in threads:
                thread.start()
            for number in range(200):
                for name, client in enumerate(clients):
                    client.send(f"all:{name}:{number}")
            for thread in threads:
                thread.join(PATIENCE)
            told = metrics(self.port)
            labels = '{router="app",entrypoint="",service="",middleware="mux"}'
            self.assertEqual(told[f"gateway_ws_mux_connections{labels}"], 20)
            self.assertEqual(told[f"gateway_ws_mux_channels{labels}"], 1)
            self.assertEqual(told[f"gateway_ws_mux_messages_received_total{labels}"], 20 * 201)
            self.assertEqual(told[f"gateway_ws_mux_messages_sent_total{labels}"], 20 * 20 * 200)
            self.assertEqual(told[f"gateway_ws_mux_messages_dropped_total{labels}"], 0)
        self.assertEqual(len(heard), 20)
        for messages in heard:
            for name in range(20):
                mine = [message for message in messages if message.startswith(f"all:{name}:")]
                self.assertEqual(mine, [f"all:{name}:{number}" for number in range(200)])
        wait_until(lambda: metrics(self.port)[f"gateway_ws_mux_connections{labels}"] == 0, "all are gone")
        self.stop(gateway)

    def test_slow_client(self):
        """
        A client that does not read loses the oldest messages, and holds nobody up.
        """
        gateway = self.start(self.text(self.port, "  buffer_messages = 10\n  echo = false"))
        with client_of(self.port, "a") as slow, client_of(self.port, "a") as fast, client_of(self.port, "a") as sender:
            # It reads no more, so what the kernel does not take is kept by the gateway.
            slow.recv_messages.pause()
            text = "x" * 50_000
            for number in range(400):
                sender.send(f"a:{number}:{text}")
                self.assertEqual(fast.recv(PATIENCE), f"a:{number}:{text}")
            slow.recv_messages.resume()
            numbers = []
            while not numbers or numbers[-1] != 399:
                numbers.append(int(str(slow.recv(PATIENCE)).split(":")[1]))
            self.assertLess(len(numbers), 400)
            self.assertEqual(numbers, sorted(numbers))
            self.assertEqual(numbers[-10:], list(range(390, 400)))
        self.stop(gateway)

    def test_other_requests(self):
        """
        What is no WebSocket goes to the service.
        """
        gateway = self.start(self.text(self.port))
        self.assertEqual(self.connect().fetch("/").body, b"old")
        self.stop(gateway)

    def test_stop(self):
        """
        When the gateway stops, clients are told 1001.
        """
        gateway = self.start(self.text(self.port).replace("shutdown_timeout_secs = 5", "shutdown_timeout_secs = 1"))
        with client_of(self.port, "a") as client:
            gateway.send_signal(signal.SIGTERM)
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(PATIENCE)
            assert caught.exception.rcvd is not None
            self.assertEqual(caught.exception.rcvd.code, 1001)
        gateway.wait(PATIENCE)
        self.assertNotIn("Traceback", gateway.stderr())


class AcrossTests(MuxCase):
    """
    Several processes.
    """

    def check_across(self, ports: list[int], count: int) -> None:
        """
        Fail unless what each of `count` clients publishes reaches all of them.
        """
        with ExitStack() as stack:
            clients = [stack.enter_context(client_of(ports[number % len(ports)], "all")) for number in range(count)]
            # Subscriptions cross as messages do.
            time.sleep(0.3)
            for number, client in enumerate(clients):
                client.send(f"all:{number}")
            for client in clients:
                self.assertEqual({str(client.recv(PATIENCE)) for _ in clients}, {f"all:{number}" for number in range(count)})

    def test_workers(self):
        """
        Clients of different workers hear each other.
        """
        gateway = self.start(self.text(self.port, more="workers = 3\n"))
        self.check_across([self.port], 24)
        self.stop(gateway)

    @skipIf(missing("redis-server"), str(missing("redis-server")))
    def test_gateways(self):
        """
        Clients of different gateways hear each other through Redis, also after it was gone for a while.
        """
        redis = RedisServer()
        self.addCleanup(redis.stop)
        ports = [free_port(), free_port()]
        attributes = f'  redis_url = "redis://127.0.0.1:{redis.port}"'
        gateways = [self.start(self.text(port, attributes, more)) for port, more in zip(ports, ("", "workers = 2\n"), strict=True)]
        self.check_across(ports, 8)
        redis.kill()
        with client_of(ports[0], "a") as client:
            client.send("a:alone")
            self.assertEqual(client.recv(PATIENCE), "a:alone")
        redis.start()
        with client_of(ports[0], "a") as one, client_of(ports[1], "a") as two:

            def crosses() -> bool:
                one.send("a:are you there")
                try:
                    return str(two.recv(0.2)) == "a:are you there"
                except TimeoutError:
                    return False

            wait_until(crosses, "messages cross again", 15.0)
        self.check_across(ports, 8)
        for gateway in gateways:
            self.stop(gateway)
