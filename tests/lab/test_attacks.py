# SPDX-License-Identifier: GPL-2.0-or-later
"""Attacks on the running client, by the network that it is on and by a foothold inside.

None of them makes it trust a network, none gets a packet in past the fence, and the status says what was tried.
"""

import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import (
    AGENT,
    AGENT_ADDRESS,
    CORRESPONDENT,
    CORRESPONDENT_ADDRESS,
    FIREWALL,
    HOME_ADDRESS,
    SWITCH,
)
from homeward.model.access import AccessMode
from homeward.model.health import Severity
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot, Trust
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedReply
from tests.lab.attackers import ATTACKER, REGISTRATION, TNC, Neighbour, genuine_key, reply_to
from tests.lab.enterprise import dropping
from tests.lab.laptop import PATIENT, Laptop, Status, eventually, network_of, reason
from tests.lab.wiretap import Tap

pytestmark = [pytest.mark.root, pytest.mark.lab]
SHARES_LAB = True


@pytest.fixture(scope="module", autouse=True)
def patient_profile(lab: LabState, status: Status) -> None:
    Laptop(lab, status).write_profile("patient", more=PATIENT)


@pytest.fixture
def cafe(lab: LabState) -> Iterator[Neighbour]:
    """The owner of ext1, who hears and forges everything there."""
    with Neighbour(lab, "ext1") as made:
        yield made


@contextmanager
def never_trusted(laptop: Laptop) -> Iterator[None]:
    """Whatever happens meanwhile, no status says trusted, or that data flows in clear."""
    mark = laptop.status.mark()
    yield
    told = laptop.status.since(mark)
    assert Trust.TRUSTED not in {each.trust for each in told}
    assert AccessMode.C not in {each.mode for each in told}


# --- replies ---------------------------------------------------------------------------------------------------------


def with_half_an_authenticator(octets: bytes) -> bytes:
    """The extension itself is well formed."""
    at = 20 + len(TNC)
    kept = (octets[at + 1] - 4) // 2
    return octets[:at] + bytes([octets[at], 4 + kept]) + octets[at + 2 : at + 6 + kept]


def with_one_bit_flipped(octets: bytes) -> bytes:
    return octets[:-1] + bytes([octets[-1] ^ 1])


UNSIGNED, MALFORMED = "a reply whose signature is missing or wrong", "a malformed reply"
UNASKED = "a reply that answers no outstanding request"
FORGERIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no authenticator": (lambda octets: octets[: 20 + len(TNC)], UNSIGNED),
    "a truncated authenticator": (lambda octets: octets[:-1], MALFORMED),
    "half an authenticator": (with_half_an_authenticator, UNSIGNED),
    "a wrong authenticator": (with_one_bit_flipped, UNSIGNED),
    "two authenticators": (lambda octets: octets + octets[24:], UNSIGNED),
    "another lifetime": (lambda octets: octets[:2] + b"\xff\xff" + octets[4:], UNSIGNED),
    "TNC twice": (lambda octets: octets[:20] + TNC + octets[20:], MALFORMED),
    "nothing at all": (lambda octets: b"", MALFORMED),
}
"""What an attacker makes of the reply that the home agent would send, and what the status says to it."""


def test_forged_replies(laptop: Laptop, lab: LabState, cafe: Neighbour) -> None:
    """At last the reply itself: nothing but the key stood between the forgeries and trust."""
    with dropping(lab, "ext1", "forward", "meta l4proto udp"):
        laptop.plug("ext1")
        with never_trusted(laptop):
            assert laptop.connect("patient", wait=0.3).status == 1
            request = cafe.request()
            genuine = reply_to(request, genuine_key(lab))
            for forge, words in FORGERIES.values():
                told = refused(laptop, cafe, request, forge(genuine), words)
            another = reply_to(request, Secret(b"another key of 32 octets, no more"))
            told = refused(laptop, cafe, request, another, UNSIGNED)
            assert [item.severity for item in told.health if item.code == "reply-rejected"] == [
                Severity.ALARM
            ]
            refused(laptop, cafe, request, bytes(request[UDP].payload), "a request instead of a reply")
            assert laptop.blocks()
            shown = laptop.homeward("status").out
            assert f"Not trusted: {UNASKED} (replayed or late), on eth0 from 10.0.0.2" in shown
            assert "Nothing was trusted" in shown
        cafe.answer(request, genuine)
        laptop.status.until(lambda now: now.trust is Trust.TRUSTED, "the genuine reply is believed")


def refused(laptop: Laptop, cafe: Neighbour, request: Packet, octets: bytes, words: str) -> StatusSnapshot:
    """Send a forgery and wait until the status says so; then have it say something else, for the next one."""
    cafe.answer(request, octets)
    told = laptop.status.until(lambda now: words in reason(now, "reply-rejected"), words)
    cafe.answer(request, struct.pack("!BBH4s4sQ", 3, 0, 1800, HOME_ADDRESS.packed, AGENT_ADDRESS.packed, 7))
    laptop.status.until(lambda now: UNASKED in reason(now, "reply-rejected"), UNASKED)
    return told


def test_trusted_networks_configured_behind_the_authenticator(
    laptop: Laptop, lab: LabState, cafe: Neighbour
) -> None:
    """V2bad: an authentic answer that does not vouch for this network, to which somebody on the way added the words."""
    with dropping(lab, "ext1", "forward", "meta l4proto udp"), never_trusted(laptop):
        laptop.plug("ext1")
        assert laptop.connect("patient", wait=0.3).status == 1
        request = cafe.request()
        cafe.answer(request, reply_to(request, genuine_key(lab), tnc=False) + TNC)
        told = laptop.status.until(lambda now: reason(now, "no-trusted-networks"), "it is told")
        assert told.trust is Trust.UNTRUSTED
        assert laptop.blocks()
        assert "does not vouch for this network" in laptop.homeward("status").out


def test_a_genuine_reply_from_inside_replayed_outside(laptop: Laptop, lab: LabState, cafe: Neighbour) -> None:
    with Neighbour(lab, "trust1") as inside:
        laptop.plug("trust1")
        assert laptop.connect("patient").status == 0
        recorded = inside.replies()
        assert recorded
    laptop.disconnect()
    with dropping(lab, "ext1", "forward", "meta l4proto udp"), never_trusted(laptop):
        laptop.plug("ext1")
        assert laptop.connect("patient", wait=0.3).status == 1
        request = cafe.request()
        for octets in recorded:
            assert isinstance(codec.decode(octets), DecodedReply)
            cafe.answer(request, octets)
        told = laptop.status.until(lambda now: UNASKED in reason(now, "reply-rejected"), UNASKED)
        assert [item.severity for item in told.health if item.code == "reply-rejected"] == [Severity.ALARM]
        assert laptop.blocks()


def test_a_genuine_reply_that_comes_through_the_vpn(laptop: Laptop, lab: LabState, cafe: Neighbour) -> None:
    """Somebody inside answers the question that left in clear, by the tunnel. By the link the same answer counts."""
    laptop.plug("ext1")
    with never_trusted(laptop):
        assert laptop.connect("patient").status == 0
        request = cafe.request()
        genuine = reply_to(request, genuine_key(lab))
        datagram = UDP(sport=REGISTRATION, dport=request[UDP].sport) / Raw(genuine)
        with Tap(laptop.host, "ipsec0") as inside:
            send_from(
                Host(lab, AGENT), IP(src=str(AGENT_ADDRESS), dst=str(laptop.inner_address())) / datagram
            )
            eventually(
                lambda: [each for each in inside.carried() if genuine in each], "it comes out of the tunnel"
            )
        assert laptop.homeward("status").status == 0, "homewardd has had the time to believe it"
    cafe.answer(request, genuine)
    laptop.status.until(lambda now: now.trust is Trust.TRUSTED, "the genuine reply is believed")


def send_from(host: Host, packet: Packet) -> None:
    """A whole IP packet, in whosever name, by the host's routes."""
    with network_of(host), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.sendto(bytes(packet), (packet.dst, 0))


# --- requests that reach the home agent from outside -----------------------------------------------------------------


def test_a_firewall_that_lets_requests_in_moves_nobody(laptop: Laptop, lab: LabState) -> None:
    """The agent hears a request from outside, authentic to the last bit, and is silent: only the inside is answered."""
    firewall, agent = Host(lab, FIREWALL), Host(lab, AGENT)
    hole = (
        f'inet edge forward iifname "outside" oifname "inside" ip daddr {AGENT_ADDRESS} udp dport 434 accept'
    )
    handle = re.findall(r"# handle (\d+)", firewall.run("nft", "-a", "-e", f"insert rule {hole}").stdout)[-1]
    try:
        with Tap(agent, "inside") as heard, never_trusted(laptop):
            address = str(laptop.plug("ext1"))
            assert laptop.connect().status == 0
            assert laptop.status.now is not None
            assert laptop.status.now.mode is AccessMode.MC
            packets = [packet for packet in map(Ether, heard.carried()) if UDP in packet and IP in packet]
        requests = [each for each in packets if (each[IP].src, each[UDP].dport) == (address, REGISTRATION)]
        assert requests, "no request came through the hole"
        assert not [each for each in packets if each[IP].dst == address]
        assert "request-from-untrusted-source" in lab.log(AGENT, "agent").read_text()
    finally:
        firewall.run("nft", f"delete rule inet edge forward handle {handle}")


def test_a_request_relayed_by_a_foothold_inside(laptop: Laptop, lab: LabState, cafe: Neighbour) -> None:
    """The foothold sends it on from an inside address. What comes back is authentic, and is no word of trust."""
    with dropping(lab, "ext1", "forward", "meta l4proto udp"), never_trusted(laptop):
        laptop.plug("ext1")
        assert laptop.connect("patient", wait=0.3).status == 1
        request = cafe.request()
        with network_of(Host(lab, "trust1")), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foothold:
            foothold.bind(("10.1.1.1", 0))
            foothold.settimeout(10)
            foothold.sendto(bytes(request[UDP].payload), (str(AGENT_ADDRESS), REGISTRATION))
            reply = foothold.recv(4096)
        answer = codec.decode(reply)
        assert isinstance(answer, DecodedReply)
        assert not answer.message.trusted_networks_configured
        assert TNC not in reply
        cafe.answer(request, reply)
        told = laptop.status.until(
            lambda now: reason(now, "home-agent-refused"), "the agent's refusal is told"
        )
        assert told.trust is Trust.UNTRUSTED
        assert laptop.blocks()
        assert (
            "The home agent's administrator forbids the registration. (code 129)"
            in laptop.homeward("status").out
        )
    assert "relayed-request" in lab.log(AGENT, "agent").read_text()


# --- packets in the home agent's name --------------------------------------------------------------------------------

PORT = 7007


@contextmanager
def application(laptop: Laptop) -> Iterator[Callable[[], set[bytes]]]:
    """An application that listens at the home address; yields what it has received so far."""
    with (
        network_of(laptop.host),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver,
    ):
        receiver.bind((str(HOME_ADDRESS), PORT))
        got: set[bytes] = set()

        def received() -> set[bytes]:
            try:
                while True:
                    got.add(receiver.recv(2048))
            except BlockingIOError:
                return got

        yield received


def tunnelled(to: IPv4Address, words: bytes) -> Packet:
    """What the home agent would send to a care-of address."""
    return IP(src=str(AGENT_ADDRESS), dst=str(to)) / to_application(words)


def to_application(words: bytes) -> Packet:
    return (
        IP(src=str(CORRESPONDENT_ADDRESS), dst=str(HOME_ADDRESS)) / UDP(sport=PORT, dport=PORT) / Raw(words)
    )


def test_inside_the_tunnel_ends_only_on_the_proved_link(laptop: Laptop, lab: LabState) -> None:
    switch = Host(lab, SWITCH)
    switch.ip(f"link add evil type veth peer name eth1 netns {laptop.host.pid}", "link set evil up")
    laptop.host.ip("link set eth1 up", "addr add 192.168.99.2/24 dev eth1")
    try:
        care_of = laptop.plug("trust1")
        assert laptop.connect().status == 0
        with application(laptop) as received, Tap(switch, "evil") as evil, Neighbour(lab, "trust1") as router:
            for packet in (
                tunnelled(care_of, b"by another link"),
                to_application(b"in the open, by another link"),
            ):
                evil.send(bytes(Ether(src=ATTACKER, dst="ff:ff:ff:ff:ff:ff") / packet))
            router.send(to_application(b"in the open"))
            stranger = tunnelled(care_of, b"from a stranger")
            stranger.src = "10.1.1.1"
            router.send(stranger)
            # The same by the right link is what the home agent sends: it shows that the application would hear.
            router.send(tunnelled(care_of, b"by the proved link"))
            eventually(lambda: b"by the proved link" in received(), "the genuine packet arrives")
            assert received() == {b"by the proved link"}
    finally:
        switch.ip("link del evil")


def test_outside_nothing_comes_in_but_through_the_vpn(laptop: Laptop, lab: LabState, cafe: Neighbour) -> None:
    address = laptop.plug("ext1")
    assert laptop.connect().status == 0
    inner = laptop.inner_address()
    with application(laptop) as received:
        for to in (address, inner):
            cafe.send(tunnelled(to, b"in clear"))
        cafe.send(to_application(b"in the open"))
        with (
            network_of(Host(lab, CORRESPONDENT)),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as genuine,
        ):
            genuine.sendto(b"through the VPN", (str(HOME_ADDRESS), PORT))
        eventually(lambda: b"through the VPN" in received(), "the genuine packet arrives")
        assert received() == {b"through the VPN"}
