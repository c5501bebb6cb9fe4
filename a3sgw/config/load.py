"""
From a text or a file to a checked configuration, in one call that never raises for bad input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import attrs

from a3sgw.config.check import advise, check, unsupported
from a3sgw.config.decode import decode, source_order
from a3sgw.config.hcl import HclError, parse
from a3sgw.config.model import ConfigurationError, GatewayConfig
from a3sgw.config.positions import Positions
from a3sgw.config.tree import Problem
from a3sgw.config.wording import Suggester

__all__ = ["Loaded", "load_file", "load_text"]


@attrs.frozen
class Loaded:
    """
    What came of a text.

    `config` is `None` if the text could not be parsed; otherwise it holds whatever could be decoded, so that further checks can find
    further problems, and may be run only if there are no `problems`. `warnings` do not keep it from running. `positions` lead from paths
    like `routers.api.rule` to places; see `positions.Positions`.
    """

    config: GatewayConfig | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    positions: Positions

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
    faults: list[Problem] = []
    try:
        body = parse(text, source, environ=environ, read_file=read_file if read_file is not None else _reader(""))
    except HclError as error:
        faults = [_named(problem) for problem in error.problems]
        if error.body is None:
            return _failed(faults)
        # Only values are missing: what else is wrong is worth knowing now.
        body = error.body
    suggester = Suggester()
    decoded = decode(body, suggester, middleware_types, missing_types)
    config = decoded.config
    positions = decoded.positions.with_broken(fault.path for fault in faults)
    # The decoder has its own complaints about a value that is not there.
    lines = {fault.position.line for fault in faults if fault.position is not None}
    found = [problem for problem in decoded.problems if problem.position is None or problem.position.line not in lines]
    problems = [*faults, *found, *check(config, positions, suggester)]
    if include_unsupported:
        problems.extend(unsupported(config, positions))
    return Loaded(
        config=config,
        problems=tuple(sorted(problems, key=source_order)),
        warnings=tuple(sorted(advise(config, positions), key=source_order)),
        positions=positions,
    )


def _named(problem: Problem) -> Problem:
    """
    Return a problem of the parser, with the name of what it is about in its message.
    """
    about = f"{problem.path}: " if problem.path else ""
    return attrs.evolve(problem, message=f"failed to parse HCL: {about}{problem.message}")


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
    source = os.fspath(path)
    try:
        text = _read(source)
    except OSError as error:
        return _failed([Problem(None, "", f"Failed to read config file {source}: {error.strerror or error}")])
    except UnicodeDecodeError as error:
        return _failed([Problem(None, "", f"Failed to read config file {source}: not UTF-8 at byte {error.start}")])
    except ValueError as error:
        return _failed([Problem(None, "", f"Failed to read config file {source!r}: {error}")])
    return load_text(
        text,
        source,
        environ,
        _reader(os.path.dirname(source)),
        include_unsupported=include_unsupported,
        middleware_types=middleware_types,
        missing_types=missing_types,
    )


def _failed(problems: Iterable[Problem]) -> Loaded:
    return Loaded(config=None, problems=tuple(problems), warnings=(), positions=Positions())


def _reader(folder: str) -> Callable[[str], str]:
    def read_file(path: str) -> str:
        return _read(os.path.join(folder, path))

    return read_file


def _read(path: str) -> str:
    # Line ends as they are: columns and heredocs are the parser's business.
    with open(path, encoding="utf-8", newline="") as stream:
        return stream.read()
