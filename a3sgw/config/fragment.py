"""
One source's share of a configuration: what a file says, before anybody asks whether the whole makes sense.

A fragment remembers what was read for it, by digest. So it can be told without parsing whether reading it again would give the same, and
a reload parses only what has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping

import attrs

from a3sgw.config.decode import decode
from a3sgw.config.hcl import HclError, parse
from a3sgw.config.model import GatewayConfig
from a3sgw.config.positions import Positions
from a3sgw.config.setting import NamedKind, settings_of
from a3sgw.config.tree import Problem
from a3sgw.config.wording import Suggester

__all__ = ["SHARED", "Fragment", "Vocabulary", "digest_of_file", "list_files", "parse_fragment", "read_fragment"]

SHARED = {declared.key: declared.kind.noun for declared in settings_of(GatewayConfig) if isinstance(declared.kind, NamedKind)}
"""What every source may add to, with the word for one of its items."""


@attrs.frozen(eq=False)
class Fragment:
    """
    What `source` says. `config` is `None` if it could not be parsed; otherwise it holds whatever could be decoded.

    `seen` are the files that were read for it, with a digest of what they held, or `None` for one that could not be read.
    """

    source: str
    config: GatewayConfig | None
    problems: tuple[Problem, ...] = ()
    positions: Positions = attrs.field(factory=Positions)
    seen: Mapping[str, bytes | None] = attrs.field(factory=dict)


@attrs.frozen
class Vocabulary:
    """
    Which words there are: the configuration classes of middlewares, and of providers, by `type`, and what to add when one is not known.
    """

    middleware_types: Mapping[str, type] | None = None
    missing_types: str = ""
    provider_types: Mapping[str, type] | None = None


def digest_of_file(path: str) -> bytes | None:
    """
    Return a digest of what the file at `path` holds, or `None` if it cannot be read. Of a folder, its configuration files are named.
    """
    try:
        with open(path, "rb") as stream:
            return _digest(stream.read())
    except IsADirectoryError:
        return _digest("\0".join(list_files(path)).encode("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        return None


def list_files(folder: str) -> list[str]:
    """
    Return the paths of the configuration files that lie directly in a folder, by name; none if there is no such folder.

    They end in `.hcl`. What editors leave behind while they write, and what is hidden, does not count.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(names) if name.endswith(".hcl") and not name.startswith((".", "#"))]


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def parse_fragment(
    text: str,
    source: str,
    environ: Mapping[str, str],
    read_file: Callable[[str], str],
    suggester: Suggester,
    vocabulary: Vocabulary = Vocabulary(),
) -> Fragment:
    """
    Parse and decode `text`, which problems call `source`. `read_file` serves the function `file()` and raises `OSError`.
    """
    faults: list[Problem] = []
    try:
        body = parse(text, source, environ=environ, read_file=read_file)
    except HclError as error:
        faults = [_named(problem) for problem in error.problems]
        if error.body is None:
            return Fragment(source, None, tuple(faults))
        # Only values are missing: what else is wrong is worth knowing now.
        body = error.body
    decoded = decode(body, suggester, vocabulary.middleware_types, vocabulary.missing_types, vocabulary.provider_types)
    # The decoder has its own complaints about a value that is not there.
    lines = {fault.position.line for fault in faults if fault.position is not None}
    found = [problem for problem in decoded.problems if problem.position is None or problem.position.line not in lines]
    positions = decoded.positions.with_broken(fault.path for fault in faults)
    return Fragment(source, decoded.config, (*faults, *found), positions)


def _named(problem: Problem) -> Problem:
    """
    Return a problem of the parser, with the name of what it is about in its message.
    """
    about = f"{problem.path}: " if problem.path else ""
    return attrs.evolve(problem, message=f"failed to parse HCL: {about}{problem.message}")


def read_fragment(
    path: str | os.PathLike[str],
    environ: Mapping[str, str],
    suggester: Suggester,
    vocabulary: Vocabulary = Vocabulary(),
    known: Iterable[Fragment | None] = (),
    main: str | None = None,
) -> Fragment:
    """
    Read the file at `path`; `file()` counts relative paths from its folder. Never raises for bad input. If it is not the main file, `main`
    is, and has things to say that this one has not.

    If everything is as it was when one of the `known` fragments was read, that one is returned.
    """
    source = os.fspath(path)
    try:
        with open(source, "rb") as stream:
            content = stream.read()
    except OSError as error:
        return _unreadable(source, f"Failed to read config file {source}: {error.strerror or error}")
    except ValueError as error:
        return _unreadable(source, f"Failed to read config file {source!r}: {error}")
    seen: dict[str, bytes | None] = {source: _digest(content)}
    for fragment in known:
        if fragment is not None and fragment.seen.get(source) == seen[source] and _is_as_seen(fragment):
            return fragment
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return _unreadable(source, f"Failed to read config file {source}: not UTF-8 at byte {error.start}", seen)
    folder = os.path.dirname(source)

    def read_file(name: str) -> str:
        included = os.path.join(folder, name)
        seen[included] = None
        with open(included, "rb") as stream:
            content = stream.read()
        seen[included] = _digest(content)
        return content.decode("utf-8")

    fragment = parse_fragment(text, source, environ, read_file, suggester, vocabulary)
    strays = () if main is None else _strays(fragment, main)
    return attrs.evolve(fragment, problems=(*fragment.problems, *strays), seen=seen)


def _is_as_seen(fragment: Fragment) -> bool:
    return all(path == fragment.source or digest_of_file(path) == digest for path, digest in fragment.seen.items())


def _unreadable(source: str, message: str, seen: Mapping[str, bytes | None] | None = None) -> Fragment:
    return Fragment(source, None, (Problem(None, "", message),), seen=seen or {source: None})


def _strays(fragment: Fragment, main: str) -> tuple[Problem, ...]:
    """
    Return a problem for each thing that a file which is not the main one, `main`, has no say in.
    """
    return tuple(
        Problem(fragment.positions[key], key, f"{key} concerns the whole gateway; write it in the main file, {main}")
        for key in (declared.key for declared in settings_of(GatewayConfig))
        if key not in SHARED and key in fragment.positions
    )
