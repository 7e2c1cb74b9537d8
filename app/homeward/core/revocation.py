# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent ends a binding before its time (RFC 3543). The mobile node never does: it deregisters (R-281)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeward.model.access import ClearPath, VpnPath
from homeward.model.effects import Effect, SendRegistration
from homeward.model.errors import WireError
from homeward.model.health import Severity
from homeward.model.inputs import DatagramReceived
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment
from homeward.wire import authenticator
from homeward.wire import revocation as codec
from homeward.wire.decoded import DecodedRevocation
from homeward.wire.identification import is_later
from homeward.wire.ip_in_ip import TUNNEL_TTL

if TYPE_CHECKING:
    from homeward.core.coordinator import Coordinator


def revoked(core: Coordinator, datagram: DatagramReceived, at: Instant) -> list[Effect]:
    """A Registration Revocation: believed, answered and obeyed, or ignored with the reason (R-280)."""
    message, fault = _read(core, datagram)
    if message is None:
        text = f"A revocation was not believed: {fault}, from {datagram.source}"
        core.health.note("reply-rejected", text, at.boot, severity=Severity.ALARM)
        return []
    answer = RevocationAcknowledgment(
        message.home_address, identifier=message.identifier, inform=message.inform
    )
    octets = codec.encode(answer, core.registrar.peer.association)
    effects: list[Effect] = [SendRegistration(datagram.path, datagram.source, octets, TUNNEL_TTL)]
    binding = core.registrar.binding
    if binding is None or message.identifier == core.registrar.last_revocation:
        return effects  # Said again, since our answer was lost.
    same_side = isinstance(binding.path, VpnPath) == isinstance(datagram.path, VpnPath)
    if not same_side or binding.path.care_of_address != message.foreign_domain:
        return effects  # That binding has gone already.
    core.registrar.last_revocation = message.identifier
    core.health.note("binding-revoked", "The home agent has ended this registration", at.boot)
    core.registrar.binding = core.keepalive = None
    if isinstance(binding.path, VpnPath):
        core.registrar.retry_tunnel_at = None
        core.registrar.tunnel = None
        return effects
    # Inside nothing is proved any more: hold, and ask anew.
    return effects + (core.connectivity_changed(at) if core.attachments.renew() else [])


def _read(core: Coordinator, datagram: DatagramReceived) -> tuple[RegistrationRevocation | None, str]:
    """The revocation, or why it is none."""
    peer, path = core.registrar.peer, datagram.path
    if datagram.source != peer.home_agent or datagram.source_port != REGISTRATION_PORT:
        return None, "it does not come from the home agent"
    if not isinstance(path, ClearPath | VpnPath):
        return None, "only care-of addresses of our own are revoked to us"
    if isinstance(path, ClearPath) and datagram.link_index != path.link_index:
        return None, "it came in by another link"
    try:
        decoded = codec.decode(datagram.octets)
    except WireError as error:
        return None, f"it is malformed ({error})"
    if not isinstance(decoded, DecodedRevocation):
        return None, "it is no revocation"
    if not authenticator.verify(datagram.octets, decoded, peer.association):
        return None, "its signature is missing or wrong"
    message = decoded.message
    if not message.by_home_agent or message.home_domain != peer.home_agent:
        return None, "it is not the home agent's own"
    if message.home_address != peer.home_address or message.foreign_domain != path.care_of_address:
        return None, "it is about other addresses"
    last, floor = core.registrar.last_revocation, core.registrar.revocation_floor
    if floor is None:
        return None, "the home agent has not agreed to revocation"
    if last is not None and is_later(last, floor):
        floor = last
    # The same is one whose acknowledgment was lost.
    if message.identifier != floor and not is_later(message.identifier, floor):
        return None, "it was recorded earlier"
    return message, ""
