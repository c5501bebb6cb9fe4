"""
Tests of udp doors: who may come in, and what reloads and the end do to those who are known.
"""

from a3sgw.config.load import load_text
from a3sgw.loading import load_string
from a3sgw.proxy.test.udp_dialogues import ADA, BOB, TWO, UdpCase, configure

EVE = ("203.0.113.66", 1)


class AdmissionTests(UdpCase):
    """
    Who may come in.
    """

    def test_no_route(self):
        """Whose address no rule names is dropped and counted; others are served by the first rule that names them."""
        self.begin(rule="ClientIP(`192.0.2.0/24`)")
        self.say(b"x")
        self.say(b"x", EVE)
        self.assertEqual((self.sessions(), self.dropped()), (1, {"no-route": 1}))

    def test_unrouted(self):
        """B55: an entrypoint that nobody routes starts all the same, and drops everything."""
        text = configure().replace("HostSNI(`*`)", "ClientIP(`10.0.0.1`)")
        dialogue = self.begin()
        dialogue.reload(text.split("routers")[0] + "services" + text.split("services")[1])
        self.say(b"x")
        self.assertEqual((self.sessions(), self.dropped()), (0, {"no-route": 1}))

    def test_allowed(self):
        """Only addresses in `allowed_ips` may send, if there are any."""
        self.begin(entrypoint='allowed_ips = ["192.0.2.0/24"]')
        self.say(b"x")
        self.say(b"x", EVE)
        self.assertEqual((self.sessions(), self.dropped()), (1, {"address-refused": 1}))

    def test_gates(self):
        """Middlewares that decide about connections decide about clients, on routers and on entrypoints; places come back."""
        gate = 'middlewares "few" {\n type = "tcp-filter"\n max_connections = 1\n}'
        for place in ("router", "entrypoint"):
            self.begin(**{place: 'middlewares = ["few"]'}, more=gate)
            self.say(b"x")
            self.say(b"x", BOB)
            self.assertEqual((self.sessions(), self.dropped()), (1, {"connection-limit": 1}))
            self.reactor.advance(31)
            self.say(b"x", BOB)
            self.assertEqual(self.sessions(), 1)

    def test_bug(self):
        """A datagram that meets a bug costs itself; it is counted and reported."""
        self.begin()
        self.socket.arrived.append((b"x", ("no address", 1)))
        self.reactor.settle()
        self.assertEqual(self.dropped(), {"internal-error": 1})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.say(b"y")
        self.assertEqual(self.sessions(), 1)

    def test_addresses(self):
        """An IPv6 client is shown as it is, without its zone; one of IPv4 that came by IPv6 is shown as what it is."""
        self.begin()
        for text, shown in (("fe80::1%eth0", b"fe80::1"), ("::ffff:192.0.2.7", b"192.0.2.7"), ("192.0.2.8", b"192.0.2.8")):
            self.say(b"x", (text, 1, 0, 0))
            *_, session = self.dialogue.carrier.udp_doors()["dns"].sessions.values()
            self.assertEqual(session.peer, shown)
            self.assertIn(shown.decode(), repr(session))


class ReloadTests(UdpCase):
    """
    What a reload does to those who are known.
    """

    def test_nothing_changed(self):
        """Sessions go on through a reload, with the same server and the same sockets; the next client is served by the new one."""
        self.begin(*TWO)
        door = self.dialogue.carrier.udp_doors()["dns"]
        self.say(b"before")
        self.dialogue.reload(configure(*TWO, entrypoint="udp_max_sessions = 1"))
        self.say(b"after")
        self.reply(b"answer")
        self.assertIs(self.dialogue.carrier.udp_doors()["dns"], door)
        self.assertEqual((self.link().take(), self.socket.take()), ([b"before", b"after"], [b"answer"]))
        self.say(b"x", BOB)
        self.assertEqual(self.dropped(), {"session-limit": 1})
        self.assertEqual(self.active(), {1: 1, 2: 0})

    def test_server_removed(self):
        """B55: who was with a server that is gone chooses another with the next datagram, and hears nothing more of the old one."""
        self.begin(*TWO)
        self.say(b"1")
        self.dialogue.reload(configure("udp://192.0.2.2:53", "udp://192.0.2.3:53"))
        self.assertTrue(self.link().is_closed)
        self.say(b"2")
        self.assertEqual((self.servers(), self.sessions(), self.link().take()), ([1, 2], 1, [b"2"]))
        self.assertEqual(self.active(), {2: 1, 3: 0})

    def test_server_added(self):
        """A server more takes nobody away from the others."""
        self.begin(TWO[0])
        self.say(b"1")
        self.dialogue.reload(configure(*TWO))
        self.say(b"2")
        self.assertEqual((self.servers(), self.link().take()), ([1], [b"1", b"2"]))

    def test_route_gone(self):
        """Who is not routed, or not let in, any more is forgotten at once."""
        for changed, word in (
            (configure(rule="ClientIP(`10.0.0.0/8`)"), "no-route"),
            (configure(entrypoint='allowed_ips = ["10.0.0.0/8"]'), "address-refused"),
        ):
            self.begin()
            self.say(b"x")
            self.dialogue.reload(changed)
            self.assertEqual((self.sessions(), self.ended()), (0, [(word, 1, 1, 0)]))
            self.assertTrue(self.link().is_closed)

    def test_shorter_time(self):
        """A shorter time holds for those who are known, too."""
        self.begin()
        self.say(b"x")
        self.dialogue.reload(configure(entrypoint="udp_session_timeout_secs = 2"))
        self.reactor.advance(3)
        self.assertEqual(self.sessions(), 0)

    def test_waiting(self):
        """What waits for the name of a server that is gone is dropped and counted."""
        self.begin("udp://dns.test:53")
        questions: list[object] = []
        self.dialogue.resolver = questions.append
        self.say(b"x")
        self.dialogue.reload(configure("udp://other.test:53"))
        self.assertEqual(self.dropped(), {"no-backend": 1})
        self.say(b"y")
        self.assertEqual(len(questions), 2)

    def test_removed(self):
        """An entrypoint that is gone lets nobody new in, lets what is under way end, and then its port is free."""
        self.begin()
        self.say(b"x")
        self.dialogue.reload(configure().replace("5353", "5354"))
        old = self.socket
        for data in (b"more", b"again"):
            self.reactor.advance(1)
            self.first.arrived.append((data, ADA))
            self.first.arrived.append((b"new", BOB))
            self.reactor.settle()
        self.assertEqual(self.link().take(), [b"x", b"more", b"again"])
        self.assertEqual(self.dropped(), {"shutting-down": 2})
        self.reactor.advance(3)
        self.assertEqual((self.first.is_closed, old.is_closed), (True, False))
        self.assertEqual(self.ended(), [("completed", 1, 3, 0)])
        self.assertEqual(self.dialogue.carrier.ports(), {"dns": 5354})

    def begin(self, *urls, **parts):
        dialogue = super().begin(*urls, **parts)
        self.first = self.socket
        return dialogue

    def test_removed_and_back(self):
        """If the port is wanted back while somebody is still served there, it is the same door."""
        self.begin()
        self.say(b"x")
        self.dialogue.reload(configure().replace("5353", "5354"))
        self.dialogue.reload(configure())
        self.reactor.advance(5)
        self.first.arrived.append((b"y", ADA))
        self.reactor.settle()
        self.assertEqual(self.link().take(), [b"x", b"y"])
        self.assertFalse(self.first.is_closed)

    def test_wanted_back_while_it_empties(self):
        """A door that is wanted back stays open until that is decided, although its last session ends meanwhile."""
        for is_taken in (True, False):
            self.begin()
            self.say(b"x")
            self.dialogue.reload(configure().replace("5353", "5354"))
            self.successResultOf(self.dialogue.carrier.prepare(load_string(configure(), "t", {}).valid_config()))
            self.reactor.advance(5)
            self.assertFalse(self.first.is_closed)
            if is_taken:
                self.dialogue.carrier.commit()
            else:
                self.dialogue.carrier.abandon()
            self.assertEqual(self.first.is_closed, not is_taken)
            self.assertEqual(self.dialogue.carrier.ports(), {"dns": 5353 if is_taken else 5354})

    def test_abandoned(self):
        """A configuration that comes to nothing leaves no socket, and those who are known alone."""
        self.begin()
        self.say(b"x")
        new = load_string(configure().replace("5353", "5354"), "t", {}).valid_config()
        self.successResultOf(self.dialogue.carrier.prepare(new))
        prepared = self.socket
        self.dialogue.carrier.abandon()
        self.assertEqual((prepared.is_closed, self.first.is_closed), (True, False))
        self.assertEqual(self.sessions(), 1)

    def test_overlap(self):
        """An address that overlaps one of our own cannot be had while that is held, and the reload says so."""
        self.begin()
        new = load_text(configure().replace("127.0.0.1:5353", ":5353"), "t", {}).valid_config()
        failure = self.failureResultOf(self.dialogue.carrier.prepare(new))
        self.assertIn('entrypoint "dns" cannot listen on port 5353/udp: this gateway itself does', str(failure.value))


class EndTests(UdpCase):
    """
    The end of the gateway.
    """

    def drain(self, seconds):
        done = self.dialogue.carrier.drain(seconds)
        ended = []
        done.addCallback(ended.append)
        self.reactor.settle()
        return ended

    def test_nobody(self):
        """Without anybody under way it ends at once."""
        self.begin()
        ended = self.drain(30)
        self.reactor.advance(0.5)
        self.assertEqual(ended, [0])
        self.assertTrue(self.socket.is_closed)
        self.assertEqual(self.reactor.watched(), [])

    def test_resting(self):
        """B69: who has been silent for a moment is not waited for, whatever the time for sessions."""
        self.begin()
        self.say(b"x")
        self.reactor.advance(3)
        ended = self.drain(30)
        self.reactor.advance(0.5)
        self.assertEqual(ended, [0])

    def test_talking(self):
        """Who goes on talking is served until the time is over, and then broken off and counted."""
        self.begin()
        self.say(b"x")
        ended = self.drain(5)
        for _ in range(4):
            self.reactor.advance(1)
            self.say(b"x")
            self.reply(b"y")
        self.assertEqual((ended, len(self.socket.sent)), ([], 4))
        self.reactor.advance(1.5)
        self.assertEqual(ended, [1])
        self.assertEqual((self.socket.is_closed, self.link().is_closed), (True, True))
        self.assertEqual(self.ended(), [("shutting-down", 1, 5, 4)])
        self.assertEqual(self.reactor.watched(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_passed_on(self):
        """A socket that another process has too is not heard any more; who is here is answered through it until the end."""
        self.begin()
        self.say(b"x")
        carrier = self.dialogue.carrier
        self.assertEqual(carrier.listening(), [self.socket])
        carrier.passed_on([])
        self.say(b"y")
        self.assertEqual(self.link().take(), [b"x", b"y"])
        carrier.passed_on(carrier.listening())
        ended = self.drain(30)
        self.socket.arrived += [(b"z", ADA), (b"new", BOB)]
        self.reactor.settle()
        self.reply(b"late")
        self.assertEqual((self.link().take(), self.socket.sent[-1][0]), ([], b"late"))
        self.assertEqual((len(self.socket.arrived), self.dropped(), ended), (2, {}, []))
        self.reactor.advance(3)
        self.assertEqual((ended, self.socket.is_closed), ([0], True))
        self.assertEqual(carrier.listening(), [])

    def test_falls_silent(self):
        """Who falls silent meanwhile is waited for no longer."""
        self.begin()
        self.say(b"x")
        ended = self.drain(30)
        self.reactor.advance(1)
        self.assertEqual(ended, [])
        self.reactor.advance(2)
        self.assertEqual(ended, [0])
