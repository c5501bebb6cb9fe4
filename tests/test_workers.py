"""
Several processes that carry the traffic of one gateway.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.setting import OwnGatewayCase, metric, metrics, read_records, service
from tests.support import PATIENCE, GatewayProcess, accepts, fetch, free_port, wait_until
from tests.wire import Client


def children_of(pid: int) -> list[int]:
    """
    Return the processes that `pid` has begun.
    """
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_alive(pid: int) -> bool:
    """
    Tell whether a process runs; one that has only not been waited for does not.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Load:
    """
    Clients that ask for `/` again and again until `stop`; what became of each request is counted.
    """

    def __init__(self, port: int, clients: int = 6, reconnects: bool = True) -> None:
        self.outcomes: Counter[str] = Counter()
        self.served = 0
        self._port = port
        self._reconnects = reconnects
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """
        Let every client end.
        """
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self, number: int) -> None:
        client = None
        while not self._stopped.is_set():
            try:
                if client is None:
                    client = Client(self._port)
                answer = client.fetch("/")
                word = f"{answer.status} {answer.body.decode()}"
                if answer.get("connection") == "close" or (self._reconnects and number % 2):
                    client.close()
                    client = None
            except (OSError, AssertionError, EOFError) as error:
                word = error.__class__.__name__
                if client is not None:
                    client.close()
                client = None
            with self._lock:
                self.outcomes[word] += 1
                self.served += word.startswith("200")
        if client is not None:
            client.close()


class WorkersCase(OwnGatewayCase):
    """
    A gateway with several workers.
    """

    size = 2

    def begin(self, *parts: str, **named: Any) -> GatewayProcess:
        self.gateway = self.start(self.text(*parts, **named))
        return self.gateway

    def text(self, *parts: str, **named: Any) -> str:
        return f"workers = {self.size}\n" + self.config(named.pop("stage", self.old), **named) + "".join(parts)

    def workers(self) -> list[int]:
        """
        Return the numbers of the processes that carry.
        """
        return [worker for nursery in children_of(self.gateway.pid) for worker in children_of(nursery) if is_alive(worker)]

    def every_process(self) -> list[int]:
        nurseries = children_of(self.gateway.pid)
        return [self.gateway.pid, *nurseries, *self.workers()]


class ServingTests(WorkersCase):
    """
    They serve as one.
    """

    def test_spread(self):
        """
        Connections are spread over all workers, and each of them serves.
        """
        self.size = 3
        self.begin()
        self.assertEqual(len(self.workers()), 3)
        load = Load(self.port, clients=12)
        wait_until(lambda: load.served > 600, "there was some traffic")
        load.stop()
        self.assertEqual(set(load.outcomes), {"200 old"})
        self.stop(self.gateway)
        # A worker's own request identifiers begin alike.
        runs = Counter(record["request_id"][:12] for record in read_records(self.log))
        self.assertEqual(len(runs), 3)
        self.assertGreater(min(runs.values()), load.served // 20, runs)

    def test_counts_and_log(self):
        """
        Each request is counted once and logged once, on a line of its own, with an identifier of its own.
        """
        self.begin()
        load = Load(self.port, clients=8)
        wait_until(lambda: load.served > 500, "there was some traffic")
        load.stop()
        self.assertEqual(metric(self.port, 'gateway_exchanges_total{outcome="completed"}'), load.served)
        wait_until(lambda: metric(self.port, "gateway_active_connections") <= 1, "no connection is left")

        def total() -> int:
            return int(json.loads(fetch(self.port, "/api/gateway/health").body)["total_requests"])

        wait_until(lambda: total() >= load.served, "all are in the total", 2.0)
        self.stop(self.gateway)
        records = [record for record in read_records(self.log) if record["path"] == "/"]
        self.assertEqual(len(records), load.served)
        self.assertEqual(len({record["request_id"] for record in records}), load.served)

    def test_api(self):
        """
        The gateway's own API tells of the gateway, whichever worker is asked.
        """
        self.begin()
        for _ in range(6):
            services = json.loads(fetch(self.port, "/api/gateway/services").body)
            self.assertEqual([(row["name"], row["backends_total"]) for row in services], [("app", 1)])
            explained = json.loads(fetch(self.port, "/api/gateway/explain?url=http://a.test/").body)
            self.assertEqual(explained["web"]["router"], "app")
            self.assertEqual(json.loads(fetch(self.port, "/api/gateway/config").body)["workers"], 2)

    def test_auto(self):
        """
        `auto` is one worker for each core.
        """
        gateway = self.start(self.text().replace("workers = 2", 'workers = "auto"'))
        self.gateway = gateway
        cores = len(os.sched_getaffinity(0))
        self.assertEqual(len(self.workers()), 0 if cores == 1 else cores)
        self.assertEqual(fetch(self.port).body, b"old")

    def test_one(self):
        """
        One worker is the gateway's own process.
        """
        self.size = 1
        self.begin()
        self.assertEqual(children_of(self.gateway.pid), [])
        self.assertEqual(fetch(self.port).body, b"old")

    def test_log_rotation(self):
        """
        USR1 has every worker open the log anew.
        """
        self.begin()
        load = Load(self.port, clients=4)
        wait_until(lambda: load.served > 100, "there was some traffic")
        old = self.log.with_suffix(".1")
        self.log.rename(old)
        self.gateway.send_signal(signal.SIGUSR1)
        wait_until(lambda: len({record["request_id"][:12] for record in read_records(self.log)}) == 2, "both workers write to the new one")
        load.stop()
        self.stop(self.gateway)
        self.assertEqual(len([*read_records(old), *read_records(self.log)]), load.served)


class ReloadTests(WorkersCase):
    """
    They change together.
    """

    def test_under_load(self):
        """
        Reloads cost not one request, and after each all workers serve what is new.
        """
        self.begin()
        load = Load(self.port)
        for number in range(10):
            stage, name = ((self.new, b"new"), (self.old, b"old"))[number % 2]
            self.gateway.reload(self.text(stage=stage))
            self.assertEqual({fetch(self.port).body for _ in range(8)}, {name})
        load.stop()
        self.assertEqual(set(load.outcomes), {"200 old", "200 new"})
        self.assertEqual(metric(self.port, 'gateway_config_reloads_total{result="success"}'), 10)
        self.stop(self.gateway)

    def test_doors_come_and_go(self):
        """
        A new entrypoint is served by all workers; one that is removed lets nobody in.
        """
        self.begin()
        other = free_port()
        door = f'entrypoints "other" {{\n  address = "127.0.0.1:{other}"\n}}\n'
        self.gateway.reload(self.text(door))
        self.assertEqual({fetch(other).body for _ in range(8)}, {b"old"})
        self.gateway.reload(self.text())
        wait_until(lambda: not accepts(other), "nobody is let in any more", 3.0)
        self.assertEqual(fetch(self.port).body, b"old")

    def test_refused(self):
        """
        What cannot be bound changes nothing, and says why.
        """
        self.begin()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            door = f'entrypoints "other" {{\n  address = "127.0.0.1:{taken.getsockname()[1]}"\n}}\n'
            self.gateway.reload(self.text(door, stage=self.new), expect="Address already in use")
        self.assertEqual({fetch(self.port).body for _ in range(4)}, {b"old"})
        self.gateway.reload(self.text().replace("workers = 2", "workers = 3"), expect="workers cannot change from 2 to 3")
        self.gateway.reload(self.text(stage=self.new))
        self.assertEqual({fetch(self.port).body for _ in range(4)}, {b"new"})


class EndTests(WorkersCase):
    """
    How they end.
    """

    def test_killed_under_load(self):
        """
        A worker that is killed is replaced within a second, and costs only its own connections.
        """
        self.begin()
        load = Load(self.port, clients=6)
        wait_until(lambda: load.served > 100, "there was some traffic")
        before = set(self.workers())
        counted = metric(self.port, 'gateway_exchanges_total{outcome="completed"}')
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        started = time.monotonic()
        wait_until(lambda: "serves" in self.gateway.stderr(), "another serves")
        self.assertLess(time.monotonic() - started, 1.0)
        after = set(self.workers())
        self.assertEqual((len(after), victim in after), (2, False))
        self.assertGreaterEqual(metric(self.port, 'gateway_exchanges_total{outcome="completed"}'), counted)
        served = load.served
        wait_until(lambda: load.served > served + 100, "traffic goes on")
        load.stop()
        failed = load.outcomes.total() - load.outcomes["200 old"]
        # Each client has at most one request under way.
        self.assertLessEqual(failed, 6, load.outcomes)
        self.assertIn(f"({victim}) ended unexpectedly", self.gateway.stderr())
        samples = metrics(self.port)
        self.assertEqual([samples[f'gateway_workers{{state="{state}"}}'] for state in ("serving", "starting")], [2, 0])
        self.assertEqual(samples["gateway_worker_replacements_total"], 1)
        self.stop(self.gateway)

    def test_killed_again_and_again(self):
        """
        One that ends as soon as it was begun is begun anew after a pause, which the log and the API tell; the others serve.
        """
        self.begin()
        for number in range(6):
            seen = set(self.workers())
            os.kill(max(seen), signal.SIGKILL)
            if number < 5:
                wait_until(lambda seen=seen: len(self.workers()) == 2 and set(self.workers()) != seen, "it is replaced", 8.0)
        health = json.loads(fetch(self.port, "/api/gateway/health").body)
        self.assertEqual((health["workers"]["wanted"], health["workers"]["serving"]), (2, 1))
        self.assertGreaterEqual(health["workers"]["replaced"], 5)
        self.assertEqual(fetch(self.port).body, b"old")
        self.assertIn("another takes its place in 0.", self.gateway.stderr())
        self.stop(self.gateway)

    def test_nursery_killed(self):
        """
        The process that begets workers may end too.
        """
        self.begin()
        (nursery,) = children_of(self.gateway.pid)
        workers = self.workers()
        os.kill(nursery, signal.SIGKILL)
        wait_until(lambda: not is_alive(nursery), "it is gone")
        self.assertEqual({fetch(self.port).body for _ in range(4)}, {b"old"})
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: "serves" in self.gateway.stderr(), "another serves")
        self.assertEqual({fetch(self.port).body for _ in range(4)}, {b"old"})
        os.kill(workers[1], 0)
        self.stop(self.gateway)
        wait_until(lambda: not is_alive(workers[1]), "the worker ends with the gateway")

    def test_drain(self):
        """
        TERM lets what is in flight end, in every worker; then nothing is left.
        """
        go = self.hold(self.old, "/slow")
        self.begin()
        processes = self.every_process()
        clients = [self.connect() for _ in range(8)]
        for client in clients:
            client.ask("/slow")
        wait_until(lambda: self.old.count("/slow") == 8, "all requests have arrived")
        self.gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(self.port), "nobody is let in any more", 3.0)
        self.assertTrue(self.gateway.is_running())
        go.set()
        answers = [client.read_answer() for client in clients]
        self.assertEqual([(answer.status, answer.get("connection")) for answer in answers], [(200, "close")] * 8)
        self.assertEqual(self.gateway.wait(3.0), 0)
        wait_until(lambda: not any(map(is_alive, processes)), "nothing is left", 3.0)
        self.assertEqual(len(read_records(self.log)), 8)

    def test_drain_in_vain(self):
        """
        What takes longer than the time for it is broken off.
        """
        self.hold(self.old, "/slow")
        self.begin()
        client = self.connect()
        client.ask("/slow")
        wait_until(lambda: self.old.count("/slow"), "the request has arrived")
        started = time.monotonic()
        self.gateway.send_signal(signal.SIGTERM)
        self.assertEqual(self.gateway.wait(8.0), 0)
        self.assertGreater(time.monotonic() - started, 4.5)
        self.assertIn("1 exchanges were broken off", self.gateway.stderr())

    def test_signal_to_all(self):
        """
        A signal that all processes get, from a terminal or a supervisor, is for the gateway alone.
        """
        go = self.hold(self.old, "/slow")
        self.begin()
        client = self.connect()
        client.ask("/slow")
        wait_until(lambda: self.old.count("/slow"), "the request has arrived")
        processes = self.every_process()
        for number in (signal.SIGHUP, signal.SIGINT):
            for pid in reversed(processes):
                os.kill(pid, number)
        wait_until(lambda: not accepts(self.port), "nobody is let in any more", 3.0)
        go.set()
        self.assertEqual(client.read_answer().status, 200)
        self.assertEqual(self.gateway.wait(3.0), 0)

    def test_gateway_killed(self):
        """
        If the gateway itself is killed its workers serve what is in flight, let nobody in, and end.
        """
        go = self.hold(self.old, "/slow")
        self.begin()
        client = self.connect()
        client.ask("/slow")
        wait_until(lambda: self.old.count("/slow"), "the request has arrived")
        processes = self.every_process()
        self.gateway.kill()
        wait_until(lambda: not accepts(self.port), "nobody is let in any more", 3.0)
        go.set()
        self.assertEqual(client.read_answer().status, 200)
        wait_until(lambda: not any(map(is_alive, processes)), "nothing is left", 3.0)

    def test_events_are_written_once(self):
        """
        What every worker notices stands in the log once.
        """
        broken = service("broken", [1], "")
        check = 'health_check {\n path = "/"\n interval = "100ms"\n unhealthy_threshold = 1\n}'
        broken = broken.replace("load_balancer {", f"load_balancer {{\n {check}")
        self.begin(broken)
        self.gateway.wait_for("backend http://127.0.0.1:1 of service broken is unhealthy")
        time.sleep(0.3)
        self.assertEqual(self.gateway.stderr().count("is unhealthy"), 1)
        for _ in range(4):
            self.assertEqual(fetch(self.port, "/broken").status, 503)
        self.assertEqual(metrics(self.port)['gateway_backend_up{service="broken",backend="http://127.0.0.1:1"}'], 0.0)


class LimitTests(WorkersCase):
    """
    What is set for the gateway holds for all workers together.
    """

    size = 4

    def limited(self, middleware: str, *, path: str = "/") -> str:
        """
        Return a configuration whose only router has a middleware.
        """
        text = self.text().replace('service = "app"', 'service = "app"\n  middlewares = ["limit"]')
        return f'{text}middlewares "limit" {{\n{middleware}\n}}\n'

    def test_rate(self):
        """
        A rate of 100 a second admits 100 a second, to within two in a hundred, however many workers there are.
        """
        self.gateway = self.start(self.limited('type = "rate-limit"\nrate = 100\nburst = 10\nheaders = false'))
        admitted: list[float] = []
        refused: list[float] = []
        stopped = threading.Event()
        self.addCleanup(stopped.set)

        def ask() -> None:
            while not stopped.is_set():
                # A connection of its own now and then, for another worker.
                with Client(self.port) as client:
                    for _ in range(20):
                        status = client.fetch("/").status
                        (admitted if status == 200 else refused).append(time.monotonic())
                        time.sleep(0.002)

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(5.0)
        stopped.set()
        for thread in threads:
            thread.join(PATIENCE)
        # Ten come at once, and are not part of the rate.
        rate = (len(admitted) - 10) / (max(admitted) - min(admitted))
        self.assertLess(abs(rate - 100), 2.0, (len(admitted), len(refused)))
        self.assertGreater(len(refused), len(admitted), "there was more than enough")
        gateway_runs = {record["request_id"][:12] for record in read_records(self.log) if record["status"] == 200}
        self.assertEqual(len(gateway_runs), 4, "all workers took part")
        self.stop(self.gateway)

    def test_connections(self):
        """
        `max_connections` counts the connections of all workers, and those of one that is killed no more.
        """
        self.begin(entrypoint="max_connections = 5")
        clients = [self.connect() for _ in range(5)]
        self.assertEqual([client.fetch("/").status for client in clients], [200] * 5)
        self.assertEqual(fetch(self.port).status, 503)
        self.assertEqual([fetch(self.port).status for _ in range(8)], [503] * 8)
        clients[0].close()
        wait_until(lambda: fetch(self.port).status == 200, "there is room for one", 3.0)
        held = self.workers_of_connections()
        victim, lost = held.most_common(1)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: "serves" in self.gateway.stderr(), "another serves")
        more = [self.connect() for _ in range(lost + 1)]
        wait_until(lambda: sum(self.holds(client) for client in more) == lost + 1, "there is room for those that were lost", 3.0)
        self.assertEqual(fetch(self.port).status, 503)

    def holds(self, client: Client) -> bool:
        with contextlib.suppress(OSError, AssertionError, EOFError):
            return client.fetch("/").status == 200
        return False

    def workers_of_connections(self) -> Counter[int]:
        """
        Return how many client connections each worker has.
        """
        found: Counter[int] = Counter()
        port = f":{self.port:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {fields[9] for fields in lines if fields[1].endswith(port) and fields[3] == "01"}
        for pid in self.workers():
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found[pid] += os.readlink(descriptor).removeprefix("socket:[").removesuffix("]") in inodes
        return found

    def check_places(self, places: int, waiting: int) -> None:
        """
        Fail unless of many slow requests at a time `places` are served, `waiting` wait and are served later, and all others are refused.
        """
        arrived = threading.Semaphore(0)
        go = threading.Event()
        self.addCleanup(go.set)
        most = 0
        now = 0
        lock = threading.Lock()

        def play(scene: Any, head: bytes) -> None:
            nonlocal most, now
            with lock:
                now += 1
                most = max(most, now)
            arrived.release()
            go.wait(PATIENCE)
            time.sleep(0.02)
            with lock:
                now -= 1
            scene.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        self.old.on("/slow", play)
        clients = [self.connect() for _ in range(places + waiting + 6)]
        for client in clients:
            client.ask("/slow")
        for _ in range(places):
            self.assertTrue(arrived.acquire(timeout=PATIENCE))
        time.sleep(0.3)
        self.assertEqual(now, places)
        go.set()
        statuses = Counter(client.read_answer().status for client in clients)
        self.assertEqual(most, places)
        self.assertEqual(statuses[200], places + waiting, statuses)

    def test_in_flight(self):
        """
        `in-flight` admits so many at a time and no more; who waits in one worker gets a place that comes free in another.
        """
        self.gateway = self.start(self.limited('type = "in-flight"\namount = 3'))
        self.check_places(3, 0)
        self.gateway.reload(self.limited('type = "in-flight"\namount = 2\nqueue_size = 10\nqueue_timeout_ms = 10000'))
        self.check_places(2, 10)

    def test_in_flight_of_each_client(self):
        """
        So it does for each client.
        """
        self.gateway = self.start(self.limited('type = "in-flight"\namount = 3\nsource = "client-ip"'))
        self.check_places(3, 0)
        self.check_places(3, 0)

    def test_container_concurrency(self):
        """
        A server has no more requests at a time than it may have, by all workers together.
        """
        scaling = "scaling {\n container_concurrency = 3\n buffer_enabled = true\n buffer_size = 6\n}"
        text = self.text().replace("load_balancer {", f"{scaling}\n load_balancer {{")
        self.gateway = self.start(text)
        self.check_places(3, 6)

    def check_circuit(self, scope: str) -> None:
        """
        Fail unless five failures open the circuit for all workers, and one good trial closes it for all.
        """
        self.old.on("/", b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        breaker = f'type = "circuit-breaker"\nscope = "{scope}"\nfailure_threshold = 5\ncooldown_secs = 2'
        gateway = self.gateway = self.start(self.limited(breaker))
        statuses = [fetch(self.port).status for _ in range(20)]
        self.assertEqual(statuses, [500] * 5 + [503] * 15)
        self.assertEqual(self.old.count("/"), 5)
        gateway.wait_for(" is open for 2 s")
        self.assertEqual(gateway.stderr().count(" is open for 2 s"), 1)
        self.old.on("/", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
        time.sleep(2.1)
        self.assertEqual([fetch(self.port).status for _ in range(12)], [200] * 12)
        gateway.wait_for("is closed")
        self.assertEqual(metric(self.port, 'gateway_exchanges_total{outcome="circuit-open"}'), 15)
        self.assertEqual((gateway.stderr().count("is half-open"), gateway.stderr().count("is closed")), (1, 1))
        self.stop(gateway)

    def test_circuit(self):
        """
        A circuit is open, and closed, for all workers.
        """
        self.check_circuit("router")

    def test_circuit_of_a_server(self):
        """
        So is that of a server.
        """
        self.check_circuit("backend")

    def test_ejection(self):
        """
        A server that fails is set aside by all workers when it has failed so often, and tried again by all.
        """
        self.old.on("/", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
        self.new.on("/", b"HTTP/1.1 503 Oh\r\nContent-Length: 3\r\n\r\nnew")
        passive = "passive_health {\n consecutive_errors = 5\n recovery_secs = 2\n}"
        text = f"workers = {self.size}\n" + self.config(self.old, self.new).replace("load_balancer {", f"load_balancer {{\n {passive}")
        gateway = self.gateway = self.start(text)
        bodies = Counter(fetch(self.port).body for _ in range(60))
        # Another worker may choose it in the moment in which it is told.
        self.assertIn(bodies[b"new"], range(5, 5 + self.size))
        gateway.wait_for("of service app is ejected")
        self.assertEqual(gateway.stderr().count("is ejected"), 1)
        states = {row["url"]: row["state"] for row in json.loads(fetch(self.port, "/api/gateway/services").body)[0]["backends"]}
        self.assertEqual(sorted(states.values()), ["ejected", "usable"])
        self.new.on("/", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")
        gateway.wait_for("half-open")
        wait_until(lambda: fetch(self.port).body == b"new", "it is tried again", 5.0)
        gateway.wait_for("is restored")
        self.assertGreater(Counter(fetch(self.port).body for _ in range(40))[b"new"], 10)
        self.assertEqual(gateway.stderr().count("is restored"), 1)
        self.stop(gateway)
