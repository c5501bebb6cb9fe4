"""
Tell Twisted what we bring: `twistd a3s-gateway`, and the reactor that `--reactor=a3sgw` names.

This directory has no `__init__.py`, or it would hide Twisted's own.
"""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

gateway = ServiceMaker("A3S Gateway", "a3sgw.tap", "An API gateway and reverse proxy, configured in HCL.", "a3s-gateway")
reactor = Reactor("a3sgw", "a3sgw.net.reactor", "The epoll reactor on which A3S Gateway is fastest.")
