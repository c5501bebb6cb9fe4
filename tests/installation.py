"""
Fresh environments with wheels in them, away from the checkout.

An environment gets copies of this one's Twisted, because our wheel puts a plugin into Twisted's own directory, and borrows the other
dependencies. Only building a wheel, or an editable install, may need a package index, for the build tools.
"""

import functools
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import twisted
from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, Process, RawServer, accepts, child_environ, fetch, free_port, run_command, wait_until

__all__ = ["ANSWER", "CONFIG", "Environment", "InstalledCase", "Wheelhouse", "run_or_fail", "wheelhouse", "without_paths"]

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
    Return the environment for a child that must not see the checkout, with `changes`.
    """
    environ = child_environ()
    del environ["PYTHONPATH"]
    return {**environ, **changes}


def run_or_fail(*argv: str | Path, cwd: Path) -> str:
    """
    Run a command that must succeed and return its output.
    """
    result = run_command(argv, cwd=cwd, environ=without_paths(), timeout=180)
    assert result.returncode == 0, f"{argv}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def copy_tree(source: Path, target: Path) -> None:
    """
    Copy sources without the traces of an earlier build or run, which a build would take in.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache", "*.egg-info", "build", "dist"))


class Wheelhouse:
    """
    Wheels of what is in the checkout, each built when it is first asked for, and environments to install them in.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="a3sgw-install-")
        self.root = Path(self._directory.name)
        self.gateway_source = self.root / "source"
        self.gateway_source.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                copy_tree(ROOT / name, self.gateway_source / name)
            else:
                shutil.copy(ROOT / name, self.gateway_source)
        self.example_source = self.root / "example"
        copy_tree(ROOT / "contrib" / "example-plugin", self.example_source)

    @functools.cached_property
    def gateway(self) -> Path:
        """
        The wheel of the gateway.
        """
        return self._build(self.gateway_source)

    @functools.cached_property
    def example(self) -> Path:
        """
        The wheel of the example of a plugin.
        """
        return self._build(self.example_source)

    def _build(self, source: Path) -> Path:
        target = self.root / f"{source.name}-dist"
        run_or_fail(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, source, cwd=self.root)
        (wheel,) = target.glob("*.whl")
        return wheel

    @functools.cached_property
    def environment(self) -> "Environment":
        """
        An environment with the gateway in it and nothing else.
        """
        return self.new_environment("env", self.gateway)

    def new_environment(self, name: str, *wheels: Path) -> "Environment":
        """
        Return a fresh environment with some wheels installed in it.
        """
        return Environment(self.root / name, *wheels)


class Environment:
    """
    A fresh environment.
    """

    def __init__(self, root: Path, *wheels: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        run_or_fail(sys.executable, "-m", "venv", "--without-pip", root, cwd=root.parent)
        (self.packages,) = (root / "lib").glob("python*/site-packages")
        ignored = shutil.ignore_patterns("__pycache__", "dropin.cache", "a3sgw_plugin.py", "test")
        shutil.copytree(Path(twisted.__file__).parent, self.packages / "twisted", ignore=ignored)
        borrowed = self.packages / "borrowed.pth"
        borrowed.write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        if wheels:
            self.install(*wheels)

    def install(self, *what: str | Path) -> None:
        """
        Install wheels, or sources in place after `--editable`.
        """
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python")]
        run_or_fail(*pip, "install", "--quiet", "--no-deps", "--force-reinstall", *what, cwd=self.root)

    def run(self, *argv: str | Path, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """
        Run a command of the environment in a directory that has nothing to do with the checkout.
        """
        return run_command([self.bin / argv[0], *argv[1:]], cwd=cwd or self.root, environ=without_paths(**environ), timeout=120)

    def trial(self, package: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """
        Run the tests of an installed package.
        """
        return self.run("python", "-c", "from twisted.scripts.trial import run; run()", package, cwd=cwd)


@functools.cache
def wheelhouse() -> Wheelhouse:
    """
    Return the one that all tests use; it is removed when the interpreter ends.
    """
    return Wheelhouse()


class InstalledCase(SynchronousTestCase):
    """
    A test of the installed product.
    """

    skip = None if (ROOT / "setup.py").exists() else "the tests do not run from a checkout"

    def setUp(self):
        self.installed = self.environment()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def environment(self) -> Environment:
        """
        Return the environment that is tested.
        """
        return wheelhouse().environment

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
