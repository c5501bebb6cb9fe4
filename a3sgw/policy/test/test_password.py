"""
Tests of users and passwords.
"""

import base64

import bcrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib.hash import apr_md5_crypt, sha256_crypt, sha512_crypt
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.password import Credentials, PlainPassword, parse_htpasswd, read_basic

HASHES = {
    # The example of Apache's own documentation for {SHA}.
    "sha": "{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=",
    "apr": apr_md5_crypt.using(salt="abcdefgh").hash("myPassword"),
    "crypt5": sha256_crypt.using(salt="abcdefgh", rounds=1000).hash("myPassword"),
    "crypt6": sha512_crypt.using(salt="abcdefgh", rounds=1000).hash("myPassword"),
    "bcrypt": bcrypt.hashpw(b"myPassword", bcrypt.gensalt(4)).decode(),
    "apache": bcrypt.hashpw(b"myPassword", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
}
FILE = "# Users\n\n" + "\n".join(f"{name}:{text}" for name, text in HASHES.items()) + "\n"


class HtpasswdTests(SynchronousTestCase):
    """
    Files as htpasswd writes them.
    """

    def test_every_scheme(self):
        """Each kind of hash knows its password and no other."""
        users = parse_htpasswd(FILE)
        self.assertEqual(list(users), list(HASHES))
        for name, hashed in users.items():
            self.assertTrue(hashed.verify(b"myPassword"), name)
            for wrong in (b"", b"mypassword", b"myPassword ", b"myPassword\0", b"\xff\xfe", b"x" * 100_000):
                self.assertFalse(hashed.verify(wrong), (name, wrong[:20]))
        self.assertEqual([name for name, hashed in users.items() if hashed.is_slow], ["crypt5", "crypt6", "bcrypt", "apache"])

    def test_refused(self):
        """What cannot be read is named with its line, and no hash is shown."""
        for text, part in [
            ("", "no users"),
            ("# only\n", "no users"),
            ("anna", 'line 1 is not "name:hash"'),
            (":x", 'line 1 is not "name:hash"'),
            ("anna:", 'line 1 is not "name:hash"'),
            (f"anna:{HASHES['sha']}\n\nanna:{HASHES['sha']}", 'line 3 has the user "anna" for the second time'),
            ("anna:secret-in-clear", "not hashed in a way known here"),
            ("anna:abJnggxhB/yWI", "the old crypt"),
            ("anna:{SHA}short", "no SHA-1 digest"),
            ("anna:{SHA}" + base64.b64encode(b"x" * 21).decode(), "no SHA-1 digest"),
            ("anna:$2y$05$short", "damaged bcrypt"),
            ("anna:$2y$31$" + "a" * 53, "at most 20"),
            ("anna:$apr1$", "cut off or damaged"),
            ("anna:$6$rounds=1000$", "password"),
        ]:
            error = self.assertRaises(ValueError, parse_htpasswd, text)
            self.assertIn(part, str(error))
            self.assertNotIn("secret-in-clear", str(error))

    @settings(deadline=None, max_examples=100)
    @given(st.text(max_size=80))
    def test_any_text(self, text):
        """Any text is read, or refused with a reason."""
        try:
            parse_htpasswd(text)
        except ValueError as error:
            self.assertTrue(str(error))


class CredentialsTests(SynchronousTestCase):
    """
    `Credentials` tells who is who.
    """

    def test_verify(self):
        """A name and its own password are good, everything else is not."""
        users = Credentials({"anna": PlainPassword(b"one"), "böb": PlainPassword(b"two")})
        self.assertTrue(users.verify(b"anna", b"one"))
        self.assertTrue(users.verify("böb".encode(), b"two"))
        for name, password in [(b"anna", b"two"), (b"Anna", b"one"), (b"", b""), (b"nobody", b"one"), (b"anna", b"one" * 10_000)]:
            self.assertFalse(users.verify(name, password), name)

    def test_unknown_names_take_as_long(self):
        """A name nobody has is checked against a slow hash if anybody has one, and never gets in by that."""
        checked = []

        class Watched(PlainPassword):
            is_slow = True

            def verify(self, password):
                checked.append(password)
                return super().verify(password)

        users = Credentials({"quick": PlainPassword(b"q"), "slow": Watched(b"s")})
        self.assertTrue(users.is_slow)
        self.assertFalse(users.verify(b"nobody", b"s"))
        self.assertEqual(checked, [b"s"])

    def test_memory(self):
        """What was found good is known for a while, by exactly that pair; nothing is known of what was not."""
        users = Credentials({"anna": PlainPassword(b"one")})
        self.assertFalse(users.recall(b"anna", b"one", 0.0))
        users.remember(b"anna", b"one", 0.0)
        self.assertTrue(users.recall(b"anna", b"one", Credentials.SECONDS - 1))
        self.assertFalse(users.recall(b"anna", b"one", Credentials.SECONDS + 1))
        for pair in [(b"anna", b"two"), (b"annao", b"ne"), (b"ann", b"aone")]:
            self.assertFalse(users.recall(*pair, 0.0))

    def test_memory_is_bounded(self):
        """However many pairs are good, only so many are remembered."""
        users = Credentials({"anna": PlainPassword(b"one")})
        for number in range(Credentials.REMEMBERED + 10):
            users.remember(b"anna", b"%d" % number, 0.0)
        self.assertLessEqual(len(users._good), Credentials.REMEMBERED)


class BasicTests(SynchronousTestCase):
    """
    `read_basic` takes what RFC 7617 describes.
    """

    def test_table(self):
        """The scheme is read in any letter case, the pair exactly."""
        pair = base64.b64encode(b"anna:a:b")
        for value, found in [
            (b"Basic " + pair, (b"anna", b"a:b")),
            (b"bAsIc  " + pair, (b"anna", b"a:b")),
            (b"Basic " + base64.b64encode(b":"), (b"", b"")),
            (b"Basic " + base64.b64encode(b"anna"), None),
            (b"Basic", None),
            (b"Basic ", None),
            (b"Basic !!!", None),
            (b"Basic " + pair[:-1], None),
            (b"Basic " + pair + b"=", None),
            (b"Bearer " + pair, None),
            (b"", None),
        ]:
            self.assertEqual(read_basic(value), found, value)

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=80))
    def test_any_bytes(self, value):
        """Whatever comes is read or refused."""
        read_basic(b"Basic " + value)
