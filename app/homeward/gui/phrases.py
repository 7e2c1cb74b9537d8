# SPDX-License-Identifier: GPL-2.0-or-later
"""The tray's sentences: values of the snapshot in plain words, one line each."""

import math
from typing import Final, assert_never

from homeward.model.access import AccessMode
from homeward.model.status import (
    Blocked,
    ClientState,
    OtherLink,
    Proof,
    SecretNeeded,
    StatusSnapshot,
    Trust,
)
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.vpn import VpnState

INFINITE_LIFETIME: Final = 0xFFFF

STATES: Final = {
    ClientState.DISCONNECTED: "Disconnected",
    ClientState.WAITING_FOR_SECRET: "Waiting for you",
    ClientState.NO_NETWORK: "No network",
    ClientState.DETECTING: "Finding out where we are",
    ClientState.REGISTERING: "Registering with the home agent",
    ClientState.TRUSTED_C: "Trusted network, direct",
    ClientState.TRUSTED_F: "Trusted network, through a foreign agent",
    ClientState.HOME: "At home",
    ClientState.OUTSIDE_MC: "Foreign network, protected by the VPN",
    ClientState.BLOCKED: "Traffic is held",
}

SERVICES: Final = {
    "looking": "asking the service…",
    "absent": "not running; start it with: systemctl start homewardd",
    "refused": "it talks only to root and to the user of the active local session; switch to that session",
    "running": "running; it has not reported yet",
}
"""By the value of view_model.Service."""

PHASES: Final = {
    "link": "new link",
    "probe": "asked",
    "gateway": "VPN answered",
    "verdict": "verdict",
    "registered": "registered",
    "open": "open",
}
"""By the names of core/roam_log."""

_OTHER_LINKS: Final = {
    Trust.UNKNOWN: "not asked yet",
    Trust.TRUSTED: "a trusted network",
    Trust.UNTRUSTED: "no trusted network",
}

_ALGORITHMS: Final = {"hmac-md5": "HMAC-MD5", "hmac-sha256": "HMAC-SHA-256"}


def one_line(text: str, *, limit: int) -> str:
    """The text without line breaks and control characters, at most `limit` characters long."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def duration(seconds: float) -> str:
    """Whole seconds as m:ss, or h:mm:ss from one hour on; rounded up, so that 0:00 means over."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = max(0, math.ceil(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    return f"{hours}:{minutes_of_hour:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def milliseconds(seconds: float) -> str:
    """A short time in whole milliseconds; under ten with one decimal place."""
    value = 1000 * seconds
    if not math.isfinite(value):
        return "unknown"
    return f"{value:.1f} ms" if 0 < value < 10 else f"{value:.0f} ms"


def mode(snapshot: StatusSnapshot) -> str:
    """How the home address is reached, and over which link."""
    where = f", on {snapshot.access_link}" if snapshot.access_link else ""
    agent = snapshot.foreign_agent
    match snapshot.mode:
        case AccessMode.HOME:
            return f"At home, no tunnel{where}"
        case AccessMode.C:
            relayed = f", registered through the foreign agent {agent}" if agent is not None else ""
            return f"Trusted network, direct (c){where}{relayed}"
        case AccessMode.F:
            which = f"the foreign agent {agent}" if agent is not None else "a foreign agent"
            return f"Trusted network, through {which} (f){where}"
        case AccessMode.MC:
            return f"Foreign network, Mobile IP inside the VPN (mc){where}"
        case AccessMode.NONE:
            return f"{STATES[snapshot.state]}{where}"
        case _:
            assert_never(snapshot.mode)


def trust(snapshot: StatusSnapshot) -> str:
    """The verdict with its proof."""
    proof = snapshot.proof
    match snapshot.trust:
        case Trust.UNKNOWN:
            return _sentence("Not decided", proof.text if proof else "")
        case Trust.UNTRUSTED:
            return _sentence("Not trusted", proof.text if proof else "")
        case Trust.TRUSTED:
            return _proved(proof) if proof else "Trusted"
        case _:
            assert_never(snapshot.trust)


def other_link(other: OtherLink) -> str:
    """A link that does not carry the home address, and what a probe said of it."""
    where = f"{other.name} ({other.address})" if other.address is not None else other.name
    return f"{where}: {_OTHER_LINKS[other.trust]}"


def _sentence(verdict: str, text: str) -> str:
    if not text:
        return verdict
    return text if text.startswith(verdict) else f"{verdict}: {text}"


def _proved(proof: Proof) -> str:
    if proof.home_agent is None or proof.spi is None or proof.round_trip is None:
        return _sentence("Trusted", proof.text)
    algorithm = _ALGORITHMS.get(proof.algorithm, proof.algorithm)
    signed = f"signed with key {proof.spi:#x}" + (f" ({algorithm})" if algorithm else "")
    return (
        f"Trusted: home agent {proof.home_agent} answered in {milliseconds(proof.round_trip)}, {signed},"
        " network listed as trusted"
    )


def home_address(snapshot: StatusSnapshot) -> str:
    """The address that stays."""
    if snapshot.home_address is not None:
        return str(snapshot.home_address)
    return "the home agent has not assigned one yet" if snapshot.profile else "unknown"


def care_of_address(snapshot: StatusSnapshot) -> str:
    """The address under which the home agent reaches us now, and what kind it is."""
    if snapshot.mode is AccessMode.HOME:
        return "none, this is the home link"
    if snapshot.care_of_address is None:
        if snapshot.access_address is not None:
            return f"none yet (this network gave {snapshot.access_address})"
        return "none"
    if snapshot.mode is AccessMode.MC:
        outer = f", outside {snapshot.access_address}" if snapshot.access_address is not None else ""
        return f"{snapshot.care_of_address} (inner address of the VPN{outer})"
    if snapshot.mode is AccessMode.F:
        agent = f" {snapshot.foreign_agent}" if snapshot.foreign_agent is not None else ""
        return f"{snapshot.care_of_address} (of the foreign agent{agent})"
    return str(snapshot.care_of_address)


def binding(snapshot: StatusSnapshot, now: float) -> str:
    """How long the home agent still keeps the binding; `now` on the clock of the snapshot's deadlines."""
    if snapshot.mode is AccessMode.HOME:
        return "none, as nothing is bound at home"
    if snapshot.lifetime == INFINITE_LIFETIME:
        return "stands, without end"
    if snapshot.binding_expires is None:
        return "none"
    left = snapshot.binding_expires - now
    if not left > 0:
        return "expired, being renewed"
    granted = f" of {duration(snapshot.lifetime)}" if snapshot.lifetime else ""
    return f"{duration(left)} left{granted}"


def tunnel(snapshot: StatusSnapshot) -> str:
    """How the Mobile IP tunnel travels where it is not the usual one; empty otherwise."""
    if not snapshot.udp_tunnel:
        return ""
    return "in UDP, as an address translator is on the way or the profile asks for it"


def engine(snapshot: StatusSnapshot) -> str:
    """What carries the packets; empty while none are."""
    match snapshot.engine:
        case TunnelEngine.IPIP:
            return "the kernel's tunnel device (ipip)"
        case TunnelEngine.BPF:
            return "programs in the kernel (bpf)"
        case TunnelEngine.TUN:
            return "the service itself, packet by packet (tun)"
        case None:
            return ""
        case _:
            assert_never(snapshot.engine)


def said_by_home_agent(snapshot: StatusSnapshot) -> str:
    """The home agent's own words, in quotes since they are somebody else's (RFC 4917); empty where it said nothing."""
    words = one_line(snapshot.message, limit=200)
    return f"“{words}”" if words else ""


def vpn(snapshot: StatusSnapshot) -> str:
    """What the IKE engine reports."""
    gateway = f" to {snapshot.vpn_gateway}" if snapshot.vpn_gateway else ""
    cause = f": {snapshot.vpn_cause}" if snapshot.vpn_cause else ""
    match snapshot.vpn:
        case VpnState.DOWN:
            return f"down{cause}"
        case VpnState.CONNECTING:
            return f"connecting{gateway}{cause}"
        case VpnState.UP:
            return f"up{_vpn_details(snapshot)}"
        case VpnState.MOVING:
            return f"moving{gateway}, waiting for the gateway's answer"
        case VpnState.WAITING:
            return f"failed{gateway}{cause}; tries go on"
        case VpnState.NO_ENGINE:
            return f"the IKE service does not answer{cause}"
        case _:
            assert_never(snapshot.vpn)


def _vpn_details(snapshot: StatusSnapshot) -> str:
    gateway = f", gateway {snapshot.vpn_gateway}" if snapshot.vpn_gateway else ""
    inner = f", inner address {snapshot.vpn_inner_address}" if snapshot.vpn_inner_address is not None else ""
    match snapshot.vpn_mobike:
        case True:
            return f"{gateway}{inner}, moves along (MOBIKE)"
        case False:
            return f"{gateway}{inner}, cannot move (no MOBIKE)"
        case None:
            return gateway + inner


def blocked(block: Blocked) -> str:
    """Why nothing passes and whether that really holds."""
    fence = (
        "no program's data leaves this machine meanwhile"
        if block.fence_holds
        else "but the fence does NOT hold, traffic may leave unprotected"
    )
    return f"{block.cause or 'no cause given'}; {fence}"


def held(snapshot: StatusSnapshot) -> str:
    """What waits for the verdict."""
    dropped = f", {snapshot.dropped_packets} dropped" if snapshot.dropped_packets else ""
    return f"{snapshot.held_packets}{dropped}"


def secret_needed(needed: SecretNeeded) -> str:
    """Which secret, for what and whose."""
    purpose = f" for {needed.purpose}" if needed.purpose else ""
    owner = f", owner {needed.owner}" if needed.owner else ""
    return f"secret “{needed.reference}”{purpose}{owner}"
