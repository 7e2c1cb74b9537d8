# SPDX-License-Identifier: GPL-2.0-or-later
"""Revocations that wait for their acknowledgment (RFC 3543 sections 3.5 and 4.2.2.1).

Each transmission has a new identifier, from the clock that the peer was told of when it registered. It is repeated at
growing intervals until it is acknowledged, the binding would have ended anyway, or the peer was told often enough.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from homeward.agents.agent_events import AgentEffect, RevocationEnded, SendRevocation
from homeward.agents.bindings import Binding
from homeward.model.agent_memory import RevocationPeer
from homeward.model.instant import Instant
from homeward.model.registration import MobilitySecurityAssociation
from homeward.model.revocation import RegistrationRevocation
from homeward.wire import authenticator, revocation
from homeward.wire.decoded import DecodedAcknowledgment
from homeward.wire.extensions import ExtensionType
from homeward.wire.identification import is_later, seconds

FIRST_WAIT = 1.0
"""Seconds until the first repetition; each further wait is twice as long."""
MOST_TRIES = 6

_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Pending:
    binding: Binding
    peer: RevocationPeer
    association: MobilitySecurityAssociation
    inform: bool
    identifiers: tuple[int, ...]
    due: float
    wait: float

    @property
    def protection(self) -> ExtensionType:
        """FA-HA towards a foreign agent, MN-HA towards the mobile node itself."""
        if self.peer.is_foreign_agent:
            return ExtensionType.FOREIGN_HOME_AUTHENTICATION
        return ExtensionType.MOBILE_HOME_AUTHENTICATION


class Revocations:
    """What was revoked and is not acknowledged yet."""

    def __init__(self, address: IPv4Address) -> None:
        self._address = address
        self._pending: dict[tuple[IPv4Address, IPv4Address], _Pending] = {}

    def start(
        self,
        binding: Binding,
        at: Instant,
        *,
        association: MobilitySecurityAssociation | None,
        inform: bool,
    ) -> tuple[AgentEffect, ...]:
        """Tell whoever announced support for this binding that it ends; nothing where nobody did.

        `association` is the one shared with them, None where there is none any more. `inform` says whether its foreign
        agent should tell the mobile node, if that was agreed on.
        """
        peer = binding.revocation
        if peer is None or association is None:
            return ()
        # To the mobile node itself the bit means nothing and SHOULD be set (RFC 3543 section 3.3).
        told = inform and peer.inform if peer.is_foreign_agent else True
        first = _Pending(binding, peer, association, told, (peer.announced,), at.boot, FIRST_WAIT)
        return self._send(first, at)

    def __bool__(self) -> bool:
        """Whether anybody is still to be told."""
        return bool(self._pending)

    def drop(self, home_address: IPv4Address, care_of_address: IPv4Address) -> None:
        """That binding stands again: what was said of the one before is not repeated."""
        if self._pending:
            self._pending.pop((home_address, care_of_address), None)

    def acknowledge(self, decoded: DecodedAcknowledgment) -> tuple[AgentEffect, ...] | None:
        """Take an acknowledgment; None for one that is not genuine, or answers nothing that we sent."""
        message = decoded.message
        for key, pending in self._pending.items():
            peer = pending.peer
            if key[0] != message.home_address or message.identifier not in pending.identifiers[1:]:
                continue
            if authenticator.verify(decoded.octets, decoded, pending.association, by=pending.protection):
                del self._pending[key]
                return (RevocationEnded(key[0], peer.address, acknowledged=True),)
        return None

    def repeat(self, at: Instant) -> tuple[AgentEffect, ...]:
        """What is due now."""
        if not self._pending:
            return ()
        effects: list[AgentEffect] = []
        for key, pending in list(self._pending.items()):
            if pending.due > at.boot:
                continue
            expires = pending.binding.expires
            tries = len(pending.identifiers) - 1
            if tries >= MOST_TRIES or (expires is not None and expires <= at.boot):
                del self._pending[key]
                effects.append(RevocationEnded(key[0], pending.peer.address, acknowledged=False))
            else:
                effects += self._send(pending, at)
        return tuple(effects)

    def next_deadline(self) -> float | None:
        """Boot time at which `repeat` has something to do."""
        return min((pending.due for pending in self._pending.values()), default=None)

    def _send(self, pending: _Pending, at: Instant) -> tuple[AgentEffect, ...]:
        binding, peer = pending.binding, pending.peer
        now, last = seconds(at.wall), pending.identifiers[-1]
        identifier = now if is_later(now, last) else (last + 1) & _MASK
        message = RegistrationRevocation(
            binding.home_address,
            home_domain=self._address,
            foreign_domain=binding.care_of_address,
            identifier=identifier,
            by_home_agent=True,
            inform=pending.inform,
        )
        self._pending[binding.home_address, binding.care_of_address] = replace(
            pending,
            identifiers=(*pending.identifiers, identifier),
            due=at.boot + pending.wait,
            wait=2 * pending.wait,
        )
        octets = revocation.encode(message, pending.association, by=pending.protection)
        return (SendRevocation(octets, peer.address, port=peer.port, source=self._address),)
