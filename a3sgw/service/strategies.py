"""
Every strategy there is: the gateway's own, and those of installed plugins, which provide `IBalancerFactory` under `a3sgw.plugins`.
"""

from __future__ import annotations

from functools import cache

from a3sgw.dropins import Dropins, Providers, gather, installed_dropins
from a3sgw.interfaces import IBalancerFactory
from a3sgw.service.balance import STRATEGIES

__all__ = ["Strategies", "find_strategies", "strategies_of"]

Strategies = Providers[IBalancerFactory]
"""Factories of balancers by the name in `strategy = "…"`."""


def strategies_of(dropins: Dropins) -> Strategies:
    """
    Return the gateway's own strategies and those in `dropins`. Raises `CatalogError` for a name that is given twice.
    """
    return gather("strategy", STRATEGIES.values(), dropins, IBalancerFactory, lambda factory: factory.strategy)


@cache
def find_strategies() -> Strategies:
    """
    Return all strategies, of which those of plugins are looked for once in the life of a process.
    """
    return strategies_of(installed_dropins())
