"""
Tests of the checks of a whole configuration; those of entrypoints and services are beside.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.check import advise
from a3sgw.config.test.loading import ENTRYPOINT, check_problems, decoded, load

_BACKEND = 'services "backend" {\n load_balancer { servers = [{ url = "http://a" }] }\n}\n'


class ReferenceTests(SynchronousTestCase):
    """
    What a part of the configuration names exists.
    """

    def check(self, text, *expected, environ=None):
        self.assertEqual(check_problems(ENTRYPOINT + _BACKEND + text, environ), list(expected))

    def router(self, body):
        return f'routers "api" {{\n  rule = "x"\n  {body}\n}}\n'

    def test_service(self):
        """
        The service of a router exists; the problem stands where the name does.
        """
        self.check(self.router('service = "backend"'))
        self.check(self.router('service = "bakend"'), 'gw.hcl:7:13: router "api" names service "bakend"; did you mean "backend"?')
        self.check(self.router('service = "zzz"'), 'gw.hcl:7:13: router "api" names service "zzz", which does not exist')

    def test_entrypoints_and_middlewares(self):
        """
        So do its entrypoints and middlewares, each of which is looked at.
        """
        self.check(
            self.router('service = "backend"\n  entrypoints = ["web", "wep"]\n  middlewares = ["zip", "zap"]')
            + 'middlewares "zip" { type = "compress" }',
            'gw.hcl:8:25: router "api" names entrypoint "wep"; did you mean "web"?',
            'gw.hcl:9:25: router "api" names middleware "zap"; did you mean "zip"?',
        )

    def test_entrypoint_middlewares(self):
        """
        The middlewares of an entrypoint exist too.
        """
        self.check(
            'entrypoints "b" {\n address = ":81"\n middlewares = ["nope"]\n}',
            'gw.hcl:7:17: entrypoint "b" names middleware "nope", which does not exist',
        )

    def test_broken_is_there(self):
        """
        A name whose definition is broken is known: there is one problem, not two.
        """
        text = self.router('service = "other"\n middlewares = ["m"]\n entrypoints = ["e"]')
        broken = 'services = { other = 5 }\nmiddlewares "m" { type = "nope" }\nentrypoints "e" {}'
        self.assertEqual(len(decoded(ENTRYPOINT + text + broken).problems), 3)
        self.assertEqual(check_problems(ENTRYPOINT + text + broken), [])

    def test_dns(self):
        """
        C31: a service may come from the DNS alone.
        """
        self.check(self.router('service = "found"') + 'providers {\n dns "found" { hostname = "a.test" }\n}')

    def test_foreign(self):
        """
        A name from the environment is not printed, nor is a guess made from it.
        """
        self.check(
            self.router('service = "${S}"'),
            'gw.hcl:7:13: router "api" names service a value from the environment or a file, which does not exist',
            environ={"S": "bakend"},
        )

    def test_strange_names(self):
        """
        Names with dots are found again.
        """
        self.check(
            'routers "a.b" {\n rule = "x"\n service = "c.d"\n}', 'gw.hcl:7:12: router "a.b" names service "c.d", which does not exist'
        )

    def test_many(self):
        """
        A thousand wrong names are a thousand problems, few of them with a guess.
        """
        text = "".join(f'routers "r{index}" {{\n rule = "x"\n service = "bakend"\n}}\n' for index in range(1000))
        problems = check_problems(ENTRYPOINT + _BACKEND + text)
        self.assertEqual(len(problems), 1000)
        self.assertEqual(len([problem for problem in problems if "did you mean" in problem]), 50)


class MiddlewareTests(SynchronousTestCase):
    """
    C27, C28, C29: a middleware has what it needs.
    """

    def middleware(self, body):
        return check_problems(f'{ENTRYPOINT}middlewares "m" {{\n {body}\n}}')

    def test_one_of(self):
        """
        A secret is written in the file or in one of its own, not in both or neither.
        """
        jwt_ways = "value or value_file or public_key_file or jwks_url"
        for kind, word, value, ways in (("api-key", "keys", '["a"]', "keys or keys_file"), ("jwt", "value", '"a"', jwt_ways)):
            head = f'type = "{kind}"\n '
            self.assertEqual(self.middleware(f"{head}{word} = {value}"), [])
            self.assertEqual(self.middleware(f'{head}{word}_file = "f"'), [])
            self.assertEqual(self.middleware(head), [f'gw.hcl:2:1: middleware "m" of type "{kind}" requires {ways}'])
            both = self.middleware(f'{head}{word} = {value}\n {word}_file = "f"')
            self.assertEqual(len(both), 1)
            self.assertIn(f'middleware "m" has both {word} and {word}_file; give one of them', both[0])

    def test_consequences(self):
        """
        An empty list of keys or an empty secret is one problem, reported where it was decoded.
        """
        self.assertEqual(self.middleware('type = "api-key"\n keys = []'), [])
        self.assertEqual(self.middleware('type = "jwt"\n value = ""'), [])

    def test_tcp_filter(self):
        """
        A filter filters something.
        """
        self.assertEqual(self.middleware('type = "tcp-filter"\n allowed_ips = ["::1"]'), [])
        self.assertEqual(self.middleware('type = "tcp-filter"\n max_connections = 0'), [])
        self.assertIn("filters nothing", self.middleware('type = "tcp-filter"')[0])


class DashboardTests(SynchronousTestCase):
    """
    The dashboard can be reached as it says.
    """

    def dashboard(self, body):
        return check_problems(f'{ENTRYPOINT}entrypoints "t" {{\n address = ":81"\n protocol = "tcp"\n}}\ndashboard {{\n {body}\n}}')

    def test_entrypoints(self):
        """
        C6: it is on entrypoints that exist and speak HTTP.
        """
        self.assertEqual(self.dashboard('entrypoints = ["web"]'), [])
        self.assertEqual(
            self.dashboard('entrypoints = ["wep", "t"]'),
            [
                'gw.hcl:7:17: the dashboard names entrypoint "wep"; did you mean "web"?',
                'gw.hcl:7:24: the dashboard names entrypoint "t", which speaks tcp and not http',
            ],
        )

    def test_credentials(self):
        """
        A name comes with a password.
        """
        self.assertEqual(self.dashboard('username = "u"\n password = "p"'), [])
        self.assertEqual(self.dashboard('keys = ["k"]'), [])
        for body in ('username = "u"', 'password = "p"'):
            self.assertEqual(len(self.dashboard(body)), 1)


class ObservabilityTests(SynchronousTestCase):
    """
    Buckets rise.
    """

    def test_buckets(self):
        """
        Buckets that do not rise are refused.
        """
        text = ENTRYPOINT + "observability {\n metrics { buckets = [%s] }\n}"
        self.assertEqual(check_problems(text % "0.1, 0.5, 1"), [])
        for buckets in ("0.1, 0.1", "0.5, 0.1, 1"):
            self.assertIn("observability.metrics.buckets[1] is 0.1, which is not more than", check_problems(text % buckets)[0])


class AdviceTests(SynchronousTestCase):
    """
    What is allowed but unwise is a warning.
    """

    def test_short_secret(self):
        """
        A JWT secret shorter than 32 bytes works, with a warning that does not show it.
        """
        text = ENTRYPOINT + 'middlewares "m" {\n type = "jwt"\n value = "%s"\n}'
        result = decoded(text % ("x" * 31))
        self.assertEqual(
            [str(problem) for problem in advise(result.config, result.positions)],
            ["gw.hcl:4:10: middlewares.m.value has fewer than 32 bytes, which makes HS256 tokens easier to forge"],
        )
        loaded = load(text % ("x" * 31))
        self.assertEqual((len(loaded.warnings), loaded.problems), (1, ()))
        self.assertEqual(load(text % ("x" * 32)).warnings, ())
        self.assertEqual(load(text % ("ä" * 16)).warnings, ())
