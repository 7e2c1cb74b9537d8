# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever sits on a laptop's access network, or inside with a foothold: hears what passes and says what they like."""

from __future__ import annotations

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from homeward.lab import keys
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT_ADDRESS, CABLE, LAPTOP, SPI, hardware_address
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    Spi,
)
from homeward.model.secret import Secret
from homeward.wire import registration as codec
from tests.lab.laptop import eventually
from tests.lab.wiretap import Tap

REGISTRATION = 434
TNC = bytes.fromhex("95020000")
_ACCESS = "access"
ATTACKER = "02:00:00:00:66:01"
"""An address for frames that are made up: scapy would take that of this machine's first link, which may have none, and
bridges drop such frames."""


def association(key: Secret) -> MobilitySecurityAssociation:
    """The laptop's with its home agent, under this key."""
    return MobilitySecurityAssociation(Spi(SPI), AuthenticationAlgorithm.HMAC_SHA256, key=key)


class Neighbour:
    """Somebody who owns the router of an access network: hears every frame there and sends whatever they make up."""

    def __init__(self, lab: LabState, network: str) -> None:
        self._tap = Tap(Host(lab, network), _ACCESS)
        self._network = network

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *exception: object) -> None:
        self._tap.__exit__()

    def request(self) -> Packet:
        """The next un-tunnelled Registration Request of the laptop's, as scapy dissects its frame."""
        return eventually(self._hear_request, f"no request is heard on {self._network}")

    def _hear_request(self) -> Packet | None:
        for frame in self._tap.heard():
            packet = Ether(frame)
            if UDP in packet and packet[UDP].dport == REGISTRATION and packet[IP].dst == str(AGENT_ADDRESS):
                return packet
        return None

    def replies(self) -> list[bytes]:
        """What the home agent has said to the laptop since the last look: the datagrams' octets."""
        packets = [Ether(frame) for frame in self._tap.carried()]
        said = [each[UDP] for each in packets if UDP in each and each[IP].src == str(AGENT_ADDRESS)]
        return [bytes(datagram.payload) for datagram in said if datagram.sport == REGISTRATION]

    def answer(self, request: Packet, octets: bytes) -> None:
        """A datagram in the home agent's name, to the socket that the request came from."""
        datagram = UDP(sport=REGISTRATION, dport=request[UDP].sport) / Raw(octets)
        self.send(IP(src=str(AGENT_ADDRESS), dst=request[IP].src) / datagram)

    def send(self, packet: Packet) -> None:
        """An IP packet to the laptop, in whosever name."""
        self.send_frame(bytes(Ether(src=ATTACKER, dst=hardware_address(LAPTOP, CABLE)) / packet))

    def send_frame(self, frame: bytes) -> None:
        """Whatever, to whomever."""
        self._tap.send(frame)


def reply_to(request: Packet, key: Secret, *, tnc: bool = True) -> bytes:
    """What the home agent would answer, signed with this key."""
    message = codec.decode(bytes(request[UDP].payload)).message
    assert isinstance(message, RegistrationRequest)
    reply = RegistrationReply(
        0,
        message.lifetime,
        home_address=message.home_address,
        home_agent=message.home_agent,
        identification=message.identification,
        trusted_networks_configured=tnc,
    )
    return codec.encode_reply(reply, association(key))


def genuine_key(lab: LabState) -> Secret:
    """The key that only laptop and home agent have; a test uses it to play what an agent says to others."""
    return keys.read(lab).mobility
