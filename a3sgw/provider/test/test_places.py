"""
Tests of where a change of a file can come from.
"""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.provider.places import places_of


class PlacesTests(SynchronousTestCase):
    """
    Folders and the names in them.
    """

    def setUp(self):
        self.root = Path(os.path.realpath(self.mktemp()))
        self.root.mkdir()

    def places(self, path):
        found = {(os.path.relpath(folder, self.root), name) for folder, name in places_of(str(self.root / path))}
        return {(folder, name) for folder, name in found if folder != ".."}

    def test_plain(self):
        """A file can be written or replaced in its folder, and the folder in the one above."""
        (self.root / "etc").mkdir()
        (self.root / "etc" / "gw.hcl").write_text("")
        self.assertEqual(self.places("etc/gw.hcl"), {(".", "etc"), ("etc", "gw.hcl")})

    def test_missing(self):
        """Of what is not there, the first missing name matters."""
        self.assertEqual(self.places("a/b/c/gw.hcl"), {(".", "a")})
        (self.root / "a" / "b").mkdir(parents=True)
        self.assertEqual(self.places("a/b/c/gw.hcl"), {("a/b", "c")})

    def test_mounted_configmap(self):
        """Every link on the way matters, as `..data` in a mounted ConfigMap does."""
        mount = self.root / "mount"
        (mount / "..2031").mkdir(parents=True)
        (mount / "..2031" / "gw.hcl").write_text("")
        (mount / "..data").symlink_to("..2031")
        (mount / "gw.hcl").symlink_to("..data/gw.hcl")
        self.assertEqual(
            self.places("mount/gw.hcl"),
            {(".", "mount"), ("mount", "gw.hcl"), ("mount", "..data"), ("mount", "..2031"), ("mount/..2031", "gw.hcl")},
        )

    def test_links(self):
        """Links may lead anywhere, through `..` and to nothing; those in a circle come to an end."""
        (self.root / "real").mkdir()
        (self.root / "current").symlink_to(self.root / "real")
        (self.root / "real" / "gw.hcl").symlink_to("../elsewhere")
        self.assertEqual(self.places("current/gw.hcl"), {(".", "current"), (".", "real"), ("real", "gw.hcl"), (".", "elsewhere")})
        (self.root / "one").symlink_to("two")
        (self.root / "two").symlink_to("one")
        self.assertEqual(self.places("one"), {(".", "one"), (".", "two")})
