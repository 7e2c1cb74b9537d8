# SPDX-License-Identifier: GPL-2.0-or-later
"""What `homeward-agent` is told: one TOML file, read strictly. An unknown key is an error, not a wish ignored.

    version = 1
    address = "10.0.0.2"                        # the home agent's own address: UDP 434, and its end of every tunnel
    inside_interfaces = ["inside"]              # only what comes in here is answered (RFC 5265 section 4.3)
    trusted_prefixes = ["10.1.0.0/16", "10.9.0.0/24"]   # care-of addresses that are inside; empty answers nobody

    # All of the following may be left out; these are the values that hold then.
    role = "home"                               # "foreign" is another kind of file
    inside_nats = []                            # addresses of NATs inside; each must lie in a trusted prefix. Only
                                                # behind these, tunnels run in UDP (RFC 3519)
    lifetime_max = 1800                         # seconds; longer ones are cut, 65535 allows "for ever"
    timestamp_tolerance = 7                     # seconds between the two clocks (RFC 5944 section 5.7.1); 3 to 300
    answer_failed_authentication = false        # true: code 131 instead of silence (RFC 5944 section 3.8.2.1)
    encapsulations = ["ip-in-ip", "gre", "minimal"]     # ip-in-ip is always offered
    reverse_tunnel = "offered"                  # or "mandatory", or "refused" (RFC 3024 section 4.3)
    nat_max_lifetime = 60                       # seconds; the most that a binding behind a NAT gets
    nat_keepalive = 110                         # seconds between keepalives in such a tunnel; 10 to 65535
    allow_forced_udp = true                     # false: a tunnel in UDP only where there is a NAT
    revocation = true                           # false: nobody is told when a binding ends early (RFC 3543)
    segment_mtu = 1400                          # TCP is asked for segments that fit packets of this length in every
                                                # network, 576 to 65535; 0 leaves it alone
    # home_network = "10.77.0.0/24"             # a home network without a link of its own: packets for those of its
                                                # addresses that have no binding end here, instead of circling
    # home_link = "eth1"                        # or the network interface where the home addresses live
    advertisement_interval = 10                 # seconds at most between two advertisements there; 0 for none
    # nodes_file = "nodes"                      # further nodes, those that `homeward-agent key` manages: one line each
                                                # (agentd/nodes_file.py)
    control = "/run/homeward/agent.control"     # the socket for commands such as `homeward-agent status`; or "none"
    store = "/var/lib/homeward/agent.sqlite"    # what survives a crash: bindings, requests accepted; or "none"
    # metrics_file = "/var/lib/prometheus/node-exporter/homeward-agent.prom"      # written every 15 s

    [[node]]                                    # one for each mobile node, and for each further SPI of a node
    name = "laptop"                             # for people and for the log
    home_address = "10.77.0.10"
    spi = 0x100                                 # 256 to 4294967295
    algorithm = "hmac-sha256"                   # or "hmac-md5"
    key_file = "laptop.key"                     # relative to this file's own directory; "credential:NAME" for one that
                                                # systemd hands over (LoadCredential=), also as nodes_file
    replay = "timestamps"                       # or "nonces" (RFC 5944 section 5.7)
    nai = "laptop@example.test"                 # may be left out: by this name it may ask for its home address

    [[node]]                                    # a node that gets its home address from the home agent
    name = "roamer"
    nai = "roamer@example.test"
    home_addresses = "10.77.0.128/25"           # one of these; other nodes may share the prefix
    spi = 0x101
    algorithm = "hmac-sha256"
    key_file = "roamer.key"

    [[foreign_agent]]                           # one for each foreign agent that shares a key with us
    address = "10.1.3.1"                        # its care-of address
    spi = 0x200
    algorithm = "hmac-sha256"
    key_file = "foreign.key"

    [[path]]                                    # where packets are lost without a word when they are too long
    prefix = "10.9.0.0/24"                      # care-of addresses on the other side of it
    mtu = 1426                                  # what passes, with our tunnel's own header; 576 to 65535

A key file holds one line: the key in hexadecimal digits, also as `hex:0011…`, or else in base64, also as `base64:…`;
16 octets or more. It must be a regular file that belongs to root and that nobody else may read (mode 0600 or stricter).
This file decides who is trusted, so nobody but root may be able to write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from homeward.agentd import toml_values as values
from homeward.agentd.key_file import place_of
from homeward.agentd.nodes_file import read_nodes
from homeward.agentd.peer_settings import Census, foreign_agents, nodes, paths
from homeward.agentd.places import PLACE_KEYS, control_place, metrics_place, store_place
from homeward.agents.home_agent import AgentPolicy
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.path_mtu import LEAST
from homeward.agents.policy import NAT_LIFETIME, ReverseTunnels
from homeward.agents.tunnels import SEGMENT_MTU
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError
from homeward.model.nat_traversal import KEEPALIVE_DEFAULT, KEEPALIVE_LEAST
from homeward.model.registration import LIFETIME_INFINITE

VERSION: Final = 1
ROLE: Final = "home"
"""What `role` says in such a file, and what it means where it is left out."""
AGENT_DEVICE: Final = "homeward-ha0"
"""The device that leads packets for bound home addresses to the agent and gives tunnelled ones back to the kernel."""
AGENT_TABLE: Final = "homeward-ha"
"""Our one nftables table on a home agent's host."""

_LEAST_TOLERANCE: Final = 3.0
_MOST_TOLERANCE: Final = 300.0
_MOST: Final = 0xFFFF
_KEYS: Final = (
    "version",
    "address",
    "role",
    "inside_interfaces",
    "trusted_prefixes",
    "inside_nats",
    "lifetime_max",
    "timestamp_tolerance",
    "answer_failed_authentication",
    "encapsulations",
    "reverse_tunnel",
    "nat_max_lifetime",
    "nat_keepalive",
    "allow_forced_udp",
    "revocation",
    "segment_mtu",
    "home_network",
    "home_link",
    "advertisement_interval",
    "nodes_file",
    "store",
    *PLACE_KEYS,
    "node",
    "foreign_agent",
    "path",
)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the file says, with the keys read. `home_network` is None where the home network has a link of its own.

    `path_mtus` are prefixes of care-of addresses, and what passes on the way to them; `segment_mtu` the length of the
    packets that TCP is kept fit for, 0 for any. `control`, `store` and `metrics_file` are places, None for none.
    `advertisement_interval`, in seconds, is for the home link; 0 for no advertisements. `source` is the file itself,
    `nodes_file` that of the nodes which commands manage; they are in `policy` already.
    """

    policy: AgentPolicy
    _: KW_ONLY
    home_network: IPv4Network | None
    path_mtus: tuple[tuple[IPv4Network, int], ...] = ()
    segment_mtu: int = SEGMENT_MTU
    control: Path | None = None
    advertisement_interval: float = 10.0
    store: Path | None = None
    metrics_file: Path | None = None
    nodes_file: Path | None = None
    source: Path | None = None
    census: Census = field(default_factory=Census, compare=False)


def load(path: Path, *, owner: int = 0) -> AgentSettings:
    """Read the file and the key files that it names, which must belong to the user with the number `owner`.

    ProfileError, with a text for whoever wrote the file, for anything that is missing, unknown or unusable.
    """
    table = values.read_table(path, owner=owner)
    try:
        return settings_of(table, path.parent, owner=owner, source=path)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def nodes_place(table: Mapping[str, Any], folder: Path) -> Path | None:
    """Where the nodes are that commands manage, None where the file names no such place. ProfileError."""
    return (
        place_of(values.required(table, "nodes_file", values.text), folder) if "nodes_file" in table else None
    )


def settings_of(
    table: Mapping[str, Any], folder: Path, *, owner: int = 0, source: Path | None = None
) -> AgentSettings:
    """What a file's table says; files that it names are relative to `folder`. ProfileError."""
    values.refuse_unknown(table, _KEYS, "")
    role = values.optional(table, "role", values.text, ROLE)
    if role != ROLE:
        raise ProfileError(f"role {role!r} is not that of this file's reader, which is {ROLE!r}")
    version = values.required(table, "version", values.integer(1, 1 << 31))
    if version != VERSION:
        raise ProfileError(f"version {version} is not known, this program reads version {VERSION}")
    nodes_file = nodes_place(table, folder)
    policy, census = _policy(table, folder, owner, nodes_file)
    home_network = values.required(table, "home_network", values.network) if "home_network" in table else None
    if home_network is not None and policy.home_link is not None:
        raise ProfileError("home_network is for a home network without a link: home_link cannot be named too")
    return AgentSettings(
        policy,
        home_network=home_network,
        path_mtus=paths(table),
        segment_mtu=values.optional(table, "segment_mtu", _segment_mtu, SEGMENT_MTU),
        control=control_place(table),
        advertisement_interval=values.optional(table, "advertisement_interval", _interval, 10.0),
        store=store_place(table),
        metrics_file=metrics_place(table),
        nodes_file=nodes_file,
        source=source,
        census=census,
    )


def _policy(
    table: Mapping[str, Any], folder: Path, owner: int, nodes_file: Path | None
) -> tuple[AgentPolicy, Census]:
    if nodes_file is None and "node" not in table:
        raise ProfileError(
            "the key 'node' is missing: nobody would be served; name a nodes_file, or a [[node]]"
        )
    managed = () if nodes_file is None else read_nodes(nodes_file, owner=owner)
    served, census = nodes(table, folder, owner, managed)
    networks = _networks(table)
    home_link = values.required(table, "home_link", _interface) if "home_link" in table else None
    if home_link is not None and home_link not in networks.interfaces:
        raise ProfileError(
            f"home_link: nobody who comes home could be answered, {home_link} is not in inside_interfaces"
        )
    policy = AgentPolicy(
        values.required(table, "address", values.address),
        networks,
        nodes=served,
        foreign_agents=foreign_agents(table, folder, owner),
        lifetime_max=values.optional(table, "lifetime_max", values.integer(1, LIFETIME_INFINITE), 1800),
        timestamp_tolerance=values.optional(table, "timestamp_tolerance", _seconds, 7.0),
        answer_failed_authentication=values.optional(
            table, "answer_failed_authentication", values.boolean, False
        ),
        encapsulations=_encapsulations(table),
        reverse_tunnels=values.optional(
            table, "reverse_tunnel", values.one_of(ReverseTunnels), ReverseTunnels.OFFERED
        ),
        nat_max_lifetime=values.optional(
            table, "nat_max_lifetime", values.integer(1, LIFETIME_INFINITE), NAT_LIFETIME
        ),
        nat_keepalive=values.optional(
            table, "nat_keepalive", values.integer(KEEPALIVE_LEAST, _MOST), KEEPALIVE_DEFAULT
        ),
        allow_forced_udp=values.optional(table, "allow_forced_udp", values.boolean, True),
        revocation=values.optional(table, "revocation", values.boolean, True),
        home_link=home_link,
    )
    return policy, census


def _networks(table: Mapping[str, Any]) -> TrustedNetworks:
    prefixes = tuple(values.required(table, "trusted_prefixes", values.list_of(values.network)))
    for prefix in prefixes:
        if prefix.prefixlen == 0:
            raise ProfileError("trusted_prefixes: 0.0.0.0/0 would trust the whole Internet")
    no_nats: list[IPv4Address] = []
    nats = frozenset(values.optional(table, "inside_nats", values.list_of(values.address), no_nats))
    for nat in nats:
        if not any(nat in prefix for prefix in prefixes):
            raise ProfileError(f"inside_nats: {nat} lies in no trusted prefix, so it would never be answered")
    interfaces = frozenset(values.required(table, "inside_interfaces", values.list_of(_interface)))
    return TrustedNetworks(interfaces, prefixes, nats)


def _encapsulations(table: Mapping[str, Any]) -> frozenset[Encapsulation]:
    named = values.optional(
        table, "encapsulations", values.list_of(values.one_of(Encapsulation)), list(Encapsulation)
    )
    if Encapsulation.IP_IN_IP not in named:
        raise ProfileError("encapsulations: ip-in-ip is always offered, every mobile node may use it")
    return frozenset(named)


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > _LEAST_TOLERANCE:
        raise ValueError(f"must be a number of seconds above {_LEAST_TOLERANCE:g} (RFC 5944 section 5.7.1)")
    if value > _MOST_TOLERANCE:
        raise ValueError(
            f"must not be above {_MOST_TOLERANCE:g} seconds: so long a recorded request would be good"
        )
    return float(value)


def _segment_mtu(value: Any) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else values.integer(LEAST, _MOST)(value)


def _interval(value: Any) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else values.seconds(1.0, 600.0)(value)


def _interface(value: Any) -> str:
    name = values.interface(value)
    if name == AGENT_DEVICE:
        raise ValueError(f"{name} is where mobile nodes' own packets come in: it can never be inside")
    return name
