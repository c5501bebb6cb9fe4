"""
The process from which workers are forked, and what a worker does with its life.

It is started by `workers.nursery`, which sends it one end of a pair of sockets for each worker that is wanted. It never runs a reactor and
has no threads, so that it can fork at any time. It ends when the gateway does; so do the workers, each by its own pair of sockets, whatever
becomes of this process. Signals that are sent to all processes of a group are for the gateway, which tells its workers what to do.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from functools import partial
from typing import Any

__all__ = ["main"]


def main() -> int:
    """
    Fork a worker for each socket that arrives on the descriptor in the first argument.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
        # Children that end are nobody's business here: the gateway notices.
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    _preload()
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 16, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return 0
        if not data:
            return 0
        for descriptor in descriptors:
            if os.fork() == 0:
                control.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # Not back through the loop above.
                os._exit(_live(socket.socket(fileno=descriptor)))
            os.close(descriptor)


def _preload() -> None:
    """
    Import what workers need, and keep the garbage collector from touching it: untouched memory stays shared.
    """
    from a3sgw.middleware.catalog import find_catalog
    from a3sgw.service.strategies import find_strategies

    __import__("a3sgw.carrier")
    __import__("a3sgw.workers.worker")
    find_catalog()
    find_strategies()
    gc.collect()
    gc.freeze()


def _live(sock: socket.socket) -> int:
    """
    Be a worker until there is nothing left to do.

    Datagrams are given to workers by the kernel, a client's always to the same, so each has a socket of its own for them.
    """
    from twisted.logger import globalLogBeginner

    from a3sgw.net.reactor import install

    install()
    from twisted.internet import reactor

    from a3sgw.assembly_parts import Crew
    from a3sgw.carrier import Carrier
    from a3sgw.net.channel import Channel
    from a3sgw.net.datagram import bind_datagrams
    from a3sgw.settled import SettledMemory
    from a3sgw.workers.events import EventTeller
    from a3sgw.workers.worker import Terms, Worker

    loop: Any = reactor

    def make_carrier(terms: Terms, control: Any, bind: Any) -> Carrier:
        announce = partial(worker.link.tell, "judged")
        crew = Crew(terms.sticky_key, terms.arena, announce, worker.post)
        return Carrier(loop, control, bind=bind, crew=crew, bind_datagrams=partial(bind_datagrams, shares=True))

    # What was forked is out of sight already, and is not to be looked at: that would make it this process's own.
    memory = SettledMemory(partial(loop.callLater, 0))
    worker = Worker(loop, make_carrier, memory.settle, lambda: loop.callWhenRunning(loop.stop))
    channel = Channel(sock, loop, worker.link.received, worker.link.frames_lost)
    worker.link.connect(channel)
    globalLogBeginner.beginLoggingTo(
        [EventTeller(lambda *event: worker.link.tell("event", *event))], redirectStandardIO=False
    )
    channel.start()
    worker.link.tell("hello", os.getpid())
    loop.run(installSignalHandlers=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
