# SPDX-License-Identifier: GPL-2.0-or-later
"""Who reaches whom in the lab: the inside from inside; from outside the gateway's IKE ports and nothing else."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from homeward.lab.build import laptop_addresses
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import (
    ACCESS_NETWORKS,
    AGENT,
    AGENT_ADDRESS,
    CORRESPONDENT_ADDRESS,
    GATEWAY,
    GATEWAY_ADDRESS,
    GATEWAY_NAME,
    LAPTOP,
)

pytestmark = [pytest.mark.root, pytest.mark.lab]
SHARES_LAB = True

# Sends one datagram; the other side says from whom it came, or nothing within the time.
_SEND = "import socket,sys; s=socket.socket(2,2); s.sendto(b'x',(sys.argv[1],int(sys.argv[2])))"
# A raw socket, since charon and the home agent own the ports: it sees what the host gets, whoever it is for.
_HEAR_UDP = """
import socket, sys
s = socket.socket(2, 3, 17); s.settimeout(float(sys.argv[3])); print("ready", flush=True)
while True:
    data, sender = s.recvfrom(2048)
    if data[22:24] == int(sys.argv[2]).to_bytes(2, "big") and data[28:] == b"x":
        print(sender[0], flush=True); break
"""
# The same for IP protocol 4, IP-in-IP, the way data would come to the home agent.
_SEND_IPIP = (
    "import socket,sys; s=socket.socket(2,3,4);"
    "s.sendto(b'E'+bytes(1)+(20).to_bytes(2,'big')+bytes(16),(sys.argv[1],0))"
)
_HEAR_IPIP = (
    "import socket,sys; s=socket.socket(2,3,4); s.settimeout(float(sys.argv[3]));"
    "print('ready',flush=True); print(s.recvfrom(99)[1][0],flush=True)"
)


def _heard(
    lab: LabState, host: str, hear: str, send: str, address: str, port: int, *, seconds: float = 3.0
) -> str | None:
    """Who the datagram came from, seen by `host`; None when it did not arrive."""
    python = (sys.executable, "-I", "-S", "-c")
    argv = Host(lab, host).enter([*python, hear, address, str(port), str(seconds)])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        Host(lab, LAPTOP).run(*python, send, address, str(port))
        return listener.stdout.readline().strip() or None


@pytest.mark.parametrize("network", ACCESS_NETWORKS)
def test_every_access_network_gives_an_address_and_a_resolver(
    lab: LabState, move: Callable[[str], str], network: str
) -> None:
    address = move(network)
    assert address.startswith(str(ACCESS_NETWORKS[network].prefix[0])[:-1])
    assert laptop_addresses(lab) == [address], "an address of another network is left"
    # The DHCP client writes the resolver's file after it has set the address: a question asked before that goes
    # to the resolver of the network before, where nobody answers, and by the library's default that takes 10 s.
    ask = ("env", "RES_OPTIONS=timeout:1 attempts:1", "getent", "hosts", GATEWAY_NAME)
    deadline = time.monotonic() + 10
    while not (found := Host(lab, LAPTOP).run(*ask, check=False).stdout.split()):
        assert time.monotonic() < deadline, "the gateway's name is not found"
        time.sleep(0.02)
    assert found[0] == str(GATEWAY_ADDRESS)


@pytest.mark.parametrize("network", ["trust1", "trust2"])
def test_the_inside_is_reached_from_inside(lab: LabState, move: Callable[[str], str], network: str) -> None:
    address = move(network)
    laptop = Host(lab, LAPTOP)
    laptop.run("ping", "-c1", "-W2", str(CORRESPONDENT_ADDRESS))
    assert _heard(lab, AGENT, _HEAR_UDP, _SEND, str(AGENT_ADDRESS), 434) == address
    assert _heard(lab, AGENT, _HEAR_IPIP, _SEND_IPIP, str(AGENT_ADDRESS), 0) == address


@pytest.mark.rows("R-61")
@pytest.mark.parametrize("network", ["ext1", "ext2"])
def test_nothing_from_outside_reaches_the_inside(
    lab: LabState, move: Callable[[str], str], network: str
) -> None:
    move(network)
    laptop = Host(lab, LAPTOP)
    assert laptop.run("ping", "-c1", "-W1", str(CORRESPONDENT_ADDRESS), check=False).returncode == 1
    assert _heard(lab, AGENT, _HEAR_UDP, _SEND, str(AGENT_ADDRESS), 434, seconds=0.7) is None
    assert _heard(lab, AGENT, _HEAR_IPIP, _SEND_IPIP, str(AGENT_ADDRESS), 0, seconds=0.7) is None
    assert _heard(lab, GATEWAY, _HEAR_UDP, _SEND, str(GATEWAY_ADDRESS), 434, seconds=0.7) is None


@pytest.mark.parametrize(
    ("network", "seen_as"),
    [("trust1", None), ("ext1", None), ("ext2", "203.0.113.2")],
    ids=["inside", "outside", "outside behind NAT"],
)
def test_the_gateways_ike_ports_are_reached_from_everywhere(
    lab: LabState, move: Callable[[str], str], network: str, seen_as: str | None
) -> None:
    address = move(network)
    for port in (500, 4500):
        seen = _heard(lab, GATEWAY, _HEAR_UDP, _SEND, str(GATEWAY_ADDRESS), port)
        assert seen == (seen_as or address), f"UDP {port} from {network}"
