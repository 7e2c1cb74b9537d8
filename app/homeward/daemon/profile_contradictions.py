# SPDX-License-Identifier: GPL-2.0-or-later
"""What is right key by key in a profile, and wrong together."""

from __future__ import annotations

from collections.abc import Iterator

from homeward.daemon.profile_table import Fault
from homeward.model.encapsulation import Encapsulation
from homeward.model.profile import ASSIGNED, ForeignAgentSettings, ForeignAgentUse, Profile

_SMALLEST_HOME_NETWORK = 30
"""Bits of the longest prefix of a link that has more than one host."""


def contradictions(profile: Profile) -> list[Fault]:
    """All of them, one line for each; empty for a profile that can be used."""
    return [
        *_about_home(profile),
        *_about_timers(profile),
        *_about_gateway(profile),
        *_about_foreign_agents(profile),
    ]


def _about_home(profile: Profile) -> Iterator[Fault]:
    agent = profile.home_agent
    if agent.home_address == agent.address:
        yield f"home_agent.home_address: found {agent.home_address}, which is the home agent's own address"
    if agent.home_address == ASSIGNED and agent.nai is None:
        yield (
            'home_agent.nai: missing; with home_address = "assigned" it is all that tells the home agent who asks: '
            "needed is a network access identifier such as user@example.org"
        )
    network = agent.home_network
    if network is not None:
        if network.prefixlen > _SMALLEST_HOME_NETWORK:
            yield (
                f"home_agent.home_network: found {network}, which no two hosts can share; allowed is the prefix of the "
                "home link, or to leave it out where there is none"
            )
        elif agent.home_address != ASSIGNED and agent.home_address not in network:
            yield (
                f"home_agent.home_network: found {network}, which does not hold the home address {agent.home_address}; "
                "allowed is the prefix of the home link, or to leave it out where there is none"
            )
        elif agent.home_address in (network.network_address, network.broadcast_address):
            yield f"home_agent.home_address: found {agent.home_address}, which no host of {network} can have"
        for avoided in profile.ask_not_on:
            if avoided.overlaps(network):
                yield (
                    f"policy.ask_not_on: found {avoided}, which holds home_agent.home_network {network} or a part of "
                    "it; the home agent must be asked there to know that this is home"
                )
    if profile.force_udp and agent.encapsulation is Encapsulation.MINIMAL:
        yield (
            "home_agent.encapsulation: found “minimal” together with policy.force_udp; a tunnel in UDP carries "
            "“ip-in-ip” or “gre”"
        )


def _about_timers(profile: Profile) -> Iterator[Fault]:
    timers = profile.timers
    if timers.vpn_retry_max < timers.vpn_retry:
        yield (
            f"timers.vpn_retry_max: found {timers.vpn_retry_max:g}; "
            f"allowed is no less than timers.vpn_retry ({timers.vpn_retry:g})"
        )
    if timers.monitor_grace >= timers.monitor:
        yield (
            f"timers.monitor_grace: found {timers.monitor_grace:g}; allowed is less than timers.monitor "
            f"({timers.monitor:g}), or the home agent would be asked without a pause"
        )


def _about_gateway(profile: Profile) -> Iterator[Fault]:
    agent, gateway = profile.home_agent, profile.gateway
    if gateway is None:
        return
    for path, address in (
        ("home_agent.address", agent.address),
        ("home_agent.home_address", agent.home_address),
    ):
        if gateway.host == str(address):
            yield (
                f"vpn.gateway: found {gateway.host}, which is {path} as well; the gateway stands at the edge and the "
                "home agent inside (RFC 5266 section 3): allowed are two different hosts"
            )
    if not any(agent.address in network for network in gateway.remote_networks):
        yield (
            f"vpn.remote_networks: none of the prefixes holds the home agent {agent.address}, "
            "so that it could not be reached through the VPN; add one that does"
        )
    if gateway.pre_shared_key.reference == agent.key.reference:
        yield _same_secret("vpn.pre_shared_key")


def _about_foreign_agents(profile: Profile) -> Iterator[Fault]:
    if profile.foreign_agents and profile.use_foreign_agents is ForeignAgentUse.NEVER:
        yield (
            "policy.use_foreign_agents: found “never” together with keys for foreign agents; allowed is "
            "“when-required” or “prefer”, or to take [[foreign_agent]] and [aaa] out"
        )
    seen = set()
    for number, one in enumerate(profile.foreign_agents, start=1):
        path = "aaa" if one.agent is None else f"foreign_agent[{number}]"
        if one.agent is not None and one.agent in seen:
            yield f"{path}.agent: found {one.agent}, which stands there already; allowed is one key for each agent"
        seen.add(one.agent)
        yield from _about_foreign_agent(profile, one, path)


def _about_foreign_agent(profile: Profile, one: ForeignAgentSettings, path: str) -> Iterator[Fault]:
    agent, gateway = profile.home_agent, profile.gateway
    if one.agent is not None and one.agent in (agent.address, agent.home_address):
        whose = "home agent" if one.agent == agent.address else "home address"
        yield f"{path}.agent: found {one.agent}, which is the {whose}; allowed is a foreign agent's address"
    if one.key.reference == agent.key.reference:
        yield _same_secret(f"{path}.key")
    if gateway is not None and one.key.reference == gateway.pre_shared_key.reference:
        yield (
            f"{path}.key.secret: the same secret as vpn.pre_shared_key.secret; allowed are two different ones, "
            "since whoever runs the foreign agent is not the VPN gateway"
        )


def _same_secret(path: str) -> Fault:
    return (
        f"{path}.secret: the same secret as home_agent.key.secret; allowed are two different ones, "
        "since whoever knows the home agent's key decides what is trusted"
    )
