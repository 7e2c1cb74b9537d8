# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked for besides a binding, and what becomes of it: encapsulations, tunnels in UDP, lifetimes, words."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.model.access import AccessMode, ClearPath, Path, VpnPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import UdpTunnelReply
from homeward.model.plan import Tunnelled
from homeward.model.profile import Profile
from homeward.model.registration import RegistrationRequest, ReplyCode, RequestFlags
from homeward.model.status import ClientState, Trust
from homeward.wire import registration as codec
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE
from tests.scenarios.simulation import World, make_profile, signed_again


def requests(world: World, kind: type[Path]) -> list[RegistrationRequest]:
    """The registrations along paths of this kind, keepalives left out."""
    found = []
    for _, effect in world.sent:
        if isinstance(effect.path, kind) and effect.octets[0] != TUNNEL_DATA_TYPE:
            message = codec.decode(effect.octets).message
            assert isinstance(message, RegistrationRequest)
            found.append(message)
    return found


def keepalives(world: World) -> list[float]:
    return [at for at, effect in world.sent if effect.octets[0] == TUNNEL_DATA_TYPE]


def answering(world: World, **changes: object) -> None:
    """From now on every signed answer of the home agent says this besides."""
    deliver = world.deliver
    world.deliver = lambda request, octets, place: deliver(  # type: ignore[method-assign]
        request, signed_again(octets, **changes), place
    )


def profile(**changes: object) -> Profile:
    return replace(make_profile(), **changes)  # type: ignore[arg-type]


def with_encapsulation(encapsulation: Encapsulation) -> Profile:
    made = make_profile(gateway=None)
    return replace(made, home_agent=replace(made.home_agent, encapsulation=encapsulation))


@pytest.mark.rows("R-222", "R-224", "R-225", "R-279")
@pytest.mark.parametrize(("place", "kind"), [("trust1", ClearPath), ("ext1", VpnPath)])
def test_a_co_located_request_offers_a_tunnel_in_udp_and_revocation(place: str, kind: type[Path]) -> None:
    world = World()
    world.plug(place)
    world.run(2)
    request = requests(world, kind)[0]
    assert request.udp_tunnel is not None
    assert not request.udp_tunnel.force
    assert request.revocation_support is not None
    assert request.flags == RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL


@pytest.mark.rows("R-226", "R-48")
def test_where_the_profile_expects_a_translator_inside_its_tunnel_is_used() -> None:
    world = World(profile=profile(nat_inside=True))
    answering(world, udp_tunnel=UdpTunnelReply(keepalive=25))
    world.plug("trust1")
    world.run(1)
    traffic = world.plans[-1][1].traffic
    assert isinstance(traffic, Tunnelled)
    assert (world.mode(), traffic.udp, traffic.mtu) == (AccessMode.C, True, 1468)
    assert world.status().udp_tunnel


@pytest.mark.rows("R-226")
def test_a_translator_that_nobody_expects_is_an_alarm_and_no_proof() -> None:
    world = World()
    answering(world, udp_tunnel=UdpTunnelReply())
    world.plug("trust1")
    world.run(3)
    assert world.status().trust is Trust.UNTRUSTED
    assert world.mode() is AccessMode.MC or world.status().state is ClientState.REGISTERING


@pytest.mark.rows("R-50", "R-59")
def test_outside_the_inner_address_may_be_translated() -> None:
    world = World()
    answering(world, udp_tunnel=UdpTunnelReply(keepalive=20))
    world.drop = lambda _direction: False
    world.plug("ext1")
    world.run(1)
    traffic = world.plans[-1][1].traffic
    assert isinstance(traffic, Tunnelled)
    assert (world.mode(), traffic.udp, traffic.mtu) == (AccessMode.MC, True, 1388)


@pytest.mark.rows("R-227", "R-228")
@pytest.mark.parametrize("reply", [None, UdpTunnelReply(64), UdpTunnelReply(255)])
def test_without_assent_the_tunnel_is_ip_in_ip(reply: UdpTunnelReply | None) -> None:
    world = World(profile=profile(nat_inside=True))
    answering(world, udp_tunnel=reply)
    world.plug("trust1")
    world.run(1)
    traffic = world.plans[-1][1].traffic
    assert isinstance(traffic, Tunnelled)
    assert (traffic.udp, traffic.mtu) == (False, 1480)
    assert keepalives(world) == []


@pytest.mark.rows("R-234")
def test_a_forced_tunnel_is_no_alarm_and_a_refusal_is_asked_around() -> None:
    world = World(profile=profile(force_udp=True))
    answering(world, udp_tunnel=UdpTunnelReply(forced=True, keepalive=30))
    world.plug("trust1")
    world.run(1)
    assert (world.mode(), world.status().trust) == (AccessMode.C, Trust.TRUSTED)
    tunnel = requests(world, ClearPath)[0].udp_tunnel
    assert tunnel is not None
    assert tunnel.force
    refusing = World(profile=profile(force_udp=True, gateway=None))
    deliver = refusing.deliver

    def refuse_once(request: object, octets: bytes, place: object) -> None:
        refusing.deliver = deliver  # type: ignore[method-assign]
        code = ReplyCode.ADMINISTRATIVELY_PROHIBITED
        deliver(request, signed_again(octets, code=code, lifetime=0), place)  # type: ignore[arg-type]

    refusing.deliver = refuse_once  # type: ignore[method-assign]
    refusing.plug("trust1")
    refusing.run(2)
    asked = [each.udp_tunnel is not None and each.udp_tunnel.force for each in requests(refusing, ClearPath)]
    assert asked == [True, False]
    assert refusing.mode() is AccessMode.C


@pytest.mark.rows("R-236", "R-238")
def test_a_silent_tunnel_in_udp_is_registered_anew_and_asked_more_often() -> None:
    world = World(profile=profile(nat_inside=True))
    answering(world, udp_tunnel=UdpTunnelReply(keepalive=20))
    world.plug("trust1")
    world.run(19)
    assert keepalives(world) == []
    registered = len(requests(world, ClearPath))
    world.run(18)
    assert len(keepalives(world)) == 4
    assert keepalives(world)[0] == pytest.approx(1020.0, abs=0.1)
    assert len(requests(world, ClearPath)) == registered + 1
    at = world.now
    world.run(11)
    assert [each for each in keepalives(world) if each > at]


@pytest.mark.rows("R-233")
@pytest.mark.parametrize(
    ("encapsulation", "flag", "mtu"),
    [(Encapsulation.GRE, RequestFlags.GRE, 1476), (Encapsulation.MINIMAL, RequestFlags.MINIMAL, 1488)],
)
def test_another_encapsulation_is_asked_for_and_given_up_when_refused(
    encapsulation: Encapsulation, flag: RequestFlags, mtu: int
) -> None:
    world = World(profile=with_encapsulation(encapsulation))
    world.plug("trust1")
    world.run(2)
    assert flag in requests(world, ClearPath)[0].flags
    traffic = world.plans[-1][1].traffic
    assert isinstance(traffic, Tunnelled)
    assert (traffic.encapsulation, traffic.mtu) in [(encapsulation, mtu), (Encapsulation.IP_IN_IP, 1480)]
    refusing = World(profile=with_encapsulation(encapsulation))
    deliver = refusing.deliver

    def refuse(request: object, octets: bytes, place: object) -> None:
        refusing.deliver = deliver  # type: ignore[method-assign]
        changed = signed_again(octets, code=ReplyCode.ENCAPSULATION_UNAVAILABLE, lifetime=0)
        deliver(request, changed, place)  # type: ignore[arg-type]

    refusing.deliver = refuse  # type: ignore[method-assign]
    refusing.plug("trust1")
    refusing.run(2)
    assert [flag in each.flags for each in requests(refusing, ClearPath)] == [True, False]
    traffic = refusing.plans[-1][1].traffic
    assert isinstance(traffic, Tunnelled)
    assert traffic.encapsulation is Encapsulation.IP_IN_IP


@pytest.mark.rows("R-161")
def test_what_the_home_agent_says_to_people_is_shown_and_changes_nothing() -> None:
    world = World()
    answering(world, message="maintenance tonight")
    world.plug("trust1")
    world.run(1)
    assert world.status().message == "maintenance tonight"
    assert world.mode() is AccessMode.C


@pytest.mark.rows("R-51")
def test_where_the_profile_says_never_to_ask_nothing_is_asked_in_clear() -> None:
    world = World(profile=profile(ask_not_on=(IPv4Network("198.51.100.0/24"),)))
    world.plug("ext1")
    world.run(300)
    assert requests(world, ClearPath) == []
    assert world.mode() is AccessMode.MC
    assert world.status().proof is not None
    assert "never to ask" in world.status().proof.text
    world.plug("trust1")
    world.run(1)
    assert world.mode() is AccessMode.C


@pytest.mark.rows("R-155", "R-158")
@pytest.mark.parametrize("code", [129, 130, 131, 134, 136, 137, 138, 141])
def test_a_refusal_by_the_home_agent_says_what_to_do(code: int) -> None:
    world = World(profile=make_profile(gateway=None))
    answering(world, code=code, lifetime=0)
    world.plug("trust1")
    world.run(2)
    (item,) = [each for each in world.status().health if each.code == "home-agent-refused"]
    assert f"(code {code})" in item.text
    assert len(item.advice) > 20
    assert world.status().trust is Trust.UNTRUSTED


def test_no_care_of_address_of_ours_is_told_to_the_wrong_network() -> None:
    """A keepalive goes only along the path of the tunnel that it keeps alive."""
    world = World(profile=profile(nat_inside=True))
    answering(world, udp_tunnel=UdpTunnelReply(keepalive=20))
    world.plug("trust1")
    world.run(25)
    world.plug("trust2")
    world.run(120)
    paths = {
        effect.path.source for at, effect in world.sent if effect.octets[0] == TUNNEL_DATA_TYPE and at > 1026
    }
    assert paths <= {IPv4Address("10.1.2.10")}
