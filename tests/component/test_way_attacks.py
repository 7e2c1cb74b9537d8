# SPDX-License-Identifier: GPL-2.0-or-later
"""What nobody may do on any way: come in by another one, in another's name, or leave beside it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from homeward.model.access import AgentPath
from homeward.model.access import Path as AccessPath
from homeward.model.errors import AdapterError
from homeward.model.names import MARK_REGISTRATION, MARK_TUNNEL
from homeward.model.plan import Held
from tests.world.namespaces import cable
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, ROUTER, Stations, eventually
from tests.world.ways import (
    BY_NAME,
    GRE_HEADER,
    STRANGER,
    TUNNEL_DATA_GRE,
    WAYS,
    Way,
    Ways,
    application,
    heard,
    in_gre,
    in_ip,
    in_minimal,
    in_udp,
    on_each_engine,
    to_application,
)

pytestmark = pytest.mark.root
each_way = on_each_engine(*WAYS)

PLAIN = {"agent", "agent-encapsulating", "home"}
OTHER_HOST = IPv4Address("10.1.1.66")
OTHER_HOME = IPv4Address("10.77.0.11")


@pytest.fixture
async def ways(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ways]:
    with Stations() as stations:
        made = Ways(stations, tmp_path, getattr(request, "param", None))
        yield made
        await made.shut()


# --- coming in --------------------------------------------------------------------------------------------------------


def forgeries(ways: Ways, receiver: socket.socket) -> dict[str, Callable[[], None]]:
    """Packets for an application, each with something wrong; the name says what. None is right on any way."""

    def data(text: str, home: IPv4Address = HOME) -> Packet:
        return to_application(receiver, text.encode(), home=home)

    clear, vpn = (ways.ports.get(path, 9) for path in (ways.clear, ways.vpn_path))
    frames: dict[str, Packet | bytes] = {
        "ip-in-ip from a stranger": in_ip(data("1"), source=OTHER_HOST),
        "gre from a stranger": in_gre(data("2"), source=OTHER_HOST),
        "minimal from a stranger": in_minimal(data("3"), source=OTHER_HOST),
        "ip-in-ip for another's home address": in_ip(data("4", OTHER_HOME)),
        "gre for another's home address": in_gre(data("5", OTHER_HOME)),
        "udp from a stranger": in_udp(data("6"), clear, source=OTHER_HOST),
        "udp from another port": in_udp(data("7"), clear, sport=435),
        "udp for another's home address": in_udp(data("8", OTHER_HOME), clear),
        "udp of a kind that is never carried": in_udp(data("9"), clear, prefix=b"\4\x37\0\0"),
        "gre of RFC 1701": in_udp(data("10"), clear, prefix=TUNNEL_DATA_GRE + b"\x20\0\x08\0\0\0\0\1"),
        "the vpn's tunnel in clear": in_ip(data("11"), destination=INNER),
        "the vpn's udp tunnel in clear": in_udp(data("12"), vpn, destination=INNER),
    }
    made: dict[str, Callable[[], None]] = {
        name: (lambda frame=frame: ways.inject(frame))  # type: ignore[misc]
        for name, frame in frames.items()
    }
    for name, right in (("ip-in-ip", in_ip(data("16"))), ("udp", in_udp(data("17"), clear))):
        made |= _damaged(ways, name, right)
    made["the clear tunnel through the vpn"] = lambda: ways.vpn.deliver(bytes(in_ip(data("13"))))
    made["the clear udp tunnel through the vpn"] = lambda: ways.vpn.deliver(bytes(in_udp(data("14"), clear)))
    made["in clear through the vpn"] = lambda: ways.vpn.deliver(bytes(data("15")))
    return made


def _damaged(ways: Ways, name: str, right: Packet) -> dict[str, Callable[[], None]]:
    """What is right on one way, but for what its outer header or its frame says."""
    octets, length = bytes(right), len(right)

    def changed(**fields: object) -> bytes:
        outer = right.copy()
        for field, value in fields.items():
            setattr(outer, field, value)
        return bytes(outer)

    made: dict[str, Callable[[], None]] = {
        f"{name} for another station": lambda: ways.inject(octets, destination=STRANGER),
        f"{name} for another network on the same cable": lambda: ways.inject(octets, vlan=7),
        f"{name} without its end": lambda: ways.inject(octets[:-3]),
        f"{name} that is the beginning of one": lambda: ways.inject(changed(flags="MF")),
        f"{name} that is the end of one": lambda: ways.inject(changed(frag=100)),
        f"{name} that says it is longer": lambda: ways.inject(changed(len=length + 8)),
        f"{name} that says it is shorter": lambda: ways.inject(changed(len=length - 3)),
        f"{name} with a wrong sum": lambda: ways.inject(changed(chksum=0xBAD)),
        f"{name} of another version": lambda: ways.inject(b"\x65" + octets[1:]),
        f"{name} on which congestion was marked": lambda: ways.inject(changed(tos=3)),
        f"{name} by another cable": lambda: _by_another_cable(ways, octets),
    }
    if UDP not in right:  # what stands behind a datagram is cut off by the kernel, and no fault
        made[f"{name} with more behind it"] = lambda: ways.inject(changed(len=length + 8) + bytes(8))
    return made


def _by_another_cable(ways: Ways, packet: bytes) -> None:
    if "usb0" not in ways.stations.laptop.ip("link"):
        cable(ways.stations.laptop, "usb0", ways.stations.agent, "lan1")
    there = ways.stations.laptop.ip("-br link show usb0").split()[2]
    with ways.stations.agent, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as injector:
        injector.bind(("lan1", 0))
        injector.send(bytes(Ether(src=STRANGER, dst=there, type=0x0800)) + packet)


def send_plainly(ways: Ways, way: Way, receiver: socket.socket) -> None:
    """UDP in the home agent's name with no tunnel around it, by the link and out of the VPN."""
    address, port = receiver.getsockname()
    for source in (9, 434):
        packet = IP(src=str(AGENT), dst=address) / UDP(sport=source, dport=port) / Raw(b"plain")
        if way.name not in PLAIN or address != str(HOME):
            ways.inject(packet)
        ways.vpn.deliver(bytes(packet))


@pytest.mark.rows("R-179", "R-186", "R-188", "R-231")
@each_way
async def test_nothing_that_is_wrong_anywhere_comes_in_by_any_way(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    with application(HOME) as receiver, application(CARE_OF) as near, application(INNER) as inside:
        for forge in forgeries(ways, receiver).values():
            forge()
        for one in (receiver, near, inside):
            send_plainly(ways, way, one)
        assert await heard(receiver) == []
        assert [await heard(one, 0) for one in (near, inside)] == [[], []]
        way.deliver(ways, to_application(receiver, b"genuine"))
        assert await heard(receiver) == [b"genuine"]


@pytest.mark.rows("R-187", "R-229", "R-231")
@each_way
async def test_what_was_not_agreed_on_is_refused_though_the_right_one_sends_it(ways: Ways, way: Way) -> None:
    """GRE where IP-in-IP was agreed on, IP-in-IP once the tunnel is in UDP, nothing in clear beside a tunnel."""
    await ways.apply(way.traffic(ways))
    with application(HOME) as receiver:
        for other in WAYS:
            if other is way or {way.name, other.name} <= PLAIN:
                continue
            other.deliver(ways, to_application(receiver, other.name.encode()))
        assert await heard(receiver) == []
        way.deliver(ways, to_application(receiver, b"genuine"))
        assert await heard(receiver) == [b"genuine"]


@pytest.mark.rows("R-32", "R-96")
@on_each_engine(*(way for way in WAYS if way.name not in PLAIN))
async def test_a_reply_that_comes_inside_the_tunnel_answers_no_request(ways: Ways, way: Way) -> None:
    """Whoever can send to the home address through the home agent could else vouch for any network."""
    await ways.apply(way.traffic(ways))
    ways.registrations.send(ways.clear, AGENT, b"\1request", ttl=255)
    opened = ways.registrations._sockets[ways.clear].receiver
    assert opened is not None
    reply = UDP(sport=434, dport=opened.getsockname()[1]) / Raw(b"\3forged")
    for to in (HOME, CARE_OF, INNER):
        way.deliver(ways, IP(src=str(AGENT), dst=str(to)) / reply)
    await asyncio.sleep(0.03)
    assert [came.octets for came in ways.reported if came.octets.startswith(b"\3")] == []


def request(ways: Ways, path: AccessPath, destination: IPv4Address) -> int:
    """A registration request leaves by this path; the port that its reply would come to."""
    ways.registrations.send(path, destination, b"\1request", ttl=255)
    opened = ways.registrations._sockets[path].receiver
    assert opened is not None
    port: int = opened.getsockname()[1]
    return port


@pytest.mark.rows("R-32", "R-96")
@pytest.mark.parametrize("name", sorted(PLAIN))
async def test_without_a_tunnel_of_ours_a_reply_answers_no_request_of_another_path(
    ways: Ways, name: str
) -> None:
    """To the home address, inside any tunnel, or out of the VPN; by an agent the home agent itself answers nothing."""
    await ways.apply(BY_NAME[name].traffic(ways), foreign_agent=ways.by_agent, home_link=ways.at_home)
    path, by = (ways.at_home, AGENT) if name == "home" else (ways.by_agent, ROUTER)
    clear, own = request(ways, ways.clear, AGENT), request(ways, path, by)
    for port in (clear, own):
        reply = UDP(sport=434, dport=port) / Raw(b"\3forged")
        for to in (HOME, CARE_OF, INNER):
            inner = IP(src=str(AGENT), dst=str(to)) / reply
            for outer in (CARE_OF, HOME):
                ways.inject(in_ip(inner, destination=outer))
                ways.inject(in_gre(inner, destination=outer))
                ways.inject(in_udp(inner, port, destination=outer))
            ways.inject(in_minimal(inner))
            ways.vpn.deliver(bytes(inner))
    ways.inject(IP(src=str(AGENT), dst=str(HOME)) / UDP(sport=434, dport=clear) / Raw(b"\3forged"))
    await asyncio.sleep(0.03)
    assert [came for came in ways.reported if came.octets.startswith(b"\3")] == []
    ways.inject(IP(src=str(by), dst=str(HOME)) / UDP(sport=434, dport=own) / Raw(b"\3genuine"))
    await eventually(lambda: ways.reported)
    assert [(came.path, came.source, came.octets) for came in ways.reported] == [(path, by, b"\3genuine")]


@pytest.mark.rows("R-231")
async def test_a_tunnel_in_udp_takes_only_the_kind_that_was_agreed_on(ways: Ways) -> None:
    await ways.apply(BY_NAME["udp"].traffic(ways))
    port = ways.ports[ways.clear]
    with application(HOME) as receiver:
        ways.inject(in_udp(to_application(receiver, b"gre"), port, prefix=TUNNEL_DATA_GRE + GRE_HEADER))
        assert await heard(receiver) == []
        assert ways.tunnel.counted.refused_in == 1
        ways.inject(in_udp(to_application(receiver, b"genuine"), port))
        assert await heard(receiver) == [b"genuine"]


@pytest.mark.rows("R-188")
@pytest.mark.parametrize("name", ["agent", "agent-encapsulating"])
async def test_by_an_agent_only_its_own_hardware_address_may_send_to_us(ways: Ways, name: str) -> None:
    await ways.apply(BY_NAME[name].traffic(ways))
    with application(HOME) as receiver:
        ways.inject(to_application(receiver, b"forged"), source=STRANGER)
        ways.inject(
            to_application(receiver, b"forged for all"), source=STRANGER, destination="ff:ff:ff:ff:ff:ff"
        )
        ways.inject(to_application(receiver, b"genuine"))
        assert await heard(receiver) == [b"genuine"]


async def test_by_an_agent_nobody_reaches_the_links_own_address(ways: Ways) -> None:
    await ways.apply(BY_NAME["agent"].traffic(ways))
    with application(CARE_OF) as service:
        ways.inject(to_application(service, b"knock", home=CARE_OF))
        assert await heard(service) == []


@pytest.mark.rows("R-231")
async def test_tunnel_data_for_a_path_that_is_not_in_use_is_refused(ways: Ways) -> None:
    await ways.apply(BY_NAME["udp"].traffic(ways))
    await ways.apply(BY_NAME["ip-in-ip"].traffic(ways))
    with application(HOME) as receiver:
        ways.inject(in_udp(to_application(receiver, b"by the old way"), ways.ports[ways.clear]))
        assert await heard(receiver) == []


# --- what is still in flight ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "lingers"),
    [
        ("ip-in-ip", "agent", True),
        ("agent", "ip-in-ip", True),
        ("ip-in-ip", "home", True),
        ("vpn", "agent", True),
        ("vpn-udp", "home", True),
        ("vpn-udp", "udp", True),
        ("udp", "agent", True),
        ("ip-in-ip", "udp", False),
        ("udp", "ip-in-ip", False),
        ("gre", "ip-in-ip", False),
        ("home", "ip-in-ip", False),
        ("agent", "vpn", False),
        ("home", "vpn", False),
        ("udp", "vpn-udp", False),
    ],
)
async def test_what_was_in_flight_comes_in_where_nobody_else_could_have_sent_it(
    ways: Ways, before: str, now: str, lingers: bool
) -> None:
    old = BY_NAME[before]
    await ways.apply(old.traffic(ways))
    await ways.apply(Held())
    await ways.apply(BY_NAME[now].traffic(ways))
    ways.registrations.retain(frozenset())
    with application(HOME) as receiver:
        old.deliver(ways, to_application(receiver, b"late"))
        assert (await heard(receiver) == [b"late"]) is lingers
        if before == "agent":
            ways.inject(to_application(receiver, b"forged"), source=STRANGER)
            assert await heard(receiver) == []


@pytest.mark.slow
async def test_after_two_seconds_nothing_of_the_way_before_comes_in(ways: Ways) -> None:
    await ways.apply(BY_NAME["agent"].traffic(ways))
    await ways.apply(BY_NAME["vpn-udp"].traffic(ways))
    await ways.apply(BY_NAME["agent"].traffic(ways))
    await ways.apply(BY_NAME["udp"].traffic(ways))
    await asyncio.sleep(2.05)
    with application(HOME) as receiver:
        for name in ("agent", "vpn-udp"):
            BY_NAME[name].deliver(ways, to_application(receiver, b"too late"))
        assert await heard(receiver) == []


# --- leaving ----------------------------------------------------------------------------------------------------------


def frame(ways: Ways, packet: Packet, *, mark: int, destination: str = "", kind: int = 0x0800) -> None:
    """A program with the right to send what it likes sends a frame by the laptop's cable."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        header = Ether(src=ways.hardware, dst=destination or ways.agent_hardware.hex(":"), type=kind)
        with suppress(OSError):  # that the fence also reports an error is no leak
            raw.send(bytes(header / packet))


async def leaked(ways: Ways) -> list[str]:
    await asyncio.sleep(0.03)
    ways.look()
    return [one.summary() for one in ways.frames if b"secret" in bytes(one) or ARP in one]


SECRET = UDP(sport=9, dport=9) / Raw(b"secret")


@pytest.mark.rows("R-20", "R-58")
@each_way
async def test_an_open_way_is_no_hole_for_others(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    await asyncio.sleep(0.02)
    ways.forget()
    for source in (HOME, CARE_OF):
        packet = IP(src=str(source), dst=str(PEER)) / SECRET
        frame(ways, packet, mark=0)
        frame(ways, packet, mark=MARK_TUNNEL, destination=STRANGER if way.name != "home" else "")
        frame(ways, packet, mark=MARK_REGISTRATION)
        frame(ways, in_ip(packet, source=source, destination=ROUTER), mark=0)
    frame(ways, IP(src=str(CARE_OF), dst=str(PEER)) / SECRET, mark=MARK_TUNNEL)
    # At home, with our own mark, the home address may go to any neighbour.
    assert len(await leaked(ways)) == (1 if way.name == "home" else 0)


@pytest.mark.rows("R-64")
@each_way
async def test_while_held_not_even_our_own_frames_leave(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    outlet = ways.tunnel._outlet
    assert outlet is not None
    await ways.apply(Held())
    ways.forget()
    with suppress(OSError):
        outlet.send(bytes(IP(src=str(HOME), dst=str(PEER)) / SECRET))
    assert await leaked(ways) == []


async def test_the_check_sees_what_leaves(ways: Ways) -> None:
    frame(ways, IP(src=str(HOME), dst=str(PEER)) / SECRET, mark=0)
    assert len(await leaked(ways)) == 1


# --- registering by an agent and from the home link -------------------------------------------------------------------


def requests(ways: Ways) -> list[Packet]:
    ways.look()
    return [one for one in ways.frames if UDP in one and one[UDP].dport == 434]


@pytest.mark.rows("R-14", "R-133", "R-134")
async def test_an_agent_is_asked_only_once_the_fence_names_it(ways: Ways) -> None:
    other = AgentPath(ways.stations.link, "eth0", HOME, OTHER_HOST, ways.agent_hardware, OTHER_HOST)
    elsewhere = AgentPath(ways.stations.link, "eth0", HOME, ROUTER, bytes.fromhex("020000000066"), ROUTER)
    await ways.apply(Held())
    with pytest.raises(AdapterError):
        ways.registrations.send(ways.by_agent, ROUTER, b"\1too early", ttl=255)
    await ways.apply(Held(), foreign_agent=ways.by_agent)
    for path in (other, elsewhere):
        with pytest.raises(AdapterError):
            ways.registrations.send(path, path.agent, b"\1to another", ttl=255)
    await asyncio.sleep(0.02)
    assert requests(ways) == []
    ways.registrations.send(ways.by_agent, ROUTER, b"\1request", ttl=255)
    (request,) = await eventually(lambda: requests(ways))
    assert (request.dst, request[IP].src, request[IP].ttl) == (ways.agent_hardware.hex(":"), str(HOME), 255)
    # What comes back is heard from this agent's hardware address and IP address alone.
    reply = UDP(sport=434, dport=request[UDP].sport) / Raw(b"\3forged")
    ways.inject(IP(src=str(ROUTER), dst=str(HOME)) / reply, source=STRANGER)
    ways.inject(IP(src=str(OTHER_HOST), dst=str(HOME)) / reply)
    ways.inject(
        IP(src=str(ROUTER), dst=str(HOME)) / UDP(sport=434, dport=request[UDP].sport) / Raw(b"\3reply")
    )
    await eventually(lambda: ways.reported)
    await asyncio.sleep(0.02)
    assert [came.octets for came in ways.reported] == [b"\3reply"]


@pytest.mark.rows("R-183", "R-191")
async def test_the_home_address_registers_itself_on_the_home_link_alone(ways: Ways) -> None:
    await ways.apply(Held())
    with pytest.raises(AdapterError):
        ways.registrations.send(ways.at_home, AGENT, b"\1away", ttl=255)
    await asyncio.sleep(0.02)
    assert requests(ways) == []
    await ways.apply(Held(), home_link=ways.at_home)
    ways.registrations.send(ways.at_home, AGENT, b"\1at home", ttl=255)
    (request,) = await eventually(lambda: requests(ways))
    assert (request[IP].src, request[IP].dst, bytes(request[UDP].payload)) == (
        str(HOME),
        str(AGENT),
        b"\1at home",
    )
    ways.inject(
        IP(src=str(AGENT), dst=str(HOME)) / UDP(sport=434, dport=request[UDP].sport) / Raw(b"\3reply")
    )
    await eventually(lambda: ways.reported)


# --- ARP for the home address -----------------------------------------------------------------------------------------


def arp_of_home(ways: Ways) -> list[Packet]:
    ways.look()
    return [one for one in ways.frames if ARP in one and str(HOME) in (one[ARP].psrc, one[ARP].pdst)]


def ask(ways: Ways) -> None:
    question = ARP(op=1, hwsrc=ways.agent_hardware.hex(":"), psrc=str(ROUTER), pdst=str(HOME))
    header = Ether(src=ways.agent_hardware.hex(":"), dst="ff:ff:ff:ff:ff:ff", type=0x0806)
    ways._injector.send(bytes(header / question))


@pytest.mark.rows("R-183", "R-189", "R-191")
@pytest.mark.parametrize("way", [way for way in WAYS if way.name != "home"], ids=lambda way: way.name)
async def test_away_from_home_the_home_address_is_never_heard_in_arp(ways: Ways, way: Way) -> None:
    """Not even if we ourselves go on to answer by mistake."""
    await ways.apply(way.traffic(ways))
    ways.home_links.announce(ways.at_home)
    ask(ways)
    await asyncio.sleep(0.03)
    assert arp_of_home(ways) == []


@pytest.mark.rows("R-183", "R-189", "R-190")
async def test_at_home_it_is_answered_by_us_alone_and_no_more_after_leaving(ways: Ways) -> None:
    await ways.apply(BY_NAME["home"].traffic(ways), home_link=ways.at_home)
    ask(ways)
    claim = ARP(op=2, hwsrc=ways.hardware, psrc=str(HOME), hwdst=STRANGER, pdst=str(ROUTER))
    frame(ways, claim, mark=0, kind=0x0806)
    await asyncio.sleep(0.03)
    assert arp_of_home(ways) == [], "neither the kernel nor another program speaks for it"
    ways.home_links.announce(ways.at_home)
    ask(ways)
    first, answer = await eventually(lambda: arp_of_home(ways)[1:] and arp_of_home(ways))
    assert (first[ARP].op, first[ARP].psrc, first[ARP].hwsrc) == (1, str(HOME), ways.hardware)
    assert (answer[ARP].op, answer[ARP].hwsrc, answer.dst) == (2, ways.hardware, ways.agent_hardware.hex(":"))
    ways.home_links.withdraw(ways.at_home)
    ways.forget()
    ask(ways)
    await asyncio.sleep(0.03)
    assert arp_of_home(ways) == []
