# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody on an access network who advertises whatever agent they like, several times a second."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from homeward.model.agent import AgentAdvertisement, AgentFlags
from homeward.wire.agent_advertisement import encode_advertisement
from tests.lab.attackers import ATTACKER, Neighbour

_ALL_SYSTEMS = "224.0.0.1"
_ALL_SYSTEMS_ON_ETHERNET = "01:00:5e:00:00:01"
_PAUSE = 0.1


def frames(agent: IPv4Address, flags: AgentFlags, *care_of: IPv4Address) -> Iterator[bytes]:
    """Advertisements of one agent, numbered as a real one numbers them."""
    for sequence in range(0xFFFF):
        advertisement = AgentAdvertisement(
            sequence, 3, registration_lifetime=300, flags=flags, care_of_addresses=care_of
        )
        packet = IP(src=str(agent), dst=_ALL_SYSTEMS, ttl=1, proto=1) / Raw(
            encode_advertisement(advertisement)
        )
        yield bytes(Ether(src=ATTACKER, dst=_ALL_SYSTEMS_ON_ETHERNET) / packet)


@contextmanager
def advertising(
    neighbour: Neighbour, agent: IPv4Address, flags: AgentFlags, *care_of: IPv4Address
) -> Iterator[None]:
    """They advertise meanwhile."""
    over = threading.Event()

    def go_on() -> None:
        for frame in frames(agent, flags, *care_of):
            neighbour.send_frame(frame)
            if over.wait(_PAUSE):
                return

    voice = threading.Thread(target=go_on)
    voice.start()
    try:
        yield
    finally:
        over.set()
        voice.join()
