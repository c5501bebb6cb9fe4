"""
A gateway for datagrams, between clients and servers that a test plays.
"""

import errno

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.testing import Dialogue

ADA = ("192.0.2.10", 5000)
BOB = ("192.0.2.20", 5000)


def configure(*urls, entrypoint="", router="", balancing="", service="", more="", rule="HostSNI(`*`)"):
    """
    Return the configuration of a udp entrypoint `dns` whose router leads to servers with `urls`.
    """
    listed = ", ".join(f'{{ url = "{url}" }}' for url in urls or ("udp://192.0.2.1:53",))
    return f"""
    entrypoints "dns" {{
      address  = "127.0.0.1:5353"
      protocol = "udp"
      {entrypoint}
    }}
    routers "dns" {{
      rule    = "{rule}"
      service = "resolvers"
      {router}
    }}
    services "resolvers" {{
      load_balancer {{
        servers = [{listed}]
        {balancing}
      }}
      {service}
    }}
    observability {{
      access_log {{ enabled = true }}
    }}
    {more}
    """


TWO = ("udp://192.0.2.1:53", "udp://192.0.2.2:53")


class UdpCase(SynchronousTestCase):
    """
    A dialogue, with words for clients and servers. Servers are told by the last number of their addresses.
    """

    def begin(self, *urls, **parts):
        self.dialogue = Dialogue(configure(*urls, **parts))
        self.reactor = self.dialogue.reactor
        return self.dialogue

    @property
    def socket(self):
        return self.dialogue.datagrams["dns"]

    def say(self, data, client=ADA):
        """
        Have a client send a datagram.
        """
        self.socket.arrived.append((data, client))
        self.reactor.settle()

    def session(self):
        """
        Return the only session.
        """
        (session,) = self.dialogue.carrier.udp_doors()["dns"].sessions.values()
        return session

    def link(self, number=-1):
        return self.dialogue.links[number]

    def reply(self, data, number=-1):
        """
        Have the server of a link send a datagram.
        """
        self.link(number).arrived.append((data, None))
        self.reactor.settle()

    def refuse(self, number=-1):
        """
        Have the kernel tell that nobody is at the other end of a link.
        """
        self.link(number).error = errno.ECONNREFUSED
        self.reactor.settle()

    def servers(self):
        """
        Return which servers were linked to, in order.
        """
        return [int(link.peer[0].rpartition(".")[2]) for link in self.dialogue.links]

    def snapshot(self):
        return self.successResultOf(self.dialogue.carrier.snapshot())

    def gauge(self, name):
        return self.snapshot()["gauges"][name]

    def dropped(self):
        return {reason: count for _, reason, count in self.gauge("udp_dropped")}

    def sessions(self):
        return self.gauge("udp_sessions").get("dns")

    def ended(self):
        """
        Return outcome, sessions, datagrams received and sent, of what has ended.
        """
        return [tuple(row[3:7]) for row in self.snapshot()["udp"]]

    def active(self):
        return {int(row["url"].split(":")[1].rpartition(".")[2]): row["active"] for row in self.gauge("backends")}
