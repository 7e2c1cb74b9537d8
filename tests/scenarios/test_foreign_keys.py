# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request proves to a foreign agent: its challenge answered, by our key with it or with the server it asks."""

import pytest

from homeward.core.challenges import ForeignKeys
from homeward.core.coordinator import Coordinator
from homeward.model.access import AccessMode
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi
from homeward.model.relay import AaaAssociation
from homeward.model.secret import Secret
from homeward.wire import authenticator, relay
from tests.scenarios.office import AGENT, Agent, Office
from tests.scenarios.simulation import Network, association

WITH_AGENT = MobilitySecurityAssociation(
    Spi(0x200), AuthenticationAlgorithm.HMAC_MD5, key=Secret(bytes(range(16, 32)))
)
WITH_SERVER = AaaAssociation(Spi(0x300), key=Secret(bytes(range(32, 48))))


def office(keys: ForeignKeys) -> Office:
    world = Office()
    world.core = Coordinator(
        world.profile, association(), entropy=lambda: world.random.getrandbits(32), foreign_keys=keys
    )
    world.plug("trust1")
    return world


@pytest.mark.rows("R-145", "R-275", "R-278")
def test_an_advertised_challenge_is_answered_to_the_server_behind_mn_ha() -> None:
    world = office(ForeignKeys(server=WITH_SERVER))
    world.agent_here.challenge = bytes(range(8))
    world.plug("trust3")
    world.run(3)
    request = world.agent_here.requests[0]
    numbers = [int(one.number) for one in request.unauthenticated]
    assert numbers == [132, 36]
    assert relay.read_for_foreign_agent(request).challenge == bytes(range(8))
    assert relay.verify_for_server(request.octets, request, WITH_SERVER)
    assert world.mode() is AccessMode.F


@pytest.mark.rows("R-145", "R-275")
def test_with_a_key_shared_with_the_agent_that_one_signs_last() -> None:
    world = office(ForeignKeys({AGENT: WITH_AGENT}, WITH_SERVER))
    world.agent_here.challenge = bytes(range(8))
    world.plug("trust3")
    world.run(3)
    request = world.agent_here.requests[0]
    assert [int(one.number) for one in request.unauthenticated] == [132, 33]
    assert authenticator.verify(request.octets, request, WITH_AGENT, by=relay.MOBILE_FOREIGN)


@pytest.mark.rows("R-149")
def test_where_a_key_is_shared_an_unsigned_reply_of_the_agent_is_dropped() -> None:
    world = office(ForeignKeys({AGENT: WITH_AGENT}))
    world.plug("trust3")
    world.run(2.5)
    assert world.by_agent()
    assert world.mode() is AccessMode.C
    assert any(item.code == "reply-rejected" for item in world.status().health)


@pytest.mark.rows("R-149")
def test_where_a_key_is_shared_a_signed_reply_counts() -> None:
    world = office(ForeignKeys({AGENT: WITH_AGENT}))
    deliver = world.deliver_by_agent

    def sign(request: object, octets: bytes, place: Network, agent: Agent) -> None:
        signed = authenticator.authenticate(octets, WITH_AGENT, by=relay.MOBILE_FOREIGN)
        deliver(request, signed, place, agent)  # type: ignore[arg-type]

    world.deliver_by_agent = sign  # type: ignore[method-assign]
    world.plug("trust3")
    world.run(3)
    assert world.mode() is AccessMode.F


@pytest.mark.rows("R-276")
@pytest.mark.parametrize("code", [104, 105, 106, 108])
def test_a_refused_challenge_is_followed_by_the_newer_one_and_never_by_an_old_one(code: int) -> None:
    world = office(ForeignKeys(server=WITH_SERVER))
    old, new = bytes(8), bytes(range(8))
    world.agent_here.challenge = old
    world.agent_here.deny = {1: code}
    world.agent_here.reply_challenge = new
    world.plug("trust3")
    world.run(3)
    answered = [relay.read_for_foreign_agent(each).challenge for each in world.agent_here.requests]
    assert answered[:2] == [old, new]
    assert old not in answered[1:]


@pytest.mark.rows("R-275")
def test_without_a_key_a_challenge_is_not_answered_and_we_stay_in_c() -> None:
    world = office(ForeignKeys())
    world.agent_here.challenge = bytes(8)
    world.agent_here.deny = dict.fromkeys(range(1, 9), 105)
    world.plug("trust3")
    world.run(10)
    assert world.mode() is AccessMode.C
    assert all(relay.read_for_foreign_agent(each).challenge is None for each in world.agent_here.requests)


def test_the_same_key_opens_no_other_agent() -> None:
    world = office(ForeignKeys({AGENT + 9: WITH_AGENT}))
    world.plug("trust3")
    world.run(3)
    assert [int(one.number) for one in world.agent_here.requests[0].unauthenticated] == []
