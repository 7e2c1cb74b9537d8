# SPDX-License-Identifier: GPL-2.0-or-later
"""What `homeward-agent` is told as a foreign agent: one TOML file, read strictly.

    version = 1
    role = "foreign"
    care_of_addresses = ["10.1.3.1"]            # this host's own; tunnels from home agents end there
    uplink_interfaces = ["core"]                # replies and tunnels of home agents come in here, and nowhere else

    [[access]]                                  # one for each link that mobile nodes visit
    interface = "trust3"
    address = "10.1.3.1/24"                     # this host's address there, which advertisements come from

    # All of the following may be left out (above the first table); these are the values that hold then.
    advertisement_interval = 10                 # seconds at most between two advertisements; 1 to 600
    advertise_prefixes = true                   # all agents of a link say their prefix, or none does
    registration_required = false               # R: care-of addresses of their own are registered through us too
    lifetime_max = 1800                         # seconds; longer ones are denied with 69
    visitors_max = 1000
    pending_max = 32                            # requests that wait for replies; with more we are busy
    reverse_tunnels = "offered"                 # or "mandatory" (75), or "refused" (74)
    encapsulations = ["ip-in-ip", "gre", "minimal"]
    encapsulating_delivery = true               # false: 79
    behind_nat = false                          # true: tunnels in UDP, and U in advertisements (RFC 3519)
    nat_is_transparent = false                  # true: what the NAT lets through may go without reverse tunnels
    keepalive = 110                             # seconds, behind a NAT, where the home agent names none; 10 to 3600
    challenge = false                           # true: who shares no key with us answers a challenge under MN-AAA
    revocation = false                          # true: [[home_agent]]s may revoke registrations (RFC 3543)
    home_agent_networks = ["0.0.0.0/0"]         # where home agents may be; requests for others are denied
    control = "/run/homeward/agent.control"     # the socket that commands such as `homeward-agent visitors` speak to
    # metrics_file = "/var/lib/prometheus/node-exporter/homeward-agent.prom"      # written every 15 s

    # [[home_agent]]                            # FA-HA: requests are signed, and replies must be
    # address = "10.0.0.2"
    # spi = 0x300
    # algorithm = "hmac-sha256"
    # key_file = "home-agent.key"               # as in a home agent's file
    #
    # [[mobile_node]]                           # MN-FA: requests must be signed, and replies are
    # home_address = "10.77.0.10"               # or: nai = "laptop@example.test"
    # spi = 0x200
    # algorithm = "hmac-sha256"
    # key_file = "laptop-here.key"
    #
    # [[mobile_node_aaa]]                       # MN-AAA, checked here instead of by a server
    # home_address = "10.77.0.10"               # or: nai = "laptop@example.test"
    # spi = 0x400                               # or 2: the digest of RFC 4721 section 8
    # key_file = "laptop-aaa.key"

This file and the key files have the same owner and modes as a home agent's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, Final

from homeward.agentd import toml_values as values
from homeward.agentd.places import PLACE_KEYS, control_place, metrics_place
from homeward.agents.foreign_rules import AccessLink, ForeignPolicy, ReverseTunnelling
from homeward.agents.offered_challenges import NodeKey
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError
from homeward.model.nat_traversal import KEEPALIVE_DEFAULT, KEEPALIVE_LEAST
from homeward.model.registration import (
    LIFETIME_INFINITE,
    MobilitySecurityAssociation,
    Spi,
    nai_fault,
)
from homeward.model.relay import AaaAssociation

VERSION: Final = 1
ROLE: Final = "foreign"
"""What `role` says in such a file."""
VISITOR_DEVICE: Final = "homeward-fa0"
"""The device that takes visitors' packets from the kernel, and gives it those out of their tunnels."""
VISITOR_GATE: Final = "homeward-fa"
"""Our one nftables table on a foreign agent's host."""
VISITOR_MARK: Final = 0x48570010
"""On packets of visitors that are to be tunnelled."""

_KEYS: Final = (
    "version",
    "role",
    "care_of_addresses",
    "uplink_interfaces",
    "access",
    "advertisement_interval",
    "advertise_prefixes",
    "registration_required",
    "lifetime_max",
    "visitors_max",
    "pending_max",
    "reverse_tunnels",
    "encapsulations",
    "encapsulating_delivery",
    "behind_nat",
    "nat_is_transparent",
    "keepalive",
    "challenge",
    "revocation",
    "home_agent_networks",
    "home_agent",
    "mobile_node",
    "mobile_node_aaa",
    *PLACE_KEYS,
)
_ACCESS_KEYS: Final = ("interface", "address")
_HOME_AGENT_KEYS: Final = ("address", *values.ASSOCIATION_KEYS)
_WHO: Final = ("home_address", "nai")
_NODE_KEYS: Final = (*_WHO, *values.ASSOCIATION_KEYS)
_SERVER_KEYS: Final = (*_WHO, "spi", "key_file")


@dataclass(frozen=True, slots=True)
class ForeignSettings:
    """What the file says, with the keys read. `advertisement_interval` and `keepalive` in seconds.

    `control` and `metrics_file` are None for none; `source` is the file itself.
    """

    policy: ForeignPolicy
    _: KW_ONLY
    uplinks: frozenset[str]
    advertisement_interval: float
    advertise_prefixes: bool
    keepalive: int
    control: Path | None = None
    metrics_file: Path | None = None
    source: Path | None = None


def settings_of(table: Mapping[str, Any], folder: Path, *, owner: int = 0) -> ForeignSettings:
    """What a file's table says; key files are relative to `folder` and belong to the user with the number `owner`.

    ProfileError, with a text for whoever wrote the file, for anything that is missing, unknown or unusable.
    """
    values.refuse_unknown(table, _KEYS, "")
    version = values.required(table, "version", values.integer(1, 1 << 31))
    if version != VERSION:
        raise ProfileError(f"version {version} is not known, this program reads version {VERSION}")
    policy = _policy(table, folder, owner)
    uplinks = frozenset(values.required(table, "uplink_interfaces", values.list_of(_interface)))
    both = uplinks & {link.interface for link in policy.links}
    if both:
        raise ProfileError(
            f"uplink_interfaces: {min(both)} is an access link; what comes in there is no home agent's"
        )
    if not uplinks:
        raise ProfileError("uplink_interfaces: without one no home agent can be heard")
    return ForeignSettings(
        policy,
        uplinks=uplinks,
        advertisement_interval=values.optional(
            table, "advertisement_interval", values.seconds(1.0, 600.0), 10.0
        ),
        advertise_prefixes=values.optional(table, "advertise_prefixes", values.boolean, True),
        keepalive=values.optional(
            table, "keepalive", values.integer(KEEPALIVE_LEAST, 3600), KEEPALIVE_DEFAULT
        ),
        control=control_place(table),
        metrics_file=metrics_place(table),
    )


def _policy(table: Mapping[str, Any], folder: Path, owner: int) -> ForeignPolicy:
    care_of = tuple(values.required(table, "care_of_addresses", values.list_of(_care_of_address)))
    if not care_of or len(care_of) > 62:
        raise ProfileError("care_of_addresses: one to 62 fit into an advertisement")
    standard = ForeignPolicy(care_of, _links(table))

    def flag(key: str) -> bool:
        return values.optional(table, key, values.boolean, False)

    policy = ForeignPolicy(
        care_of,
        standard.links,
        lifetime_max=values.optional(
            table, "lifetime_max", values.integer(1, LIFETIME_INFINITE), standard.lifetime_max
        ),
        visitors_max=values.optional(table, "visitors_max", values.integer(1, 65536), standard.visitors_max),
        pending_max=values.optional(table, "pending_max", values.integer(1, 4096), standard.pending_max),
        encapsulations=frozenset(
            values.optional(table, "encapsulations", values.list_of(_encapsulation), list(Encapsulation))
        ),
        reverse_tunnelling=values.optional(
            table, "reverse_tunnels", _reverse_tunnels, standard.reverse_tunnelling
        ),
        encapsulating_delivery=values.optional(table, "encapsulating_delivery", values.boolean, True),
        registration_required=flag("registration_required"),
        behind_nat=flag("behind_nat"),
        nat_is_transparent=flag("nat_is_transparent"),
        challenge=flag("challenge"),
        revocation=flag("revocation"),
        home_agent_networks=tuple(
            values.optional(
                table,
                "home_agent_networks",
                values.list_of(values.network),
                list(standard.home_agent_networks),
            )
        ),
        home_agents=_home_agents(table, folder, owner),
        nodes=_nodes(table, folder, owner),
        servers=_servers(table, folder, owner),
    )
    _refuse_contradictions(policy)
    return policy


def _refuse_contradictions(policy: ForeignPolicy) -> None:
    if Encapsulation.IP_IN_IP not in policy.encapsulations:
        raise ProfileError("encapsulations: ip-in-ip is offered by every agent (RFC 5944 section 1.5)")
    if policy.reverse_tunnelling is ReverseTunnelling.REFUSED and policy.demands_reverse_tunnel:
        raise ProfileError("reverse_tunnels: behind a NAT that changes addresses they cannot be refused")
    if policy.revocation and not policy.home_agents:
        raise ProfileError("revocation: is between agents that share a key, and there is no [[home_agent]]")


def _links(table: Mapping[str, Any]) -> tuple[AccessLink, ...]:
    links: list[AccessLink] = []
    for number, entry in enumerate(_tables(table, "access", least=1), 1):
        try:
            values.refuse_unknown(entry, _ACCESS_KEYS, "")
            own = values.required(entry, "address", _own_address)
            link = AccessLink(values.required(entry, "interface", _interface), own.ip, own.network)
        except ProfileError as error:
            raise ProfileError(f"[[access]] number {number}: {error}") from error
        if any(link.interface == other.interface for other in links):
            raise ProfileError(f"[[access]] number {number}: {link.interface} is there already")
        links.append(link)
    return tuple(links)


def _home_agents(
    table: Mapping[str, Any], folder: Path, owner: int
) -> dict[IPv4Address, MobilitySecurityAssociation]:
    found: dict[IPv4Address, MobilitySecurityAssociation] = {}
    for number, entry in enumerate(_tables(table, "home_agent"), 1):
        try:
            values.refuse_unknown(entry, _HOME_AGENT_KEYS, "")
            address = values.required(entry, "address", values.address)
            if address in found:
                raise ProfileError(f"home agent {address} is there already")
            found[address] = values.association(entry, folder, owner)
        except ProfileError as error:
            raise ProfileError(f"[[home_agent]] number {number}: {error}") from error
    return found


def _nodes(
    table: Mapping[str, Any], folder: Path, owner: int
) -> dict[NodeKey, tuple[MobilitySecurityAssociation, ...]]:
    found: dict[NodeKey, tuple[MobilitySecurityAssociation, ...]] = {}
    for number, entry in enumerate(_tables(table, "mobile_node"), 1):
        try:
            values.refuse_unknown(entry, _NODE_KEYS, "")
            node = _who(entry)
            association = values.association(entry, folder, owner)
            known = found.get(node, ())
            if any(one.spi == association.spi for one in known):
                raise ProfileError(f"{node} has SPI {association.spi} already")
            found[node] = (*known, association)
        except ProfileError as error:
            raise ProfileError(f"[[mobile_node]] number {number}: {error}") from error
    return found


def _servers(table: Mapping[str, Any], folder: Path, owner: int) -> dict[NodeKey, AaaAssociation]:
    found: dict[NodeKey, AaaAssociation] = {}
    for number, entry in enumerate(_tables(table, "mobile_node_aaa"), 1):
        try:
            values.refuse_unknown(entry, _SERVER_KEYS, "")
            node = _who(entry)
            if node in found:
                raise ProfileError(f"{node} is there already")
            spi = Spi(values.required(entry, "spi", values.integer(0, 0xFFFFFFFF)))
            found[node] = AaaAssociation(spi, key=values.key_in(entry, folder, owner))
        except ProfileError as error:
            raise ProfileError(f"[[mobile_node_aaa]] number {number}: {error}") from error
    return found


def _tables(table: Mapping[str, Any], key: str, *, least: int = 0) -> list[Mapping[str, Any]]:
    read = values.list_of(values.table_of(f"[[{key}]]"))
    nothing: list[Mapping[str, Any]] = []
    return values.required(table, key, read) if least else values.optional(table, key, read, nothing)


def _who(entry: Mapping[str, Any]) -> NodeKey:
    if ("home_address" in entry) == ("nai" in entry):
        raise ProfileError("either home_address or nai says whose key it is")
    if "home_address" in entry:
        return values.required(entry, "home_address", values.address)
    return values.required(entry, "nai", _nai)


def _nai(value: Any) -> str:
    fault = nai_fault(values.text(value))
    if fault is not None:
        raise ValueError(fault)
    return values.text(value)


def _interface(value: Any) -> str:
    name = values.interface(value)
    if name in (VISITOR_DEVICE, "lo"):
        raise ValueError(f"{name} is no link to anybody")
    if not all(letter.isalnum() or letter in "-_.:@" for letter in name):
        raise ValueError(f"{name!r} has a character that cannot stand in a rule of nftables")
    return name


def _care_of_address(value: Any) -> IPv4Address:
    address = values.address(value)
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_reserved:
        raise ValueError(f"{address} cannot be the end of a tunnel")
    return address


def _own_address(value: Any) -> IPv4Interface:
    try:
        own = IPv4Interface(values.text(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not an address with its prefix, such as 10.1.3.1/24") from error
    if own.network.prefixlen > 30 or own.ip in (own.network.network_address, own.network.broadcast_address):
        raise ValueError(f"{value!r} is not a host's address on a link with others")
    return own


def _encapsulation(value: Any) -> Encapsulation:
    known = {each.value: each for each in Encapsulation}
    if value not in known:
        raise ValueError(f"{value!r} is not known{values.nearest(str(value), tuple(known))}")
    return known[value]


def _reverse_tunnels(value: Any) -> ReverseTunnelling:
    known = {each.value: each for each in ReverseTunnelling}
    if value not in known:
        raise ValueError(f"{value!r} is not known{values.nearest(str(value), tuple(known))}")
    return known[value]
