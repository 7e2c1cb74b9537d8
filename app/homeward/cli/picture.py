# SPDX-License-Identifier: GPL-2.0-or-later
"""The snapshot in words for a terminal; pure, so that `now` (seconds of CLOCK_BOOTTIME) is a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from homeward.bus.messages import ProfileSummary
from homeward.model.access import AccessMode
from homeward.model.health import HealthItem, Severity
from homeward.model.status import ClientState, StatusSnapshot, Trust
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.vpn import VpnState

STATES: Final = {
    ClientState.DISCONNECTED: "disconnected; this machine's network is as homewardd found it",
    ClientState.WAITING_FOR_SECRET: "waiting for a secret",
    ClientState.NO_NETWORK: "no network; your connections are held until there is one",
    ClientState.DETECTING: "finding out where we are; your connections are held meanwhile",
    ClientState.REGISTERING: "registering with the home agent; your connections are held meanwhile",
    ClientState.TRUSTED_C: "inside, on a trusted network (mode c)",
    ClientState.TRUSTED_F: "inside, through a foreign agent (mode f)",
    ClientState.HOME: "at home, on the home link",
    ClientState.OUTSIDE_MC: "outside, through the VPN (mode mc)",
    ClientState.BLOCKED: "blocked; nothing passes",
}
_TRUST: Final = {
    Trust.UNKNOWN: "not known yet",
    Trust.TRUSTED: "trusted",
    Trust.UNTRUSTED: "not trusted",
}
_VPN: Final = {
    VpnState.DOWN: "down",
    VpnState.CONNECTING: "connecting",
    VpnState.UP: "up",
    VpnState.MOVING: "moving to the new address",
    VpnState.WAITING: "failed, trying again soon",
    VpnState.NO_ENGINE: "the IKE daemon (charon) cannot be reached",
}
_ENGINES: Final = {
    TunnelEngine.IPIP: "the kernel's tunnel device (ipip)",
    TunnelEngine.BPF: "programs in the kernel (bpf)",
    TunnelEngine.TUN: "homewardd itself, packet by packet (tun)",
}
_SIGN: Final = {Severity.INFO: "-", Severity.WARNING: "!", Severity.ALARM: "!!"}
_LABEL_WIDTH: Final = 17
_LONGEST_QUOTE: Final = 200


def status_lines(snapshot: StatusSnapshot, now: float) -> list[str]:
    """The whole picture, one fact a line, and then what is wrong and what to do about it."""
    lines = [_row("Homeward", STATES[snapshot.state])]
    if snapshot.profile:
        lines.append(_row("Profile", snapshot.profile))
    if snapshot.state is not ClientState.DISCONNECTED:
        lines.extend(_connected_rows(snapshot, now))
    trouble = list(_trouble(snapshot))
    return [*lines, "", *trouble] if trouble else lines


def _connected_rows(snapshot: StatusSnapshot, now: float) -> Iterator[str]:
    yield _row("Trust", _trust(snapshot))
    agent = f" at home agent {snapshot.home_agent}" if snapshot.home_agent else ""
    if snapshot.home_address is not None:
        yield _row("Home address", f"{snapshot.home_address}{agent}")
    elif snapshot.profile:
        yield _row("Home address", f"not assigned yet{agent}")
    yield _row("Care-of address", _care_of_address(snapshot))
    link = snapshot.access_link or "none"
    yield _row("Access link", f"{link}, {snapshot.access_address}" if snapshot.access_address else link)
    yield _row("Binding", _binding(snapshot, now))
    if snapshot.udp_tunnel:
        yield _row("Tunnel", "in UDP: an address translator is on the way, or the profile asks for it")
    if snapshot.engine is not None:
        yield _row("Carried by", _ENGINES[snapshot.engine])
    if snapshot.traffic != TrafficCounts():
        yield _row("Carried", _carried(snapshot.traffic))
    if snapshot.message:
        yield _row("Home agent says", f"“{shortened(snapshot.message)}”")
    yield _row("VPN", _vpn(snapshot))
    for other in snapshot.other_links:
        yield _row("Other link", f"{other.name}, {other.address}, {_TRUST[other.trust]}")
    if snapshot.held_packets or snapshot.dropped_packets:
        yield _row(
            "Held traffic", f"{snapshot.held_packets} packets waiting, {snapshot.dropped_packets} dropped"
        )


def _carried(traffic: TrafficCounts) -> str:
    sent = f"{traffic.sent_packets} packets out ({_octets(traffic.sent_octets)})"
    return f"{sent}, {traffic.received_packets} in ({_octets(traffic.received_octets)})"


def _octets(count: int) -> str:
    amount, unit = float(count), "octets"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{count} octets" if unit == "octets" else f"{amount:.1f} {unit}"


def status_line(snapshot: StatusSnapshot | None, now: float) -> str:
    """The picture on one line, for `homeward watch`."""
    if snapshot is None:
        return "homewardd is not running"
    parts = [STATES[snapshot.state].partition(";")[0], _trust(snapshot)]
    if snapshot.care_of_address is not None:
        parts.append(f"care-of {snapshot.care_of_address}")
    if snapshot.foreign_agent is not None:
        parts.append(f"foreign agent {snapshot.foreign_agent}")
    if snapshot.udp_tunnel:
        parts.append("tunnel in UDP")
    if snapshot.binding_expires is not None and snapshot.mode is not AccessMode.HOME:
        parts.append(f"binding {_binding(snapshot, now)}")
    parts.append(f"VPN {_VPN[snapshot.vpn]}")
    return " · ".join(printable(part) for part in parts)


def profile_lines(profiles: Iterable[ProfileSummary]) -> list[str]:
    """One profile a line, with what is wrong with the unusable ones."""
    lines = []
    for profile in profiles:
        if profile.problem:
            name = profile.name or profile.file
            lines.append(_row(name, "cannot be used:"))
            lines.extend(f"  {printable(line)}" for line in profile.problem.splitlines())
        else:
            gateway = f", VPN gateway {profile.gateway}" if profile.gateway else ", no VPN"
            address = "assigned" if profile.home_address is None else profile.home_address
            lines.append(_row(profile.name, f"of {profile.owner}, home address {address}{gateway}"))
    return lines


def duration(seconds: float) -> str:
    """A span of time as people say it: 27 min 12 s."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def printable(text: str) -> str:
    """Text from elsewhere without what would steer the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shortened(text: str) -> str:
    """Somebody else's words, cut where they would fill the screen."""
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


def _row(label: str, text: str) -> str:
    return f"{printable(label):<{_LABEL_WIDTH}} {printable(text)}"


def _trust(snapshot: StatusSnapshot) -> str:
    verdict = _TRUST[snapshot.trust]
    if snapshot.proof is None or not snapshot.proof.text:
        return verdict
    said = snapshot.proof.text
    # The core's sentence names its verdict itself.
    return verdict + said[len(verdict) :] if said.lower().startswith(verdict) else f"{verdict}: {said}"


def _care_of_address(snapshot: StatusSnapshot) -> str:
    if snapshot.mode is AccessMode.HOME:
        return "none, this is the home link"
    if snapshot.foreign_agent is None:
        return str(snapshot.care_of_address or "none")
    how = "of" if snapshot.mode is AccessMode.F else "registered through"
    return f"{snapshot.care_of_address or 'none'}, {how} the foreign agent {snapshot.foreign_agent}"


def _binding(snapshot: StatusSnapshot, now: float) -> str:
    if snapshot.mode is AccessMode.HOME:
        return "none, as nothing is bound at home"
    if snapshot.binding_expires is None:
        return "none"
    left = snapshot.binding_expires - now
    if left <= 0:
        return "expired"
    granted = f" of {duration(snapshot.lifetime)}" if snapshot.lifetime else ""
    return f"{duration(left)} left{granted}"


def _vpn(snapshot: StatusSnapshot) -> str:
    parts = [_VPN[snapshot.vpn]]
    if snapshot.vpn_gateway:
        parts.append(f"gateway {snapshot.vpn_gateway}")
    if snapshot.vpn_inner_address is not None:
        parts.append(f"inner address {snapshot.vpn_inner_address}")
    if snapshot.vpn_mobike is not None:
        parts.append(
            "with MOBIKE" if snapshot.vpn_mobike else "without MOBIKE: it is rebuilt after each move"
        )
    if snapshot.vpn_cause:
        parts.append(snapshot.vpn_cause)
    return ", ".join(parts)


def _trouble(snapshot: StatusSnapshot) -> Iterator[str]:
    if snapshot.blocked is not None:
        holds = (
            "the fence holds" if snapshot.blocked.fence_holds else "the fence does NOT hold, traffic may leak"
        )
        yield from _item(
            "!!" if not snapshot.blocked.fence_holds else "!", f"{snapshot.blocked.cause} ({holds})"
        )
    for needed in snapshot.secrets_needed:
        yield from _item(
            "!",
            f"The secret “{needed.reference}” is missing: {needed.purpose}. It is {needed.owner}'s to supply.",
            "Start homeward-tray, which takes it from the keyring, or run `homeward connect` in a terminal.",
        )
    for item in sorted(snapshot.health, key=_gravest_first):
        yield from _item(_SIGN[item.severity], item.text, item.advice)


def _gravest_first(item: HealthItem) -> int:
    return (Severity.ALARM, Severity.WARNING, Severity.INFO).index(item.severity)


def _item(sign: str, text: str, advice: str = "") -> Iterator[str]:
    yield f"{sign:<2} {printable(text)}"
    if advice:
        yield f"   {printable(advice)}"
