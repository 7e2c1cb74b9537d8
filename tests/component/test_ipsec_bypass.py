# SPDX-License-Identifier: GPL-2.0-or-later
"""Another VPN's IPsec policy on the machine: the clear probe and the clear tunnel must not notice it (S3).

This kernel may have no ESP; its policies work all the same: what they match, and nobody encrypts, is not sent. A kernel
that encrypts is tried in tests/kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator

import pytest

from homeward.adapters import udp_registration
from homeward.adapters.tunnel_device import TunnelDevice
from homeward.adapters.tunnel_device.outlets import open_outlet
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import ClearPath, HomePath
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import NotPermitted, Unavailable
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import AtHome, Tunnelled
from tests.world.stations import AGENT, CARE_OF, HOME, Stations, TunnelEnd, eventually, take

pytestmark = pytest.mark.root

ANYTHING = "src 0.0.0.0/0 dst 0.0.0.0/0"
TEMPLATE = "tmpl src {} dst 203.0.113.9 proto esp reqid 7 mode tunnel"


@pytest.fixture
async def stations() -> AsyncIterator[Stations]:
    with Stations() as made:
        yield made


def another_vpn(stations: Stations) -> None:
    """Everything out must be encrypted, and everything in must have been."""
    stations.laptop.ip(f"xfrm policy add {ANYTHING} dir out priority 1 {TEMPLATE.format(CARE_OF)}")
    stations.laptop.ip(f"xfrm policy add {ANYTHING} dir in priority 1 {TEMPLATE.format(CARE_OF)}")


def bound_socket(stations: Stations) -> socket.socket:
    """As near as one comes to the probe's socket without the bypass."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    opened.bind((str(CARE_OF), 0))
    return opened


async def test_the_policy_catches_a_bound_socket(stations: Stations) -> None:
    with stations.udp(AGENT, 434) as agent, bound_socket(stations) as probe:
        probe.sendto(b"before", (str(AGENT), 434))
        await eventually(lambda: take(agent))
        agent.sendto(b"reply", probe.getsockname())
        await asyncio.sleep(0.02)
        assert probe.recv(99) == b"reply"
        another_vpn(stations)
        with contextlib.suppress(OSError):
            probe.sendto(b"after", (str(AGENT), 434))
        agent.sendto(b"reply", probe.getsockname())
        await asyncio.sleep(0.05)
        assert take(agent) is None
        with pytest.raises(BlockingIOError):
            probe.recv(99)


@pytest.mark.rows("R-32")
async def test_a_registration_passes_it_both_ways(stations: Stations) -> None:
    another_vpn(stations)
    arrived: list[DatagramReceived] = []
    registrations = UdpRegistrations(lambda inner: None)
    registrations.start(arrived.append)
    with stations.udp(AGENT, 434) as agent:
        path = ClearPath(stations.link, "eth0", CARE_OF)
        registrations.send(path, AGENT, b"request", ttl=64)
        request = await eventually(lambda: take(agent))
        assert (request.octets, request.source) == (b"request", CARE_OF)
        agent.sendto(b"reply", (str(request.source), request.port))
        await eventually(lambda: arrived)
    registrations.stop()
    assert arrived == [DatagramReceived(path, b"reply", AGENT, 434, stations.link)]


async def test_the_clear_tunnel_passes_it_both_ways(stations: Stations) -> None:
    another_vpn(stations)
    tunnel = TunnelDevice()
    tunnel.attach(HOME)
    stations.laptop.ip(f"addr add {HOME}/32 dev homeward0")
    stations.laptop.ip("link set homeward0 up")
    stations.laptop.ip("route add 10.0.0.0/8 dev homeward0")
    # Only the inner packet's own way into the device must not meet the policy: there is none on this device.
    stations.laptop.sysctl("ipv4/conf/homeward0/disable_xfrm", "1")
    stations.laptop.sysctl("ipv4/conf/homeward0/disable_policy", "1")
    tunnel.prepare(Tunnelled(ClearPath(stations.link, "eth0", CARE_OF), AGENT, 1480), stations.link)
    tunnel.open(linger=False)
    with TunnelEnd(stations) as end, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.bind((str(HOME), 0))
        application.sendto(b"x", ("10.0.0.10", 9))
        outer = await eventually(end.came)
        assert outer.endswith(b"x")
        end.send(outer[20:32] + outer[36:40] + outer[32:36] + outer[40:])
        await eventually(lambda: tunnel.counted.received)
    tunnel.detach()


@pytest.mark.rows("R-32")
@pytest.mark.parametrize(("code", "error"), [(errno.EPERM, NotPermitted), (errno.ENOPROTOOPT, Unavailable)])
async def test_without_the_bypass_nothing_is_sent(
    stations: Stations, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    real = socket.socket.setsockopt

    def refusing(opened: socket.socket, level: int, option: int, value: bytes | int) -> None:
        if (level, option) == (socket.IPPROTO_IP, udp_registration.IP_XFRM_POLICY):
            raise OSError(code, "refused")
        real(opened, level, option, value)

    monkeypatch.setattr(socket.socket, "setsockopt", refusing, raising=False)
    registrations = UdpRegistrations(lambda inner: None)
    registrations.start(lambda came: None)
    path = ClearPath(stations.link, "eth0", CARE_OF)
    with stations.udp(AGENT, 434) as agent:
        with pytest.raises(error, match="out of IPsec"):
            registrations.send(path, AGENT, b"request", ttl=64)
        await asyncio.sleep(0.02)
        assert take(agent) is None
    stations.laptop.ip(f"addr add {HOME}/32 dev lo")
    ways: list[Tunnelled | AtHome] = [Tunnelled(path, AGENT, 1480, kind) for kind in Encapsulation]
    for way in [*ways, AtHome(HomePath(stations.link, "eth0", HOME), 1500)]:
        with pytest.raises(Unavailable, match="out of IPsec"):
            open_outlet(way, stations.link, HOME, datagrams=None)


async def test_a_process_without_rights_sends_nothing(stations: Stations) -> None:
    """The kernel itself refuses: CAP_NET_ADMIN is needed for the mark and for the bypass."""
    registrations = UdpRegistrations(lambda inner: None)
    registrations.start(lambda came: None)
    with stations.udp(AGENT, 434) as agent:
        os.seteuid(65534)
        try:
            with pytest.raises(NotPermitted):
                registrations.send(ClearPath(stations.link, "eth0", CARE_OF), AGENT, b"request", ttl=64)
        finally:
            os.seteuid(0)
        await asyncio.sleep(0.02)
        assert take(agent) is None
