# SPDX-License-Identifier: GPL-2.0-or-later
"""Two links at once: what is proved on one says nothing about the other (RFC 5265 section 3.2.1)."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.model.access import AccessMode, ClearPath, Link
from homeward.model.effects import SendRegistration
from homeward.model.inputs import DatagramReceived, LinksObserved
from homeward.model.instant import Instant
from homeward.model.plan import Held, Tunnelled
from homeward.model.registration import RegistrationRequest
from homeward.model.status import OtherLink, Trust
from homeward.wire import registration as codec
from tests.scenarios.simulation import ETHERNET, HOME_AGENT, Network, World, make_profile
from tests.scenarios.test_attacks import reply_to

WIRELESS = Link(
    4,
    "wlan0",
    access=True,
    why="Wi-Fi",
    carrier=True,
    addresses=(IPv4Interface("198.51.100.10/24"),),
    gateway=IPv4Address("198.51.100.1"),
    metric=600,
    carrier_changes=1,
)


def trusted_on_ethernet() -> World:
    """At the desk: Ethernet is proved, and a foreign Wi-Fi comes into range."""
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    world.run(1)
    world.feed(LinksObserved((*world._links(), WIRELESS)))
    world.run(1.5)
    return world


@pytest.mark.rows("R-63")
def test_trust_in_one_link_opens_that_link_alone() -> None:
    world = trusted_on_ethernet()
    assert world.mode() is AccessMode.C
    _, plan = world.plans[-1]
    assert isinstance(plan.traffic, Tunnelled)
    assert isinstance(plan.traffic.path, ClearPath)
    assert plan.traffic.path.link_index == ETHERNET
    assert plan.fence is not None
    assert plan.fence.access_links == ("eth0", "wlan0")
    assert plan.fence.path == plan.traffic.path


@pytest.mark.rows("R-63", "R-64")
def test_the_other_link_begins_without_trust_when_its_turn_comes() -> None:
    world = trusted_on_ethernet()
    at = world.now
    world.feed(LinksObserved((WIRELESS,)))
    assert isinstance(world.plans[-1][1].traffic, Held)
    assert world.status().trust is Trust.UNKNOWN
    (request,) = [sent for when, sent in world.sent if when == at]
    assert request.path == ClearPath(4, "wlan0", IPv4Address("198.51.100.10"))


@pytest.mark.rows("R-63", "R-65")
def test_an_answer_on_one_link_to_a_question_on_the_other_proves_nothing() -> None:
    world = trusted_on_ethernet()
    world.feed(LinksObserved((WIRELESS,)))
    request = world.sent[-1][1]
    genuine = reply_to(request)
    ethernet = ClearPath(ETHERNET, "eth0", IPv4Address("10.1.1.10"))
    for path, index in ((ethernet, ETHERNET), (request.path, ETHERNET)):
        world.feed(DatagramReceived(path, genuine, HOME_AGENT, 434, index))
        assert world.status().trust is Trust.UNKNOWN
    world.place = Network("inside after all", "198.51.100.0/24", inside=True)
    world.feed(DatagramReceived(request.path, genuine, HOME_AGENT, 434, 4))
    assert world.status().trust is Trust.TRUSTED, "the same octets by the right way are a proof"


OFFICE_WIRELESS = replace(
    WIRELESS, addresses=(IPv4Interface("10.1.2.77/24"),), gateway=IPv4Address("10.1.2.1"), carrier_changes=2
)


def deliver_side_probe(
    world: World, source: str, *, altered: Callable[[bytes], bytes] = bytes
) -> SendRegistration:
    """Carry the last request of the wireless link to the home agent and its answer back, as that network would."""
    request = world.sent[-1][1]
    assert request.path == ClearPath(4, "wlan0", IPv4Address(source))
    arrived = RequestArrived(
        request.octets, IPv4Address(source), source_port=4001, destination=HOME_AGENT, interface="inside"
    )
    for answer in world.agent.handle(arrived, Instant(world.now, world.wall())):
        if isinstance(answer, SendReply):
            world.feed(DatagramReceived(request.path, altered(answer.octets), HOME_AGENT, 434, 4))
    return request


def test_another_link_is_probed_without_moving_the_binding_x26() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    world.run(1)
    world.feed(LinksObserved((*world._links(), OFFICE_WIRELESS)))
    request = deliver_side_probe(world, "10.1.2.77")
    message = codec.decode(request.octets).message
    assert isinstance(message, RegistrationRequest)
    assert (message.lifetime, message.care_of_address) == (0, IPv4Address("10.1.2.77"))
    assert world.bound_to() == "10.1.1.10"
    assert world.mode() is AccessMode.C
    assert world.status().other_links == (OtherLink("wlan0", IPv4Address("10.1.2.77"), Trust.TRUSTED),)
    world.run(300)
    assert world.mode() is AccessMode.C
    assert world.bound_to() == "10.1.1.10"


def test_another_link_that_nobody_answers_on_is_untrusted_and_left_in_peace_x26() -> None:
    world = trusted_on_ethernet()
    asked = [at for at, sent in world.sent if isinstance(sent.path, ClearPath) and sent.path.link_index == 4]
    world.run(40)
    all_asked = [
        at for at, sent in world.sent if isinstance(sent.path, ClearPath) and sent.path.link_index == 4
    ]
    assert len(asked) == 2
    assert len(all_asked) == 4
    assert world.status().other_links == (OtherLink("wlan0", IPv4Address("198.51.100.10"), Trust.UNTRUSTED),)
    assert world.mode() is AccessMode.C


def test_a_side_probe_never_ends_the_binding_in_use_x26() -> None:
    """Two networks may lend the same private address: deregistering it on one would cut the other off."""
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    world.run(1)
    twin = replace(OFFICE_WIRELESS, addresses=(IPv4Interface("10.1.1.10/24"),))
    world.feed(LinksObserved((*world._links(), twin)))
    world.run(30)
    assert not [
        sent for _, sent in world.sent if isinstance(sent.path, ClearPath) and sent.path.link_index == 4
    ]
    assert world.bound_to() == "10.1.1.10"


def test_proof_about_another_link_opens_nothing_when_its_turn_comes_x26() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    world.run(1)
    world.feed(LinksObserved((*world._links(), OFFICE_WIRELESS)))
    deliver_side_probe(world, "10.1.2.77")
    world.feed(LinksObserved((OFFICE_WIRELESS,)))
    assert isinstance(world.plans[-1][1].traffic, Held)
    assert world.status().trust is Trust.UNKNOWN
    assert world.status().other_links == ()
