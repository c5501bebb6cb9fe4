"""
Tests of users and passwords.
"""

import base64

import bcrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib.hash import apr_md5_crypt, sha256_crypt, sha512_crypt
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.password import Credentials, PlainPassword, parse_htpasswd, read_basic, read_hash

HASHES = {
    # The example of Apache's own documentation for {SHA}.
    "sha": "{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=",
    "apr": apr_md5_crypt.using(salt="abcdefgh").hash("myPassword"),
    "crypt5": sha256_crypt.using(salt="abcdefgh", rounds=1000).hash("myPassword"),
    "crypt6": sha512_crypt.using(salt="abcdefgh", rounds=1000).hash("myPassword"),
    "bcrypt": bcrypt.hashpw(b"myPassword", bcrypt.gensalt(4)).decode(),
    "apache": bcrypt.hashpw(b"myPassword", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
}
PARSED = {name: read_hash(text) for name, text in HASHES.items()}
FILE = "# Users\n\n" + "\n".join(f"{name}:{text}" for name, text in HASHES.items()) + "\n"

# What OpenSSL (`openssl passwd`) and libxcrypt's crypt(3) make of a password.
FOREIGN = [
    ("correct horse", "$apr1$saltsalt$EGVZDNN6gOqijy.tv9axG/"),
    ("pässword", "$apr1$ab$fGW6NJ7kMZj/0UCz7DMr/."),
    ("correct horse", "$5$saltsalt$myjXcpMpE2Ofk7fj9hqyNYSn6lmWG4Mqnjx.KIRRr4/"),
    ("correct horse", "$5$rounds=1000$saltsalt$R6e4P8ccT9iMqkYg7Z8YtpId/lfsIfnuPkp8WXposU8"),
    ("correct horse", "$6$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0"),
    ("correct horse", "$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"),
    ("correct horse", "$2a$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"),
]


class Watched(PlainPassword):
    """
    A stored password that keeps what it is asked.
    """

    is_slow = True

    def __init__(self, password):
        super().__init__(password)
        self.checked = []

    def verify(self, password):
        self.checked.append(password)
        return super().verify(password)


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
        self.assertEqual([name for name, hashed in users.items() if hashed.is_slow], ["apr", "crypt5", "crypt6", "bcrypt", "apache"])

    def test_foreign_hashes(self):
        """Hashes that other programs made know their password and no other."""
        for password, text in FOREIGN:
            hashed = read_hash(text)
            self.assertTrue(hashed.verify(password.encode()), text)
            self.assertFalse(hashed.verify(password.encode() + b"x"), text)

    def test_longest(self):
        """A password as long as its scheme can take is good; a longer one is not cut to fit."""
        for longest, text in [
            (b"a" * 72, bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()),
            (b"a" * 255, apr_md5_crypt.hash("a" * 255)),
            (b"a" * 255, sha512_crypt.using(rounds=1000).hash("a" * 255)),
        ]:
            hashed = read_hash(text)
            self.assertTrue(hashed.verify(longest), text)
            self.assertFalse(hashed.verify(longest + b"a"), text)
        self.assertFalse(read_hash(apr_md5_crypt.hash("a" * 256)).verify(b"a" * 256))

    def test_comments(self):
        """What Apache and nginx pass over in such a file is passed over here."""
        users = parse_htpasswd("\ufeff  # Team\r\nanna:{}:Anna A.\r\n\r\nböb:{} \n".format(HASHES["bcrypt"], HASHES["sha"]))
        self.assertEqual(list(users), ["anna", "böb"])
        self.assertTrue(users["anna"].verify(b"myPassword"))
        self.assertTrue(users["böb"].verify(b"myPassword"))

    def test_nothing_shown(self):
        """Printing a stored password shows nothing of it."""
        for text in HASHES.values():
            self.assertNotIn(text[-8:], repr(read_hash(text)))
        self.assertEqual(repr(PlainPassword(b"secret")), "<PlainPassword>")
        self.assertEqual(repr(Credentials({"anna": PlainPassword(b"secret")})), "<Credentials of 1 users>")

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
            ("anna:$2y$10$" + "a" * 21 + "z" + "a" * 31, "damaged bcrypt"),
            ("anna:$2y$17$" + "a" * 21 + "u" + "a" * 31, "at most 16"),
            ("anna:$2y$32$" + "a" * 21 + "u" + "a" * 31, "damaged bcrypt"),
            ("anna:$2x$10$" + "a" * 21 + "u" + "a" * 31, "early, faulty bcrypt"),
            ("anna:$apr1$", "cut off or damaged"),
            ("anna:$6$rounds=1000$", "cut off or damaged"),
            ("anna:$6$rounds=999$abc$" + "a" * 86, "cut off or damaged"),
            ("anna:$6$rounds=5000001$abc$" + "a" * 86, "at most 5000000"),
            ("anna:$1$abcdefgh$" + "a" * 22, "MD5 crypt ($1$)"),
            ("anna:$y$j9T$abc$def", "yescrypt"),
            ("anna:$7$abc", "by scrypt"),
            ("anna:$argon2id$v=19$m=1,t=1,p=1$YQ$YQ", "Argon2"),
            ("anna:{SSHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", "salted SHA-1"),
            ("an\tna:x", "line 1 has a user whose name cannot be printed"),
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
        """A name nobody has is checked like some user's, always the same one's, and never gets in by that."""
        stored = {f"user{number}": Watched(b"p%d" % number) for number in range(4)}
        names = [b"nobody%d" % number for number in range(40)]
        chosen = {}
        for users in (Credentials(stored), Credentials(dict(reversed(stored.items())))):
            self.assertTrue(users.is_slow)
            for name in names:
                self.assertFalse(any(users.verify(name, b"p%d" % number) for number in range(4)), name)
                (user,) = (user for user, hashed in stored.items() if hashed.checked)
                self.assertEqual(len(stored[user].checked), 4)
                self.assertEqual(chosen.setdefault(name, user), user)
                stored[user].checked.clear()
        # Every user is somebody's, or those whose password is of another kind would stand out.
        self.assertEqual(set(chosen.values()), set(stored))

    def test_known_names_are_checked_once(self):
        """A known name is checked against its own password alone."""
        stored = {"anna": Watched(b"a"), "bert": Watched(b"b")}
        self.assertFalse(Credentials(stored).verify(b"anna", b"b"))
        self.assertEqual((stored["anna"].checked, stored["bert"].checked), ([b"b"], []))

    def test_nobody(self):
        """Without any users nothing would ever be good, which is refused."""
        self.assertRaises(ValueError, Credentials, {})

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
        known = sum(users.recall(b"anna", b"%d" % number, 0.0) for number in range(Credentials.REMEMBERED + 10))
        self.assertEqual(known, Credentials.REMEMBERED)


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
            # Padding that is too much, and bits that no byte owns.
            (b"Basic YTpi", (b"a", b"b")),
            (b"Basic YTpi=", None),
            (b"Basic YTpi==", None),
            (b"Basic YTo=", (b"a", b"")),
            (b"Basic YTp=", None),
            (b"Basic " + base64.b64encode(b"anna:a\0b"), None),
            (b"Basic " + base64.b64encode(b"an\r\nna:b"), None),
            (b"Basic " + base64.b64encode(b"\xff:\xfe"), (b"\xff", b"\xfe")),
            (b"Basic " + base64.b64encode(b"a:" + b"x" * 1_000_000), (b"a", b"x" * 1_000_000)),
            (b"Bearer " + pair, None),
            (b"", None),
        ]:
            self.assertEqual(read_basic(value), found, value)

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=80))
    def test_any_bytes(self, value):
        """Whatever comes is refused, or was what an encoder makes of the pair."""
        pair = read_basic(b"Basic " + value)
        if pair is not None:
            self.assertEqual(base64.b64encode(b":".join(pair)), value.strip(b" "))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=60))
    def test_any_password(self, password):
        """Whatever is sent as a password is good or not, and nothing else happens."""
        for name in ("sha", "apr", "crypt5", "bcrypt"):
            self.assertEqual(PARSED[name].verify(password), password == b"myPassword")
