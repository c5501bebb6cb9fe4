"""
The plain factory: a configuration class and the class it configures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from a3sgw.interfaces import IMiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings

__all__ = ["MiddlewareFactory"]


@implementer(IPlugin, IMiddlewareFactory)
class MiddlewareFactory:
    """
    Builds `middleware(config, surroundings)` for each configured block of type `config_class.type`. Can be what a plugin module provides.
    """

    def __init__(self, config_class: Any, middleware: Callable[[Any, Surroundings], Any]) -> None:
        self.type_name: str = config_class.type
        self.config_class: type = config_class
        self._middleware = middleware

    def build(self, config: Any, surroundings: Surroundings) -> Any:
        """
        Return a new middleware.
        """
        return self._middleware(config, surroundings)

    def __repr__(self) -> str:
        return f"<MiddlewareFactory {self.type_name}>"
