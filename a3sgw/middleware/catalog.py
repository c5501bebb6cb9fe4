"""
Every type of middleware there is: the gateway's own, in one tuple, and those of installed plugins.

A plugin provides `IMiddlewareFactory` under `a3sgw.plugins`, as plugins of Twisted do; see docs/plugins.md. Nobody registers anything by
being imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import attrs

from a3sgw.config.setting import settings_of
from a3sgw.dropins import NO_DROPINS, CatalogError, Dropins, Providers, gather, installed_dropins
from a3sgw.interfaces import IMiddlewareFactory
from a3sgw.middleware import (
    add_prefix,
    api_key,
    basic_auth,
    body_limit,
    circuit_breaker,
    compress,
    cors,
    errors,
    forward_auth,
    grpc_web,
    headers,
    in_flight,
    ip_allow,
    jwt,
    named_chain,
    rate_limit,
    rate_limit_redis,
    redirect_regex,
    redirect_scheme,
    replace_path,
    request_id,
    retry,
    strip_prefix,
    tcp_filter,
    ws_mux,
)

__all__ = ["BUILT_IN", "Catalog", "CatalogError", "find_catalog"]

BUILT_IN: Final[tuple[IMiddlewareFactory, ...]] = (
    api_key.factory,
    basic_auth.factory,
    jwt.factory,
    forward_auth.factory,
    rate_limit.factory,
    rate_limit_redis.factory,
    cors.factory,
    headers.factory,
    strip_prefix.factory,
    add_prefix.factory,
    replace_path.factory,
    redirect_scheme.factory,
    redirect_regex.factory,
    request_id.factory,
    body_limit.factory,
    retry.factory,
    circuit_breaker.factory,
    ip_allow.factory,
    compress.factory,
    grpc_web.factory,
    tcp_filter.factory,
    in_flight.factory,
    errors.factory,
    named_chain.factory,
    ws_mux.factory,
)
"""In the order of the reference."""


class Catalog(Providers[IMiddlewareFactory]):
    """
    Factories by type.
    """

    @classmethod
    def of(cls, factories: Iterable[IMiddlewareFactory], dropins: Dropins = NO_DROPINS) -> Catalog:
        """
        Return the catalog of `factories` and of those in `dropins`. Raises `CatalogError` for a type that is given twice, and for a class
        that is no configuration.
        """
        found = gather("middleware type", factories, dropins, IMiddlewareFactory, lambda factory: factory.type_name)
        for name, factory in found.by_name.items():
            fault = _fault_of(factory)
            if fault:
                raise CatalogError(f'the config_class of the middleware type "{name}" {fault}: {found.describe(name)}')
        return cls(found.by_name, found.plugins, found.faults)

    @property
    def factories(self) -> Mapping[str, IMiddlewareFactory]:
        """
        What there is, by type.
        """
        return self.by_name

    @property
    def config_classes(self) -> dict[str, type]:
        """
        The configuration classes by type.
        """
        return {name: factory.config_class for name, factory in self.factories.items()}


def _fault_of(factory: IMiddlewareFactory) -> str:
    """
    Return why the configuration class of `factory` cannot be decoded; nothing if it can.
    """
    cls: Any = factory.config_class
    if not attrs.has(cls):
        return "is no attrs class"
    if getattr(cls, "type", None) != factory.type_name:
        return f"has the type {getattr(cls, 'type', None)!r}; both must say the same"
    fields = {field.name: field for field in attrs.fields(cls)}
    declared = {each.attribute for each in settings_of(cls)}
    if "name" not in fields or "name" in declared:
        return "has no `name: str = label()`"
    strange = [name for name, field in fields.items() if name not in declared and name != "name" and field.default is attrs.NOTHING]
    return f"has attributes that are not declared with `setting`: {', '.join(strange)}" if strange else ""


@cache
def find_catalog() -> Catalog:
    """
    Return the catalog of all built-in types and those of plugins, which are looked for once in the life of a process.
    """
    return Catalog.of(BUILT_IN, installed_dropins())
