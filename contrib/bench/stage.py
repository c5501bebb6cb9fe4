"""
Set the stage: the upstream and all candidates of one set of routes, running side by side.

All of them stay up through all rounds of the stage's cases. An idle candidate costs its neighbours nothing worth counting, and one that
was restarted for each measurement would be measured cold.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .candidates import Candidate, Plan
from .check import Target
from .processes import Child, Cores, VoidRunError, free_port
from .tls import make_certificate
from .upstream import Upstream

__all__ = ["Stage", "set_stage"]


@dataclass
class Stage:
    """
    What runs. `connections` is the number of clients the candidates were configured for.
    """

    upstream: Upstream
    targets: list[Target]
    connections: int

    def check_access_logs(self) -> None:
        """
        Raise `VoidRunError` if a candidate that should keep an access log wrote none: it would be measured with less to do.
        """
        for target in self.targets:
            if target.access_log is not None and not (target.access_log.exists() and target.access_log.stat().st_size):
                raise VoidRunError(f"{target.name} wrote no access log to {target.access_log.name}, so it was not measured on equal terms.")

    def cut_access_logs(self) -> None:
        """
        Cut the access logs back to nothing; at these rates they would fill a disk.
        """
        for target in self.targets:
            if target.access_log is not None and target.access_log.exists():
                os.truncate(target.access_log, 0)


@contextmanager
def set_stage(
    chosen: Iterable[Candidate], directory: Path, cores: Cores, *, files: int, connections: int, routes: int = 0, tls: bool = False
) -> Iterator[Stage]:
    """
    Start the upstream and the candidates in a new directory; end them all on the way out, whatever happened.
    """
    directory.mkdir()
    with ExitStack() as stack:
        upstream = Upstream.start(stack, directory, cores.upstream, files)
        targets = []
        certificate = make_certificate(directory) if tls else None
        for candidate in chosen:
            plan = Plan(directory, free_port(), upstream.port, connections, routes, certificate)
            launch = candidate.launch(plan)
            if launch is None:
                targets.append(Target(candidate.name, upstream.port, None, None, forwarded=False, routed=False))
                continue
            log = directory / f"{candidate.name}.log"
            child = Child(candidate.name, launch.argv, cores.proxy, log, env=launch.env, stdout=launch.stdout)
            stack.callback(child.stop)
            target = Target(candidate.name, plan.port, child, launch.access_log, forwarded=True, routed=candidate.routes)
            target.variation = candidate.variation
            target.tls = tls
            targets.append(target)
        # They start at the same time, and are waited for together: ten thousand routes take some of them a while.
        for target in targets:
            if target.child is not None:
                target.child.wait_listening(target.port, 180.0)
        yield Stage(upstream, targets, connections)
