# SPDX-License-Identifier: GPL-2.0-or-later
"""Mode mc with the kernel's ESP: nothing leaves but in it, nothing comes in that did not come out of it.

By the kernel's tunnel device as by the process. Our own plan on real adapters, and in charon's place SAs and policies
as charon makes them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.strongswan.devices import device_with_address
from homeward.adapters.tunnel_device import TunnelDevice, open_tunnel_socket
from homeward.model.access import VpnPath
from homeward.model.names import MARK_IKE, VPN_DEVICE, VPN_INTERFACE
from homeward.model.plan import Fence, NetworkPlan, Tunnelled
from homeward.model.tunnel_engine import TunnelEngine
from tests.kernel.inside.cable import Cable
from tests.kernel.inside.other_vpns import Policies
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, ROUTER, Stations, TunnelEnd, eventually

PORT = 4500
UDP_ENCAPSULATION, ESP_IN_UDP = 100, 2
KEY = "5a" * 20
OTHER_KEY = "a5" * 20
UP = f"src {CARE_OF} dst {ROUTER}"
DOWN = f"src {ROUTER} dst {CARE_OF}"


@pytest.fixture
def stations() -> Iterator[Stations]:
    with Stations() as made:
        yield made


@pytest.fixture
def cable(stations: Stations) -> Iterator[Cable]:
    made = Cable()
    yield made
    made.close()


# --- the VPN ---


def state(ends: str, spi: int, key: str, more: str = "") -> str:
    in_udp = f"encap espinudp {PORT} {PORT} 0.0.0.0"
    algorithm = f"aead rfc4106(gcm(aes)) 0x{key} 128"
    return f"xfrm state add {ends} proto esp spi {spi} reqid 1 mode tunnel {algorithm} {in_udp} {more}"


def policy(direction: str, selector: str, ends: str, more: str = "") -> str:
    return f"xfrm policy add {selector} dir {direction} {more} tmpl {ends} proto esp reqid 1 mode tunnel"


def engine_socket(address: str, mark: int = 0) -> socket.socket:
    """What makes the kernel take ESP out of UDP, as an IKE daemon's socket does."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_UDP, UDP_ENCAPSULATION, ESP_IN_UDP)
    if mark:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    opened.bind((address, PORT))
    return opened


@pytest.fixture
def vpn(stations: Stations) -> Iterator[None]:
    """The VPN stands: the router is its gateway, and behind it is the home agent."""
    tied, out = f"if_id {VPN_INTERFACE}", f"src {INNER}/32 dst 10.0.0.0/8"
    back = f"src 10.0.0.0/8 dst {INNER}/32"
    stations.laptop.batch(
        f"link add {VPN_DEVICE} type xfrm {tied}",
        f"addr add {INNER}/32 dev {VPN_DEVICE}",
        f"link set {VPN_DEVICE} up",
        state(UP, 0x1001, KEY, f"{tied} output-mark {MARK_IKE:#x}"),
        state(DOWN, 0x1002, KEY, tied),
        policy("out", out, UP, tied),
        policy("in", back, DOWN, tied),
    )
    stations.agent.batch(
        f"route add {INNER} via {CARE_OF}",
        state(UP, 0x1001, KEY),
        state(DOWN, 0x1002, KEY),
        policy("in", out, UP),
        policy("out", back, DOWN),
    )
    with stations.agent:
        gateway = engine_socket(str(ROUTER))
    with gateway, engine_socket(str(CARE_OF), MARK_IKE):
        yield


ENGINES = [
    pytest.param(TunnelEngine.IPIP, id="ipip"),
    pytest.param(TunnelEngine.TUN, id="tun", marks=pytest.mark.slow),
]


@pytest.fixture(params=ENGINES)
async def plans(
    request: pytest.FixtureRequest, stations: Stations, vpn: None, tmp_path: Path
) -> AsyncIterator[NetlinkPlans]:
    switches = KernelSwitches(tmp_path)
    tunnel = TunnelDevice(shortcut=Shortcut(allowed=frozenset({request.param})))
    made = NetlinkPlans(tunnel, NftFence(), switches=switches, tunnel_device=device_with_address)
    traffic = Tunnelled(VpnPath(INNER), AGENT, 1400)
    fence = Fence(AGENT, (ROUTER,), ("eth0",), traffic, INNER)
    everything = (IPv4Network("0.0.0.0/0"),)
    await made.apply(NetworkPlan(HOME, everything, traffic, fence))
    assert made.engine() is request.param
    yield made
    await made.close()


@pytest.fixture
def home_agent(stations: Stations) -> Iterator[TunnelEnd]:
    with TunnelEnd(stations) as made:
        yield made


@pytest.fixture
def application(plans: NetlinkPlans) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
        opened.bind((str(HOME), 9))
        yield opened


def data(text: bytes) -> bytes:
    return bytes(IP(src=str(PEER), dst=str(HOME)) / UDP(sport=9, dport=9) / Raw(text))


def received(opened: socket.socket) -> bytes | None:
    try:
        return opened.recv(4096)
    except BlockingIOError:
        return None


def forge_in_clear(stations: Stations, to: IPv4Address) -> None:
    """A tunnel packet in the home agent's name on the access link, past the sender's own kernel."""
    there = stations.laptop.ip("-brief link show dev eth0").split()[2]
    with stations.agent, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("lan0", 0))
        outer = IP(src=str(AGENT), dst=str(to), proto=socket.IPPROTO_IPIP)
        wire.send(bytes(Ether(dst=there) / outer / Raw(data(b"forged"))))


def came_by(stations: Stations, spi: int) -> int:
    """How many packets the laptop has taken out of this SA: they were there, and were genuine."""
    shown = stations.laptop.ip(f"-statistics xfrm state get {DOWN} proto esp spi {spi}")
    counted = re.search(r"lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)", shown)
    assert counted is not None, shown
    return int(counted[1])


# --- outwards ---


async def test_data_flows_both_ways_and_leaves_in_esp_only(
    application: socket.socket, home_agent: TunnelEnd, cable: Cable
) -> None:
    for text in (b"one", b"two", b"three"):
        application.sendto(text, (str(PEER), 9))
        outer = IP(await eventually(home_agent.came))
        assert (outer.src, outer.dst, outer.payload.payload.load) == (str(INNER), str(AGENT), text)
        home_agent.send(data(text), to=INNER)
        assert await eventually(lambda: received(application)) == text
    packets = cable.left()
    assert len(packets) == 3
    assert {(packet.dst, packet[UDP].dport) for packet in packets} == {(str(ROUTER), PORT)}


async def test_what_was_meant_for_esp_leaves_in_no_other_way_when_policies_and_keys_are_gone(
    stations: Stations, application: socket.socket, home_agent: TunnelEnd, cable: Cable
) -> None:
    application.sendto(b"before", (str(PEER), 9))
    await eventually(home_agent.came)
    stations.laptop.batch("xfrm policy flush", "xfrm state flush")
    cable.left()
    for _ in range(5):
        application.sendto(b"after", (str(PEER), 9))
    # The fence does not help here: with it, or without it, the interface has no other way out.
    with stations.laptop:
        stations.laptop.run("nft", "flush", "ruleset")
        with open_tunnel_socket(INNER, device=socket.if_nametoindex(VPN_DEVICE), whole=False) as raw:
            raw.sendto(data(b"by hand"), (str(AGENT), 0))
    assert cable.left() == []


async def test_by_policies_alone_it_would_have_left_in_clear(stations: Stations, cable: Cable) -> None:
    Policies(stations)
    with open_tunnel_socket(CARE_OF, whole=False) as raw:
        for protocol, change in ((socket.IPPROTO_ESP, "xfrm policy flush"), (socket.IPPROTO_IPIP, "")):
            raw.sendto(data(b"secret"), (str(AGENT), 0))
            (packet,) = await eventually(cable.left)
            assert packet.proto == protocol
            if change:
                stations.laptop.ip(change)


# --- inwards ---


BOTH = pytest.mark.parametrize("to", [INNER, CARE_OF], ids=["inner", "care-of"])


@BOTH
async def test_a_socket_without_locks_takes_what_comes_in_clear(
    stations: Stations, vpn: None, to: IPv4Address
) -> None:
    """The attack: the interface's policies do not ask about packets that come by another link."""
    with open_tunnel_socket(None) as raw:
        forge_in_clear(stations, to)
        assert b"forged" in await eventually(lambda: received(raw))


@BOTH
async def test_a_forged_packet_in_clear_is_refused(
    stations: Stations, application: socket.socket, home_agent: TunnelEnd, to: IPv4Address
) -> None:
    forge_in_clear(stations, to)
    home_agent.send(data(b"genuine"), to=INNER)
    assert await eventually(lambda: received(application)) == b"genuine"
    assert received(application) is None


async def test_a_forged_packet_out_of_another_vpns_esp_is_refused(
    stations: Stations, application: socket.socket, home_agent: TunnelEnd
) -> None:
    """That VPN's gateway is an honest one for its own users, and nobody to us."""
    other = f"src 0.0.0.0/0 dst {INNER}/32"
    stations.laptop.batch(state(DOWN, 0x2002, OTHER_KEY), policy("in", other, DOWN))
    stations.agent.batch(
        "xfrm policy flush",
        "xfrm state flush",
        state(DOWN, 0x2002, OTHER_KEY),
        policy("out", other, DOWN),
    )
    home_agent.send(data(b"forged"), to=INNER)
    stations.agent.batch("xfrm state flush", state(DOWN, 0x1002, KEY))
    home_agent.send(data(b"genuine"), to=INNER)
    assert await eventually(lambda: received(application)) == b"genuine"
    assert received(application) is None
    assert came_by(stations, 0x2002) == 1


async def test_only_the_home_agents_tunnel_comes_out_of_the_vpn(
    stations: Stations, plans: NetlinkPlans, application: socket.socket, home_agent: TunnelEnd
) -> None:
    """Whoever is inside does not reach the laptop's own services by its inner address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as service:
        service.bind((str(INNER), 53))
        with stations.udp(PEER, 9) as peer:
            peer.sendto(b"hello", (str(INNER), 53))
        home_agent.send(data(b"genuine"), to=INNER)
        assert await eventually(lambda: received(application)) == b"genuine"
        assert received(service) is None
    assert came_by(stations, 0x1002) == 2
