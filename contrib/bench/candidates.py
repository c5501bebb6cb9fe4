"""
The gateway and its peers: how each is configured for the same duty.

The duty: one process or thread that works, any number of idle upstream connections, an access log of every request, forwarded headers
added, and each host route found in the fastest way the peer offers. Where the peers cannot be made alike, README.md says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cases import HOST, route_host
from .processes import find_program
from .tls import Certificate
from .variations import PLAIN, Variation

__all__ = ["Caddy", "Candidate", "Direct", "Gateway", "HAProxy", "Launch", "Nginx", "Plan", "TwistedWeb", "candidates"]

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """
    What a candidate is to be configured for. `routes` is the number of host routes, 0 for the single one of `HOST`; `connections` is how
    many clients may be there at once. `certificate` is what to show on the port, or `None` for plain HTTP.
    """

    directory: Path
    port: int
    upstream_port: int
    connections: int
    routes: int = 0
    certificate: Certificate | None = None

    @property
    def hosts(self) -> list[str]:
        return [route_host(number) for number in range(self.routes)] or [HOST]

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Launch:
    """
    How to start a candidate. `access_log` is the file that must have grown when it has served; `None` if it keeps none.
    """

    argv: Sequence[str]
    access_log: Path | None
    env: dict[str, str] = field(default_factory=dict)
    stdout: Path | None = None


class Candidate:
    """
    One that is measured. Subclasses say how they are found, what they are, and how they are started.
    """

    name = ""
    variation = PLAIN
    routes = True
    """Whether it chooses by host; one that does not is left out of the cases with many routes."""
    encrypts = True
    """Whether it speaks TLS; one that does not is left out of those cases."""

    def missing(self) -> str | None:
        """
        Return why it cannot be measured here, or `None`.
        """
        return None if find_program(self.name) else "not installed"

    def version(self) -> str:
        raise NotImplementedError

    def launch(self, plan: Plan) -> Launch | None:
        """
        Write the configuration and return how to start; `None` for one without a process.
        """
        raise NotImplementedError

    def program(self) -> str:
        return find_program(self.name) or self.name


class Direct(Candidate):
    """
    No proxy at all: what the upstream and the load generator can do by themselves.
    """

    name = "direct"
    routes = False
    encrypts = False

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "no proxy"

    def launch(self, plan: Plan) -> Launch | None:
        return None


class Gateway(Candidate):
    """
    This gateway, or another command that takes its configuration.

    `command` may hold `{config}`, `{port}`, `{upstream}` and `{log}`; one that holds none of the first two gets `--config FILE` at its end.
    Every router lists the middlewares of `variation`. `workers` is what the configuration asks for.
    """

    def __init__(self, name: str = "a3sgw", command: str | None = None, variation: Variation = PLAIN, workers: int = 1) -> None:
        self.workers = workers
        self.name = name
        self.variation = variation
        self._command = command

    def _argv(self) -> list[str]:
        if self._command is not None:
            return shlex.split(self._command)
        # The checkout we stand in, not what may be installed elsewhere.
        return [sys.executable, "-m", "a3sgw.cli"]

    def missing(self) -> str | None:
        if self._command is None and importlib.util.find_spec("a3sgw.cli") is None:
            return "this checkout has no a3sgw.cli"
        return None if find_program(self._argv()[0]) else f"{self._argv()[0]} not found"

    def version(self) -> str:
        if self._command is not None:
            return f"command: {self._command}"
        described = _output(["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"])
        return f"{described or 'unknown revision'}, Python {sys.version.split()[0]}"

    def launch(self, plan: Plan) -> Launch | None:
        log = plan.directory / f"{self.name}.access"
        listed = f"  middlewares = {self.variation.listed}\n" if self.variation.blocks else ""
        routers = "\n".join(
            f'routers "r{number}" {{\n  rule    = "Host(`{host}`)"\n  service = "upstream"\n{listed}}}'
            for number, host in enumerate(plan.hosts)
        )
        certificate = plan.certificate
        tls = f'  tls {{\n    cert_file = "{certificate.cert}"\n    key_file  = "{certificate.key}"\n  }}\n' if certificate else ""
        config = plan.write(
            f"{self.name}.hcl",
            f"""
{f"workers = {self.workers}" if self.workers > 1 else ""}
entrypoints "web" {{
  address = "127.0.0.1:{plan.port}"
{tls}}}
{routers}
{self.variation.middlewares(plan.directory)}
services "upstream" {{
  load_balancer {{
    servers = [{{ url = "http://127.0.0.1:{plan.upstream_port}" }}]
  }}
}}
observability {{
  access_log {{
    file = "{log}"
  }}
}}
""",
        )
        argv = self._argv()
        places = {"{config}": str(config), "{port}": str(plan.port), "{upstream}": str(plan.upstream_port), "{log}": str(log)}
        takes_config = any("{config}" in part for part in argv)
        if not takes_config and not any("{port}" in part for part in argv):
            argv = [*argv, "--config", "{config}"]
            takes_config = True
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        env = {"PYTHONPATH": path} if self._command is None else {}
        for place, value in places.items():
            argv = [part.replace(place, value) for part in argv]
        return Launch(argv, log if takes_config else None, env)


class Nginx(Candidate):
    name = "nginx"

    def version(self) -> str:
        return _version_in(_output([self.program(), "-v"]))

    def launch(self, plan: Plan) -> Launch | None:
        log = plan.directory / "nginx.access"
        # It reserves memory for each of them, and one client takes two.
        most = 2 * plan.connections + 512
        tls, http2, shown = "", "", ""
        if plan.certificate is not None:
            tls, http2 = " ssl", " http2"
            shown = f"    ssl_certificate {plan.certificate.cert};\n    ssl_certificate_key {plan.certificate.key};\n"
            shown += "    ssl_protocols TLSv1.2 TLSv1.3;\n    http2_max_requests 10000000;\n"
        servers = "\n".join(
            f"    server {{ listen 127.0.0.1:{plan.port}{tls}{http2}; server_name {host}; location / {{ proxy_pass http://upstream; }} }}"
            for host in plan.hosts
        )
        config = plan.write(
            "nginx.conf",
            f"""
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
worker_rlimit_nofile {most + 128};
pid {plan.directory}/nginx.pid;
error_log {plan.directory}/nginx.errors warn;
events {{ worker_connections {most}; }}
http {{
    access_log {log} combined buffer=64k flush=1s;
    keepalive_timeout 1h;
    keepalive_requests 10000000;
    server_names_hash_max_size 65536;
    server_names_hash_bucket_size 128;
    # A response of 64 KiB fits into memory; by default nginx would put a part of it on disk.
    proxy_buffers 16 8k;
    client_body_temp_path {plan.directory}/nginx.body;
    proxy_temp_path {plan.directory}/nginx.proxy;
    fastcgi_temp_path {plan.directory}/nginx.fastcgi;
    uwsgi_temp_path {plan.directory}/nginx.uwsgi;
    scgi_temp_path {plan.directory}/nginx.scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    upstream upstream {{
        server 127.0.0.1:{plan.upstream_port};
        keepalive 256;
        keepalive_requests 10000000;
        keepalive_timeout 1h;
    }}
{shown}    server {{ listen 127.0.0.1:{plan.port}{tls}{http2} default_server backlog=4096; return 404; }}
{servers}
}}
""",
        )
        return Launch([self.program(), "-c", str(config), "-p", str(plan.directory)], log)


class HAProxy(Candidate):
    name = "haproxy"

    def version(self) -> str:
        return _version_in(_output([self.program(), "-v"]))

    def launch(self, plan: Plan) -> Launch | None:
        tls = f" ssl crt {plan.certificate.both} alpn h2,http/1.1" if plan.certificate else ""
        proto = "https" if plan.certificate else "http"
        routes = plan.write("haproxy.map", "".join(f"{host} upstream\n" for host in plan.hosts))
        config = plan.write(
            "haproxy.cfg",
            f"""
global
    nbthread 1
    # Far more than there are: it closes idle connections to the upstream as soon as a fifth of its files is in use.
    maxconn {plan.connections + 4096}
    # It wants two files for each connection and would not start without; the idle ones never need the second.
    no strict-limits
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
frontend web
    bind 127.0.0.1:{plan.port}{tls} backlog 4096
    http-request set-header X-Forwarded-Proto {proto}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-var(txn.backend) req.hdr(host),field(1,:),lower,map_str({routes})
    http-request return status 404 unless {{ var(txn.backend) -m found }}
    use_backend %[var(txn.backend)]
backend upstream
    server one 127.0.0.1:{plan.upstream_port}
""",
        )
        log = plan.directory / "haproxy.access"
        # It has no log file of its own: what it would send to syslog goes to its standard output, which is a file here.
        return Launch([self.program(), "-db", "-f", str(config)], log, stdout=log)


class Caddy(Candidate):
    name = "caddy"

    def version(self) -> str:
        return _version_in(_output([self.program(), "version"]))

    def launch(self, plan: Plan) -> Launch | None:
        log = plan.directory / "caddy.access"
        access = {"writer": {"output": "file", "filename": str(log), "roll": False}, "include": ["http.log.access.access"]}
        proxy = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"127.0.0.1:{plan.upstream_port}"}],
            "transport": {"protocol": "http", "keep_alive": {"idle_timeout": "1h", "max_idle_conns_per_host": 256}},
        }
        server: dict[str, Any] = {
            "listen": [f"127.0.0.1:{plan.port}"],
            "automatic_https": {"disable": True},
            "logs": {"default_logger_name": "access"},
            "routes": [{"match": [{"host": plan.hosts}], "handle": [proxy], "terminal": True}],
        }
        apps: dict[str, Any] = {"http": {"servers": {"bench": server}}}
        if plan.certificate is not None:
            # wrk names no host.
            server["tls_connection_policies"] = [{"default_sni": HOST, "fallback_sni": HOST}]
            files = {"certificate": str(plan.certificate.cert), "key": str(plan.certificate.key)}
            apps["tls"] = {"certificates": {"load_files": [files]}}
        # Not its Caddyfile, which would also enter each host into a table of loggers.
        config = {
            "admin": {"disabled": True, "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "WARN", "exclude": ["http.log.access"]}, "access": access}},
            "apps": apps,
        }
        path = plan.write("caddy.json", json.dumps(config))
        env = {"GOMAXPROCS": "1", "HOME": str(plan.directory), "XDG_DATA_HOME": str(plan.directory), "XDG_CONFIG_HOME": str(plan.directory)}
        return Launch([self.program(), "run", "--config", str(path)], log, env)


class TwistedWeb(Candidate):
    name = "twisted.web"
    routes = False
    encrypts = False

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("twisted") else "not installed"

    def version(self) -> str:
        import twisted

        return twisted.__version__

    def launch(self, plan: Plan) -> Launch | None:
        log = plan.directory / "twisted.access"
        script = str(Path(__file__).with_name("twisted_peer.py"))
        return Launch([sys.executable, script, str(plan.port), str(plan.upstream_port), str(log)], log)


def candidates(also: Sequence[str] = ()) -> dict[str, Candidate]:
    """
    Return all candidates in the order they take turns. `also` holds `NAME=COMMAND` of further gateways.
    """
    split = [entry.split("=", 1) for entry in also]
    extra = [Gateway(name.strip(), command.strip()) for name, command in split]
    everyone = [Gateway(), *extra, Nginx(), HAProxy(), Caddy(), TwistedWeb(), Direct()]
    return {candidate.name: candidate for candidate in everyone}


def _version_in(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+[^\s]*", text)
    return found[0] if found else "unknown version"


def _output(argv: Sequence[str]) -> str:
    """
    Return what a command prints, or nothing if it fails: a version is worth no failure.
    """
    try:
        result = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip().splitlines()[0] if result.stdout.strip() else ""
