# SPDX-License-Identifier: GPL-2.0-or-later
"""A foreign agent revokes a binding (RFC 3543 section 4.2.3.2): whether to believe it, and what to answer."""

from collections.abc import Sequence
from ipaddress import IPv4Address

from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.agents.bindings import Binding
from homeward.agents.policy import ForeignAgentPeer
from homeward.model.revocation import RevocationAcknowledgment
from homeward.wire import authenticator, revocation
from homeward.wire.decoded import DecodedRevocation
from homeward.wire.extensions import ExtensionType
from homeward.wire.identification import is_later

_FOREIGN_HOME = ExtensionType.FOREIGN_HOME_AUTHENTICATION


class Releases:
    """Remembers, for each home address, which revocation ended its binding: it may be repeated, its answer lost."""

    def __init__(self, address: IPv4Address) -> None:
        self._address = address
        self._last: dict[IPv4Address, tuple[IPv4Address, int]] = {}

    def prover(
        self, decoded: DecodedRevocation, peers: Sequence[ForeignAgentPeer]
    ) -> ForeignAgentPeer | None:
        """The foreign agent that made these octets, None if none of them did."""
        fits = (
            each
            for each in peers
            if authenticator.verify(decoded.octets, decoded, each.association, by=_FOREIGN_HOME)
        )
        return next(fits, None)

    def fault(self, decoded: DecodedRevocation, binding: Binding | None) -> str | None:
        """Why an authentic revocation is dropped all the same, None if it ends the binding or has ended it before."""
        message = decoded.message
        if message.by_home_agent:
            return "it comes from a home agent, or is our own one thrown back"
        if message.home_domain != self._address:
            return f"it is meant for home agent {message.home_domain}"
        if self.is_repeated(decoded):
            return None
        if binding is None or binding.care_of_address != message.foreign_domain:
            return f"there is no binding of {message.home_address} at {message.foreign_domain}"
        peer = binding.revocation
        if peer is None or not peer.is_foreign_agent:
            return "revocation was not agreed on for that binding"
        if not is_later(message.identifier, peer.heard):
            return "it is older than the binding"
        return None

    def is_repeated(self, decoded: DecodedRevocation) -> bool:
        """Whether it only says again what ended the binding."""
        message = decoded.message
        foreign_domain, identifier = self._last.get(message.home_address, (None, 0))
        if foreign_domain != message.foreign_domain:
            return False
        return message.identifier == identifier or is_later(message.identifier, identifier)

    def note(self, decoded: DecodedRevocation) -> None:
        """This one ended the binding."""
        message = decoded.message
        self._last[message.home_address] = (message.foreign_domain, message.identifier)

    def __bool__(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self._last)

    def forget(self, home_address: IPv4Address) -> None:
        """A new binding stands: only a revocation of that one counts now."""
        if self._last:
            self._last.pop(home_address, None)

    @staticmethod
    def answer(
        arrived: RequestArrived, decoded: DecodedRevocation, by: ForeignAgentPeer, *, inform: bool
    ) -> SendReply:
        """The acknowledgment; the mobile node is to be told where the foreign agent asks whether it is."""
        message = decoded.message
        acknowledgment = RevocationAcknowledgment(
            message.home_address, identifier=message.identifier, inform=message.inform and inform
        )
        octets = revocation.encode(acknowledgment, by.association, by=_FOREIGN_HOME)
        return SendReply(octets, arrived.source, port=arrived.source_port, source=arrived.destination)
