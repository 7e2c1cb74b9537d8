# SPDX-License-Identifier: GPL-2.0-or-later
"""What a PlainGrant says, one thing at a time, for whoever cannot take it in one piece."""

from __future__ import annotations

from ipaddress import IPv4Address

from homeward.agents.agent_events import (
    AgentEffect,
    BindingChanged,
    Forward,
    PlainGrant,
    Remember,
    SendReply,
)
from homeward.agents.bindings import Binding, unpack
from homeward.agents.tunnel_records import Record, tunnel_of
from homeward.model.memory_records import decode


def binding_of(grant: PlainGrant) -> Binding:
    """The binding that it made."""
    return unpack(IPv4Address(grant.home_address), grant.binding)


def forward_of(grant: PlainGrant) -> Forward:
    """The tunnel that it leads to."""
    return tunnel_of(grant.home_address, Record(grant.tunnel))


def reply_of(grant: PlainGrant) -> SendReply:
    """The answer to whoever asked."""
    asked = grant.arrived
    return SendReply(grant.reply, asked.source, port=asked.source_port, source=asked.destination)


def spelled_out(effects: tuple[AgentEffect, ...]) -> tuple[AgentEffect, ...]:
    """The same, said without a PlainGrant."""
    match effects:
        case (PlainGrant() as grant,):
            return Remember(decode(*grant.memory)), *consequences(grant)
        case _:
            return effects


def consequences(grant: PlainGrant) -> tuple[Forward, SendReply, BindingChanged]:
    """Everything but what is to be remembered, in the order in which a home agent says it."""
    return forward_of(grant), reply_of(grant), BindingChanged(grant.change, binding_of(grant))
