"""
Tests of the generated reference.
"""

import pathlib
import re

from twisted.trial.unittest import SynchronousTestCase

import a3sgw
from a3sgw.config.load import load_text
from a3sgw.config.reference import render
from a3sgw.config.setting import settings_of
from a3sgw.config.test.loading import ENTRYPOINT, MIDDLEWARE_TYPES
from a3sgw.config.test.test_setting import CLASSES

_PAGE = pathlib.Path(a3sgw.__file__).parent.parent / "docs" / "configuration.md"


class ReferenceTests(SynchronousTestCase):
    """
    docs/configuration.md says what the model says.
    """

    def test_fresh(self):
        """
        The page in the repository is the one that the model makes.

        To make it anew: `make docs`.
        """
        if not _PAGE.parent.is_dir():
            self.skipTest("this is an installed package without its documentation")
        self.assertTrue(_PAGE.read_text(encoding="utf-8") == render(MIDDLEWARE_TYPES.values()), "docs/configuration.md is stale")

    def test_complete(self):
        """
        Every attribute has its row.
        """
        page = render(MIDDLEWARE_TYPES.values())
        for cls in CLASSES:
            for declared in settings_of(cls):
                self.assertRegex(page, rf"\| `{declared.key}`( or `\w+`)*( ⏳)? \|", f"{cls.__name__}.{declared.key}")

    def test_rows(self):
        """
        A row says type, default, bounds, protocols and what runs.
        """
        page = render(MIDDLEWARE_TYPES.values())
        for row in (
            "| `address` | address | **required** | Where to listen; see [addresses](#addresses). |",
            '| `connect` | duration | `"5s"` | For a connection to be made. |',
            "| `tls` | block | \u2013 | TLS. For http and tcp entrypoints only. |",
            "| `acme` ⏳ | bool | `false` | Whether certificates are ordered automatically. |",
            '`"tcp"`, `"udp"`. |',
        ):
            self.assertIn(row, page)

    def test_tables(self):
        """
        Every table has four columns in every row, and nothing of Python shows.
        """
        for line in render(MIDDLEWARE_TYPES.values()).splitlines():
            if line.startswith("| `") and "**required**" in line:
                self.assertEqual(len(re.findall(r"(?<!\\)\|", line)), 5, line)
        self.assertNotRegex(re.sub(r"<!--.*?-->", "", render(MIDDLEWARE_TYPES.values())), r"<[\w.]+ (object|at 0x)|<\w+>")

    def test_example(self):
        """
        The file shown as an example runs, and so does the example of each middleware in a file like it.
        """
        whole, *parts = re.findall(r"```hcl\n(.*?)```", render(MIDDLEWARE_TYPES.values()), re.S)
        self.assertEqual(load_text(whole, "example.hcl", {}).problems, ())
        self.assertEqual(len(parts), len([cls for cls in MIDDLEWARE_TYPES.values() if getattr(cls, "example", "")]))
        for part in parts:
            # What is named beside the middlewares stands in the rest of the file.
            named = re.findall(r'^ *service += "(.*?)"', part, re.M)
            services = "".join(f'services "{name}" {{\n  load_balancer {{ servers = [{{ url = "http://a" }}] }}\n}}\n' for name in named)
            environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", part), "x" * 40)
            text = f"{ENTRYPOINT}{services}{part}"
            self.assertEqual(load_text(text, "example.hcl", environ, middleware_types=MIDDLEWARE_TYPES).problems, (), part)
