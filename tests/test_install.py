"""
What a stranger gets: a wheel, installed in a fresh environment, away from the checkout.
"""

import os
import re
import signal
import zipfile

from a3sgw._version import __version__
from tests.installation import ANSWER, InstalledCase, wheelhouse
from tests.support import RawServer, free_port


class WheelTests(InstalledCase):
    """
    What is in the wheel.
    """

    def test_contents(self):
        """
        The wheel holds the package with its tests, the plugin and the licence; no tests of the street, and no `__init__.py` of Twisted's.
        """
        with zipfile.ZipFile(wheelhouse().gateway) as archive:
            names = set(archive.namelist())
        for name in ("a3sgw/cli.py", "a3sgw/py.typed", "a3sgw/config/test/__init__.py", "twisted/plugins/a3sgw_plugin.py"):
            self.assertIn(name, names)
        self.assertEqual({name for name in names if name.startswith("twisted/")}, {"twisted/plugins/a3sgw_plugin.py"})
        self.assertEqual({name.split("/")[0] for name in names} - {"a3sgw", "twisted"}, {f"a3s_gateway-{__version__}.dist-info"})
        self.assertTrue(any(name.endswith("LICENSE") for name in names))

    def test_nothing_is_missing(self):
        """
        Every file of the package is in the wheel.
        """
        with zipfile.ZipFile(wheelhouse().gateway) as archive:
            names = set(archive.namelist())
        source = wheelhouse().gateway_source
        files = {str(path.relative_to(source)) for path in (source / "a3sgw").rglob("*") if path.is_file()}
        self.assertTrue(len(files) > 50)
        self.assertEqual(files - names, set())


class CommandTests(InstalledCase):
    """
    The command.
    """

    def test_version(self):
        """
        The command is there and is the installed one.
        """
        result = self.installed.run("a3s-gateway", "--version", cwd=self.directory)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, f"a3s-gateway {__version__}\n", ""))
        where = self.installed.run("python", "-c", "import a3sgw; print(a3sgw.__file__)", cwd=self.directory).stdout
        self.assertTrue(where.startswith(os.fspath(self.installed.root)), where)

    def test_validate(self):
        """
        `validate` reads a configuration and lists what is in it.
        """
        result = self.installed.run("a3s-gateway", "validate", "--config", self.configure(free_port(), free_port()))
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("Routers: 1", result.stdout)

    def test_serves(self):
        """
        The command starts a gateway.
        """
        self.assert_serves("a3s-gateway")

    def test_update(self):
        """
        `update` names the pip of the environment and the wheel it came from.
        """
        result = self.installed.run("a3s-gateway", "update")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn(f"{self.installed.bin}/python", result.stdout)
        self.assertIn(wheelhouse().gateway.name, result.stdout)


class TwistdTests(InstalledCase):
    """
    Twisted's own ways to run it.
    """

    TWISTD = ("python", "-c", "from twisted.scripts.twistd import run; run()")

    def test_serves(self):
        """
        `twistd -n a3s-gateway` starts a gateway, also on the reactor of ours. (It ends by the signal that stopped it; that is its way.)
        """
        self.assert_serves(*self.TWISTD, "-n", "--pidfile=", "a3s-gateway", stop_code=-signal.SIGTERM)
        self.assert_serves(*self.TWISTD, "-n", "--pidfile=", "--reactor=a3sgw", "a3s-gateway", stop_code=-signal.SIGTERM)

    def test_failed_start(self):
        """
        If the address is taken, `twistd` ends with 1 and says so, and leaves no pid file.
        """
        with RawServer.answering(ANSWER) as other:
            config = self.configure(other.port, free_port())
            result = self.installed.run(*self.TWISTD, "-n", "--pidfile=pid", "a3s-gateway", "--config", config, cwd=self.directory)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn(f"127.0.0.1:{other.port}", result.stdout + result.stderr)
        self.assertFalse((self.directory / "pid").exists())

    def test_faulty_configuration(self):
        """
        A faulty configuration is refused with its place before anything starts.
        """
        (self.directory / "gateway.hcl").write_text("nonsense = 1\n")
        result = self.installed.run(*self.TWISTD, "-n", "--pidfile=", "a3s-gateway", cwd=self.directory)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("gateway.hcl:1:1: ", result.stdout + result.stderr)
        self.assertNotIn("Traceback", result.stdout + result.stderr)

    def test_own_tests(self):
        """
        The tests that came with the wheel pass where it is installed.
        """
        result = self.installed.trial("a3sgw.config", self.directory)
        self.assertEqual(result.returncode, 0, result.stdout[-3000:] + result.stderr)
        self.assertRegex(result.stdout, re.compile(r"^PASSED \(.*successes=[1-9]", re.MULTILINE))
