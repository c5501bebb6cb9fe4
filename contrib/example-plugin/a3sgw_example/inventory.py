"""
A provider: services and routers from a file in which another program keeps what is there.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FILE, Integer
from a3sgw.config.model import FrozenMap, GatewayConfig, LoadBalancerConfig, RouterConfig, ServerConfig, ServiceConfig
from a3sgw.config.setting import label, setting
from a3sgw.interfaces import IConfigSink, IProvider
from a3sgw.provider.catalog import ProviderFactory

__all__ = ["Inventory", "InventoryConfig", "factory"]


@attrs.frozen(kw_only=True)
class InventoryConfig:
    """
    Serve each service of an inventory under its name: `{"carts": ["http://10.0.0.5:8080"]}` answers `/carts`.
    """

    type: ClassVar[str] = "example-inventory"

    name: str = label()
    file: str = setting(FILE, "The inventory, as JSON: names of services, each with a list of URLs.")
    interval_secs: int = setting(Integer(minimum=1, maximum=3600, unit="seconds"), "How often it is read.", default=2)


@implementer(IProvider)
class Inventory:
    """
    Reads the file now and then, and offers what it says.
    """

    def __init__(self, config: InventoryConfig, reactor: Any) -> None:
        self._config = config
        self._reactor = reactor
        self._sink: Any = None
        self._call: Any = None

    def start(self, sink: IConfigSink) -> None:
        """
        Read the file, and again after a while.
        """
        self._sink = sink
        self._read()

    def stop(self) -> None:
        """
        Read no more.
        """
        self._call.cancel()

    def _read(self) -> None:
        self._call = self._reactor.callLater(self._config.interval_secs, self._read)
        try:
            with open(self._config.file, encoding="utf-8") as stream:
                offer = offer_of(json.load(stream))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            self._sink.failed(f"{self._config.file}: {error}")
        else:
            self._sink.offer(offer)


def offer_of(inventory: dict[str, list[str]]) -> GatewayConfig:
    """
    Return routers and services for an inventory.
    """
    services = {}
    routers = {}
    for name, urls in inventory.items():
        servers = tuple(ServerConfig(url=url) for url in urls)
        services[name] = ServiceConfig(name=name, load_balancer=LoadBalancerConfig(servers=servers))
        routers[name] = RouterConfig(name=name, rule=f"PathPrefix(`/{name}`)", service=name)
    return GatewayConfig(routers=FrozenMap(routers), services=FrozenMap(services))


factory = ProviderFactory(InventoryConfig, Inventory)
