"""
Tests of `a3sgw.source`.
"""

import os

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.model import EntrypointConfig, FrozenMap, GatewayConfig, LimitsConfig, TlsConfig
from a3sgw.source import DEFAULT_PATH, Source, SourceError, find_source, with_listen

VALID = """\
entrypoints "web" {
  address = "127.0.0.1:8080"
  limits { max_header_count = 7 }
}
"""


class DirectoryCase(SynchronousTestCase):
    """
    A test in an empty working directory.
    """

    def setUp(self):
        self.addCleanup(os.chdir, os.getcwd())
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        os.chdir(self.directory)

    def write(self, text, name=DEFAULT_PATH):
        """
        Write a file and return its name.
        """
        with open(name, "w", encoding="utf-8") as stream:
            stream.write(text)
        return name


class FindTests(DirectoryCase):
    """
    Which file a command line means.
    """

    def test_named_file(self):
        """
        A file that is named is taken, and must be there.
        """
        self.write(VALID, "other.hcl")
        self.assertEqual(find_source("other.hcl", None, {}), Source("other.hcl", None, {}))
        error = self.assertRaises(SourceError, find_source, "typo.hcl", None, {})
        self.assertIn("typo.hcl: there is no such file", str(error))

    def test_named_file_must_exist_even_with_listen(self):
        """
        `--listen` does not excuse a `--config` that names nothing.
        """
        self.assertRaises(SourceError, find_source, "typo.hcl", ":8080", {})

    def test_default_file(self):
        """
        Without a name it is gateway.hcl; if that is missing, the message says what can be done.
        """
        error = self.assertRaises(SourceError, find_source, None, None, {})
        for remedy in ("gateway.hcl", "--config", "--listen"):
            self.assertIn(remedy, str(error))
        self.write(VALID)
        self.assertEqual(find_source(None, None, {}).path, "gateway.hcl")
        self.assertEqual(find_source(None, ":8080", {}), Source("gateway.hcl", ":8080", {}))

    def test_listen_alone(self):
        """
        `--listen` alone gives one plain HTTP entrypoint, no routers, and nothing to reload.
        """
        source = find_source(None, "127.0.0.1:9000", {})
        self.assertEqual((source.path, source.reloader()), (None, None))
        loaded = source.load()
        self.assertEqual(dict(loaded.valid_config().routers), {})
        self.assertEqual(dict(loaded.valid_config().entrypoints), {"web": EntrypointConfig(name="web", address="127.0.0.1:9000")})

    def test_bad_listen(self):
        """
        An address that cannot be listened on is refused with the reason.
        """
        self.write(VALID)
        for listen in ("8080", "localhost", "127.0.0.1:99999", "http://x:80", "1.2.3.400:80", ""):
            error = self.assertRaises(SourceError, find_source, None, listen, {})
            self.assertIn(f'"{listen}"', str(error))


class ListenTests(DirectoryCase):
    """
    What `--listen` changes.
    """

    def test_address_only(self):
        """
        Whatever else is set for `web` stays: TLS, limits, everything.
        """
        web = EntrypointConfig(
            name="web", address="0.0.0.0:80", protocol="tcp", tls=TlsConfig(min_version="1.3"), limits=LimitsConfig(max_header_count=7)
        )
        admin = EntrypointConfig(name="admin", address="127.0.0.1:81")
        config = GatewayConfig(entrypoints=FrozenMap({"web": web, "admin": admin}), shutdown_timeout_secs=3)
        changed = with_listen(config, "[::1]:9000")
        self.assertEqual(changed.entrypoints["web"].address, "[::1]:9000")
        self.assertEqual(with_listen(changed, "0.0.0.0:80"), config)

    def test_created(self):
        """
        A file without an entrypoint `web` gets one; with it, even a file without any entrypoint is valid.
        """
        self.write('entrypoints "admin" { address = "127.0.0.1:81" }\n')
        loaded = find_source(None, ":9000", {}).load()
        self.assertEqual(loaded.problems, ())
        addresses = {name: entrypoint.address for name, entrypoint in loaded.valid_config().entrypoints.items()}
        self.assertEqual(addresses, {"admin": "127.0.0.1:81", "web": ":9000"})
        self.write("shutdown_timeout_secs = 3\n")
        self.assertNotEqual(find_source(None, None, {}).load().problems, ())
        self.assertEqual(find_source(None, ":9000", {}).load().problems, ())

    def test_clash(self):
        """
        An address that another entrypoint has is a problem, found before the start.
        """
        self.write(VALID + 'entrypoints "admin" { address = "127.0.0.1:81" }\n')
        self.assertEqual(find_source(None, None, {}).load().problems, ())
        problems = find_source(None, "127.0.0.1:81", {}).load().problems
        self.assertEqual(len(problems), 1)
        self.assertIn("127.0.0.1:81", problems[0].message)

    def test_other_problems_stay(self):
        """
        A faulty file stays faulty, and each problem is told once.
        """
        self.write(VALID + 'routers "api" {\n  rule = "Path(`/`)"\n  service = "nowhere"\n}\n')
        before = find_source(None, None, {}).load().problems
        after = find_source(None, ":9000", {}).load().problems
        self.assertEqual(len(before), 1)
        self.assertEqual(after, before)

    def test_unreadable(self):
        """
        What cannot be parsed or read is a problem, with `--listen` as without.
        """
        self.write("entrypoints {{{")
        for listen in (None, ":9000"):
            loaded = find_source(None, listen, {}).load()
            self.assertEqual((loaded.config, len(loaded.problems) > 0), (None, True))
        os.makedirs("folder")
        self.assertEqual(len(find_source("folder", None, {}).load().problems), 1)

    def test_environment(self):
        """
        Variables come from the environment that was given.
        """
        self.write('entrypoints "web" { address = "127.0.0.1:${PORT}" }\n')
        self.assertEqual(find_source(None, None, {"PORT": "7777"}).load().valid_config().entrypoints["web"].address, "127.0.0.1:7777")

    def test_reload_reads_again(self):
        """
        What reloads reads the file as it is then, and `--listen` still holds.
        """
        self.write(VALID)
        load = find_source(None, ":9000", {}).reloader()
        assert load is not None
        self.write(VALID.replace("= 7", "= 8"))
        web = load().valid_config().entrypoints["web"]
        self.assertEqual((web.address, web.limits.max_header_count), (":9000", 8))
