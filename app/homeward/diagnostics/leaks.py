# SPDX-License-Identifier: GPL-2.0-only
"""What left the access link, judged by docs/security.md: everything that is not on the list for its state is a leak."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scapy.layers.dns import DNS
from scapy.layers.inet import UDP

from homeward.diagnostics.captures import ETHERTYPE_ARP, PROTOCOL_ICMP, PROTOCOL_IPIP, PROTOCOL_UDP, Packet
from homeward.diagnostics.evidence import Evidence, Stage

_REGISTRATION: Final = 434
_DNS: Final = 53
_DHCP: Final = (68, 67)
_IKE: Final = (500, 4500)
_ICMP_ROUTER_SOLICITATION: Final = 10
_ALL_ROUTERS: Final = ("224.0.0.2", "255.255.255.255")


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

    Outside, and inside until the home agent's answer has come, the short list holds; inside with the answer, packets
    to the home agent in an IP-in-IP tunnel from the access address as well. The moment of the answer is taken from
    the capture, not from what the client says.
    """
    found: dict[tuple[str, str, tuple[object, ...]], tuple[int, Packet]] = {}
    proven: dict[str, bool] = {}
    for packet in packets:
        stage = next((each for each in evidence.stages if each.holds(packet.at)), None)
        if stage is None:
            continue
        if packet.sender != evidence.hardware_address:
            if stage.inside and is_acceptance(evidence, stage, packet):
                proven[stage.name] = True
            continue
        state = "inside" if proven.get(stage.name) else "undecided" if stage.inside else "outside"
        if is_allowed(evidence, stage, packet) or (
            state == "inside" and is_tunnelled(evidence, stage, packet)
        ):
            continue
        key = (stage.name, state, _kind(packet))
        count, first = found.get(key, (0, packet))
        found[key] = (count + 1, first)
    begins = {stage.name: stage.begin for stage in evidence.stages}
    return [
        Leak(stage, state, count, first.in_words(), first.at - begins[stage])
        for (stage, state, _), (count, first) in found.items()
    ]


def is_acceptance(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether this is the home agent's acceptance of a registration (codes 0 and 1, RFC 5944 section 3.4)."""
    return (
        packet.protocol == PROTOCOL_UDP
        and packet.source == evidence.home_agent
        and packet.source_port == _REGISTRATION
        and packet.destination == stage.access_address
        and packet.udp_payload[:1] == b"\x03"
        and packet.udp_payload[1:2] in (b"\x00", b"\x01")
    )


def is_tunnelled(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """Whether this is a packet of the home address on its way to the home agent, in the clear tunnel of mode c."""
    inner = packet.inner()
    return (
        packet.source == stage.access_address
        and packet.destination == evidence.home_agent
        and (packet.fragment > 0 if inner is None else inner.source == evidence.home_address)
    )


def is_allowed(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    """The short list: what may leave in every state. IPv6 is not on it."""
    if packet.ethertype == ETHERTYPE_ARP:
        # Away from home nobody may hear the home address in ARP.
        arp = packet.dissected()
        return evidence.home_address not in (arp.psrc, arp.pdst)
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
    if packet.destination_port == _REGISTRATION:
        return packet.destination == evidence.home_agent
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
