"""
The certificates of an entrypoint: which one a client is shown, and on what terms.

The choice is made from the ClientHello, before OpenSSL sees a byte, and a connection keeps the settings it began with. So the oldest
version and the ciphers hold for every name, and nothing has to change under a handshake.

Files are looked at again when somebody shakes hands or asks how things stand, at most every `LOOK_SECONDS`. What has changed is taken up
for new connections. A file that became useless changes nothing but the log: what was good is shown on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.logger import Logger

from a3sgw.config.model_entrypoint import CIPHER_SUITES
from a3sgw.net.pem import PemError, parse_certificates, parse_key, read_certificates, read_file
from a3sgw.net.tls_stream import describe_error
from a3sgw.wire.clienthello import TLS13, ClientHello

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["CertificateFiles", "Certificates", "Credential", "ServerTerms", "load_credential"]

# AES with 128 bits first: it is the fastest, and nobody is known to do better against it than against 256.
_TLS13_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# Of OpenSSL: a client that likes ChaCha20 best has no AES in hardware.
_OP_PRIORITIZE_CHACHA: Final = 1 << 21
# RFC 5289, RFC 7905.
_ECDSA_SUITES: Final = (0xC02B, 0xC02C, 0xCCA9)
# RFC 8446 section 4.2.3.
_CURVE_SCHEMES: Final = {"secp256r1": 0x0403, "secp384r1": 0x0503, "secp521r1": 0x0603}


@attrs.frozen(slots=True)
class CertificateFiles:
    """
    Where a certificate and its key are; `place` is what stands before the names of the two attributes in the configuration.
    """

    cert_file: str
    key_file: str
    place: str = ""

    @property
    def paths(self) -> tuple[str, str]:
        """
        Both.
        """
        return self.cert_file, self.key_file


@attrs.frozen(slots=True)
class ServerTerms:
    """
    How an entrypoint meets its clients.

    `files` are the certificates, the default one first. `cipher_suites` are some of `CIPHER_SUITES`, empty for all. With `client_ca_file`,
    clients are asked for a certificate of its authorities, and `needs_client` says that nobody comes in without. `is_strict` says that a
    name which is on no certificate is refused. `protocols` are those of ALPN, best first.
    """

    files: tuple[CertificateFiles, ...]
    min_version: str = "1.2"
    cipher_suites: tuple[str, ...] = ()
    client_ca_file: str | None = None
    needs_client: bool = False
    is_strict: bool = False
    protocols: tuple[bytes, ...] = ()


class Credential:
    """
    A certificate that can be shown: the names on it, when it ends (seconds since 1970), and the settings for connections that see it.
    """

    __slots__ = ("context", "expires", "names", "scheme", "title")

    def __init__(self, certificate: Certificate, context: SSL.Context) -> None:
        self.context = context
        self.expires = certificate.not_valid_after_utc.timestamp()
        self.names = _names(certificate)
        self.scheme = _scheme(certificate.public_key())
        self.title = b", ".join(sorted(self.names)).decode("latin-1") or certificate.subject.rfc4514_string()

    def __repr__(self) -> str:
        return f"<Credential for {self.title}>"

    def suits(self, hello: ClientHello) -> bool:
        """
        Say whether the client can verify what the key signs.
        """
        if not self.scheme:
            return True
        if self.scheme not in hello.signature_schemes:
            return False
        # In TLS 1.2 the cipher suite has to agree, for which it is enough that one does: ours are chosen by the server's liking.
        return TLS13 in hello.versions or any(number in hello.cipher_suites for number in _ECDSA_SUITES)


def _names(certificate: Certificate) -> frozenset[bytes]:
    """
    Return the names that a client may ask for to be shown this; the common name counts if there are no others.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = extension.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        found = []
    if not found:
        found = [str(each.value) for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return frozenset(name.lower().rstrip(".").encode("utf-8", "replace") for name in found)


def _scheme(key: Any) -> int:
    """
    Return the signature scheme that a client must know for a key of an elliptic curve; 0 for RSA, which all know.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVE_SCHEMES.get(key.curve.name, 0)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return 0x0807
    return 0x0808 if isinstance(key, ed448.Ed448PublicKey) else 0


def load_credential(files: CertificateFiles, terms: ServerTerms, authorities: Sequence[Certificate]) -> Credential:
    """
    Return what the files hold, to be shown on these terms. Raises `PemError`.
    """
    cert_place, key_place = f"{files.place}cert_file", f"{files.place}key_file"
    chain = parse_certificates(cert_place, read_file(cert_place, files.cert_file))
    key = parse_key(key_place, read_file(key_place, files.key_file), chain)
    try:
        return Credential(chain[0], _make_context(chain, key, terms, authorities))
    except SSL.Error as error:
        raise PemError(cert_place, f"cannot be used: {describe_error(error)}") from None


def _make_context(chain: Sequence[Certificate], key: Any, terms: ServerTerms, authorities: Sequence[Certificate]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION if terms.min_version == "1.3" else SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_SINGLE_ECDH_USE | _OP_PRIORITIZE_CHACHA
    )
    # Idle connections hold no buffers, and sessions are in the tickets of the clients.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    suites = [_openssl_name(name) for name in CIPHER_SUITES if not terms.cipher_suites or name in terms.cipher_suites]
    context.set_cipher_list(":".join(suites).encode("ascii"))
    context.set_tls13_ciphersuites(_TLS13_SUITES)
    context.use_certificate(chain[0])
    for link in chain[1:]:
        context.add_extra_chain_cert(link)
    context.use_privatekey(key)
    if terms.protocols:
        context.set_alpn_select_callback(_selector(terms.protocols))
    digest = hashlib.sha256(repr(terms).encode("utf-8"))
    if authorities:
        store = context.get_cert_store()
        assert store is not None
        for authority in authorities:
            digest.update(authority.tbs_certificate_bytes)
            store.add_cert(X509.from_cryptography(authority))
            context.add_client_ca(X509.from_cryptography(authority))
        context.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if terms.needs_client else 0))
    # A session can be resumed where a client would be believed for the same reasons.
    context.set_session_id(digest.digest())
    return context


def _openssl_name(suite: str) -> str:
    """
    Return what OpenSSL calls a cipher suite of TLS 1.2.
    """
    name = suite.removeprefix("TLS_").replace("WITH_AES_", "AES").replace("WITH_", "").replace("_", "-")
    return name.removesuffix("-SHA256") if "POLY1305" in name else name


def _selector(protocols: tuple[bytes, ...]) -> Callable[[SSL.Connection, list[bytes]], Any]:
    def select(connection: SSL.Connection, offered: list[bytes]) -> Any:
        return next((protocol for protocol in protocols if protocol in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    return select


Look = tuple[tuple[int, int, int] | None, ...]


def _look_at(paths: Sequence[str]) -> Look:
    """
    Return something that differs when the files do.
    """
    looks: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            looks.append(None)
        else:
            looks.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(looks)


class Certificates:
    """
    What the entrypoint called `name` shows its clients. Raises `PemError` when made, never later.

    `seconds` is the clock for looking at the files, `wall_clock` the one that certificates go by.
    """

    LOOK_SECONDS: Final = 2.0
    _log = Logger()

    def __init__(self, name: str, terms: ServerTerms, seconds: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._name = name
        self._terms = terms
        self._seconds = seconds
        self._wall_clock = wall_clock
        self._next_look = seconds() + self.LOOK_SECONDS
        self._authorities_look = self._look_at_authorities()
        self._authorities = self._read_authorities()
        self._looks = [_look_at(files.paths) for files in terms.files]
        self._credentials = [load_credential(files, terms, self._authorities) for files in terms.files]
        self._arrange()

    def __repr__(self) -> str:
        return f"<Certificates of {self._name}: {'; '.join(each.title for each in self._credentials)}>"

    # -- choosing

    def choose(self, hello: ClientHello) -> Credential | None:
        """
        Return what the client is shown; `None` if the name it asks for is on no certificate and that is not to be.

        Of several with the name, those with elliptic curves come first, which cost a fifth of RSA, for clients that know them.
        """
        if self._seconds() >= self._next_look:
            self.look()
        name = hello.server_name
        found = None
        if name is not None:
            found = self._by_name.get(name) or self._by_name.get(b"*." + name.partition(b".")[2])
        if found is None:
            if self._terms.is_strict and name is not None:
                return None
            found = self._default
        return next((each for each in found if each.suits(hello)), found[-1])

    def expiries(self) -> list[tuple[str, float]]:
        """
        Return when each certificate ends, in seconds since 1970, by the names on it.
        """
        if self._seconds() >= self._next_look:
            self.look()
        return [(each.title, each.expires) for each in self._credentials]

    def _arrange(self) -> None:
        by_name: dict[bytes, list[Credential]] = {}
        for each in sorted(self._credentials, key=lambda each: not each.scheme):
            for name in each.names:
                by_name.setdefault(name, []).append(each)
        self._by_name = by_name
        first = self._credentials[0]
        # Another certificate for the same names is for the same clients.
        self._default = by_name[min(first.names)] if first.names else [first]
        now = self._wall_clock()
        for each in self._credentials:
            if each.expires < now:
                self._log.error("entrypoint {name} shows a certificate that has expired: {title}", name=self._name, title=each.title)

    # -- watching

    def look(self) -> None:
        """
        Take up what has changed in the files.
        """
        self._next_look = self._seconds() + self.LOOK_SECONDS
        authorities_look = self._look_at_authorities()
        is_new_trust = authorities_look != self._authorities_look
        if is_new_trust:
            self._authorities_look = authorities_look
            try:
                self._authorities = self._read_authorities()
            except PemError as error:
                self._complain(error)
                is_new_trust = False
        changed = False
        for index, files in enumerate(self._terms.files):
            look = _look_at(files.paths)
            if look == self._looks[index] and not is_new_trust:
                continue
            self._looks[index] = look
            try:
                self._credentials[index] = load_credential(files, self._terms, self._authorities)
            except PemError as error:
                self._complain(error)
            else:
                changed = True
                self._log.info("entrypoint {name} shows a new certificate: {title}", name=self._name, title=self._credentials[index].title)
        if changed:
            self._arrange()

    def _complain(self, error: PemError) -> None:
        self._log.error(
            "TLS error: entrypoint {name}: {attribute} {reason}; what was read before is used on",
            name=self._name,
            attribute=error.attribute,
            reason=error.reason,
        )

    def _look_at_authorities(self) -> Look:
        return () if self._terms.client_ca_file is None else _look_at([self._terms.client_ca_file])

    def _read_authorities(self) -> Sequence[Certificate]:
        path = self._terms.client_ca_file
        return () if path is None else read_certificates("client_ca_file", path)
