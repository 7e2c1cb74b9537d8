# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent's programs and maps in a real kernel: what passes, for how many, and what comes to the TUN device."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP

from homeward.adapters.kernel_tunnels.agent_tunnels import AgentTunnels, Leaving, remove_all
from homeward.adapters.kernel_tunnels.bpf import HashMap
from homeward.adapters.kernel_tunnels.entries import Carrier
from homeward.adapters.netlink_routes.forwarding import ForwardingRoutes, RouteProgram
from homeward.adapters.tunnel_device import open_tun
from homeward.model.errors import PlanError
from tests.component.agent_network import Namespace, raw

pytestmark = pytest.mark.root

DEVICE = "hw-contract"
NEAR, FAR = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
NETWORK = (int(IPv4Address("10.77.0.0")), 16)
FIRST = int(IPv4Address("10.77.0.1"))


class Host:
    """An agent's host with a TUN device that nobody but the test reads, and a cable to the far end."""

    def __init__(self) -> None:
        self.agent, self.far = Namespace(), Namespace()
        self.agent.ip(f"link add inside type veth peer name lan netns {self.far.pid}")
        self.agent.ip(f"address add {NEAR}/24 dev inside")
        self.agent.ip("link set inside up")
        self.far.ip(f"address add {FAR}/24 dev lan")
        self.far.ip("link set lan up")
        with self.agent.entered():
            self.device = open_tun(DEVICE)
            self.routes = ForwardingRoutes(DEVICE)
            self.routes.bring_up(mtu=1500, forward_from=frozenset({"inside"}))

    def open(self, capacity: int = 16) -> AgentTunnels:
        made = AgentTunnels(NEAR, capacity=capacity, clamps=False)
        with self.agent.entered():
            made.open(self.routes.device_index)
        return made

    def lead(self, tunnels: AgentTunnels) -> None:
        self.routes.lead({NETWORK}, RouteProgram(tunnels.route_program, tunnels.route_name))

    def read(self) -> list[bytes]:
        """What has come into the TUN device."""
        found: list[bytes] = []
        while True:
            try:
                packet = os.read(self.device, 65535)
            except BlockingIOError:
                return found
            if packet[0] >> 4 == 4:
                found.append(packet)

    def close(self) -> None:
        os.close(self.device)
        self.routes.close()
        self.agent.close()
        self.far.close()


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def tunnel(home: int, far: int = int(FAR), *, port: int = 4000, room: int = 1468) -> Leaving:
    ends = [number.to_bytes(4, "big") for number in (home, far)]
    return Leaving(ends[0], Carrier.UDP, ends[1], port.to_bytes(2, "big"), room=room, until=math.inf)


def send(host: Host, home: int, data: bytes = b"data") -> None:
    """A packet that is routed to a home address, from elsewhere."""
    with (
        host.far.entered(),
        closing(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as raw_,
    ):
        raw_.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan")
        packet = IP(src="198.51.100.7", dst=str(IPv4Address(home))) / UDP(sport=1, dport=2) / data
        raw_.sendto(bytes(packet), (str(IPv4Address(home)), 0))


def test_thousands_are_written_at_once_and_each_is_found(host: Host) -> None:
    host.far.ip(f"route add 10.77.0.0/16 via {NEAR}")
    many = host.open(1 << 17)
    began = time.perf_counter()
    many.fill((), (tunnel(FIRST + number, port=1 + number) for number in range(50_000)))
    assert time.perf_counter() - began < 5.0
    host.lead(many)
    ears = raw(host.far, socket.IPPROTO_UDP, FAR)
    for number in (0, 31_337, 49_999):
        send(host, FIRST + number)
        outer = IP(ears.recv(2000))
        assert (outer[UDP].sport, outer[UDP].dport) == (434, 1 + number)
    send(host, FIRST + 50_000)
    deadline = time.monotonic() + 2
    while not (came := host.read()):
        assert time.monotonic() < deadline
    assert [IP(packet).dst for packet in came] == [str(IPv4Address(FIRST + 50_000))]
    ears.close()
    many.close()


def test_more_than_there_is_room_for_is_said(host: Host) -> None:
    few = host.open(4)
    for number in range(4):
        few.lead(tunnel(FIRST + number))
    with pytest.raises(PlanError, match="E2BIG"):
        few.lead(tunnel(FIRST + 4))
    few.lead(tunnel(FIRST, room=1200))  # what is there already can change
    few.close()


def test_routes_change_to_other_programs_without_a_gap(host: Host) -> None:
    """By their names alone the kernel tells programs on routes apart."""
    host.far.ip(f"route add 10.77.0.0/16 via {NEAR}")
    ears = raw(host.far, socket.IPPROTO_UDP, FAR)
    for port in (1000, 2000, 3000):
        made = host.open()
        made.lead(tunnel(FIRST, port=port))
        host.lead(made)
        made.close()  # whose route goes by it all the same
        send(host, FIRST)
        assert IP(ears.recv(2000))[UDP].dport == port
    host.routes.lead({NETWORK}, None)
    send(host, FIRST)
    deadline = time.monotonic() + 2
    while not host.read():
        assert time.monotonic() < deadline
    host.routes.lead(set(), None)
    assert "10.77" not in host.agent.ip("route show")
    ears.close()


@pytest.mark.rows("R-286")
def test_tunnels_that_lead_into_each_other_end_in_the_process(host: Host) -> None:
    """Each outer packet is routed to the next one's home address: without an end that would be the kernel's stack."""
    host.far.ip(f"route add 10.77.0.0/16 via {NEAR}")
    made = host.open()
    made.lead(tunnel(FIRST, FIRST + 1))
    made.lead(tunnel(FIRST + 1, FIRST))
    made.lead(tunnel(FIRST + 2, FIRST + 2))
    host.lead(made)
    for number in range(3):
        send(host, FIRST + number)
    deadline, came = time.monotonic() + 2, list[bytes]()
    while len(came) < 3:
        came += host.read()
        assert time.monotonic() < deadline
    for packet in came:
        outer = IP(packet)
        assert (outer.src, outer[UDP].sport) == (str(NEAR), 434)
        assert bytes(outer[UDP].payload)[:4] == b"\4\4\0\0"
    made.close()


def test_a_former_lifes_programs_leave_all_links(host: Host) -> None:
    with host.agent.entered():
        before = host.agent.run("tc", "qdisc", "show"), host.agent.ip("link show")
        first, second = host.open(), host.open()
        link = socket.if_nametoindex("inside")
        first.attach(link)
        first.close()
        second.attach(link)
        assert host.agent.run("tc", "filter", "show", "dev", "inside", "ingress").count("handle 0x1") == 1
        second.close()
        remove_all()
        assert (host.agent.run("tc", "qdisc", "show"), host.agent.ip("link show")) == before


def test_many_keys_go_at_once_though_some_are_not_there() -> None:
    written = HashMap("hw_test", key=4, value=8, entries=10_000, preallocate=False)
    keys = [number.to_bytes(4, "big") for number in range(9000)]
    written.put_all((key, bytes(8)) for key in keys)
    for number in (0, 17, 4095, 4096, 8998):
        written.delete(keys[number])
    written.delete_all(keys[:-1])
    assert list(written.keys()) == keys[-1:]
    written.delete_all([keys[0], keys[-1]])
    assert list(written.keys()) == []
    written.delete_all([])
    written.close()
