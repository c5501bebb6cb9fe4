"""
A configuration of several files that are changed while clients are being served, without any signal.
"""

from __future__ import annotations

import json
import signal

from tests.setting import OwnGatewayCase, metrics
from tests.support import fetch, wait_until

MAIN = """
entrypoints "web" {{ address = "127.0.0.1:{port}" }}
dashboard {{ enabled = true }}
providers {{
  file {{ directory = "{folder}" }}
}}
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%b"
SHARE = """
routers "{0}" {{
  rule    = "PathPrefix(`/{0}`)"
  service = "{0}"
}}
services "{0}" {{
  load_balancer {{ servers = [{{ url = "http://127.0.0.1:{1}" }}] }}
}}
"""


class FolderTests(OwnGatewayCase):
    """
    Files are put into a folder, changed, broken, mended and taken away.
    """

    def setUp(self):
        super().setUp()
        self.root = self.log.parent
        self.folder = self.root / "conf.d"
        for path in ("/a", "/b", "/main"):
            self.old.on(path, ANSWER % b"one")
            self.new.on(path, ANSWER % b"two")
        self.servers = {"one": self.old.port, "two": self.new.port}

    def start(self):
        """
        Start a gateway with what is there.
        """
        return super().start(MAIN.format(port=self.port, folder=self.folder))

    def write(self, name, text):
        """
        Put a file in its place as careful editors do.
        """
        draft = self.root / "draft"
        draft.write_text(text, "utf-8")
        draft.rename(self.folder / name)

    def share(self, path, server):
        return SHARE.format(path, self.servers[server])

    def ask(self, path):
        answer = fetch(self.port, f"/{path}")
        return answer.body.decode() if answer.status == 200 else answer.status

    def wait_for(self, path, expected):
        wait_until(lambda: self.ask(path) == expected, lambda: f"/{path} is answered with {expected}, and not with {self.ask(path)}", 10.0)

    def health(self):
        return json.loads(fetch(self.port, "/api/gateway/health").body)

    def test_folder(self):
        """A folder that comes later, files that come, change, break, are mended and go: each is live within moments."""
        gateway = self.start()
        self.assertEqual(self.ask("a"), 404)
        self.folder.mkdir()
        self.write("a.hcl", self.share("a", "one"))
        self.wait_for("a", "one")
        self.write("a.hcl", self.share("a", "two"))
        self.wait_for("a", "two")
        self.write("a.hcl", self.share("a", "one") + "bogus = 1\n")
        self.write("b.hcl", self.share("b", "one"))
        self.wait_for("b", "one")
        self.assertEqual(self.ask("a"), "two")
        broken = str(self.folder / "a.hcl")
        [file] = self.health()["broken_files"]
        self.assertEqual((file["file"], file["kept"]), (broken, True))
        self.assertTrue(file["problems"][0].startswith(f"{broken}:9:1: unknown attribute"), file)
        self.assertEqual(metrics(self.port)[f'gateway_config_file_broken{{file="{broken}"}}'], 1)
        self.assertIn(f"{broken} is broken, problems: 1; what it said before goes on", gateway.stderr())
        self.write("a.hcl", self.share("a", "one"))
        self.wait_for("a", "one")
        self.assertEqual(self.health()["broken_files"], [])
        (self.folder / "a.hcl").unlink()
        self.wait_for("a", 404)
        self.write("c.hcl", "bogus = 1\n")
        wait_until(lambda: self.health()["reload"]["result"] == "failure", "it is refused")
        (self.folder / "c.hcl").unlink()
        wait_until(lambda: self.health()["reload"]["result"] == "unchanged", "nothing is shown of what is mended")
        self.assertEqual(self.ask("b"), "one")
        self.stop(gateway)

    def test_start_with_a_broken_file(self):
        """A file that is broken at the start is left out, and the gateway says so and runs."""
        self.folder.mkdir()
        self.write("a.hcl", "services {")
        self.write("b.hcl", self.share("b", "one"))
        gateway = self.start()
        self.assertEqual((self.ask("b"), self.ask("a")), ("one", 404))
        self.assertEqual([file["kept"] for file in self.health()["broken_files"]], [False])
        self.assertIn("a.hcl is broken, problems: 1; it is left out, and the rest runs", gateway.stderr())
        self.write("a.hcl", self.share("a", "two"))
        self.wait_for("a", "two")
        self.stop(gateway)

    def test_mounted_configmap(self):
        """D7: files that are links into a folder which is exchanged by turning one link, as Kubernetes does, are live at once, together."""

        def mount(number, texts):
            version = self.folder / f"..{number}"
            version.mkdir(parents=True)
            for name, text in texts.items():
                (version / name).write_text(text, "utf-8")
            link = self.folder / "..data_tmp"
            link.symlink_to(version.name)
            link.rename(self.folder / "..data")
            for name in texts:
                if not (self.folder / name).is_symlink():
                    (self.folder / name).symlink_to(f"..data/{name}")

        mount(1, {"a.hcl": self.share("a", "one"), "b.hcl": self.share("b", "one")})
        gateway = self.start()
        self.assertEqual([self.ask("a"), self.ask("b")], ["one", "one"])
        mount(2, {"a.hcl": self.share("a", "two"), "b.hcl": self.share("b", "two")})
        self.wait_for("a", "two")
        self.assertEqual(self.ask("b"), "two")
        self.assertEqual(gateway.stderr().count("configuration reloaded"), 1)
        self.stop(gateway)

    def test_nothing_new(self):
        """D6, D7: other files there, and changes that mean nothing, are no reload; a write in two goes is one."""
        self.folder.mkdir()
        self.write("a.hcl", self.share("a", "one"))
        gateway = self.start()
        (self.folder / "a.hcl.swp").write_text("{{{", "utf-8")
        (gateway.directory / "other.log").write_text("x", "utf-8")
        self.write("a.hcl", "# a remark\n" + self.share("a", "one"))
        gateway.wait_for("the configuration has changed, but not what it means")
        with (self.folder / "a.hcl").open("w") as file:
            file.flush()
            file.write(self.share("a", "two"))
        self.wait_for("a", "two")
        self.assertEqual(gateway.stderr().count("the configuration has changed: reloading it"), 1)
        self.stop(gateway)

    def test_main_file(self):
        """The main file is watched too; when it is broken, everything goes on, files of the folder may still change, and HUP says no."""
        self.folder.mkdir()
        self.write("a.hcl", self.share("a", "one"))
        gateway = self.start()
        good = gateway.config_path.read_text("utf-8")
        gateway.config_path.write_text(good + self.share("main", "one"), "utf-8")
        self.wait_for("main", "one")
        gateway.config_path.write_text("", "utf-8")
        gateway.wait_for("reload refused, problems: 1")
        self.assertEqual((self.ask("main"), self.ask("a")), ("one", "one"))
        self.assertEqual(self.health()["reload"]["result"], "failure")
        self.write("a.hcl", self.share("a", "two"))
        self.wait_for("a", "two")
        gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: gateway.stderr().count("the configuration that was running goes on") == 2, "HUP is refused")
        gateway.config_path.write_text(good, "utf-8")
        self.wait_for("main", 404)
        self.assertEqual(self.health()["broken_files"], [])
        self.stop(gateway)
