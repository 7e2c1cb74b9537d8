# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything on an untrusted network that tries to look like the inside (S9, R-30, R-65, R-96, R-147, R-292).

Each attack runs against a core that has just asked its question on ext1, where nobody genuine answers it.
"""

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.model.access import AccessMode, ClearPath, VpnPath
from homeward.model.effects import SendRegistration
from homeward.model.health import Severity
from homeward.model.inputs import DatagramReceived
from homeward.model.instant import Instant
from homeward.model.nat_traversal import UdpTunnelCode, UdpTunnelReply
from homeward.model.plan import Held, Tunnelled
from homeward.model.registration import RegistrationReply, RegistrationRequest
from homeward.model.status import Trust
from homeward.wire import registration as codec
from tests.scenarios.simulation import (
    ETHERNET,
    HOME_AGENT,
    World,
    association,
    make_profile,
    signed_again,
)


def outside_and_asking() -> tuple[World, SendRegistration]:
    world = World(profile=make_profile(gateway=None))
    world.plug("ext1")
    return world, world.sent[-1][1]


def reply_to(
    request: SendRegistration,
    *,
    code: int = 0,
    key: bytes | None = None,
    tnc: bool = True,
    udp_tunnel: UdpTunnelReply | None = None,
) -> bytes:
    message = codec.decode(request.octets).message
    assert isinstance(message, RegistrationRequest)
    reply = RegistrationReply(
        code,
        message.lifetime,
        home_address=message.home_address,
        home_agent=message.home_agent,
        identification=message.identification,
        trusted_networks_configured=tnc,
        udp_tunnel=udp_tunnel,
    )
    return codec.encode_reply(reply, association() if key is None else association(key))


def deliver(world: World, request: SendRegistration, octets: bytes, **how: object) -> None:
    path = how.get("path", request.path)
    source = how.get("source", HOME_AGENT)
    port = how.get("port", 434)
    index = how.get("index", ETHERNET)
    world.feed(DatagramReceived(path, octets, source, port, index))  # type: ignore[arg-type]


TNC = bytes.fromhex("95020000")


def truncated(octets: bytes) -> bytes:
    return octets[:-1]


def stripped(octets: bytes) -> bytes:
    return octets[: 20 + len(TNC)]


def tnc_behind_the_signature(request: SendRegistration) -> bytes:
    return reply_to(request, tnc=False) + TNC


FORGERIES: dict[str, Callable[[SendRegistration], bytes]] = {
    "no authenticator": lambda request: stripped(reply_to(request)),
    "truncated authenticator": lambda request: truncated(reply_to(request)),
    "another key": lambda request: reply_to(request, key=b"x" * 32),
    "one bit of the authenticator": lambda request: (
        reply_to(request)[:-1] + bytes([reply_to(request)[-1] ^ 1])
    ),
    "TNC behind the signature (V2bad)": tnc_behind_the_signature,
    "two signatures": lambda request: reply_to(request) + reply_to(request)[24:],
    "another home address": lambda request: signed_again(
        reply_to(request), home_address=IPv4Address("10.77.0.11")
    ),
    "another home agent": lambda request: signed_again(reply_to(request), home_agent=IPv4Address("10.0.0.3")),
    "another Identification": lambda request: signed_again(
        reply_to(request), identification=codec.decode(request.octets).message.identification ^ 1
    ),
    "same low half, another high half": lambda request: signed_again(
        reply_to(request), identification=codec.decode(request.octets).message.identification ^ (1 << 40)
    ),
    "an unknown extension that must be understood": lambda request: (
        reply_to(request)[:20] + b"\x63\x00" + reply_to(request)[20:]
    ),
    "the request itself, reflected": lambda request: request.octets,
    "nothing": lambda request: b"",
}


@pytest.mark.rows("R-21", "R-27", "R-30", "R-86", "R-147", "R-148", "R-292")
@pytest.mark.parametrize("forgery", FORGERIES, ids=str)
def test_forged_reply_is_never_trusted(forgery: str) -> None:
    world, request = outside_and_asking()
    deliver(world, request, FORGERIES[forgery](request))
    world.run(1e-3)
    status = world.status()
    assert status.trust is not Trust.TRUSTED
    assert status.mode is AccessMode.NONE
    assert all(isinstance(plan.traffic, Held) for _, plan in world.plans)
    assert status.health, "the reason must be shown in the status"


@pytest.mark.rows("R-65")
@pytest.mark.parametrize("code", [64, 65, 69, 128, 129, 131, 133, 194])
def test_denial_with_tnc_is_no_proof_r65(code: int) -> None:
    world, request = outside_and_asking()
    deliver(world, request, reply_to(request, code=code))
    world.run(0.5)
    assert world.status().trust is not Trust.TRUSTED


@pytest.mark.rows("R-150")
def test_unsigned_denial_of_a_foreign_agent_changes_nothing_r150() -> None:
    world, request = outside_and_asking()
    deliver(world, request, stripped(reply_to(request, code=65)))
    assert world.status().trust is Trust.UNKNOWN
    world.run(4)
    assert len([1 for _, sent in world.sent if isinstance(sent.path, ClearPath)]) == 3


@pytest.mark.rows("R-65", "R-96")
@pytest.mark.parametrize(
    "how",
    [
        {"source": IPv4Address("198.51.100.66")},
        {"port": 435},
        {"index": 9},
        {"index": 3},
        {"path": VpnPath(IPv4Address("10.9.0.5"))},
        {"path": ClearPath(3, "docker0", IPv4Address("172.17.0.1"))},
        {"path": ClearPath(ETHERNET, "eth0", IPv4Address("198.51.100.11"))},
    ],
    ids=str,
)
def test_genuine_reply_that_came_another_way_is_never_trusted(how: dict[str, object]) -> None:
    world, request = outside_and_asking()
    deliver(world, request, reply_to(request), **how)
    world.run(1e-3)
    assert world.status().trust is not Trust.TRUSTED


@pytest.mark.rows("R-65", "R-147")
def test_genuine_reply_replayed_on_another_network_is_never_trusted() -> None:
    recorded: list[bytes] = []
    world = World(profile=make_profile(gateway=None))
    deliver_really = world.deliver

    def record(request: SendRegistration, octets: bytes, place: object) -> None:
        recorded.append(octets)
        deliver_really(request, octets, place)  # type: ignore[arg-type]

    world.deliver = record  # type: ignore[method-assign]
    world.plug("trust1")
    world.run(120)
    assert world.mode() is AccessMode.C
    world.plug("ext1")
    for octets in recorded:
        deliver(world, world.sent[-1][1], octets)
    world.run(5)
    status = world.status()
    assert status.trust is not Trust.TRUSTED
    assert any(item.severity is Severity.ALARM for item in status.health)


@pytest.mark.rows("R-65", "R-68")
def test_reply_to_a_request_before_the_link_changed_is_never_trusted_r65() -> None:
    world, request = outside_and_asking()
    genuine = reply_to(request)
    world.plug("ext1")
    deliver(world, request, genuine)
    assert world.status().trust is not Trust.TRUSTED


@pytest.mark.rows("R-147")
def test_second_copy_of_a_used_reply_is_ignored() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    world.run(0.01)
    request = world.sent[-1][1]
    world.run(0.5)
    binding = world.core.registrar.binding
    deliver(world, request, reply_to(request))
    assert world.core.registrar.binding is binding


@pytest.mark.rows("R-96")
def test_tnc_through_the_vpn_proves_nothing_r96() -> None:
    world = World()
    world.plug("ext1")
    world.run(3600)
    assert world.mode() is AccessMode.MC
    assert world.status().trust is Trust.UNTRUSTED
    assert not any(
        isinstance(plan.traffic, Tunnelled) and isinstance(plan.traffic.path, ClearPath)
        for _, plan in world.plans
    )


def test_probe_relayed_to_the_real_agent_earns_no_tnc_x28() -> None:
    """A foothold inside forwards the request of ext1; the agent sees its address, not the care-of address."""
    world, request = outside_and_asking()
    arrived = RequestArrived(
        request.octets, IPv4Address("10.1.1.66"), source_port=4000, destination=HOME_AGENT, interface="inside"
    )
    for answer in world.agent.handle(arrived, Instant(world.now, world.wall())):
        if isinstance(answer, SendReply):
            deliver(world, request, answer.octets)
    world.run(0.1)
    assert world.status().trust is not Trust.TRUSTED


def test_wrong_key_gets_silence_and_the_status_says_so() -> None:
    world = World(profile=make_profile(gateway=None), key=b"w" * 32)
    world.plug("trust1")
    world.run(16)
    status = world.status()
    assert status.trust is Trust.UNTRUSTED
    assert status.blocked is not None


def test_flood_of_forgeries_does_not_drown_the_genuine_reply() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    request = world.sent[-1][1]
    for _ in range(1000):
        deliver(world, request, FORGERIES["another key"](request))
    world.run(0.1)
    assert world.mode() is AccessMode.C


def test_signed_reply_that_reports_a_nat_is_an_alarm_and_no_proof_x28() -> None:
    world, request = outside_and_asking()
    deliver(world, request, reply_to(request, udp_tunnel=UdpTunnelReply()))
    world.run(1.0)
    status = world.status()
    assert status.trust is Trust.UNTRUSTED
    assert all(isinstance(plan.traffic, Held) for _, plan in world.plans)
    assert any(item.severity is Severity.ALARM and "NAT" in item.text for item in status.health)


def test_signed_reply_that_declines_a_udp_tunnel_is_as_good_as_any() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    request = world.sent[-1][1]
    declined = UdpTunnelReply(UdpTunnelCode.DECLINED)
    deliver(world, request, reply_to(request, udp_tunnel=declined))
    world.run(0.01)
    assert world.mode() is AccessMode.C
