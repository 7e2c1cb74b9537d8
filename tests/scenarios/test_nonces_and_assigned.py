# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile may agree on with its home agent besides the usual: nonces, and a home address that is assigned."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.home_agent import HomeAgent
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.policy import AgentPolicy, Node
from homeward.model.access import AccessMode
from homeward.model.effects import SaveIdentification
from homeward.model.inputs import LinksObserved
from homeward.model.instant import Instant
from homeward.model.plan import Held
from homeward.model.profile import ASSIGNED, Profile, ReplayStyle
from homeward.model.registration import ReplyCode
from homeward.model.status import Trust
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedRequest
from homeward.wire.identification import high32, low32
from tests.scenarios.simulation import (
    GATEWAY,
    HOME_ADDRESS,
    HOME_AGENT,
    World,
    association,
    make_profile,
    signed_again,
)
from tests.scenarios.test_two_links import OFFICE_WIRELESS, deliver_side_probe

POOL = IPv4Network("10.77.0.128/28")
NAI = "laptop@example.test"


def profile_with(*, gateway: str | None = str(GATEWAY), **changes: object) -> Profile:
    profile = make_profile(gateway=gateway)
    return replace(profile, home_agent=replace(profile.home_agent, **changes))  # type: ignore[arg-type]


@dataclass
class AgreedWorld(World):
    """The home agent agrees with the profile about nonces and about who gets his home address assigned."""

    def new_agent(self) -> HomeAgent:
        trusted = TrustedNetworks(
            frozenset({"inside"}), tuple(IPv4Network(prefix) for prefix in self.agent_prefixes)
        )
        settings = self.profile.home_agent
        own = settings.home_address != ASSIGNED
        node = Node(
            "laptop",
            HOME_ADDRESS if own else None,
            association(),
            nai=settings.nai,
            home_addresses=None if own else POOL,
            replay=settings.replay,
        )
        started = Instant(self.now, self.wall() - 1000.0)
        return HomeAgent(
            AgentPolicy(HOME_AGENT, trusted, nodes=(node,)),
            started=started,
            entropy=lambda: self.random.getrandbits(32),
        )

    def requests(self) -> list[DecodedRequest]:
        found = [codec.decode(effect.octets) for _, effect in self.sent]
        return [one for one in found if isinstance(one, DecodedRequest)]


@pytest.mark.rows("R-176", "R-156")
def test_nonces_cost_one_refusal_at_first_and_none_later() -> None:
    world = AgreedWorld(profile_with(gateway=None, replay=ReplayStyle.NONCES))
    world.plug("trust1")
    world.run(2)
    assert world.mode() is AccessMode.C
    assert len(world.requests()) == 2
    world.run(600)
    identifications = [one.message.identification for one in world.requests()]
    assert len(identifications) > 10, "T_MONITOR asks again and again"
    assert world.mode() is AccessMode.C
    lows, highs = [low32(one) for one in identifications], [high32(one) for one in identifications]
    assert len(set(lows)) == len(lows)
    assert len(set(highs)) == len(highs)
    assert "clock-differs" not in {item.code for item in world.status().health}


@pytest.mark.rows("R-176")
def test_nonces_carry_from_network_to_network_and_through_the_vpn() -> None:
    world = AgreedWorld(profile_with(replay=ReplayStyle.NONCES))
    for place, mode in (("trust1", AccessMode.C), ("ext1", AccessMode.MC), ("trust2", AccessMode.C)) * 3:
        world.plug(place)
        world.run(20)
        assert world.mode() is mode, place


@pytest.mark.rows("R-162", "R-176")
def test_with_nonces_the_same_packet_is_sent_again() -> None:
    world = AgreedWorld(profile_with(gateway=None, replay=ReplayStyle.NONCES))
    world.drop = lambda direction: direction == "reply"
    world.plug("trust1")
    world.run(4)
    octets = [effect.octets for _, effect in world.sent]
    assert len(octets) >= 3
    assert len(set(octets)) == 1


@pytest.mark.rows("R-176")
def test_the_nonce_is_remembered_over_a_restart() -> None:
    world = AgreedWorld(profile_with(replay=ReplayStyle.NONCES))
    world.plug("trust1")
    world.run(2)
    saved = [effect for _, effect in world.effects if isinstance(effect, SaveIdentification)][-1]
    answered = world.requests()[-1].message.identification
    assert low32(saved.last) == low32(answered)  # type: ignore[arg-type]


@pytest.mark.rows("R-176")
def test_a_denial_on_another_link_uses_the_nonce_up_as_well() -> None:
    world = AgreedWorld(profile_with(gateway=None, replay=ReplayStyle.NONCES))
    world.plug("trust1")
    world.run(2)
    world.feed(LinksObserved((*world._links(), OFFICE_WIRELESS)))
    denials = []

    def denied(octets: bytes) -> bytes:
        denials.append(signed_again(octets, code=ReplyCode.ADMINISTRATIVELY_PROHIBITED))
        return denials[0]

    deliver_side_probe(world, "10.1.2.77", altered=denied)
    assert [link.trust for link in world.status().other_links] == [Trust.UNTRUSTED]
    (denial,) = [codec.decode(octets).message for octets in denials]
    asked = len(world.requests())
    world.run(60)
    following = world.requests()[asked].message
    assert high32(following.identification) == high32(denial.identification)


@pytest.mark.rows("R-274")
def test_an_assigned_home_address_is_adopted_and_nothing_flows_before() -> None:
    world = AgreedWorld(profile_with(home_address=ASSIGNED, nai=NAI))
    world.plug("trust1")
    assert world.status().home_address is None
    assert all(isinstance(plan.traffic, Held) for _, plan in world.plans)
    world.run(2)
    address = world.status().home_address
    assert address is not None
    assert address in POOL
    assert world.mode() is AccessMode.C
    assert world.requests()[0].message.home_address == IPv4Address("0.0.0.0")
    assert world.requests()[0].message.nai == NAI
    opened = [plan for _, plan in world.plans if not isinstance(plan.traffic, Held)]
    assert {plan.home_address for plan in opened} == {address}
    world.plug("ext1")
    world.run(20)
    assert (world.mode(), world.status().home_address) == (AccessMode.MC, address)
    world.plug("trust2")
    world.run(4)
    assert (world.mode(), world.status().home_address) == (AccessMode.C, address)
