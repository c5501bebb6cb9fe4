"""
The rules of the house that a machine can check, read off the syntax trees of all modules.

Imports point downstairs; the pure floor knows no Twisted; only the top floor sees the global reactor; every `@implementer` is verified;
what is long says why; no test replaces parts of what it tests.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

import a3sgw

PACKAGE = Path(a3sgw.__file__).parent

# Rooms and root modules by floor. A half floor lies under rooms of the same number that may import it.
FLOORS = {
    0.0: {"__init__", "_version", "address", "errors", "interfaces", "message", "refusal", "steps"},
    1.0: {"config", "policy", "route", "wire"},
    1.5: {"plugins"},
    1.75: {"dropins"},
    2.0: {"middleware", "observe", "service"},
    3.0: {"net"},
    3.5: {"proxy"},
    4.0: {"acme", "admin", "health", "listen", "provider", "scaling"},
    5.0: {"assembly", "assembly_middleware", "assembly_parts", "assembly_router", "assembly_service", "assembly_tcp", "assembly_tls"}
    | {"assembly_udp", "carrier", "gauges", "loading", "loading_fit", "loading_tcp", "loading_udp"},
    5.25: {"workers"},
    5.5: {"gateway", "view"},
    6.0: {"cli", "demo", "eventlog", "lifetime", "settled", "source", "succession", "summary", "supply", "tap", "worker_process"},
}
# Public fakes and contracts for tests; nothing that runs may import them.
FOR_TESTS = {"testing"}
ROOM_FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
PURE_FLOOR = 1.0
TOP_FLOOR = 6.0

LONGEST_MODULE = 400
LONGEST_FUNCTION = 40
EXCUSE = "Long because"

# Exceptions to the rules below: the name of the test and the path of the module in the package, and why. It should stay short.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("test_imports_point_downstairs", "config/model.py"): "`GatewayConfig.from_file` is the public interface, and checks everything",
    ("test_packages_hold_a_docstring_only", "plugins/__init__.py"): "plugins are found beside an editable install too",
    ("test_only_the_top_floor_sees_the_global_reactor", "gateway.py"): "`Gateway(config)` without a reactor is the public interface",
}


@attrs.frozen
class Module:
    """
    One source file, parsed.
    """

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """
        The first part of the name after the package: a room, or a module of the root.
        """
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else "__init__"

    @property
    def is_test(self) -> bool:
        """
        Whether the module is part of a test package.
        """
        return "test" in self.name.split(".")


def read_modules() -> list[Module]:
    """
    Return every module of the package.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent == PACKAGE / "plugins" and path.name != "__init__.py":
            # Somebody else's, installed beside us.
            continue
        parts = ["a3sgw", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        text = path.read_text("utf-8")
        found.append(Module(".".join(parts), path, text, ast.parse(text, str(path))))
    return found


MODULES = read_modules()
CODE = [module for module in MODULES if not module.is_test]
TESTS = [module for module in MODULES if module.is_test]


def is_type_checking(node: ast.AST) -> bool:
    """
    Tell whether `node` is an `if TYPE_CHECKING:`.
    """
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """
    Give every node of `tree` that can run, which leaves out what stands under `if TYPE_CHECKING:`.
    """
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.orelse if isinstance(node, ast.If) and is_type_checking(node) else ast.iter_child_nodes(node))


def imported_names(module: Module, tree: ast.AST | None = None) -> Iterator[tuple[int, str]]:
    """
    Give the line and the full name of everything that `module` imports when it runs, inside functions too.

    `from a import b` gives `a.b`, because `b` may be a module.
    """
    for node in running_nodes(tree or module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def is_within(name: str, package: str) -> bool:
    """
    Tell whether `name` is `package` or something in it.
    """
    return name == package or name.startswith(f"{package}.")


def upward_imports(module: Module) -> Iterator[str]:
    """
    Give a sentence for each import of `module` that does not point to a lower floor or its own room.
    """
    here = ROOM_FLOOR[module.room]
    for line, name in imported_names(module):
        if not is_within(name, "a3sgw"):
            continue
        room = name.split(".")[1] if "." in name else "__init__"
        if room not in ROOM_FLOOR and room not in FOR_TESTS:
            room = "__init__"  # a name out of the package itself
        if room in FOR_TESTS:
            yield f"{module.path}:{line}: {module.name} imports {name}, which is for tests"
        elif room == module.room or (is_root_module(room) and is_root_module(module.room) and ROOM_FLOOR[room] == here):
            continue
        elif ROOM_FLOOR[room] >= here:
            yield f"{module.path}:{line}: {module.name} (floor {here:g}) imports {name} (floor {ROOM_FLOOR[room]:g})"


def is_root_module(room: str) -> bool:
    """
    Tell whether `room` is a module beside the rooms. Those of one floor are one room.
    """
    return not (PACKAGE / room).is_dir()


def reactor_imports(module: Module) -> Iterator[str]:
    """
    Give a sentence for each import of the global reactor.
    """
    for line, name in imported_names(module):
        if is_within(name, "twisted.internet.reactor"):
            yield f"{module.path}:{line}: {module.name} imports the global reactor"


def implementers(module: Module) -> Iterator[tuple[str, set[str]]]:
    """
    Give each class decorated with `@implementer(…)` and the names of its interfaces.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and last_name(decorator.func) == "implementer":
                    yield node.name, {last_name(argument) for argument in decorator.args}


def last_name(node: ast.expr) -> str:
    """
    Return `c` for `c` and for `a.b.c`.
    """
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def verified(module: Module) -> tuple[set[str], set[str]]:
    """
    Return the interfaces that a test module verifies, and all names it mentions.
    """
    interfaces = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and last_name(node.func) in ("verifyObject", "verifyClass") and node.args:
            interfaces.add(last_name(node.args[0]))
    return interfaces, {last_name(node) for node in ast.walk(module.tree) if isinstance(node, (ast.Name, ast.Attribute))}


def unverified(code: list[Module], tests: list[Module]) -> Iterator[str]:
    """
    Give a sentence for each implementer that no test module verifies for each of its interfaces.
    """
    proofs = [verified(test) for test in tests]
    for module in code:
        for name, interfaces in implementers(module):
            for interface in sorted(interfaces):
                if not any(interface in checked and name in mentioned for checked, mentioned in proofs):
                    yield f"{module.path}: no test verifies that {name} provides {interface}"


def function_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """
    Return the number of lines of a function, not counting its docstring.
    """
    first = node.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) is not None else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def too_long(module: Module) -> Iterator[str]:
    """
    Give a sentence for a long module, and for each long function, that does not say why it is long.
    """
    lines = module.text.splitlines()
    if len(lines) > LONGEST_MODULE and EXCUSE not in (ast.get_docstring(module.tree) or ""):
        yield f"{module.path}: {len(lines)} lines; split it, or say in its docstring: {EXCUSE} …"
    for node in ast.walk(module.tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or function_length(node) <= LONGEST_FUNCTION:
            continue
        if EXCUSE not in "\n".join(lines[node.lineno - 1 : node.end_lineno]):
            yield f"{module.path}:{node.lineno}: {node.name} has {function_length(node)} lines; split it, or say: {EXCUSE} …"


def replacements(module: Module) -> Iterator[str]:
    """
    Give a sentence for each use of a mock or a patch. `self.patch(os, "environ", …)` is free: the environment is not ours.
    """
    for line, name in imported_names(module):
        if is_within(name, "unittest.mock") or is_within(name, "mock"):
            yield f"{module.path}:{line}: imports {name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("patch", "MonkeyPatcher"):
            if ast.unparse(node).startswith("self.patch(os, 'environ',"):
                continue
            yield f"{module.path}:{node.lineno}: calls {ast.unparse(node.func)}"


def make_module(name: str, text: str) -> Module:
    """
    Return a module of the given text, as if it stood in the house.
    """
    path = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
    return Module(name, path, text, ast.parse(text))


def patterns_of(module):
    """
    Return the compiled expressions among the globals of a module, and those whose methods are.
    """
    values = [getattr(value, "__self__", value) for value in vars(module).values()]
    return [value for value in values if isinstance(value, re.Pattern)]


def has_possessive_group(parsed):
    """
    Say whether a parsed expression repeats more than one character possessively.
    """
    for operation, argument in parsed:
        inner = [argument] if isinstance(argument, re._parser.SubPattern) else []
        if isinstance(argument, tuple):
            inner = [each for part in argument for each in (part if isinstance(part, list) else [part])]
            inner = [each for each in inner if isinstance(each, re._parser.SubPattern)]
        if operation is re._constants.POSSESSIVE_REPEAT:
            (body,) = inner
            if len(body) != 1 or body[0][0] not in (re._constants.IN, re._constants.LITERAL, re._constants.NOT_LITERAL, re._constants.ANY):
                return True
        if any(map(has_possessive_group, inner)):
            return True
    return False


class HouseTests(SynchronousTestCase):
    """
    The code as it stands.
    """

    def assert_none(self, complaints):
        """
        Fail with all complaints, except those about excepted modules.
        """
        excepted = [f"{PACKAGE / path}:" for test, path in EXCEPTIONS if test == self._testMethodName]
        left = [complaint for complaint in complaints if not complaint.startswith(tuple(excepted))]
        if left:
            self.fail("\n".join(["", *sorted(left)]))

    def test_every_room_has_a_floor(self):
        """
        A new room or root module is entered into the table of floors.
        """
        self.assertEqual({module.room for module in CODE} - set(ROOM_FLOOR) - FOR_TESTS, set())

    def test_imports_point_downstairs(self):
        """
        A module imports from lower floors and its own room only.
        """
        self.assert_none(complaint for module in CODE if module.room in ROOM_FLOOR for complaint in upward_imports(module))

    def test_pure_floor_knows_no_twisted(self):
        """
        Floors 0 and 1 could run in another framework tomorrow.
        """
        self.assert_none(
            f"{module.path}:{line}: {module.name} imports {name}"
            for module in CODE
            if ROOM_FLOOR.get(module.room, TOP_FLOOR) <= PURE_FLOOR
            for line, name in imported_names(module)
            if is_within(name, "twisted")
        )

    def test_only_the_top_floor_sees_the_global_reactor(self):
        """
        Everything below is given the reactor it runs on.
        """
        self.assert_none(
            complaint
            for module in MODULES
            if ROOM_FLOOR.get(module.room, 0.0) < TOP_FLOOR or module.is_test
            for complaint in reactor_imports(module)
        )

    def test_one_module_knows_the_http2_library(self):
        """
        A young library can be exchanged as long as only one module knows it.
        """
        self.assertEqual(
            {module.name for module in MODULES for _, name in imported_names(module) if is_within(name, "ngh2")}, {"a3sgw.wire.http2"}
        )

    def test_repeats_that_some_pythons_get_wrong(self):
        """
        No expression repeats a group possessively: Python up to 3.11.4 matches that wrongly. Single characters are all right.
        """
        patterns = [
            (module.name, pattern)
            for module in MODULES
            if not module.is_test and any(name == "re" for _, name in imported_names(module))
            for pattern in patterns_of(importlib.import_module(module.name))
        ]
        self.assertGreater(len(patterns), 40)
        self.assertEqual([row for row in patterns if has_possessive_group(re._parser.parse(row[1].pattern, row[1].flags))], [])
        for text, is_wrong in [(r"(?:ab|c)*+", True), (r"x(?:[ab]c)++", True), (r"[ab]*+c?+", False), (r"(?:[ab]++c)*", False)]:
            self.assertEqual(has_possessive_group(re._parser.parse(text)), is_wrong, text)

    def test_every_implementer_is_verified(self):
        """
        A class that claims an interface is held to it by a test.
        """
        self.assert_none(unverified(CODE, TESTS))

    def test_packages_hold_a_docstring_only(self):
        """
        An `__init__.py` says what the room is for, and nothing happens when it is imported.
        """
        self.assert_none(
            f"{module.path}: holds more, or less, than a docstring"
            for module in MODULES
            if module.path.name == "__init__.py" and (len(module.tree.body) != 1 or not ast.get_docstring(module.tree))
        )

    def test_what_is_long_says_why(self):
        """
        A module past 400 lines or a function past 40 is two things, or gives its reason.
        """
        self.assert_none(complaint for module in CODE for complaint in too_long(module))

    def test_nothing_is_patched(self):
        """
        Tests give fakes through the front door; they replace nothing inside of what they test.
        """
        self.assert_none(complaint for module in TESTS for complaint in replacements(module))

    def test_every_module_says_what_it_is_for(self):
        """
        The first statement of a module is its docstring.
        """
        self.assert_none(f"{module.path}: has no docstring" for module in MODULES if not ast.get_docstring(module.tree))


class RuleTests(SynchronousTestCase):
    """
    The rules above find what they are there to find.
    """

    def test_upward_import(self):
        """
        An import of a higher floor, of a neighbour, or of what is for tests, is found wherever it stands; types alone are free.
        """
        cases = [
            ("a3sgw.wire.x", "from a3sgw.net import stream", 1),
            ("a3sgw.wire.x", "import a3sgw.net.stream", 1),
            ("a3sgw.wire.x", "def f():\n    from a3sgw.route.rule import parse", 1),
            ("a3sgw.wire.x", "from ..route import rule", 1),
            ("a3sgw.net.x", "from a3sgw.proxy import pool", 1),
            ("a3sgw.errors", "from a3sgw.wire import http1", 1),
            ("a3sgw.wire.x", "from a3sgw.testing import FakeStream", 1),
            ("a3sgw.wire.x", "from a3sgw.wire import body\nfrom . import fields\nfrom a3sgw.errors import Outcome", 0),
            ("a3sgw.proxy.x", "from a3sgw.net import stream", 0),
            ("a3sgw.message", "from a3sgw.errors import Outcome", 0),
            ("a3sgw.wire.x", "from a3sgw import message", 0),
            ("a3sgw.wire.x", "from a3sgw import net", 1),
            ("a3sgw.wire.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a3sgw.net import stream", 0),
        ]
        for name, text, count in cases:
            self.assertEqual(len(list(upward_imports(make_module(name, text)))), count, text)

    def test_reactor_import(self):
        """
        Every way to import the global reactor is found.
        """
        texts = [
            "from twisted.internet import reactor",
            "from twisted.internet import defer, reactor as r",
            "import twisted.internet.reactor",
            "from twisted.internet.reactor import callLater",
            "def f():\n    from twisted.internet import reactor",
        ]
        for text in texts:
            self.assertEqual(len(list(reactor_imports(make_module("a3sgw.net.x", text)))), 1, text)
        self.assertEqual(list(reactor_imports(make_module("a3sgw.net.x", "from twisted.internet import epollreactor"))), [])

    def test_unverified_implementer(self):
        """
        An implementer is accounted for by a test module that names it and verifies that very interface.
        """
        code = [make_module("a3sgw.service.x", "@implementer(IBalancer)\nclass Fair:\n    pass")]
        cases = [
            ("", 1),
            ("verifyObject(IPool, Fair())", 1),
            ("verifyObject(IBalancer, Other())", 1),
            ("verifyObject(IBalancer, Fair())", 0),
            ("verifyClass(interfaces.IBalancer, x.Fair)", 0),
        ]
        for text, count in cases:
            self.assertEqual(len(list(unverified(code, [make_module("a3sgw.service.test.test_x", text)]))), count, text)

    def test_length(self):
        """
        What is too long is found unless it gives its reason; a docstring is not counted.
        """
        body = "\n".join(["    pass"] * LONGEST_FUNCTION)
        excused = body.replace("pass", f"# {EXCUSE} it is a table.\n    pass", 1)
        docstring = '    """\n' + "    word\n" * LONGEST_FUNCTION + '    """\n    pass'
        for text, count in [(body, 1), (excused, 0), (docstring, 0)]:
            self.assertEqual(len(list(too_long(make_module("a3sgw.wire.x", f"def f():\n{text}")))), count, text)
        module = "pass\n" * (LONGEST_MODULE + 1)
        self.assertEqual(len(list(too_long(make_module("a3sgw.wire.x", module)))), 1)
        self.assertEqual(list(too_long(make_module("a3sgw.wire.x", f'"""{EXCUSE} it lists."""\n{module}'))), [])

    def test_replacement(self):
        """
        Mocks and patches are found.
        """
        for text in ["from unittest import mock", "import unittest.mock", "from unittest.mock import Mock", "self.patch(a, 'b', c)"]:
            self.assertEqual(len(list(replacements(make_module("a3sgw.wire.test.test_x", text)))), 1, text)
        for text in ["import unittest", 'self.patch(os, "environ", {})']:
            self.assertEqual(list(replacements(make_module("a3sgw.wire.test.test_x", text))), [], text)
