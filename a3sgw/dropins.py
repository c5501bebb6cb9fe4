"""
Find what other distributions bring: modules in `a3sgw.plugins` with objects that provide `IPlugin` and an interface of ours.

This keeps the convention of `twisted.plugin`, and `getPlugins` finds the same. It does not call it, because of two things that an operator
would have to put up with: a module that cannot be imported is only logged there, while here it is known and can be told by `validate`; and
`getPlugins` keeps a cache beside the modules, which most gateways may not write.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit

import attrs
from twisted.plugin import IPlugin
from zope.interface import Interface

from a3sgw import plugins
from a3sgw.errors import AssemblyError

__all__ = [
    "NO_DROPINS",
    "CatalogError",
    "Dropins",
    "Fault",
    "Plugin",
    "Providers",
    "described",
    "distribution_of",
    "find_dropins",
    "gather",
    "installed_dropins",
]

T = TypeVar("T")


@attrs.frozen
class Fault:
    """
    A plugin module, the file it stands in, and why it gives nothing: `reason` continues the sentence that begins with the module.
    """

    module: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{_place(self.module, self.path)} {self.reason}"


@attrs.frozen
class Plugin:
    """
    One object that a plugin module provides, and where it comes from.
    """

    provider: Any
    module: str
    path: str

    def __str__(self) -> str:
        return _place(self.module, self.path)


@attrs.frozen
class Dropins:
    """
    The plugin modules of one package: those that were imported, with their files, and those that could not be.
    """

    modules: tuple[tuple[ModuleType, str], ...] = ()
    faults: tuple[Fault, ...] = ()

    def providing(self, interface: type[Interface]) -> tuple[list[Plugin], list[Fault]]:
        """
        Return the plugins that provide `interface`, by module and in its order, and what would have been one.
        """
        found: list[Plugin] = []
        faults: list[Fault] = []
        for module, path in self.modules:
            for name, value in list(vars(module).items()):
                if not interface.providedBy(value) or any(value is other.provider for other in found):
                    continue
                if IPlugin.providedBy(value):
                    found.append(Plugin(value, module.__name__, path))
                else:
                    reason = f"has {name}, which provides {interface.__name__} but not twisted.plugin.IPlugin, so it is left out"
                    faults.append(Fault(module.__name__, path, reason))
        return found, faults


NO_DROPINS = Dropins()


def find_dropins(package: ModuleType = plugins) -> Dropins:
    """
    Import every module of `package`. One that raises is a fault; whatever it raises, the others are imported all the same.
    """
    modules: list[tuple[ModuleType, str]] = []
    faults: list[Fault] = []
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        name = f"{package.__name__}.{found.name}"
        spec = found.module_finder.find_spec(found.name, None)
        path = spec.origin if spec is not None and spec.origin is not None else name
        try:
            modules.append((importlib.import_module(name), path))
        except (Exception, SystemExit) as error:
            faults.append(Fault(name, path, f"cannot be imported: {_told(error)}"))
    return Dropins(tuple(modules), tuple(faults))


@cache
def installed_dropins() -> Dropins:
    """
    Return what is installed. It is looked for once in the life of a process, because a module that was imported is not replaced.
    """
    return find_dropins()


def _place(module: str, path: str) -> str:
    owner = distribution_of(path)
    return f"the plugin module {module} ({f'of {owner}, ' if owner else ''}{path})"


def _told(error: BaseException) -> str:
    """
    Return what was raised and where, on one line.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if len(frames) > 1 else ""
    return " ".join(f"{type(error).__name__}: {error}{where}".split())


# -- all of a kind --------------------------------------------------------------------------------------------------------------------


class CatalogError(AssemblyError):
    """
    Two plugins, or a plugin and the gateway, have something of the same name, or what a plugin brings cannot be what it says it is.
    """


@attrs.frozen
class Providers(Generic[T]):
    """
    Everything of one kind by name. `plugins` are those of them that plugins brought, `faults` the plugins that could not be used.
    """

    by_name: Mapping[str, T]
    plugins: Mapping[str, Plugin] = attrs.field(factory=dict)
    faults: tuple[Fault, ...] = ()

    def origin(self, name: str) -> str:
        """
        Return where something comes from: `built in`, or the distribution that brought it, or else the file.
        """
        plugin = self.plugins.get(name)
        return "built in" if plugin is None else distribution_of(plugin.path) or plugin.path

    def describe(self, name: str) -> str:
        """
        Return which provider it is that has a name, and whose.
        """
        return described(self.by_name[name], self.plugins.get(name))

    def explain_missing(self) -> str:
        """
        Return what to add when a name is not known: nothing, or which plugins may have had it.
        """
        return f"; it may be that of a plugin: {'; '.join(map(str, self.faults))}" if self.faults else ""


def gather(what: str, own: Iterable[T], dropins: Dropins, interface: type[Interface], name_of: Callable[[T], str]) -> Providers[T]:
    """
    Return the gateway's `own` providers of `interface` and those of plugins. Raises `CatalogError` for a name that is given twice; `what`
    is what it names.
    """
    brought, faults = dropins.providing(interface)
    found: dict[str, T] = {}
    plugins: dict[str, Plugin] = {}
    ours: list[tuple[T, Plugin | None]] = [(each, None) for each in own]
    for provider, plugin in [*ours, *((each.provider, each) for each in brought)]:
        name = name_of(provider)
        if name not in found:
            found[name] = provider
            if plugin is not None:
                plugins[name] = plugin
        elif found[name] is not provider:
            both = f"{described(found[name], plugins.get(name))} and {described(provider, plugin)}"
            raise CatalogError(f'two factories provide the {what} "{name}": {both}; uninstall one of them')
    return Providers(found, plugins, (*dropins.faults, *faults))


def described(provider: object, plugin: Plugin | None) -> str:
    """
    Return how a problem names a provider.
    """
    return f"{provider!r} of the gateway itself" if plugin is None else f"{provider!r} in {plugin}"


# -- where they come from -------------------------------------------------------------------------------------------------------------


def distribution_of(path: str) -> str:
    """
    Return name and version of the distribution that brought the file at `path`; nothing if none says so.
    """
    best, owner = 0, ""
    for each in distributions():
        claim = _claim(each, Path(path))
        if claim > best:
            best, owner = claim, f"{each.metadata['Name']} {each.version}"
    return owner


def _claim(distribution: Distribution, path: Path) -> int:
    """
    Return how good a claim to a file is. Of two editable installs, one in the other, the inner one has the better.
    """
    if any(file.name == path.name and Path(str(distribution.locate_file(file))) == path for file in distribution.files or ()):
        return 1 << 16
    return max((len(folder.parts) for folder in _editable_folders(distribution) if path.is_relative_to(folder)), default=0)


def _editable_folders(distribution: Distribution) -> Iterator[Path]:
    """
    Give the folder from which a distribution is used in place, if it is (PEP 610).
    """
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        yield Path(unquote(urlsplit(origin["url"]).path))
