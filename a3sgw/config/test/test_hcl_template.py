"""
Tests for what the HCL parser fetches from the environment and from files.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from a3sgw.config.hcl import HclError, parse
from a3sgw.config.test.hcl_documents import ENVIRON, ParserTestCase, read, value, values_of


class EnvironmentTests(ParserTestCase):
    """
    Values from the environment and from files.
    """

    VALUES = [
        ('"${X}"', "v"),
        ('"${ X }"', "v"),
        ('"a${X}b${PORT}"', "avb8080"),
        ('"$${X} ${X}"', "${X} v"),
        ('"${EMPTY}"', ""),
        ('"${X:-d}"', "v"),
        ('"${NOPE:-d}"', "d"),
        ('"${NOPE:-}"', ""),
        ('"${EMPTY:-d}"', "d"),
        ('"${ NOPE:- d: [e] $5 # f }"', " d: [e] $5 # f "),
        (r'"${NOPE:-\"\\\u007b\n}"', '"\\{\n'),
        ('"${NOPE:-e\u0301}"', "é"),
        ('"http://${X}:${PORT:-80}/"', "http://v:8080/"),
        ('"${env("X")}"', "v"),
        ('"<${env("X")}>"', "<v>"),
        ('"${env("NOPE", "d")}"', "d"),
        ('env("X")', "v"),
        ('env (\n"X"\n,\n)', "v"),
        ('env("NOPE", "d")', "d"),
        ('env("EMPTY", "d")', "d"),
        ('env("NOPE", env("X"))', "v"),
        ('env("NOPE", "${X}!")', "v!"),
        ('env("${"X"}")', "v"),
        ('env("my-var.x")', "dashed"),
        ('file("plain")', "text"),
        ('file("line")', "secret"),
        ('file("dos")', "secret"),
        ('file("lines")', "one\ntwo\n"),
        ('file("empty")', ""),
        ('"<${file("line")}>"', "<secret>"),
        ('file(env("NOPE", "plain"))', "text"),
        ("<<E\n${X}\nE\n", "v\n"),
        # What comes from outside is never read as HCL, and never changed.
        ('"${WILD}"', ENVIRON["WILD"]),
        ('"<${WILD}>"', f"<{ENVIRON['WILD']}>"),
        ("<<-E\n  ${WILD}\nE\n", ENVIRON["WILD"] + "\n"),
        ('file("wild")', '${X}"\n}'),
        ('"${DECOMPOSED}"', "e\u0301"),
    ]

    def test_values(self):
        """
        A variable or a file stands for its text, alone or within a string; a default is used when there is none or it is empty.
        """
        for text, meaning in self.VALUES:
            found = value(text)
            self.assertEqual((found.value, found.is_foreign), (meaning, True), text)

    def test_foreign_in_lists_and_objects(self):
        """
        Only the value that came from elsewhere is marked, wherever it stands.
        """
        listed = value('["${X}", "x", { k = "${X}" }]')
        self.assertEqual([item.is_foreign for item in listed.items[:2]], [True, False])
        self.assertTrue(listed.items[2].entries[0].value.is_foreign)

    def test_no_environment(self):
        """
        A variable is looked up in what was given, not in the process.
        """
        error = self.assertRaises(HclError, read, 'a = "${PATH}"', {})
        self.assertEqual(str(error), 'gw.hcl:1:6: environment variable "PATH" is not set; set it, or write ${PATH:-default}')

    def test_no_files(self):
        """
        Where files may not be read, `file()` says so.
        """
        error = self.assertRaises(HclError, parse, 'a = file("line")', "gw.hcl", environ={})
        self.assertEqual(
            str(error), 'gw.hcl:1:5: the file "line" cannot be read here: this configuration has no access to files'
        )

    FAULTS = [
        ('"${NOPE}"', '1:6: environment variable "NOPE" is not set; set it, or write ${NOPE:-default}'),
        ('"abc ${ NOPE }"', '1:10: environment variable "NOPE" is not set; set it, or write ${NOPE:-default}'),
        ("<<E\n\n x ${NOPE}\nE\n", '3:4: environment variable "NOPE" is not set; set it, or write ${NOPE:-default}'),
        ('env("NOPE")', '1:5: environment variable "NOPE" is not set; set it, or write env("NOPE", "default")'),
        ('"${env("NOPE")}"', '1:8: environment variable "NOPE" is not set; set it, or write env("NOPE", "default")'),
        ('"${UNDECODABLE}"', '1:6: environment variable "UNDECODABLE" is not text in UTF-8; set it anew'),
        *(
            (call, '1:5: env() takes the name of a variable, and perhaps a default, as strings: env("NAME", "default")')
            for call in ("env()", "env(1)", "env([])", 'env({ a = "X" })', 'env("X", 1)', 'env("X", "Y", "Z")', "env(null)")
        ),
        ('env("a b")', '1:5: the name given to env() is not that of an environment variable: letters, digits, "_", "." and "-"'),
        ('env("")', '1:5: the name given to env() is not that of an environment variable: letters, digits, "_", "." and "-"'),
        ('env(env("X"))', "1:5: the name of a variable must be written out, not come from the environment or a file"),
        ('env("${X}")', "1:5: the name of a variable must be written out, not come from the environment or a file"),
        *((call, '1:5: file() takes the path of a file as a string: file("path")') for call in ("file()", "file(1)", 'file("a", "b")')),
        ('file("gone")', '1:5: the file "gone" cannot be read: No such file or directory'),
        ('file("binary")', '1:5: the file "binary" is not text in UTF-8'),
        ('file("halves")', '1:5: the file "halves" is not text in UTF-8'),
        (r'file("a\u0000")', '1:5: the file "a\0" cannot be read: that is not a path'),
        ('file("${PATH_TO}")', "1:5: the file named here (by a value from elsewhere) cannot be read: No such file or directory"),
        ('upper("x")', '1:5: there is no function upper(); there are env("NAME"), env("NAME", "default") and file("path")'),
        ('[1, upper([{}], 2)]', '1:9: there is no function upper(); there are env("NAME"), env("NAME", "default") and file("path")'),
        *(
            (
                text,
                "1:7: the key of an object is a name and must be written out, not come from the environment or a file",
            )
            for text in ('{ "${X}" = 1 }', '{ (env("X")) = 1 }', '{ "a-${X}" = 1 }')
        ),
    ]

    def test_faults(self):
        """
        What cannot be had is reported where it was asked for, by a name that stands in the file.
        """
        for text, problem in self.FAULTS:
            self.assertRefused(f"a = {text}\n", problem)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    def test_no_injection(self, text):
        """
        A variable's text arrives unchanged, whatever it is.
        """
        body = read('a = "${X}"\nb = "<${env("X")}>"\nc = <<E\n${X}\nE\nd = ["${X}"]\n', {"X": text})
        self.assertEqual(values_of(body), {"a": text, "b": f"<{text}>", "c": f"{text}\n", "d": [text]})

    def test_no_disclosure(self):
        """
        No message repeats what a variable, a file or a string says, whatever is wrong with the text around it.
        """
        frames = ["a = @ @", "a = [@ @]", "a = [@", "a = (@ @)", "a = -@", "a = { b = @ c }", "a = { b = @, b = @ }", "a { b = @ @ }"]
        frames += ["a = x(@)", "a = file([@])", "a = env([@])", 'a = "${@ @}"', "a = @[0]", "a = @ ? @ : @", "a = [%{@}]"]
        foreign_frames = [*frames, "a = { @ = 1 }", "a = env(@)", "a = env(@, 1)", "a = file(@)", 'a "x" @', "@ = 1", "a { @"]
        foreign_terms = ['env("S")', '"${S}"', '"<${env("S")}>"', 'file("S")', "<<E\n${S}\nE\n"]
        own_terms = ['"sesame"', '"sesame', '"sesame\\q"', "7sesame", "sesame", "sesame.x", "<<E\nsesame", "<<E\nsesame\nE\n", "<< sesame"]


        def file_of(path):
            if path == "S":
                return "sesame"
            raise FileNotFoundError(2, "No such file or directory", path)

        cases = [(term, frame) for term in foreign_terms for frame in foreign_frames]
        for term, frame in [*cases, *((term, frame) for term in own_terms for frame in frames)]:
            text = frame.replace("@", term)
            error = self.assertRaises(HclError, parse, text, "gw.hcl", environ={"S": "sesame"}, read_file=file_of)
            self.assertNotIn("sesame", str(error).replace('function sesame()', ""), text)
