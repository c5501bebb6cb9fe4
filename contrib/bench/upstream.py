"""
The upstream of all candidates: one nginx that answers at once, and that tells what it was asked.

Every response bears an `X-Response-Id` that never repeats. A request with `X-Verify` is entered into an account, from which the checks
learn what came through a proxy: target, host, forwarded address and body. A body is read whole before it is answered: the request is
mirrored to a location that does nothing, because an nginx that answers by `return` would answer before it has read.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .cases import LARGE_BODY, SMALL_BODY
from .processes import Child, VoidRunError, free_port, require_program

__all__ = ["Upstream", "upstream_program"]

_CONFIG = """
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {directory}/upstream.pid;
error_log {directory}/upstream.errors warn;
events {{ worker_connections {connections}; }}
http {{
    map $http_x_verify $verified {{ default 1; "" 0; }}
    log_format account escape=json '{{"id":"$http_x_verify","method":"$request_method","target":"$request_uri","host":"$http_host",'
        '"forwarded_for":"$http_x_forwarded_for","body":"$request_body"}}';
    access_log {directory}/upstream.account account if=$verified;
    default_type application/json;
    keepalive_requests 10000000;
    keepalive_timeout 1h;
    client_body_buffer_size 64k;
    client_body_in_single_buffer on;
    client_body_temp_path {directory}/upstream.body;
    proxy_temp_path {directory}/upstream.proxy;
    fastcgi_temp_path {directory}/upstream.fastcgi;
    uwsgi_temp_path {directory}/upstream.uwsgi;
    scgi_temp_path {directory}/upstream.scgi;
    open_file_cache max=16 inactive=1h;
    open_file_cache_valid 1h;
    etag off;
    sendfile on;
    tcp_nopush on;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {directory}/www;
        add_header X-Response-Id $request_id always;
        location / {{ return 200 '{body}'; }}
        location /static/ {{ }}
        location = /post {{ mirror /drain; error_page 405 =200 @posted; }}
        location @posted {{ return 200 '{body}'; }}
        location = /drain {{ internal; return 204; }}
        location = /upstream-status {{ stub_status; }}
    }}
}}
"""


def upstream_program() -> str:
    """
    Return the path of nginx. Raises `BenchError`.
    """
    return require_program("nginx", "as the upstream", "nginx-light")


class Upstream:
    """
    The running upstream, reached at `port`.
    """

    def __init__(self, directory: Path, core: int, files: int) -> None:
        self.port = free_port()
        self._asked = 0
        self._account = directory / "upstream.account"
        www = directory / "www"
        (www / "static").mkdir(parents=True)
        (www / "static" / "64k.bin").write_bytes(LARGE_BODY)
        (www / "post").touch()
        config = directory / "upstream.conf"
        connections = max(64, files - 64)
        config.write_text(
            _CONFIG.format(
                # nginx drops its privileges to an account that may not read our directory, unless told otherwise.
                user="user root;" if os.geteuid() == 0 else "",
                directory=directory,
                port=self.port,
                files=files,
                connections=connections,
                body=SMALL_BODY.decode(),
            )
        )
        program = upstream_program()
        self._child = Child("upstream", [program, "-c", str(config), "-p", str(directory)], core, directory / "upstream.log")

    @classmethod
    def start(cls, stack: ExitStack, directory: Path, core: int, files: int) -> Upstream:
        """
        Start the upstream; it lives as long as `stack`.
        """
        upstream = cls(directory, core, files)
        stack.callback(upstream._child.stop)
        upstream._child.wait_listening(upstream.port)
        return upstream

    def counts(self) -> tuple[int, int]:
        """
        Return how many connections and requests came in so far, such questions as this not counted.
        """
        self._child.check_alive()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/upstream-status", timeout=10) as response:
            lines = response.read().decode().splitlines()
        self._asked += 1
        connections, _, requests = (int(count) - self._asked for count in lines[2].split())
        return connections, requests

    def account_of(self, verify_id: str) -> dict[str, Any]:
        """
        Return what the upstream saw of the request with that `X-Verify`. It is written after the response, so it may take a moment.
        """
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            for line in self._account.read_text().splitlines():
                # A line that is still being written ends early; the next look finds it whole.
                if f'"id":"{verify_id}"' in line and line.endswith("}"):
                    account: dict[str, Any] = json.loads(line)
                    return account
            time.sleep(0.01)
        raise VoidRunError(f"The upstream never saw a request with X-Verify: {verify_id}; somebody else answered, or the header was lost.")
