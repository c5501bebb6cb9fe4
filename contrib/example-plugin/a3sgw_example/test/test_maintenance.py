"""
Tests of `example-maintenance`: the contract that every middleware has to pass, and what this one is for.

`Dialogue` is a whole gateway in memory. The test plays the clients and the servers, and time passes only when it says so.
"""

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook, IStateSource
from a3sgw.loading import load_string
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.testing import Dialogue, middleware_contract
from a3sgw_example.maintenance import Maintenance, factory

CONFIG = """
entrypoints "web" {{ address = "127.0.0.1:8080" }}
routers "shop" {{
  rule        = "PathPrefix(`/`)"
  service     = "shop"
  middlewares = ["closed"]
}}
middlewares "closed" {{
  type = "example-maintenance"
  {attributes}
}}
services "shop" {{
  load_balancer {{ servers = [{{ url = "http://192.0.2.10" }}] }}
}}
"""

REQUEST = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 2\r\n\r\nok"


class MaintenanceContract(middleware_contract(factory, 'file = "/nowhere/closed"')):
    """
    What every middleware promises.
    """

    def test_phases(self):
        """It looks at requests, and tells of its state."""
        built = Maintenance(self.config(), still_surroundings("a test"))
        verifyObject(IRequestHook, built)
        verifyObject(IStateSource, built)


class MaintenanceCase(SynchronousTestCase):
    """
    A gateway with the middleware, and a folder for the files it looks at.
    """

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)
        self.file = self.folder / "closed"

    def text(self, *attributes):
        """
        Return a configuration with these attributes besides the file.
        """
        return CONFIG.format(attributes="\n  ".join([f'file = "{self.file}"', *attributes]))

    def begin(self, *attributes):
        """
        Start a gateway.
        """
        self.dialogue = Dialogue(self.text(*attributes))
        self.addCleanup(self.dialogue.assert_clean, self)

    def ask(self, data=REQUEST, peer="192.0.2.1"):
        """
        Return what a client at the address `peer` hears; the server, if it is asked, says OK.
        """
        client = self.dialogue.connect(peer)
        self.dialogue.say(client, data)
        for backend in self.dialogue.backends:
            if self.dialogue.hear(backend):
                self.dialogue.say(backend, OK)
        heard = self.dialogue.hear(client)
        client.close()
        self.dialogue.reactor.settle()
        return heard

    def assert_closed(self, heard):
        self.assertTrue(heard.startswith(b"HTTP/1.1 503 "), heard)


class MaintenanceTests(MaintenanceCase):
    """
    The site is closed while the file exists.
    """

    def test_open(self):
        """Without the file nothing happens."""
        self.begin()
        self.assertEqual(self.ask(), OK)

    def test_closed(self):
        """With it, people are told when to come back, and the server is not asked."""
        self.file.touch()
        self.begin("retry_after_secs = 90")
        heard = self.ask()
        self.assert_closed(heard)
        self.assertIn(b"\r\nRetry-After: 90\r\n", heard)
        self.assertIn(b"\r\nCache-Control: no-store\r\n", heard)
        self.assertTrue(heard.endswith(b"<p>This site is being worked on.</p>\n"), heard)
        self.assertEqual((self.dialogue.backends, self.dialogue.outcomes()), ([], ["answered"]))

    def test_head(self):
        """The answer to HEAD is the same without the page."""
        self.file.touch()
        self.begin()
        heard = self.ask(REQUEST.replace(b"GET", b"HEAD"))
        self.assert_closed(heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)

    def test_while_running(self):
        """The file may come and go; it is looked for once in an interval."""
        self.begin("check_interval_ms = 5000")
        self.assertEqual(self.ask(), OK)
        self.file.touch()
        self.dialogue.reactor.advance(4)
        self.assertEqual(self.ask(), OK)
        self.dialogue.reactor.advance(1)
        self.assert_closed(self.ask())
        self.file.unlink()
        self.dialogue.reactor.advance(5)
        self.assertEqual(self.ask(), OK)

    def test_allowed(self):
        """Some may pass all the same; nobody does by saying that he is somebody else."""
        self.file.touch()
        self.begin('allowed_ips = ["198.51.100.0/24", "2001:db8::1"]')
        for peer in ("198.51.100.7", "::ffff:198.51.100.7", "2001:db8::1"):
            self.assertEqual(self.ask(peer=peer), OK, peer)
        self.assert_closed(self.ask(REQUEST.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n")))

    def test_page(self):
        """One's own page is shown, and a reload takes up what changed in it."""
        page = self.folder / "page.html"
        page.write_text("<p>Zurück um acht</p>", "utf-8")
        self.file.touch()
        self.begin(f'page = "{page}"')
        self.assertTrue(self.ask().endswith("<p>Zurück um acht</p>".encode()))
        page.write_text("<p>Zurück um neun</p>", "utf-8")
        self.dialogue.reload(self.text(f'page = "{page}"'))
        self.assertTrue(self.ask().endswith("<p>Zurück um neun</p>".encode()))

    def test_state(self):
        """The state that the gateway's API shows is what the last request met."""
        self.file.touch()
        self.begin()
        self.ask()
        [row] = self.successResultOf(self.dialogue.carrier.snapshot())["gauges"]["middlewares"]
        self.assertEqual((row["name"], row["state"]), ("closed", {"site": "closed"}))


class ConfigTests(MaintenanceCase):
    """
    What is found before anything runs.
    """

    def problems(self, *attributes):
        return [str(problem) for problem in load_string(self.text(*attributes), "gw.hcl", {}).problems]

    def test_refused(self):
        """Each mistake is found with its place."""
        bad = self.folder / "bad.html"
        bad.write_bytes(b"\xff")
        for attribute, text in (
            ("alowed_ips = []", 'gw.hcl:11:3: unknown attribute "alowed_ips" in middleware "closed"; did you mean "allowed_ips"?'),
            ('allowed_ips = ["office"]', 'gw.hcl:11:18: middlewares.closed.allowed_ips[0] is "office"'),
            ("retry_after_secs = 0", "gw.hcl:11:22: middlewares.closed.retry_after_secs is 0"),
            (f'page = "{self.file}"', 'gw.hcl:11:10: middleware "closed" shows the page '),
            (f'page = "{self.folder}/none.html"', "gw.hcl:11:10: middlewares.closed.page cannot be read: No such file"),
            (f'page = "{bad}"', "gw.hcl:11:10: middlewares.closed.page is not text in UTF-8"),
        ):
            [problem] = self.problems(attribute)
            self.assertTrue(problem.startswith(text), problem)
        self.assertEqual(self.problems(), [])

    def test_advice(self):
        """A relative path is accepted, with a warning."""
        self.file = Path("closed")
        loaded = load_string(self.text(), "gw.hcl", {})
        self.assertEqual(loaded.problems, ())
        [warning] = loaded.warnings
        self.assertIn("middlewares.closed.file is a relative path", str(warning))
