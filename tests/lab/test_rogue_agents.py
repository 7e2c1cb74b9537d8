# SPDX-License-Identifier: GPL-2.0-or-later
"""Outside, whoever advertises what they like gets no registration, no home address, and no packet of anybody's."""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from homeward.lab import services
from homeward.lab.state import LabState
from homeward.lab.story import Setting
from homeward.lab.topology import AGENT_ADDRESS, HOME_ADDRESS, HOME_NETWORK
from homeward.model.access import AccessMode
from homeward.model.agent import AgentFlags
from homeward.model.status import Trust
from tests.lab.attackers import ATTACKER, REGISTRATION, Neighbour
from tests.lab.laptop import Laptop, Status, eventually
from tests.lab.rogue_agents import advertising
from tests.lab.wiretap import HELD, Tap, leaks

pytestmark = [pytest.mark.root, pytest.mark.lab]
SHARES_LAB = True

ROGUE = IPv4Address("198.51.100.66")
EAGER = Setting(
    home_agent=(f'home_network = "{HOME_NETWORK}"',),
    policy=('use_foreign_agents = "prefer"',),
)
"""A profile that goes by any foreign agent, and home wherever that is, once the network is proved."""
FOREIGN = AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL


@pytest.fixture(scope="module", autouse=True)
def eager_profile(lab: LabState, status: Status) -> None:
    text = services.profile(lab, "eager", EAGER)
    Laptop(lab, status).host.run("tee", services.profile_path("eager"), text=text)


@pytest.fixture
def cafe(lab: LabState) -> Iterator[Neighbour]:
    """The owner of ext1."""
    with Neighbour(lab, "ext1") as made:
        yield made


def test_inside_the_same_words_are_heard_and_followed(laptop: Laptop, lab: LabState, tap: Tap) -> None:
    """The control: without proof of the network it is the same question, and here it is asked and seen."""
    agent = IPv4Address("10.1.1.66")
    laptop.plug("trust1")
    with Neighbour(lab, "trust1") as neighbour, advertising(neighbour, agent, FOREIGN, agent):
        assert laptop.connect("eager").status == 0
        heard: list[bytes] = []

        def asked() -> list[Packet]:
            heard.extend(tap.heard())
            return [each for each in requests(heard) if each[IP].dst == str(agent)]

        question = eventually(asked, "the agent is never asked")[0]
    assert question.dst == ATTACKER
    assert question[IP].src == str(HOME_ADDRESS)


@pytest.mark.rows("R-14", "R-117", "R-126")
@pytest.mark.parametrize(
    ("agent", "flags", "care_of"),
    [
        (ROGUE, FOREIGN, (ROGUE,)),
        (ROGUE, FOREIGN | AgentFlags.REGISTRATION_REQUIRED, (ROGUE,)),
        (AGENT_ADDRESS, AgentFlags.HOME_AGENT, ()),
    ],
    ids=["a foreign agent", "one that demands registration", "our home agent's name"],
)
def test_outside_nobody_registers_with_who_advertises(
    laptop: Laptop,
    cafe: Neighbour,
    tap: Tap,
    agent: IPv4Address,
    flags: AgentFlags,
    care_of: tuple[IPv4Address, ...],
) -> None:
    laptop.plug("trust1")
    assert laptop.connect("eager").status == 0
    laptop.unplug()
    laptop.status.until(lambda now: now.mode is AccessMode.NONE, "unplugged")
    tap.heard()
    mark = laptop.status.mark()
    with advertising(cafe, agent, flags, *care_of):
        laptop.plug("ext1")
        laptop.status.until(lambda now: now.mode is AccessMode.MC, "outside")
        heard: list[bytes] = []

        def asked_again() -> bool:
            heard.extend(tap.heard())
            return len(requests(heard)) > 1

        eventually(asked_again, "the clear question is never repeated")
    assert {now.mode for now in laptop.status.since(mark)} <= {AccessMode.NONE, AccessMode.MC}
    assert Trust.TRUSTED not in {now.trust for now in laptop.status.since(mark)}
    for packet in requests(heard):
        assert packet[IP].dst == str(AGENT_ADDRESS)
        assert packet[IP].src != str(HOME_ADDRESS)
    about_home = [
        frame for frame in map(Ether, heard) if ARP in frame and str(HOME_ADDRESS) in frame[ARP].psrc
    ]
    assert about_home == []
    assert leaks(heard, HELD) == []


def requests(heard: list[bytes]) -> list[Packet]:
    found = [Ether(frame) for frame in heard]
    return [each for each in found if UDP in each and each[UDP].dport == REGISTRATION]
