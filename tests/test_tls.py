"""
TLS of entrypoints by the real gateway, with other people's clients: curl, OpenSSL's own, Python's, and testssl.sh.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from a3sgw.proxy.test.certificates import Authority, Identity
from tests.setting import GatewayCase, configure, metrics, service
from tests.support import PATIENCE, fetch, find_program, free_port, missing, run_command, wait_until

AUTHORITY = Authority()
LOCALHOST = AUTHORITY.issue("localhost", "127.0.0.1")
RSA = AUTHORITY.issue("localhost", "127.0.0.1", key=rsa.generate_private_key(65537, 2048))
SHOP = AUTHORITY.issue("*.shop.test", "shop.test")
ALICE = AUTHORITY.issue(common_name="alice")
MALLORY = Authority("another").issue(common_name="mallory")


class TlsCase(GatewayCase):
    """
    A gateway with TLS in several ways.

    `secure` shows certificates for localhost (RSA and an elliptic curve) and shop.test, `strict` speaks nothing but TLS 1.3 and knows no
    other names, `mutual` wants certificates of clients, `optional` takes them, `hasty` gives handshakes a second, and `plain` redirects to
    `secure`.
    """

    folder: Path
    secure: int
    strict: int
    mutual: int
    optional: int
    hasty: int
    plain: int

    @classmethod
    def parts(cls) -> list[str]:
        directory = tempfile.TemporaryDirectory(prefix="a3sgw-")
        cls._stacks[cls].callback(directory.cleanup)
        cls.folder = Path(directory.name)
        (cls.folder / "ca.pem").write_bytes(AUTHORITY.pem())
        for name, identity in (("localhost", LOCALHOST), ("rsa", RSA), ("shop", SHOP), ("alice", ALICE), ("mallory", MALLORY)):
            cls.write(name, identity)
        files = {
            name: f'cert_file = "{cls.folder}/{name}.crt"\n    key_file = "{cls.folder}/{name}.key"'
            for name in ("localhost", "rsa", "shop")
        }
        more = ", ".join("{ " + files[name].replace("\n   ", ",") + " }" for name in ("rsa", "shop"))
        clients = f'client_ca_file = "{cls.folder}/ca.pem"\n    client_subject_header = "X-Subject"\n    client_auth = '
        blocks = [cls.door("plain", 'redirect_to = "secure"')]
        for name, inside in (
            ("secure", f"certificates = [{more}]"),
            ("strict", f'min_version = "1.3"\n    strict_sni = true\n    certificates = [{more}]'),
            ("mutual", clients + '"require"'),
            ("optional", clients + '"optional"'),
            ("hasty", 'handshake_timeout = "1s"'),
        ):
            blocks.append(cls.door(name, f"tls {{\n    {files['localhost']}\n    {inside}\n  }}"))
        blocks.append(
            'routers "pinned" {\n  rule = "PathPrefix(`/pinned`)"\n  priority = 9\n  service = "pinned"\n}\n'
            'services "pinned" {\n  load_balancer {\n    sticky { cookie = "node" }\n'
            f'    servers = [{{ url = "http://127.0.0.1:{cls.stage.port}" }}]\n  }}\n}}\n'
        )
        return blocks

    @classmethod
    def door(cls, name: str, inside: str) -> str:
        """
        Return an entrypoint, which listens on a free port that is remembered under its name.
        """
        setattr(cls, name, free_port())
        return f'entrypoints "{name}" {{\n  address = "127.0.0.1:{getattr(cls, name)}"\n  {inside}\n}}\n'

    @classmethod
    def write(cls, name: str, identity: Identity) -> None:
        """
        Put a certificate and its key into the folder, each at one blow.
        """
        for path, text in ((cls.folder / f"{name}.crt", identity.certificate_pem()), (cls.folder / f"{name}.key", identity.key_pem())):
            new = path.with_suffix(".new")
            new.write_bytes(text)
            new.replace(path)

    def refused(self, entrypoint: str, reason: str) -> float:
        """
        Return how many connections the entrypoint did not serve for this reason.
        """
        return metrics(self.port).get(f'gateway_connections_refused_total{{entrypoint="{entrypoint}",reason="{reason}"}}', 0.0)

    def wait_refused(self, entrypoint: str, reason: str, count: float) -> None:
        """
        Wait until there are `count` of them.
        """
        wait_until(lambda: self.refused(entrypoint, reason) == count, lambda: f"{count} refused as {reason}: {metrics(self.port)}", 5.0)


class CurlTests(TlsCase):
    """
    curl.
    """

    skip = missing("curl")

    def curl(self, url: str, *options: str) -> subprocess.CompletedProcess[str]:
        """
        Run curl, which trusts our authority.
        """
        return run_command(["curl", "-sS", "--max-time", "20", "--cacert", self.folder / "ca.pem", *options, url])

    def test_requests(self) -> None:
        """Requests over one connection are answered, and servers are told that it is HTTPS."""
        url = f"https://localhost:{self.secure}"
        for options in ([], ["--tls-max", "1.2"], ["--http1.1"], ["--ciphers", "ECDHE-RSA-AES128-GCM-SHA256", "--tls-max", "1.2"]):
            result = self.curl(f"{url}/a", "-w", "%{http_code} %{num_connects}\n", f"{url}/b", *options)
            self.assertEqual(result.stdout, "ok200 1\nok200 0\n", result.stderr)
            head = self.stage.heads[-1]
            self.assertIn(b"\r\nX-Forwarded-Proto: https\r\n", head)
            self.assertIn(b"\r\nX-Forwarded-Port: %d\r\n" % self.secure, head)

    def test_large(self) -> None:
        """Ten megabytes go up and come to the server as they were."""
        path = self.folder / "large"
        path.write_bytes(os.urandom(1 << 20) * 10)
        result = self.curl(f"https://localhost:{self.secure}/large", "--data-binary", f"@{path}", "-w", "%{http_code} %{size_upload}")
        self.assertEqual(result.stdout, f"ok200 {10 << 20}", result.stderr)

    def test_names(self) -> None:
        """The name in the URL decides about the certificate; one that is on none is not believed."""
        for name, code in (("shop.test", 0), ("a.shop.test", 0), ("localhost", 0), ("other.test", 60), ("b.a.shop.test", 60)):
            result = self.curl(f"https://{name}:{self.secure}/", "--resolve", f"{name}:{self.secure}:127.0.0.1")
            self.assertEqual(result.returncode, code, f"{name} {result.stderr}")

    def test_cookies(self) -> None:
        """The cookie of a sticky service is for TLS only where the client came over TLS."""
        for url, is_secure in ((f"https://localhost:{self.secure}/pinned", True), (f"http://localhost:{self.port}/pinned", False)):
            said = self.curl(url, "-i").stdout.lower()
            self.assertIn("set-cookie: node=", said)
            self.assertEqual("; secure" in said, is_secure, said)

    def test_redirect(self) -> None:
        """Who comes over plain HTTP is sent on, and arrives."""
        result = self.curl(f"http://localhost:{self.plain}/a?b=c", "-L", "-w", "%{http_code} %{num_redirects} %{url_effective}")
        self.assertEqual(result.stdout, f"ok200 1 https://localhost:{self.secure}/a?b=c", result.stderr)
        result = self.curl(f"http://localhost:{self.plain}/post", "-L", "-d", "x=1", "-w", "%{http_code}")
        self.assertEqual(result.stdout, "ok200")
        self.assertTrue(self.stage.heads[-1].startswith(b"POST /post "))

    def test_client_certificates(self) -> None:
        """Who has a certificate of the authority comes in and is named to servers, by nobody else; who has another's does not."""
        for entrypoint, who, subject in (("mutual", "alice", b"CN=alice"), ("optional", "alice", b"CN=alice"), ("optional", None, None)):
            own = [] if who is None else ["--cert", f"{self.folder}/{who}.crt", "--key", f"{self.folder}/{who}.key"]
            for version, forged in (("--http1.1", "X-Subject: CN=root"), ("--http2", "x-subject: CN=root")):
                result = self.curl(f"https://localhost:{getattr(self, entrypoint)}/", version, *own, "-H", forged)
                self.assertEqual(result.stdout, "ok", result.stderr)
                found = re.findall(rb"(?i)\r\nx.subject: ([^\r]*)", self.stage.heads[-1])
                self.assertEqual(found, [] if subject is None else [subject])
        mallory = ["--cert", f"{self.folder}/mallory.crt", "--key", f"{self.folder}/mallory.key"]
        for entrypoint, own, reason in (
            ("mutual", [], "tls-client-certificate-missing"),
            ("mutual", mallory, "tls-client-certificate-refused"),
            ("optional", mallory, "tls-client-certificate-refused"),
        ):
            before = self.refused(entrypoint, reason)
            result = self.curl(f"https://localhost:{getattr(self, entrypoint)}/", *own)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("alert", result.stderr)
            self.wait_refused(entrypoint, reason, before + 1)


class OpensslTests(TlsCase):
    """
    OpenSSL's own client.
    """

    skip = missing("openssl")

    def openssl(self, port: int, *options: str | Path) -> str:
        """
        Make one connection, and return what is said about it.
        """
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", self.folder / "ca.pem", *options]
        result = run_command([str(word) for word in words], timeout=20)
        return result.stdout + result.stderr

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken where nothing is said, older ones nowhere; `min_version` holds for every name."""
        for option, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            self.assertIn(f"New, {version}", self.openssl(self.secure, option))
        before = self.refused("secure", "tls-version-refused")
        for option in ("-tls1_1", "-tls1"):
            self.assertIn("alert protocol version", self.openssl(self.secure, option, "-cipher", "ALL:@SECLEVEL=0"))
        self.wait_refused("secure", "tls-version-refused", before + 2)
        for name in ("localhost", "shop.test", "a.shop.test"):
            self.assertIn("alert protocol version", self.openssl(self.strict, "-servername", name, "-tls1_2"))
            self.assertIn("New, TLSv1.3", self.openssl(self.strict, "-servername", name))
        self.assertIn("unrecognized name", self.openssl(self.strict, "-servername", "other.test"))

    def test_ciphers(self) -> None:
        """With TLS 1.2, only ciphers with forward secrecy and authenticated encryption are spoken."""
        for cipher, expected in (
            ("ECDHE-ECDSA-AES128-GCM-SHA256", "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
            ("ECDHE-RSA-CHACHA20-POLY1305", "Cipher is ECDHE-RSA-CHACHA20-POLY1305"),
            ("AES128-GCM-SHA256", "alert handshake failure"),
            ("ECDHE-RSA-AES128-SHA", "alert handshake failure"),
            ("DHE-RSA-AES128-GCM-SHA256", "alert handshake failure"),
        ):
            self.assertIn(expected, self.openssl(self.secure, "-tls1_2", "-cipher", cipher, "-servername", "localhost"), cipher)

    def test_resumption(self) -> None:
        """A session is resumed in either version, also with a certificate of the client."""
        session = self.folder / "session"
        for port, own in ((self.secure, []), (self.mutual, ["-cert", self.folder / "alice.crt", "-key", self.folder / "alice.key"])):
            for option in ("-tls1_2", "-tls1_3"):
                # Tickets of TLS 1.3 come after the handshake, so something is asked.
                context = ["-servername", "localhost", option, *map(str, own)]
                words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *context, "-sess_out", str(session), "-ign_eof"]
                request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                result = subprocess.run(words, input=request, capture_output=True, timeout=20, check=False)
                self.assertIn(b"HTTP/1.1 200 OK", result.stdout)
                self.assertIn("Reused, TLS", self.openssl(port, *context, "-sess_in", session))

    def test_protocols(self) -> None:
        """The protocol is chosen by ALPN; a client that speaks none of ours is told so."""
        self.assertIn("ALPN protocol: http/1.1", self.openssl(self.secure, "-alpn", "http/1.1"))
        self.assertIn("No ALPN negotiated", self.openssl(self.secure))
        self.assertIn("no application protocol", self.openssl(self.secure, "-alpn", "imap"))

    def test_chain(self) -> None:
        """The certificate is the one for the name, and verifies."""
        for name, subject in (("localhost", "localhost"), ("a.shop.test", "a.shop.test")):
            said = self.openssl(self.secure, "-servername", name, "-verify_hostname", subject)
            self.assertIn("Verify return code: 0 (ok)", said)

    def test_renegotiation(self) -> None:
        """A client that wants to negotiate anew under TLS 1.2 does not get its way."""
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.secure}", "-tls1_2", "-legacy_renegotiation"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdin is not None
            time.sleep(0.5)
            process.stdin.write(b"R\n")
            process.stdin.flush()
            try:
                said, _ = process.communicate(timeout=3)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
        self.assertIn(b"RENEGOTIATING", said)
        self.assertIn(b"no renegotiation", said)


class EdgeTests(TlsCase):
    """
    Clients that are slow, wrong or gone.
    """

    def raw(self, port: int, data: bytes) -> bytes:
        """
        Say something without TLS, and return the answer to its end.
        """
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(data)
            heard = b""
            while piece := client.recv(65536):
                heard += piece
        return heard

    def test_plain_http(self) -> None:
        """Plain HTTP on the port for HTTPS is answered with what to do."""
        before = self.refused("secure", "plain-http-on-tls")
        heard = self.raw(self.secure, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertTrue(heard.startswith(b"HTTP/1.1 400 "), heard)
        self.assertIn(b"use an https:// URL", heard)
        self.wait_refused("secure", "plain-http-on-tls", before + 1)

    def test_garbage(self) -> None:
        """Garbage is answered with an alert of TLS, and counted."""
        before = self.refused("secure", "tls-malformed")
        for data in (b"SSH-2.0-OpenSSH_9.2p1\r\n", b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", b"\x80\x2e\x01\x00\x02"):
            heard = self.raw(self.secure, data)
            self.assertEqual((heard[:1], len(heard)), (b"\x15", 7))
        self.wait_refused("secure", "tls-malformed", before + 3)

    def test_slow_handshake(self) -> None:
        """Whoever takes too long for the handshake is let go."""
        before = self.refused("hasty", "tls-timeout")
        began = time.monotonic()
        self.assertEqual(self.raw(self.hasty, b"\x16\x03\x01"), b"")
        self.assertTrue(0.9 < time.monotonic() - began < 6)
        self.wait_refused("hasty", "tls-timeout", before + 1)

    def test_swap(self) -> None:
        """Other files are shown to new clients soon, while those who are connected go on; useless ones change nothing."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

        def serial() -> str:
            raw = socket.create_connection(("127.0.0.1", self.hasty), PATIENCE)
            with raw, context.wrap_socket(raw, server_hostname="localhost") as end:
                certificate = end.getpeercert()
                assert certificate is not None
                return str(certificate["serialNumber"])

        raw = socket.create_connection(("127.0.0.1", self.hasty), PATIENCE)
        with raw, context.wrap_socket(raw, server_hostname="localhost") as kept:
            old = serial()
            self.write("localhost", AUTHORITY.issue("localhost"))
            wait_until(lambda: serial() != old, "the new certificate is shown", 8.0)
            new = serial()
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertTrue(kept.recv(65536).startswith(b"HTTP/1.1 200 "))
            (self.folder / "localhost.key").write_bytes(b"nothing")
            wait_until(lambda: serial() and "TLS error" in self.gateway.stderr(), "the fault is reported", 8.0)
            self.assertEqual(serial(), new)
            self.assertIn("localhost", self.gateway.stderr())
        self.write("localhost", LOCALHOST)
        wait_until(lambda: serial() == old, "the old certificate is back", 8.0)

    def test_many_at_once(self) -> None:
        """Hundreds of handshakes at the same time all succeed, and nothing is left of them."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        failures: list[BaseException] = []

        def run() -> None:
            try:
                for _ in range(25):
                    raw = socket.create_connection(("127.0.0.1", self.secure), PATIENCE)
                    with raw, context.wrap_socket(raw, server_hostname="localhost") as end:
                        end.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                        assert end.recv(65536).startswith(b"HTTP/1.1 200 ")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(failures, [])
        self.check_unharmed()

    def test_secrets(self) -> None:
        """Nothing of a key is in the log or in the API, and the end of each certificate is in the metrics."""
        told = fetch(self.port, "/api/gateway/config").body.decode() + self.gateway.stderr() + self.gateway.stdout()
        for identity in (LOCALHOST, RSA, SHOP):
            for line in identity.key_pem().decode().splitlines()[1:-1]:
                self.assertNotIn(line, told)
        samples = metrics(self.port)
        for title, identity in (("localhost", LOCALHOST), ("*.shop.test, shop.test", SHOP)):
            ends = samples[f'gateway_certificate_expiry_timestamp_seconds{{entrypoint="secure",names="{title}"}}']
            self.assertAlmostEqual(ends, identity.certificate.not_valid_after_utc.timestamp(), delta=3600)


class ValidationTests(TlsCase):
    """
    What `validate` says.
    """

    def validate(self, inside: str) -> tuple[int, str]:
        """
        Return the exit code and what was said about an entrypoint with this in its `tls`.
        """
        path = self.folder / "gateway.hcl"
        path.write_text(configure(free_port(), service("app", [1]), entrypoint=f"  tls {{\n    {inside}\n  }}"))
        result = run_command([sys.executable, "-m", "a3sgw.cli", "validate", "--config", path])
        return result.returncode, result.stdout + result.stderr

    def test_files(self) -> None:
        """Files that cannot be used are named, with their place in the configuration."""
        (self.folder / "empty").write_bytes(b"")
        self.write("other", AUTHORITY.issue("localhost"))
        good = f'cert_file = "{self.folder}/localhost.crt"\n    key_file = "{self.folder}/KEY"'
        for inside, complaint in (
            (good.replace("KEY", "localhost.key"), None),
            (good.replace("KEY", "nowhere"), 'gateway.hcl:6:16: TLS error: entrypoints.web.tls.key_file cannot be read: No such file'),
            (good.replace("KEY", "empty"), "TLS error: entrypoints.web.tls.key_file is empty"),
            (good.replace("KEY", "ca.pem"), "key_file is no private key in PEM"),
            (good.replace("KEY", "other.key"), "key_file is not the key of the certificate in cert_file"),
            (good.replace("KEY", "localhost.key").replace("localhost.crt", "empty"), "TLS error: entrypoints.web.tls.cert_file is empty"),
            (
                good.replace("KEY", "localhost.key") + f'\n    client_auth = "require"\n    client_ca_file = "{self.folder}/empty"',
                "TLS error: entrypoints.web.tls.client_ca_file is empty",
            ),
            ("acme = true\n    acme_email = \"a@b.test\"", "this version does not run acme yet"),
            (good.replace("KEY", "localhost.key") + '\n    min_version = "1.1"', "min_version"),
            (good.replace("KEY", "localhost.key") + '\n    cipher_suites = ["TLS_RSA_WITH_RC4_128_MD5"]', "cipher_suites"),
        ):
            code, said = self.validate(inside)
            self.assertEqual(code, int(complaint is not None), said)
            self.assertIn(complaint or "", said)

    def test_expired(self) -> None:
        """A certificate that has expired is warned of, and does not keep anybody from running."""
        self.write("expired", AUTHORITY.issue("localhost", lasts=timedelta(hours=-1)))
        code, said = self.validate(f'cert_file = "{self.folder}/expired.crt"\n    key_file = "{self.folder}/expired.key"')
        self.assertEqual(code, 0)
        self.assertIn("entrypoints.web.tls.cert_file has expired", said)


class TestsslTests(TlsCase):
    """
    testssl.sh, which knows what a TLS server must not do.
    """

    skip = missing("testssl")
    timeout = 300

    def test_nothing_to_complain_about(self) -> None:
        """It finds no weakness in protocols, ciphers, or known attacks."""
        program = find_program("testssl")
        assert program is not None
        found = self.folder / "found.json"
        words = [program, "--quiet", "--color", "0", "--warnings", "off", "-p", "-s", "-f", "-U", "--fast", "--jsonfile", str(found)]
        run_command([*words, f"localhost:{self.secure}"], timeout=240)
        rows = json.loads(found.read_text())
        self.assertGreater(len(rows), 30)
        # A warning is about what it could not try, because its own OpenSSL is too new.
        bad = [row for row in rows if row["severity"] not in ("OK", "INFO", "WARN")]
        self.assertEqual([(row["id"], row["severity"], row["finding"]) for row in bad], [])
