"""
From files or a text to a configuration that has been checked in every way that needs no running gateway.

`config.load` checks what a configuration says; here its rules are read and its middlewares built as well, which takes rooms above.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from a3sgw.assembly_router import KINDS, read_rule
from a3sgw.assembly_service import upstream_terms
from a3sgw.config.check import check, unsupported
from a3sgw.config.check_chain import members_of
from a3sgw.config.files import named_files
from a3sgw.config.finding import Findings
from a3sgw.config.fragment import Fragment, Vocabulary, digest_of_file, list_files, read_fragment
from a3sgw.config.load import BrokenFile, Loaded, check_fragments, load_text
from a3sgw.config.merge import Offer, order_of, overlay
from a3sgw.config.model import GatewayConfig, RouterConfig
from a3sgw.config.positions import Positions
from a3sgw.config.settle import Settled, settle
from a3sgw.config.tree import Position, Problem
from a3sgw.config.wording import Suggester, item_path, quote, quote_all
from a3sgw.errors import AssemblyError, MiddlewareError
from a3sgw.interfaces import IConnectionGate
from a3sgw.loading_tcp import fit_problems, report_misplaced
from a3sgw.loading_udp import udp_warnings
from a3sgw.middleware.catalog import Catalog, find_catalog
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.provider.catalog import find_provider_types
from a3sgw.route.rule import RuleError
from a3sgw.service.strategies import Strategies, find_strategies

__all__ = ["Loaded", "Memory", "check_build", "load", "load_string", "middleware_problems", "rule_problems", "with_offers"]


def rule_problems(config: GatewayConfig, positions: Mapping[str, Position]) -> list[Problem]:
    """
    Return a problem for each rule that cannot be read or does not fit its entrypoints.
    """
    findings = Findings(positions)
    for name, router in config.routers.items():
        path = f"{item_path('routers', name)}.rule"
        error = _rule_error(config, router)
        if error is not None:
            findings.report(path, f"router {quote(name)} has the rule {findings.show(path, router.rule)}: {error}")
    return findings.problems


def _rule_error(config: GatewayConfig, router: RouterConfig) -> ValueError | None:
    served = [entrypoint for name, entrypoint in config.entrypoints.items() if not router.entrypoints or name in router.entrypoints]
    protocols = {entrypoint.protocol for entrypoint in served}
    if router.entrypoints and len(protocols) > 1:
        return ValueError(f"its entrypoints speak {' and '.join(sorted(protocols))}, but a rule is for one protocol; split the router")
    error = None
    # Without entrypoints of its own, a router serves those whose protocol its rule is for.
    for kind in [each for each in KINDS if each in protocols] or ["http"]:
        try:
            read_rule(router.rule, kind)
        except RuleError as failure:
            error = error or failure
        else:
            return None
    return error


def middleware_problems(
    config: GatewayConfig, positions: Mapping[str, Position], catalog: Catalog, known: Sequence[Problem] = ()
) -> list[Problem]:
    """
    Return a problem for each middleware that cannot be built, or that stands where it has nothing to do.

    Those of which something is wrong already, as `known` problems say, are not built.
    """
    findings = Findings(positions)
    gates: set[str] = set()
    others: set[str] = set()
    for name, middleware in config.middlewares.items():
        path = item_path("middlewares", name)
        # A chain is written out where it is listed, and never built.
        if members_of(middleware) or any(problem.path == path or problem.path.startswith(f"{path}.") for problem in known):
            continue
        try:
            built = catalog.factories[middleware.type].build(middleware, still_surroundings(f'middleware "{name}"'))
        except MiddlewareError as error:
            place = f"{path}.{error.attribute}" if error.attribute else path
            findings.report(place, f"{place} {error.reason}")
        except Exception as error:
            # A plugin, most likely.
            reason = f"{type(error).__name__}: {error}"
            findings.report(path, f"middleware {quote(name)} of type {quote(middleware.type)} cannot be built: {reason}")
        else:
            (gates if IConnectionGate.providedBy(built) else others).add(name)
    report_misplaced(config, gates, others, findings)
    return findings.problems


def entrypoint_warnings(config: GatewayConfig, positions: Mapping[str, Position]) -> list[Problem]:
    """
    Return what clients will not like about the certificates of entrypoints.
    """
    findings = Findings(positions)
    for name, entrypoint in config.entrypoints.items():
        if entrypoint.tls is not None:
            from a3sgw.assembly_tls import tls_warnings

            for attribute, text in tls_warnings(entrypoint.tls, time.time()):
                place = f"{item_path('entrypoints', name)}.tls.{attribute}"
                findings.report(place, f"{place} {text}")
    return findings.problems


def entrypoint_problems(config: GatewayConfig, positions: Mapping[str, Position], known: Sequence[Problem] = ()) -> list[Problem]:
    """
    Return a problem for each file that TLS of an entrypoint needs and cannot use. Where something is wrong already, none is looked for.
    """
    findings = Findings(positions)
    for name, entrypoint in config.entrypoints.items():
        base = f"{item_path('entrypoints', name)}.tls"
        if entrypoint.tls is None or any(problem.path.startswith(base) for problem in known):
            continue
        # Only here, so that whoever has no TLS runs without OpenSSL.
        from a3sgw.assembly_tls import tls_problems

        for error in tls_problems(entrypoint.tls):
            place = f"{base}.{error.attribute}"
            findings.report(place, f"TLS error: {place} {error.reason}")
        if entrypoint.protocol != "http" and entrypoint.tls.client_subject_header is not None:
            place = f"{base}.client_subject_header"
            findings.report(place, f"{place} is for http entrypoints, and this one speaks {entrypoint.protocol}; remove it")
    return findings.problems


def service_problems(config: GatewayConfig, positions: Mapping[str, Position], strategies: Strategies) -> list[Problem]:
    """
    Return a problem for each strategy that nobody has, and each file that TLS towards the servers of a service needs and cannot use.
    """
    findings = Findings(positions)
    for name, service in config.services.items():
        base = item_path("services", name)
        listed = [(f"{base}.load_balancer.strategy", service.load_balancer.strategy)]
        listed += [(f"{base}.revisions[{index}].strategy", each.strategy) for index, each in enumerate(service.revisions)]
        for place, strategy in listed:
            if strategy not in strategies.by_name:
                hint = findings.hint(place, strategy, strategies.by_name) + strategies.explain_missing()
                known = quote_all(strategies.by_name)
                findings.report(place, f"{place} is {findings.show(place, strategy)}, expected one of {known}{hint}")
        if service.upstream_tls is not None:
            # Only here, so that whoever asks nobody over TLS runs without OpenSSL.
            from a3sgw.net.pem import PemError

            try:
                upstream_terms(service)
            except PemError as error:
                place = f"{base}.upstream_tls.{error.attribute}"
                findings.report(place, f"{place} {error.reason}")
    return findings.problems


class Memory:
    """
    What files last said that was good, so that one which is broken can keep it.

    `broken` are those that did not have their way when they were last read. Only one load at a time may use it.
    """

    def __init__(self) -> None:
        self.good: dict[str, Fragment] = {}
        self.broken: tuple[BrokenFile, ...] = ()
        self._bad: dict[str, Fragment] = {}
        self.seen: Mapping[str, bytes | None] = {}

    def known(self, source: str) -> tuple[Fragment | None, ...]:
        """
        Return the fragments that need not be read again if nothing has changed.
        """
        return self.good.get(source), self._bad.get(source)

    def is_up_to_date(self) -> bool:
        """
        Whether every file that was read, or looked for, is as it was. Reads files and nothing else.
        """
        return all(digest_of_file(path) == digest for path, digest in self.seen.items())

    def keep(self, found: Iterable[Fragment], settled: Settled) -> None:
        """
        Remember what came of the fragments `found`.
        """
        if not settled.loaded.problems:
            self.good = {fragment.source: fragment for fragment in settled.fragments}
        self._bad = {fragment.source: fragment for fragment in found if self.good.get(fragment.source) is not fragment}
        self.broken = settled.broken
        self.seen = settled.loaded.seen


def load(
    path: str,
    environ: Mapping[str, str],
    catalog: Catalog | None = None,
    strategies: Strategies | None = None,
    memory: Memory | None = None,
    amend: Callable[[GatewayConfig], GatewayConfig] | None = None,
) -> Loaded:
    """
    Read the configuration file at `path`, and those of its `directory`, and find every fault that can be found without running it. Never
    raises for bad input.

    With a `memory`, a file that is broken does not keep the others from being used; see `config.settle`. Without one, everything must be
    right. `amend` changes the configuration before it is checked. `catalog` are the types of middlewares there are, `strategies` those of
    balancing; without them, all that are installed.
    """
    return _load(lambda *types: _load_files(path, environ, memory, amend, *types), catalog, strategies)


def load_string(
    text: str, source: str, environ: Mapping[str, str], catalog: Catalog | None = None, strategies: Strategies | None = None
) -> Loaded:
    """
    Like `load`, for a text, which problems call `source`. It has no `directory`.
    """

    def load_one(catalog: Catalog, strategies: Strategies) -> Loaded:
        types = catalog.config_classes
        loaded = load_text(text, source, environ, middleware_types=types, missing_types=catalog.explain_missing())
        return check_build(loaded, catalog, strategies)

    return _load(load_one, catalog, strategies)


def _load(load_config: Callable[[Catalog, Strategies], Loaded], catalog: Catalog | None, strategies: Strategies | None) -> Loaded:
    try:
        catalog = catalog or find_catalog()
        strategies = strategies or find_strategies()
    except AssemblyError as error:
        return Loaded(config=None, problems=(Problem(None, "", str(error)),), warnings=(), positions=Positions())
    loaded = load_config(catalog, strategies)
    faults = dict.fromkeys([*catalog.faults, *strategies.faults])
    if faults:
        # Whatever the configuration asks for, somebody should know.
        warnings = [Problem(None, "", str(fault)) for fault in faults]
        loaded = attrs.evolve(loaded, warnings=(*loaded.warnings, *warnings))
    return loaded


def _load_files(
    path: str,
    environ: Mapping[str, str],
    memory: Memory | None,
    amend: Callable[[GatewayConfig], GatewayConfig] | None,
    catalog: Catalog,
    strategies: Strategies,
) -> Loaded:
    """
    Long because what each step reads is noted in one place.
    """
    suggester = Suggester()
    providers = find_provider_types()
    provider_types = {name: factory.config_class for name, factory in providers.by_name.items()}
    vocabulary = Vocabulary(catalog.config_classes, catalog.explain_missing(), provider_types)
    seen: dict[str, bytes | None] = {}

    def read(source: str) -> Fragment:
        known = () if memory is None else memory.known(source)
        fragment = read_fragment(source, environ, suggester, vocabulary, known, main=None if source == path else path)
        seen.update(fragment.seen)
        return fragment

    def inspect(fragments: Sequence[Fragment]) -> Loaded:
        loaded = check_fragments(fragments, suggester, amend)
        if loaded.config is None:
            return loaded
        # Before they are used: what changes meanwhile is found out by whoever looks next.
        seen.update((name, digest_of_file(name)) for name in named_files(loaded.config) if name not in seen)
        named = {name: seen[name] for name in named_files(loaded.config)}
        return check_build(attrs.evolve(loaded, named=named), catalog, strategies)

    main = read(path)
    if memory is None:
        return attrs.evolve(inspect(_with_folder(main, main, read, seen)), seen=seen)
    folder_owner = main if main.config is not None and not main.problems else memory.good.get(path, main)
    found = _with_folder(main, folder_owner, read, seen)
    settled = settle(path, found, memory.good, inspect)
    if settled.fragments and _folder_of(settled.fragments[0]) != _folder_of(folder_owner):
        # The main file stays as it was, and so does its folder.
        found = _with_folder(main, settled.fragments[0], read, seen)
        settled = settle(path, found, memory.good, inspect)
    settled = attrs.evolve(settled, loaded=attrs.evolve(settled.loaded, broken=settled.broken, seen=seen))
    memory.keep(found, settled)
    return settled.loaded


def _folder_of(main: Fragment) -> str | None:
    providers = None if main.config is None else main.config.providers
    return None if providers is None or providers.file is None else providers.file.directory


def _with_folder(
    main: Fragment, folder_owner: Fragment, read: Callable[[str], Fragment], seen: dict[str, bytes | None]
) -> list[Fragment]:
    """
    Return the main file's fragment and those of the files in the folder that `folder_owner` names.
    """
    found = [main]
    folder = _folder_of(folder_owner)
    if folder is not None:
        # First, so that a file that comes meanwhile is noticed.
        seen[folder] = digest_of_file(folder)
        found += [read(source) for source in list_files(folder) if not _is_same(source, main.source)]
    return found


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def with_offers(loaded: Loaded, offers: Sequence[Offer]) -> Loaded:
    """
    Return `loaded` with whatever of the `offers` can be used, and what cannot be among `left_out`. A configuration with problems is left
    as it is.
    """
    if loaded.config is None or loaded.problems or not offers:
        return loaded
    catalog, strategies = find_catalog(), find_strategies()

    def inspect(config: GatewayConfig) -> tuple[Problem, ...]:
        found = (*check(config, {}), *unsupported(config, {}))
        return check_build(Loaded(config, found, (), Positions()), catalog, strategies).problems

    config, left_out = overlay(loaded.config, offers, inspect)
    # What they name is not watched, but counts when something is to be reloaded.
    named = {name: loaded.seen.get(name) or digest_of_file(name) for name in named_files(config)}
    return attrs.evolve(loaded, config=config, named=named, left_out=left_out)


def check_build(loaded: Loaded, catalog: Catalog, strategies: Strategies | None = None) -> Loaded:
    """
    Return `loaded` with the problems of its entrypoints, its rules, its services and its middlewares added.
    """
    config, positions = loaded.config, loaded.positions
    if config is None:
        return loaded
    warnings = [*udp_warnings(config, positions), *entrypoint_warnings(config, positions)]
    if warnings:
        loaded = attrs.evolve(loaded, warnings=(*loaded.warnings, *warnings))
    found = rule_problems(config, positions)
    found += fit_problems(config, positions)
    found += entrypoint_problems(config, positions, loaded.problems)
    found += service_problems(config, positions, strategies or find_strategies())
    found += middleware_problems(config, positions, catalog, loaded.problems)
    if not found:
        return loaded
    return attrs.evolve(loaded, problems=tuple(sorted([*loaded.problems, *found], key=order_of(loaded.sources))))
