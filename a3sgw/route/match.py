"""
Turn the tree of a rule into a predicate.

Everything is decided here once: which comparison a matcher needs for the number and kind of its arguments, in which order the parts of a
conjunction are asked (predicates are pure, so the cheap ones go first), which address ranges overlap. A request only walks closures.

Hot path: see docs/hot-path.md.
"""

# `any` and `all` over a generator cost three times the loop they would replace.
# ruff: noqa: SIM110

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import attrs

from a3sgw.address import AddressSet
from a3sgw.message import RequestHead, get_all_fields
from a3sgw.route.argument import HostPattern
from a3sgw.route.rule import And, Matcher, Not, Rule

__all__ = [
    "ConnectionFacts",
    "HttpPredicate",
    "TcpPredicate",
    "compile_early",
    "compile_http",
    "compile_tcp",
    "field_values",
    "query_values",
]

F = TypeVar("F")


def _normalise_server_name(name: bytes | None) -> bytes | None:
    return name.lower().removesuffix(b".") if name is not None else None


@attrs.frozen(slots=True)
class ConnectionFacts:
    """
    What is known of a TCP connection when it is routed.

    `server_name` is the SNI host, `None` without one or without TLS; it is kept in lower case without trailing dot. `protocols` are the
    ALPN names the client offered, in its order. `client_packed` is the client's address as in `RequestHead`.
    """

    server_name: bytes | None = attrs.field(default=None, converter=_normalise_server_name)
    protocols: tuple[bytes, ...] = ()
    client_packed: bytes = b""


HttpPredicate = Callable[[RequestHead], bool]
TcpPredicate = Callable[[ConnectionFacts], bool]
_Builders = Mapping[str, Callable[[Sequence[Any]], Callable[[F], bool]]]


def compile_http(rule: Rule) -> HttpPredicate:
    """
    Return the predicate of a rule that was parsed for http.
    """
    return _compile(rule, HTTP_BUILDERS)


def compile_tcp(rule: Rule) -> TcpPredicate:
    """
    Return the predicate of a rule that was parsed for tcp.
    """
    return _compile(rule, TCP_BUILDERS)


# -- the operators --------------------------------------------------------------------------------------------------------------------

# What is asked late: it costs more than comparing two strings.
_COSTS: Final = {
    "ClientIP": 1,
    "Header": 2,
    "Query": 3,
    "HostRegexp": 4,
    "HostSNIRegexp": 4,
    "PathRegexp": 4,
    "HeaderRegexp": 5,
    "QueryRegexp": 6,
}


def _cost(rule: Rule) -> int:
    if isinstance(rule, Matcher):
        return _COSTS.get(rule.name, 0)
    if isinstance(rule, Not):
        return _cost(rule.operand)
    return len(rule.operands) + sum(map(_cost, rule.operands))


def _compile(rule: Rule, builders: _Builders[F]) -> Callable[[F], bool]:
    if isinstance(rule, Matcher):
        return builders[rule.name](rule.operands)
    if isinstance(rule, Not):
        operand = _compile(rule.operand, builders)
        return lambda request: not operand(request)
    predicates = []
    for each in sorted(rule.operands, key=_cost):
        predicates.append(_compile(each, builders))
    return _conjunction(tuple(predicates)) if isinstance(rule, And) else _disjunction(tuple(predicates))


def _conjunction(predicates: tuple[Callable[[F], bool], ...]) -> Callable[[F], bool]:
    if len(predicates) == 2:
        first, second = predicates
        return lambda request: first(request) and second(request)
    if len(predicates) == 3:
        first, second, third = predicates
        return lambda request: first(request) and second(request) and third(request)

    def matches(request: F) -> bool:
        for predicate in predicates:
            if not predicate(request):
                return False
        return True

    return matches


def _disjunction(predicates: tuple[Callable[[F], bool], ...]) -> Callable[[F], bool]:
    if len(predicates) == 2:
        first, second = predicates
        return lambda request: first(request) or second(request)

    def matches(request: F) -> bool:
        for predicate in predicates:
            if predicate(request):
                return True
        return False

    return matches


# -- http -----------------------------------------------------------------------------------------------------------------------------


def _host(patterns: Sequence[HostPattern]) -> HttpPredicate:
    if any(pattern.port or pattern.is_wildcard for pattern in patterns):
        return _host_at_large(patterns)
    if len(patterns) == 1:
        name = patterns[0].name
        return lambda head: head.host == name
    names = frozenset(pattern.name for pattern in patterns)
    return lambda head: head.host in names


def _host_at_large(patterns: Sequence[HostPattern]) -> HttpPredicate:
    names = frozenset(pattern.name for pattern in patterns if not (pattern.is_wildcard or pattern.port))
    parents = frozenset(pattern.name for pattern in patterns if pattern.is_wildcard and not pattern.port)
    ported = tuple(pattern for pattern in patterns if pattern.port)

    def matches(head: RequestHead) -> bool:
        host = head.host
        if host in names:
            return True
        label, _, parent = host.partition(b".")
        if parent in parents and label:
            return True
        for pattern in ported:
            # The colon is part of `port`: a name that ends in these digits is no port.
            if head.authority.endswith(pattern.port) and pattern.admits(host):
                return True
        return False

    return matches


def _host_regexp(operands: Sequence[Any]) -> HttpPredicate:
    search = operands[0].search
    return lambda head: search(head.host) is not None


def _path(paths: Sequence[bytes]) -> HttpPredicate:
    if len(paths) == 1:
        path = paths[0]
        return lambda head: head.path == path
    several = frozenset(paths)
    return lambda head: head.path in several


def _path_prefix(prefixes: Sequence[bytes]) -> HttpPredicate:
    prefix = prefixes[0] if len(prefixes) == 1 else tuple(prefixes)
    return lambda head: head.path.startswith(prefix)


def _path_segments(prefixes: Sequence[bytes]) -> HttpPredicate:
    inner = tuple(prefix + b"/" for prefix in prefixes)
    if len(prefixes) == 1:
        path, below = prefixes[0], inner[0]
        return lambda head: head.path.startswith(below) or (head.path == path and path != b"")
    whole = frozenset(prefix for prefix in prefixes if prefix)
    return lambda head: head.path.startswith(inner) or head.path in whole


def _path_regexp(operands: Sequence[Any]) -> HttpPredicate:
    search = operands[0].search
    return lambda head: search(head.path) is not None


def _method(methods: Sequence[bytes]) -> HttpPredicate:
    several = frozenset(methods)
    if len(methods) == 1:
        method = methods[0]
        # Nearly every method arrives in upper case.
        return lambda head: head.method == method or head.method.upper() == method
    return lambda head: head.method.upper() in several


def field_values(head: RequestHead, name: bytes) -> list[bytes]:
    """
    Return every value of a request field, also of those that a head keeps elsewhere.
    """
    if name == b"host":
        return [head.authority] if head.authority else []
    if name == b"x-request-id":
        return [head.request_id] if head.request_id else []
    return get_all_fields(head.forwarded if _is_forwarding(name) else head.fields, name)


def _is_forwarding(name: bytes) -> bool:
    return name.startswith(b"x-forwarded-") or name in (b"forwarded", b"x-real-ip")


def _header(operands: Sequence[Any]) -> HttpPredicate:
    name, value = operands
    if name in (b"host", b"x-request-id") or _is_forwarding(name):
        return lambda head: value in field_values(head, name)

    def matches(head: RequestHead) -> bool:
        for field in head.fields:
            if field[0] == name and field[1] == value:
                return True
        return False

    return matches


def _header_regexp(operands: Sequence[Any]) -> HttpPredicate:
    name, search = operands[0], operands[1].search

    def matches(head: RequestHead) -> bool:
        for value in field_values(head, name):
            if search(value) is not None:
                return True
        return False

    return matches


_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})").search


def query_values(query: bytes, key: bytes) -> list[bytes]:
    """
    Return the decoded values of `key`, read as Go's `url.ParseQuery` reads: `+` is a blank, a pair with a semicolon or a malformed escape
    is left out, `key` alone has the empty value.
    """
    values = []
    for pair in query.split(b"&"):
        if not pair or b";" in pair:
            continue
        # A pair is left out as a whole, wherever the malformed escape is.
        if b"%" in pair and _BAD_ESCAPE(pair):
            continue
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name.replace(b"+", b" ")) == key:
            values.append(unquote_to_bytes(value.replace(b"+", b" ")))
    return values


def _query(operands: Sequence[bytes]) -> HttpPredicate:
    key = operands[0]
    # As in Traefik: a name alone means the parameter without a value, `?a` or `?a=`.
    value = operands[1] if len(operands) > 1 else b""
    return lambda head: head.query != b"" and value in query_values(head.query, key)


def _query_regexp(operands: Sequence[Any]) -> HttpPredicate:
    key, search = operands[0], operands[1].search

    def matches(head: RequestHead) -> bool:
        if head.query:
            for value in query_values(head.query, key):
                if search(value) is not None:
                    return True
        return False

    return matches


def _client_ip(networks: Sequence[str]) -> HttpPredicate:
    contains = AddressSet(networks).contains
    return lambda head: contains(head.client_packed)


HTTP_BUILDERS: Final[_Builders[RequestHead]] = {
    "Host": _host,
    "HostRegexp": _host_regexp,
    "Path": _path,
    "PathPrefix": _path_prefix,
    "PathRegexp": _path_regexp,
    "PathSegments": _path_segments,
    "Method": _method,
    "Header": _header,
    "HeaderRegexp": _header_regexp,
    "Query": _query,
    "QueryRegexp": _query_regexp,
    "ClientIP": _client_ip,
}


# -- tcp ------------------------------------------------------------------------------------------------------------------------------


def _host_sni(patterns: Sequence[HostPattern]) -> TcpPredicate:
    if any(pattern.is_everything for pattern in patterns):
        return lambda facts: True
    names = frozenset(pattern.name for pattern in patterns if not pattern.is_wildcard)
    parents = frozenset(pattern.name for pattern in patterns if pattern.is_wildcard)

    def matches(facts: ConnectionFacts) -> bool:
        if not facts.server_name:
            return False
        label, _, parent = facts.server_name.partition(b".")
        return facts.server_name in names or (label != b"" and parent in parents)

    return matches


def _host_sni_regexp(operands: Sequence[Any]) -> TcpPredicate:
    search = operands[0].search
    # As in Traefik, a connection without a name has the empty one, so `.*` is everything and `.+` is not.
    return lambda facts: search(facts.server_name or b"") is not None


def _alpn(protocols: Sequence[bytes]) -> TcpPredicate:
    several = frozenset(protocols)
    return lambda facts: not several.isdisjoint(facts.protocols)


def _client_ip_of_connection(networks: Sequence[str]) -> TcpPredicate:
    contains = AddressSet(networks).contains
    return lambda facts: contains(facts.client_packed)


EarlyPredicate = Callable[[bytes], "bool | None"]
"""What a rule says of a client's address, as `pack_address` gives it; `None` if that takes what the client has yet to send."""


def compile_early(rule: Rule) -> EarlyPredicate:
    """
    Return what a tcp rule says before the client has sent anything, in Kleene's logic of three values.
    """
    if isinstance(rule, Matcher):
        if rule.name == "ClientIP":
            return AddressSet(rule.operands).contains
        if rule.name == "HostSNI" and any(pattern.is_everything for pattern in rule.operands):
            return lambda packed: True
        return lambda packed: None
    if isinstance(rule, Not):
        operand = compile_early(rule.operand)

        def denies(packed: bytes) -> bool | None:
            said = operand(packed)
            return None if said is None else not said

        return denies
    operands = [compile_early(each) for each in rule.operands]
    # One false part decides a conjunction, one true part a disjunction.
    deciding = not isinstance(rule, And)

    def joins(packed: bytes) -> bool | None:
        said = [each(packed) for each in operands]
        if deciding in said:
            return deciding
        return None if None in said else not deciding

    return joins


TCP_BUILDERS: Final[_Builders[ConnectionFacts]] = {
    "HostSNI": _host_sni,
    "HostSNIRegexp": _host_sni_regexp,
    "ALPN": _alpn,
    "ClientIP": _client_ip_of_connection,
}
