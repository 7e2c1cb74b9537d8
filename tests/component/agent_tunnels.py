# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of a home agent's tunnel with everything about a packet to be chosen, for tests of what carries it."""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw

from homeward.model.nat_traversal import TunnelKind, UdpTunnelRequest
from homeward.model.registration import RequestFlags
from homeward.wire.udp_tunnel import unwrap, wrap
from tests.component.agent_modes import D_T, NAT, SA, Station, request
from tests.component.agent_network import AGENT, CARE_OF, HOME, PEER, AgentNetwork, AgentProcess, udp

IP_MTU_DISCOVER = 10
_IP_TOS, _IP_TTL, _IP_RECVTTL, _IP_RECVTOS = 1, 2, 12, 13
_SO_NO_CHECK = 11
CARRIERS = ("udp", "gre-in-udp", "ip-in-ip")
BY_KERNEL, BY_SOCKETS = "by the kernel", "by sockets"


def leave_checksums_out(opened: socket.socket) -> None:
    """Of a UDP socket, as a tunnel may: the kernel needs not look at the whole packet then."""
    opened.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)


class Tunnel:
    """A mobile node with a binding and its end of the tunnel: what it puts in, and what comes out."""

    def __init__(self, network: AgentNetwork, carrier: str = "udp", **options: object) -> None:
        self.carrier = carrier
        self._in_udp = carrier != "ip-in-ip"
        self.kind = TunnelKind.GRE if carrier == "gre-in-udp" else TunnelKind.IP_IN_IP
        self.station = Station(network, NAT if self._in_udp else CARE_OF, 4)
        leave_checksums_out(self.station.signalling)
        for number in (_IP_RECVTTL, _IP_RECVTOS):
            self.station.signalling.setsockopt(socket.IPPROTO_IP, number, 1)
        self.register(**options)

    def register(self, **options: object) -> None:
        flags = options.pop("flags", D_T)
        assert isinstance(flags, RequestFlags)
        if self._in_udp:
            asked = {"udp_tunnel": UdpTunnelRequest(kind=self.kind), "flags": flags, **options}
            reply = self.station.exchange(request(CARE_OF, SA, **asked)).message
            assert reply.udp_tunnel is None or reply.udp_tunnel.will_tunnel
        else:
            reply = self.station.exchange(request(CARE_OF, SA, flags=flags, **options)).message
        assert reply.code == 0

    def put(self, inner: Packet, *, tos: int = 0) -> None:
        """Send through the reverse tunnel."""
        opened = self.station.signalling if self._in_udp else self.station.raw[4]
        opened.setsockopt(socket.IPPROTO_IP, _IP_TOS, tos)
        if self._in_udp:
            self.station.send(wrap(bytes(inner), self.kind))
        else:
            opened.sendto(bytes(inner), (str(AGENT), 0))
        opened.setsockopt(socket.IPPROTO_IP, _IP_TOS, 0)

    def take(self, wait: float = 3.0) -> tuple[Packet, int, int]:
        """What comes out, with TTL and type of service of the outer header."""
        if not self._in_udp:
            self.station.raw[4].settimeout(wait)
            outer = IP(self.station.raw[4].recv(65535))
            return IP(bytes(outer.payload)), outer.ttl, outer.tos
        self.station.signalling.settimeout(wait)
        octets, ancillary, _, source = self.station.signalling.recvmsg(65535, 256)
        assert source == (str(AGENT), 434)
        said = {kind: data[0] for _, kind, data in ancillary}
        return IP(unwrap(octets, self.kind)), said[_IP_TTL], said.get(_IP_TOS, 0)

    def takes_nothing(self, wait: float = 0.15) -> bool:
        try:
            self.take(wait)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.station.send(request(CARE_OF if self._in_udp else self.station.address, SA, lifetime=0))
        while self.station.hear()[:1] == b"\4":  # data that nobody took
            pass
        self.station.close()


class Peer:
    """The correspondent: what reaches it of UDP, and what it sends to the mobile node."""

    def __init__(self, network: AgentNetwork) -> None:
        self.opened = udp(network.peer, PEER)
        for number in (_IP_RECVTTL, _IP_RECVTOS):
            self.opened.setsockopt(socket.IPPROTO_IP, number, 1)
        self.opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 3)  # Don't Fragment, whatever is known
        self.port: int = self.opened.getsockname()[1]

    def hears(self, wait: float = 3.0) -> tuple[bytes, int, int]:
        """Data, TTL and type of service of what came."""
        self.opened.settimeout(wait)
        data, ancillary, _, _ = self.opened.recvmsg(65535, 256)
        said = {kind: octets[0] for _, kind, octets in ancillary}
        return data, said[_IP_TTL], said.get(_IP_TOS, 0)

    def send(self, data: bytes, home: IPv4Address = HOME, *, tos: int = 0) -> None:
        self.opened.setsockopt(socket.IPPROTO_IP, _IP_TOS, tos)
        self.opened.sendto(data, (str(home), 7001))

    def inner(
        self, data: bytes, *, source: IPv4Address = HOME, to: IPv4Address = PEER, **header: Any
    ) -> Packet:
        """A packet to it, as the mobile node makes one."""
        packet = IP(src=str(source), dst=str(to), id=7, **header)
        return IP(bytes(packet / UDP(sport=7001, dport=self.port) / Raw(data)))


class Share:
    """How many packets the kernel has carried past the agent since this was made."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        found = {"in": 0, "out": 0}
        for kind, packets in self._agent.dump()["traffic"].items():
            found[kind.partition("-")[0]] += packets
        return found

    def since(self) -> dict[str, int]:
        return {way: packets - self._before[way] for way, packets in self._now().items()}


def by_kernel(agent: AgentProcess, engine: str) -> bool:
    """Whether the kernel carries tunnels in UDP here; where the tests run it has to, if nobody forbids it."""
    found = agent.dump()["engine"]
    assert (found == "tun") is (engine == BY_SOCKETS)
    return found != "tun"


def wait_for(agent: AgentProcess, code: str, number: int) -> None:
    """Until so many of these have been counted."""
    deadline = time.monotonic() + 3
    while agent.counter(code) < number:
        assert time.monotonic() < deadline, agent.dump()["counters"]
