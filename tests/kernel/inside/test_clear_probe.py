# SPDX-License-Identifier: GPL-2.0-or-later
"""The clear probe while another VPN, or our own, has a way to the home agent (S3).

It leaves in clear, and only what comes in clear is an answer. Each attack is shown first on a socket without our locks,
where it succeeds.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from homeward.adapters import udp_registration
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import ClearPath
from homeward.model.inputs import DatagramReceived
from homeward.wire.socket_options import ANCILLARY_OCTETS, IP_PKTINFO, ingress_link
from tests.kernel.inside.cable import Cable
from tests.kernel.inside.other_vpns import KINDS, Tunnel
from tests.world.stations import AGENT, CARE_OF, Datagram, Stations, eventually, take


# One for all tests of a kind of tunnel: to build them takes longer than to run the tests.
@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stations(kind: str) -> Iterator[Stations]:
    with Stations() as made:
        yield made


@pytest.fixture(scope="module")
def tunnel(kind: str, stations: Stations) -> Iterator[Tunnel]:
    made = KINDS[kind](stations)
    yield made
    made.close()


@pytest.fixture
def cable(stations: Stations) -> Iterator[Cable]:
    made = Cable()
    yield made
    made.close()


@pytest.fixture
def agent(stations: Stations) -> Iterator[socket.socket]:
    with stations.udp(AGENT, 434) as opened:
        yield opened


@pytest.fixture
def plain(stations: Stations) -> Iterator[socket.socket]:
    """A socket of any program of the laptop's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
        opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        opened.bind((str(CARE_OF), 0))
        yield opened


class Probe:
    """The real registration socket, and what it took for an answer."""

    def __init__(self, stations: Stations) -> None:
        self.path = ClearPath(stations.link, "eth0", CARE_OF)
        self.answers: list[DatagramReceived] = []
        self.registrations = UdpRegistrations({}.get)
        self.registrations.start(self.answers.append)

    def send(self) -> None:
        self.registrations.send(self.path, AGENT, b"request", ttl=64)


@pytest.fixture
async def probe(stations: Stations) -> AsyncIterator[Probe]:
    made = Probe(stations)
    yield made
    made.registrations.stop()


def received(opened: socket.socket) -> tuple[bytes, int] | None:
    """The next datagram and the link that the kernel says it came by."""
    try:
        octets, ancillary, _, _ = opened.recvmsg(4096, ANCILLARY_OCTETS)
    except BlockingIOError:
        return None
    return octets, ingress_link(ancillary)


def requests_in_clear(cable: Cable) -> list[IP]:
    """The registrations that have left as they are since the last look."""
    return [packet for packet in cable.left() if packet.proto == 17 and packet[UDP].dport == 434]


def reply(octets: bytes, port: int) -> bytes:
    return bytes(IP(src=str(AGENT), dst=str(CARE_OF)) / UDP(sport=434, dport=port) / Raw(octets))


async def test_a_socket_without_locks_is_led_astray(
    tunnel: Tunnel, cable: Cable, plain: socket.socket
) -> None:
    """The attack: the request goes into the tunnel, and what comes out of it is taken for the answer."""
    plain.sendto(b"request", (str(AGENT), 434))
    tunnel.deliver(reply(b"from the tunnel", plain.getsockname()[1]))
    octets, link = await eventually(lambda: received(plain))
    assert octets == b"from the tunnel"
    # Nothing tells a datagram that came by IPsec policies from one that came in clear: hence the bypass.
    assert link == socket.if_nametoindex(tunnel.device or "eth0")
    assert not requests_in_clear(cable)


@pytest.mark.rows("R-32")
async def test_the_probe_leaves_in_clear_and_its_answer_in_clear_is_taken(
    stations: Stations, tunnel: Tunnel, cable: Cable, agent: socket.socket, probe: Probe
) -> None:
    probe.send()
    request: Datagram = await eventually(lambda: take(agent))
    assert (request.octets, request.source) == (b"request", CARE_OF)
    (seen,) = requests_in_clear(cable)
    assert (seen.src, seen[UDP].sport) == (str(CARE_OF), request.port)
    agent.sendto(b"reply", (str(CARE_OF), request.port))
    (answer,) = await eventually(lambda: probe.answers)
    assert answer == DatagramReceived(probe.path, b"reply", AGENT, 434, stations.link)


@pytest.mark.rows("R-96")
async def test_an_answer_that_comes_through_the_tunnel_is_refused(
    tunnel: Tunnel, agent: socket.socket, plain: socket.socket, probe: Probe
) -> None:
    probe.send()
    request: Datagram = await eventually(lambda: take(agent))
    tunnel.deliver(reply(b"forged", request.port))
    tunnel.deliver(reply(b"the tunnel works", plain.getsockname()[1]))
    octets, _ = await eventually(lambda: received(plain))
    assert octets == b"the tunnel works"
    agent.sendto(b"genuine", (str(CARE_OF), request.port))
    await eventually(lambda: probe.answers)
    assert [answer.octets for answer in probe.answers] == [b"genuine"]


@pytest.mark.parametrize("kind", ["policies"], indirect=True)
async def test_without_the_bypass_a_bound_and_marked_probe_is_led_astray_as_well(
    monkeypatch: pytest.MonkeyPatch, stations: Stations, tunnel: Tunnel, cable: Cable, probe: Probe
) -> None:
    """The control of the bypass: binding to the link is no protection against policies, and no check can tell."""
    monkeypatch.setattr(udp_registration, "_keep_out_of_ipsec", lambda opened: None)
    probe.send()
    port = probe.registrations._sockets[probe.path].receiver.getsockname()[1]
    tunnel.deliver(reply(b"from inside", port))
    (answer,) = await eventually(lambda: probe.answers)
    assert answer == DatagramReceived(probe.path, b"from inside", AGENT, 434, stations.link)
    assert not requests_in_clear(cable)
