"""
Tests of listening sockets that somebody else has opened.
"""

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.listen.inherited import HANDOVER, Inherited, notify_supervisor


class InheritedTests(SynchronousTestCase):
    """
    Which of them is used for what.
    """

    def listen(self):
        """
        Return a listening socket, and its port.
        """
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        return sock, sock.getsockname()[1]

    def listen_for_datagrams(self, host="127.0.0.1"):
        """
        Return a UDP socket, and its port.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind((host, 0))
        return sock, sock.getsockname()[1]

    def bind_anew(self, name, host, port):
        return f"new {name}"

    def bind_datagrams_anew(self, name, host, port):
        return f"new {name} for datagrams"

    def test_by_address(self):
        """A socket is used where it listens already, once; everything else is bound anew."""
        sock, port = self.listen()
        inherited = Inherited([("", sock)], None, self.bind_anew)
        self.assertEqual(inherited.bind("web", "127.0.0.1", port + 1), "new web")
        self.assertEqual(inherited.bind("web", "", port), "new web")
        self.assertEqual(inherited.bind("web", "127.0.0.1", 0), "new web")
        self.assertIs(inherited.bind("web", "127.0.0.1", port), sock)
        self.assertEqual(sock.getblocking(), False)
        self.assertEqual(inherited.bind("web", "127.0.0.1", port), "new web")
        self.assertEqual(inherited.begin(), [])

    def test_by_name(self):
        """A socket with the name of an entrypoint is used for it, whatever its address."""
        sock, _ = self.listen()
        inherited = Inherited([("web", sock)], None, self.bind_anew)
        self.assertEqual(inherited.bind("other", "127.0.0.1", 80), "new other")
        self.assertIs(inherited.bind("web", "127.0.0.1", 80), sock)

    def test_datagrams(self):
        """A UDP socket is found in the same way, and never used for connections, nor the other way round."""
        for by_name in (False, True):
            sock, port = self.listen_for_datagrams()
            stream, stream_port = self.listen()
            sockets = [("dns" * by_name, sock), ("dns" * by_name, stream)]
            inherited = Inherited(sockets, None, self.bind_anew, self.bind_datagrams_anew)
            self.assertEqual(inherited.udp_places(), [f"127.0.0.1:{port}/udp"])
            self.assertEqual(inherited.bind_datagrams("web", "127.0.0.1", port + 1), "new web for datagrams")
            self.assertEqual(inherited.bind("web", "127.0.0.1", port), "new web")
            self.assertEqual(inherited.bind_datagrams("web", "127.0.0.1", stream_port), "new web for datagrams")
            self.assertIs(inherited.bind_datagrams("dns", "127.0.0.1", 53 if by_name else port), sock)
            self.assertEqual(sock.getblocking(), False)
            self.assertEqual(inherited.bind_datagrams("dns", "127.0.0.1", port), "new dns for datagrams")
            self.assertIs(inherited.bind("dns", "127.0.0.1", stream_port), stream)
            self.assertEqual((inherited.begin(), inherited.udp_places()), ([], []))

    def test_other_families(self):
        """A socket of another family is nobody's, whatever its name, and told of."""
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(socket.AF_UNIX, kind)
            self.addCleanup(sock.close)
            inherited = Inherited([("web", sock)], None, self.bind_anew, self.bind_datagrams_anew)
            self.assertEqual(inherited.bind("web", "127.0.0.1", 80), "new web")
            self.assertEqual(inherited.bind_datagrams("web", "127.0.0.1", 80), "new web for datagrams")
            self.assertEqual(len(inherited.begin()), 1)

    def test_datagrams_everywhere(self):
        """A UDP socket at every address of the machine is one for an entrypoint without a host."""
        sock, port = self.listen_for_datagrams("0.0.0.0")
        inherited = Inherited([("", sock)], None, self.bind_anew, self.bind_datagrams_anew)
        self.assertEqual(inherited.bind_datagrams("dns", "127.0.0.1", port), "new dns for datagrams")
        self.assertIs(inherited.bind_datagrams("dns", "", port), sock)

    def test_unwanted_datagrams(self):
        """A UDP socket that nobody wanted is closed and named as what it is."""
        sock, port = self.listen_for_datagrams()
        self.assertEqual(Inherited([("", sock)]).begin(), [f"127.0.0.1:{port}/udp"])
        self.assertEqual(sock.fileno(), -1)

    def test_begin(self):
        """When the gateway runs, the predecessor is told, and what nobody wanted is closed and named."""
        sock, port = self.listen()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        inherited = Inherited([("", sock)], write, self.bind_anew)
        self.assertEqual(inherited.begin(), [f"127.0.0.1:{port}"])
        self.assertEqual(sock.fileno(), -1)
        self.assertEqual((os.read(read, 10), os.read(read, 10)), (b"ready\n", b""))
        self.assertEqual(inherited.begin(), [])

    def test_handover(self):
        """A predecessor names descriptors, the first of which is to be reported to; no child of ours is told of them."""
        sock, port = self.listen()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        environ = {HANDOVER: f"{write},{sock.detach()}", "OTHER": "x"}
        inherited = Inherited.from_environ(environ, 1)
        self.assertEqual(environ, {"OTHER": "x"})
        found = inherited.bind("web", "127.0.0.1", port)
        self.addCleanup(found.close)
        self.assertEqual((found.getsockname()[1], found.get_inheritable()), (port, False))
        inherited.begin()
        self.assertEqual(os.read(read, 10), b"ready\n")

    def test_for_another_process(self):
        """What systemd has told another process is not for us."""
        environ = {"LISTEN_PID": "1", "LISTEN_FDS": "5", "LISTEN_FDNAMES": "a:b"}
        inherited = Inherited.from_environ(environ, 2)
        self.assertEqual((environ, inherited.begin()), ({}, []))

    def test_notify(self):
        """The supervisor is told; one that is not there does not matter."""
        name = f"a3sgw-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind("\0" + name)
            notify_supervisor(f"@{name}", "READY=1")
            self.assertEqual(sock.recv(100), b"READY=1")
        notify_supervisor("/nowhere/notify", "READY=1")
        notify_supervisor(None, "READY=1")
