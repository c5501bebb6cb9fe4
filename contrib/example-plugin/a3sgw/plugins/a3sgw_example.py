"""
Tell the gateway what this distribution brings: a type of middleware, a strategy and a type of provider.

Whatever provides `IPlugin` and an interface of the gateway here is found by that; the names of the variables mean nothing. The module is
imported by every gateway that starts, so it does nothing else. This folder has no `__init__.py`, or it would hide the gateway's own.
"""

from a3sgw_example.bursts import factory as bursts
from a3sgw_example.inventory import factory as inventory
from a3sgw_example.maintenance import factory as maintenance

__all__ = ["bursts", "inventory", "maintenance"]
