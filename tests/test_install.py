"""
What a stranger gets: a wheel, installed in a fresh environment, away from the checkout.

The environment gets copies of this one's Twisted, because the wheel puts a plugin into Twisted's own directory, and borrows the other
dependencies. Only building the wheel may need a package index, for the build tools.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import twisted
from twisted.trial.unittest import SynchronousTestCase

from a3sgw._version import __version__
from tests.support import ROOT, Process, RawServer, accepts, child_environ, fetch, free_port, run_command, wait_until

SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "a3sgw", "twisted")

CONFIG = """
entrypoints "web" {{ address = "127.0.0.1:{port}" }}
routers "all" {{
  rule    = "PathPrefix(`/`)"
  service = "all"
}}
services "all" {{
  load_balancer {{ servers = [{{ url = "http://127.0.0.1:{backend}" }}] }}
}}
"""

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def without_paths(**changes: str) -> dict[str, str]:
    """
    Return the environment for a child that must not see the checkout.
    """
    environ = child_environ(**changes)
    del environ["PYTHONPATH"]
    return environ


def run_or_fail(*argv: str | Path, cwd: Path) -> str:
    """
    Run a command that must succeed and return its output.
    """
    result = run_command(argv, cwd=cwd, environ=without_paths(), timeout=180)
    assert result.returncode == 0, f"{argv}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


class Installation:
    """
    A wheel, and a fresh environment in which it is installed.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="a3sgw-install-")
        self.root = Path(self._directory.name)
        self.wheel = self._build()
        self.bin = self.root / "env" / "bin"
        self._make_environment()

    def _build(self) -> Path:
        # From a copy: a build leaves traces, and would take in those of an earlier one.
        source = self.root / "source"
        source.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
            else:
                shutil.copy(ROOT / name, source)
        run_or_fail(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", self.root / "dist", source, cwd=self.root)
        (wheel,) = (self.root / "dist").glob("*.whl")
        return wheel

    def _make_environment(self) -> None:
        run_or_fail(sys.executable, "-m", "venv", "--without-pip", self.root / "env", cwd=self.root)
        (packages,) = (self.root / "env" / "lib").glob("python*/site-packages")
        ignored = shutil.ignore_patterns("__pycache__", "dropin.cache", "a3sgw_plugin.py", "test")
        shutil.copytree(Path(twisted.__file__).parent, packages / "twisted", ignore=ignored)
        borrowed = packages / "borrowed.pth"
        borrowed.write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python")]
        run_or_fail(*pip, "install", "--quiet", "--no-deps", "--force-reinstall", self.wheel, cwd=self.root)

    def run(self, *argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """
        Run a command of the environment in a directory that has nothing to do with the checkout.
        """
        return run_command([self.bin / argv[0], *argv[1:]], cwd=cwd or self.root, environ=without_paths(), timeout=120)


@functools.cache
def installation() -> Installation:
    """
    Return the one installation that all tests use; it is removed when the interpreter ends.
    """
    return Installation()


class InstalledCase(SynchronousTestCase):
    """
    A test of the installed product.
    """

    skip = None if (ROOT / "setup.py").exists() else "the tests do not run from a checkout"

    def setUp(self):
        self.installed = installation()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def configure(self, port, backend):
        """
        Write a configuration and return its path.
        """
        path = self.directory / "gateway.hcl"
        path.write_text(CONFIG.format(port=port, backend=backend))
        return path

    def assert_serves(self, *argv, stop_code=0):
        """
        A command of the environment, given a configuration, forwards a request, and ends with `stop_code` upon TERM.
        """
        port = free_port()
        with RawServer.answering(ANSWER) as backend:
            line = [self.installed.bin / argv[0], *argv[1:], "--config", self.configure(port, backend.port)]
            with Process(line, environ=without_paths(), directory=self.directory) as gateway:
                gateway.stop_codes = (stop_code,)
                wait_until(lambda: accepts(port) or not gateway.is_running(), "the gateway listens")
                self.assertTrue(gateway.is_running(), gateway.stdout() + gateway.stderr())
                self.assertEqual(fetch(port).body, b"hello")


class WheelTests(InstalledCase):
    """
    What is in the wheel.
    """

    def test_contents(self):
        """
        The wheel holds the package with its tests, the plugin and the licence; no tests of the street, and no `__init__.py` of Twisted's.
        """
        with zipfile.ZipFile(self.installed.wheel) as archive:
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
        with zipfile.ZipFile(self.installed.wheel) as archive:
            names = set(archive.namelist())
        source = self.installed.root / "source"
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
        self.assertIn(self.installed.wheel.name, result.stdout)


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
        trial = ("python", "-c", "from twisted.scripts.trial import run; run()", "a3sgw.config")
        result = self.installed.run(*trial, cwd=self.directory)
        self.assertEqual(result.returncode, 0, result.stdout[-3000:] + result.stderr)
        self.assertRegex(result.stdout, re.compile(r"^PASSED \(.*successes=[1-9]", re.MULTILINE))
