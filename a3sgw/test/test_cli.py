"""
Tests of `a3sgw.cli`: the command line and the commands that run no gateway. The others need a process; see `tests/test_cli.py`.
"""

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from a3sgw._version import __version__
from a3sgw.cli import parse, run
from a3sgw.config.reference import render
from a3sgw.middleware.catalog import BUILT_IN
from a3sgw.test.test_source import VALID, DirectoryCase


class ParseTests(DirectoryCase):
    """
    What may be written on the command line.
    """

    def exit_of(self, *arguments):
        """
        Return exit code, standard output and standard error of a command line that ends the program.
        """
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            error = self.assertRaises(SystemExit, parse, arguments)
        return error.code, out.getvalue(), err.getvalue()

    def test_accepted(self):
        """
        Options may stand before or after the command, in their short and long forms; the later one counts.
        """
        nothing = {"command": None, "name": None, "config": None, "listen": None, "log_level": "info", "format": "text"}
        cases = [
            ("", {}),
            ("--config a.hcl", {"config": "a.hcl"}),
            ("--config=a.hcl", {"config": "a.hcl"}),
            ("-c a.hcl -l :80 --log-level trace", {"config": "a.hcl", "listen": ":80", "log_level": "trace"}),
            ("validate", {"command": "validate"}),
            ("validate --config a.hcl", {"command": "validate", "config": "a.hcl"}),
            ("--config a.hcl validate", {"command": "validate", "config": "a.hcl"}),
            ("-c a.hcl validate -c b.hcl", {"command": "validate", "config": "b.hcl"}),
            ("-c a.hcl validate --format json", {"command": "validate", "config": "a.hcl", "format": "json"}),
            ("demo", {"command": "demo"}),
            ("--listen :81 demo --log-level warn", {"command": "demo", "listen": ":81", "log_level": "warn"}),
            ("middlewares", {"command": "middlewares"}),
            ("middlewares cors", {"command": "middlewares", "name": "cors"}),
            ("reference", {"command": "reference"}),
            ("update", {"command": "update"}),
        ]
        for line, changes in cases:
            self.assertEqual(vars(parse(line.split())), {**nothing, **changes}, line)

    def test_refused(self):
        """
        What makes no sense, or would be ignored, ends with code 2 and names the culprit.
        """
        cases = [
            ("--confg a.hcl", "--confg"),
            ("--conf a.hcl", "--conf"),
            ("--config", "--config"),
            ("--log-level loud", "loud"),
            ("start", "start"),
            ("gateway.hcl", "gateway.hcl"),
            ("validate --format xml", "xml"),
            ("--format json", "--format has no effect on running the gateway"),
            ("validate demo", "'demo' has no effect on 'validate'"),
            ("validate gateway.hcl", "gateway.hcl"),
            ("middlewares cors headers", "headers"),
            ("middlewares --config a.hcl", "--config has no effect on 'middlewares'"),
            ("reference cors", "'cors' has no effect on 'reference'"),
            ("--listen :80 validate", "--listen has no effect on 'validate'"),
            ("validate --log-level info", "--log-level has no effect on 'validate'"),
            ("demo --config a.hcl", "--config has no effect on 'demo'"),
            ("--config a.hcl update", "--config has no effect on 'update'"),
        ]
        for line, culprit in cases:
            code, out, err = self.exit_of(*line.split())
            self.assertEqual((code, out), (2, ""), line)
            self.assertIn(culprit, err)

    def test_version(self):
        """
        The version is printed on standard output, in either form.
        """
        for option in ("-V", "--version"):
            self.assertEqual(self.exit_of(option), (0, f"a3s-gateway {__version__}\n", ""))

    def test_help(self):
        """
        The help names every command, every option and the signals.
        """
        code, out, _ = self.exit_of("--help")
        self.assertEqual(code, 0)
        for word in ("validate", "demo", "middlewares", "reference", "update"):
            self.assertIn(f"\n  {word} ", out)
        for word in ("--config", "--listen", "--log-level", "--version", "HUP", "A3S_LOG"):
            self.assertIn(word, out)


class CommandCase(DirectoryCase):
    """
    A test that runs a command in this process.
    """

    def run_line(self, line, **environ):
        """
        Return exit code, standard output and standard error of a command.
        """
        out, err = StringIO(), StringIO()
        return run(line.split(), environ, out, err), out.getvalue(), err.getvalue()


class ValidateTests(CommandCase):
    """
    `a3s-gateway validate`.
    """

    def test_valid(self):
        """
        A valid file gives 0 and a summary on standard output, and nothing on standard error.
        """
        self.write(VALID, "a.hcl")
        for line in ("validate --config a.hcl", "--config a.hcl validate"):
            code, out, err = self.run_line(line)
            self.assertEqual((code, err), (0, ""))
            self.assertEqual(out.splitlines()[:2], ["✓ a.hcl parsed", "✓ configuration is valid"])
            self.assertIn("  web → 127.0.0.1:8080 (http)\n", out)

    def test_default_file(self):
        """
        Without `--config` it is gateway.hcl that is checked.
        """
        self.write(VALID)
        self.assertEqual(self.run_line("validate")[0], 0)

    def test_all_problems(self):
        """
        Every fault is one line with file, line and column on standard error, and the code is 1.
        """
        self.write('entrypoints "web" {\n  adress = ":80"\n}\nrouters "api" {\n  rule    = "Bath(`/`)"\n  service = "x"\n}\n')
        code, out, err = self.run_line("validate")
        self.assertEqual((code, out), (1, ""))
        *problems, last = err.splitlines()
        self.assertTrue(all(problem.startswith("gateway.hcl:") for problem in problems), err)
        for culprit in ("adress", "Bath", '"x"'):
            self.assertTrue(any(culprit in problem for problem in problems), f"{culprit} in {err}")
        self.assertEqual(last, f"✗ gateway.hcl: {len(problems)} problems")

    def test_missing_file(self):
        """
        A file that is not there is a problem that names it.
        """
        code, out, err = self.run_line("validate --config nowhere.hcl")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("nowhere.hcl", err)
        self.assertIn("No such file", err)

    def test_json(self):
        """
        The form for programs has the same code, is all on standard output, and says the same.
        """
        self.write(VALID)
        code, out, err = self.run_line("validate --format json")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual((json.loads(out)["valid"], json.loads(out)["problems"]), (True, []))
        self.write("nonsense = 1\n")
        code, out, err = self.run_line("validate --format json")
        self.assertEqual((code, err, json.loads(out)["valid"]), (1, "", False))
        first = json.loads(out)["problems"][0]
        self.assertEqual((first["file"], first["line"], first["column"]), ("gateway.hcl", 1, 1))
        code, out, err = self.run_line("validate --format json --config nowhere.hcl")
        self.assertEqual((code, err, json.loads(out)["valid"], json.loads(out)["summary"]), (1, "", False, None))

    def test_variables(self):
        """
        A variable that is not set is a problem that names it.
        """
        self.write('entrypoints "web" { address = "127.0.0.1:${GATEWAY_PORT}" }\n')
        code, _, err = self.run_line("validate")
        self.assertEqual(code, 1)
        self.assertIn("GATEWAY_PORT", err)
        self.assertEqual(self.run_line("validate", GATEWAY_PORT="8080")[0], 0)


class MiddlewaresTests(CommandCase):
    """
    `a3s-gateway middlewares` and `a3s-gateway reference`.
    """

    def test_list(self):
        """
        Every type has a line: its name, what it is for, and where it comes from.
        """
        code, out, err = self.run_line("middlewares")
        self.assertEqual((code, err), (0, ""))
        lines = out.splitlines()
        self.assertEqual([line.split()[0] for line in lines[: len(BUILT_IN)]], [factory.type_name for factory in BUILT_IN])
        for line in lines[: len(BUILT_IN)]:
            self.assertRegex(line, r"^[a-z-]+ +[A-Z].*[.] \(built in\)$")
        width = len(lines[0]) - len(lines[0].split(maxsplit=1)[1])
        self.assertEqual({line[width - 2 : width] for line in lines if not line.startswith("rate-limit-redis")}, {"  "})

    def test_one(self):
        """
        A type is explained as in the reference, with its attributes and an example.
        """
        code, out, err = self.run_line("middlewares strip-prefix")
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.startswith('### `middlewares "NAME" { type = "strip-prefix" }`\n'), out)
        for part in ("| Attribute | Type | Default | Meaning |", "| `prefixes` |", "```hcl\nmiddlewares "):
            self.assertIn(part, out)
        self.assertIn(out, self.run_line("reference")[1])

    def test_unknown(self):
        """
        A type that does not exist gives 1, and a guess what was meant or how to find out.
        """
        for name, hint in (("strip-prefx", '; did you mean "strip-prefix"?'), ("zzz", "; `a3s-gateway middlewares` lists those")):
            code, out, err = self.run_line(f"middlewares {name}")
            self.assertEqual((code, out), (1, ""))
            self.assertIn(f'a3s-gateway: there is no type of middleware called "{name}"{hint}', err)

    def test_reference(self):
        """
        The reference is the page that `make docs` writes, with the types that are built in.
        """
        code, out, err = self.run_line("reference")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out, render(factory.config_class for factory in BUILT_IN))


class UpdateTests(CommandCase):
    """
    `a3s-gateway update`.
    """

    def test_advice(self):
        """
        The command changes nothing; it prints the version and the pip command of this very interpreter.
        """
        code, out, err = self.run_line("update")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(__version__, out)
        self.assertIn(f"{sys.executable} -m pip install --upgrade", out)
