# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way by which packets of the home address can travel, on real adapters: what leaves by it, and what comes in.

The other end is one machine that is router, foreign agent and home agent in one. It makes its frames with scapy and so
can also make those that nobody should be able to send.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

from homeward.adapters.home_link import ArpHomeLinks
from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.adapters.netlink_plan import Flowing, NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.tunnel_device import TunnelDevice
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import AgentPath, ClearPath, HomePath, VpnPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import AtHome, Fence, NetworkPlan, Traffic, Tunnelled, ViaAgent
from homeward.model.tunnel_engine import TunnelEngine
from homeward.wire import minimal_encapsulation
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, ROUTER, FarEnd, Stations

EVERYTHING = (IPv4Network("0.0.0.0/0"),)
STRANGER = "02:00:00:00:00:66"
TUNNEL_DATA = b"\4\4\0\0"
TUNNEL_DATA_GRE = b"\4\x2f\0\0"


class Ways:
    """A laptop with all adapters of its data path, and the machine at the other end of its cable."""

    def __init__(self, stations: Stations, state: Path, engine: TunnelEngine | None = None) -> None:
        """With `engine` nothing else may carry packets past the process."""
        self.stations = stations
        self.engine = engine
        self.registrations = UdpRegistrations({INNER: "ipsec0"}.get)
        self.shortcut = Shortcut(allowed=frozenset({engine}) if engine is not None else None)
        self.tunnel = TunnelDevice(datagrams=self.registrations, shortcut=self.shortcut)
        self.registrations.on_tunnel_data = self.tunnel.take_datagram
        self.registrations.on_new_port = self.tunnel.follow_port
        self.reported: list[DatagramReceived] = []
        self.registrations.start(self.reported.append)
        self.home_links = ArpHomeLinks()
        self.vpn = FarEnd(stations.laptop, "ipsec0", INNER)
        self.plans = NetlinkPlans(
            self.tunnel, NftFence(), switches=KernelSwitches(state), tunnel_device={INNER: "ipsec0"}.get
        )
        self.wire = stations.listen()
        with stations.agent:
            self._injector = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._injector.bind(("lan0", 0))
        self.agent_hardware: bytes = self._injector.getsockname()[4]
        self.hardware = stations.laptop.ip("-br link show eth0").split()[2]
        self.clear = ClearPath(stations.link, "eth0", CARE_OF)
        self.vpn_path = VpnPath(INNER)
        self.by_agent = AgentPath(stations.link, "eth0", HOME, ROUTER, self.agent_hardware, ROUTER)
        self.at_home = HomePath(stations.link, "eth0", HOME)
        self.frames: deque[Packet] = deque()
        self.ports: dict[object, int] = {}

    def close(self) -> None:
        self.home_links.stop()
        self.registrations.stop()
        self.wire.__exit__()
        self._injector.close()
        self.vpn.close()

    async def shut(self) -> None:
        await self.plans.close()
        self.close()

    # --- plans ---------------------------------------------------------------------------------------------------

    def plan(self, traffic: Traffic, **fence: object) -> NetworkPlan:
        stands = Fence(AGENT, (), ("eth0",), traffic, INNER)
        return NetworkPlan(HOME, EVERYTHING, traffic, replace(stands, **fence))  # type: ignore[arg-type]

    async def apply(self, traffic: Traffic, **fence: object) -> None:
        """As the core does it: the sockets of a tunnel in UDP are those of the registration before it."""
        if isinstance(traffic, Tunnelled) and traffic.udp and traffic.path not in self.ports:
            self.registrations.send(traffic.path, AGENT, b"request", ttl=255)
            opened = self.registrations._sockets[traffic.path].receiver
            assert opened is not None
            self.ports[traffic.path] = opened.getsockname()[1]
        await self.plans.apply(self.plan(traffic, **fence))

    # --- the other end -------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take in what has left the laptop: frames from the cable, packets from the VPN's device."""
        self.frames.extend(Ether(octets) for octets in self.wire.heard())
        while (packet := self.vpn.sent()) is not None:
            self.frames.append(IP(packet))

    def forget(self) -> None:
        """What has left so far is of no interest."""
        self.look()
        self.frames.clear()

    def inject(
        self, packet: Packet | bytes, *, source: str = "", destination: str = "", vlan: int | None = None
    ) -> None:
        """A packet comes in by the cable: in a frame from the agent's hardware address or another's, or by a VLAN."""
        kind = b"\x08\x00" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big") + b"\x08\x00"
        ends = (destination or self.hardware, source or self.agent_hardware.hex(":"))
        frame = b"".join(bytes.fromhex(end.replace(":", "")) for end in ends) + kind
        self._injector.send(frame + bytes(packet))


@dataclass(frozen=True)
class Way:
    """One kind of traffic. `opened` finds the home address's packet in what left, `wrapped` makes what comes in."""

    name: str
    traffic: Callable[[Ways], Flowing]
    opened: Callable[[Packet], Packet | None]
    wrapped: Callable[[Ways, Packet], Packet | bytes]
    through_vpn: bool = False
    past: TunnelEngine = TunnelEngine.TUN
    """What can carry it past the process."""

    def came(self, ways: Ways) -> Packet | None:
        """The next packet of the home address at the other end, travelling exactly as it should; None if none did."""
        ways.look()
        while ways.frames:
            frame = ways.frames.popleft()
            if isinstance(frame, Ether) is not self.through_vpn and IP in frame:
                inner = self.opened(frame)
                if inner is not None:
                    return inner
        return None

    def deliver(self, ways: Ways, packet: Packet) -> None:
        """A packet for the home address comes this way."""
        wrapped = self.wrapped(ways, packet)
        if self.through_vpn:
            ways.vpn.deliver(bytes(wrapped))
        else:
            ways.inject(wrapped)


def _ends(packet: Packet, source: IPv4Address) -> bool:
    return (packet[IP].src, packet[IP].dst) == (str(source), str(AGENT))


def _raw(protocol: int, source: IPv4Address) -> Callable[[Packet], Packet | None]:
    def opened(frame: Packet) -> Packet | None:
        if frame[IP].proto != protocol or not _ends(frame, source):
            return None
        if protocol == 55:
            return IP(minimal_encapsulation.decapsulate(bytes(frame[IP])[: frame[IP].len]).inner)
        return IP(bytes(frame[IP].payload.payload if protocol == 47 else frame[IP].payload))

    return opened


def _udp(prefix: bytes, source: IPv4Address) -> Callable[[Packet], Packet | None]:
    def opened(frame: Packet) -> Packet | None:
        if UDP not in frame or frame[UDP].dport != 434 or not _ends(frame, source):
            return None
        octets = bytes(frame[UDP].payload)
        return IP(octets[len(prefix) :]) if octets.startswith(prefix) else None

    return opened


def _plain(frame: Packet) -> Packet | None:
    return (
        IP(bytes(frame[IP])[: frame[IP].len]) if frame[IP].src == str(HOME) and frame[IP].proto != 4 else None
    )


def _to_agent(frame: Packet) -> Packet | None:
    around = (frame[IP].src, frame[IP].dst, frame[IP].proto)
    if around != (str(HOME), str(ROUTER), 4):
        return None
    return IP(bytes(frame[IP].payload))


def in_ip(inner: Packet, *, source: object = AGENT, destination: object = CARE_OF) -> Packet:
    return IP(src=str(source), dst=str(destination), proto=4) / inner


def in_gre(inner: Packet, *, source: object = AGENT, destination: object = CARE_OF) -> Packet:
    return IP(src=str(source), dst=str(destination)) / GRE(proto=0x0800) / inner


def in_minimal(inner: Packet, *, source: IPv4Address = AGENT) -> bytes:
    return minimal_encapsulation.encapsulate(bytes(inner), source, CARE_OF)


def in_udp(
    inner: Packet,
    port: int,
    *,
    source: object = AGENT,
    destination: object = CARE_OF,
    sport: int = 434,
    prefix: bytes = TUNNEL_DATA,
    tos: int = 0,
    checksum: int | None = 0,
) -> Packet:
    """None is a right checksum. Without one it is as the kernel of the other end sends it."""
    outer = IP(src=str(source), dst=str(destination), tos=tos) / UDP(sport=sport, dport=port, chksum=checksum)
    return outer / Raw(prefix + bytes(inner))


GRE_HEADER = b"\0\0\x08\0"

WAYS = (
    Way(
        "ip-in-ip",
        lambda ways: Tunnelled(ways.clear, AGENT, 1480),
        _raw(4, CARE_OF),
        lambda _, inner: in_ip(inner),
        past=TunnelEngine.IPIP,
    ),
    Way(
        "gre",
        lambda ways: Tunnelled(ways.clear, AGENT, 1476, Encapsulation.GRE),
        _raw(47, CARE_OF),
        lambda _, inner: in_gre(inner),
    ),
    Way(
        "minimal",
        lambda ways: Tunnelled(ways.clear, AGENT, 1488, Encapsulation.MINIMAL),
        _raw(55, CARE_OF),
        lambda _, inner: in_minimal(inner),
    ),
    Way(
        "udp",
        lambda ways: Tunnelled(ways.clear, AGENT, 1468, udp=True),
        _udp(TUNNEL_DATA, CARE_OF),
        lambda ways, inner: in_udp(inner, ways.ports.get(ways.clear, 9)),
        past=TunnelEngine.BPF,
    ),
    Way(
        "gre-in-udp",
        lambda ways: Tunnelled(ways.clear, AGENT, 1464, Encapsulation.GRE, udp=True),
        _udp(TUNNEL_DATA_GRE + GRE_HEADER, CARE_OF),
        lambda ways, inner: in_udp(inner, ways.ports.get(ways.clear, 9), prefix=TUNNEL_DATA_GRE + GRE_HEADER),
        past=TunnelEngine.BPF,
    ),
    Way("agent", lambda ways: ViaAgent(ways.by_agent, 1500), _plain, lambda _, inner: inner),
    Way(
        "agent-encapsulating",
        lambda ways: ViaAgent(ways.by_agent, 1480, encapsulating=True),
        _to_agent,
        lambda _, inner: inner,
    ),
    Way("home", lambda ways: AtHome(ways.at_home, 1500), _plain, lambda _, inner: inner),
    Way(
        "vpn",
        lambda ways: Tunnelled(ways.vpn_path, AGENT, 1400),
        _raw(4, INNER),
        lambda _, inner: in_ip(inner, destination=INNER),
        through_vpn=True,
        past=TunnelEngine.IPIP,
    ),
    Way(
        "vpn-udp",
        lambda ways: Tunnelled(ways.vpn_path, AGENT, 1388, udp=True),
        _udp(TUNNEL_DATA, INNER),
        lambda ways, inner: in_udp(inner, ways.ports.get(ways.vpn_path, 9), destination=INNER),
        through_vpn=True,
        past=TunnelEngine.BPF,
    ),
)
BY_NAME = {way.name: way for way in WAYS}


def on_each_engine(
    *chosen: Way, here: Collection[TunnelEngine] = (TunnelEngine.BPF,)
) -> pytest.MarkDecorator:
    """Each of these ways, past the process by the engines that there are `here`, and by the process: `ways`, `way`."""
    cases = [(way.past if way.past in here else TunnelEngine.TUN, way) for way in chosen]
    cases += [(TunnelEngine.TUN, way) for way in chosen if way.past in here]
    names = [f"{way.name}-{engine.value}" for engine, way in cases]
    return pytest.mark.parametrize(("ways", "way"), cases, indirect=["ways"], ids=names)


def application(source: IPv4Address | None = None) -> socket.socket:
    """A program's socket, non-blocking."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if source is not None:
        opened.bind((str(source), 0))
    return opened


def to_application(receiver: socket.socket, payload: bytes, *, home: IPv4Address = HOME) -> Packet:
    """A correspondent's packet to it."""
    udp = UDP(sport=9, dport=receiver.getsockname()[1]) / Raw(payload)
    return IP(src=str(PEER), dst=str(home)) / udp


async def heard(receiver: socket.socket, seconds: float = 0.03) -> list[bytes]:
    """All that it has got after a moment."""
    await asyncio.sleep(seconds)
    return list(_all_of(receiver))


def _all_of(receiver: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield receiver.recv(2000)
        except BlockingIOError:
            return
