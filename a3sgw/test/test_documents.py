"""
Tests of the pages about middlewares, plugins and tcp: what they show is what there is.
"""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import a3sgw
from a3sgw import interfaces
from a3sgw.errors import Outcome
from a3sgw.loading import load_string
from a3sgw.route.rule import SIGNATURES
from a3sgw.testing import MIDDLEWARE_PHASES

ROOT = Path(a3sgw.__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLE = ROOT / "contrib" / "example-plugin"


class DocumentCase(SynchronousTestCase):
    """
    A page of the documentation.
    """

    skip = None if EXAMPLE.is_dir() and DOCS.is_dir() else "this is an installed package without its documentation"
    page: str

    def blocks(self, language):
        """
        Return the blocks of code in the page.
        """
        found = re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / self.page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
        self.assertTrue(found, f"{self.page} has no block of {language}")
        return found


class PluginsPageTests(DocumentCase):
    """
    docs/plugins.md is about the example, which the tests install and run.
    """

    page = "plugins.md"

    def test_code(self):
        """
        Every piece of code that it shows stands in the example as it is.
        """
        sources = [path.read_text("utf-8") for path in (*EXAMPLE.rglob("*.py"), EXAMPLE / "pyproject.toml")]
        for block in [*self.blocks("python"), *self.blocks("toml")]:
            self.assertTrue(any(block in source for source in sources), f"this is not in the example:\n{block}")

    def test_phases(self):
        """
        It names every phase with every method, and none that there is not.
        """
        rows = re.findall(r"^\| (`I[A-Z].*?) \|", (DOCS / self.page).read_text("utf-8"), re.MULTILINE)
        named = {}
        for row in rows:
            interface = None
            for word in re.findall(r"`(\w+)`", row):
                if word[0] == "I":
                    interface = word
                    named[interface] = set()
                else:
                    named[interface].add(word)
        expected = {*MIDDLEWARE_PHASES, interfaces.IIdentitySource, interfaces.IStateSource, interfaces.IRetirable, interfaces.IBodyFilter}
        self.assertEqual(set(named), {interface.__name__ for interface in expected})
        for interface in expected - {interfaces.IBackendHook}:
            self.assertEqual(named[interface.__name__], set(interface.names()), interface.__name__)
        self.assertEqual(named["IBackendHook"], {*interfaces.IBackendHook.names()} - {"refusal"})

    def test_kinds(self):
        """
        Every kind that it names is one.
        """
        from a3sgw.config import kinds, setting

        table = re.search(r"^\| Kind \|.*?\n\n", (DOCS / self.page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
        words = re.findall(r"`([A-Z][A-Za-z_]+)(?:`|\()", "\n".join(line.split("|")[1] for line in table[0].splitlines()[2:-1]))
        self.assertTrue(len(words) > 15, words)
        for word in words:
            self.assertTrue(word in kinds.__all__ or word in setting.__all__, word)


class MiddlewaresPageTests(DocumentCase):
    """
    docs/middlewares.md is about chains.
    """

    page = "middlewares.md"

    def test_example(self):
        """
        The configuration that it shows is valid.
        """
        [text] = self.blocks("hcl")
        self.assertEqual(load_string(text, self.page, {}).problems, ())

    def test_links(self):
        """
        The page and the one about plugins are reached from the reference and the README, and lead nowhere that is not there.
        """
        for source in (DOCS / "configuration.md", ROOT / "README.md"):
            for page in ("middlewares.md", "plugins.md"):
                self.assertIn(f"{page})", source.read_text("utf-8"), source)
        for page in ("middlewares.md", "plugins.md"):
            for target in re.findall(r"\]\((?!http)([^)#]+)", (DOCS / page).read_text("utf-8")):
                self.assertTrue((DOCS / target).exists(), f"{page} leads to {target}")


class TcpPageTests(DocumentCase):
    """
    docs/tcp.md is about connections that are passed on.
    """

    page = "tcp.md"

    def test_examples(self):
        """
        The configurations that it shows are valid.
        """
        for text in self.blocks("hcl"):
            problems = load_string(text, self.page, {}).problems
            # The files of the example are not on this machine.
            self.assertEqual([problem for problem in problems if "/etc/gateway/" not in str(problem) and "_file" not in problem.path], [])

    def test_matchers(self):
        """
        It shows every matcher that there is for connections, and the words of outcomes that it names are words of outcomes.
        """
        text = (DOCS / self.page).read_text("utf-8")
        for name, signature in SIGNATURES.items():
            self.assertEqual(f"| ``{name}(" in text, "tcp" in signature.kinds, name)
        named = re.search(r"`outcome` is how it ended: (.*?) and so on", text, re.DOTALL)
        words = re.findall(r"`([a-z-]+)`", named[1])
        self.assertEqual(set(words) - {outcome.word for outcome in Outcome}, set())
        self.assertGreater(len(words), 5)
