# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running agent can take over of a new configuration, and what it cannot without a new start."""

from __future__ import annotations

from homeward.agentd.foreign_settings import ForeignSettings
from homeward.agentd.settings import AgentSettings


def fixed_in_home_agent(before: AgentSettings, after: AgentSettings) -> tuple[str, ...]:
    """The keys that differ, of those that sockets, devices and routes were made by."""
    pairs = {
        "address": (before.policy.address, after.policy.address),
        "inside_interfaces": (before.policy.networks.interfaces, after.policy.networks.interfaces),
        "encapsulations": (before.policy.encapsulations, after.policy.encapsulations),
        "home_link": (before.policy.home_link, after.policy.home_link),
        "home_network": (before.home_network, after.home_network),
        "advertisement_interval": (before.advertisement_interval, after.advertisement_interval),
        "control": (before.control, after.control),
        "store": (before.store, after.store),
    }
    return tuple(key for key, (old, new) in pairs.items() if old != new)


def fixed_in_foreign_agent(before: ForeignSettings, after: ForeignSettings) -> tuple[str, ...]:
    """The keys that differ, of those that its links, its tunnels and its advertisements were made by."""
    old, new = before.policy, after.policy
    pairs = {
        "care_of_addresses": (old.care_of_addresses, new.care_of_addresses),
        "[[access]]": (old.links, new.links),
        "uplink_interfaces": (before.uplinks, after.uplinks),
        "advertisement_interval": (before.advertisement_interval, after.advertisement_interval),
        "advertise_prefixes": (before.advertise_prefixes, after.advertise_prefixes),
        "registration_required": (old.registration_required, new.registration_required),
        "lifetime_max": (old.lifetime_max, new.lifetime_max),
        "pending_max": (old.pending_max, new.pending_max),
        "encapsulations": (old.encapsulations, new.encapsulations),
        "reverse_tunnels": (old.reverse_tunnelling, new.reverse_tunnelling),
        "behind_nat": (old.behind_nat, new.behind_nat),
        "keepalive": (before.keepalive, after.keepalive),
        "challenge": (old.challenge, new.challenge),
        "revocation": (old.revocation, new.revocation),
        "control": (before.control, after.control),
    }
    return tuple(key for key, (was, wished) in pairs.items() if was != wished)
