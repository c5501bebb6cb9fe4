"""
Find the configuration that a command line means: which file, and what the command line changes in it.

A file that was named must be there, and so must the default one: a gateway that came up empty because of a typing error would be worse
than none. Only `--listen` alone starts a gateway without a file; it has the entrypoint `web` and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import attrs

from a3sgw.config.address import parse_listen_address
from a3sgw.config.decode import Positions
from a3sgw.config.load import Loaded
from a3sgw.config.model import EntrypointConfig, GatewayConfig
from a3sgw.loading import Memory, load

__all__ = ["DEFAULT_PATH", "Source", "SourceError", "check_listen", "find_source", "with_listen"]

DEFAULT_PATH = "gateway.hcl"
"""The file that is read when none is named, in the working directory."""

_LISTEN_ENTRYPOINT = "web"


class SourceError(Exception):
    """
    The command line names no usable configuration. The text says why and what to do.
    """


@attrs.frozen
class Source:
    """
    `path` is the configuration file, or `None` if there is none; `listen` is the address for the entrypoint `web`, or `None`. `memory` is
    what the files last said that was good.
    """

    path: str | None
    listen: str | None
    environ: Mapping[str, str]
    memory: Memory = attrs.field(factory=Memory, eq=False, repr=False)

    def load(self) -> Loaded:
        """
        Read the configuration as it stands now. Reads files and nothing else, so it may run in a thread; only one at a time. Of a file that
        is broken, what it last said that was good counts.
        """
        if self.path is None:
            assert self.listen is not None
            return Loaded(with_listen(GatewayConfig(), self.listen), (), (), Positions())
        return load(self.path, self.environ, memory=self.memory, amend=self._amend)

    def _amend(self, config: GatewayConfig) -> GatewayConfig:
        return config if self.listen is None else with_listen(config, self.listen)

    def reloader(self) -> Callable[[], Loaded] | None:
        """
        Return what reads the configuration again, or `None` if there is no file to read.
        """
        return None if self.path is None else self.load


def find_source(config: str | None, listen: str | None, environ: Mapping[str, str]) -> Source:
    """
    Return the source that `--config` and `--listen` mean; either may be `None`.
    """
    if listen is not None:
        check_listen(listen)
    if config is not None:
        if not os.path.exists(config):
            raise SourceError(f"{config}: there is no such file; --config must name an existing one")
        return Source(config, listen, environ)
    if os.path.exists(DEFAULT_PATH):
        return Source(DEFAULT_PATH, listen, environ)
    if listen is None:
        raise SourceError(
            f"{DEFAULT_PATH}: there is no such file in {os.getcwd()}; name a configuration with --config FILE, "
            "or start an empty gateway with --listen ADDRESS, or see one at work with `a3s-gateway demo`"
        )
    return Source(None, listen, environ)


def check_listen(address: str) -> None:
    """
    Raise `SourceError` if `address` is not one that can be listened on.
    """
    try:
        parse_listen_address(address)
    except ValueError as error:
        raise SourceError(f'--listen expects host:port, such as 127.0.0.1:8080, but is given "{address}", {error}') from None


def with_listen(config: GatewayConfig, address: str) -> GatewayConfig:
    """
    Return `config` with the entrypoint `web` at `address`. Whatever else is set for it stays; if there is none, it is a plain HTTP one.
    """
    present = config.entrypoints.get(_LISTEN_ENTRYPOINT)
    if present is None:
        web = EntrypointConfig(name=_LISTEN_ENTRYPOINT, address=address)
    else:
        web = attrs.evolve(present, address=address)
    return attrs.evolve(config, entrypoints=config.entrypoints.updated({_LISTEN_ENTRYPOINT: web}))
