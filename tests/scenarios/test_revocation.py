# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent ends a binding (RFC 3543): believed only with its signature, and only once."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.model.access import AccessMode, ClearPath, VpnPath
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import Held
from homeward.model.revocation import RegistrationRevocation, RevocationSupport
from homeward.wire import revocation as codec
from homeward.wire.decoded import DecodedAcknowledgment
from tests.scenarios.simulation import ETHERNET, HOME_ADDRESS, HOME_AGENT, World, association
from tests.scenarios.test_terms import answering

AGREED = 4_000_000_000
REVOCATION = RegistrationRevocation(
    HOME_ADDRESS,
    home_domain=HOME_AGENT,
    foreign_domain=IPv4Address("10.1.1.10"),
    identifier=AGREED + 5,
    by_home_agent=True,
)


def bound(place: str = "trust1") -> World:
    world = World()
    answering(world, revocation_support=RevocationSupport(AGREED))
    world.plug(place)
    world.run(2)
    return world


def revoke(world: World, message: RegistrationRevocation = REVOCATION, *, key: bytes | None = None) -> None:
    octets = codec.encode(message, association(key) if key else association())
    _, last = world.sent[-1]
    path = world.core.registrar.binding.path if world.core.registrar.binding else last.path
    index = ETHERNET if isinstance(path, ClearPath) else 9
    world.feed(DatagramReceived(path, octets, HOME_AGENT, 434, index))


def acknowledgments(world: World) -> list[int]:
    found = []
    for _, effect in world.sent:
        if effect.octets[0] == codec.ACKNOWLEDGMENT_TYPE:
            decoded = codec.decode(effect.octets)
            assert isinstance(decoded, DecodedAcknowledgment)
            found.append(decoded.message.identifier)
    return found


@pytest.mark.rows("R-280")
def test_a_revocation_is_acknowledged_and_holds_traffic_until_a_new_proof() -> None:
    world = bound()
    assert world.mode() is AccessMode.C
    revoke(world)
    assert isinstance(world.plans[-1][1].traffic, Held)
    assert acknowledgments(world) == [AGREED + 5]
    assert any(item.code == "binding-revoked" for item in world.status().health)
    world.run(2)
    assert world.mode() is AccessMode.C


@pytest.mark.rows("R-280")
def test_outside_a_revoked_inner_address_is_registered_anew() -> None:
    world = bound("ext1")
    assert world.mode() is AccessMode.MC
    at = world.now
    revoke(world, replace(REVOCATION, foreign_domain=IPv4Address("10.9.0.5")))
    assert acknowledgments(world) == [AGREED + 5]
    world.run(1)
    assert [each for each, effect in world.sent if each >= at and isinstance(effect.path, VpnPath)]
    assert world.mode() is AccessMode.MC


@pytest.mark.rows("R-280")
@pytest.mark.parametrize(
    "changes",
    [
        {"identifier": AGREED - 1},
        {"by_home_agent": False},
        {"home_address": IPv4Address("10.77.0.11")},
        {"home_domain": IPv4Address("10.0.0.3")},
        {"foreign_domain": IPv4Address("10.1.2.10")},
    ],
    ids=["recorded", "reflected", "home-address", "home-agent", "care-of-address"],
)
def test_a_revocation_that_is_wrong_in_one_thing_changes_nothing(changes: dict[str, object]) -> None:
    world = bound()
    revoke(world, replace(REVOCATION, **changes))  # type: ignore[arg-type]
    assert world.mode() is AccessMode.C
    assert acknowledgments(world) == []


@pytest.mark.rows("R-280")
def test_a_forged_revocation_changes_nothing() -> None:
    world = bound()
    revoke(world, key=bytes(32))
    assert world.mode() is AccessMode.C
    assert acknowledgments(world) == []


@pytest.mark.rows("R-280")
def test_a_revocation_is_obeyed_once() -> None:
    world = bound()
    revoke(world)
    world.run(2)
    assert world.mode() is AccessMode.C
    revoke(world)
    assert world.mode() is AccessMode.C


@pytest.mark.rows("R-280")
def test_without_the_home_agents_agreement_nothing_is_revoked() -> None:
    world = World()
    answering(world, revocation_support=None)
    world.plug("trust1")
    world.run(2)
    revoke(world)
    assert world.mode() is AccessMode.C


@pytest.mark.rows("R-281")
def test_the_mobile_node_itself_never_revokes() -> None:
    world = bound()
    revoke(world)
    world.plug("ext1")
    world.run(100)
    assert all(effect.octets[0] != codec.REVOCATION_TYPE for _, effect in world.sent)
