"""
From a text or a file to a checked configuration, in one call that never raises for bad input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import attrs

from a3sgw.config.check import advise, check, unsupported
from a3sgw.config.fragment import Fragment, Vocabulary, parse_fragment, read_fragment
from a3sgw.config.merge import merge, order_of
from a3sgw.config.model import ConfigurationError, GatewayConfig
from a3sgw.config.positions import Positions
from a3sgw.config.tree import Problem
from a3sgw.config.wording import Suggester

__all__ = ["BrokenFile", "Loaded", "check_fragments", "load_file", "load_text"]


@attrs.frozen
class BrokenFile:
    """
    A file that is not in force as it was found, and why. `is_kept` says that what it last said goes on; otherwise it is left out.
    """

    source: str
    problems: tuple[Problem, ...]
    is_kept: bool


@attrs.frozen
class Loaded:
    """
    What came of a text, or of several files.

    `config` is `None` if the text could not be parsed; otherwise it holds whatever could be decoded, so that further checks can find
    further problems, and may be run only if there are no `problems`. `warnings` do not keep it from running. `positions` lead from paths
    like `routers.api.rule` to places; see `positions.Positions`. `broken` are files that are in force in an earlier state or not at all.
    `seen` are the files that were read, or would have been, with digests of what they held; see `fragment.Fragment`. `sources` are those
    of the configuration in their order, the main file first. `named` are those of `seen` that the configuration is to be built with.
    `left_out` tells what providers offered and is not used.
    """

    config: GatewayConfig | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    positions: Positions
    broken: tuple[BrokenFile, ...] = ()
    seen: Mapping[str, bytes | None] = attrs.field(factory=dict)
    sources: tuple[str, ...] = ()
    named: Mapping[str, bytes | None] = attrs.field(factory=dict)
    left_out: tuple[Problem, ...] = ()

    def valid_config(self) -> GatewayConfig:
        """
        Return the configuration, or raise `ConfigurationError` with all problems.
        """
        if self.problems or self.config is None:
            raise ConfigurationError(self.problems)
        return self.config


def load_text(
    text: str,
    source: str,
    environ: Mapping[str, str],
    read_file: Callable[[str], str] | None = None,
    *,
    include_unsupported: bool = True,
    middleware_types: Mapping[str, type] | None = None,
    missing_types: str = "",
) -> Loaded:
    """
    Parse, decode and check `text`, which problems call `source`. `middleware_types` are the configuration classes by `type`, and
    `missing_types` is what to add when a type is not known.

    `read_file` serves the function `file()` and raises `OSError`; without it, relative paths count from the working directory.
    `include_unsupported` says whether it is a problem that this version does not run something.
    """
    suggester = Suggester()
    vocabulary = Vocabulary(middleware_types, missing_types)
    fragment = parse_fragment(text, source, environ, read_file if read_file is not None else _read, suggester, vocabulary)
    return check_fragments([fragment], suggester, include_unsupported=include_unsupported)


def load_file(
    path: str | os.PathLike[str],
    environ: Mapping[str, str],
    *,
    include_unsupported: bool = True,
    middleware_types: Mapping[str, type] | None = None,
    missing_types: str = "",
) -> Loaded:
    """
    Like `load_text`, for a file. Problems call it as `path` does; `file()` counts relative paths from its folder.
    """
    suggester = Suggester()
    fragment = read_fragment(path, environ, suggester, Vocabulary(middleware_types, missing_types))
    return check_fragments([fragment], suggester, include_unsupported=include_unsupported)


def check_fragments(
    fragments: Sequence[Fragment],
    suggester: Suggester,
    amend: Callable[[GatewayConfig], GatewayConfig] | None = None,
    *,
    include_unsupported: bool = True,
) -> Loaded:
    """
    Return the whole of `fragments`, the main one first, with their problems and those that come of putting them together. `amend` changes
    it before it is checked.

    If one could not be parsed, only what the fragments say of themselves is known.
    """
    own = [problem for fragment in fragments for problem in fragment.problems]
    sources = tuple(fragment.source for fragment in fragments)
    order = order_of(sources)
    seen = {path: digest for fragment in fragments for path, digest in fragment.seen.items()}
    if any(fragment.config is None for fragment in fragments):
        return Loaded(None, tuple(sorted(own, key=order)), (), Positions(), seen=seen, sources=sources)
    merged = merge(fragments)
    config = merged.config if amend is None else amend(merged.config)
    positions = merged.positions
    problems = [*own, *merged.collisions, *check(config, positions, suggester)]
    if include_unsupported:
        problems.extend(unsupported(config, positions))
    return Loaded(
        config=config,
        problems=tuple(sorted(problems, key=order)),
        warnings=tuple(sorted(advise(config, positions), key=order)),
        positions=positions,
        seen=seen,
        sources=sources,
    )


def _read(path: str) -> str:
    # Line ends as they are: columns and heredocs are the parser's business.
    with open(path, encoding="utf-8", newline="") as stream:
        return stream.read()
