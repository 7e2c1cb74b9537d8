# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens today, without Homeward, when a laptop walks from one subnet of its own company to the next.

A TCP connection from the address that DHCP gave in trust1 transfers data. The cable moves to trust2. The
network is fine there, a new connection works at once; the old one never moves another octet, because its
address is gone. This is the problem.
"""

import time
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from homeward.lab.applications import Applications
from homeward.lab.state import LabState

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.mark.slow
def test_a_plain_connection_dies_on_a_move(lab: LabState, move: Callable[[str], str]) -> None:
    address = move("trust1")
    applications = Applications(lab, IPv4Address(address))
    applications.start_tcp()
    time.sleep(1.0)
    flowing = applications.progress()
    assert flowing[-1]["up"] > flowing[0]["up"]
    assert flowing[-1]["down"] > flowing[0]["down"]

    new_address = move("trust2")
    assert new_address != address
    time.sleep(0.5)  # whatever was on the way has arrived
    after_the_move = applications.progress()[-1]
    time.sleep(3.0)
    later = applications.progress()[-1]
    assert later["t"] > after_the_move["t"] + 2, "the correspondent's process has stopped looking"
    assert later["up"] == after_the_move["up"], "the old connection still delivers data"

    ended = applications.finish_tcp(seconds=2.0)
    assert not ended.sha256_equal

    again = Applications(lab, IPv4Address(new_address))
    again.start_tcp()
    time.sleep(0.5)
    assert again.progress()[-1]["up"] > 0
    assert again.finish_tcp().sha256_equal
