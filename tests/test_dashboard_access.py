"""
Who may see the dashboard, and for whom it does not exist.
"""

from __future__ import annotations

import base64
import json

from tests.setting import GatewayCase, TrustingCase
from tests.support import free_port
from tests.wire import Client


class DashboardTests(TrustingCase):
    """
    The gateway's own API is for those who are allowed, and does not exist for anybody else.
    """

    def _is_answered_by_gateway(self, port: int, *lines: str, target: str = "/api/gateway/health", source: str | None = None) -> bool:
        before = len(self.stage.heads)
        with Client(port, source=source) as client:
            answer = client.fetch(target, *lines)
        reached_backend = len(self.stage.heads) > before
        is_own = b'"state"' in answer.body
        self.assertNotEqual(reached_backend, is_own)
        return is_own

    def test_local_clients(self):
        """
        A client on this machine is answered, whatever routers say, and in every spelling of the path.
        """
        for target in ("/api/gateway/health", "/api/gateway/health/", "//api/gateway/health", "/x/../api/gateway/health"):
            self.assertTrue(self._is_answered_by_gateway(self.port, target=target), target)
        self.assertTrue(self._is_answered_by_gateway(self.port, source="127.0.0.77"))

    def test_look_alike_path(self):
        """
        A path that only begins alike is an ordinary one.
        """
        for target in ("/api/gatewayx/health", "/api/gateway-health", "/api/Gateway/health"):
            self.assertFalse(self._is_answered_by_gateway(self.port, target=target), target)

    def test_client_behind_a_proxy_on_this_machine(self):
        """
        A request that came through a proxy on this machine is not local, believed or not, and is routed like any other.
        """
        for line in (
            "X-Forwarded-For: 203.0.113.7",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-For: ::1",
            "X-Forwarded-For: ::ffff:127.0.0.1",
            "X-Forwarded-For: unknown",
            "X-Forwarded-For:",
            "x-forwarded-for: ,",
            "Forwarded: for=203.0.113.7",
            "Forwarded: for=127.0.0.1",
            'Forwarded: for="[::1]"',
            "Forwarded: for=unknown",
            "Forwarded: proto=https",
            "Forwarded: by=10.0.0.1",
            "Forwarded:",
        ):
            for port in (self.port, self.behind):
                self.assertFalse(self._is_answered_by_gateway(port, line), (line, port == self.behind))

    def test_hop_by_hop_does_not_make_a_client_local(self):
        """
        A client behind a proxy does not become local by calling the proxy's fields hop-by-hop.
        """
        for line in ("X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.7"):
            for port in (self.port, self.behind):
                name = line.partition(":")[0]
                self.assertFalse(self._is_answered_by_gateway(port, line, f"Connection: {name}"), (line, port == self.behind))


class DashboardAccessTests(GatewayCase):
    """
    The dashboard can be moved, opened to others, and locked.
    """

    own: int

    @classmethod
    def parts(cls) -> list[str]:
        cls.own = free_port()
        place = f'address = "127.0.0.1:{cls.own}"\npath_prefix = "/own/place"\nallowed_ips = ["127.0.0.1"]'
        secrets = 'username = "ops"\npassword = "a long password"\nkeys = ["a-very-long-key", "another-long-key"]'
        return [f"dashboard {{\n{place}\n{secrets}\n}}\n"]

    def _ask(self, *lines: str, target: str = "/own/place/health", source: str | None = None) -> int:
        with Client(self.own, source=source) as client:
            return client.fetch(target, *lines).status

    def test_listener_of_its_own(self):
        """
        With an address of its own the dashboard is there and nowhere else.
        """
        good = "X-API-Key: another-long-key"
        self.assertEqual(self._ask(good), 200)
        self.assertEqual(self._ask(good, target="/"), 404)
        self.assertEqual(self._ask(good, target="/own/place/nothing"), 404)
        self.assertEqual(self._ask(good, target="/api/gateway/health"), 404)
        for target in ("/own/place/health", "/api/gateway/health"):
            with Client(self.port) as client:
                self.assertEqual(client.fetch(target, good).body, b"ok")

    def test_credentials(self):
        """
        Name and password, or one of the keys, let in; nothing else does, and one is told what to bring.
        """
        for lines, status in (
            ((), 401),
            ((f"Authorization: Basic {_basic('ops:a long password')}",), 200),
            ((f"authorization: bAsIc {_basic('ops:a long password')}",), 200),
            ((f"Authorization: Basic {_basic('ops:wrong')}",), 401),
            ((f"Authorization: Basic {_basic('ops')}",), 401),
            (("Authorization: Basic !!!",), 401),
            (("Authorization: Basic",), 401),
            ((f"Authorization: Basic {_basic('ops:wrong')}", f"Authorization: Basic {_basic('ops:a long password')}"), 401),
            (("X-API-Key: a-very-long-key",), 200),
            (("Authorization: Bearer a-very-long-key",), 200),
            (("X-API-Key: a-very-long-ke",), 401),
            (("X-API-Key:",), 401),
            (("Cookie: key=a-very-long-key",), 401),
        ):
            self.assertEqual(self._ask(*lines), status, lines)
        with Client(self.own) as client:
            answer = client.fetch("/own/place/config")
        self.assertEqual(
            answer.get_all("www-authenticate"), ['Basic realm="a3s-gateway", charset="UTF-8"', 'Bearer realm="a3s-gateway"']
        )

    def test_addresses(self):
        """
        An address that is not allowed is not even asked for credentials.
        """
        self.assertEqual(self._ask("X-API-Key: a-very-long-key", source="127.0.0.2"), 404)
        self.assertEqual(self._ask("X-API-Key: a-very-long-key", "X-Forwarded-For: 127.0.0.1"), 404)

    def test_secrets_stay_secret(self):
        """
        The configuration that the dashboard shows holds no secret.
        """
        with Client(self.own) as client:
            answer = client.fetch("/own/place/config", "X-API-Key: a-very-long-key")
        self.assertEqual(json.loads(answer.body)["dashboard"]["username"], "ops")
        for secret in (b"a long password", b"a-very-long-key", b"another-long-key"):
            self.assertNotIn(secret, answer.body)

    def test_methods(self):
        """
        The dashboard is read only.
        """
        with Client(self.own) as client:
            for method, status in (("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405), ("OPTIONS", 405)):
                answer = client.fetch("/own/place/version", "X-API-Key: a-very-long-key", method=method)
                self.assertEqual(answer.status, status, method)
                self.assertEqual(answer.get("allow"), "GET, HEAD" if status == 405 else None)


class DashboardElsewhereTests(TrustingCase):
    """
    Through a trusted proxy, the address behind it is the one that counts.
    """

    @classmethod
    def parts(cls) -> list[str]:
        return [*super().parts(), 'dashboard {\n  allowed_ips = ["203.0.113.0/24", "127.0.0.0/8"]\n  entrypoints = ["behind"]\n}\n']

    def test_resolved_address(self):
        """
        A client that a trusted proxy vouches for is allowed by its own address; one that vouches for itself is not.
        """
        for port, lines, is_answered in (
            (self.behind, ("X-Forwarded-For: 203.0.113.7",), True),
            (self.behind, ("Forwarded: for=203.0.113.7",), True),
            (self.behind, ("X-Forwarded-For: 198.51.100.7",), False),
            (self.behind, ("X-Forwarded-For: 203.0.113.7, 198.51.100.7",), False),
            (self.behind, (), True),
            (self.port, ("X-Forwarded-For: 203.0.113.7",), False),
            (self.port, (), False),
        ):
            with Client(port) as client:
                answer = client.fetch("/api/gateway/health", *lines)
            self.assertEqual(b'"state"' in answer.body, is_answered, (lines, port == self.behind))


class NoDashboardTests(GatewayCase):
    """
    The dashboard can be switched off.
    """

    @classmethod
    def parts(cls) -> list[str]:
        return ["dashboard {\n  enabled = false\n}\n"]

    def test_switched_off(self):
        """
        Its paths are ordinary ones then.
        """
        with Client(self.port) as client:
            self.assertEqual(client.fetch("/api/gateway/health").body, b"ok")


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
