"""
Every type of provider that a configuration may name by `type`: those of installed plugins, which provide `IProviderFactory` under
`a3sgw.plugins`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from a3sgw.dropins import Dropins, Providers, gather, installed_dropins
from a3sgw.interfaces import IProvider, IProviderFactory

__all__ = ["ProviderFactory", "ProviderTypes", "find_provider_types", "provider_types_of"]

ProviderTypes = Providers[IProviderFactory]
"""Factories of providers by type."""


@implementer(IPlugin, IProviderFactory)
class ProviderFactory:
    """
    Makes `provider(config, reactor)` for each configured block of type `config_class.type`. Can be what a plugin module provides.
    """

    def __init__(self, config_class: Any, provider: Any) -> None:
        self.type_name: str = config_class.type
        self.config_class: type = config_class
        self._provider = provider

    def build(self, config: Any, reactor: Any) -> IProvider:
        """
        Return a new provider.
        """
        built: IProvider = self._provider(config, reactor)
        return built

    def __repr__(self) -> str:
        return f"<ProviderFactory {self.type_name}>"


def provider_types_of(dropins: Dropins) -> ProviderTypes:
    """
    Return the types of providers in `dropins`. Raises `CatalogError` for a type that is given twice.
    """
    return gather("provider type", (), dropins, IProviderFactory, lambda factory: factory.type_name)


@cache
def find_provider_types() -> ProviderTypes:
    """
    Return all types of providers, which are looked for once in the life of a process.
    """
    return provider_types_of(installed_dropins())
