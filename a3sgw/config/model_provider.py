"""
Providers: where configuration comes from beside the main file.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from typing import Any

import attrs

from a3sgw.config.address import parse_listen_address
from a3sgw.config.kinds import FLAG, FOLDER, HOST, HTTP_URL, NAME, Integer, Text, Word
from a3sgw.config.setting import NamedKind, ObjectKind, ObjectListKind, label, setting
from a3sgw.config.values import FrozenMap

__all__ = [
    "DiscoveryProviderConfig",
    "DnsProviderConfig",
    "DockerProviderConfig",
    "FileProviderConfig",
    "KubernetesProviderConfig",
    "ProvidersConfig",
    "SeedConfig",
]

_INTERVAL = Integer(minimum=1, maximum=366 * 86400, unit="seconds")


def _check_docker_host(text: str) -> str:
    if text.startswith("/") or (text.startswith("unix:///") and len(text) > 8):
        return text
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("tcp", "http", "https"):
        raise ValueError("which is neither the path of a socket nor tcp://host:port nor http://host:port")
    try:
        host, _port = parse_listen_address(rest.rstrip("/"))
    except ValueError as error:
        raise ValueError(str(error)) from None
    if not host:
        raise ValueError("which names no host")
    return text


_ANY_TEXT = Text(may_be_empty=True)
_DOCKER_HOST = Text("the path of a socket, tcp://host:port or http://host:port", _check_docker_host)


@attrs.frozen(kw_only=True)
class FileProviderConfig:
    """
    Watch the configuration file, and a folder of more files, and reload when they change.
    """

    watch: bool = setting(FLAG, "Whether to watch.", default=True)
    directory: str | None = setting(FOLDER, "A folder whose `*.hcl` files belong to the configuration.", default=None)


@attrs.frozen(kw_only=True)
class SeedConfig:
    """
    One place to ask for services.
    """

    url: str = setting(HTTP_URL, "Its URL; `/.well-known/a3s-service.json` is put behind it.")


@attrs.frozen(kw_only=True)
class DiscoveryProviderConfig:
    """
    Ask servers what services they offer.
    """

    seeds: tuple[SeedConfig, ...] = setting(ObjectListKind(SeedConfig, min_items=1), "Whom to ask; at least one.")
    poll_interval_secs: int = setting(_INTERVAL, "The pause between two rounds.", default=30)
    timeout_secs: int = setting(_INTERVAL, "How long one answer may take.", default=5)


@attrs.frozen(kw_only=True)
class KubernetesProviderConfig:
    """
    Read Ingress resources, and IngressRoutes if asked to, from a Kubernetes cluster.
    """

    namespace: str = setting(_ANY_TEXT, "The namespace; empty means all.", default="")
    label_selector: str = setting(_ANY_TEXT, "Only resources with these labels.", default="")
    watch_interval_secs: int = setting(_INTERVAL, "How often everything is listed anew.", default=30)
    ingress_route_crd: bool = setting(FLAG, "Whether IngressRoute resources are read too.", default=False)


@attrs.frozen(kw_only=True)
class DockerProviderConfig:
    """
    Read the labels of running containers.
    """

    host: str = setting(
        _DOCKER_HOST, "Where Docker is: a socket's path, `tcp://host:port` or `http://host:port`.", default="/var/run/docker.sock"
    )
    label_prefix: str = setting(NAME, "What the labels begin with.", default="a3s")
    poll_interval_secs: int = setting(_INTERVAL, "The pause between two looks.", default=10)


@attrs.frozen(kw_only=True)
class DnsProviderConfig:
    """
    Take the servers of the service that is the label from the DNS.
    """

    name: str = label()
    hostname: str = setting(HOST, "The name to look up.")
    port: int = setting(Integer(minimum=1, maximum=65535), "The port of every server; SRV records bring their own.", default=80)
    scheme: str = setting(Word(("http", "https", "h2c", "tcp", "udp")), "What the servers speak.", default="http")
    refresh_interval_secs: int = setting(_INTERVAL, "How often to look at least.", default=30)
    record: str = setting(Word(("A", "SRV")), "Which records: `A` means addresses of both kinds.", default="A")


@attrs.frozen(kw_only=True)
class ProvidersConfig:
    """
    Where configuration comes from beside the main file. Several providers may be used together.
    """

    file: FileProviderConfig | None = setting(ObjectKind(FileProviderConfig), "Files.", default=None)
    discovery: DiscoveryProviderConfig | None = setting(
        ObjectKind(DiscoveryProviderConfig), "Servers that describe themselves.", default=None, runs=False
    )
    kubernetes: KubernetesProviderConfig | None = setting(ObjectKind(KubernetesProviderConfig), "Kubernetes.", default=None, runs=False)
    docker: DockerProviderConfig | None = setting(ObjectKind(DockerProviderConfig), "Docker.", default=None, runs=False)
    dns: FrozenMap[str, DnsProviderConfig] = setting(
        NamedKind("dns provider", DnsProviderConfig), "The DNS; the label is the service's name.", default=FrozenMap(), runs=False
    )
    plugin: FrozenMap[str, Any] = setting(
        NamedKind("provider", is_typed=True), "Sources that plugins bring; `type` says which.", default=FrozenMap()
    )
