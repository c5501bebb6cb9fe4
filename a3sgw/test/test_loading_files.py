"""
Tests of a configuration that consists of several files, some of which are broken.
"""

import os
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.merge import Offer
from a3sgw.config.model import GatewayConfig, LoadBalancerConfig, RouterConfig, ServerConfig, ServiceConfig
from a3sgw.loading import Memory, load, load_string, with_offers

MAIN = """entrypoints "web" { address = ":8080" }
providers {
  file { directory = "%s" }
}
"""
SERVICE = 'services "{0}" {{\n  load_balancer {{ servers = [{{ url = "http://{1}" }}] }}\n}}\n'
ROUTER = 'routers "{0}" {{\n  rule    = "PathPrefix(`/{0}`)"\n  service = "{1}"\n}}\n'


class FilesCase(SynchronousTestCase):
    """
    A main file and a folder.
    """

    def setUp(self):
        self.root = Path(self.mktemp())
        self.folder = self.root / "conf.d"
        self.folder.mkdir(parents=True)
        self.main = self.root / "gateway.hcl"
        self.memory = Memory()
        self.write("../gateway", MAIN % self.folder)

    def write(self, name, text):
        """
        Write a file of the folder.
        """
        (self.folder / f"{name}.hcl").write_text(text, "utf-8")

    def remove(self, name):
        (self.folder / f"{name}.hcl").unlink()

    def load(self):
        """
        Load as a running gateway does, which is to have something to run.
        """
        loaded = load(str(self.main), {}, memory=self.memory)
        self.assertEqual([str(problem) for problem in loaded.problems], [])
        return loaded

    def services(self):
        """
        Return the servers of each service there is now.
        """
        config = self.load().config
        return {name: service.load_balancer.servers[0].url.removeprefix("http://") for name, service in config.services.items()}

    def broken(self):
        """
        Return what is broken, by the names of files.
        """
        return {Path(file.source).name: file for file in self.memory.broken}

    def assert_broken(self, name, *words, is_kept=True):
        """
        Exactly one file is broken, and what is told of it has `words` in it.
        """
        self.assertEqual(list(self.broken()), [name])
        file = self.broken()[name]
        self.assertEqual(file.is_kept, is_kept)
        text = "\n".join(map(str, file.problems))
        for each in words:
            self.assertIn(each, text)


class FolderTests(FilesCase):
    """
    Which files belong to a configuration.
    """

    def test_files(self):
        """D5: every `*.hcl` directly in the folder belongs to it, in the order of their names; what editors leave there does not."""
        self.write("b", SERVICE.format("b", "b"))
        self.write("a", SERVICE.format("a", "a"))
        (self.folder / "deep").mkdir()
        for name in (".hidden.hcl", "a.hcl~", ".a.hcl.swp", "a.hcl.tmp", "#a.hcl#", "notes.txt", "deep/c.hcl"):
            (self.folder / name).write_text("{{{", "utf-8")
        self.assertEqual(self.services(), {"a": "a", "b": "b"})
        self.assertEqual(list(self.load().config.services), ["a", "b"])
        self.assertEqual(self.broken(), {})

    def test_strict(self):
        """Who validates wants every file to be right, and is told of all that is wrong."""
        self.write("a", SERVICE.format("a", "a") + "bogus = 1\n")
        self.write("b", ROUTER.format("r", "none") + "workers = 2\n")
        problems = [str(problem).partition("conf.d/")[2] for problem in load(str(self.main), {}).problems]
        self.assertEqual([problem.partition(": ")[0] for problem in problems], ["a.hcl:4:1", "b.hcl:3:13", "b.hcl:5:11"])
        self.assertIn(f"workers concerns the whole gateway; write it in the main file, {self.main}", problems[2])

    def test_main_in_its_own_folder(self):
        """The main file may lie in the folder, and is not read twice."""
        self.write("gateway", MAIN % self.folder + SERVICE.format("m", "m"))
        self.write("a", SERVICE.format("a", "a"))
        self.main = self.folder / "gateway.hcl"
        self.assertEqual(self.services(), {"m": "m", "a": "a"})

    def test_no_folder(self):
        """A folder that is not there yet is empty; its files count when it comes."""
        self.folder.rmdir()
        self.assertEqual(self.services(), {})
        self.assertTrue(self.memory.is_up_to_date())
        self.folder.mkdir()
        self.assertFalse(self.memory.is_up_to_date())
        self.write("a", SERVICE.format("a", "a"))
        self.assertEqual(self.services(), {"a": "a"})

    def test_files_come_and_go(self):
        """What a file said goes with it."""
        self.write("a", SERVICE.format("a", "a"))
        self.write("b", SERVICE.format("b", "b"))
        self.services()
        self.remove("a")
        self.write("c", SERVICE.format("c", "c"))
        self.assertEqual(self.services(), {"b": "b", "c": "c"})
        self.assertEqual(self.broken(), {})


class BrokenFileTests(FilesCase):
    """
    A broken file keeps what it last said, and the rest goes on.
    """

    def test_broken_and_mended(self):
        """What a file says badly is as if it had not been written; others go on, and it does when it is mended."""
        self.write("a", SERVICE.format("a", "a1"))
        self.write("b", SERVICE.format("b", "b1"))
        self.services()
        for bad in ("services {", SERVICE.format("a", "a2") + ROUTER.format("r", "none"), SERVICE.format("a", "::"), "dashboard {}"):
            self.write("a", bad)
            self.write("b", SERVICE.format("b", "b2"))
            self.assertEqual(self.services(), {"a": "a1", "b": "b2"}, bad)
            self.assert_broken("a.hcl", "a.hcl:")
        self.write("a", SERVICE.format("a", "a3"))
        self.assertEqual(self.services(), {"a": "a3", "b": "b2"})
        self.assertEqual(self.broken(), {})

    def test_main_file(self):
        """So does the main one."""
        self.write("a", SERVICE.format("a", "a1"))
        self.write("../gateway", MAIN % self.folder + SERVICE.format("m", "m"))
        self.services()
        self.write("../gateway", "entrypoints {")
        self.write("a", SERVICE.format("a", "a2"))
        self.assertEqual(self.services(), {"m": "m", "a": "a2"})
        self.assert_broken("gateway.hcl", "gateway.hcl:1:")
        self.main.unlink()
        self.assertEqual(self.services(), {"m": "m", "a": "a2"})
        self.assert_broken("gateway.hcl", "Failed to read config file")

    def test_start(self):
        """A file that never was good is left out, with everything that needs it; the rest runs."""
        self.write("a", "services {")
        self.write("b", ROUTER.format("r", "a"))
        self.write("c", SERVICE.format("c", "c"))
        self.assertEqual(self.services(), {"c": "c"})
        self.assertEqual({name: file.is_kept for name, file in self.broken().items()}, {"a.hcl": False, "b.hcl": False})

    def test_start_without_main_file(self):
        """Without a main file that is good there is nothing to run, and everything that is wrong is told."""
        self.write("../gateway", (MAIN % self.folder).replace(":8080", ":x"))
        self.write("a", "services {")
        loaded = load(str(self.main), {}, memory=self.memory)
        self.assertIsNone(loaded.config)
        self.assertIn("entrypoints.web.address", str(loaded.problems[0]))
        self.assertEqual({Path(file.source).name for file in loaded.broken}, {"a.hcl", "gateway.hcl"})

    def test_same_name(self):
        """Of two files that define a name the one that had it keeps it; at the start it is the first."""
        self.write("a", SERVICE.format("x", "a"))
        self.write("b", SERVICE.format("x", "b"))
        self.assertEqual(self.services(), {"x": "a"})
        self.assert_broken("b.hcl", "b.hcl:1:1", 'service "x" is defined twice; first at', "a.hcl:1:1", is_kept=False)
        self.remove("a")
        self.assertEqual(self.services(), {"x": "b"})
        self.write("a", SERVICE.format("x", "a"))
        self.write("c", SERVICE.format("c", "c"))
        self.assertEqual(self.services(), {"x": "b", "c": "c"})
        self.assert_broken("a.hcl", "a.hcl:1:1", "b.hcl:1:1", is_kept=False)

    def test_what_others_need(self):
        """A file that takes away what others need is the one at fault, even if it has gone: what it said stays as long as that is so."""
        self.write("a", ROUTER.format("r", "b"))
        self.write("b", SERVICE.format("b", "b"))
        self.write("c", SERVICE.format("c", "c1"))
        self.services()
        self.remove("b")
        self.write("c", SERVICE.format("c", "c2"))
        self.assertEqual(self.services(), {"b": "b", "c": "c2"})
        self.assert_broken("b.hcl", "a.hcl:3:13", 'router "r" names service "b"')
        self.remove("a")
        self.assertEqual(self.services(), {"c": "c2"})
        self.assertEqual(self.broken(), {})

    def test_folder_of_a_broken_main_file(self):
        """A main file that is broken does not move the folder."""
        self.write("a", SERVICE.format("a", "a1"))
        self.services()
        other = self.root / "other"
        other.mkdir()
        (other / "z.hcl").write_text(SERVICE.format("z", "z"), "utf-8")
        self.write("../gateway", MAIN % other + ROUTER.format("r", "nobody"))
        self.write("a", SERVICE.format("a", "a2"))
        self.assertEqual(self.services(), {"a": "a2"})
        self.assert_broken("gateway.hcl", 'router "r" names service "nobody"')


class MemoryTests(FilesCase):
    """
    What makes a gateway look again, and what it need not read again.
    """

    def setUp(self):
        super().setUp()
        self.users = self.root / "users"
        self.users.write_text("secret\n", "utf-8")
        self.snippet = self.root / "conf.d" / "url"
        self.snippet.write_text("http://x", "utf-8")
        self.write("a", f'middlewares "m" {{\n  type = "basic-auth"\n  username = "ann"\n  password_file = "{self.users}"\n}}\n')
        self.write("b", SERVICE.format("b", "b").replace('"http://b"', 'file("url")'))

    def test_what_counts(self):
        """Every file that a configuration consists of or names counts, wherever it is named; nothing else does."""
        self.load()
        self.assertTrue(self.memory.is_up_to_date())
        (self.folder / "notes.txt").write_text("x", "utf-8")
        self.assertTrue(self.memory.is_up_to_date())
        for path in (self.main, self.users, self.snippet, self.folder / "a.hcl"):
            before = path.read_bytes()
            path.write_bytes(before + b"\n")
            self.assertFalse(self.memory.is_up_to_date(), path)
            path.write_bytes(before)
            self.assertTrue(self.memory.is_up_to_date(), path)
        self.write("c", "")
        self.assertFalse(self.memory.is_up_to_date())
        self.load()
        self.assertTrue(self.memory.is_up_to_date())

    def test_named(self):
        """What a configuration is built with is told apart from what it is made of."""
        loaded = self.load()
        self.assertEqual([os.path.basename(path) for path in loaded.named], ["users"])

    def test_read_once(self):
        """A file that has not changed is not parsed again, unless what it includes has; a broken one neither."""
        self.write("c", "{{{")
        before = self.load().config
        self.write("d", SERVICE.format("d", "d"))
        after = self.load().config
        self.assertIs(after.services["b"], before.services["b"])
        self.assertIs(after.middlewares["m"], before.middlewares["m"])
        self.snippet.write_text("http://y", "utf-8")
        self.assertEqual(self.services()["b"], "y")
        self.assertEqual(list(self.broken()), ["c.hcl"])


class OfferTests(FilesCase):
    """
    What providers offer is added to what the files say.
    """

    def setUp(self):
        super().setUp()
        self.write("a", SERVICE.format("a", "a") + 'middlewares "m" { type = "compress" }\n')

    def offer(self, source, *names, service="a", rule="PathPrefix(`/x`)", middlewares=("m",)):
        """
        Return the offer of a router, and a service with the server of the same name, for each name.
        """
        servers = {name: LoadBalancerConfig(servers=(ServerConfig(url=f"http://{source}"),)) for name in names}
        return Offer(
            source,
            GatewayConfig(
                routers={name: RouterConfig(name=name, rule=rule, service=service, middlewares=middlewares) for name in names},
                services={name: ServiceConfig(name=name, load_balancer=balancer) for name, balancer in servers.items()},
            ),
        )

    def with_offers(self, *offers):
        return with_offers(self.load(), offers)

    def test_added(self):
        """Routers of a provider may use what the files define; everything together is checked."""
        loaded = self.with_offers(self.offer("docker", "x"))
        self.assertEqual((list(loaded.config.routers), list(loaded.config.services)), (["x"], ["a", "x"]))
        self.assertEqual(loaded.left_out, ())

    def test_names_that_are_taken(self):
        """D2: the files have most say, then the first provider; what is left out is named."""
        loaded = self.with_offers(self.offer("docker", "a", "x"), self.offer("dns", "x", "y"))
        servers = {name: each.load_balancer.servers[0].url for name, each in loaded.config.services.items()}
        self.assertEqual(servers, {"a": "http://a", "x": "http://docker", "y": "http://dns"})
        self.assertEqual(
            sorted(map(str, loaded.left_out)),
            [
                'provider "dns": router "x" is left out, because provider "docker" has one of that name',
                'provider "dns": service "x" is left out, because provider "docker" has one of that name',
                'provider "docker": service "a" is left out, because the configuration files have one of that name',
            ],
        )

    def test_one_bad_object(self):
        """D3: an object that is wrong is left out with what needs it, and the others apply."""
        good = self.offer("docker", "x")
        for bad, words in (
            (self.offer("k8s", "bad", rule="Pathh(`/`)"), "Pathh"),
            (self.offer("k8s", "bad", service="none"), 'names service "none"'),
            (self.offer("k8s", "bad", middlewares=("none",)), 'names middleware "none"'),
        ):
            loaded = self.with_offers(good, bad)
            self.assertEqual(list(loaded.config.routers), ["x"])
            [left] = loaded.left_out
            self.assertIn('provider "k8s": router "bad" is left out: ', str(left))
            self.assertIn(words, str(left))

    def test_values(self):
        """Values that could not be written in a file are wrong, whoever made them."""
        offer = self.offer("docker", "x", service="x")
        for servers, words in (((ServerConfig(url="::"),), 'servers[0].url is "::"'), ((ServerConfig(url="http://a", weight=-1),), "-1")):
            service = attrs.evolve(offer.config.services["x"], load_balancer=LoadBalancerConfig(servers=servers))
            loaded = self.with_offers(Offer("docker", attrs.evolve(offer.config, services={"x": service})))
            self.assertEqual(list(loaded.config.services), ["a"])
            self.assertIn(words, "".join(map(str, loaded.left_out)))
            self.assertEqual(len(loaded.left_out), 2)

    def test_what_needs_it(self):
        """A service that is wrong takes its router along."""
        offer = self.offer("docker", "x", service="x")
        broken = attrs.evolve(offer.config.services["x"], load_balancer=LoadBalancerConfig(servers=(), strategy="no-such"))
        offer = Offer("docker", attrs.evolve(offer.config, services={"x": broken}))
        loaded = self.with_offers(offer, self.offer("dns", "y"))
        self.assertEqual((list(loaded.config.routers), list(loaded.config.services)), (["y"], ["a", "y"]))
        self.assertEqual(len(loaded.left_out), 2)

    def test_broken_configuration(self):
        """Nothing is added to a configuration that is not to run."""
        loaded = load_string("", "gw.hcl", {})
        self.assertIs(with_offers(loaded, (self.offer("docker", "x"),)), loaded)
