"""
Tests of what outlives a reload: everything whose own configuration has not changed, whatever else has.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import AssemblyError
from a3sgw.loading import load_string
from a3sgw.proxy.test.dialogues import OK, request, response
from a3sgw.proxy.test.test_upgrade import AGREED, ANSWER, HELLO, WISHES
from a3sgw.proxy.test.udp_dialogues import ADA
from a3sgw.testing import Dialogue

MIDDLEWARES = {
    "limit": 'type = "rate-limit"\n rate = {0}00\n burst = 1000',
    "slots": 'type = "in-flight"\n amount = {0}00',
    "circuit": 'type = "circuit-breaker"\n failure_threshold = {0}',
    "head": 'type = "headers"\n request_headers = {{ "X-A" = "{0}" }}',
    "again": 'type = "retry"\n max_retries = {0}',
}
STRATEGIES = ("round-robin", "least-connections", "least-time", "weighted")
SERVICES = {"a": "http", "b": "http", "c": "http", "t": "tcp"}
STICKY = 'sticky { cookie = "bound" }'
UDP = """
entrypoints "dns" {
  address  = "127.0.0.1:5353"
  protocol = "udp"
}
routers "u" {
  rule        = "HostSNI(`*`)"
  service     = "u"
  entrypoints = ["dns"]
}
services "u" {
  load_balancer {
    servers = [%s]
  }
}
"""
# Each router: its service, and which middlewares it may list.
ROUTERS = {"r0": "a", "r1": "a", "r2": "b", "r3": "c"}


class Description:
    """
    A configuration that can be edited, and be written in any order.
    """

    def __init__(self):
        self.ports = {"web": 8080, "alt": 9000, "raw": 7000}
        self.idle = 60
        self.servers = dict.fromkeys([*SERVICES, "u"], (1, 2))
        self.strategy = dict.fromkeys(SERVICES, "round-robin")
        self.timeout = dict.fromkeys(SERVICES, 30)
        self.errors = dict.fromkeys(SERVICES, 5)
        self.connections = dict.fromkeys(SERVICES, 40)
        self.values = dict.fromkeys(MIDDLEWARES, 3)
        self.lists = {"r0": ("limit", "circuit"), "r1": ("limit", "slots"), "r2": ("head", "again"), "r3": ()}
        self.rules = dict.fromkeys(ROUTERS, "old")
        self.left_out = set()
        self.log = "json"

    def blocks(self):
        """
        Return the blocks of the configuration.
        """
        found = [f'observability {{\n access_log {{ format = "{self.log}" }}\n}}']
        for name, port in self.ports.items():
            inside = ' protocol = "tcp"' if name == "raw" else f' timeouts {{ idle = "{self.idle}s" }}'
            found.append(f'entrypoints "{name}" {{\n address = "127.0.0.1:{port}"\n{inside}\n}}')
        found.append(UDP % ", ".join(f'{{ url = "udp://192.0.2.{n}:53" }}' for n in self.servers["u"]))
        for name, protocol in SERVICES.items():
            urls = ", ".join(f'{{ url = "{protocol}://192.0.2.{n}:{8000 + ord(name)}" }}' for n in self.servers[name])
            found.append(
                f'services "{name}" {{\n load_balancer {{\n strategy = "{self.strategy[name]}"\n servers = [{urls}]\n'
                f"  passive_health {{ consecutive_errors = {self.errors[name]} }}\n {STICKY if name == 'a' else ''}\n }}\n"
                f' timeouts {{ connect = "{self.timeout[name]}s" }}\n connection_pool {{ max_connections = {self.connections[name]} }}\n}}'
            )
        for name, text in MIDDLEWARES.items():
            found.append(f'middlewares "{name}" {{\n {text.format(self.values[name])}\n}}')
        for name, service in ROUTERS.items():
            if name not in self.left_out:
                listed = ", ".join(f'"{each}"' for each in self.lists[name])
                rule = f"PathPrefix(`/{name}`) || Path(`/{self.rules[name]}`)"
                lists = f'entrypoints = ["web", "alt"]\n middlewares = [{listed}]'
                found.append(f'routers "{name}" {{\n rule = "{rule}"\n service = "{service}"\n {lists}\n}}')
        found.append('routers "t" {\n rule = "HostSNI(`*`)"\n service = "t"\n entrypoints = ["raw"]\n}')
        return found

    def load(self, order=0):
        """
        Return the configuration, written in one of many orders and with other remarks.
        """
        blocks = self.blocks()
        random.Random(order).shuffle(blocks)
        return load_string(f"\n# {order}\n".join(blocks), "test.hcl", {}).valid_config()


NUMBER = st.integers(1, 4)
EDITS = st.one_of(
    st.tuples(st.just("servers"), st.sampled_from([*sorted(SERVICES), "u"]), st.sampled_from([(1, 2), (2, 1), (1, 2, 3), (2, 3), (1,)])),
    st.tuples(st.just("strategy"), st.sampled_from("abc"), st.sampled_from(STRATEGIES)),
    st.tuples(st.just("timeout"), st.sampled_from(sorted(SERVICES)), NUMBER),
    st.tuples(st.just("errors"), st.sampled_from(sorted(SERVICES)), NUMBER),
    st.tuples(st.just("connections"), st.sampled_from(sorted(SERVICES)), st.integers(40, 42)),
    st.tuples(st.just("values"), st.sampled_from(sorted(MIDDLEWARES)), NUMBER),
    st.tuples(st.just("lists"), st.sampled_from(sorted(ROUTERS)), st.permutations(sorted(MIDDLEWARES)).map(lambda names: tuple(names[:2]))),
    st.tuples(st.just("rules"), st.sampled_from(sorted(ROUTERS)), st.sampled_from(["old", "new"])),
    st.tuples(st.just("left_out"), st.sampled_from(sorted(ROUTERS)), st.booleans()),
    st.tuples(st.just("ports"), st.sampled_from(["alt", "raw"]), st.integers(0, 2)),
    st.tuples(st.just("idle"), st.just(""), st.integers(60, 62)),
    st.tuples(st.just("log"), st.just(""), st.sampled_from(["json", "combined"])),
    st.tuples(st.just("order"), st.just(""), NUMBER),
    st.tuples(st.just("refused"), st.just(""), NUMBER),
)


def edit(description, what, name, value):
    """
    Make one edit.
    """
    if what in ("idle", "log"):
        setattr(description, what, value)
    elif what == "left_out":
        (description.left_out.add if value else description.left_out.discard)(name)
    elif what == "ports":
        description.ports[name] = {"alt": 9000, "raw": 7000}[name] + value
    elif what not in ("order", "refused"):
        getattr(description, what)[name] = value


def live_parts(carrier):
    """
    Return the runtime objects of a carrier by what they are and by whatever of the configuration they depend on: nothing less, nothing
    more. So equal keys mean that nothing which they depend on has changed.
    """
    generation = carrier.generation()
    config = generation.config
    found = {}
    for name, service in generation.services.items():
        own = config.services[name]
        balancing = own.load_balancer
        found["service", own] = service
        for server, backend in zip(balancing.servers, service.backends, strict=True):
            found["backend", name, server, own.connection_pool] = backend
            found["pool", name, server, own.connection_pool] = backend.pool
            found["verdicts", name, server.url, balancing.passive_health] = backend.verdicts
        pools = (own.connection_pool, balancing.servers)
        found["balancer", name, balancing.strategy, pools] = service.groups[0]._balancer
    routes = {key[1]: part for key, part in generation.parts.items() if key[0] == "route"}
    for key, part in generation.parts.items():
        if key[0] == "middleware":
            found["middleware", key[1].name, config.middlewares[key[1].name], *key[2:4]] = part
    everything = []
    for name, router in sorted(config.routers.items()):
        if router.service not in ("t", "u"):
            # The rule is the table's.
            own = (router.middlewares, config.services[router.service], *(config.middlewares[each] for each in router.middlewares))
            found["route", name, own] = routes[name]
            everything.append((router, own))
    found["table", tuple(everything)] = generation.doors["web"].entrypoint.table
    for door in carrier.doors():
        found["door", door.address] = door
        found["socket", door.address] = door._socket
    return found


class LongLived:
    """
    What clients have under way all along: a WebSocket, a download, a TCP connection, a UDP session, and the cookie of a server.
    """

    def __init__(self, dialogue, case):
        self.dialogue = dialogue
        self.case = case
        self.client, self.server = self.begin(8080, request("GET", "/r3", *WISHES), AGREED)
        self.download, self.source = self.begin(8080, request("GET", "/r2"), response("200 OK", "Content-Length: 5000", body=b"begun"))
        self.left = 4995
        self.raw, self.end = self.begin(7000, b"question", b"answer")
        self.say_datagram(b"first")
        (self.session,) = self.sessions()
        self.link = dialogue.links[-1]
        self.cookie = self.bound = None
        self.ask_bound((1, 2))

    def begin(self, port, asked, answer):
        """
        Return both ends of a connection over which this was said.
        """
        client = self.dialogue.connect(address=("127.0.0.1", port))
        self.dialogue.say(client, asked)
        backend = self.dialogue.backend()
        self.case.assertIn(asked[:8], self.dialogue.hear(backend))
        self.dialogue.say(backend, answer)
        self.case.assertIn(answer[:12], self.dialogue.hear(client))
        return client, backend

    def pass_between(self, one, other, data):
        self.dialogue.say(one, data)
        self.case.assertEqual(self.dialogue.hear(other), data)

    def sessions(self):
        return list(self.dialogue.carrier.udp_doors()["dns"].sessions.values())

    def say_datagram(self, data):
        self.dialogue.datagrams["dns"].arrived.append((data, ADA))
        self.dialogue.reactor.settle()

    def go_on(self, description):
        """
        All of it goes on, whatever has become of the configuration.
        """
        self.pass_between(self.client, self.server, HELLO)
        self.pass_between(self.server, self.client, ANSWER)
        self.pass_between(self.source, self.download, b"more of it")
        self.left -= 10
        self.pass_between(self.raw, self.end, b"more")
        self.pass_between(self.end, self.raw, b"and more")
        self.exchange_datagrams(description.servers["u"])
        if "r0" not in description.left_out:
            self.ask_bound(description.servers["a"])

    def exchange_datagrams(self, servers):
        """
        The session is the one it was, and has the server it had if that is still there.
        """
        self.say_datagram(b"x")
        self.case.assertEqual(self.sessions(), [self.session])
        if int(self.link.peer[0].rpartition(".")[2]) not in servers:
            self.link = self.dialogue.links[-1]
            self.case.assertIn(int(self.link.peer[0].rpartition(".")[2]), servers)
        self.case.assertEqual(self.link.take()[-1], b"x")
        self.link.arrived.append((b"y", None))
        self.dialogue.reactor.settle()
        self.case.assertEqual(self.dialogue.datagrams["dns"].sent[-1][0], b"y")

    def under_way(self):
        """
        Return how many requests each server of `a` has.
        """
        backends = self.dialogue.carrier.generation().services["a"].backends
        return {int(each.url.split(":")[1].rpartition(".")[2]): each.in_flight for each in backends}

    def ask_bound(self, servers):
        """
        Whoever has the cookie is served by the same server as long as that is there.
        """
        before = self.under_way()
        client = self.dialogue.connect(address=("127.0.0.1", 8080))
        known = len(self.dialogue.backends)
        self.dialogue.say(client, request("GET", "/r0", *([f"Cookie: {self.cookie}"] if self.cookie else [])))
        (chosen,) = (server for server, count in self.under_way().items() if count > before[server])
        if self.bound in servers:
            self.case.assertEqual(chosen, self.bound)
        self.case.assertEqual(len(self.dialogue.backends), known + 1)
        # So that nobody else has the connection, and each of the others a new one.
        self.dialogue.say(self.dialogue.backends[-1], response("200 OK", "Content-Length: 2", "Connection: close", body=b"ok"))
        heard = self.dialogue.hear(client).decode()
        self.case.assertTrue(heard.startswith("HTTP/1.1 200 ") and heard.endswith("ok"), heard)
        if "\r\nSet-Cookie: " in heard:
            self.cookie = heard.partition("\r\nSet-Cookie: ")[2].partition(";")[0]
        self.bound = chosen
        client.close()
        self.dialogue.reactor.settle()

    def end_all(self):
        """
        All of it ends well.
        """
        rest = bytes(self.left)
        self.pass_between(self.source, self.download, rest)
        self.pass_between(self.client, self.server, HELLO)
        for one, other in ((self.client, self.server), (self.raw, self.end)):
            one.close()
            self.dialogue.reactor.settle()
            self.case.assertTrue(other.has_ended)
            other.close()
        self.download.close()
        self.dialogue.reactor.settle()


class StateTests(SynchronousTestCase):
    """
    What has not been edited is the same object, and what was in flight ends well.
    """

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.lists(EDITS, min_size=1, max_size=8))
    def test_random_edits(self, edits):
        """After any edits, of any part and in any order, of which some come to nothing, all that they did not touch goes on."""
        description = Description()
        dialogue = Dialogue(description.load())
        self.busy = []
        long_lived = LongLived(dialogue, self)
        for what, name, value in edits:
            self.begin_exchanges(dialogue)
            before = live_parts(dialogue.carrier)
            edit(description, what, name, value)
            if what == "refused":
                self.be_refused(dialogue, description)
                after = live_parts(dialogue.carrier)
                self.assertEqual(after, before)
            else:
                dialogue.reload(description.load(value if what == "order" else 0))
                after = live_parts(dialogue.carrier)
                self.check(before, after)
            long_lived.go_on(description)
        long_lived.end_all()
        self.end_exchanges(dialogue)

    def check(self, before, after):
        """
        What depends on the same is the same; what depends on something else is not.
        """
        for key, part in after.items():
            if key in before:
                self.assertIs(part, before[key], key)
        known = {id(part): key for key, part in before.items()}
        for key, part in after.items():
            if key[0] != "verdicts":
                self.assertEqual(known.get(id(part), key), key, "what has changed is not what it was")

    def begin_exchanges(self, dialogue):
        """
        Send a request by each router, which none of them answers yet.
        """
        for name in ROUTERS:
            if name not in dialogue.carrier.generation().config.routers:
                continue
            client = dialogue.connect(address=("127.0.0.1", 8080))
            known = len(dialogue.backends)
            dialogue.say(client, request("GET", f"/{name}"))
            self.assertEqual(len(dialogue.backends), known + 1, name)
            self.busy.append((client, dialogue.backends[-1]))

    def end_exchanges(self, dialogue):
        """
        Answer all of them.
        """
        services = dialogue.carrier.generation().services
        # Nobody says of a datagram that it is the last.
        backends = {backend for name, service in services.items() if name != "u" for backend in service.backends}
        for client, backend in self.busy:
            dialogue.say(backend, OK)
            heard = dialogue.hear(client)
            self.assertTrue(heard.startswith(b"HTTP/1.1 200 ") and heard.endswith(b"ok"), heard)
            # And the next one on the same connection is answered by what runs now.
            dialogue.say(client, request("GET", "/nowhere"))
            self.assertTrue(dialogue.hear(client).startswith(b"HTTP/1.1 404 "))
        self.assertEqual([backend.in_flight for backend in backends], [0] * len(backends))

    def be_refused(self, dialogue, description):
        """
        Change everything, and bind what cannot be bound.
        """
        carrier = dialogue.carrier
        bind = carrier._bind_socket

        def refuse(name, host, port):
            raise AssemblyError("in use")

        other = Description()
        other.servers = dict.fromkeys(other.servers, (7,))
        other.values = dict.fromkeys(MIDDLEWARES, 9)
        other.ports = {**description.ports, "alt": 9100}
        carrier._bind_socket = refuse
        self.assertRaises(AssemblyError, dialogue.reload, other.load())
        carrier._bind_socket = bind
