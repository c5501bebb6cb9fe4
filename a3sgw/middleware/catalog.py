"""
Every type of middleware there is: the gateway's own, in one tuple, and those of installed plugins.

A plugin provides `IMiddlewareFactory` under `a3sgw.plugins`, as plugins of Twisted do. Nobody registers anything by being imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs
from twisted.logger import Logger
from twisted.plugin import getPlugins

from a3sgw import plugins
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
)

__all__ = ["BUILT_IN", "Catalog", "find_catalog"]

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
    tcp_filter.factory,
    in_flight.factory,
    errors.factory,
    named_chain.factory,
)
"""In the order of the reference."""

_log = Logger()


class CatalogError(Exception):
    """
    Two plugins, or a plugin and the gateway, have a type of the same name, or a plugin's class cannot be a configuration.
    """


@attrs.frozen
class Catalog:
    """
    Factories by type.
    """

    factories: Mapping[str, IMiddlewareFactory]

    @classmethod
    def of(cls, factories: Iterable[IMiddlewareFactory]) -> Catalog:
        """
        Return the catalog of `factories`. Raises `CatalogError` for a name that is given twice.
        """
        found: dict[str, IMiddlewareFactory] = {}
        for factory in factories:
            other = found.setdefault(factory.type_name, factory)
            if other is not factory:
                raise CatalogError(
                    f'two factories provide the middleware type "{factory.type_name}": {other!r} and {factory!r}; uninstall one of them'
                )
            if not attrs.has(factory.config_class):
                raise CatalogError(f'the middleware type "{factory.type_name}" has a config_class that is no attrs class: {factory!r}')
        return cls(found)

    @property
    def config_classes(self) -> dict[str, type]:
        """
        The configuration classes by type.
        """
        return {name: factory.config_class for name, factory in self.factories.items()}


def find_catalog() -> Catalog:
    """
    Return the catalog of all built-in types and those of plugins that are installed now.
    """
    return Catalog.of([*BUILT_IN, *getPlugins(IMiddlewareFactory, plugins)])
