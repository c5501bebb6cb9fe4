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
from a3sgw.config.test.loading import MIDDLEWARE_TYPES
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
            "| `max_body_bytes` | integer | **required** | The largest body. 1 or more bytes. |",
            "| `tls` ⏳ | block | \u2013 | TLS. For http and tcp entrypoints only. |",
            '`"least-connections"`, `"random"`. ⏳ This version runs only `"round-robin"`. |',
        ):
            self.assertIn(row, page)

    def test_tables(self):
        """
        Every table has four columns in every row, and nothing of Python shows.
        """
        for line in render(MIDDLEWARE_TYPES.values()).splitlines():
            if line.startswith("| `") and "**required**" in line:
                self.assertEqual(len(re.findall(r"(?<!\\)\|", line)), 5, line)
        self.assertNotIn("<", re.sub(r"<!--.*?-->", "", render(MIDDLEWARE_TYPES.values())))

    def test_example(self):
        """
        The file shown as an example runs.
        """
        examples = re.findall(r"```hcl\n(.*?)```", render(MIDDLEWARE_TYPES.values()), re.S)
        self.assertEqual(len(examples), 1)
        self.assertEqual(load_text(examples[0], "example.hcl", {}).problems, ())
