"""
Servers that speak HTTP/2: nginx, without TLS and with it.
"""

from __future__ import annotations

import http.client
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from a3sgw.proxy.test.certificates import Authority
from tests.setting import OwnGatewayCase, configure, metrics, service_at
from tests.support import NginxServer, fetch, free_port, missing, wait_until

LARGE = 4 << 20


class NginxTests(OwnGatewayCase):
    """
    One nginx on three ports: HTTP/2 by prior knowledge, TLS with a choice, and TLS without HTTP/2.
    """

    skip = missing("nginx")

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(folder.cleanup)
        root = Path(folder.name)
        authority = Authority()
        identity = authority.issue("localhost")
        key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (root / "own.pem").write_bytes(key + identity.certificate.public_bytes(Encoding.PEM))
        (root / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        (root / "large").write_bytes(bytes(1024) * (LARGE // 1024))
        clear, secure, old, inner = free_port(), free_port(), free_port(), free_port()
        tls = f"ssl_certificate {root}/own.pem;\nssl_certificate_key {root}/own.pem;\nclient_max_body_size 0;\n"
        # What is passed on is read as a whole before that.
        told = 'return 200 "$http_x_spoken $content_length";'
        passed = f"proxy_pass http://127.0.0.1:{inner}; proxy_set_header X-Spoken $server_protocol;"
        plays = f'location = /large {{ root {root}; }}\nlocation / {{ {passed} }}\n'
        server = NginxServer(
            f"listen 127.0.0.1:{clear} http2;\nlisten 127.0.0.1:{secure} ssl http2;\n{tls}{plays}",
            f"server {{\nlisten 127.0.0.1:{old} ssl;\n{tls}{plays}}}\n"
            f"server {{\nlisten 127.0.0.1:{inner};\nclient_max_body_size 0;\nlocation / {{ {told} }}\n}}\n",
        )
        self.addCleanup(server.stop)
        self.port = free_port()
        trust = f'  upstream_tls {{\n    ca_file = "{root}/ca.pem"\n  }}'
        parts = [
            service_at("clear", [f"h2c://127.0.0.1:{clear}"]),
            service_at("secure", [f"https://localhost:{secure}"], trust),
            service_at("old", [f"https://localhost:{old}"], trust),
        ]
        # By a header, so that paths are free.
        self.start(configure(self.port, *(part.replace("PathPrefix(`/", "Header(`x-to`, `", 1) for part in parts)))

    def ask(self, to: str, path: str = "/", body: bytes | None = None) -> bytes:
        """
        Ask a service over HTTP/1.1; return the answer's body.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        self.addCleanup(connection.close)
        connection.request("GET" if body is None else "PUT", path, body, {"X-To": to})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200, to)
        return answer.read()

    def test_versions(self) -> None:
        """Each server is spoken to in what it prefers, again and again."""
        for to, version in (("clear", b"HTTP/2.0 "), ("secure", b"HTTP/2.0 "), ("old", b"HTTP/1.1 ")):
            for _ in range(3):
                self.assertEqual(self.ask(to), version)

    def test_bodies(self) -> None:
        """Large bodies go either way, and nothing is left of them."""
        for to, version in (("clear", b"HTTP/2.0"), ("secure", b"HTTP/2.0"), ("old", b"HTTP/1.1")):
            self.assertEqual(len(self.ask(to, "/large")), LARGE)
            self.assertEqual(self.ask(to, "/", bytes(LARGE)), b"%b %d" % (version, LARGE))

        def busy() -> float:
            return sum(value for key, value in metrics(self.port).items() if key.startswith("gateway_backend_active"))

        wait_until(lambda: busy() == 0, "no exchange is left", 5.0)

    def test_many(self) -> None:
        """More than a hundred requests one after the other share a connection."""
        for _ in range(150):
            self.assertEqual(self.ask("clear"), b"HTTP/2.0 ")
        self.assertEqual(fetch(self.port, "/nowhere").status, 404)
