"""
Check a decoded configuration as a whole: what one part says against what the others say.

Nothing here has a side effect or asks the network. Rules are compiled, and middlewares built, elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from a3sgw.config.check_chain import check_chains
from a3sgw.config.check_entrypoint import check_entrypoints
from a3sgw.config.check_service import check_services
from a3sgw.config.finding import Findings
from a3sgw.config.model import GatewayConfig
from a3sgw.config.setting import settings_of
from a3sgw.config.tree import Position, Problem
from a3sgw.config.unsupported import unsupported
from a3sgw.config.wording import Suggester, item_path, quote

__all__ = ["advise", "check", "unsupported"]


def check(config: GatewayConfig, positions: Mapping[str, Position], suggester: Suggester | None = None) -> tuple[Problem, ...]:
    """
    Return every contradiction in `config`. `positions` come from `decode`; an empty mapping serves a configuration made by hand.
    """
    findings = Findings(positions, suggester)

    def knows_service(name: str) -> bool:
        return (
            name in config.services
            or findings.is_written(item_path("services", name))
            or (config.providers is not None and name in config.providers.dns)
        )

    check_entrypoints(config, findings)
    _check_routers(config, findings, knows_service)
    check_services(config, findings, knows_service)
    for name, middleware in config.middlewares.items():
        _check_middleware(item_path("middlewares", name), name, middleware, config, findings, knows_service)
    check_chains(config, findings)
    _check_dashboard(config, findings)
    _check_observability(config, findings)
    return tuple(findings.problems)


def advise(config: GatewayConfig, positions: Mapping[str, Position]) -> tuple[Problem, ...]:
    """
    Return what is allowed but unwise.
    """
    findings = Findings(positions)
    for name, middleware in config.middlewares.items():
        path = item_path("middlewares", name)
        found, bug = _said_by(middleware, "advice")
        for key, text in found:
            findings.report(f"{path}.{key}", f"{path}.{key} {text}")
        if bug:
            findings.report(path, f"middleware {quote(name)} of type {quote(middleware.type)} cannot be given advice: {bug}")
    return tuple(findings.problems)


def _check_routers(config: GatewayConfig, findings: Findings, knows_service: Callable[[str], bool]) -> None:
    for name, router in config.routers.items():
        if not knows_service(router.service):
            path = f"{item_path('routers', name)}.service"
            hint = findings.hint(path, router.service, config.services) or ", which does not exist"
            findings.report(path, f"router {quote(name)} names service {findings.show(path, router.service)}{hint}")
        for key, noun, names, known in (
            ("entrypoints", "entrypoint", router.entrypoints, config.entrypoints),
            ("middlewares", "middleware", router.middlewares, config.middlewares),
        ):
            if names:
                _check_names(f"router {quote(name)}", f"{item_path('routers', name)}.{key}", noun, names, known, findings)
    for name, entrypoint in config.entrypoints.items():
        if entrypoint.middlewares:
            path = f"{item_path('entrypoints', name)}.middlewares"
            _check_names(f"entrypoint {quote(name)}", path, "middleware", entrypoint.middlewares, config.middlewares, findings)


def _check_names(place: str, path: str, noun: str, names: Iterable[str], known: Mapping[str, object], findings: Findings) -> None:
    """
    Report each of `names`, the list at `path`, that is not the name of a `noun`.
    """
    for index, name in enumerate(names):
        if name not in known and not findings.is_written(item_path(f"{noun}s", name)):
            where = f"{path}[{index}]"
            hint = findings.hint(where, name, known) or ", which does not exist"
            findings.report(where, f"{place} names {noun} {findings.show(where, name)}{hint}")


def _check_middleware(
    path: str, name: str, middleware: Any, config: GatewayConfig, findings: Findings, knows_service: Callable[[str], bool]
) -> None:
    """
    Check one middleware by what its class declares; see `middleware` in `a3sgw.interfaces`.
    """
    one_of: tuple[str, ...] = getattr(middleware, "one_of", ())
    if one_of:
        given = [key for key in one_of if getattr(middleware, key)]
        places = [f"{path}.{key}" for key in one_of]
        if not given:
            findings.report(path, f"middleware {quote(name)} of type {quote(middleware.type)} requires {' or '.join(one_of)}", places)
        elif len(given) > 1:
            findings.report(f"{path}.{given[1]}", f"middleware {quote(name)} has both {' and '.join(given)}; give one of them", places)
    attributes = [f"{path}.{declared.key}" for declared in settings_of(middleware.__class__)]
    found, bug = _said_by(middleware, "problems")
    for key, text in found:
        findings.report(f"{path}.{key}" if key else path, f"middleware {quote(name)} {text}", attributes)
    if bug:
        findings.report(path, f"middleware {quote(name)} of type {quote(middleware.type)} cannot be checked: {bug}", attributes)
    for key, noun in getattr(middleware, "names", {}).items():
        named = getattr(middleware, key)
        if noun == "middleware":
            _check_names(f"middleware {quote(name)}", f"{path}.{key}", noun, named, config.middlewares, findings)
        elif named is not None and not knows_service(named):
            hint = findings.hint(f"{path}.{key}", named, config.services) or ", which does not exist"
            findings.report(f"{path}.{key}", f"middleware {quote(name)} names service {findings.show(f'{path}.{key}', named)}{hint}")


def _said_by(middleware: Any, method: str) -> tuple[list[tuple[str, str]], str]:
    """
    Return what the class of `middleware` finds by `method`, if it has one, and the bug that it met. It may be a plugin's.
    """
    found: list[tuple[str, str]] = []
    try:
        for key, text in getattr(middleware, method, tuple)():
            found.append((key, text))
    except Exception as error:
        return found, f"{type(error).__name__}: {error}"
    return found, ""


def _check_dashboard(config: GatewayConfig, findings: Findings) -> None:
    dashboard = config.dashboard
    if dashboard.entrypoints:
        _check_names("the dashboard", "dashboard.entrypoints", "entrypoint", dashboard.entrypoints, config.entrypoints, findings)
    for index, name in enumerate(dashboard.entrypoints):
        entrypoint = config.entrypoints.get(name)
        if entrypoint is not None and entrypoint.protocol != "http":
            where = f"dashboard.entrypoints[{index}]"
            message = f"the dashboard names entrypoint {findings.show(where, name)}, which speaks {entrypoint.protocol} and not http"
            findings.report(where, message, [f"{item_path('entrypoints', name)}.protocol"])
    if (dashboard.username is None) != (dashboard.password is None):
        keys = ["dashboard.username", "dashboard.password"]
        findings.report(keys[dashboard.username is None], "dashboard has only one of username and password; they go together", keys)


def _check_observability(config: GatewayConfig, findings: Findings) -> None:
    buckets = config.observability.metrics.buckets
    for index in range(1, len(buckets)):
        if buckets[index] <= buckets[index - 1]:
            path = f"observability.metrics.buckets[{index}]"
            findings.report(path, f"{path} is {buckets[index]:g}, which is not more than the one before, {buckets[index - 1]:g}")
            break
