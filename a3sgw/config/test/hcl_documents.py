"""
Make HCL documents, and read trees as plain values: what the tests of the parser share.

A document is a list of items: `(name, value)` is an attribute, `(type, labels, items)` a block. `write` prints one in a layout chosen by
chance, so that one document is many texts; `values_of` turns a tree into the dictionaries that HashiCorp's parser gives.
"""

import string
import unicodedata
from decimal import Decimal

from hypothesis import strategies as st
from twisted.trial import unittest

from a3sgw.config.hcl import HclError, parse
from a3sgw.config.tree import ListValue, Position, Scalar

ENVIRON = {
    "X": "v",
    "EMPTY": "",
    "PORT": "8080",
    "WILD": '${X} %{if} "\n} \\u0041',
    "UNDECODABLE": "\udcff",
    "my-var.x": "dashed",
    "PATH_TO": "gone",
    "DECOMPOSED": "e\u0301",
}
FILES = {
    "plain": "text",
    "line": "secret\n",
    "dos": "secret\r\n",
    "lines": "one\ntwo\n\n",
    "wild": '${X}"\n}\n',
    "halves": "\udcff",
    "empty": "",
}


def read_file(path):
    """
    Stand in for the disk.
    """
    if path == "binary":
        raise UnicodeDecodeError("utf-8", b"sesame", 0, 1, "sesame")
    if "\0" in path:
        raise ValueError("embedded null byte")
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory", path)
    return FILES[path]


def read(text, environ=ENVIRON):
    """
    Parse as a gateway would.
    """
    return parse(text, "gw.hcl", environ=environ, read_file=read_file)


def value(text):
    """
    Return the only attribute's value.
    """
    (attribute,) = read(f"a = {text}\n").attributes
    return attribute.value


def at(line, column):
    """
    Return a place in the text.
    """
    return Position("gw.hcl", line, column)


class ParserTestCase(unittest.SynchronousTestCase):
    """
    The assertion about refusals.
    """

    def assertRefused(self, text, *problems):
        """
        Reading `text` reports exactly these problems, each written as `line:column: message`.
        """
        error = self.assertRaises(HclError, read, text)
        self.assertEqual([str(problem) for problem in error.problems], [f"gw.hcl:{problem}" for problem in problems], text)

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=6)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text('ab $%{}"\\#/*=\n\t', max_size=12)
NUMBERS = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS


def normal(text):
    """
    Return text as HCL keeps it.
    """
    return unicodedata.normalize("NFC", text)


def objects_of(values, keys=NAMES | TEXTS):
    """
    Return a strategy for objects whose keys stay different in normal form.
    """
    return st.lists(st.tuples(keys, values), max_size=3, unique_by=lambda entry: normal(entry[0])).map(dict)


def values(scalars=SCALARS, keys=NAMES | TEXTS):
    """
    Return a strategy for what can stand to the right of an equals sign.
    """
    return st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | objects_of(inner, keys), max_leaves=6)


def documents(attributes=None, labels=TEXTS):
    """
    Return a strategy for documents in which no name is used twice in one body.
    """
    attributes = values() if attributes is None else attributes

    def bodies(inner):
        attribute = st.tuples(NAMES, attributes)
        block = st.tuples(NAMES, st.lists(labels, max_size=2), inner)
        return st.lists(attribute | block, max_size=4, unique_by=lambda item: item[0])

    return st.recursive(bodies(st.just([])), bodies, max_leaves=3)


def write(items, random, margin=""):
    """
    Print a document.
    """
    return "".join(_item(item, random, margin) for item in items)


def _item(item, random, margin):
    noise = random.choice(["", "", "", "# note\n", "// { note\n", "\n", "/* note */ ", "\t"])
    end = random.choice(["\n", "\n", "\r\n", " # note\n", "// }\n", " /* note */ \n"])
    if len(item) == 2:
        name, value = item
        text = _value(value, random, margin)
        if text.startswith("<<"):
            # Nothing may follow the marker.
            end = random.choice(["\n", "\r\n"])
        return f"{noise}{margin}{name}{random.choice(['=', ' = ', '  ='])}{text}{end}"
    kind, labels, body = item
    head = f"{noise}{margin}{kind} " + "".join(_label(label, random) + " " for label in labels)
    if not body and random.random() < 0.5:
        return f"{head}{{}}{end}"
    if len(body) == 1 and len(body[0]) == 2 and random.random() < 0.5:
        text = _value(body[0][1], random, margin)
        if not text.startswith("<<"):
            return f"{head}{{ {body[0][0]} = {text} }}{end}"
    return f"{head}{{{end}{write(body, random, margin + '  ')}{margin}}}{end}"


def _label(label, random):
    return label if label.isalpha() and label.isascii() and random.random() < 0.5 else quoted(label)


def _value(value, random, margin):
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        # A line "EOT" would end it, and after a second dollar no doubling helps.
        closes = any(mark in value for mark in ("EOT", "$${", "%%{"))
        if value.endswith("\n") and not closes and set(value) <= set(string.printable) - set("\r\x0b\x0c"):
            return f"<<EOT\n{_doubled(value)}EOT" if random.random() < 0.5 else quoted(value)
        return quoted(value)
    if isinstance(value, list):
        if not value:
            return random.choice(["[]", "[ ]", "[\n]"])
        between = random.choice([", ", ",", ",\n", "\n, # note\n"])
        return "[" + between.join(_closed(_value(item, random, margin)) for item in value) + random.choice(["]", ",]", "\n]", ",\n]"])
    if isinstance(value, dict):
        return _object(value, random, margin)
    return repr(value)


def _object(value, random, margin):
    if not value:
        return random.choice(["{}", "{ }", "{\n}"])
    between = random.choice([", ", "\n", ",\n", " # note\n"])
    text, gap = "{", " "
    for key, item in value.items():
        name = key if key.isalpha() and key.isascii() and key != "for" and random.random() < 0.5 else quoted(key)
        printed = _value(item, random, margin)
        text += gap + name + random.choice([" = ", "=", " : "]) + printed
        gap = "\n" if printed.startswith("<<") else between
    return text + ("\n}" if gap == "\n" else random.choice([" }", "\n}", ",}"]))


def _closed(text):
    return text + "\n" if text.startswith("<<") else text


def _doubled(text):
    return text.replace("${", "$${").replace("%{", "%%{")


def quoted(text):
    """
    Print a quoted string.
    """
    escapes = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    if "$${" in text or "%%{" in text:
        escapes |= {"$": "\\u0024", "%": "\\u0025"}
    out = "".join(escapes.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 32 or 127 <= ord(c) < 160 else c) for c in text)
    return f'"{_doubled(out)}"'


def expected(value):
    """
    Return a generated value as a parser should give it.
    """
    if isinstance(value, str):
        return normal(value)
    if isinstance(value, float):
        exact = Decimal(repr(value))
        return int(exact) if exact == exact.to_integral_value() else value
    if isinstance(value, list):
        return [expected(item) for item in value]
    if isinstance(value, dict):
        return {normal(key): expected(item) for key, item in value.items()}
    return value


def value_of(value):
    """
    Return a value of the tree as a plain one.
    """
    if isinstance(value, Scalar):
        return value.value
    if isinstance(value, ListValue):
        return [value_of(item) for item in value.items]
    return {entry.key: value_of(entry.value) for entry in value.entries}


def values_of(body):
    """
    Return a body as HashiCorp's parser's Python binding shows it: labels are nested keys, repeated blocks a list.
    """
    found = {attribute.name: value_of(attribute.value) for attribute in body.attributes}
    for block in body.blocks:
        inside = found
        keys = [block.type, *block.labels]
        last = keys.pop()
        for key in keys:
            inside = inside.setdefault(key, {})
        content = values_of(block.body)
        if last not in inside:
            inside[last] = content
        elif isinstance(inside[last], list):
            inside[last].append(content)
        else:
            inside[last] = [inside[last], content]
    return found
