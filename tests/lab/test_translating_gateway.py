# SPDX-License-Identifier: GPL-2.0-or-later
"""Outside, where the gateway hides the inner address as well: a tunnel in UDP inside ESP, and nothing without it."""

import time

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from homeward.lab.applications import Applications
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT, AGENT_ADDRESS, HOME_ADDRESS
from homeward.model.access import AccessMode
from tests.lab.attackers import REGISTRATION
from tests.lab.enterprise import agent_with_nat, gateway_translating
from tests.lab.laptop import Laptop
from tests.lab.wiretap import HELD, Tap, leaks

pytestmark = [pytest.mark.root, pytest.mark.lab]
SHARES_LAB = True

_TUNNEL_DATA = 4


@pytest.mark.rows("R-48", "R-50", "R-59")
def test_a_tunnel_in_udp_goes_through_the_vpn(laptop: Laptop, lab: LabState, tap: Tap) -> None:
    laptop.plug("trust1")
    with gateway_translating(lab) as gateway, agent_with_nat(lab, gateway):
        assert laptop.connect().status == 0
        laptop.plug("ext1")
        laptop.status.until(lambda now: now.mode is AccessMode.MC and now.udp_tunnel, "outside, in UDP")
        tap.heard()
        with Tap(Host(lab, AGENT), "inside") as at_agent:
            applications = Applications(lab, HOME_ADDRESS)
            applications.start_tcp()
            time.sleep(1.0)
            ended = applications.finish_tcp()
            packets = [Ether(frame)[IP] for frame in at_agent.carried() if IP in Ether(frame)]
        assert ended.sha256_equal
        assert min(ended.up_bytes, ended.down_bytes) > 0
        assert leaks(tap.heard(), HELD) == []
        laptop.disconnect()
    between = [each for each in packets if {each.src, each.dst} == {gateway, str(AGENT_ADDRESS)}]
    # The gateway may say by ICMP how much fits into its ESP, and nothing else.
    assert [each.summary() for each in between if UDP not in each and not _says_too_big(each)] == []
    carried = [
        each for each in between if UDP in each and bytes(each[UDP].payload)[:1] == bytes((_TUNNEL_DATA,))
    ]
    assert len(carried) > 100
    assert {each[UDP].dport for each in carried if each.src == gateway} == {REGISTRATION}
    (port,) = {each[UDP].sport for each in carried if each.src == gateway}
    assert {each[UDP].dport for each in carried if each.dst == gateway} == {port} != {REGISTRATION}


def _says_too_big(packet: Packet) -> bool:
    return ICMP in packet and (packet[ICMP].type, packet[ICMP].code) == (3, 4)
