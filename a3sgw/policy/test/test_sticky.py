"""
Tests for `a3sgw.policy.sticky`.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.sticky import NO_REVISION, TOKEN_BYTES, Binding, StickySigner, name_revision, name_server

OLD = b"an old key, of 28 bytes only"
NEW = bytes(range(200))
SERVER = name_server("cart", "http://10.0.0.1:8080")
OTHER = name_server("cart", "http://10.0.0.2:8080")
CANARY = name_revision("cart", "canary")
NOW = 1_800_000_000.0


class NameTests(SynchronousTestCase):
    """
    How servers and revisions are called.
    """

    def test_stable(self):
        """The name of a server is the same on every gateway and in every version."""
        self.assertEqual(name_server("cart", "http://10.0.0.1:8080").hex(), "e6f012f9d08ac8b6")
        self.assertEqual(name_revision("cart", "canary").hex(), "5bb2939f1437097f")

    def test_different(self):
        """Different services, servers and revisions have different names."""
        names = {
            name_server("cart", "http://a"),
            name_server("cart", "http://b"),
            name_server("shop", "http://a"),
            name_server("carth", "ttp://a"),
            name_revision("cart", "http://a"),
            NO_REVISION,
        }
        self.assertEqual(len(names), 6)


class StickySignerTests(SynchronousTestCase):
    """
    `StickySigner` writes and reads tokens.
    """

    def setUp(self):
        self.signer = StickySigner([NEW, OLD], "cart")

    def test_round_trip(self):
        """What was signed is read again, on any gateway with the key."""
        token = self.signer.sign(SERVER, revision=CANARY, expires=int(NOW) + 60)
        again = StickySigner([NEW], "cart")
        self.assertEqual(again.verify(token, NOW), Binding(SERVER, CANARY, int(NOW) + 60, True))

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8), st.integers(0, 2**40 - 1))
    def test_any(self, server, revision, expires):
        """Any names and any end survive."""
        signer = StickySigner([NEW], "cart")
        token = signer.sign(server, revision=revision, expires=expires)
        self.assertEqual(len(token), TOKEN_BYTES)
        self.assertEqual(signer.verify(token, -1.0), Binding(server, revision, expires, True))

    def test_defaults(self):
        """Without revision and end a token is good for ever."""
        self.assertEqual(self.signer.verify(self.signer.sign(SERVER), 1e12), Binding(SERVER, NO_REVISION, 0, True))

    def test_cookie_value(self):
        """A token can stand in a cookie as it is."""
        for number in range(100):
            self.assertIsNotNone(re.fullmatch(rb"[A-Za-z0-9_-]{48}", self.signer.sign(bytes([number] * 8))))

    def test_hidden(self):
        """A token shows neither the server nor whether two tokens name the same one."""
        token = urlsafe_b64decode(self.signer.sign(SERVER, revision=CANARY, expires=int(NOW)))
        later = urlsafe_b64decode(self.signer.sign(SERVER, revision=CANARY, expires=int(NOW) + 1))
        for size in (4, 8):
            for secret in (SERVER[:size], CANARY[:size], int(NOW).to_bytes(5, "big")[-size:]):
                self.assertNotIn(secret, token)
        self.assertFalse({token[at : at + 4] for at in range(33)} & {later[at : at + 4] for at in range(33)})

    def test_stale(self):
        """A token is good before its end and not from then on."""
        token = self.signer.sign(SERVER, expires=int(NOW))
        self.assertIsNotNone(self.signer.verify(token, NOW - 0.001))
        self.assertIsNone(self.signer.verify(token, NOW))
        self.assertIsNone(self.signer.verify(token, NOW + 1))

    def test_changed(self):
        """A token with any of its characters changed is no token."""
        token = self.signer.sign(SERVER)
        for at in range(TOKEN_BYTES):
            for code in b"A_-z":
                changed = token[:at] + bytes([code]) + token[at + 1 :]
                if changed != token:
                    self.assertIsNone(self.signer.verify(changed, NOW))

    def test_malformed(self):
        """What was cut off, lengthened, spelt otherwise or made up is no token."""
        token = self.signer.sign(SERVER)
        for wrong in [
            b"",
            token[:-1],
            token[:-4],
            token + b"A",
            token + b"AAAA",
            token[:-1] + b"=",
            token[:-4] + b"====",
            b" " + token[1:],
            token[:20] + b"\n" + token[21:],
            token[:20] + b"+" + token[21:],
            b"\xff" * TOKEN_BYTES,
            b"A" * TOKEN_BYTES,
            b"http://10.0.0.1:8080",
            SERVER,
        ]:
            self.assertIsNone(self.signer.verify(wrong, NOW), wrong)

    def test_one_spelling(self):
        """Bytes the decoder would pass over do not make another spelling of a token."""
        token = self.signer.sign(SERVER)
        for blank in (b"\n", b"!", b"="):
            self.assertIsNone(self.signer.verify(token + blank * 4, NOW))
            self.assertIsNone(self.signer.verify(blank + token[:-1], NOW))

    def test_foreign(self):
        """A token of another service, or signed with a key not known here, means nothing."""
        for foreign in [StickySigner([NEW], "shop"), StickySigner([NEW], ""), StickySigner([NEW + b"!"], "cart")]:
            self.assertIsNone(self.signer.verify(foreign.sign(SERVER), NOW))

    def test_parts_do_not_mix(self):
        """The signature of one token with the contents of another is no token."""
        first = urlsafe_b64decode(self.signer.sign(SERVER))
        second = urlsafe_b64decode(self.signer.sign(OTHER))
        self.assertIsNotNone(self.signer.verify(urlsafe_b64encode(first), NOW))
        self.assertIsNone(self.signer.verify(urlsafe_b64encode(first[:15] + second[15:]), NOW))
        self.assertIsNone(self.signer.verify(urlsafe_b64encode(second[:15] + first[15:]), NOW))

    def test_rotation(self):
        """Tokens of an old key are read while the key is there, and known as such; new ones bear the first key."""
        old = StickySigner([OLD], "cart").sign(SERVER)
        self.assertEqual(self.signer.verify(old, NOW), Binding(SERVER, NO_REVISION, 0, False))
        self.assertIsNone(StickySigner([NEW], "cart").verify(old, NOW))
        self.assertIsNone(StickySigner([OLD], "cart").verify(self.signer.sign(SERVER), NOW))

    def test_stable(self):
        """Tokens are the same in every version, so that gateways of several can run together."""
        self.assertEqual(self.signer.sign(SERVER, revision=CANARY, expires=int(NOW)), b"1BrJ8UflSNAg-GqAM4Z81BKtlYVAV1Ba47-mNa5joaB8AWjq")

    def test_keys(self):
        """Without a key, or with one that can be guessed, there is no signer; the place is named."""
        self.assertRaises(ValueError, StickySigner, [], "cart")
        error = self.assertRaises(ValueError, StickySigner, [NEW, b"short"], "cart")
        self.assertIn("key 2 for sticky cookies has 5 bytes", str(error))

    def test_long_keys(self):
        """Every byte of a long key matters."""
        token = StickySigner([NEW[:-1] + b"!"], "cart").sign(SERVER)
        self.assertIsNone(self.signer.verify(token, NOW))

    def test_names(self):
        """Only names of the right length are signed."""
        self.assertRaises(ValueError, self.signer.sign, b"short")
        self.assertRaises(ValueError, self.signer.sign, SERVER, revision=b"")

    def test_repr(self):
        """It does not show the keys."""
        self.assertEqual(repr(self.signer), "<StickySigner 2 keys>")


class BindingTests(SynchronousTestCase):
    """
    When a client gets a new token.
    """

    def test_due(self):
        """A new token is due when a tenth of the time is over, or when the old one bears an old key."""
        for expires, is_current, expected in [
            (NOW + 3600, True, False),
            (NOW + 3240, True, False),
            (NOW + 3239, True, True),
            (NOW + 1, True, True),
            (NOW + 3600, False, True),
            (0, True, False),
            (0, False, True),
        ]:
            binding = Binding(SERVER, NO_REVISION, int(expires), is_current)
            self.assertIs(binding.is_due(NOW, 3600), expected, binding)
