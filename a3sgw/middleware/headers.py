"""
`headers`: set, append and remove headers of requests and responses.

Names are looked up and values taken apart when the middleware is built; what is constant is a finished field then.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Union

import attrs
from zope.interface import alsoProvides

from a3sgw.config.kinds import HEADER_MAP
from a3sgw.config.setting import label, setting
from a3sgw.config.values import FrozenMap, Secret, reveal
from a3sgw.config.wording import item_path, quote
from a3sgw.errors import Outcome, ProtocolError
from a3sgw.interfaces import IRequestHook, IResponseHook
from a3sgw.message import Field, LocalResponse, ResponseHead, make_field
from a3sgw.middleware.chain import without_identity
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.middleware.template import Template, template_faults
from a3sgw.refusal import refusal
from a3sgw.wire.fields import DATE, EXPECT, FORWARDED, HOST, PLAIN, REFERER, REQUEST_ID, REQUEST_KINDS, RESPONSE_KINDS, USER_AGENT
from a3sgw.wire.fields import parse_authority as check_authority

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Headers", "HeadersConfig", "factory"]

Values = FrozenMap[str, Union[str, Secret]]

_ORDINARY: Final = frozenset([PLAIN, USER_AGENT, REFERER, DATE])


@attrs.frozen(kw_only=True)
class HeadersConfig:
    """
    Set, append and remove headers of requests and responses.

    A header that is set replaces all that were there by its name; an empty value removes them. What is appended is added to them, so that
    the header may be there several times. First is set and removed, then appended.

    In values, `{client_ip}`, `{entrypoint}`, `{host}` (without port), `{method}`, `{path}`, `{query}`, `{request_id}`, `{router}` and
    `{scheme}` are filled in from the request as it is at this point; `{{` and `}}` stand for braces. A header whose value comes out empty
    is not sent. Values that come from the environment or from a file are kept secret and taken as they are, braces and all.

    Of what servers get, `Host` can be set too (it has no effect on services with `pass_host_header = false`; `X-Forwarded-Host` still says
    what the client asked for), and the gateway's own `X-Forwarded-…` and `X-Real-Ip` can be replaced and removed, `X-Forwarded-Host` only
    replaced. A request header that is set or removed is removed in its spelling with underscores as well. What belongs to the connection or
    frames the body (`Connection`, `Content-Length`, `Transfer-Encoding`, `Upgrade` and their like) cannot be changed.

    Responses are changed whoever made them: the headers are also on the answers of middlewares that stand further inside, and on errors.
    """

    type: ClassVar[str] = "headers"
    example: ClassVar[str] = """
        middlewares "house-rules" {
          type = "headers"
          request_headers = {
            "X-Tenant"  = "acme"
            "X-Caller"  = "{client_ip}"
            "X-Debug"   = ""
          }
          response_headers = {
            "Strict-Transport-Security" = "max-age=31536000"
            "X-Content-Type-Options"    = "nosniff"
            "Server"                    = ""
          }
          append_response_headers = {
            "Link" = "</style.css>; rel=preload"
          }
        }
        """

    name: str = label()
    request_headers: Values = setting(HEADER_MAP, "What servers get; an empty value removes the header.", default=FrozenMap())
    append_request_headers: Values = setting(HEADER_MAP, "What servers get besides.", default=FrozenMap())
    response_headers: Values = setting(HEADER_MAP, "What clients get; an empty value removes the header.", default=FrozenMap())
    append_response_headers: Values = setting(HEADER_MAP, "What clients get besides.", default=FrozenMap())

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Find names that cannot be changed and values that cannot be filled in.
        """
        for attribute in ("request_headers", "append_request_headers", "response_headers", "append_response_headers"):
            values: Values = getattr(self, attribute)
            for name, value in values.items():
                text = f"{'appends to' if attribute.startswith('append') else 'sets'} the header {quote(name)}"
                objection = _objection(attribute, name.lower(), value)
                if objection:
                    yield item_path(attribute, name), f"{text}, {objection}"
                for fault in template_faults(value):
                    yield item_path(attribute, name), f"{text} to a value that {fault}"


def _objection(attribute: str, name: str, value: str | Secret) -> str:
    """
    Return why the header called `name` (lower case) cannot be changed so, or nothing.
    """
    dashed = name.replace("_", "-")
    is_request = attribute.endswith("request_headers")
    is_appended = attribute.startswith("append")
    kind = (REQUEST_KINDS if is_request else RESPONSE_KINDS).get(dashed.encode("ascii"), PLAIN)
    if kind not in _ORDINARY and dashed != name:
        return f"which servers take for {quote(dashed)}; write it with dashes"
    is_empty = not reveal(value).strip(" \t")
    if is_appended and is_empty:
        return "but there is nothing to append; give it a value"
    if is_appended and kind in (FORWARDED, HOST, DATE):
        return f"of which there is one only; set it in {attribute.removeprefix('append_')}"
    if kind == HOST:
        return _objection_to_host(value, is_empty)
    if is_request and name == "x-forwarded-host" and is_empty:
        return "which is always sent; it can be replaced but not removed"
    if kind == REQUEST_ID:
        return 'which is the matter of middlewares of type "request-id"'
    if kind == EXPECT:
        return "which is between the client and the server"
    if is_request and name == "via":
        return "which proxies have to send (RFC 9110 section 7.6.3)"
    if kind not in _ORDINARY and kind != FORWARDED:
        return "which belongs to a single connection or frames the body; the gateway sees to it"
    return ""


def _objection_to_host(value: str | Secret, is_empty: bool) -> str:
    if is_empty:
        return "without which there is no request; give it a value"
    if any(template_faults(value)):
        return ""
    constant = Template(value).constant
    try:
        if constant is not None:
            check_authority(constant)
    except ProtocolError:
        return 'but its value is no host; write a name or an address, with a port if need be, like "app.internal:8080"'
    return ""


class _Changes:
    """
    What happens to the fields of messages in one direction.

    `names` are those to be removed first, in lower case. `constants` and `templates` are what is added. `are_none` says that nothing
    happens.
    """

    __slots__ = ("are_none", "constants", "names", "templates")

    def __init__(self, replaced: Iterable[tuple[str, str | Secret]], appended: Mapping[str, str | Secret]) -> None:
        named = [(name.encode("ascii"), Template(value)) for name, value in replaced]
        self.names: Final = frozenset(name.lower() for name, _ in named)
        added = [*named, *((name.encode("ascii"), Template(value)) for name, value in appended.items())]
        self.constants: Final = [make_field(name, template.constant) for name, template in added if template.constant]
        self.templates: Final = [(name, template) for name, template in added if template.constant is None]
        self.are_none: Final = not (self.names or self.constants or self.templates)

    def add_to(self, fields: list[Field], exchange: Exchange) -> None:
        """
        Add to `fields` what is new.
        """
        fields += self.constants
        for name, template in self.templates:
            value = template.fill(exchange)
            if value:
                fields.append(make_field(name, value))


class Headers:
    """
    The headers of one router or entrypoint. It provides `IRequestHook`, `IResponseHook` or both, as there is something to change.

    `_said` is what is told of the client instead of the gateway's own words, `_host` the new host, if there is one.
    """

    def __init__(self, config: HeadersConfig, surroundings: Surroundings) -> None:
        plain = []
        said = []
        self._host: Template | None = None
        for name, value in config.request_headers.items():
            kind = REQUEST_KINDS.get(name.lower().encode("ascii"), PLAIN)
            if kind == HOST:
                self._host = Template(value)
            elif kind == FORWARDED:
                said.append((name.encode("ascii"), Template(value)))
            else:
                plain.append((name, value))
        self._said = tuple(said)
        constants = [(name, template.constant) for name, template in said if template.constant is not None]
        self._said_always = tuple(constants) if len(constants) == len(said) else None
        self._request = _Changes(plain, config.append_request_headers)
        # Names are compared with dashes for underscores.
        self._request_names = frozenset(name.replace(b"_", b"-") for name in self._request.names)
        self._response = _Changes(config.response_headers.items(), config.append_response_headers)
        self._changes_date = b"date" in self._response.names
        if self._host is not None or self._said or not self._request.are_none:
            alsoProvides(self, IRequestHook)
        if not self._response.are_none:
            alsoProvides(self, IResponseHook)

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Change what the server gets.
        """
        head = exchange.head
        assert head is not None
        if self._host is not None:
            authority = self._host.fill(exchange)
            try:
                check_authority(authority)
            except ProtocolError as error:
                # An HTTP/1.0 request without a host, most likely.
                exchange.detail = str(error)
                return refusal(Outcome.HOST_MALFORMED, head.request_id)
            if exchange.forwarding.host is None and head.authority:
                exchange.forwarding = exchange.forwarding.replaced(((b"X-Forwarded-Host", head.authority),))
            head.authority = authority
        if self._said:
            said = self._said_always
            if said is None:
                said = tuple([(name, template.fill(exchange)) for name, template in self._said])
            exchange.forwarding = exchange.forwarding.replaced(said)
        if not self._request.are_none:
            fields = without_identity(head.fields, self._request_names)
            self._request.add_to(fields, exchange)
            head.fields = fields
        return None

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Change what the client gets.
        """
        changes = self._response
        names = changes.names
        fields = [field for field in head.fields if field[0] not in names]
        changes.add_to(fields, exchange)
        head.fields = fields
        if self._changes_date:
            head.has_date = any(field[0] == b"date" for field in fields)


factory = MiddlewareFactory(HeadersConfig, Headers)
