"""
The `a3s-gateway` command.

Nothing here may import `twisted.internet.reactor` before our own reactor is installed, so what needs one is imported inside functions.
Exit codes: 0 done, or stopped and drained; 1 a configuration or start that failed; 2 a command line that makes no sense; 128 + n stopped
at once by a second signal n.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet.error import ReactorNotRunning

from a3sgw._version import __version__
from a3sgw.eventlog import LEVELS, start_logging

if TYPE_CHECKING:
    from a3sgw.config.load import Loaded
    from a3sgw.lifetime import Signals
    from a3sgw.source import Source

__all__ = ["main", "parse", "run"]

_PROGRAM = "a3s-gateway"
_DISTRIBUTION = "a3s-gateway"

# Which options, and which further word, each command takes; anything else given to it would be ignored, and is refused instead.
_TAKES = {
    None: {"config", "listen", "log_level"},
    "validate": {"config", "format"},
    "demo": {"listen", "log_level"},
    "middlewares": {"name"},
    "reference": set(),
    "update": set(),
}

# Where listening sockets are told of that are open already; see a3sgw.listen.inherited.
_INHERITANCE = ("A3S_HANDOVER", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

_EPILOG = """\
commands:
  (none)              run the gateway
  validate            check a configuration and say what is in it (--config, --format)
  demo                run a sample configuration with two small backends inside (--listen, --log-level)
  middlewares [TYPE]  list the types of middlewares there are, those of plugins too; or explain one of them
  reference           print the configuration reference
  update              say how to update

signals:
  TERM, INT  stop accepting, let what is in flight end, exit; a second one exits at once
  HUP        reload the configuration and open the logs anew
  USR1       open the logs anew
  USR2       hand the sockets over to a new process, which runs what is installed now, and stop when it serves

The access log goes to standard output, events to standard error. The environment variable A3S_LOG overrides --log-level; it may also
name parts, as in "warn,a3sgw.proxy=debug".
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Return what the command line asks for: `command` (`None` means run), the `name` behind it, `config`, `listen`, `log_level` and `format`.

    Options may stand before or after the command; of repeated ones the last counts. Exits with 2 and a message if it makes no sense.
    """
    # One flat parser: argparse's own sub-commands take options on one side only, and take the value of a misspelt option for a command.
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage="%(prog)s [COMMAND] [OPTION...]",
        description="An API gateway and reverse proxy, configured in HCL.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration (default: gateway.hcl)")
    parser.add_argument("-l", "--listen", metavar="IP:PORT", help="the address of the entrypoint web, whatever the configuration says")
    parser.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, help=f"{', '.join(LEVELS)} (default: info)")
    parser.add_argument("--format", choices=("text", "json"), help="how `validate` says it (default: text)")
    parser.add_argument("-V", "--version", action="version", version=f"{_PROGRAM} {__version__}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"unknown: {' '.join(unknown)}")
    given = vars(options)
    command = given.pop("command", None)
    if command not in _TAKES:
        names = ", ".join(name for name in _TAKES if name is not None)
        parser.error(f"there is no command '{command}'; commands are {names}, and a configuration is named with --config FILE")
    for name in sorted(given.keys() - _TAKES[command]):
        place = f"'{command}'" if command is not None else "running the gateway"
        word = f"'{given[name]}'" if name == "name" else f"--{name.replace('_', '-')}"
        parser.error(f"{word} has no effect on {place}")
    defaults = {"name": None, "config": None, "listen": None, "log_level": "info", "format": "text"}
    return argparse.Namespace(command=command, **{**defaults, **given})


def main() -> int:
    """
    Run the command with this process's arguments, and return its exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that has no tick gets an escape instead of us a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        return run(sys.argv[1:], os.environ, sys.stdout, sys.stderr)
    except BrokenPipeError:
        # Whoever read our output has gone (`a3s-gateway validate | head`); say nothing, and let the interpreter's own flush find no pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(arguments: Sequence[str], environ: Mapping[str, str], stdout: TextIO, stderr: TextIO) -> int:
    """
    Run the command that `arguments` ask for, and return its exit code.
    """
    options = parse(arguments)
    if options.command == "validate":
        return _validate(options, environ, stdout, stderr)
    if options.command == "middlewares":
        return _middlewares(options.name, stdout, stderr)
    if options.command == "reference":
        return _reference(stdout)
    if options.command == "update":
        return _update(stdout)
    return _serve(options, environ, stdout, stderr)


def _complain(stream: TextIO, text: str) -> int:
    stream.write(f"{_PROGRAM}: {text}\n")
    return 1


# -- validate -------------------------------------------------------------------------------------------------------------------------


def _validate(options: argparse.Namespace, environ: Mapping[str, str], stdout: TextIO, stderr: TextIO) -> int:
    from a3sgw.loading import load
    from a3sgw.source import DEFAULT_PATH
    from a3sgw.summary import as_json, complaints, report

    path = options.config or DEFAULT_PATH
    loaded = load(path, environ)
    if options.format == "json":
        stdout.write(as_json(path, loaded))
    else:
        stderr.write(complaints(path, loaded))
        stdout.write(report(path, loaded))
    return 1 if loaded.problems or loaded.config is None else 0


# -- middlewares and reference --------------------------------------------------------------------------------------------------------


def _middlewares(name: str | None, stdout: TextIO, stderr: TextIO) -> int:
    """
    List the types of middlewares, or explain the one called `name`.
    """
    from a3sgw.config.reference import first_sentence, render_middleware
    from a3sgw.config.wording import Suggester
    from a3sgw.middleware.catalog import CatalogError, find_catalog

    try:
        catalog = find_catalog()
    except CatalogError as error:
        return _complain(stderr, str(error))
    for fault in catalog.faults:
        _complain(stderr, f"warning: {fault}")
    if name is None:
        width = max(map(len, catalog.factories))
        for type_name, cls in catalog.config_classes.items():
            stdout.write(f"{type_name:<{width}}  {first_sentence(cls)} ({catalog.origin(type_name)})\n")
        return 0
    found = catalog.config_classes.get(name)
    if found is None:
        hint = Suggester().hint(name, catalog.factories) or "; `a3s-gateway middlewares` lists those that there are"
        return _complain(stderr, f'there is no type of middleware called "{name}"{hint}')
    stdout.write(render_middleware(found))
    return 0


def _reference(stdout: TextIO) -> int:
    """
    Print the configuration reference, with the middlewares that are built in: what plugins bring is documented by them.
    """
    from a3sgw.config.reference import render
    from a3sgw.middleware.catalog import BUILT_IN

    stdout.write(render(factory.config_class for factory in BUILT_IN))
    return 0


# -- update ---------------------------------------------------------------------------------------------------------------------------


def _update(stdout: TextIO) -> int:
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    pip = f"{sys.executable} -m pip install --upgrade"
    try:
        origin = json.loads(distribution(_DISTRIBUTION).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = None
    if origin is None:
        advice = f"It runs from a checkout that is not installed; update it with\n\n  git pull\n  {pip} --editable .\n"
    elif origin.get("dir_info", {}).get("editable"):
        directory = origin["url"].removeprefix("file://")
        advice = f"It is installed from a checkout; update it with\n\n  git -C {directory} pull\n  {pip} --editable {directory}\n"
    elif "vcs_info" in origin:
        advice = f"Update it with\n\n  {pip} '{_DISTRIBUTION} @ {origin['vcs_info']['vcs']}+{origin['url']}'\n"
    elif origin.get("url"):
        advice = f"It was installed from {origin['url']}; update it from a newer wheel or source tree with\n\n  {pip} FILE\n"
    else:
        advice = f"Update it with\n\n  {pip} {_DISTRIBUTION}\n"
    stdout.write(f"This is {_PROGRAM} {__version__}. It does not replace itself. {advice}\nThen restart it.\n")
    return 0


# -- run and demo ---------------------------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace, environ: Mapping[str, str], stdout: TextIO, stderr: TextIO) -> int:
    inheritance = {name: os.environ.pop(name) for name in _INHERITANCE if name in os.environ}

    from a3sgw.lifetime import Signals, raise_descriptor_limit

    try:
        start_logging(stderr, options.log_level, environ)
    except ValueError as error:
        return _complain(stderr, f"A3S_LOG: {error}")
    signals = Signals()
    signals.install()
    raise_descriptor_limit()

    from a3sgw.net.reactor import install

    install()
    if options.command == "demo":
        return _serve_demo(options, signals, stdout, stderr)

    from a3sgw.source import SourceError, find_source
    from a3sgw.summary import complaints

    try:
        source = find_source(options.config, options.listen, environ)
    except SourceError as error:
        return _complain(stderr, str(error))
    if source.path is None:
        stderr.write(f"{_PROGRAM}: no configuration; starting entrypoint web on {source.listen} without any router\n")
    loaded = source.load()
    stderr.write(complaints(source.path or "", loaded))
    return _keep_running(loaded, source, signals, stderr, inheritance)


def _serve_demo(options: argparse.Namespace, signals: Signals, stdout: TextIO, stderr: TextIO) -> int:
    from twisted.internet import reactor

    from a3sgw.demo import ADDRESS, invitation, listen_backends, sample_text
    from a3sgw.loading import load_string
    from a3sgw.source import SourceError, check_listen
    from a3sgw.summary import complaints

    address = options.listen or ADDRESS
    try:
        check_listen(address)
    except SourceError as error:
        return _complain(stderr, str(error))
    loaded = load_string(sample_text(address, listen_backends(reactor)), "demo.hcl", {})
    stderr.write(complaints("demo.hcl", loaded))

    def invite() -> None:
        stdout.write(invitation(address))
        stdout.flush()

    return _keep_running(loaded, None, signals, stderr, {}, invite)


def _keep_running(
    loaded: Loaded,
    source: Source | None,
    signals: Signals,
    stderr: TextIO,
    inheritance: dict[str, str],
    started: Callable[[], object] | None = None,
) -> int:
    """
    Run what was loaded until it is stopped, and return the exit code. `source` is where it came from, and is loaded again on HUP;
    `inheritance` tells of listening sockets that are open already; `started` is called once it runs. Long because everything that runs is
    put together here.
    """
    from twisted.internet import reactor
    from twisted.internet.threads import deferToThread

    from a3sgw.config.model import ConfigurationError
    from a3sgw.errors import AssemblyError
    from a3sgw.gateway import Gateway
    from a3sgw.lifetime import Lifetime
    from a3sgw.listen.inherited import Inherited
    from a3sgw.settled import SettledMemory
    from a3sgw.succession import announce, refuse_udp_among_workers, succeed
    from a3sgw.supply import Supply

    if loaded.problems or loaded.config is None:
        return 1
    inherited = Inherited.from_environ(inheritance, os.getpid())
    try:
        refuse_udp_among_workers(inherited, loaded.config)
        gateway = Gateway(loaded.config, reactor, inherited.bind, inherited.bind_datagrams)
    except (AssemblyError, ConfigurationError) as error:
        return _complain(stderr, str(error))

    supply = None if source is None else Supply(source, reactor, deferToThread)
    load = None if source is None or supply is None or source.path is None else supply.load
    successor = None if load is None else partial(succeed, reactor)
    memory = SettledMemory(partial(reactor.callLater, 0))
    lifetime = Lifetime(gateway, load, deferToThread, lambda: _stop(reactor), supply, successor, memory)
    lifetime.begin_with(loaded)

    def begin() -> None:
        # The reactor has just taken TERM for itself.
        signals.install()
        signals.attach(lifetime, reactor)
        starting = lifetime.start()
        starting.addCallback(lambda ignored: announce(inherited, lifetime))
        if started is not None:
            starting.addCallback(lambda ignored: lifetime.exit_code or started())

    reactor.callWhenRunning(begin)
    # Whoever else stops the reactor gets a drained gateway too.
    reactor.addSystemEventTrigger("before", "shutdown", gateway.shutdown)
    reactor.run()
    return lifetime.exit_code


def _stop(reactor: Any) -> None:
    # Somebody else may have stopped it already.
    with contextlib.suppress(ReactorNotRunning):
        reactor.stop()


if __name__ == "__main__":
    sys.exit(main())
