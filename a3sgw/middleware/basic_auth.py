"""
`basic-auth`: ask for a user's name and password (RFC 7617).
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from a3sgw.config.kinds import FILE, FLAG, HEADER_NAME, SECRET, USER_NAME, Text
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.config.values import Secret
from a3sgw.errors import MiddlewareError, Outcome
from a3sgw.interfaces import IIdentitySource, IRequestHook
from a3sgw.message import LocalResponse, get_all_fields, make_field, remove_fields
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.password import Credentials, PasswordHash, PlainPassword, parse_htpasswd, read_basic
from a3sgw.refusal import refusal

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["BasicAuth", "BasicAuthConfig", "factory"]


def _check_realm(text: str) -> str:
    if not text.isprintable() or not text.isascii() or set(text) & set('"\\'):
        raise ValueError("which holds a quote, a backslash or something that is not printable ASCII")
    return text


@attrs.frozen(kw_only=True)
class BasicAuthConfig:
    """
    Ask for a user's name and password; who has none is answered 401, and browsers ask their user.

    Users are given in one of three ways: `username` with `password` or `password_file`, `users`, or `users_file`. The hashes of the last
    two are those of `htpasswd`: bcrypt, apr1, SHA, and SHA-256 and SHA-512 of crypt.
    """

    type: ClassVar[str] = "basic-auth"
    example: ClassVar[str] = """
        middlewares "team" {
          type       = "basic-auth"
          users_file = "/etc/gateway/team.htpasswd"
          realm      = "Team"
        }
        """

    name: str = label()
    username: str | None = setting(USER_NAME, "The user's name, if there is only one.", default=None)
    password: Secret | None = setting(SECRET, "The password.", default=None)
    password_file: str | None = setting(FILE, "A file that holds the password.", default=None)
    users: tuple[Secret, ...] = setting(ListKind(SECRET, min_items=1), "Lines of `name:hash`.", default=())
    users_file: str | None = setting(FILE, "A file of such lines.", default=None)
    realm: str = setting(Text("a realm", _check_realm), "What browsers say they ask for.", default="Restricted")
    remove_header: bool = setting(FLAG, "Whether servers do not get to see the credentials.", default=False)
    header_field: str | None = setting(HEADER_NAME, "A header that tells servers the user's name.", default=None)

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        ways = [way for way in ("username", "users", "users_file") if getattr(self, way)]
        passwords = [way for way in ("password", "password_file") if getattr(self, way)]
        if not ways:
            yield "", "has no users; give username and password, or users, or users_file"
        elif len(ways) > 1:
            yield ways[1], f"has both {' and '.join(ways)}; give one of them"
        elif ways == ["username"] and len(passwords) != 1:
            both = "has both password and password_file; give one of them"
            yield ("password_file", both) if passwords else ("", "requires password or password_file with username")
        elif ways != ["username"] and passwords:
            yield passwords[0], f"has {passwords[0]} without username; {ways[0]} brings passwords of its own"


class _Bench:
    """
    Lets only so many slow checks run at a time, and others wait in turn: a flood of wrong passwords must not occupy every thread, and what
    else runs in threads. A check whose client has left is not begun.
    """

    AT_A_TIME: Final = 2
    WAITING: Final = 256

    def __init__(self, surroundings: Surroundings, credentials: Credentials) -> None:
        self._in_thread = surroundings.in_thread
        self._credentials = credentials
        self._running = 0
        self._queue: deque[tuple[Deferred[bool], bytes, bytes]] = deque()

    def verify(self, name: bytes, password: bytes) -> Deferred[bool] | None:
        """
        Check a pair when it is its turn; `None` if too many wait already.
        """
        if len(self._queue) >= self.WAITING:
            return None
        # A deferred that was cancelled has been called; its turn is passed over.
        result: Deferred[bool] = Deferred(lambda cancelled: None)
        self._queue.append((result, name, password))
        self._begin()
        return result

    def _begin(self) -> None:
        while self._queue and self._running < self.AT_A_TIME:
            result, name, password = self._queue.popleft()
            if result.called:
                continue
            self._running += 1
            self._in_thread(self._credentials.verify, name, password).addBoth(self._ended, result)

    def _ended(self, outcome: object, result: Deferred[bool]) -> None:
        self._running -= 1
        if not result.called:
            result.callback(outcome)  # type: ignore[arg-type]
        self._begin()


@implementer(IRequestHook, IIdentitySource)
class BasicAuth:
    """
    Checks users, in a thread where their hashes are slow.
    """

    def __init__(self, config: BasicAuthConfig, surroundings: Surroundings) -> None:
        self._seconds = surroundings.seconds
        self._credentials = Credentials(_users_of(config))
        self._bench = _Bench(surroundings, self._credentials)
        self._removes = config.remove_header
        self._field_name = None if config.header_field is None else config.header_field.encode("ascii")
        self.identity_fields = frozenset() if self._field_name is None else frozenset([self._field_name.lower()])
        self._challenge = make_field(b"WWW-Authenticate", f'Basic realm="{config.realm}", charset="UTF-8"'.encode("ascii"))

    def on_request(self, exchange: Exchange) -> LocalResponse | Deferred[LocalResponse | None] | None:
        """
        Let a known user pass.
        """
        head = exchange.head
        assert head is not None
        given = get_all_fields(head.fields, b"authorization")
        pair = read_basic(given[0]) if len(given) == 1 else None
        if pair is None:
            return self._refuse(exchange, "" if given else "Missing Authorization header")
        name, password = pair
        credentials = self._credentials
        if not credentials.is_slow:
            return self._admit(exchange, name) if credentials.verify(name, password) else self._refuse(exchange, "")
        if credentials.recall(name, password, self._seconds()):
            return self._admit(exchange, name)
        checking = self._bench.verify(name, password)
        if checking is None:
            return refusal(Outcome.IN_FLIGHT_LIMIT, head.request_id)
        return checking.addCallback(self._decide, exchange, name, password)

    def _decide(self, is_good: bool, exchange: Exchange, name: bytes, password: bytes) -> LocalResponse | None:
        if not is_good:
            return self._refuse(exchange, "")
        self._credentials.remember(name, password, self._seconds())
        return self._admit(exchange, name)

    def _admit(self, exchange: Exchange, name: bytes) -> LocalResponse | None:
        head = exchange.head
        assert head is not None
        if self._removes:
            remove_fields(head.fields, b"authorization")
        if self._field_name is not None:
            head.fields.append(make_field(self._field_name, name))
        return None

    def _refuse(self, exchange: Exchange, message: str) -> LocalResponse:
        assert exchange.head is not None
        return refusal(Outcome.CREDENTIALS_REFUSED, exchange.head.request_id, [self._challenge], message or "Invalid credentials")


def _users_of(config: BasicAuthConfig) -> dict[str, PasswordHash]:
    if config.username is not None:
        if config.password is not None:
            password = config.password.reveal()
        else:
            password = _read("password_file", config.password_file or "").rstrip("\r\n")
            if not password:
                raise MiddlewareError("password_file", "is empty")
        return {config.username: PlainPassword(password.encode("utf-8", "surrogatepass"))}
    key = "users" if config.users else "users_file"
    text = "\n".join(line.reveal() for line in config.users) if config.users else _read("users_file", config.users_file or "")
    try:
        return _checked(parse_htpasswd(text))
    except ValueError as error:
        raise MiddlewareError(key, f"cannot be used: {error}") from None


def _checked(users: dict[str, PasswordHash]) -> dict[str, PasswordHash]:
    for name in users:
        # The name may become a header's value.
        if not name.isprintable():
            raise ValueError("a user's name holds a control character")
    return users


def _read(key: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError as error:
        raise MiddlewareError(key, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MiddlewareError(key, "is not text in UTF-8") from None


factory = MiddlewareFactory(BasicAuthConfig, BasicAuth)
