"""
Tests for reading the first message of a TLS connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.clienthello import (
    MAX_CLIENT_HELLO_BYTES,
    TLS12,
    TLS13,
    ClientHello,
    ClientHelloError,
    NotTlsError,
    read_client_hello,
)

_ECDSA_P256 = 0x0403


def real_hello(name: bytes | None = b"Shop.Example", alpn: Iterable[bytes] = (), newest: int = SSL.TLS1_3_VERSION) -> bytes:
    """
    Return the ClientHello that OpenSSL sends.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(newest)
    if alpn:
        context.set_alpn_protos(list(alpn))
    connection = SSL.Connection(context, None)
    if name is not None:
        connection.set_tlsext_host_name(name)
    connection.set_connect_state()
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        pass
    return connection.bio_read(65536)


def extension(kind: int, body: bytes) -> bytes:
    """
    Return one extension.
    """
    return kind.to_bytes(2, "big") + vector(2, body)


def vector(width: int, body: bytes) -> bytes:
    """
    Return `body` with its length before it.
    """
    return len(body).to_bytes(width, "big") + body


def made_hello(*extensions: bytes, version: bytes = b"\x03\x03", suites: bytes = b"\x13\x01", rest: bytes | None = None) -> bytes:
    """
    Return a ClientHello in one record. `rest` takes the place of the extensions with their length.
    """
    body = version + bytes(32) + vector(1, b"") + vector(2, suites) + vector(1, b"\0")
    body += vector(2, b"".join(extensions)) if rest is None else rest
    return recorded(b"\x01" + vector(3, body))


def recorded(message: bytes, size: int = 16384) -> bytes:
    """
    Return a handshake message in records with at most `size` bytes of it.
    """
    return b"".join(b"\x16\x03\x01" + vector(2, message[start : start + size]) for start in range(0, len(message), size))


def names(*entries: bytes) -> bytes:
    """
    Return a server name extension with these entries.
    """
    return extension(0, vector(2, b"".join(entries)))


class ClientHelloTests(SynchronousTestCase):
    """
    What a client asks for.
    """

    def test_name(self) -> None:
        """
        The name is that of the client in lower case, without the dot that may stand at its end.
        """
        for sent, name in (
            (b"Shop.Example", b"shop.example"),
            (b"shop.example.", b"shop.example"),
            (b"127.0.0.1", b"127.0.0.1"),
            (None, None),
        ):
            hello = read_client_hello(real_hello(sent))
            assert hello is not None
            self.assertEqual(hello.server_name, name)

    def test_protocols(self) -> None:
        """
        The protocols are those that the client offers, in its order.
        """
        hello = read_client_hello(real_hello(alpn=[b"h2", b"http/1.1"]))
        assert hello is not None
        self.assertEqual(hello.alpn, (b"h2", b"http/1.1"))
        hello = read_client_hello(real_hello())
        assert hello is not None
        self.assertEqual(hello.alpn, ())

    def test_versions(self) -> None:
        """
        The versions are those that the client offers, new clients in an extension, older ones in a field.
        """
        hello = read_client_hello(real_hello())
        assert hello is not None
        self.assertIn(TLS13, hello.versions)
        self.assertIn(_ECDSA_P256, hello.signature_schemes)
        self.assertIn(0x1301, hello.cipher_suites)
        hello = read_client_hello(real_hello(newest=SSL.TLS1_2_VERSION))
        assert hello is not None
        self.assertEqual(hello.versions, (TLS12,))

    def test_old_client(self) -> None:
        """
        A client that knows no extensions asks for nobody.
        """
        hello = read_client_hello(made_hello(rest=b""))
        self.assertEqual(hello, ClientHello(None, (), (TLS12,), (0x1301,), ()))

    def test_other_name_types(self) -> None:
        """
        A name of another type is passed over.
        """
        hello = read_client_hello(made_hello(names(b"\x07" + vector(2, b"\xff"), b"\0" + vector(2, b"a.example"))))
        assert hello is not None
        self.assertEqual(hello.server_name, b"a.example")

    def test_truncation(self) -> None:
        """
        Wherever what has arrived ends, there must be more; and what follows the ClientHello is not looked at.
        """
        whole = real_hello(alpn=[b"http/1.1"])
        expected = read_client_hello(whole)
        self.assertIsNotNone(expected)
        for end in range(len(whole)):
            self.assertIsNone(read_client_hello(whole[:end]), end)
        self.assertEqual(read_client_hello(whole + b"\x17\x03\x03garbage"), expected)

    def test_several_records(self) -> None:
        """
        A ClientHello in records of any size is read like one in a single record.
        """
        whole = real_hello(alpn=[b"http/1.1"])
        expected = read_client_hello(whole)
        for size in (1, 2, 3, 4, 5, 7, 100, 300):
            split = recorded(whole[5:], size)
            self.assertEqual(read_client_hello(split), expected, size)
            for end in range(0, len(split), 1 if size > 3 else 7):
                self.assertIsNone(read_client_hello(split[:end]), (size, end))


class RefusalTests(SynchronousTestCase):
    """
    What is no ClientHello.
    """

    def refused(self, data: bytes) -> ClientHelloError:
        """
        Return the error for `data`.
        """
        try:
            hello = read_client_hello(data)
        except ClientHelloError as error:
            return error
        self.fail(f"read as {hello}")

    def test_other_protocols(self) -> None:
        """
        Another protocol is known by its first bytes.
        """
        alert, ssl2 = b"\x15\x03\x01\0\x02\x02\x28", b"\x80\x2e\x01\x03\x01"
        for data in (b"G", b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16G", alert, ssl2, b"\0"):
            with self.subTest(data):
                self.assertIsInstance(self.refused(data), NotTlsError)

    def test_records(self) -> None:
        """
        Records that are empty, too long, of another kind or version are refused, as soon as their header has arrived.
        """
        first = b"\x16\x03\x01\0\x02\x01\0"
        for data in (
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x40\x01\x01\0\0\x99",
            first + b"\x17",
            first + b"\x17\x03\x01\0\x02",
            first + b"\x16\x02\x01\0\x02",
            first + b"\x16\x03\x01\0\0",
        ):
            with self.subTest(data):
                self.refused(data)

    def test_messages(self) -> None:
        """
        Another message, and one that is too long, are refused before they have arrived.
        """
        for data in (
            recorded(b"\x02" + vector(3, bytes(300)))[:9],
            recorded(b"\x02" + vector(3, bytes(300)))[:20],
            b"\x16\x03\x01\x40\x00\x01\x01\x00\x01",
            recorded(b"\x01\x01\x00\x01", 1),
        ):
            with self.subTest(data):
                self.refused(data)

    def test_bound(self) -> None:
        """
        A ClientHello that does not end within the bound, or comes in too many records, is refused.
        """
        endless = recorded(b"\x01" + vector(3, bytes(MAX_CLIENT_HELLO_BYTES)), 100)
        self.assertIsNone(read_client_hello(endless[: MAX_CLIENT_HELLO_BYTES - 1]))
        self.refused(endless[:MAX_CLIENT_HELLO_BYTES])
        self.refused(recorded(b"\x01" + vector(3, bytes(5000)), 1))

    def test_fields(self) -> None:
        """
        A field that is longer than what holds it, or shorter, is refused and read by nobody.
        """
        name = b"\0" + vector(2, b"a.example")
        for case, data in {
            "name beyond its list": made_hello(extension(0, b"\0\x0c\0\x00\xff" + b"a.example")),
            "list of names beyond its extension": made_hello(extension(0, b"\0\xff" + name)),
            "bytes after the list of names": made_hello(extension(0, vector(2, name) + b"\0")),
            "no name in the list": made_hello(names()),
            "extension beyond its block": made_hello(rest=b"\0\x06\0\0\0\xff\0\0"),
            "block of extensions beyond the message": made_hello(rest=b"\xff\xff\0\0"),
            "bytes after the extensions": made_hello(rest=b"\0\0\0"),
            "half a length": made_hello(rest=b"\0"),
            "cipher suites of odd length": made_hello(suites=b"\x13\x01\x13"),
            "no cipher suites": made_hello(suites=b""),
            "empty protocol": made_hello(extension(16, vector(2, b"\0"))),
            "no protocols": made_hello(extension(16, vector(2, b""))),
            "no versions": made_hello(extension(43, vector(1, b""))),
            "half a version": made_hello(extension(43, vector(1, b"\x03"))),
            "SSL 2": made_hello(version=b"\x02\0"),
            "nothing": recorded(b"\x01\0\0\0"),
        }.items():
            with self.subTest(case):
                self.refused(data)

    def test_ambiguous_names(self) -> None:
        """
        Where two readers could find two names, neither does.
        """
        first, second = (b"\0" + vector(2, text) for text in (b"a.example", b"b.example"))
        for case, data in {
            "two names": made_hello(names(first, second)),
            "two extensions": made_hello(names(first), names(second)),
            "zero byte": made_hello(names(b"\0" + vector(2, b"a.example\0.b.example"))),
            "line break": made_hello(names(b"\0" + vector(2, b"a.example\r\n"))),
            "not ASCII": made_hello(names(b"\0" + vector(2, "ä.example".encode()))),
            "empty": made_hello(names(b"\0" + vector(2, b""))),
            "too long": made_hello(names(b"\0" + vector(2, b"a" * 256))),
        }.items():
            with self.subTest(case):
                self.refused(data)

    def test_last_words(self) -> None:
        """
        The client is told by an alert of the TLS record protocol.
        """
        self.assertEqual(self.refused(made_hello(suites=b"")).last_words, b"\x15\x03\x01\0\x02\x02\x32")
        self.assertEqual(self.refused(b"\x16\x03\x01\0\0").last_words, b"\x15\x03\x01\0\x02\x02\x0a")

    def test_mutations(self) -> None:
        """
        Twenty thousand damaged ClientHellos are read, waited for or refused, and nothing else.
        """
        chance = random.Random(20261)
        seeds = [
            real_hello(alpn=[b"h2", b"http/1.1"]),
            real_hello(None, newest=SSL.TLS1_2_VERSION),
            recorded(real_hello()[5:], 50),
            made_hello(names(b"\0" + vector(2, b"a.example")), extension(16, vector(2, vector(1, b"h2")))),
        ]
        seen: set[type] = set()
        for number in range(20_000):
            data = bytearray(seeds[number % len(seeds)])
            for _ in range(chance.randint(1, 4)):
                place = chance.randrange(len(data))
                kind = chance.randrange(4)
                if kind == 0:
                    data[place] = chance.randrange(256)
                elif kind == 1:
                    data[place] ^= 1 << chance.randrange(8)
                elif kind == 2:
                    del data[place : place + chance.randint(1, 8)]
                else:
                    data[place:place] = chance.randbytes(chance.randint(1, 8))
                if not data:
                    break
            try:
                seen.add(type(read_client_hello(bytes(data))))
            except ClientHelloError as error:
                seen.add(type(error))
        self.assertEqual(seen, {ClientHello, type(None), ClientHelloError, NotTlsError})
