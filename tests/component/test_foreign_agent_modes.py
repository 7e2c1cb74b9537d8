# SPDX-License-Identifier: GPL-2.0-or-later
"""The real foreign agent behind a NAT, with challenges, and as a mere relay for care-of addresses of others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.model.agent import AgentFlags
from homeward.model.registration import RequestFlags, Spi
from homeward.model.relay import AaaAssociation, MobileToForeign
from homeward.model.secret import Secret
from homeward.wire import registration, relay
from homeward.wire.decoded import DecodedReply
from tests.component.foreign_network import (
    HOME,
    KEY,
    NAT,
    PEER,
    SA,
    ForeignNetwork,
    MobileNode,
    T,
    both_agents,
)

pytestmark = pytest.mark.root

BEHIND_NAT = "behind_nat = true\n"
TRUSTS_NAT = f"""trusted_prefixes = ["10.1.0.0/16", "{NAT}/32"]
inside_nats = ["{NAT}"]
nat_keepalive = 10
"""
ALL_SYSTEMS = IPv4Address("224.0.0.1")


@pytest.fixture(scope="module")
def behind_nat() -> Iterator[ForeignNetwork]:
    made = ForeignNetwork(nat=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def network() -> Iterator[ForeignNetwork]:
    made = ForeignNetwork()
    yield made
    made.close()


def ping(network: ForeignNetwork) -> None:
    network.peer.run("ping", "-c2", "-i0.05", "-W1", str(HOME))
    network.node.run("ping", "-c2", "-i0.05", "-W1", "-I", str(HOME), str(PEER))


@pytest.mark.rows("R-242", "R-245")
@pytest.mark.parametrize("flags", [T, T | RequestFlags.GRE], ids=["ip-in-udp", "gre-in-udp"])
def test_behind_a_nat_everything_goes_through_udp(
    behind_nat: ForeignNetwork, tmp_path: Path, flags: RequestFlags
) -> None:
    node = MobileNode(behind_nat.node)
    with both_agents(behind_nat, tmp_path, home=TRUSTS_NAT, foreign=BEHIND_NAT) as (_, foreign):
        advertised = node.advertisement(to=ALL_SYSTEMS)
        assert advertised is not None
        assert AgentFlags.UDP_TUNNEL in advertised.flags
        reply = node.register(flags=flags)
        assert (reply.code, reply.trusted_networks_configured) == (0, True)
        assert reply.lifetime <= 60
        assert reply.udp_tunnel is None, "the answer to us is not the mobile node's (R-292)"
        (visitor,) = foreign.dump()["visitors"]
        assert visitor["udp"]
        ear = _Protocols(behind_nat)
        ping(behind_nat)
        assert ear.seen() == {17}
        behind_nat.node.run("ping", "-c1", "-W1", "-Mdont", "-s3000", "-I", str(HOME), str(PEER))
        node.drain()
        node.ask(node.octets(node.request(flags=RequestFlags(0))), station=b"\x02\0\0\0\0\x44")
        denied = node.answer()
        assert denied is not None
        assert denied.message.code == 75
    node.close()


class _Protocols:
    """The protocols of what the home agent and the foreign agent's NAT send each other."""

    def __init__(self, network: ForeignNetwork) -> None:
        from tests.component.test_foreign_agent import Ear

        self._ear = Ear(network.home, "inside")
        self._ear.frames(0)

    def seen(self) -> set[int]:
        frames = self._ear.frames(0)
        self._ear.close()
        ends = {NAT.packed, IPv4Address("10.0.0.2").packed}
        return {
            each[23] for each in frames if each[12:14] == b"\x08\x00" and {each[26:30], each[30:34]} == ends
        }


@pytest.mark.slow
@pytest.mark.rows("R-236", "R-237")
def test_an_idle_udp_tunnel_is_kept_alive_through_the_nat(behind_nat: ForeignNetwork, tmp_path: Path) -> None:
    node = MobileNode(behind_nat.node)
    with both_agents(behind_nat, tmp_path, home=TRUSTS_NAT, foreign=BEHIND_NAT) as (_, foreign):
        assert node.register().code == 0
        time.sleep(11)
        assert foreign.counter("keepalives-answered") == 1
        assert (
            node.heard(lambda _, packet: True if packet[9] == 1 and packet[20] == 0 else None, wait=0.1)
            is None
        )
    node.close()


@pytest.mark.slow
@pytest.mark.rows("R-276")
def test_challenges_are_answered_and_renewed(network: ForeignNetwork, tmp_path: Path) -> None:
    tables = f"""[[mobile_node_aaa]]
home_address = "{HOME}"
spi = 0x400
key_file = "laptop.key"
"""
    server = AaaAssociation(Spi(0x400), key=Secret(KEY))
    node = MobileNode(network.node)

    def ask(challenge: bytes | None) -> DecodedReply:
        node.drain()
        bare = registration.encode_request(node.request(), SA)
        part = MobileToForeign(challenge=challenge)
        node.ask(relay.tell_foreign_agent(bare, part, aaa=None if challenge is None else server))
        reply = node.answer()
        assert reply is not None
        return reply

    with both_agents(network, tmp_path, foreign="challenge = true", foreign_tables=tables):
        advertised = node.advertisement(to=ALL_SYSTEMS)
        assert advertised is not None
        assert advertised.challenge is not None
        missing = ask(None)
        assert missing.message.code == 105
        first = relay.read_from_foreign_agent(missing).challenge
        accepted = ask(first)
        assert accepted.message.code == 0
        second = relay.read_from_foreign_agent(accepted).challenge
        assert second not in (None, first)
        time.sleep(1.1)  # one denial a second
        stale = ask(first)
        assert stale.message.code in (104, 106)
        assert ask(relay.read_from_foreign_agent(stale).challenge).message.code == 0
        ping(network)
    node.close()


def test_a_care_of_address_of_its_own_is_relayed_and_its_packets_are_not_ours(
    network: ForeignNetwork, tmp_path: Path
) -> None:
    own = IPv4Address("10.1.3.50")
    node = MobileNode(network.node)
    with both_agents(network, tmp_path, foreign="registration_required = true") as (home, foreign):
        advertised = node.advertisement(to=ALL_SYSTEMS)
        assert advertised is not None
        assert AgentFlags.REGISTRATION_REQUIRED in advertised.flags
        reply = node.register(flags=T | RequestFlags.DECAPSULATE_SELF, care_of_address=own)
        assert reply.code == 0
        (binding,) = home.dump()["bindings"]
        assert (binding["care_of_address"], binding["co_located"]) == (str(own), True)
        assert foreign.dump()["visitors"] == []
    node.close()
