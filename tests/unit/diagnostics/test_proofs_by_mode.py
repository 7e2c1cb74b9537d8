# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims about modes f and home, tunnels in UDP and incidents: each holds, and fails on one thing that refutes it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from homeward.diagnostics.evidence import Evidence, Stage
from homeward.diagnostics.proofs import prove

LAPTOP, FOREIGN, HOME_AGENT = "02:00:00:00:01:01", "02:00:00:00:09:01", "02:00:00:00:0a:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"
FLOOR, LINK, DESK, BRANCH = "10.1.3.50", "10.77.0.150", "10.1.2.50", "192.168.31.50"
HOME, AGENT, PEER, FOREIGN_AGENT, NAT = "10.77.0.10", "10.0.0.2", "10.0.0.10", "10.1.3.1", "10.0.0.31"
CABLE, AT_AGENT, AT_HOME = "switch-cable", "agent-inside", "agent-home"
CAPTURES = (CABLE, "laptop-ipsec0", "gateway-dmz", "gateway-inside", AT_AGENT, AT_HOME)

UP = IP(src=HOME, dst=PEER) / TCP(dport=5001)
DOWN = IP(src=PEER, dst=HOME) / TCP(sport=5001)
TNC = bytes.fromhex("95020000")
MN_HA = bytes.fromhex("2014") + bytes(20)


def request(
    source: str,
    to: str,
    care_of: str,
    *,
    number: int = 1,
    flags: int = 0x22,
    lifetime: int = 1800,
    ttl: int = 255,
    port: int = 434,
    more: bytes = b"",
) -> Packet:
    fixed = MobileIPRRQ(
        flags=flags, lifetime=lifetime, homeaddr=HOME, haaddr=AGENT, coaddr=care_of, id=number
    )
    message = MobileIP() / fixed / Raw(more + MN_HA)
    return IP(src=source, dst=to, ttl=ttl) / UDP(sport=port, dport=434) / message


def answer(
    source: str, to: str, *, number: int = 1, code: int = 0, port: int = 434, more: bytes = TNC
) -> Packet:
    fixed = MobileIPRRP(code=code, homeaddr=HOME, haaddr=AGENT, id=number)
    return IP(src=source, dst=to) / UDP(sport=434, dport=port) / MobileIP(type=3) / fixed / Raw(more + MN_HA)


def in_udp(packet: Packet, source: str, to: str, *, sport: int = 434, dport: int = 434) -> Packet:
    return IP(src=source, dst=to) / UDP(sport=sport, dport=dport) / Raw(bytes((4, 4, 0, 0)) + bytes(packet))


def advertisement(lifetime: int) -> Packet:
    router = bytes((9, 0, 0, 0, 1, 2)) + lifetime.to_bytes(2, "big") + bytes(8)
    return IP(src=FOREIGN_AGENT, dst="224.0.0.1", proto=1) / Raw(router)


def redirect() -> Packet:
    return (
        IP(src=FOREIGN_AGENT, dst=HOME)
        / ICMP(type=5, code=1, gw="10.1.3.66")
        / IP(src=HOME, dst=PEER)
        / UDP()
    )


STAGES = {
    "f": Stage(
        "f", inside=True, begin=100.0, end=110.0, access_address=FLOOR, mobike=False, expect="f", network="trust3",
        agent_address=FOREIGN_AGENT, agent_hardware_address=FOREIGN,
    ),
    "home": Stage(
        "home", inside=True, begin=100.0, end=110.0, access_address=LINK, mobike=False, expect="home", network="home",
    ),
    "c": Stage(
        "c", inside=True, begin=100.0, end=110.0, access_address=DESK, mobike=False, expect="c", network="trust2",
    ),
    "nat": Stage(
        "nat", inside=True, begin=100.0, end=110.0, access_address=BRANCH, mobike=False, expect="c", network="nat1",
        nat=NAT,
    ),
}  # fmt: skip


@dataclass
class Play:
    """Captures of some stages that follow each other, ten seconds each."""

    folder: Path
    stages: tuple[Stage, ...]
    packets: list[tuple[str, float, str, str, Packet]] = field(default_factory=list)

    def sees(
        self,
        at: float,
        packet: Packet,
        *,
        capture: str = CABLE,
        sender: str = LAPTOP,
        receiver: str = FOREIGN,
    ) -> None:
        self.packets.append((capture, at, sender, receiver, packet))

    def hears(self, at: float, packet: Packet, *, sender: str = FOREIGN, receiver: str = LAPTOP) -> None:
        self.sees(at, packet, sender=sender, receiver=receiver)

    def drop(self, which: Callable[[Packet], object]) -> None:
        before = len(self.packets)
        self.packets = [each for each in self.packets if not which(each[4])]
        assert len(self.packets) < before

    def failing(self) -> set[str]:
        for name in CAPTURES:
            frames = []
            for capture, at, sender, receiver, packet in sorted(self.packets, key=lambda each: each[1]):
                if capture == name:
                    frames.append(Ether(src=sender, dst=receiver) / packet)
                    frames[-1].time = at
            wrpcap(str(self.folder / f"{name}.pcap"), frames, linktype=1)
        (self.folder / "charon.log").touch()
        return {proof.claim for proof in prove(self._evidence()) if not proof.holds}

    def _evidence(self) -> Evidence:
        return Evidence(
            home_address=HOME,
            home_agent=AGENT,
            gateway="192.0.2.1",
            gateway_name="gw.example.test",
            cable=self.folder / f"{CABLE}.pcap",
            hardware_address=LAPTOP,
            inner_network=IPv4Network("10.9.0.0/24"),
            captures=self.folder,
            charon_log=self.folder / "charon.log",
            stages=self.stages,
        )


def is_request_to(address: str) -> Callable[[Packet], bool]:
    return lambda packet: MobileIPRRQ in packet and packet[IP].dst == address


PROBE = "the probe leaves in clear on the access link"
DIRECT = "no data crosses the gateway"

# --- mode f ----------------------------------------------------------------------------------------------------------

LATE = "the foreign agent is asked only after the network has proved itself, and proves itself again"
RIGHT = "requests go from the home address to the agent's own hardware address, with D=0, T=1 and TTL 255"
DHCP = "DHCP is asked for an address before the agent is asked for its"
HANDS = "data goes as it is by the agent's hands, in no tunnel of the laptop's"
BETWEEN = "between the agents it travels in a tunnel, IP-in-IP"
REDIRECT = "an ICMP Redirect of the agent's changes nothing"
SILENT = "nobody is answered who asks for it by ARP"


@pytest.fixture
def by_agent(tmp_path: Path) -> Play:
    stage = replace(STAGES["f"], incidents=("RedirectToNobody", "AskForHomeAddress"))
    made = Play(tmp_path, (stage,))
    made.sees(100.1, IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67), receiver=BROADCAST)
    made.sees(100.3, request(FLOOR, AGENT, FLOOR))
    made.hears(100.31, answer(AGENT, FLOOR))
    made.sees(100.4, request(HOME, FOREIGN_AGENT, FOREIGN_AGENT, number=2, flags=0x02))
    made.hears(100.45, answer(FOREIGN_AGENT, HOME, number=2))
    made.sees(101.0, UP)
    made.hears(101.0, DOWN)
    made.hears(102.0, redirect())
    made.hears(103.0, ARP(op=1, psrc=FOREIGN_AGENT, pdst=HOME), receiver=BROADCAST)
    made.sees(104.0, UP)
    made.sees(101.0, IP(src=FOREIGN_AGENT, dst=AGENT) / UP, capture=AT_AGENT)
    made.sees(101.0, IP(src=AGENT, dst=FOREIGN_AGENT) / DOWN, capture=AT_AGENT)
    return made


def test_a_good_stay_by_a_foreign_agent_bears_every_claim_out(by_agent: Play) -> None:
    assert by_agent.failing() == set()


def asks_wrongly(**changes: object) -> Callable[[Play], object]:
    def change(play: Play) -> None:
        play.drop(is_request_to(FOREIGN_AGENT))
        made = {
            "source": HOME,
            "to": FOREIGN_AGENT,
            "care_of": FOREIGN_AGENT,
            "number": 2,
            "flags": 0x02,
            **changes,
        }
        play.sees(100.4, request(**made))  # type: ignore[arg-type]

    return change


BY_AGENT: dict[str, tuple[set[str], Callable[[Play], object]]] = {
    "asked before the proof": (
        {LATE},
        lambda play: play.sees(100.2, request(HOME, FOREIGN_AGENT, FOREIGN_AGENT, flags=2)),
    ),
    "an answer without TNC": (
        {LATE},
        lambda play: (
            play.drop(lambda each: MobileIPRRP in each and each[IP].src == FOREIGN_AGENT),
            play.hears(100.45, answer(FOREIGN_AGENT, HOME, number=2, more=b"")),
        ),
    ),
    "a TTL that anybody may send": ({RIGHT}, asks_wrongly(ttl=254)),
    "the D bit": ({RIGHT}, asks_wrongly(flags=0x22)),
    "no T bit": ({RIGHT}, asks_wrongly(flags=0)),
    "from its own address": ({RIGHT}, asks_wrongly(source=FLOOR)),
    "a UDP Tunnel Request": ({RIGHT}, asks_wrongly(more=bytes.fromhex("9006000000000000"))),
    "to another hardware address": (
        {RIGHT, HANDS, REDIRECT},
        lambda play: play.sees(
            105.0, request(HOME, FOREIGN_AGENT, FOREIGN_AGENT, flags=2), receiver="02:00:00:00:66:01"
        ),
    ),
    "no DHCP": ({DHCP}, lambda play: play.drop(lambda each: UDP in each and each[UDP].dport == 67)),
    "data in a tunnel of its own": ({HANDS}, lambda play: play.sees(105.0, IP(src=FLOOR, dst=AGENT) / UP)),
    "data in UDP": ({HANDS}, lambda play: play.sees(105.0, in_udp(UP, FLOOR, AGENT))),
    "data to a router": ({HANDS, REDIRECT}, lambda play: play.sees(105.0, UP, receiver="02:00:00:00:66:01")),
    "nothing between the agents": (
        {BETWEEN},
        lambda play: play.drop(lambda each: IP in each and each[IP].src == AGENT and IP in each[IP].payload),
    ),
    "no redirect": ({REDIRECT}, lambda play: play.drop(lambda each: ICMP in each and each[ICMP].type == 5)),
    "another agent after the redirect": (
        {REDIRECT},
        lambda play: play.sees(105.0, request(HOME, "10.1.3.66", "10.1.3.66"), receiver=FOREIGN),
    ),
    "nobody asked by ARP": ({SILENT}, lambda play: play.drop(lambda each: ARP in each)),
    "an answer by ARP": ({SILENT}, lambda play: play.sees(103.1, ARP(op=2, psrc=HOME, pdst=FOREIGN_AGENT))),
    "ESP while by the agent": (
        {DIRECT},
        lambda play: play.sees(105.0, IP(src=FLOOR, dst="192.0.2.1", proto=50) / Raw(b"x"), capture="gateway-dmz"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("claims", "refute"), BY_AGENT.values(), ids=BY_AGENT)
def test_by_a_foreign_agent_one_thing_refutes_a_claim(
    by_agent: Play, claims: set[str], refute: Callable[[Play], object]
) -> None:
    refute(by_agent)
    assert by_agent.failing() == claims


DEAD = "the dead agent is left within the lifetime of its last advertisement"


@pytest.mark.parametrize(("accepted", "holds"), [(106.0, True), (109.0, False)])
def test_a_dead_agent_is_left_when_its_advertisement_runs_out(
    by_agent: Play, accepted: float, holds: bool
) -> None:
    dead = replace(STAGES["f"], name="dead", begin=105.0, moved=False, expect="c", incidents=("Kill",))
    by_agent.stages = (replace(by_agent.stages[0], end=105.0), dead)
    by_agent.hears(104.5, advertisement(2), receiver=BROADCAST)
    by_agent.hears(accepted, answer(AGENT, FLOOR, number=3))
    by_agent.sees(109.5, IP(src=FLOOR, dst=AGENT) / UP)
    assert by_agent.failing() == (set() if holds else {DEAD})


# --- home ------------------------------------------------------------------------------------------------------------

ANNOUNCED = (
    "the home address is announced by gratuitous ARP when the link is trusted, and before it is deregistered"
)
GIVEN_UP = (
    "all bindings are given up from the home address, straight to the home agent, which confirms it with TNC"
)
PLAIN = "at home data goes as it is, and there is no tunnel"
ANSWERS = "who asks for the home address by ARP is answered"
TAKEN_OVER = "on the home link the home agent takes the home address over by ARP"


@pytest.fixture
def at_home(tmp_path: Path) -> Play:
    home = replace(STAGES["home"], incidents=("AskForHomeAddress",))
    desk = replace(STAGES["c"], begin=110.0, end=120.0)
    made = Play(tmp_path, (home, desk))
    made.sees(100.3, request(LINK, AGENT, LINK), receiver=HOME_AGENT)
    made.hears(100.31, answer(AGENT, LINK), sender=HOME_AGENT)
    made.sees(100.4, ARP(op=1, hwsrc=LAPTOP, psrc=HOME, pdst=HOME), receiver=BROADCAST)
    made.sees(100.5, request(HOME, AGENT, HOME, number=2, lifetime=0), receiver=HOME_AGENT)
    made.hears(100.51, answer(AGENT, HOME, number=2), sender=HOME_AGENT)
    made.sees(101.0, UP, receiver=HOME_AGENT)
    made.hears(101.0, DOWN, sender=HOME_AGENT)
    made.hears(102.0, ARP(op=1, psrc="10.77.0.1", pdst=HOME), sender=HOME_AGENT, receiver=BROADCAST)
    made.sees(102.1, ARP(op=2, hwsrc=LAPTOP, psrc=HOME, pdst="10.77.0.1"), receiver=HOME_AGENT)
    made.sees(110.3, request(DESK, AGENT, DESK, number=3))
    made.hears(110.31, answer(AGENT, DESK, number=3))
    made.sees(111.0, IP(src=DESK, dst=AGENT) / UP)
    takes_over = ARP(op=1, hwsrc=HOME_AGENT, psrc=HOME, pdst=HOME)
    made.sees(110.35, takes_over, capture=AT_HOME, sender=HOME_AGENT, receiver=BROADCAST)
    return made


def test_a_good_stay_at_home_bears_every_claim_out(at_home: Play) -> None:
    assert at_home.failing() == set()


def is_announced(packet: Packet) -> bool:
    return ARP in packet and packet[ARP].hwsrc == LAPTOP and packet[ARP].op == 1


HOMECOMING: dict[str, tuple[set[str], Callable[[Play], object]]] = {
    "announced after the request": (
        {ANNOUNCED},
        lambda play: (
            play.drop(is_announced),
            play.sees(100.6, ARP(op=1, hwsrc=LAPTOP, psrc=HOME, pdst=HOME), receiver=BROADCAST),
        ),
    ),
    "announced before the proof": (
        {ANNOUNCED},
        lambda play: play.sees(100.2, ARP(op=1, hwsrc=LAPTOP, psrc=HOME, pdst=HOME), receiver=BROADCAST),
    ),
    "never announced": ({ANNOUNCED}, lambda play: play.drop(is_announced)),
    "a registration instead": (
        {GIVEN_UP},
        lambda play: play.sees(103.0, request(HOME, AGENT, HOME, number=9, lifetime=1800), receiver=HOME_AGENT),
    ),
    "only one binding": (
        {GIVEN_UP},
        lambda play: play.sees(103.0, request(HOME, AGENT, DESK, number=9, lifetime=0), receiver=HOME_AGENT),
    ),
    "a tunnel at home": (
        {PLAIN},
        lambda play: play.hears(103.0, IP(src=AGENT, dst=LINK) / DOWN, sender=HOME_AGENT),
    ),
    "silence by ARP": (
        {ANSWERS},
        lambda play: play.drop(lambda each: ARP in each and each[ARP].op == 2),
    ),
    "nobody takes over": (
        {TAKEN_OVER},
        lambda play: play.drop(lambda each: ARP in each and each[ARP].hwsrc == HOME_AGENT and each[ARP].psrc == HOME),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("claims", "refute"), HOMECOMING.values(), ids=HOMECOMING)
def test_at_home_one_thing_refutes_a_claim(
    at_home: Play, claims: set[str], refute: Callable[[Play], object]
) -> None:
    refute(at_home)
    assert at_home.failing() == claims


# --- NAT -------------------------------------------------------------------------------------------------------------

IN_UDP = "behind the NAT all data travels in UDP, by the port that registered"
REBOUND = "the NAT's new port is registered, and data goes by it"


@pytest.fixture
def behind_nat(tmp_path: Path) -> Play:
    later = replace(
        STAGES["nat"], name="rebound", begin=110.0, end=120.0, moved=False, incidents=("RebindWhileIdle",)
    )
    made = Play(tmp_path, (STAGES["nat"], later))
    for begin, port in ((100.0, 434), (112.0, 40000)):
        made.sees(begin + 0.3, request(BRANCH, AGENT, BRANCH))
        made.sees(begin + 0.3, request(NAT, AGENT, BRANCH, port=port), capture=AT_AGENT)
        made.sees(begin + 0.31, answer(AGENT, NAT, port=port), capture=AT_AGENT)
        made.hears(begin + 0.31, answer(AGENT, BRANCH))
        made.sees(begin + 1, in_udp(UP, BRANCH, AGENT))
        made.sees(begin + 1, in_udp(UP, NAT, AGENT, sport=port), capture=AT_AGENT)
        made.sees(begin + 1, in_udp(DOWN, AGENT, NAT, dport=port), capture=AT_AGENT)
    return made


def test_a_good_stay_behind_nat_bears_every_claim_out(behind_nat: Play) -> None:
    assert behind_nat.failing() == set()


BEHIND_NAT: dict[str, tuple[set[str], Callable[[Play], object]]] = {
    "IP-in-IP past the NAT": (
        {IN_UDP},
        lambda play: play.sees(105.0, IP(src=AGENT, dst=NAT) / DOWN, capture=AT_AGENT),
    ),
    "to a port that never registered": (
        {IN_UDP},
        lambda play: play.sees(105.0, in_udp(DOWN, AGENT, NAT, dport=999), capture=AT_AGENT),
    ),
    "the old port goes on": (
        {REBOUND},
        lambda play: play.sees(115.0, in_udp(DOWN, AGENT, NAT, dport=434), capture=AT_AGENT),
    ),
    "the new port is refused": (
        {REBOUND},
        lambda play: play.drop(lambda each: MobileIPRRP in each and each[UDP].dport == 40000),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("claims", "refute"), BEHIND_NAT.values(), ids=BEHIND_NAT)
def test_behind_nat_one_thing_refutes_a_claim(
    behind_nat: Play, claims: set[str], refute: Callable[[Play], object]
) -> None:
    refute(behind_nat)
    assert behind_nat.failing() == claims


# --- agents that fail, clocks that are set ----------------------------------------------------------------------------

HELD = "without a proof that is fresh, nothing of the home address leaves"
DENIES = "the home agent denies, and signs it"
RESYNCHRONISED = "the home agent tells its time by code 133, and then accepts"
ABOVE = "until here no request undercuts an Identification that was accepted"


def without_agent(tmp_path: Path) -> Play:
    """At the desk, and from 103 on the home agent is dead; a proof is good for three seconds."""
    here = replace(STAGES["c"], end=103.0, monitor=3.0)
    dead = replace(here, name="dead", begin=103.0, end=110.0, moved=False, expect="none")
    made = Play(tmp_path, (here, dead))
    made.sees(102.0, request(DESK, AGENT, DESK))
    made.hears(102.01, answer(AGENT, DESK))
    made.sees(102.5, IP(src=DESK, dst=AGENT) / UP)
    made.sees(105.2, IP(src=DESK, dst=AGENT) / UP)
    return made


def test_data_may_leave_until_the_last_proof_has_run_out_and_no_longer(tmp_path: Path) -> None:
    play = without_agent(tmp_path)
    assert play.failing() == set()
    for late in (IP(src=DESK, dst=AGENT) / UP, in_udp(UP, DESK, AGENT), UP):
        play = without_agent(tmp_path)
        play.sees(106.0, late)
        assert play.failing() == {HELD}


def test_who_watched_too_short_has_not_seen_that_nothing_leaves(tmp_path: Path) -> None:
    play = without_agent(tmp_path)
    play.stages = (play.stages[0], replace(play.stages[1], end=105.8))
    assert play.failing() == {HELD}


def test_a_denial_is_signed_and_nothing_is_accepted(tmp_path: Path) -> None:
    stage = replace(STAGES["c"], expect="none", incidents=("DenyAll",))
    play = Play(tmp_path, (stage,))
    play.sees(100.3, request(DESK, AGENT, DESK))
    play.hears(100.31, answer(AGENT, DESK, code=130, more=b""))
    assert play.failing() == set()
    play.hears(104.0, answer(AGENT, DESK))
    assert play.failing() == {DENIES, HELD}
    play.packets = [each for each in play.packets if MobileIPRRP not in each[4]]
    assert play.failing() == {DENIES}


@pytest.mark.parametrize(("last", "holds"), [(107.5, True), (106.0, False)])
def test_the_proof_is_asked_for_again_before_it_is_too_old(tmp_path: Path, last: float, holds: bool) -> None:
    play = Play(tmp_path, (replace(STAGES["c"], monitor=3.0),))
    for number, at in enumerate((100.3, 102.0, 104.5, last)):
        play.sees(at, request(DESK, AGENT, DESK, number=number))
        play.hears(at + 0.01, answer(AGENT, DESK, number=number))
    play.sees(101.0, IP(src=DESK, dst=AGENT) / UP)
    assert play.failing() == (
        set() if holds else {"the home agent vouches for the network anew at least every 3 s"}
    )


def jump(tmp_path: Path) -> Play:
    play = Play(tmp_path, (replace(STAGES["c"], incidents=("SetClock",)),))
    for at, number, code in ((100.3, 9000, 133), (100.4, 500, 0), (102.0, 501, 0)):
        for capture in (CABLE, AT_AGENT):
            play.sees(at, request(DESK, AGENT, DESK, number=number), capture=capture)
            play.sees(
                at + 0.01, answer(AGENT, DESK, number=number, code=code), capture=capture, sender=FOREIGN
            )
    play.sees(101.0, IP(src=DESK, dst=AGENT) / UP)
    return play


def test_a_refused_identification_may_be_undercut_and_an_accepted_one_never(tmp_path: Path) -> None:
    assert jump(tmp_path).failing() == set()
    for number in (500, 501, 400):
        play = jump(tmp_path)
        play.sees(103.0, request(DESK, AGENT, DESK, number=number), capture=AT_AGENT)
        assert play.failing() == {ABOVE}


def test_a_clock_that_nobody_corrected_is_seen(tmp_path: Path) -> None:
    play = jump(tmp_path)
    play.drop(lambda each: MobileIPRRP in each and each[MobileIPRRP].code == 133)
    assert play.failing() == {RESYNCHRONISED}
