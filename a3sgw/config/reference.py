"""
Write the configuration reference from the model.

`a3s-gateway reference` prints the page, and `make docs` puts it into `docs/configuration.md`. The tables come from the declarations in the
model, the introductions of blocks from the docstrings of their classes, and only the chapter on the language stands here.
"""

# The page uses dashes that ruff takes for mistyped hyphens.
# ruff: noqa: RUF001

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from a3sgw.config.duration import format_duration
from a3sgw.config.kinds import Duration
from a3sgw.config.model import GatewayConfig
from a3sgw.config.setting import REQUIRED, ListKind, NamedKind, ObjectKind, ObjectListKind, ScalarKind, Setting, settings_of

__all__ = ["first_sentence", "render", "render_middleware"]

_INTRODUCTION = """\
# Configuration reference

<!-- Made by `make docs`. Do not edit. -->

The gateway is configured by one file in HCL2, usually called `gateway.hcl`. `a3s-gateway validate --config gateway.hcl` checks it, names
every problem with file, line and column, and starts nothing. The same checks run before each start and each reload.

Nothing is ignored: an unknown attribute, a value out of bounds, an attribute that has no effect where it stands, and whatever this version
does not run yet (marked ⏳ below) are errors.

A complete file:

```hcl
entrypoints "web" {
  address = ":8080"
}

routers "api" {
  rule    = "PathPrefix(`/api`)"
  service = "backend"
}

services "backend" {
  load_balancer {
    servers = [{ url = "http://127.0.0.1:8001" }, { url = "http://127.0.0.1:8002" }]
  }
}
```

## The language

- Comments begin with `#` or `//`, or stand between `/*` and `*/`. The file is UTF-8.
- A block and an attribute that holds an object are the same: `tls { … }` is `tls = { … }`, and `routers "api" { … }` is
  `routers = { api = { … } }`. A block on one line holds at most one attribute.
- A list of objects may be written as a list, `servers = [{ … }, { … }]`, or as one or more blocks, `servers { … }`.
- Labels are names: the label of a block is what other parts of the file call it. Within one kind each label is used once.
- `null` is the same as leaving the attribute out.
- Numbers, `true` and `false` are written without quotes.

### The environment and files

| Written in a string | Means |
|---|---|
| `${NAME}` | the environment variable `NAME`; it is an error if it is not set |
| `${NAME:-default}` | the same, or `default` if it is not set or empty |
| `$${` | the two characters `${` |

| Function | Means |
|---|---|
| `env("NAME")`, `env("NAME", "default")` | the same as `${NAME}` and `${NAME:-default}` |
| `file("path")` | the text of a file without its last line break; a relative path counts from the folder of the configuration file |

Paths in attributes (`cert_file`, `access_log.file` and so on) are used as they stand: a relative one counts from the working directory.

What comes from the environment or from a file is text. It is converted where a number or a bool is expected. Problems never show it.

### Secrets

Passwords, keys and tokens (type *secret*) never appear in logs, problems, metrics or the dashboard, which shows `«secret»`. An empty
secret is an error. So that they need not stand in the file, take them from the environment or a file.

### Durations

`"250ms"`, `"10s"`, `"1.5s"`, `"1m30s"`, `"2h"`, `"1d"`; a number without unit is seconds. Durations go from one millisecond to 366 days;
zero is refused. Attributes with a unit in their name (`…_secs`, `…_ms`, `…_days`) are integers instead.

### Addresses

A listening address is `host:port`: `"0.0.0.0:80"` for IPv4, `"[::]:80"` for IPv6, `":80"` for every address, `"localhost:8080"` and
`"[::1]:8080"` for this machine only. Port 0 lets the system choose.

Lists of networks hold addresses and CIDR networks of both kinds: `"10.0.0.0/8"`, `"192.0.2.7"`, `"2001:db8::/32"`.

### How to read the tables

A required attribute has no default. "–" as a default means that the attribute is absent unless given. ⏳ marks what this version checks but
does not run: using it is an error.

## Attributes
"""


def render(middleware_types: Iterable[type]) -> str:
    """
    Return the whole page, with a section for each of the configuration classes of middlewares.
    """
    parts = [_INTRODUCTION]
    done: set[type] = set()
    parts.extend(_sections(GatewayConfig, "", done, True, tuple(middleware_types)))
    return "\n".join(parts).rstrip("\n") + "\n"


def render_middleware(cls: type) -> str:
    """
    Return the section of one middleware's configuration class.
    """
    return "\n".join(_sections(cls, _named_path("middlewares", cls), set(), True, ())).rstrip("\n") + "\n"


def first_sentence(cls: type) -> str:
    """
    Return what a configuration class is for, in one line.
    """
    paragraph = " ".join((inspect.getdoc(cls) or "There is no description.").partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return f"{sentence}." if stop else paragraph


def _sections(cls: type, path: str, done: set[type], runs: bool, middleware_types: tuple[type, ...]) -> Iterator[str]:
    """
    Give the section of one class, then those of the blocks in it. A class that stands in several places is explained once.
    """
    done.add(cls)
    mark = "" if runs else " ⏳"
    yield f"### {f'`{path}`' if path else 'Top level'}{mark}\n"
    yield f"{inspect.getdoc(cls) or 'There is no description.'}\n"
    settings = settings_of(cls)
    if settings:
        yield _table(settings)
    example = getattr(cls, "example", "")
    if example:
        yield f"```hcl\n{inspect.cleandoc(example)}\n```\n"
    for declared in settings:
        kind = declared.kind
        place = f"{path}.{declared.key}" if path else declared.key
        if isinstance(kind, (ObjectKind, ObjectListKind)) and kind.cls not in done:
            yield from _sections(kind.cls, place, done, runs and declared.runs, middleware_types)
        elif isinstance(kind, NamedKind):
            if kind.is_typed:
                yield _typed_introduction(place) if kind.noun == "middleware" else _provider_introduction(place)
            # What plugins bring is documented by them, and all providers with a type are.
            own = middleware_types if kind.noun == "middleware" else ()
            for each in own if kind.is_typed else (kind.cls,):
                if each is not None and each not in done:
                    is_run = runs and declared.runs and getattr(each, "runs", True)
                    yield from _sections(each, _named_path(place, each), done, is_run, middleware_types)


def _named_path(place: str, cls: type) -> str:
    type_name = getattr(cls, "type", None)
    return f'{place} "NAME"' if type_name is None else f'{place} "NAME" {{ type = "{type_name}" }}'


def _typed_introduction(place: str) -> str:
    return (
        f'### `{place} "NAME"`\n\nEvery middleware has the attribute `type`, which is required and decides what else it has. In what order '
        "requests and responses pass them is told in [middlewares.md](middlewares.md), how to write further types in "
        "[plugins.md](plugins.md).\n"
    )


def _provider_introduction(place: str) -> str:
    return (
        f'### `{place} "NAME"`\n\nA source of routers, services and middlewares that a plugin brings. The attribute `type` is required and '
        "decides what else it has. How to write one is told in [plugins.md](plugins.md).\n"
    )


def _table(settings: tuple[Setting, ...]) -> str:
    rows = ["| Attribute | Type | Default | Meaning |", "|---|---|---|---|"]
    for declared in settings:
        names = " or ".join(f"`{key}`" for key in (declared.key, *declared.aliases))
        mark = "" if declared.runs else " ⏳"
        rows.append(f"| {names}{mark} | {declared.kind.type_name} | {_default(declared)} | {_meaning(declared)} |")
    return "\n".join(rows) + "\n"


def _default(declared: Setting) -> str:
    value = declared.default
    if value is REQUIRED:
        return "**required**"
    if isinstance(declared.kind, (ObjectKind, ObjectListKind, NamedKind)):
        return "–" if not value else "its defaults"
    if value is None:
        return "–"
    if isinstance(declared.kind, Duration):
        return f'`"{format_duration(value)}"`'
    return f"`{_written(value)}`"


def _written(value: Any) -> str:
    """
    Return a default as it would be written in a file.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(_written(item) for item in value)}]"
    return str(value) if isinstance(value, int) else "{}"


def _meaning(declared: Setting) -> str:
    parts = [declared.doc if declared.doc.endswith(".") else f"{declared.doc}."]
    kind = declared.kind.item if isinstance(declared.kind, ListKind) else declared.kind
    if isinstance(kind, ScalarKind) and not isinstance(kind, Duration):
        bounds = kind.bounds()
        if bounds:
            parts.append(f"{bounds[0].upper()}{bounds[1:]}.")
    if declared.protocols and set(declared.protocols) != {"http", "tcp", "udp"}:
        parts.append(f"For {' and '.join(declared.protocols)} entrypoints only.")
    return " ".join(parts).replace("|", "\\|").replace("\n", " ")
