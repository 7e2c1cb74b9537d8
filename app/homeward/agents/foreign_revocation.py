# SPDX-License-Identifier: GPL-2.0-or-later
"""Revocations by home agents, at a foreign agent (RFC 3543 4.2.2.2). It never revokes anything itself."""

from collections import OrderedDict
from ipaddress import IPv4Address
from typing import Final

from homeward.agents.foreign_events import (
    Expel,
    ForeignEffect,
    ForeignFinding,
    HomeAgentSpoke,
    Rejected,
    SendToHomeAgent,
    TellLostVisitor,
    VisitorChange,
    VisitorChanged,
)
from homeward.agents.foreign_rules import ForeignPolicy
from homeward.agents.visitors import VisitorList
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment
from homeward.wire import authenticator, relay, revocation
from homeward.wire.decoded import DecodedRevocation
from homeward.wire.identification import is_later

_MOST_REMEMBERED: Final = 1024


class RevocationIntake:
    """Ends visitors at their home agent's word, and says so again when the acknowledgment got lost."""

    def __init__(self, policy: ForeignPolicy, visitors: VisitorList) -> None:
        self._policy = policy
        self._visitors = visitors
        self._revoked: OrderedDict[tuple[IPv4Address, IPv4Address, IPv4Address], int] = OrderedDict()

    def adopt(self, policy: ForeignPolicy) -> None:
        """Go by another policy from now on."""
        self._policy = policy

    def revoked(self, spoke: HomeAgentSpoke, decoded: DecodedRevocation) -> tuple[ForeignEffect, ...]:
        """What a revocation leads to. The visitor is told, by an advertisement to it alone, and its home agent is told
        that it was."""
        message = decoded.message
        association = self._policy.home_agents.get(message.home_domain)
        if association is None or spoke.source != message.home_domain:
            return _refused(spoke, message, "no association is shared with its sender")
        if not authenticator.verify(decoded.octets, decoded, association, by=relay.FOREIGN_HOME):
            return _refused(spoke, message, "the FA-HA authenticator does not fit the key")
        if not message.by_home_agent:
            return _refused(spoke, message, "it is a foreign agent's, come back")
        key = (message.home_address, message.home_domain, message.foreign_domain)
        visitor = self._visitors.get(message.home_address)
        if visitor is not None and (visitor.home_agent, visitor.care_of_address) != key[1:]:
            visitor = None
        since = self._revoked.get(key) if visitor is None else visitor.revocable_since
        if since is None:
            return _refused(spoke, message, "there is no visitor whose revocation was agreed on")
        if not is_later(message.identifier, since):
            return _refused(spoke, message, "it is older than what it revokes, or was seen before")
        self._remember(key, message.identifier)
        acknowledgment = RevocationAcknowledgment(
            message.home_address, identifier=message.identifier, inform=True
        )
        answer = SendToHomeAgent(
            revocation.encode(acknowledgment, association, by=relay.FOREIGN_HOME),
            spoke.source,
            source=spoke.destination,
            port=spoke.source_port,
        )
        if visitor is None:
            return (answer,)
        self._visitors.remove(visitor.home_address)
        change = VisitorChanged(VisitorChange.REVOKED, visitor)
        return (Expel(visitor), answer, TellLostVisitor(visitor), change)

    def _remember(self, key: tuple[IPv4Address, IPv4Address, IPv4Address], identifier: int) -> None:
        self._revoked[key] = identifier
        self._revoked.move_to_end(key)
        if len(self._revoked) > _MOST_REMEMBERED:
            self._revoked.popitem(last=False)


def _refused(spoke: HomeAgentSpoke, message: RegistrationRevocation, text: str) -> tuple[ForeignEffect, ...]:
    finding = ForeignFinding.BAD_REVOCATION
    return (Rejected(finding, text, source=spoke.source, home_address=message.home_address),)
