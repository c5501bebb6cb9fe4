"""
Tests of putting several files together.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.fragment import Vocabulary, parse_fragment
from a3sgw.config.load import check_fragments
from a3sgw.config.merge import merge
from a3sgw.config.test.loading import ENTRYPOINT, MIDDLEWARE_TYPES, no_files
from a3sgw.config.wording import Suggester

SERVICE = 'services "{}" {{\n load_balancer {{ servers = [{{ url = "http://{}" }}] }}\n}}\n'
ROUTER = 'routers "{}" {{\n rule = "PathPrefix(`/`)"\n service = "{}"\n}}\n'


def fragment(source, text):
    """
    Return what a file called `source` says.
    """
    return parse_fragment(text, source, {}, no_files, Suggester(), Vocabulary(MIDDLEWARE_TYPES))


class MergeTests(SynchronousTestCase):
    """
    Several files are one configuration.
    """

    def test_union(self):
        """Every file adds to entrypoints, routers, services and middlewares, and each refers to what the others have."""
        main = fragment("main.hcl", ENTRYPOINT + "shutdown_timeout_secs = 7\n" + ROUTER.format("r", "a"))
        one = fragment("a.hcl", SERVICE.format("a", "one"))
        two = fragment("b.hcl", 'entrypoints "x" { address = ":81" }\nmiddlewares "m" { type = "compress" }\n' + ROUTER.format("s", "a"))
        merged = merge([main, one, two])
        config = merged.config
        self.assertEqual([list(config.entrypoints), list(config.routers)], [["web", "x"], ["r", "s"]])
        self.assertEqual([list(config.services), list(config.middlewares)], [["a"], ["m"]])
        self.assertEqual((config.shutdown_timeout_secs, merged.collisions), (7, ()))
        self.assertEqual(str(merged.positions["services.a"]), "a.hcl:1:1")
        self.assertEqual(check_fragments([main, one, two], Suggester()).problems, ())

    def test_alone(self):
        """The main file alone is what it says."""
        main = fragment("main.hcl", ENTRYPOINT)
        self.assertIs(merge([main]).config, main.config)

    def test_collision(self):
        """D5: a name that two files define belongs to the first, and the problem names both places."""
        main = fragment("main.hcl", ENTRYPOINT + SERVICE.format("a", "main"))
        one = fragment("a.hcl", SERVICE.format("b", "a"))
        two = fragment("b.hcl", "\n" + SERVICE.format("a", "b") + SERVICE.format("b", "b"))
        merged = merge([main, one, two])
        self.assertEqual(
            [str(problem) for problem in merged.collisions],
            [
                'b.hcl:2:1: service "a" is defined twice; first at main.hcl:2:1',
                'b.hcl:5:1: service "b" is defined twice; first at a.hcl:1:1',
            ],
        )
        urls = {name: service.load_balancer.servers[0].url for name, service in merged.config.services.items()}
        self.assertEqual(urls, {"a": "http://main", "b": "http://a"})

    def test_order_of_problems(self):
        """Problems are told file by file, each from top to bottom."""
        files = [
            fragment("main.hcl", ENTRYPOINT + "\n\n\n\n" + ROUTER.format("r", "no")),
            fragment("a.hcl", ROUTER.format("s", "none") + "bogus = 1\n"),
        ]
        loaded = check_fragments(files, Suggester())
        self.assertEqual([str(problem.position) for problem in loaded.problems], ["main.hcl:8:12", "a.hcl:3:12", "a.hcl:5:1"])

    def test_not_parsed(self):
        """Of files one of which is not HCL only what each says of itself is told: who knows what the other had."""
        files = [fragment("main.hcl", ENTRYPOINT + ROUTER.format("r", "no")), fragment("a.hcl", "services {")]
        loaded = check_fragments(files, Suggester())
        self.assertIsNone(loaded.config)
        self.assertEqual([problem.position.source for problem in loaded.problems], ["a.hcl"])
