"""
Entrypoints: the doors of the gateway, their TLS and their bounds.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

import attrs

from a3sgw.config.kinds import (
    ADDRESS,
    DOMAIN,
    FILE,
    FLAG,
    FOLDER,
    HEADER_NAME,
    HTTP_URL,
    NAME,
    NETWORK,
    SECRET,
    Duration,
    Integer,
    Text,
    Word,
)
from a3sgw.config.setting import ListKind, ObjectKind, ObjectListKind, label, setting
from a3sgw.config.values import Secret

__all__ = [
    "CIPHER_SUITES",
    "AcmeDnsConfig",
    "CertificateConfig",
    "EncodedCharactersConfig",
    "EntrypointConfig",
    "EntrypointTimeoutsConfig",
    "ForwardedHeadersConfig",
    "Http2Config",
    "LimitsConfig",
    "ProxyProtocolConfig",
    "TlsConfig",
]

_HTTP = ("http",)
_STREAMS = ("http", "tcp")
_TCP = ("tcp",)
_UDP = ("udp",)
_ALL = ("http", "tcp", "udp")


CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
"""The suites for TLS 1.2 that there are, best first, by their names at IANA. All have forward secrecy and authenticated encryption."""


def _check_email(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if not (at and local and domain) or not text.isprintable() or " " in text:
        raise ValueError("which is not an e-mail address")
    return text


@attrs.frozen(kw_only=True)
class AcmeDnsConfig:
    """
    The DNS service in which ACME challenges are answered.
    """

    provider: str = setting(Word(("cloudflare", "route53")), "The DNS service.")
    api_token: Secret = setting(SECRET, "Its token; for `route53` the key id and the secret, as `KEYID:SECRET`.")
    zone_id: str | None = setting(NAME, "The zone's id; without it the zone is looked up by its name.", default=None)
    propagation_wait_secs: int = setting(
        Integer(maximum=86400, unit="seconds"), "How long to wait at most until the record is seen everywhere.", default=60
    )


@attrs.frozen(kw_only=True)
class CertificateConfig:
    """
    One certificate and its key.
    """

    cert_file: str = setting(FILE, "PEM file of the certificate chain, leaf first.")
    key_file: str = setting(FILE, "PEM file of the private key.")


@attrs.frozen(kw_only=True)
class TlsConfig:
    """
    TLS on an entrypoint. Give `cert_file` and `key_file`, or `certificates`, or `acme = true`, or several of these.
    """

    cert_file: str | None = setting(FILE, "PEM file of the certificate chain, leaf first; together with `key_file`.", default=None)
    key_file: str | None = setting(FILE, "PEM file of the private key (PKCS#8, PKCS#1 or SEC1).", default=None)
    certificates: tuple[CertificateConfig, ...] = setting(
        ObjectListKind(CertificateConfig), "More certificates; the name the client asks for chooses among all of them.", default=()
    )
    min_version: str = setting(Word(("1.2", "1.3")), "The oldest version of TLS.", default="1.2")
    cipher_suites: tuple[str, ...] = setting(
        ListKind(Word(CIPHER_SUITES)),
        "Which suites are used with TLS 1.2; without them all there are, which are those here, best first. TLS 1.3 has its own.",
        default=(),
    )
    handshake_timeout: float = setting(Duration(), "How long a client may take until both sides agree on TLS.", default=10.0)
    strict_sni: bool = setting(
        FLAG, "Whether clients that ask for a name on none of the certificates are refused; if not, they see the first.", default=False
    )
    client_ca_file: str | None = setting(FILE, "PEM file of the authorities that may vouch for clients.", default=None)
    client_auth: str = setting(
        Word(("none", "optional", "require")), "Whether clients are asked for a certificate; not without `client_ca_file`.", default="none"
    )
    client_subject_header: str | None = setting(
        HEADER_NAME,
        "The header in which servers are told whom the client's certificate is for, as in `CN=alice,O=Example`. What clients send under "
        "this name is removed.",
        default=None,
    )
    acme: bool = setting(FLAG, "Whether certificates are ordered automatically.", default=False, runs=False)
    acme_email: str | None = setting(
        Text("an e-mail address", _check_email), "The contact for the authority; required with `acme`.", default=None
    )
    acme_domains: tuple[str, ...] = setting(
        ListKind(DOMAIN), "The names on the certificate; without them, the hosts in the rules of this entrypoint's routers.", default=()
    )
    acme_staging: bool = setting(FLAG, "Whether Let's Encrypt's staging directory is used.", default=False)
    acme_storage_path: str = setting(FOLDER, "The folder for certificates and the account key.", default="/etc/gateway/acme")
    acme_challenge: str = setting(
        Word(("http-01", "dns-01")),
        "How the authority checks the names; `dns-01` needs `acme_dns` and is needed for wildcards.",
        default="http-01",
    )
    acme_directory_url: str | None = setting(HTTP_URL, "Another authority's directory; without it, Let's Encrypt's.", default=None)
    acme_ca_file: str | None = setting(FILE, "PEM file of the authority of the directory's own HTTPS certificate.", default=None)
    acme_renewal_days: int = setting(
        Integer(minimum=1, maximum=365, unit="days"), "How long before its end a certificate is renewed.", default=30
    )
    acme_eab_kid: str | None = setting(NAME, "Key id of an external account, together with `acme_eab_hmac_key`.", default=None)
    acme_eab_hmac_key: Secret | None = setting(SECRET, "The external account's key.", default=None)
    acme_dns: AcmeDnsConfig | None = setting(ObjectKind(AcmeDnsConfig), "The DNS service for `dns-01`.", default=None)


@attrs.frozen(kw_only=True)
class ForwardedHeadersConfig:
    """
    Which peers are believed when they say, in `X-Forwarded-*` and `Forwarded`, whom they speak for. Everybody else's are dropped.
    """

    trusted_ips: tuple[str, ...] = setting(ListKind(NETWORK), "The proxies in front of this gateway.", default=())


@attrs.frozen(kw_only=True)
class ProxyProtocolConfig:
    """
    Which peers say whom they speak for by the PROXY protocol, version 1 or 2, before anything else.

    They must: a connection of theirs without a valid header is closed. Its client's address is then the one that counts everywhere, also
    for `tcp_allowed_ips` and middlewares. From everybody else nothing of the kind is expected or believed.
    """

    trusted_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "The proxies in front of this gateway.")
    timeout: float = setting(Duration(), "How long the header may take.", default=5.0)


@attrs.frozen(kw_only=True)
class EntrypointTimeoutsConfig:
    """
    How long the gateway waits for clients.
    """

    request_header: float = setting(Duration(), "For a whole request head, from its first byte.", default=10.0)
    request_body: float = setting(Duration(), "For the next piece of a request's body.", default=60.0)
    idle: float = setting(Duration(), "For the next request on a connection.", default=75.0)
    write: float = setting(Duration(), "For the client to take the next piece of a response.", default=60.0)


@attrs.frozen(kw_only=True)
class LimitsConfig:
    """
    How large a request head may be.
    """

    max_header_bytes: int = setting(
        Integer(minimum=256, maximum=2**24, unit="bytes"), "All header fields of a request together; more is answered 431.", default=65536
    )
    max_header_count: int = setting(Integer(minimum=1, maximum=10_000), "How many header fields; more are answered 431.", default=128)
    max_request_line_bytes: int = setting(
        Integer(minimum=64, maximum=2**20, unit="bytes"), "The request line; a longer one is answered 414.", default=8192
    )


@attrs.frozen(kw_only=True)
class Http2Config:
    """
    HTTP/2, which clients agree on under TLS, or begin with on plain text if they know that it is spoken here.
    """

    enabled: bool = setting(FLAG, "Whether HTTP/2 is spoken at all; if not, everybody speaks HTTP/1.1.", default=True)
    max_concurrent_streams: int = setting(
        Integer(minimum=1, maximum=10_000), "How many requests a client may have under way on one connection.", default=250
    )
    stream_window_bytes: int = setting(
        Integer(minimum=65535, maximum=2**24, unit="bytes"),
        "How much of a request's body a client may send that no server has taken yet.",
        default=262144,
    )
    connection_window_bytes: int = setting(
        Integer(minimum=65535, maximum=2**27, unit="bytes"),
        "The same for all requests of a connection together, which bounds what is kept in memory for it.",
        default=1048576,
    )


@attrs.frozen(kw_only=True)
class EncodedCharactersConfig:
    """
    Which ambiguous encodings in paths are let through. Without these the request is answered 400.
    """

    allow_encoded_slash: bool = setting(FLAG, "`%2F`", default=False)
    allow_encoded_backslash: bool = setting(FLAG, "`%5C` and a bare backslash", default=False)
    allow_encoded_null_character: bool = setting(FLAG, "`%00`", default=False)
    allow_malformed_escapes: bool = setting(FLAG, "A percent sign that two hexadecimal digits do not follow", default=False)


@attrs.frozen(kw_only=True)
class EntrypointConfig:
    """
    A place where the gateway listens. At least one is required.
    """

    name: str = label()
    address: str = setting(ADDRESS, "Where to listen; see [addresses](#addresses).")
    protocol: str = setting(
        Word(("http", "tcp", "udp")), "What is spoken there.", default="http"
    )
    tls: TlsConfig | None = setting(ObjectKind(TlsConfig), "TLS.", default=None, protocols=_STREAMS)
    max_connections: int | None = setting(
        Integer(maximum=2**32 - 1),
        "How many connections at a time; more are closed at once. 0 refuses all; without it there is no bound.",
        default=None,
        protocols=_STREAMS,
    )
    tcp_allowed_ips: tuple[str, ...] = setting(
        ListKind(NETWORK),
        "Who may connect, or send; empty means everybody.",
        default=(),
        aliases=("allowed_ips",),
        protocols=_ALL,
    )
    proxy_protocol: ProxyProtocolConfig | None = setting(
        ObjectKind(ProxyProtocolConfig),
        "The PROXY protocol, spoken by load balancers in front.",
        default=None,
        protocols=_STREAMS,
    )
    tcp_hello_timeout: float = setting(
        Duration(),
        "How long a client may take for its first bytes, where the rules of routers need them: then it is routed as one that names no "
        "server. Where no rule needs them, nobody waits.",
        default=5.0,
        protocols=_TCP,
    )
    tcp_idle_timeout: float | None = setting(
        Duration(), "After how long without a byte either way a connection is closed; without it, never.", default=None, protocols=_TCP
    )
    udp_session_timeout_secs: int = setting(
        Integer(minimum=1, maximum=366 * 86400, unit="seconds"),
        "How long a client stays known, and with the same server, while nothing moves either way.",
        default=30,
        protocols=_UDP,
    )
    udp_max_sessions: int = setting(
        Integer(minimum=1, maximum=2**24),
        "How many clients are known at a time; datagrams of others are dropped.",
        default=10_000,
        protocols=_UDP,
    )
    redirect_to: str | None = setting(
        NAME,
        'Where every request is sent on, over HTTPS: the name of the entrypoint with TLS, or a port as in ":443".',
        default=None,
        protocols=_HTTP,
    )
    forwarded_headers: ForwardedHeadersConfig = setting(
        ObjectKind(ForwardedHeadersConfig), "Trust in other proxies.", default=ForwardedHeadersConfig(), protocols=_HTTP
    )
    timeouts: EntrypointTimeoutsConfig = setting(
        ObjectKind(EntrypointTimeoutsConfig), "How long to wait for clients.", default=EntrypointTimeoutsConfig(), protocols=_HTTP
    )
    limits: LimitsConfig = setting(ObjectKind(LimitsConfig), "Bounds of request heads.", default=LimitsConfig(), protocols=_HTTP)
    http2: Http2Config = setting(ObjectKind(Http2Config), "HTTP/2.", default=Http2Config(), protocols=_HTTP)
    allow_underscores_in_headers: bool = setting(
        FLAG,
        "Whether header names may hold underscores. Many servers cannot tell `X_User` from `X-User`, so such a request is answered 400.",
        default=False,
        protocols=_HTTP,
    )
    merge_slashes: bool = setting(FLAG, "Whether `//` in a path is read as `/`.", default=True, protocols=_HTTP)
    encoded_characters: EncodedCharactersConfig = setting(
        ObjectKind(EncodedCharactersConfig), "Ambiguous encodings in paths.", default=EncodedCharactersConfig(), protocols=_HTTP
    )
    middlewares: tuple[str, ...] = setting(
        ListKind(NAME),
        "Middlewares for everything that comes in here, before those of the router.",
        default=(),
        protocols=_ALL,
    )

    @property
    def allowed_ips(self) -> tuple[str, ...]:
        """
        The same as `tcp_allowed_ips`, whose name is older than its use on http entrypoints.
        """
        return self.tcp_allowed_ips
