"""
Tests of the type `chain`.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import MiddlewareError
from a3sgw.interfaces import IMiddlewareFactory
from a3sgw.loading import load_string
from a3sgw.middleware import named_chain
from a3sgw.middleware.catalog import BUILT_IN, Catalog
from a3sgw.middleware.named_chain import ChainConfig
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, request
from a3sgw.proxy.test.dialogues import DialogueCase, config
from a3sgw.proxy.test.probes import Probes


def block(name, type_name, *lines):
    return "\n".join([f'middlewares "{name}" {{', f'type = "{type_name}"', *lines, "}", ""])


def chain(name, *names):
    return block(name, "chain", f"middlewares = [{listed(*names)}]")


def listed(*names):
    return ", ".join(f'"{name}"' for name in names)


def listing(text, *names):
    """
    Return a configuration whose router lists `names`, with the blocks in `text`.
    """
    return config(more=text).replace("middlewares = []", f"middlewares = [{listed(*names)}]", 1)


class FactoryTests(SynchronousTestCase):
    """
    There is a type, and nothing to build.
    """

    def test_interface(self):
        """The factory is one, and its class a documented configuration."""
        verifyObject(IMiddlewareFactory, named_chain.factory)
        self.assertEqual((named_chain.factory.type_name, named_chain.factory.config_class), ("chain", ChainConfig))
        self.assertIn(named_chain.factory, BUILT_IN)

    def test_never_built(self):
        """A chain of nothing, which only a configuration made by hand can hold, cannot be built."""
        error = self.assertRaises(
            MiddlewareError, named_chain.factory.build, ChainConfig(name="c", middlewares=()), still_surroundings("x")
        )
        self.assertEqual(error.attribute, "middlewares")


class ChainCase(DialogueCase):
    """
    Routers and entrypoints that list chains of probes.
    """

    def begin(self, text, *names, entrypoint=()):
        self.probes = Probes()
        self.catalog = Catalog.of([*self.probes.catalog.factories.values(), *BUILT_IN])
        self.order = []
        text += "".join(block(name, "probe") for name in "abcd")
        text = listing(text, *names).replace('8080"', f'8080"\nmiddlewares = [{listed(*entrypoint)}]', 1)
        self.converse_with(text)
        for name, probe in self.probes.made.items():
            probe.request = lambda exchange, name=name: self.order.append(name)
        self.say(self.client, request())
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.hear(self.client), OK)
        return "".join(self.order)

    def converse_with(self, text):
        self.converse(catalog=self.catalog)
        self.dialogue.reload(text)


class OrderTests(ChainCase):
    """
    Listing a chain is listing what it names.
    """

    def test_orders(self):
        """The table of lists and the order in which middlewares are asked."""
        for text, names, expected in [
            (chain("x", "b", "a"), "x", "ba"),
            (chain("x", "b", "a"), "cxd", "cbad"),
            (chain("x", "a"), "x", "a"),
            (chain("x", "b", "y", "d") + chain("y", "c"), "ax", "abcd"),
            (chain("x", "y") + chain("y", "z") + chain("z", "d"), "x", "d"),
            (chain("x", "a", "b") + chain("y", "c", "d"), "yx", "cdab"),
        ]:
            self.assertEqual(self.begin(text, *names), expected, (text, names))
            self.client.close()

    def test_on_an_entrypoint(self):
        """On an entrypoint it is the same, and those of the entrypoint come first."""
        self.assertEqual(self.begin(chain("x", "b", "a"), "c", entrypoint="x"), "bac")

    def test_entrypoint_and_router(self):
        """An entrypoint and a router may list the same chain; each has its own of what it names."""
        self.begin(chain("x", "a"), "x", entrypoint="x")
        owners = [key[2] for key in self.dialogue.carrier.generation().parts if key[0] == "middleware"]
        self.assertEqual(sorted(owners), ["entrypoint", "router"])

    def test_metrics(self):
        """Metrics are about what is in a chain; the chain itself has none."""
        self.begin(chain("x", "a", "b"), "x")
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        self.assertEqual({row["name"] for row in told[0]["gauges"]["middlewares"]}, {"a", "b"})
        (chain_key,) = (key for key in self.dialogue.carrier.generation().parts if key[0] == "chain")
        self.assertEqual([name for name, *_ in chain_key[1]], ["a", "b"])


class ReloadTests(ChainCase):
    """
    What is kept when lists are written in another way.
    """

    def made(self):
        return {key[1].name: part for key, part in self.dialogue.carrier.generation().parts.items() if key[0] == "middleware"}

    def test_into_a_chain_and_out(self):
        """To put middlewares into a chain, or take them out of it, changes nothing for them."""
        probes = "".join(block(name, "probe") for name in "abcd")
        self.begin("", "a", "b")
        before = self.made()
        for text, names in [
            (chain("x", "a", "b"), "x"),
            (chain("x", "b") + chain("y", "a", "x"), "y"),
            (chain("x", "b"), "ax"),
            ("", "ab"),
        ]:
            self.dialogue.reload(listing(text + probes, *names))
            after = self.made()
            self.assertEqual(after, before)
            self.assertEqual([after[name].told.count("retired") for name in "ab"], [0, 0])

    def test_another_member(self):
        """What a changed chain still names goes on; what it no longer names is retired."""
        probes = "".join(block(name, "probe") for name in "abcd")
        self.begin(chain("x", "a", "b"), "x")
        before = self.made()
        self.dialogue.reload(listing(chain("x", "c", "a") + probes, "x"))
        self.assertEqual(set(self.made()), {"a", "c"})
        self.assertIs(self.made()["a"], before["a"])
        self.assertEqual((before["a"].told.count("retired"), before["b"].told.count("retired")), (0, 1))


class ConfigTests(SynchronousTestCase):
    """
    What is refused when the configuration is loaded.
    """

    FILTER = block("f", "tcp-filter", "max_connections = 1")
    LIMIT = block("small", "body-limit", "max_body_bytes = 1")

    def problems(self, text, *names):
        return [str(problem) for problem in load_string(listing(text, *names), "gw.hcl", {}).problems]

    def test_sound(self):
        """A chain is built as what it names, whether it is listed or not."""
        self.assertEqual(self.problems(self.LIMIT + chain("x", "small"), "x"), [])
        self.assertEqual(self.problems(self.LIMIT + chain("x", "small")), [])

    def test_refusals(self):
        """Circles, repetitions and unknown names are found with their places."""
        text = self.LIMIT + chain("x", "small", "y") + chain("y", "x")
        self.assertEqual(self.problems(text, "x"), ['gw.hcl:22:16: middleware "x" leads back to itself: "x" → "y" → "x"'])
        (problem,) = self.problems(self.LIMIT + chain("x", "small"), "x", "small")
        self.assertTrue(
            problem.startswith('gw.hcl:9:23: router "app" has the middleware "small" twice, through "x" and by itself'), problem
        )
        (problem,) = self.problems(self.LIMIT + chain("x", "smal"), "x")
        self.assertEqual(problem, 'gw.hcl:18:16: middleware "x" names middleware "smal"; did you mean "small"?')

    def test_gate_in_a_chain(self):
        """What decides about connections is not let onto a router by way of a chain."""
        text = self.FILTER + self.LIMIT + chain("x", "small", "f") + chain("y", "x")
        for names, column, what in [
            ("f", 18, '"f"'),
            ("x", 18, '"x" with "f" in it'),
            (("small", "f"), 27, '"f"'),
            ("y", 18, '"y" with "f" in it'),
        ]:
            self.assertEqual(
                self.problems(text, *names),
                [f'gw.hcl:9:{column}: router "app" lists {what}, but "tcp-filter" decides about connections; list it on an entrypoint'],
            )

    def test_example(self):
        """The example of the reference is valid."""
        self.assertEqual(self.problems(ChainConfig.example, "standard"), [])
