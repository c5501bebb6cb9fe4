"""
Say what a rule requires of a request, and what is left to ask when that is known.

An index is sound if it never hides a route: the *keys* of a rule are such that whatever the rule matches has one of them. `&&` may rely
on any one of its operands, `||` only on all together, and `!` on nothing. What an index has found out need not be asked again:
`specialise` puts constants in place of the matchers that a key decides, which often leaves nothing.

Works on trees only; `table` builds its indexes from it when a configuration arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, Union

from a3sgw.route.argument import HostPattern
from a3sgw.route.rule import And, Matcher, Not, Rule

__all__ = [
    "HostKey",
    "PathKey",
    "Residue",
    "given_host",
    "given_path",
    "required_hosts",
    "required_paths",
    "rule_size",
    "specialise",
]


class HostKey(NamedTuple):
    """
    Requests for the host `name`; with `is_parent`, for any host one label below it.
    """

    name: bytes
    is_parent: bool


class PathKey(NamedTuple):
    """
    Requests for the path `value`; with `is_prefix`, for any path that begins with it.
    """

    value: bytes
    is_prefix: bool


K = TypeVar("K")
Residue = Union[Rule, bool]
Decide = Callable[[Matcher], Union[bool, None]]


# -- what is required -----------------------------------------------------------------------------------------------------------------


def required_hosts(rule: Rule) -> frozenset[HostKey] | None:
    """
    Return the hosts outside of which `rule` matches nothing, or `None` if it may match any.
    """
    return _required(rule, _host_keys, _fewest)


def required_paths(rule: Rule) -> frozenset[PathKey] | None:
    """
    Return the paths and prefixes outside of which `rule` matches nothing, or `None` if it may match any.
    """
    return _required(rule, _path_keys, _longest)


def _required(
    rule: Rule,
    keys_of: Callable[[Matcher], frozenset[K] | None],
    choose: Callable[[Sequence[frozenset[K]]], frozenset[K]],
) -> frozenset[K] | None:
    if isinstance(rule, Matcher):
        return keys_of(rule)
    if isinstance(rule, Not):
        return None
    found = []
    for operand in rule.operands:
        keys = _required(operand, keys_of, choose)
        if keys is not None:
            found.append(keys)
    if isinstance(rule, And):
        return choose(found) if found else None
    return frozenset().union(*found) if len(found) == len(rule.operands) else None


def _fewest(choices: Sequence[frozenset[HostKey]]) -> frozenset[HostKey]:
    return min(choices, key=len)


def _longest(choices: Sequence[frozenset[PathKey]]) -> frozenset[PathKey]:
    # The longer the shortest of them, the fewer other routes will share it.
    return max(choices, key=lambda keys: min((len(key.value) for key in keys), default=0))


def _host_keys(matcher: Matcher) -> frozenset[HostKey] | None:
    if matcher.name not in ("Host", "HostSNI") or any(pattern.is_everything for pattern in matcher.operands):
        return None
    return frozenset(HostKey(pattern.name, pattern.is_wildcard) for pattern in matcher.operands)


def _path_keys(matcher: Matcher) -> frozenset[PathKey] | None:
    if matcher.name == "Path":
        return frozenset(PathKey(path, False) for path in matcher.operands)
    if matcher.name == "PathPrefix":
        return frozenset(PathKey(prefix, True) for prefix in matcher.operands)
    if matcher.name == "PathSegments":
        below = {PathKey(prefix + b"/", True) for prefix in matcher.operands}
        return frozenset(below | {PathKey(prefix, False) for prefix in matcher.operands if prefix})
    return None


# -- what is left ---------------------------------------------------------------------------------------------------------------------


def rule_size(rule: Rule) -> int:
    """
    Return how many nodes and arguments a rule has: what `specialise` costs.
    """
    if isinstance(rule, Matcher):
        return 1 + len(rule.operands)
    if isinstance(rule, Not):
        return 1 + rule_size(rule.operand)
    return 1 + sum(map(rule_size, rule.operands))


def specialise(rule: Rule, decide: Decide) -> Residue:
    """
    Return what is left of `rule` where `decide` knows some matchers' answers (`None`: it does not), a bool if nothing is.
    """
    if isinstance(rule, Matcher):
        verdict = decide(rule)
        return rule if verdict is None else verdict
    if isinstance(rule, Not):
        inner = specialise(rule.operand, decide)
        return not inner if isinstance(inner, bool) else Not(inner)
    # `False` ends a conjunction and `True` a disjunction; the other one says nothing.
    kind = type(rule)
    decisive = kind is not And
    left: list[Rule] = []
    for operand in rule.operands:
        residue = specialise(operand, decide)
        if not isinstance(residue, bool):
            left.append(residue)
        elif residue is decisive:
            return decisive
    if not left:
        return not decisive
    return left[0] if len(left) == 1 else kind(tuple(left))


def given_host(key: HostKey) -> Decide:
    """
    Return what is known of a matcher once a request was found under `key`.
    """

    def decide(matcher: Matcher) -> bool | None:
        if matcher.name in ("Host", "HostSNI"):
            return _decide_host(matcher.operands, key)
        if matcher.name in ("HostRegexp", "HostSNIRegexp") and not key.is_parent:
            return matcher.operands[0].search(key.name) is not None
        return None

    return decide


def _decide_host(patterns: Sequence[HostPattern], key: HostKey) -> bool | None:
    is_possible = False
    for pattern in patterns:
        if pattern.is_everything:
            return True
        if key.is_parent:
            is_certain = pattern.is_wildcard and pattern.name == key.name
            # The host has one label more than the key, which may be the one this pattern names.
            may_be = is_certain or (not pattern.is_wildcard and pattern.name.partition(b".")[2] == key.name)
        else:
            is_certain = may_be = pattern.admits(key.name)
        if is_certain and not pattern.port:
            return True
        is_possible = is_possible or may_be
    return None if is_possible else False


def given_path(key: PathKey) -> Decide:
    """
    Return what is known of a matcher once a request was found under `key`.
    """

    def decide(matcher: Matcher) -> bool | None:
        if matcher.name == "PathRegexp" and not key.is_prefix:
            return matcher.operands[0].search(key.value) is not None
        keys = _path_keys(matcher)
        return None if keys is None else _decide_path(keys, key)

    return decide


def _decide_path(keys: frozenset[PathKey], key: PathKey) -> bool | None:
    # `Path`, `PathPrefix` and `PathSegments` are exactly the union of their keys.
    is_possible = False
    for value, is_prefix in keys:
        if key.value.startswith(value) if is_prefix else (key.value == value and not key.is_prefix):
            return True
        is_possible = is_possible or (key.is_prefix and value.startswith(key.value))
    return None if is_possible else False
