# SPDX-License-Identifier: GPL-2.0-or-later
"""The leak check by a foreign agent, at home, in UDP: first each kind of leak injected, then what looks almost so."""

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from homeward.diagnostics.captures import read
from homeward.diagnostics.evidence import Evidence, Stage
from homeward.diagnostics.leaks import Leak, find_leaks

LAPTOP, ROUTER, FOREIGN = "02:00:00:00:01:01", "02:00:00:00:04:01", "02:00:00:00:09:01"
BROADCAST = "ff:ff:ff:ff:ff:ff"
ADDRESS, HOME, AGENT, FOREIGN_AGENT = "10.1.3.50", "10.77.0.10", "10.0.0.2", "10.1.3.1"

STAGE = Stage(
    "stage",
    inside=True,
    begin=100.0,
    end=110.0,
    access_address=ADDRESS,
    mobike=False,
    network="trust3",
    agent_address=FOREIGN_AGENT,
    agent_hardware_address=FOREIGN,
    monitor=5.0,
)
AT_HOME = replace(STAGE, network="home", agent_address="", agent_hardware_address="")

DATA = IP(src=HOME, dst="10.0.0.10") / TCP(dport=5001)
IN_UDP = IP(src=ADDRESS, dst=AGENT) / UDP(sport=434, dport=434) / Raw(bytes((4, 4, 0, 0)) + bytes(DATA))
ASKS_AGENT = IP(src=HOME, dst=FOREIGN_AGENT, ttl=255) / UDP(sport=434, dport=434) / MobileIP() / MobileIPRRQ()
ASKS_AT_HOME = IP(src=HOME, dst=AGENT, ttl=255) / UDP(sport=434, dport=434) / MobileIP() / MobileIPRRQ()
ANNOUNCES = ARP(op=1, hwsrc=LAPTOP, psrc=HOME, pdst=HOME)


def yes(source: str, to: str, *, code: int = 0) -> Packet:
    return IP(src=source, dst=to) / UDP(sport=434, dport=434) / MobileIP(type=3) / MobileIPRRP(code=code)


def frame(packet: Packet, at: float, *, sender: str = LAPTOP, receiver: str = ROUTER) -> Packet:
    made = Ether(src=sender, dst=receiver) / packet
    made.time = at
    return made


PROOF = frame(yes(AGENT, ADDRESS), 101.0, sender=ROUTER, receiver=LAPTOP)
BY_AGENT = frame(yes(FOREIGN_AGENT, HOME), 101.5, sender=FOREIGN, receiver=LAPTOP)
CONFIRMED = frame(yes(AGENT, HOME), 101.5, sender=ROUTER, receiver=LAPTOP)


def leaks(tmp_path: Path, *frames: Packet, stages: tuple[Stage, ...] = (STAGE,)) -> list[Leak]:
    capture = tmp_path / "switch-cable.pcap"
    wrpcap(str(capture), list(frames), linktype=1)
    evidence = Evidence(
        home_address=HOME,
        home_agent=AGENT,
        gateway="192.0.2.1",
        gateway_name="gw.example.test",
        cable=capture,
        hardware_address=LAPTOP,
        inner_network=IPv4Network("10.9.0.0/24"),
        captures=tmp_path,
        charon_log=tmp_path / "charon.log",
        stages=stages,
    )
    return find_leaks(evidence, read(capture))


UNPROVED = {
    "a packet into the agent's hands": frame(DATA, 102.0, receiver=FOREIGN),
    "a request to the agent": frame(ASKS_AGENT, 102.0, receiver=FOREIGN),
    "data in UDP": frame(IN_UDP, 102.0),
    "a keepalive": frame(
        IP(src=ADDRESS, dst=AGENT)
        / UDP(dport=434)
        / Raw(bytes((4, 4, 0, 0)) + bytes(IP(src=HOME, dst=AGENT) / ICMP())),
        102.0,
    ),
    "the home address in ARP": frame(ANNOUNCES, 102.0, receiver=BROADCAST),
    "a deregistration": frame(ASKS_AT_HOME, 102.0),
}


@pytest.mark.parametrize("stage", [STAGE, AT_HOME], ids=["foreign", "home"])
@pytest.mark.parametrize("packet", UNPROVED.values(), ids=UNPROVED)
def test_before_the_first_proof_each_is_a_leak(tmp_path: Path, packet: Packet, stage: Stage) -> None:
    (leak,) = leaks(tmp_path, packet, stages=(stage,))
    assert leak.state == "undecided"


def test_what_the_foreign_agent_needs_is_none_once_each_step_is_granted(tmp_path: Path) -> None:
    asks, sends = frame(ASKS_AGENT, 101.2, receiver=FOREIGN), frame(DATA, 102.0, receiver=FOREIGN)
    encapsulated = frame(IP(src=HOME, dst=FOREIGN_AGENT) / DATA, 102.1, receiver=FOREIGN)
    assert leaks(tmp_path, PROOF, asks, BY_AGENT, sends, encapsulated) == []


BY_THE_AGENT = {
    "to somebody else's hardware address": frame(DATA, 102.0),
    "a request to somebody else's": frame(ASKS_AGENT, 102.0),
    "a request to another agent": frame(
        IP(src=HOME, dst="10.1.3.9") / UDP(sport=434, dport=434) / MobileIP() / MobileIPRRQ(), 102.0
    ),
    "from the address of the link": frame(IP(src=ADDRESS, dst="10.0.0.10") / TCP(), 102.0, receiver=FOREIGN),
    "the home address in ARP": frame(ANNOUNCES, 102.0, receiver=BROADCAST),
    "a question for the agent's address": frame(
        ARP(psrc=HOME, pdst=FOREIGN_AGENT), 102.0, receiver=BROADCAST
    ),
}


@pytest.mark.parametrize("packet", BY_THE_AGENT.values(), ids=BY_THE_AGENT)
def test_by_the_agent_what_looks_almost_like_it_is_a_leak(tmp_path: Path, packet: Packet) -> None:
    (leak,) = leaks(tmp_path, PROOF, BY_AGENT, packet)
    assert (leak.state, leak.count) == ("by the foreign agent", 1)


NO_GRANT = {
    "a denial": frame(yes(FOREIGN_AGENT, HOME, code=66), 101.5, sender=FOREIGN, receiver=LAPTOP),
    "from another hardware address": frame(yes(FOREIGN_AGENT, HOME), 101.5, sender=ROUTER, receiver=LAPTOP),
    "from another address": frame(yes("10.1.3.9", HOME), 101.5, sender=FOREIGN, receiver=LAPTOP),
}


@pytest.mark.parametrize("answer", NO_GRANT.values(), ids=NO_GRANT)
def test_only_the_agents_yes_lets_data_go_into_its_hands(tmp_path: Path, answer: Packet) -> None:
    (leak,) = leaks(tmp_path, PROOF, answer, frame(DATA, 102.0, receiver=FOREIGN))
    assert leak.state == "inside"


def test_outside_no_agents_yes_is_worth_anything(tmp_path: Path) -> None:
    outside = replace(STAGE, inside=False)
    asks, sends = frame(ASKS_AGENT, 101.2, receiver=FOREIGN), frame(DATA, 102.0, receiver=FOREIGN)
    found = leaks(tmp_path, PROOF, asks, BY_AGENT, sends, stages=(outside,))
    assert [leak.state for leak in found] == ["outside", "outside"]


def test_data_in_udp_is_none_with_a_proof_and_other_peoples_is(tmp_path: Path) -> None:
    assert leaks(tmp_path, PROOF, frame(IN_UDP, 102.0)) == []
    strange = bytes((4, 4, 0, 0)) + bytes(IP(src="10.8.8.8", dst="10.0.0.10") / TCP())
    other = frame(IP(src=ADDRESS, dst=AGENT) / UDP(sport=434, dport=434) / Raw(strange), 102.0)
    assert [leak.state for leak in leaks(tmp_path, PROOF, other)] == ["inside"]


def test_at_home_nothing_of_the_home_addresss_is_one(tmp_path: Path) -> None:
    steps = (frame(ANNOUNCES, 101.2, receiver=BROADCAST), frame(ASKS_AT_HOME, 101.3))
    asks = frame(ARP(psrc=HOME, pdst="10.77.0.1"), 102.1, receiver=BROADCAST)
    assert leaks(tmp_path, PROOF, *steps, CONFIRMED, frame(DATA, 102.0), asks, stages=(AT_HOME,)) == []
    (early,) = leaks(tmp_path, PROOF, frame(DATA, 101.2), CONFIRMED, stages=(AT_HOME,))
    assert early.state == "inside"
    (other,) = leaks(
        tmp_path, PROOF, CONFIRMED, frame(IP(src=ADDRESS, dst="10.0.0.10") / TCP(), 102.0), stages=(AT_HOME,)
    )
    assert other.state == "at home"


def test_elsewhere_nobody_is_at_home(tmp_path: Path) -> None:
    found = leaks(tmp_path, PROOF, CONFIRMED, frame(DATA, 102.0), frame(ANNOUNCES, 102.1, receiver=BROADCAST))
    assert [leak.state for leak in found] == ["inside", "inside"]


def test_a_proof_that_is_too_old_opens_nothing_any_more(tmp_path: Path) -> None:
    tunnelled = IP(src=ADDRESS, dst=AGENT) / DATA
    renewed = frame(yes(AGENT, ADDRESS), 105.0, sender=ROUTER, receiver=LAPTOP)
    assert leaks(tmp_path, PROOF, frame(tunnelled, 106.0)) == []
    (late,) = leaks(tmp_path, PROOF, frame(tunnelled, 106.8))
    assert late.state == "undecided"
    assert leaks(tmp_path, PROOF, renewed, frame(tunnelled, 106.8)) == []


@pytest.mark.parametrize("moved", [False, True])
def test_what_was_proved_holds_on_where_the_cable_was_not_moved(tmp_path: Path, moved: bool) -> None:
    later = replace(STAGE, name="later", begin=103.0, moved=moved)
    tunnelled = frame(IP(src=ADDRESS, dst=AGENT) / DATA, 104.0)
    found = leaks(tmp_path, PROOF, tunnelled, stages=(replace(STAGE, end=103.0), later))
    assert [leak.stage for leak in found] == (["later"] if moved else [])


@pytest.mark.parametrize(("wall", "leaked"), [(3600.0, []), (3596.0, ["later"])])
def test_a_proof_does_not_age_by_setting_the_clock(tmp_path: Path, wall: float, leaked: list[str]) -> None:
    """An hour's setting aside, the packet leaves four seconds after its proof; by the other clock it is eight."""
    later = replace(STAGE, name="later", begin=3703.0, end=3720.0, moved=False, wall=wall)
    tunnelled = frame(IP(src=ADDRESS, dst=AGENT) / DATA, 3705.0)
    found = leaks(tmp_path, PROOF, tunnelled, stages=(replace(STAGE, end=103.0), later))
    assert [leak.stage for leak in found] == leaked
