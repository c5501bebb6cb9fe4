"""
Write events as lines for a human: started, reloaded, backend down, door failed.

Lines go to standard error, because standard output belongs to the access log. How much is written is a *filter*: a level, or several
entries separated by commas, each a level or `namespace=level`, as in `warn,a3sgw.proxy=debug`. Twisted's own chatter is held back below
`warn` unless the filter says `trace`, or names a `twisted` namespace.

A line cannot be forged by what a peer sent: control characters are escaped, and continuation lines are indented.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TextIO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)

__all__ = ["LEVELS", "make_observer", "make_predicate", "start_logging", "to_line"]

LEVELS = ("trace", "debug", "info", "warn", "error")
"""
The levels of `--log-level`, the most talkative first.
"""

_OF_TWISTED = {"trace": LogLevel.debug, "debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn, "error": LogLevel.error}

# What Twisted logs through its old interface comes under `log_legacy`.
_NAMESPACES_OF_TWISTED = ("twisted", "log_legacy")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def make_predicate(text: str) -> LogLevelFilterPredicate:
    """
    Return the filter that `text` describes; `ValueError` with a sentence if it describes none.
    """
    levels: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        namespace, equals, level = entry.rpartition("=")
        if level not in _OF_TWISTED or (equals and not namespace.strip()):
            raise ValueError(f'log filter "{text}": "{entry}" is neither a level nor namespace=level; levels are {", ".join(LEVELS)}')
        levels[namespace.strip()] = level
    default = levels.get("", "info")
    predicate = LogLevelFilterPredicate(defaultLogLevel=_OF_TWISTED[default])
    if default in ("debug", "info"):
        for namespace in _NAMESPACES_OF_TWISTED:
            predicate.setLogLevelForNamespace(namespace, LogLevel.warn)
    for namespace, level in levels.items():
        if namespace:
            predicate.setLogLevelForNamespace(namespace, _OF_TWISTED[level])
    return predicate


def to_line(event: LogEvent) -> str:
    """
    Return `event` as text that ends in a line break: moment (UTC), level, namespace, what happened, and a traceback if there is one.
    """
    moment = datetime.datetime.fromtimestamp(event.get("log_time", 0.0), datetime.UTC)
    level = event.get("log_level", LogLevel.info).name
    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}\n{failure.getTraceback()}" if text else failure.getTraceback()
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.rstrip()).replace("\n", "\n    ")
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z {level:<5} {event.get('log_namespace', '-')}: {text}\n"


def make_observer(stream: TextIO, log_filter: str) -> FilteringLogObserver:
    """
    Return an observer that writes to `stream` what passes `log_filter`.
    """
    return FilteringLogObserver(FileLogObserver(stream, to_line), [make_predicate(log_filter)])


def start_logging(stream: TextIO, level: str, environ: Mapping[str, str]) -> None:
    """
    Send all events of this process to `stream`. A non-empty `A3S_LOG` in `environ` takes the place of `level`.

    Raises `ValueError` for a filter that makes no sense. Standard output and error stay what they are.
    """
    observer = make_observer(stream, environ.get("A3S_LOG", "").strip() or level)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
