"""
Say why a rule matched a request, or why it did not.

For people, not for the hot path: every part of a rule is asked, also those whose answer no longer matters, so that one look shows all
that is wrong. The verdict itself always comes from `match`; this module only adds the words.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Union

import attrs

from a3sgw.message import RequestHead
from a3sgw.route.argument import quote
from a3sgw.route.match import ConnectionFacts, compile_http, compile_tcp, field_values, query_values
from a3sgw.route.rule import And, Matcher, Not, Rule
from a3sgw.route.table import HttpTable, TcpTable

__all__ = ["Explanation", "RouteExplanation", "explain", "explain_table"]

Request = Union[RequestHead, ConnectionFacts]


@attrs.frozen(slots=True)
class Explanation:
    """
    The verdict on a rule or a part of one: its `text`, whether it `matched`, `why` in a sentence, and the same for its `parts`.
    """

    text: str
    matched: bool
    why: str
    parts: tuple[Explanation, ...] = ()


@attrs.frozen(slots=True)
class RouteExplanation:
    """
    What a table makes of one router. The winner is the first in order whose rule matched; `why` says so, or what came before it.
    """

    name: str
    priority: int
    is_winner: bool
    why: str
    rule: Explanation


def explain(rule: Rule, request: Request) -> Explanation:
    """
    Explain what `rule` says to `request`: a `RequestHead` for an http rule, `ConnectionFacts` for a tcp rule.
    """
    if isinstance(rule, Matcher):
        matched = compile_http(rule)(request) if isinstance(request, RequestHead) else compile_tcp(rule)(request)
        found, expected = _WORDS[rule.name](rule, request)
        return Explanation(str(rule), matched, found if matched else f"{found}, expected {expected}")
    if isinstance(rule, Not):
        part = explain(rule.operand, request)
        holds = "holds" if part.matched else "does not"
        return Explanation(str(rule), not part.matched, f"what must not hold {holds}: {part.why}", (part,))
    parts = []
    for operand in rule.operands:
        parts.append(explain(operand, request))
    # The first that failed decides a conjunction, the first that held a disjunction.
    is_conjunction = isinstance(rule, And)
    deciding = next((part for part in parts if part.matched is not is_conjunction), None)
    if deciding is not None:
        why = deciding.why
    else:
        why = f"all {len(parts)} conditions hold" if is_conjunction else f"none of {len(parts)} alternatives holds"
    return Explanation(str(rule), (deciding is None) is is_conjunction, why, tuple(parts))


def explain_table(table: HttpTable[Any] | TcpTable[Any], request: Request) -> list[RouteExplanation]:
    """
    Explain every route of `table` in the order of trial. A table of http routes takes a `RequestHead`, one of tcp routes `ConnectionFacts`.
    """
    winner: str | None = None
    explained = []
    for route in table.routes:
        verdict = explain(route.rule, request)
        is_winner = verdict.matched and winner is None
        if is_winner:
            winner = route.name
            why = "first match"
        elif verdict.matched:
            why = f"matches too, but router {quote(winner or '')} comes first"
        else:
            why = verdict.why
        explained.append(RouteExplanation(route.name, route.priority, is_winner, why, verdict))
    return explained


# -- the words ------------------------------------------------------------------------------------------------------------------------

# For each matcher: what was found, and what would have matched.
_Words = Callable[[Matcher, Any], tuple[str, str]]


def _show(value: bytes | None) -> str:
    return quote(value.decode("utf-8", "backslashreplace")) if value else "absent"


def _show_all(values: Iterable[bytes]) -> str:
    # An empty value was sent all the same.
    return ", ".join(quote(value.decode("utf-8", "backslashreplace")) for value in values) or "absent"


def _one_of(matcher: Matcher) -> str:
    return " or ".join(map(quote, matcher.arguments))


def _match_of(matcher: Matcher) -> str:
    return f"a match of {quote(matcher.arguments[-1])}"


def _host_words(matcher: Matcher, head: RequestHead) -> tuple[str, str]:
    # A rule that names a port was compared with the port too.
    names_port = any(pattern.port for pattern in matcher.operands)
    return f"host is {_show(head.authority if names_port else head.host)}", _one_of(matcher)


def _header_words(matcher: Matcher, head: RequestHead) -> str:
    return f"header {matcher.arguments[0]} is {_show_all(field_values(head, matcher.operands[0]))}"


def _query_words(matcher: Matcher, head: RequestHead) -> str:
    return f"query parameter {matcher.arguments[0]} is {_show_all(query_values(head.query, matcher.operands[0]))}"


def _client_words(matcher: Matcher, request: Request) -> tuple[str, str]:
    packed = request.client_packed
    if len(packed) in (4, 16):
        shown = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
    else:
        shown = "unknown"
    return f"client address is {shown}", _one_of(matcher)


_WORDS: Final[Mapping[str, _Words]] = {
    "Host": _host_words,
    "HostRegexp": lambda matcher, head: (f"host is {_show(head.host)}", _match_of(matcher)),
    "Path": lambda matcher, head: (f"path is {_show(head.path)}", _one_of(matcher)),
    "PathPrefix": lambda matcher, head: (f"path is {_show(head.path)}", f"it to begin with {_one_of(matcher)}"),
    "PathSegments": lambda matcher, head: (f"path is {_show(head.path)}", f"it to be or to lie below {_one_of(matcher)}"),
    "PathRegexp": lambda matcher, head: (f"path is {_show(head.path)}", _match_of(matcher)),
    "Method": lambda matcher, head: (f"method is {_show(head.method)}", _one_of(matcher)),
    "Header": lambda matcher, head: (_header_words(matcher, head), quote(matcher.arguments[1])),
    "HeaderRegexp": lambda matcher, head: (_header_words(matcher, head), _match_of(matcher)),
    "Query": lambda matcher, head: (_query_words(matcher, head), quote(matcher.arguments[1] if len(matcher.arguments) > 1 else "")),
    "QueryRegexp": lambda matcher, head: (_query_words(matcher, head), _match_of(matcher)),
    "ClientIP": _client_words,
    "HostSNI": lambda matcher, facts: (f"server name is {_show(facts.server_name)}", _one_of(matcher)),
    "HostSNIRegexp": lambda matcher, facts: (f"server name is {_show(facts.server_name)}", _match_of(matcher)),
    "ALPN": lambda matcher, facts: (f"ALPN is {_show_all(facts.protocols)}", _one_of(matcher)),
}
