"""
Say what is in a configuration, and what is wrong with it, for `a3s-gateway validate`.

Everything is in order of its name, so that two runs over equal files print the same. A summary holds names, addresses, rules and counts;
nothing that can be a secret gets into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a3sgw.config.load import Loaded
    from a3sgw.config.model import GatewayConfig, ProvidersConfig, ServiceConfig
    from a3sgw.config.tree import Problem

__all__ = ["as_json", "complaints", "report", "summarise"]


def complaints(path: str, loaded: Loaded) -> str:
    """
    Return problems and warnings, one per line and in the order of the file, and a last line that counts the problems if there are any.
    """
    problems: Iterable[Problem] = loaded.problems
    if loaded.problems or loaded.config is None:
        # Nothing runs, so what is wrong with one file of several matters as well.
        problems = dict.fromkeys([*loaded.problems, *(problem for file in loaded.broken for problem in file.problems)])
    lines = [_line(path, "error", problem) for problem in _in_order(problems)]
    count = len(lines)
    lines += [_line(path, "warning", warning) for warning in _in_order(loaded.warnings)]
    if loaded.problems or loaded.config is None:
        lines.append(f"✗ {path}: {_count(count, 'problem')}")
    return "".join(f"{line}\n" for line in lines)


def report(path: str, loaded: Loaded) -> str:
    """
    Return what a valid configuration holds; empty if it is not valid.
    """
    config = loaded.config
    if config is None or loaded.problems:
        return ""
    lines = [f"✓ {path} parsed", "✓ configuration is valid", ""]
    summary = summarise(config)
    sections = {
        "entrypoints": [f"{item['name']} → {item['address']} ({item['protocol']})" for item in summary["entrypoints"]],
        "routers": [f"{item['name']} → service:{item['service']} rule:{item['rule']}" for item in summary["routers"]],
        "services": [_service_line(item) for item in summary["services"]],
        "middlewares": [f"{item['name']} (type: {item['type']})" for item in summary["middlewares"]],
        "providers": [_provider_line(item) for item in summary["providers"]],
    }
    for title, items in sections.items():
        lines.append(f"{title.capitalize()}: {len(items)}")
        lines += [f"  {item}" for item in items]
    if loaded.warnings:
        lines += ["", f"{_count(len(loaded.warnings), 'warning')}, see above"]
    return "".join(f"{line}\n" for line in lines)


def as_json(path: str, loaded: Loaded) -> str:
    """
    Return the same for a program, as one JSON object. `summary` is null if the configuration could not be made out.
    """
    answer = {
        "valid": loaded.config is not None and not loaded.problems,
        "file": path,
        "problems": [_problem_object(problem) for problem in _in_order(loaded.problems)],
        "warnings": [_problem_object(warning) for warning in _in_order(loaded.warnings)],
        "summary": None if loaded.config is None else summarise(loaded.config),
    }
    return json.dumps(answer, indent=2) + "\n"


def summarise(config: GatewayConfig) -> dict[str, list[dict[str, Any]]]:
    """
    Return the names in `config` and what matters most about each, as plain values.
    """
    return {
        "entrypoints": [
            {"name": name, "address": entrypoint.address, "protocol": entrypoint.protocol, "tls": entrypoint.tls is not None}
            for name, entrypoint in sorted(config.entrypoints.items())
        ],
        "routers": [
            {
                "name": name,
                "rule": router.rule,
                "service": router.service,
                "entrypoints": list(router.entrypoints),
                "middlewares": list(router.middlewares),
                "priority": router.priority,
            }
            for name, router in sorted(config.routers.items())
        ],
        "services": [_service_object(name, service) for name, service in sorted(config.services.items())],
        "middlewares": [{"name": name, "type": middleware.type} for name, middleware in sorted(config.middlewares.items())],
        "providers": [] if config.providers is None else _provider_objects(config.providers),
    }


def _provider_objects(providers: ProvidersConfig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"kind": "dns", "name": name, "hostname": dns.hostname} for name, dns in sorted(providers.dns.items())]
    found += [{"kind": config.type, "name": name} for name, config in sorted(providers.plugin.items())]
    if providers.discovery is not None:
        found.append({"kind": "discovery", "seeds": len(providers.discovery.seeds)})
    if providers.docker is not None:
        found.append({"kind": "docker", "host": providers.docker.host})
    if providers.file is not None:
        found.append({"kind": "file", "watch": providers.file.watch, "directory": providers.file.directory})
    if providers.kubernetes is not None:
        found.append({"kind": "kubernetes", "namespace": providers.kubernetes.namespace})
    return sorted(found, key=lambda item: str(item["kind"]))


def _service_object(name: str, service: ServiceConfig) -> dict[str, Any]:
    return {
        "name": name,
        "strategy": service.load_balancer.strategy,
        "backends": [server.url for server in service.load_balancer.servers],
        "revisions": [
            {"name": revision.name, "traffic_percent": revision.traffic_percent, "backends": [server.url for server in revision.servers]}
            for revision in service.revisions
        ],
    }


def _service_line(item: dict[str, Any]) -> str:
    if item["revisions"]:
        shares = ", ".join(f"{revision['name']} {revision['traffic_percent']} %" for revision in item["revisions"])
        return f"{item['name']} ({_count(len(item['revisions']), 'revision')}: {shares})"
    return f"{item['name']} ({_count(len(item['backends']), 'backend')}, strategy: {item['strategy']})"


def _provider_line(item: dict[str, Any]) -> str:
    details = ", ".join(
        f"{key}: {json.dumps(value) if isinstance(value, bool) else value}"
        for key, value in item.items()
        if key != "kind" and value not in (None, "")
    )
    return f"{item['kind']} ({details})" if details else str(item["kind"])


def _problem_object(problem: Problem) -> dict[str, Any]:
    position = problem.position
    return {
        "file": None if position is None else position.source,
        "line": None if position is None else position.line,
        "column": None if position is None else position.column,
        "path": problem.path,
        "message": problem.message,
    }


def _line(path: str, kind: str, problem: Problem) -> str:
    kind_shown = "warning: " if kind == "warning" else ""
    if problem.position is None:
        return f"{kind_shown}{problem.message}" if path in problem.message else f"{path}: {kind_shown}{problem.message}"
    return f"{problem.position}: {kind_shown}{problem.message}"


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    def key(problem: Problem) -> tuple[str, int, int, str]:
        position = problem.position
        return ("", 0, 0, problem.message) if position is None else (position.source, position.line, position.column, problem.message)

    return sorted(problems, key=key)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
