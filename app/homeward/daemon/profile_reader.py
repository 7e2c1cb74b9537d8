# SPDX-License-Identifier: GPL-2.0-or-later
"""From the tables of a TOML file to a Profile: which keys there are, and what each may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Network
from typing import Any, Final

from homeward.daemon import profile_words as words
from homeward.daemon.profile_table import Table
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import KEEPALIVE_LEAST
from homeward.model.profile import (
    ASSIGNED,
    ForeignAgentSettings,
    ForeignAgentUse,
    GatewaySettings,
    HomeAgentSettings,
    Profile,
    ReplayStyle,
    SecretReference,
    Timers,
)
from homeward.model.registration import AuthenticationAlgorithm
from homeward.model.relay import CHAP_SPI

_DEFAULT_TIMERS: Final = Timers()
_EVERYWHERE: Final = (IPv4Network("0.0.0.0/0"),)
_FIRST_SPI: Final = 256
_LAST_SPI: Final = 0xFFFFFFFF
_HOME_ADDRESS_WORDS: Final = {"assigned": ASSIGNED}
_REFERENCE_IN_WORDS: Final = '{ secret = "its name in the keyring", fingerprint = "scrypt:…" }'

KEYS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("version", "name", "owner"),
    "home_agent": (
        "address",
        "home_address",
        "spi",
        "algorithm",
        "key",
        "nai",
        "home_network",
        "replay",
        "encapsulation",
    ),
    "vpn": (
        "gateway",
        "local_identity",
        "remote_identity",
        "pre_shared_key",
        "remote_networks",
        "proposals",
        "esp_proposals",
    ),
    "policy": (
        "destinations",
        "keep_vpn_inside",
        "nat_inside",
        "force_udp",
        "use_foreign_agents",
        "ask_not_on",
    ),
    "foreign_agent": ("agent", "spi", "algorithm", "key"),
    "aaa": ("spi", "key"),
    "timers": tuple(timer.name for timer in fields(Timers)),
}
"""All keys by their table; "" is the top of the file."""
PLACE_OF: Final = {
    key: f"{table}.{key}" if table else f"{key} at the top of the file, above the first [table]"
    for table, keys in reversed(tuple(KEYS_OF.items()))
    for key in keys
}
"""Where a key belongs that somebody put into the wrong table; the first table that has it."""


def read_tables(top: Table) -> Profile:
    """The profile that these tables describe; what is wrong with them is noted in their faults."""
    name = top.text("name", words.allowed_name)
    owner = top.text("owner", words.allowed_owner)
    home_agent = _home_agent(top)
    gateway = _gateway(top)
    policy = top.table("policy", required=False) or Table({}, "policy", [])
    profile = Profile(
        name,
        owner,
        home_agent=home_agent,
        gateway=gateway,
        destinations=policy.networks("destinations", default=_EVERYWHERE),
        timers=_timers(top),
        keep_vpn_inside=policy.flag("keep_vpn_inside", default=False),
        nat_inside=policy.flag("nat_inside", default=False),
        force_udp=policy.flag("force_udp", default=False),
        use_foreign_agents=policy.choice("use_foreign_agents", ForeignAgentUse.WHEN_REQUIRED),
        foreign_agents=_foreign_agents(top),
        ask_not_on=policy.networks("ask_not_on", default=()),
    )
    policy.no_others()
    top.no_others()
    return profile


def _home_agent(top: Table) -> HomeAgentSettings:
    table = top.table("home_agent", required=True) or Table({}, "home_agent", [])
    address = table.address("address")
    home_address = table.address("home_address", instead=_HOME_ADDRESS_WORDS)
    settings = HomeAgentSettings(
        address,
        home_address,
        spi=table.whole("spi", _FIRST_SPI, _LAST_SPI),
        algorithm=_algorithm(table),
        key=_secret(table, "key"),
        nai=table.text("nai", words.allowed_nai, default="") or None,
        home_network=table.network("home_network"),
        replay=table.choice("replay", ReplayStyle.TIMESTAMPS),
        encapsulation=table.choice("encapsulation", Encapsulation.IP_IN_IP),
    )
    table.no_others()
    return settings


def _foreign_agents(top: Table) -> tuple[ForeignAgentSettings, ...]:
    """Those with an address in the order of the file, then the server that agents ask."""
    found = [_foreign_agent(table) for table in top.tables("foreign_agent")]
    server = top.table("aaa", required=False)
    if server is not None:
        found.append(_server(server))
    return tuple(found)


def _foreign_agent(table: Table) -> ForeignAgentSettings:
    settings = ForeignAgentSettings(
        table.address("agent"),
        table.whole("spi", _FIRST_SPI, _LAST_SPI),
        algorithm=_algorithm(table),
        key=_secret(table, "key"),
    )
    table.no_others()
    return settings


def _server(table: Table) -> ForeignAgentSettings:
    spi = table.whole("spi", CHAP_SPI, _LAST_SPI)
    if CHAP_SPI < spi < _FIRST_SPI:
        table.fault(
            "spi",
            f"found {spi}; allowed is {CHAP_SPI} (RADIUS, RFC 4721 section 8), or {_FIRST_SPI} and more",
        )
    settings = ForeignAgentSettings(
        None,
        spi,
        algorithm=AuthenticationAlgorithm.HMAC_MD5,  # RFC 4721 knows no other
        key=_secret(table, "key"),
    )
    table.no_others()
    return settings


def _algorithm(table: Table) -> AuthenticationAlgorithm:
    return AuthenticationAlgorithm(table.text("algorithm", words.allowed_algorithm) or words.ALGORITHMS[0])


def _gateway(top: Table) -> GatewaySettings | None:
    table = top.table("vpn", required=False)
    if table is None:
        return None
    settings = GatewaySettings(
        table.text("gateway", words.allowed_host),
        table.text("local_identity", words.allowed_identity),
        remote_identity=table.text("remote_identity", words.allowed_identity),
        pre_shared_key=_secret(table, "pre_shared_key"),
        remote_networks=table.networks("remote_networks"),
        proposals=table.texts(
            "proposals", words.allowed_proposal, default=_default(GatewaySettings, "proposals")
        ),
        esp_proposals=table.texts(
            "esp_proposals", words.allowed_proposal, default=_default(GatewaySettings, "esp_proposals")
        ),
    )
    table.no_others()
    return settings


def _secret(parent: Table, key: str) -> SecretReference:
    table = parent.table(key, required=True, secret=True, why=_REFERENCE_IN_WORDS)
    if table is None:
        return SecretReference("", "")
    reference = SecretReference(
        table.text("secret", words.allowed_reference, secret=True),
        table.text("fingerprint", words.allowed_fingerprint, secret=True),
    )
    table.no_others()
    return reference


def _timers(top: Table) -> Timers:
    table = top.table("timers", required=False)
    if table is None:
        return _DEFAULT_TIMERS
    known = _DEFAULT_TIMERS
    timers = Timers(
        lifetime=table.whole("lifetime", 1, 0xFFFE, default=known.lifetime),
        monitor=table.seconds("monitor", 1, 86400, default=known.monitor),
        monitor_grace=table.seconds("monitor_grace", 0, 3600, default=known.monitor_grace),
        probe_timeout=table.seconds("probe_timeout", 1, 60, default=known.probe_timeout),
        probe_transmissions=table.whole("probe_transmissions", 1, 10, default=known.probe_transmissions),
        proof_max_age=table.seconds("proof_max_age", 0.1, 60, default=known.proof_max_age),
        vpn_retry=table.seconds("vpn_retry", 0.5, 3600, default=known.vpn_retry),
        vpn_retry_max=table.seconds("vpn_retry_max", 0.5, 86400, default=known.vpn_retry_max),
        vpn_answer=table.seconds("vpn_answer", 1, 3600, default=known.vpn_answer),
        keepalive=table.whole("keepalive", KEEPALIVE_LEAST, 3600, default=known.keepalive),
    )
    table.no_others()
    return timers


def _default(kind: type[Any], name: str) -> Any:
    return kind.__dataclass_fields__[name].default
