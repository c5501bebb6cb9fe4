"""
Tests of the checks of entrypoints.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config import model
from a3sgw.config.check import check
from a3sgw.config.test.loading import check_problems
from a3sgw.config.values import FrozenMap


def _entrypoints(*addresses):
    return "".join(f'entrypoints "e{index}" {{ address = "{address}" }}\n' for index, address in enumerate(addresses))


class EntrypointTests(SynchronousTestCase):
    """
    Entrypoints exist, and use only what their protocol knows.
    """

    def test_none(self):
        """
        C4: an empty or truncated file is not a configuration.
        """
        for text in ("", "# nothing\n", 'services "s" {\n load_balancer { servers = [{ url = "http://a" }] }\n}'):
            self.assertEqual(
                check_problems(text),
                ['gw.hcl:1:1: there is no entrypoint; at least one is required, as in entrypoints "web" { address = ":8080" }'],
            )

    def test_none_but_a_broken_one(self):
        """
        Where the only entrypoint is broken, that alone is the problem.
        """
        self.assertEqual(check_problems('entrypoints "a" { address = "x" }'), [])

    def test_protocol(self):
        """
        C9: what means nothing to the protocol is refused, even at its default.
        """
        cases = [
            ("tcp", 'timeouts { idle = "5s" }', "timeouts is for http entrypoints only"),
            ("tcp", "forwarded_headers { trusted_ips = [] }", "forwarded_headers is for http entrypoints only"),
            ("tcp", "merge_slashes = true", "merge_slashes is for http entrypoints only"),
            ("udp", "max_connections = 5", "max_connections is for http and tcp entrypoints only"),
            ("udp", 'tls {\n cert_file = "a"\n key_file = "b"\n }', "tls is for http and tcp entrypoints only"),
            ("http", "udp_max_sessions = 5", "udp_max_sessions is for udp entrypoints only"),
            ("http", "udp_session_timeout_secs = 30", "udp_session_timeout_secs is for udp entrypoints only"),
        ]
        for protocol, line, expected in cases:
            problems = check_problems(f'entrypoints "e" {{\n address = ":80"\n protocol = "{protocol}"\n {line}\n}}')
            self.assertEqual(problems, [f"gw.hcl:4:{self.column(line)}: entrypoints.e.{expected}, and this one speaks {protocol}"])

    def column(self, line):
        return 2 if "{" in line else line.index("=") + 4

    def test_protocol_fits(self):
        """
        A connection cap and an address list are for http as well as for tcp.
        """
        for protocol in ("http", "tcp"):
            text = f'entrypoints "e" {{\n address = ":80"\n protocol = "{protocol}"\n max_connections = 5\n tcp_allowed_ips = ["::1"]\n}}'
            self.assertEqual(check_problems(text), [])


class AddressTests(SynchronousTestCase):
    """
    C10: listeners that cannot listen side by side are found before anything is bound.
    """

    def test_collisions(self):
        """
        One address, a wildcard, a name and its address collide.
        """
        for one, other in (
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("127.0.0.1:80", ":80"),
            (":80", "[::1]:80"),
            ("[::]:80", "[2001:db8::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("LOCALHOST:80", "[::1]:80"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("a.test:80", "A.test:80"),
            ("a.test:80", "0.0.0.0:80"),
        ):
            self.assertEqual(
                check_problems(_entrypoints(one, other)),
                [f'gw.hcl:2:30: entrypoint "e1" listens on "{other}", which entrypoint "e0" (gw.hcl:1:30) already takes with "{one}"'],
            )

    def test_side_by_side(self):
        """
        Other ports, other addresses, the other IP version and ports chosen by the system do not collide.
        """
        for addresses in (
            (":80", ":81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "[::]:80"),
            ("127.0.0.1:80", "[::]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("a.test:80", "b.test:80"),
        ):
            self.assertEqual(check_problems(_entrypoints(*addresses)), [])

    def test_protocols(self):
        """
        TCP and UDP have ports of their own; HTTP is on TCP.
        """
        text = _entrypoints(":53") + 'entrypoints "u" {\n address = ":53"\n protocol = "%s"\n}'
        self.assertEqual(check_problems(text % "udp"), [])
        self.assertEqual(len(check_problems(text % "tcp")), 1)

    def test_dashboard(self):
        """
        The dashboard's own listener is one of them, if there is a dashboard.
        """
        text = _entrypoints(":80") + 'dashboard {\n address = "127.0.0.1:80"\n enabled = %s\n}'
        self.assertEqual(
            check_problems(text % "true"),
            ['gw.hcl:3:12: the dashboard listens on "127.0.0.1:80", which entrypoint "e0" (gw.hcl:1:30) already takes with ":80"'],
        )
        self.assertEqual(check_problems(text % "false"), [])

    def test_foreign(self):
        """
        An address from the environment is not printed.
        """
        found = check_problems(_entrypoints("${A}", "127.0.0.1:4711"), {"A": "0.0.0.0:4711"})
        self.assertEqual(len(found), 1)
        self.assertNotIn("0.0.0.0", found[0])

    def test_hand_made(self):
        """
        A configuration made in Python, without any positions, is checked as well.
        """
        web = model.EntrypointConfig(name="web", address="nowhere")
        problems = check(model.GatewayConfig(entrypoints=FrozenMap({"web": web})), {})
        self.assertEqual(
            [str(problem) for problem in problems],
            ['entrypoints.web.address is "nowhere", which names no port; write host:port, as in ":8080"'],
        )


class TlsTests(SynchronousTestCase):
    """
    What is said about TLS fits together.
    """

    PAIR = 'cert_file = "c"\n key_file = "k"\n '
    ACME = 'acme = true\n acme_email = "a@b.test"\n '

    def tls(self, body):
        return check_problems(f'entrypoints "e" {{\n address = ":443"\n tls {{\n {body}\n}}\n}}')

    def test_good(self):
        """
        Files, several pairs, ACME, and several of these are all right.
        """
        for body in (
            self.PAIR,
            self.ACME,
            self.PAIR + self.ACME,
            'certificates = [{ cert_file = "c", key_file = "k" }]',
            self.PAIR + 'client_ca_file = "a"\n client_auth = "require"',
            self.ACME + 'acme_challenge = "dns-01"\n acme_domains = ["*.a.test"]\n'
            + 'acme_dns {\n provider = "route53"\n api_token = "K:S"\n zone_id = "Z"\n}',
            self.ACME + 'acme_directory_url = "https://ca.test/dir"\n acme_ca_file = "ca.pem"',
            self.ACME + 'acme_eab_kid = "k"\n acme_eab_hmac_key = "h"',
        ):
            self.assertEqual(self.tls(body), [], body)

    def test_bad(self):
        """
        C11, C12, C13, C15: what is missing, contradicts itself or would have no effect is named.
        """
        cases = [
            ("", "has no certificate"),
            ('cert_file = "c"', "has cert_file but no key_file"),
            ('key_file = "k"', "has key_file but no cert_file"),
            ('client_ca_file = "a"\n' + self.PAIR, "client_ca_file has no effect"),
            ('client_auth = "optional"\n' + self.PAIR, "no client can be verified"),
            ('client_subject_header = "X-Client"\n' + self.PAIR, "client_subject_header has no effect"),
            ('min_version = "1.3"\n cipher_suites = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]\n' + self.PAIR, "are for TLS 1.2"),
            ("acme = true", "no acme_email"),
            ('acme_email = "a@b.test"\n' + self.PAIR, "acme_email has no effect without acme = true"),
            (self.ACME + 'acme_domains = ["*.a.test"]', "a wildcard, which needs acme_challenge"),
            (self.ACME + 'acme_challenge = "dns-01"', "needs the block acme_dns"),
            (self.ACME + 'acme_dns {\n provider = "cloudflare"\n api_token = "t"\n}', "acme_dns has no effect"),
            (self.ACME + 'acme_eab_kid = "k"', "only one of acme_eab_kid and acme_eab_hmac_key"),
            (self.ACME + 'acme_staging = true\n acme_directory_url = "https://ca.test/dir"', "both acme_staging and acme_directory_url"),
            (
                self.ACME + 'acme_challenge = "dns-01"\n acme_dns {\n provider = "route53"\n api_token = "hunter2"\n}',
                "api_token must be KEYID:SECRET",
            ),
        ]
        for body, expected in cases:
            problems = self.tls(body)
            self.assertEqual(len(problems), 1, f"{body}\n{problems}")
            self.assertIn(expected, problems[0])
            self.assertNotIn("hunter2", problems[0])

    def test_redirects(self):
        """
        An entrypoint redirects to a port, or to an entrypoint that speaks HTTPS at a known one.
        """
        secure = f'entrypoints "s" {{\n address = "ADDRESS"\n tls {{\n {self.PAIR}}}\n}}\n'
        for target, address, expected in (
            ("s", ":443", None),
            (":443", ":443", None),
            (":8443", ":0", None),
            (":0", ":443", 'expected a port like ":443"'),
            (":x", ":443", 'expected a port like ":443"'),
            ("t", ":443", 'redirects to entrypoint "t"'),
            ("e", ":443", "that speaks no HTTPS"),
            ("s", ":0", "whose port is only known when it listens"),
        ):
            text = secure.replace("ADDRESS", address) + f'entrypoints "e" {{\n address = ":80"\n redirect_to = "{target}"\n}}'
            problems = check_problems(text)
            self.assertEqual(len(problems), expected is not None, (target, problems))
            if expected is not None:
                self.assertIn(expected, problems[0])
        text = secure.replace("ADDRESS", ":443").replace(" tls", ' redirect_to = ":1"\n tls')
        self.assertIn("is for entrypoints without TLS", check_problems(text)[0])

    def test_consequences(self):
        """
        What only follows from a broken value is not reported.
        """
        self.assertEqual(self.tls('cert_file = 5\n key_file = "k"'), [])
        self.assertEqual(self.tls('acme = true\n acme_email = "nobody"'), [])
        self.assertEqual(self.tls("acme = 5"), [])
