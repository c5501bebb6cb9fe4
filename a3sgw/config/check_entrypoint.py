"""
Check entrypoints: attributes against the protocol, TLS against itself, and addresses against each other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from a3sgw.config.address import LISTEN_ANY, parse_listen_address
from a3sgw.config.finding import Findings
from a3sgw.config.model import EntrypointConfig, GatewayConfig, TlsConfig
from a3sgw.config.setting import settings_of
from a3sgw.config.wording import item_path, quote

__all__ = ["check_entrypoints"]


def check_entrypoints(config: GatewayConfig, findings: Findings) -> None:
    """
    Report what is wrong with the entrypoints, taken one by one and together.
    """
    if not config.entrypoints and not findings.is_broken("entrypoints"):
        findings.report("", 'there is no entrypoint; at least one is required, as in entrypoints "web" { address = ":8080" }')
    for name, entrypoint in config.entrypoints.items():
        path = item_path("entrypoints", name)
        _check_protocol(path, entrypoint, findings)
        if entrypoint.tls is not None:
            _check_tls(f"{path}.tls", entrypoint.tls, findings)
        if entrypoint.redirect_to is not None:
            _check_redirect(f"{path}.redirect_to", entrypoint, entrypoint.redirect_to, config, findings)
    _check_addresses(config, findings)


def _check_protocol(path: str, entrypoint: EntrypointConfig, findings: Findings) -> None:
    for declared in settings_of(EntrypointConfig):
        if not declared.protocols or entrypoint.protocol in declared.protocols:
            continue
        place = f"{path}.{declared.key}"
        if getattr(entrypoint, declared.attribute) != declared.default or findings.is_written(place):
            message = f"{place} is for {' and '.join(declared.protocols)} entrypoints only, and this one speaks {entrypoint.protocol}"
            findings.report(place, message, [f"{path}.protocol"])


def _check_redirect(place: str, entrypoint: EntrypointConfig, target: str, config: GatewayConfig, findings: Findings) -> None:
    shown = f"{place} is {findings.show(place, target)}"
    depends = [item_path("entrypoints", target)]
    if entrypoint.tls is not None:
        findings.report(place, f"{place} is for entrypoints without TLS, and this one has it")
    elif target.startswith(":"):
        if not (target[1:].isdecimal() and target.isascii() and 0 < int(target[1:]) < 65536):
            findings.report(place, f'{shown}, expected a port like ":443" or the name of an entrypoint')
    elif target not in config.entrypoints:
        hint = findings.hint(place, target, config.entrypoints) or ", which does not exist"
        findings.report(place, f"entrypoint {quote(entrypoint.name)} redirects to entrypoint {findings.show(place, target)}{hint}", depends)
    elif config.entrypoints[target].tls is None or config.entrypoints[target].protocol != "http":
        findings.report(place, f"{shown}, an entrypoint that speaks no HTTPS; give it tls", depends)
    elif config.entrypoints[target].address.endswith(":0"):
        findings.report(place, f'{shown}, whose port is only known when it listens; give a port like ":443" here', depends)


# -- TLS ------------------------------------------------------------------------------------------------------------------------------


def _check_tls(path: str, tls: TlsConfig, findings: Findings) -> None:
    for given, key, other_given, other in (
        (tls.cert_file, "cert_file", tls.key_file, "key_file"),
        (tls.key_file, "key_file", tls.cert_file, "cert_file"),
    ):
        if given is not None and other_given is None:
            findings.report(f"{path}.{key}", f"{path} has {key} but no {other}; they go together", [f"{path}.{other}"])
    if tls.cert_file is None and tls.key_file is None and not tls.certificates and not tls.acme:
        sources = [f"{path}.{key}" for key in ("cert_file", "key_file", "certificates", "acme")]
        findings.report(path, f"{path} has no certificate; give cert_file and key_file, or certificates, or acme = true", sources)
    if tls.client_auth != "none" and tls.client_ca_file is None:
        message = f'{path}.client_auth is "{tls.client_auth}", but without client_ca_file no client can be verified'
        findings.report(f"{path}.client_auth", message, [f"{path}.client_ca_file"])
    if tls.client_auth == "none" and tls.client_subject_header is not None:
        message = f'{path}.client_subject_header has no effect without client_auth = "require" or "optional"'
        findings.report(f"{path}.client_subject_header", message, [f"{path}.client_auth"])
    if tls.cipher_suites and tls.min_version == "1.3":
        message = f'{path}.cipher_suites are for TLS 1.2, and min_version = "1.3" leaves no use for them'
        findings.report(f"{path}.cipher_suites", message, [f"{path}.min_version"])
    if tls.client_auth == "none" and tls.client_ca_file is not None:
        message = f'{path}.client_ca_file has no effect without client_auth = "require" or "optional"'
        findings.report(f"{path}.client_ca_file", message, [f"{path}.client_auth"])
    if tls.acme:
        _check_acme(path, tls, findings)
    else:
        _check_no_acme(path, tls, findings)


def _check_no_acme(path: str, tls: TlsConfig, findings: Findings) -> None:
    for declared in settings_of(TlsConfig):
        place = f"{path}.{declared.key}"
        if declared.key.startswith("acme_") and (getattr(tls, declared.attribute) != declared.default or findings.is_written(place)):
            findings.report(place, f"{place} has no effect without acme = true", [f"{path}.acme"])


def _check_acme(path: str, tls: TlsConfig, findings: Findings) -> None:
    if tls.acme_email is None:
        findings.report(path, f"{path} has acme = true but no acme_email, which is required then", [f"{path}.acme_email"])
    if tls.acme_staging and tls.acme_directory_url is not None:
        message = f"{path} has both acme_staging and acme_directory_url; give one of them"
        findings.report(f"{path}.acme_directory_url", message, [f"{path}.acme_staging"])
    if (tls.acme_eab_kid is None) != (tls.acme_eab_hmac_key is None):
        keys = [f"{path}.acme_eab_kid", f"{path}.acme_eab_hmac_key"]
        written = keys[0] if tls.acme_eab_kid is not None else keys[1]
        findings.report(written, f"{path} has only one of acme_eab_kid and acme_eab_hmac_key; they go together", keys)
    if tls.acme_challenge == "dns-01":
        if tls.acme_dns is None:
            message = f'{path}.acme_challenge is "dns-01", which needs the block acme_dns'
            findings.report(f"{path}.acme_challenge", message, [f"{path}.acme_dns"])
    else:
        if tls.acme_dns is not None:
            message = f'{path}.acme_dns has no effect without acme_challenge = "dns-01"'
            findings.report(f"{path}.acme_dns", message, [f"{path}.acme_challenge"])
        for index, domain in enumerate(tls.acme_domains):
            if domain.startswith("*."):
                place = f"{path}.acme_domains[{index}]"
                message = f'{place} is {findings.show(place, domain)}, a wildcard, which needs acme_challenge = "dns-01"'
                findings.report(place, message, [f"{path}.acme_challenge"])
    if tls.acme_dns is not None and tls.acme_dns.provider == "route53":
        key_id, colon, secret = tls.acme_dns.api_token.reveal().partition(":")
        if not (key_id and colon and secret):
            place = f"{path}.acme_dns.api_token"
            findings.report(place, f"{place} must be KEYID:SECRET for route53", [f"{path}.acme_dns.provider"])


# -- addresses ------------------------------------------------------------------------------------------------------------------------


def _check_addresses(config: GatewayConfig, findings: Findings) -> None:
    """
    Report listeners that would take the same port of the same address.

    Only what is certain to collide counts: IPv4 and IPv6 wildcards are two things, and port 0 is a different one each time.
    """
    taken: dict[tuple[str, int], list[tuple[str, str, str, frozenset[str]]]] = {}
    for path, who, address, transport in _listeners(config):
        try:
            host, port = parse_listen_address(address)
        except ValueError as error:
            findings.report(path, f"{path} is {findings.show(path, address)}, {error}")
            continue
        if port == 0:
            continue
        hosts = _hosts_of(host)
        others = taken.setdefault((transport, port), [])
        for other_path, other_who, other_address, other_hosts in others:
            if _overlap(hosts, other_hosts):
                place = findings.position(other_path)
                shown = findings.show(path, address)
                other = f"{other_who} ({place})" if place is not None else other_who
                other_shown = findings.show(other_path, other_address)
                findings.report(path, f"{who} listens on {shown}, which {other} already takes with {other_shown}", [other_path])
                break
        others.append((path, who, address, hosts))


def _listeners(config: GatewayConfig) -> Iterator[tuple[str, str, str, str]]:
    for name, entrypoint in config.entrypoints.items():
        transport = "udp" if entrypoint.protocol == "udp" else "tcp"
        yield f"{item_path('entrypoints', name)}.address", f"entrypoint {quote(name)}", entrypoint.address, transport
    if config.dashboard.enabled and config.dashboard.address is not None:
        yield "dashboard.address", "the dashboard", config.dashboard.address, "tcp"


_ANY_IPV4 = "0.0.0.0"
_ANY_IPV6 = "::"


def _hosts_of(host: str) -> frozenset[str]:
    """
    Return the addresses that listening on `host` takes, as far as can be told without asking the DNS.
    """
    if host == LISTEN_ANY:
        return frozenset({_ANY_IPV4, _ANY_IPV6})
    if host.lower() == "localhost":
        return frozenset({"127.0.0.1", "::1"})
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return frozenset({host.lower()})
    mapped = getattr(address, "ipv4_mapped", None)
    return frozenset({str(mapped if mapped is not None else address)})


def _overlap(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    if ours & theirs:
        return True
    for wild, other in ((ours, theirs), (theirs, ours)):
        if _ANY_IPV4 in wild and any(":" not in host for host in other):
            return True
        if _ANY_IPV6 in wild and any(":" in host for host in other):
            return True
    return False
