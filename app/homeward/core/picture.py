# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the snapshot: what the core knows, put into the words and values that people are shown."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final, assert_never

from homeward.core.registration import Accepted
from homeward.model.access import AccessMode, AgentPath, Attachment, HomePath, Path, VpnPath
from homeward.model.instant import Instant
from homeward.model.plan import AtHome, Held, Tunnelled, ViaAgent
from homeward.model.profile import Profile
from homeward.model.registration import AuthenticationAlgorithm
from homeward.model.status import Blocked, ClientState, Proof, StatusSnapshot, Trust
from homeward.model.vpn import VpnState

if TYPE_CHECKING:
    from homeward.core.coordinator import Coordinator

ALGORITHM_NAMES = {
    AuthenticationAlgorithm.HMAC_MD5: "HMAC-MD5",
    AuthenticationAlgorithm.HMAC_SHA256: "HMAC-SHA-256",
    AuthenticationAlgorithm.HMAC_SHA1: "HMAC-SHA-1",
    AuthenticationAlgorithm.KEYED_MD5: "keyed MD5",
    AuthenticationAlgorithm.KEYED_MD5_RFC2002: "keyed MD5 (RFC 2002)",
}


_STATES: Final = {
    AccessMode.HOME: ClientState.HOME,
    AccessMode.C: ClientState.TRUSTED_C,
    AccessMode.F: ClientState.TRUSTED_F,
    AccessMode.MC: ClientState.OUTSIDE_MC,
}


def proof_of(profile: Profile, attachment: Attachment, path: Path, answer: Accepted, at: Instant) -> Proof:
    """The proof that this attachment is inside, in values and in one sentence."""
    agent = profile.home_agent
    algorithm = ALGORITHM_NAMES[agent.algorithm]
    through = f" through foreign agent {path.agent}" if isinstance(path, AgentPath) else ""
    text = (
        f"Trusted: home agent {agent.address} answered{through} in {answer.round_trip * 1000:.0f} ms,"
        f" signed with key 0x{agent.spi:x} ({algorithm}), network listed as trusted"
    )
    return Proof(
        text,
        home_agent=agent.address,
        spi=agent.spi,
        algorithm=algorithm,
        round_trip=answer.round_trip,
        link=attachment.link_name,
        care_of_address=attachment.care_of_address,
        at=at.boot,
    )


def next_revision(snapshot: StatusSnapshot) -> StatusSnapshot:
    """The same picture under the next number."""
    return replace(snapshot, revision=snapshot.revision + 1)


def draw(core: Coordinator, revision: int) -> StatusSnapshot:
    """The whole picture, under the number of the last one."""
    mode = _mode(core)
    state = _state(core, mode)
    binding = core.registrar.binding
    path = binding.path if binding else None
    attachment = core.attachments.current
    verdict = core.boundary.verdict if core.boundary else None
    vpn = core.secure_path
    return StatusSnapshot(
        revision=revision,
        state=state,
        mode=mode,
        trust=verdict.trust if verdict else Trust.UNKNOWN,
        proof=verdict.proof if verdict else None,
        profile=core.profile.name,
        home_address=core.registrar.home_address,
        home_agent=core.profile.home_agent.address,
        care_of_address=_care_of_address(core),
        foreign_agent=path.agent if isinstance(path, AgentPath) else None,
        message=core.message,
        udp_tunnel=binding is not None and binding.udp_tunnel is not None,
        access_link=attachment.link_name if attachment else "",
        access_address=attachment.care_of_address if attachment else None,
        lifetime=binding.lifetime if binding and not isinstance(path, HomePath) else None,
        binding_expires=binding.expires if binding else None,
        vpn=vpn.state if vpn else VpnState.DOWN,
        vpn_gateway=core.profile.gateway.host if core.profile.gateway else "",
        vpn_inner_address=vpn.inner if vpn else None,
        vpn_mobike=vpn.mobike if vpn else None,
        vpn_cause=vpn.cause if vpn else "",
        blocked=Blocked(_why_blocked(core), core.fence_stands) if state is ClientState.BLOCKED else None,
        health=core.health.items,
        other_links=core.other_links.shown,
        roams=core.roams.roams,
    )


def _mode(core: Coordinator) -> AccessMode:
    """The mode in which packets flow at this moment: only what the kernel confirmed."""
    traffic = core.plan.traffic if core.plan is not None else None
    # A plan that changes something else, the fence say, leaves the traffic as it was applied.
    if traffic is None or traffic != core.applied_traffic:
        return AccessMode.NONE
    match traffic:
        case Held():
            return AccessMode.NONE
        case Tunnelled(path):
            return AccessMode.MC if isinstance(path, VpnPath) else AccessMode.C
        case ViaAgent():
            return AccessMode.F
        case AtHome():
            return AccessMode.HOME
        case _:
            assert_never(traffic)


def _care_of_address(core: Coordinator) -> IPv4Address | None:
    binding = core.registrar.binding
    if binding is None or isinstance(binding.path, HomePath):
        return None
    return binding.path.care_of_address


def _state(core: Coordinator, mode: AccessMode) -> ClientState:
    if core.boundary is None:
        return ClientState.NO_NETWORK
    if mode is not AccessMode.NONE:
        return _STATES[mode]
    match core.boundary.verdict.trust:
        case Trust.UNKNOWN:
            return ClientState.DETECTING
        case Trust.TRUSTED:
            return ClientState.REGISTERING
        case Trust.UNTRUSTED:
            return ClientState.REGISTERING if _is_registering(core) else ClientState.BLOCKED


def _is_registering(core: Coordinator) -> bool:
    """Outside with the VPN up, and the home agent not given up yet."""
    if core.secure_path is None or core.secure_path.state is not VpnState.UP:
        return False
    return core.registrar.retry_tunnel_at is None


def _why_blocked(core: Coordinator) -> str:
    vpn = core.secure_path
    if vpn is None:
        return "Outside, and the profile names no VPN gateway"
    match vpn.state:
        case VpnState.NO_ENGINE:
            return f"Outside, and the IKE service is not there: {vpn.cause}"
        case VpnState.CONNECTING:
            return (
                f"Outside, trying the VPN gateway again after: {vpn.cause}"
                if vpn.cause
                else "Outside, VPN starting"
            )
        case VpnState.WAITING | VpnState.DOWN:
            return f"Outside without VPN: {vpn.cause}" if vpn.cause else "Outside without VPN"
        case VpnState.MOVING:
            return "Outside, waiting for the VPN gateway's answer from the new address"
        case VpnState.UP:
            return "Outside, the VPN is up, but the home agent did not register us through it"
