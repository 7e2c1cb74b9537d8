# SPDX-License-Identifier: GPL-2.0-only
"""What the captures must show when something happens: to a NAT, to an agent, to the laptop's clock."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from homeward.diagnostics.captures import PROTOCOL_IPIP, PROTOCOL_UDP, REGISTRATION_PORT, Packet
from homeward.diagnostics.evidence import Stage
from homeward.diagnostics.leaks import is_acceptance, is_agents_acceptance, is_homes_acceptance
from homeward.diagnostics.registrations import IDENTIFICATION_MISMATCH, MN_HA, Message, messages
from homeward.diagnostics.seen import SETTLE, Proof, Seen

_REVOCATION: Final = 7
_CLOSING: Final = 0.5
_HELD_AT_LEAST: Final = 0.5
"""Seconds that one must have watched to say that nothing leaves."""
_TRUSTED: Final = (is_acceptance, is_agents_acceptance, is_homes_acceptance)


def only_in_udp(seen: Seen, stage: Stage) -> Proof:
    """R-48, R-229: past the NAT all data travels as MIP Tunnel Data, both ways, and nothing as IP-in-IP."""
    claim = "behind the NAT all data travels in UDP, by the port that registered"
    agent, home = seen.evidence.home_agent, seen.evidence.home_address
    ports: set[int] = set()
    carried = {"up": 0, "down": 0}
    tunnels = astray = 0
    for packet in seen.hop("agent", "inside"):
        if not stage.holds(packet.at) or {packet.source, packet.destination} != {stage.nat, agent}:
            continue
        tunnels += packet.protocol == PROTOCOL_IPIP
        inner, up = packet.in_udp(), packet.destination == agent
        port = packet.source_port if up else packet.destination_port
        if inner is None:
            # A request makes its port the tunnel's.
            ports |= {port} if up and packet.protocol == PROTOCOL_UDP else set()
            continue
        carried["up" if up else "down"] += home in (inner.source, inner.destination)
        astray += not up and port not in ports and stage.moved
    return Proof(
        stage.name,
        claim,
        min(carried.values()) > 0 and tunnels == astray == 0,
        f"{carried['up']} up and {carried['down']} down in UDP, {tunnels} in IP-in-IP, {astray} to another port",
    )


def rebound(seen: Seen, stage: Stage) -> Proof:
    """R-238: the NAT has forgotten; a new registration by its new port, and data by that one and no other."""
    claim = "the NAT's new port is registered, and data goes by it"
    agent = seen.evidence.home_agent
    at_agent = seen.hop("agent", "inside")
    before = [each for each in _requests(at_agent, stage.nat) if each.at < stage.begin]
    after = [each for each in _requests(at_agent, stage.nat) if stage.holds(each.at)]
    new = [each for each in after if before and each.packet.source_port != before[-1].packet.source_port]
    accepted = [
        each
        for each in messages(p for p in at_agent if stage.holds(p.at) and p.source == agent)
        if each.accepts and any(each.packet.destination_port == one.packet.source_port for one in new)
    ]
    if not accepted:
        return Proof(
            stage.name, claim, False, f"{len(after)} requests, {len(new)} by a new port, none accepted"
        )
    port, since = accepted[-1].packet.destination_port, accepted[-1].at
    by_new = by_old = 0
    for packet in at_agent:
        if since + SETTLE <= packet.at < stage.end and packet.in_udp() is not None:
            by_new += packet.destination == stage.nat and packet.destination_port == port
            by_old += packet.destination == stage.nat and packet.destination_port != port
    return Proof(
        stage.name,
        claim,
        by_new > 0 and by_old == 0,
        f"registered anew {accepted[0].at - stage.begin:.1f} s after the NAT forgot, {by_new} packets by the new port",
    )


def _requests(packets: list[Packet], source: str) -> list[Message]:
    return [each for each in messages(p for p in packets if p.source == source) if each.is_request]


def held(seen: Seen, stage: Stage) -> Proof:
    """R-67: when the last proof has run out, and where there is none, no packet of the home address leaves at all."""
    proofs = [
        packet.at
        for packet in seen.in_stay(stage)
        if any(each(seen.evidence, stage, packet) for each in _TRUSTED)
    ]
    closed = proofs[-1] + stage.monitor + _CLOSING if proofs else stage.begin
    if "FindNothing" in stage.incidents:
        closed = _revoked(seen, stage)
    closed = max(closed, stage.begin)
    left = seen.count(
        (p for p in seen.on_link(stage, closed) if seen.is_sent(p)),
        lambda packet: seen.evidence.home_address in _within(packet),
    )
    watched = stage.end - closed
    return Proof(
        stage.name,
        "without a proof that is fresh, nothing of the home address leaves",
        left == 0 and watched >= _HELD_AT_LEAST,
        f"{left} packets in the last {watched:.1f} s",
    )


def _revoked(seen: Seen, stage: Stage) -> float:
    """When the home agent's word that the registration has ended had time to be obeyed (RFC 3543); else never."""
    agent = seen.evidence.home_agent
    told = [
        packet.at
        for packet in seen.on_link(stage)
        if packet.source == agent
        and packet.protocol == PROTOCOL_UDP
        and REGISTRATION_PORT in packet.ports
        and packet.udp_payload[:1] == bytes((_REVOCATION,))
    ]
    return told[0] + SETTLE if told else stage.end


def _within(packet: Packet) -> tuple[str, ...]:
    """The addresses of a packet that carries data, and of the one inside it."""
    inner = packet.inner() or packet.in_udp()
    return (packet.source, packet.destination) if inner is None else (inner.source, inner.destination)


def denied(seen: Seen, stage: Stage) -> Proof:
    """The home agent says no, signed, and nothing is accepted."""
    replies = [each for each in seen.said(stage) if not each.is_request]
    no = [each for each in replies if not each.accepts and MN_HA in each.extensions]
    yes = [each for each in replies if each.accepts]
    codes = sorted({each.code for each in no})
    return Proof(
        stage.name,
        "the home agent denies, and signs it",
        bool(no) and not yes,
        f"{len(no)} denials, code {', '.join(map(str, codes)) or 'none'}, {len(yes)} acceptances",
    )


def proved_again(seen: Seen, stage: Stage) -> Proof:
    """R-56, R-66: inside, the proof is asked for again before it is too old."""
    accepted = [
        packet.at
        for packet in seen.on_link(stage)
        if any(is_it(seen.evidence, stage, packet) for is_it in _TRUSTED)
    ]
    longest = max(
        (later - earlier for earlier, later in pairwise([*accepted, stage.end])), default=stage.monitor + 1
    )
    return Proof(
        stage.name,
        f"the home agent vouches for the network anew at least every {stage.monitor:g} s",
        longest <= stage.monitor,
        f"{len(accepted)} times, at most {longest:.1f} s apart",
    )


def resynchronised(seen: Seen, stage: Stage) -> Proof:
    """R-156, R-174: the home agent's 133 tells the time, and a request that follows is accepted."""
    replies = [each for each in seen.said(stage) if not each.is_request]
    told = [each.at for each in replies if each.code == IDENTIFICATION_MISMATCH and MN_HA in each.extensions]
    accepted = [each.at for each in replies if each.accepts and told and each.at > told[0]]
    return Proof(
        stage.name,
        "the home agent tells its time by code 133, and then accepts",
        bool(accepted),
        f"{len(told)} times code 133"
        + (
            f", accepted {(accepted[0] - told[0]) * 1000:.0f} ms after the first"
            if accepted
            else ", never accepted"
        ),
    )


def never_undercut(seen: Seen, stage: Stage) -> Proof:
    """R-172, R-174: after one Identification was accepted no request carries that one or a lower one."""
    highest, undercut, accepted = 0, 0, 0
    for each in messages(seen.hop("agent", "inside")):
        if each.is_request:
            undercut += each.identification <= highest
        elif each.accepts:
            accepted += 1
            highest = max(highest, each.identification)
    return Proof(
        stage.name,
        "until here no request undercuts an Identification that was accepted",
        accepted > 0 and undercut == 0,
        f"{accepted} accepted, {undercut} undercut",
    )


def prove_incidents(seen: Seen, stage: Stage) -> Iterator[Proof]:
    """The claims that what happened in a stage calls for."""
    if "DenyAll" in stage.incidents:
        yield denied(seen, stage)
    if "RebindWhileIdle" in stage.incidents:
        yield rebound(seen, stage)
    if "SetClock" in stage.incidents:
        yield resynchronised(seen, stage)
        yield never_undercut(seen, stage)
    if stage.mode == "none":
        yield held(seen, stage)
