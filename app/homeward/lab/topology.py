# SPDX-License-Identifier: GPL-2.0-or-later
"""The enterprise that the lab builds: which host has which cable in which network, with which addresses and routes.

    laptop ── one cable, moved between the access networks

    trust1 10.1.1.0/24 ── router ─┐                                      ┌─ router ── ext1 198.51.100.0/24
    trust2 10.1.2.0/24 ── router ─┤                                      ├─ NAT ───── ext2 192.168.77.0/24
    trust3 10.1.3.0/24 ── router ─┤ core 10.0.0.0/24 ─ firewall ─ internet 203.0.113.0/24
    nat1 192.168.31.0/24 ── NAT ──┤             │                        │
    nat2 ─ router ─ branch ─ NAT ─┤             └────── dmz 192.0.2.0/24 ┤
    home 10.77.0.0/24 ─ home agent┤                                      │
    correspondent ────────────────┴───────────────── VPN gateway ────────┘

The routers of trust3 10.1.3.0/24 and nat2 192.168.32.0/24 are foreign agents as well, that of nat2 one behind NAT like
everybody there. The home network is a link like any other: the home agent is its router, and the home address at home.

Every network is a bridge in one host that is only a switch, so that moving a cable is moving a bridge port.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

SWITCH: Final = "switch"
LAPTOP: Final = "laptop"
FIREWALL: Final = "firewall"
GATEWAY: Final = "gateway"
AGENT: Final = "agent"
CORRESPONDENT: Final = "correspondent"
BRANCH: Final = "branch"
"""The NAT that nat2's router is behind, and the network between the two."""

HOME: Final = "home"
"""The home link, and the home agent's leg in it."""

CABLE: Final = "eth0"
"""The laptop's one access link."""

GATEWAY_NAME: Final = "gw.example.test"
GATEWAY_ADDRESS: Final = IPv4Address("192.0.2.1")
AGENT_ADDRESS: Final = IPv4Address("10.0.0.2")
CORRESPONDENT_ADDRESS: Final = IPv4Address("10.0.0.10")
HOME_ADDRESS: Final = IPv4Address("10.77.0.10")
HOME_NETWORK: Final = IPv4Network("10.77.0.0/24")
INNER_NETWORK: Final = IPv4Network("10.9.0.0/24")
"""The gateway's pool, of which the laptop gets its tunnel inner address."""
INSIDE: Final = IPv4Network("10.0.0.0/8")
INSIDE_NATS: Final = (IPv4Address("10.0.0.31"), IPv4Address("10.0.0.32"))
"""What the hosts behind the NATs of nat1 and nat2 look like to the rest of the enterprise."""
INSIDE_PREFIXES: Final = (
    IPv4Network("10.1.0.0/16"),
    INNER_NETWORK,
    HOME_NETWORK,
    *(IPv4Network(nat) for nat in INSIDE_NATS),
)
"""Where a request's source proves to the home agent that its sender is inside."""
SPI: Final = 0x100


@dataclass(frozen=True, slots=True)
class Leg:
    """One cable of a host: the interface's name, the network it is plugged into, and its address there."""

    name: str
    network: str | None
    address: IPv4Interface | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A static route; `table` is for the gateway, which answers from its outside address by the way in."""

    to: str
    via: str
    table: int | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the enterprise."""

    name: str
    legs: tuple[Leg, ...]
    routes: tuple[Route, ...] = ()
    forwards: bool = False
    rules: tuple[str, ...] = ()
    """Arguments of `ip rule add`."""
    firewall: str = ""
    """An nftables ruleset."""

    def leg(self, name: str) -> Leg:
        """The cable of that name; KeyError when there is none."""
        for leg in self.legs:
            if leg.name == name:
                return leg
        raise KeyError(f"{self.name} has no interface {name}")


@dataclass(frozen=True, slots=True)
class AccessNetwork:
    """A network that the laptop can be plugged into; its router is the host of the same name if none is named.

    `interface` is the router's leg in it. `foreign_agent` is the host that offers its services as such there. `nat` is
    the address behind which an inside network hides.
    """

    name: str
    prefix: IPv4Network
    inside: bool
    served_by: str = ""
    interface: str = "access"
    foreign_agent: str | None = None
    nat: IPv4Address | None = None

    @property
    def host(self) -> str:
        """The host that is its router."""
        return self.served_by or self.name

    @property
    def router(self) -> IPv4Address:
        """The router's address: gateway, DHCP server and resolver of this network."""
        return self.prefix[1]

    @property
    def pool(self) -> tuple[IPv4Address, IPv4Address]:
        """First and last address that DHCP gives out."""
        return self.prefix[100], self.prefix[199]


ACCESS_NETWORKS: Final = {
    network.name: network
    for network in (
        AccessNetwork("trust1", IPv4Network("10.1.1.0/24"), True),
        AccessNetwork("trust2", IPv4Network("10.1.2.0/24"), True),
        AccessNetwork("ext1", IPv4Network("198.51.100.0/24"), False),
        AccessNetwork("ext2", IPv4Network("192.168.77.0/24"), False),
        AccessNetwork("trust3", IPv4Network("10.1.3.0/24"), True, foreign_agent="trust3"),
        AccessNetwork(HOME, HOME_NETWORK, True, served_by=AGENT, interface=HOME),
        AccessNetwork("nat1", IPv4Network("192.168.31.0/24"), True, nat=INSIDE_NATS[0]),
        AccessNetwork("nat2", IPv4Network("192.168.32.0/24"), True, foreign_agent="nat2", nat=INSIDE_NATS[1]),
    )
}

NETWORKS: Final = (*ACCESS_NETWORKS, "internet", "core", "dmz", BRANCH)

_NAT = """
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "uplink" masquerade
    }
}
"""

# What makes mode mc necessary: nothing that starts outside gets in, registrations (UDP 434) and IP-in-IP included.
# From inside everything may go out; the gateway's IKE and ESP-in-UDP ports are reachable from both sides.
_EDGE = f"""
table inet edge {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname {{ "outside", "inside" }} oifname "dmz" ip daddr {GATEWAY_ADDRESS} udp dport {{ 500, 4500 }} accept
        iifname "inside" oifname "outside" accept
        iifname "dmz" oifname {{ "outside", "inside" }} ip saddr {GATEWAY_ADDRESS} udp sport {{ 500, 4500 }} accept
        counter comment "refused at the edge"
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname {{ "lo", "inside" }} accept
        icmp type {{ echo-request, destination-unreachable, time-exceeded }} accept
    }}
}}
"""

_TO_ACCESS = (
    Route("10.1.1.0/24", "10.0.0.11"),
    Route("10.1.2.0/24", "10.0.0.12"),
    Route("10.1.3.0/24", "10.0.0.13"),
)
_TO_HOME = Route(str(HOME_NETWORK), str(AGENT_ADDRESS))
_TO_INNER = Route(str(INNER_NETWORK), "10.0.0.1")
_TO_EXT1 = Route("198.51.100.0/24", "203.0.113.1")
_OUT = Route("default", "10.0.0.254")


def _leg(name: str, network: str, address: str) -> Leg:
    return Leg(name, network, IPv4Interface(f"{address}/24"))


def _inside_router(name: str, access: str, uplink: str, *, nat: bool = False) -> Host:
    return Host(
        name,
        (_leg("access", name, access), _leg("uplink", "core", uplink)),
        routes=(*(route for route in _TO_ACCESS if route.via != uplink), _TO_HOME, _TO_INNER, _OUT),
        forwards=True,
        firewall=_NAT if nat else "",
    )


def _outside_router(name: str, access: str, uplink: str, *, routes: tuple[Route, ...], nat: bool) -> Host:
    return Host(
        name,
        (_leg("access", name, access), _leg("uplink", "internet", uplink)),
        routes=(*routes, Route("default", "203.0.113.254")),
        forwards=True,
        firewall=_NAT if nat else "",
    )


HOSTS: Final = {
    host.name: host
    for host in (
        Host(LAPTOP, (Leg(CABLE, None),)),
        _inside_router("trust1", "10.1.1.1", "10.0.0.11"),
        _inside_router("trust2", "10.1.2.1", "10.0.0.12"),
        _outside_router("ext1", "198.51.100.1", "203.0.113.1", routes=(), nat=False),
        _outside_router("ext2", "192.168.77.1", "203.0.113.2", routes=(_TO_EXT1,), nat=True),
        Host(
            FIREWALL,
            (
                _leg("outside", "internet", "203.0.113.254"),
                _leg("inside", "core", "10.0.0.254"),
                _leg("dmz", "dmz", "192.0.2.254"),
            ),
            routes=(*_TO_ACCESS, _TO_HOME, _TO_INNER, _TO_EXT1),
            forwards=True,
            firewall=_EDGE,
        ),
        Host(
            GATEWAY,
            (_leg("dmz", "dmz", str(GATEWAY_ADDRESS)), _leg("inside", "core", "10.0.0.1")),
            routes=(
                *_TO_ACCESS,
                _TO_HOME,
                Route("default", "192.0.2.254"),
                Route("default", "192.0.2.254", table=100),
            ),
            forwards=True,
            # Answers to an inside peer go back through the firewall, not around it.
            rules=(f"from {GATEWAY_ADDRESS} lookup 100 pref 100",),
        ),
        Host(
            AGENT,
            (_leg("inside", "core", str(AGENT_ADDRESS)), _leg(HOME, HOME, str(HOME_NETWORK[1]))),
            routes=(*_TO_ACCESS, _TO_INNER, _OUT),
            forwards=True,
        ),
        Host(
            CORRESPONDENT,
            (_leg("inside", "core", str(CORRESPONDENT_ADDRESS)),),
            routes=(*_TO_ACCESS, _TO_HOME, _TO_INNER, _OUT),
        ),
        _inside_router("trust3", "10.1.3.1", "10.0.0.13"),
        _inside_router("nat1", "192.168.31.1", str(INSIDE_NATS[0]), nat=True),
        Host(
            "nat2",
            (_leg("access", "nat2", "192.168.32.1"), _leg("uplink", BRANCH, "192.168.33.2")),
            routes=(Route("default", "192.168.33.1"),),
            forwards=True,
        ),
        Host(
            BRANCH,
            (_leg("inside", BRANCH, "192.168.33.1"), _leg("uplink", "core", str(INSIDE_NATS[1]))),
            routes=(Route("192.168.32.0/24", "192.168.33.2"), *_TO_ACCESS, _TO_HOME, _TO_INNER, _OUT),
            forwards=True,
            firewall=_NAT,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class ForeignAgentPlace:
    """Where a foreign agent is: its host, its leg in the access network, and its addresses there."""

    host: str
    leg: str
    address: IPv4Address
    hardware_address: str


def foreign_agent(network: str) -> ForeignAgentPlace:
    """The foreign agent of an access network; KeyError when it has none."""
    host = ACCESS_NETWORKS[network].foreign_agent
    if host is None:
        raise KeyError(f"{network} has no foreign agent")
    (leg,) = [leg for leg in HOSTS[host].legs if leg.network == network]
    assert leg.address is not None
    return ForeignAgentPlace(host, leg.name, leg.address.ip, hardware_address(host, leg.name))


def port_name(host: str, leg: str) -> str:
    """The name of the switch port that a host's cable ends in; at most 15 characters, as the kernel demands."""
    return f"{host[:8]}-{leg[:6]}"


def hardware_address(host: str, leg: str) -> str:
    """A fixed, locally administered address, so that a capture can be read without a table."""
    host_number = list(HOSTS).index(host) + 1
    leg_number = [each.name for each in HOSTS[host].legs].index(leg) + 1
    return f"02:00:00:00:{host_number:02x}:{leg_number:02x}"
