# SPDX-License-Identifier: GPL-2.0-only
"""What left the access link, judged by docs/security.md: everything that is not on the list for its state is a leak."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scapy.layers.dns import DNS
from scapy.layers.inet import UDP

from homeward.diagnostics.captures import (
    ETHERTYPE_ARP,
    PROTOCOL_ICMP,
    PROTOCOL_IPIP,
    PROTOCOL_UDP,
    REGISTRATION_PORT,
    REPLY,
    REQUEST,
    REVOCATION_ACKNOWLEDGMENT,
    Packet,
)
from homeward.diagnostics.evidence import Evidence, Stage

_DNS: Final = 53
_DHCP: Final = (68, 67)
_IKE: Final = (500, 4500)
_ICMP_ROUTER_SOLICITATION: Final = 10
_ALL_ROUTERS: Final = ("224.0.0.2", "224.0.0.11", "255.255.255.255")
_WORDS: Final = (bytes((REQUEST,)), bytes((REVOCATION_ACKNOWLEDGMENT,)))
_CLOSING: Final = 0.5
"""Seconds that a daemon may be late with closing when a proof has ended."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Packets of one kind that left where they must not: in which stage, how many, and the first of them in words."""

    stage: str
    state: str
    count: int
    example: str
    after: float
    """Seconds after the stage began."""

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"{self.stage}, {self.state}: {self.example} ({times}, first at +{self.after:.3f} s)"


def find_leaks(evidence: Evidence, packets: Iterable[Packet]) -> list[Leak]:
    """Every kind of packet that left the access link against the rules, over all stages.

    Outside, and inside until the home agent's answer has come, the short list holds; inside, with the answer, what the
    mode that it grants needs, and nobody else's packets. The moments of the answers are taken from the capture, not
    from what the client says; so is the end of what they prove.
    """
    found: dict[tuple[str, str, tuple[object, ...]], tuple[int, Packet]] = {}
    standings: dict[str, Standing] = {}
    before: Stage | None = None
    for packet in packets:
        stage = next((each for each in evidence.stages if each.holds(packet.at)), None)
        if stage is None:
            continue
        if stage.name not in standings:
            kept = standings[before.name] if before is not None and not stage.moved else Standing()
            standings[stage.name], before = kept, stage
        standing = standings[stage.name]
        if packet.sender != evidence.hardware_address:
            standing.hear(evidence, stage, packet)
            continue
        if may_leave(evidence, stage, packet, proven=standing.proven(stage, packet.at)):
            continue
        key = (stage.name, standing.in_words(stage, packet.at), _kind(packet))
        count, first = found.get(key, (0, packet))
        found[key] = (count + 1, first)
    begins = {stage.name: stage.begin for stage in evidence.stages}
    return [
        Leak(stage, state, count, first.in_words(), first.at - begins[stage])
        for (stage, state, _), (count, first) in found.items()
    ]


class Standing:
    """What the home agent has granted so far in a stay: the modes, and how fresh the last word is."""

    def __init__(self) -> None:
        self._granted: set[str] = set()
        self._last = 0.0

    def hear(self, evidence: Evidence, stage: Stage, packet: Packet) -> None:
        """Take in a packet that came to the laptop."""
        if not stage.inside:
            return
        for mode, accepts in (
            ("c", is_acceptance),
            ("f", is_agents_acceptance),
            ("home", is_homes_acceptance),
        ):
            if accepts(evidence, stage, packet):
                self._granted.add(mode)
                self._last = packet.at - stage.wall

    def proven(self, stage: Stage, at: float) -> frozenset[str]:
        """The modes that are open; none when the last word is older than a proof may be (RFC 5265 section 3.2.4)."""
        ends = self._last + stage.monitor + _CLOSING
        return frozenset(self._granted) if at - stage.wall < ends else frozenset()

    def in_words(self, stage: Stage, at: float) -> str:
        """Where the laptop is, as far as the home agent has said."""
        proven = self.proven(stage, at)
        if not stage.inside:
            return "outside"
        if "home" in proven:
            return "at home"
        if "f" in proven:
            return "by the foreign agent"
        return "inside" if proven else "undecided"


def _is_acceptance(packet: Packet, source: str, destination: str) -> bool:
    """Whether it is a Registration Reply between these two that says yes (codes 0 and 1, RFC 5944 section 3.4)."""
    return (
        packet.protocol == PROTOCOL_UDP
        and packet.source == source
        and packet.source_port == REGISTRATION_PORT
        and packet.destination == destination
        and packet.udp_payload[:1] == bytes((REPLY,))
        and packet.udp_payload[1:2] in (b"\x00", b"\x01")
    )


def is_acceptance(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether the home agent accepts the care-of address of the laptop's own."""
    return _is_acceptance(packet, evidence.home_agent, stage.access_address)


def is_agents_acceptance(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether the network's foreign agent passes on that the home agent accepts its care-of address."""
    from_agent = packet.sender == stage.agent_hardware_address != ""
    return from_agent and _is_acceptance(packet, stage.agent_address, evidence.home_address)


def is_homes_acceptance(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether the home agent confirms that the laptop is at home."""
    return stage.is_home and _is_acceptance(packet, evidence.home_agent, evidence.home_address)


def may_leave(evidence: Evidence, stage: Stage, packet: Packet, *, proven: frozenset[str]) -> bool:
    """Whether this packet may leave where these modes are granted."""
    if is_allowed(evidence, stage, packet):
        return True
    if "home" in proven and is_at_home(evidence, packet):
        return True
    if "f" in proven and goes_to_agent(evidence, stage, packet):
        return True
    if not proven:
        return False
    # Trusted: data in the tunnel of mode c, and the question for a better way (RFC 5266 section 3.2).
    return (
        is_tunnelled(evidence, stage, packet)
        or asks_agent(evidence, stage, packet)
        or (stage.is_home and comes_home(evidence, packet))
    )


def is_tunnelled(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether this is a packet of the home address on its way to the home agent, in the clear tunnel of mode c."""
    inner = packet.inner() or packet.in_udp()
    return (
        packet.source == stage.access_address
        and packet.destination == evidence.home_agent
        and (packet.fragment > 0 if inner is None else inner.source == evidence.home_address)
    )


def asks_agent(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether this is a Registration Request to the network's foreign agent, to its very hardware address."""
    return (
        _is_request(packet)
        and packet.source in (evidence.home_address, stage.access_address)
        and packet.destination == stage.agent_address != ""
        and packet.receiver == stage.agent_hardware_address
    )


def goes_to_agent(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether this is a packet of the home address, as it is, into the foreign agent's hands (RFC 3024 section 5)."""
    return packet.source == evidence.home_address and packet.receiver == stage.agent_hardware_address != ""


def comes_home(evidence: Evidence, packet: Packet) -> bool:
    """Whether this is ARP about the home address, or a request from it to the home agent (RFC 5944 section 4.6)."""
    if packet.ethertype == ETHERTYPE_ARP:
        return is_about(packet, evidence.home_address)
    from_home = packet.source == evidence.home_address and packet.destination == evidence.home_agent
    return from_home and _is_request(packet)


def is_at_home(evidence: Evidence, packet: Packet) -> bool:
    """Whether this is what a plain host sends that has the home address."""
    if packet.ethertype == ETHERTYPE_ARP:
        return is_about(packet, evidence.home_address)
    return packet.source == evidence.home_address


def is_about(packet: Packet, address: str) -> bool:
    """Whether an ARP packet names the address as its sender's or its target's."""
    arp = packet.dissected()
    return address in (arp.psrc, arp.pdst)


def _is_request(packet: Packet) -> bool:
    return (
        packet.protocol == PROTOCOL_UDP
        and packet.destination_port == REGISTRATION_PORT
        and packet.udp_payload[:1] == bytes((REQUEST,))
    )


def is_allowed(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """The short list: what may leave in every state. IPv6 is not on it."""
    if packet.ethertype == ETHERTYPE_ARP:
        # Away from home nobody may hear the home address in ARP.
        return not is_about(packet, evidence.home_address)
    if packet.protocol == PROTOCOL_ICMP:
        solicits = packet.octets[packet.payload : packet.payload + 1] == bytes([_ICMP_ROUTER_SOLICITATION])
        return solicits and packet.destination in _ALL_ROUTERS
    if packet.protocol != PROTOCOL_UDP:
        return False
    if packet.fragment:
        return packet.destination == evidence.gateway
    if (packet.source_port, packet.destination_port) == _DHCP:
        return True
    if packet.source != stage.access_address:
        return False
    if packet.destination_port == REGISTRATION_PORT:
        # What is said, and never what is carried: a tunnel in UDP goes by the same port (RFC 3519 section 3.3).
        return packet.destination == evidence.home_agent and packet.udp_payload[:1] in _WORDS
    if packet.destination_port in _IKE:
        return packet.destination == evidence.gateway
    # Whichever server: right after a move the resolver's file may still name that of the network before.
    return packet.destination_port == _DNS and _asks_for(packet, evidence.gateway_name)


def _asks_for(packet: Packet, name: str) -> bool:
    message = packet.dissected()[UDP].payload
    if not isinstance(message, DNS) or message.qr != 0 or not message.qd:
        return False
    asked = [question.qname.decode("ascii", "replace").rstrip(".").lower() for question in message.qd]
    return asked == [name.lower()]


def _kind(packet: Packet) -> tuple[object, ...]:
    """Packets that are one line in the report."""
    if packet.protocol == PROTOCOL_IPIP:
        return (packet.ethertype, packet.protocol, packet.source, packet.destination)
    if packet.protocol:
        return (packet.ethertype, packet.protocol, packet.source, packet.destination, packet.destination_port)
    return (packet.ethertype, packet.octets[6:7] if packet.ethertype == 0x86DD else b"")
