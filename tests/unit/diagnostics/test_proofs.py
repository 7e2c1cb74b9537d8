# SPDX-License-Identifier: GPL-2.0-or-later
"""Each claim about a tour holds on captures that bear it out, and fails on the one packet that refutes it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from scapy.contrib.ikev2 import IKEv2
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from homeward.diagnostics.evidence import Evidence, Stage
from homeward.diagnostics.proofs import prove

LAPTOP, ROUTER = "02:00:00:00:01:01", "02:00:00:00:04:01"
DESK, STREET, INNER = "10.1.1.50", "192.168.77.50", "10.9.0.1"
HOME, AGENT, GATEWAY, PEER = "10.77.0.10", "10.0.0.2", "192.0.2.1", "10.0.0.10"
NOON = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))
INSIDE, OUTSIDE = NOON + 10, NOON + 20
"""When the two stages begin; each lasts ten seconds."""

CLEAR, ENTERED, GATEWAY_OUT, GATEWAY_IN, AT_AGENT = (
    "switch-cable", "laptop-ipsec0", "gateway-dmz", "gateway-inside", "agent-inside",
)  # fmt: skip

UP = IP(src=HOME, dst=PEER) / TCP(dport=5001)
DOWN = IP(src=PEER, dst=HOME) / TCP(sport=5001)


def request(care_of: str, source: str | None = None) -> Packet:
    message = MobileIP() / MobileIPRRQ(homeaddr=HOME, haaddr=AGENT, coaddr=care_of, id=1)
    return IP(src=source or care_of, dst=AGENT) / UDP(sport=434, dport=434) / message


def answer(to: str) -> Packet:
    message = MobileIP(type=3) / MobileIPRRP(code=0, homeaddr=HOME, haaddr=AGENT, id=1)
    return IP(src=AGENT, dst=to) / UDP(sport=434, dport=434) / message


def ike(source: str, destination: str, exchange: int, *, flags: int) -> Packet:
    header = IKEv2(init_SPI=b"12345678", resp_SPI=b"87654321", exch_type=exchange, flags=flags, length=28)
    return IP(src=source, dst=destination) / UDP(sport=4500, dport=4500) / Raw(bytes(4) + bytes(header))


def esp(source: str, destination: str) -> Packet:
    return IP(src=source, dst=destination) / UDP(sport=4500, dport=4500) / Raw(b"\1\2\3\4" * 10)


@dataclass
class Tour:
    """The captures of a tour with two stages, one inside and one outside to which the VPN moves."""

    folder: Path
    log: str = "12:00:20.500 12[IKE] <homeward-1|1> requesting address change using MOBIKE\n"
    packets: dict[str, list[tuple[float, str, Packet]]] = field(default_factory=dict)

    def sees(self, capture: str, at: float, packet: Packet, *, sender: str = LAPTOP) -> None:
        self.packets.setdefault(capture, []).append((at, sender, packet))

    def failing(self) -> set[tuple[str, str]]:
        """The claims that do not hold, each with its stage."""
        for name, seen in self.packets.items():
            frames = []
            for at, sender, packet in sorted(seen, key=lambda each: each[0]):
                frame = packet if name == ENTERED else Ether(src=sender, dst=ROUTER) / packet
                frame.time = at
                frames.append(frame)
            wrpcap(str(self.folder / f"{name}.pcap"), frames, linktype=101 if name == ENTERED else 1)
        (self.folder / "charon.log").write_text(self.log)
        proofs = list(prove(self._evidence()))
        assert len(proofs) == 7
        return {(proof.stage, proof.claim) for proof in proofs if not proof.holds}

    def _evidence(self) -> Evidence:
        return Evidence(
            home_address=HOME,
            home_agent=AGENT,
            gateway=GATEWAY,
            gateway_name="gw.example.test",
            cable=self.folder / f"{CLEAR}.pcap",
            hardware_address=LAPTOP,
            inner_network=IPv4Network("10.9.0.0/24"),
            captures=self.folder,
            charon_log=self.folder / "charon.log",
            stages=(
                Stage("in", inside=True, begin=INSIDE, end=OUTSIDE, access_address=DESK, mobike=False),
                Stage(
                    "out", inside=False, begin=OUTSIDE, end=OUTSIDE + 10, access_address=STREET, mobike=True
                ),
            ),
        )


PROBE = "the probe leaves in clear on the access link"
DIRECT = "no data crosses the gateway"
TUNNELLED = "inside ESP travels IP-in-IP from the inner address to the home agent, nothing else"
BEHIND = "behind the gateway they go on to the home agent as they are"
MOVED = "the VPN moves by MOBIKE"
QUIET = "no registration reaches the home agent"


@pytest.fixture
def tour(tmp_path: Path) -> Tour:
    made = Tour(tmp_path)
    made.sees(CLEAR, INSIDE + 0.1, request(DESK))
    made.sees(CLEAR, INSIDE + 0.2, answer(DESK), sender=ROUTER)
    made.sees(CLEAR, INSIDE + 1, IP(src=DESK, dst=AGENT) / UP)
    made.sees(AT_AGENT, INSIDE + 0.15, request(DESK))
    made.sees(CLEAR, OUTSIDE + 0.1, request(STREET))
    made.sees(CLEAR, OUTSIDE + 0.2, ike(STREET, GATEWAY, 37, flags=0x08))
    made.sees(CLEAR, OUTSIDE + 0.3, ike(GATEWAY, STREET, 37, flags=0x20), sender=ROUTER)
    made.sees(ENTERED, OUTSIDE + 1, IP(src=INNER, dst=AGENT) / UP)
    made.sees(ENTERED, OUTSIDE + 1, IP(src=AGENT, dst=INNER) / DOWN)
    made.sees(GATEWAY_OUT, OUTSIDE + 1, esp(STREET, GATEWAY))
    made.sees(GATEWAY_IN, OUTSIDE + 1, IP(src=INNER, dst=AGENT) / UP)
    return made


def test_a_good_tour_bears_every_claim_out(tour: Tour) -> None:
    assert tour.failing() == set()


Refute = Callable[[Tour], object]

REFUTED: dict[str, tuple[set[tuple[str, str]], Refute]] = {
    "no probe inside": ({("in", PROBE)}, lambda tour: tour.packets[CLEAR].pop(0)),
    "a probe in the tunnel": (
        {("out", PROBE), ("out", TUNNELLED)},
        lambda tour: tour.sees(ENTERED, OUTSIDE + 0.1, request(STREET)),
    ),
    "ESP while inside": (
        {("in", DIRECT)},
        lambda tour: tour.sees(GATEWAY_OUT, INSIDE + 2, esp(DESK, GATEWAY)),
    ),
    "data behind the gateway while inside": (
        {("in", DIRECT)},
        lambda tour: tour.sees(GATEWAY_IN, INSIDE + 2, IP(src=INNER, dst=AGENT) / UP),
    ),
    "no data straight to the home agent": ({("in", DIRECT)}, lambda tour: tour.packets[CLEAR].pop(2)),
    "data in ESP without a tunnel": ({("out", TUNNELLED)}, lambda tour: tour.sees(ENTERED, OUTSIDE + 2, UP)),
    "data in ESP to somebody else": (
        {("out", TUNNELLED)},
        lambda tour: tour.sees(ENTERED, OUTSIDE + 2, IP(src=INNER, dst=PEER) / UP),
    ),
    "a ping from the inner address": (
        {("out", TUNNELLED)},
        lambda tour: tour.sees(ENTERED, OUTSIDE + 2, IP(src=INNER, dst=AGENT) / ICMP()),
    ),
    "nothing behind the gateway": ({("out", BEHIND)}, lambda tour: tour.packets[GATEWAY_IN].clear()),
    "a fresh IKE_SA": (
        {("out", MOVED)},
        lambda tour: tour.sees(CLEAR, OUTSIDE + 0.2, ike(STREET, GATEWAY, 34, flags=0x08)),
    ),
    "no answer from the gateway": ({("out", MOVED)}, lambda tour: tour.packets[CLEAR].pop(5)),
    "charon does not speak of MOBIKE": ({("out", MOVED)}, lambda tour: setattr(tour, "log", "")),
    "charon spoke of it earlier": (
        {("out", MOVED)},
        lambda tour: setattr(tour, "log", tour.log.replace("12:00:20", "12:00:10")),
    ),
    "a registration at the home agent": (
        {("out", QUIET)},
        lambda tour: tour.sees(AT_AGENT, OUTSIDE + 2, request(INNER)),
    ),
}


@pytest.mark.parametrize(("claims", "refute"), REFUTED.values(), ids=REFUTED)
def test_one_packet_refutes_a_claim(tour: Tour, claims: set[tuple[str, str]], refute: Refute) -> None:
    refute(tour)
    assert tour.failing() == claims


def test_a_registration_through_the_tunnel_belongs_there(tour: Tour) -> None:
    tour.sees(ENTERED, OUTSIDE + 0.5, request(INNER))
    tour.sees(ENTERED, OUTSIDE + 0.6, answer(INNER))
    assert tour.failing() == set()


def test_keeping_the_vpn_warm_inside_is_no_data(tour: Tour) -> None:
    tour.sees(GATEWAY_OUT, INSIDE + 2, ike(DESK, GATEWAY, 37, flags=0x08))
    tour.sees(GATEWAY_OUT, INSIDE + 3, IP(src=DESK, dst=GATEWAY) / UDP(sport=4500, dport=4500) / Raw(b"\xff"))
    assert tour.failing() == set()


def test_a_missing_capture_is_named(tour: Tour) -> None:
    tour.packets.pop(GATEWAY_IN)
    with pytest.raises(FileNotFoundError, match="gateway-inside"):
        tour.failing()
