"""
Tests of lists of middlewares and the chains in them.
"""

import attrs
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.check_chain import members_of, walk_out, written_out
from a3sgw.config.test.loading import ENTRYPOINT, check_problems, decode_problems

_BACKEND = 'services "s" {\n load_balancer { servers = [{ url = "http://a" }] }\n}\n'


@attrs.frozen
class _Chain:
    """
    A chain made by hand.
    """

    names = {"middlewares": "middleware"}
    middlewares: tuple[str, ...] = ()


def chains(**given):
    """
    Return middlewares by name: a chain for a list of words, something else for a name that only stands in one.
    """
    found = {name: _Chain(tuple(words.split())) for name, words in given.items()}
    return {**{word: object() for chain in found.values() for word in chain.middlewares}, **found}


def listed(*names):
    return ", ".join(f'"{name}"' for name in names)


def chain(name, *names):
    """
    Return the block of a chain; what it names is in its fourth line, from column 18 on.
    """
    return f'middlewares "{name}" {{\n  type = "chain"\n\n  middlewares = [{listed(*names)}]\n}}\n'


def plain(*names):
    return "".join(f'middlewares "{name}" {{ type = "compress" }}\n' for name in names)


def router(*names):
    return f'routers "r" {{\n  rule = "x"\n  service = "s"\n  middlewares = [{listed(*names)}]\n}}\n'


class WritingOutTests(SynchronousTestCase):
    """
    Chains are replaced by what they name.
    """

    def test_members(self):
        """Only a type that names middlewares stands for them; what names a service, or nothing, is itself."""
        self.assertEqual(members_of(_Chain(("a", "b"))), ("a", "b"))
        self.assertEqual(members_of(object()), ())
        self.assertEqual(members_of(None), ())

        class Asking:
            names = {"service": "service"}
            service = "s"

        self.assertEqual(members_of(Asking()), ())

    def test_table(self):
        """The order is that of reading, whatever is nested in what."""
        middlewares = chains(one="a b", two="c one d", deep="two two")
        for names, expected in [
            ("", ""),
            ("a", "a"),
            ("b a", "b a"),
            ("one", "a b"),
            ("x one y", "x a b y"),
            ("two", "c a b d"),
            ("one two", "a b c a b d"),
            ("deep", "c a b d c a b d"),
            ("unknown one", "unknown a b"),
        ]:
            self.assertEqual(written_out(names.split(), middlewares), expected.split(), names)

    def test_empty(self):
        """A chain of nothing is left as it is, for whoever builds it to refuse."""
        self.assertEqual(written_out(["nothing"], {"nothing": _Chain()}), ["nothing"])

    def test_who_brought_it(self):
        """Everything that is entered on the way is given with the index of what brought it."""
        self.assertEqual(
            list(walk_out(["x", "two"], chains(one="a b", two="one c"))),
            [(0, "x"), (1, "two"), (1, "one"), (1, "a"), (1, "b"), (1, "c")],
        )

    def test_deep(self):
        """Chains may be nested deeper than Python calls."""
        middlewares = chains(**{f"c{number}": f"c{number + 1}" for number in range(5000)})
        self.assertEqual(written_out(["c0"], middlewares), ["c5000"])


class CheckTests(SynchronousTestCase):
    """
    Lists come to an end and name nothing twice.
    """

    def check(self, text, *expected):
        """
        Fail unless the problems of `text`, which begins in the fifth line, are these.
        """
        self.assertEqual(check_problems(ENTRYPOINT + _BACKEND + text), [f"gw.hcl:{line}" for line in expected])

    def test_sound(self):
        """Chains of chains, and the same chain in several routers, are in order."""
        self.check(chain("one", "a", "b") + chain("two", "c", "one") + plain("a", "b", "c", "d") + router("two", "d"))
        self.check(chain("one", "a") + plain("a") + router("one") + router("one").replace('"r"', '"q"'))

    def test_unknown(self):
        """What a chain names exists; the problem stands where the name does."""
        self.check(
            chain("c", "a", "compres") + plain("a", "compress"),
            '8:23: middleware "c" names middleware "compres"; did you mean "compress"?',
        )
        self.check(chain("c", "zzz"), '8:18: middleware "c" names middleware "zzz", which does not exist')

    def test_empty(self):
        """A chain of nothing is refused."""
        self.assertEqual(
            decode_problems(ENTRYPOINT + chain("c")),
            ["gw.hcl:5:17: middlewares.c.middlewares is an empty list, expected at least one item"],
        )
        (problem,) = decode_problems(ENTRYPOINT + 'middlewares "c" { type = "chain" }')
        self.assertEqual(problem, 'gw.hcl:2:1: middleware "c" lacks "middlewares", which is required')

    def test_circles(self):
        """A chain that leads back to itself is reported once, where the circle closes, whoever lists it."""
        self.check(chain("a", "a") + router("a"), '8:18: middleware "a" leads back to itself: "a" → "a"')
        self.check(chain("in", "a") + chain("a", "a"), '13:18: middleware "a" leads back to itself: "a" → "a"')
        self.check(
            chain("a", "x", "b") + chain("b", "a") + plain("x") + router("a", "b"),
            '13:18: middleware "a" leads back to itself: "a" → "b" → "a"',
        )
        self.check(
            chain("in", "a") + chain("a", "b") + chain("b", "x", "c") + chain("c", "a") + plain("x"),
            '23:18: middleware "a" leads back to itself: "a" → "b" → "c" → "a"',
        )

    def test_several_circles(self):
        """All circles are reported, also those that share a chain."""
        self.check(
            chain("a", "b", "c") + chain("b", "a") + chain("c", "a") + chain("d", "d"),
            '13:18: middleware "a" leads back to itself: "a" → "b" → "a"',
            '18:18: middleware "a" leads back to itself: "a" → "c" → "a"',
            '23:18: middleware "d" leads back to itself: "d" → "d"',
        )

    def test_twice(self):
        """What a list names twice is reported at the second, with the ways that lead to it."""
        tail = "; it would count everything twice"
        for names, column, text in [
            (("a", "b", "a"), 28, f'has the middleware "a" twice{tail}'),
            (("a", "b", "one"), 28, f'has the middleware "a" twice, by itself and through "one"{tail}'),
            (("one", "a"), 25, f'has the middleware "a" twice, through "one" and by itself{tail}'),
            (("one", "two"), 25, f'has the middleware "one" twice, by itself and through "two"{tail}'),
            (("two", "one"), 25, f'has the middleware "one" twice, through "two" and by itself{tail}'),
            (("one", "one"), 25, f'has the middleware "one" twice{tail}'),
        ]:
            self.check(
                chain("one", "a") + chain("two", "b", "one") + plain("a", "b") + router(*names),
                f'20:{column}: router "r" {text}',
            )

    def test_twice_on_an_entrypoint(self):
        """The list of an entrypoint is looked at in the same way."""
        self.check(
            'entrypoints "b" {\n address = ":81"\n middlewares = ["one", "a"]\n}\n' + chain("one", "a") + plain("a"),
            '7:24: entrypoint "b" has the middleware "a" twice, through "one" and by itself; it would count everything twice',
        )

    def test_entrypoint_and_router(self):
        """An entrypoint and a router may list the same: each has its own."""
        self.check('entrypoints "b" {\n address = ":81"\n middlewares = ["a"]\n}\n' + plain("a") + router("a"))

    def test_twice_in_a_chain(self):
        """What a chain names twice is reported there, and not again wherever the chain is listed."""
        self.check(
            chain("outer", "bad", "b") + chain("bad", "a", "a") + plain("a", "b") + router("outer"),
            '13:23: middleware "bad" has the middleware "a" twice; it would count everything twice',
        )
        self.check(
            chain("outer", "bad", "bad") + chain("bad", "a", "a") + plain("a"),
            '13:23: middleware "bad" has the middleware "a" twice; it would count everything twice',
            '8:25: middleware "outer" has the middleware "bad" twice; it would count everything twice',
        )
        self.check(
            chain("outer", "one", "two") + chain("one", "a") + chain("two", "b", "a") + plain("a", "b") + router("outer"),
            '8:25: middleware "outer" has the middleware "a" twice, through "one" and through "two"; it would count everything twice',
        )

    def test_foreign(self):
        """A name from the environment is not printed, unless it is the name of something."""
        problems = check_problems(ENTRYPOINT + _BACKEND + router("${M}", "${M}"), {"M": "hidden"})
        self.assertEqual(len(problems), 3)
        self.assertNotIn("hidden", "".join(problems))

    def test_wide(self):
        """Chains that double at every step, to more than there are atoms, are refused without being written out."""
        text = "".join(chain(f"c{number}", f"c{number + 1}", f"c{number + 1}") for number in range(300))
        problems = check_problems(ENTRYPOINT + _BACKEND + text + plain("c300") + router("c0"))
        self.assertEqual(len(problems), 300)
        self.assertTrue(
            problems[0].endswith('middleware "c299" has the middleware "c300" twice; it would count everything twice'), problems[0]
        )

    def test_deep(self):
        """A circle of thousands of chains is found."""
        middlewares = "".join(chain(f"c{number}", f"c{(number + 1) % 2000}") for number in range(2000))
        (problem,) = check_problems(ENTRYPOINT + middlewares)
        self.assertIn('"c0" leads back to itself: "c0" → "c1"', problem)
