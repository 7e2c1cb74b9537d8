# SPDX-License-Identifier: GPL-2.0-only
"""What the captures of a tour must show, claim by claim, each with the packets that prove it or the lack of them."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from scapy.contrib.ikev2 import IKEv2
from scapy.layers.mobileip import MobileIP, MobileIPRRQ

from homeward.diagnostics.agent_proofs import left_in_time, prove_agent
from homeward.diagnostics.captures import PROTOCOL_UDP, Packet
from homeward.diagnostics.evidence import Evidence, Stage
from homeward.diagnostics.home_proofs import answers_arp, prove_home, taken_over
from homeward.diagnostics.incident_proofs import only_in_udp, prove_incidents, proved_again
from homeward.diagnostics.leaks import (
    goes_to_agent,
    is_acceptance,
    is_agents_acceptance,
    is_homes_acceptance,
    is_tunnelled,
)
from homeward.diagnostics.seen import SETTLE, Proof, Seen

_REGISTRATION: Final = 434
_IKE_SA_INIT: Final = 34
_INFORMATIONAL: Final = 37
_RESPONSE: Final = 0x20
_MOBIKE_WORDS: Final = re.compile(
    r"requesting address change using MOBIKE|sending address list update using MOBIKE"
)
_TIME_OF_DAY: Final = re.compile(r"(\d\d):(\d\d):(\d\d\.\d+) ")


def prove(evidence: Evidence) -> Iterator[Proof]:
    """Check every claim of every stage. FileNotFoundError names the capture that is missing."""
    seen = Seen(evidence)
    legs = (seen.hop("gateway", "dmz"), seen.hop("gateway", "inside"))
    before: Stage | None = None
    for stage in evidence.stages:
        if stage.moved:
            yield probe_in_clear(evidence, stage, link=seen.link, tunnel=seen.hop("laptop", "ipsec0"))
        if stage.inside and stage.mode != "none":
            yield nothing_through_the_gateway(
                evidence, stage, link=seen.link, legs=legs, goes_on=_goes_on(before, stage)
            )
        yield from _of_mode(seen, stage)
        if stage.mobike:
            yield moved_by_mobike(evidence, stage, seen.link)
            yield no_registration(stage, seen.hop("agent", "inside"))
        yield from prove_incidents(seen, stage)
        if "AskForHomeAddress" in stage.incidents:
            yield answers_arp(seen, stage)
        if before is not None and before.mode == "home" and stage.moved:
            yield taken_over(seen, stage)
        if "Kill" in stage.incidents and before is not None and (before.mode, stage.mode) == ("f", "c"):
            yield left_in_time(seen, stage)
        before = stage


def _goes_on(before: Stage | None, stage: Stage) -> bool:
    return before is not None and not stage.moved and before.mode == stage.mode


def _of_mode(seen: Seen, stage: Stage) -> Iterator[Proof]:
    match stage.mode:
        case "mc":
            yield only_tunnelled_in_esp(seen.evidence, stage, seen.hop("laptop", "ipsec0"))
            yield tunnelled_behind_the_gateway(seen.evidence, stage, seen.hop("gateway", "inside"))
        case "c" if stage.nat:
            yield only_in_udp(seen, stage)
        case "c" if stage.moved and stage.end - stage.begin > stage.monitor:
            yield proved_again(seen, stage)
        case "f":
            yield from prove_agent(seen, stage)
        case "home":
            yield from prove_home(seen, stage)


def probe_in_clear(evidence: Evidence, stage: Stage, *, link: list[Packet], tunnel: list[Packet]) -> Proof:
    """R-32: requests for the access address leave on the access link, un-encapsulated, and never enter a tunnel."""
    clear = astray = 0
    for packet in link:
        clear += packet.sender == evidence.hardware_address and _requests_for(evidence, stage, packet)
    for packet in tunnel:
        astray += _requests_for(evidence, stage, packet)
    return Proof(
        stage.name,
        "the probe leaves in clear on the access link",
        clear > 0 and astray == 0,
        f"{clear} requests on the link, {astray} in the tunnel",
    )


def _requests_for(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    if (
        not stage.holds(packet.at)
        or packet.protocol != PROTOCOL_UDP
        or packet.destination_port != _REGISTRATION
        or packet.destination != evidence.home_agent
    ):
        return False
    message = packet.dissected().getlayer(MobileIP)
    request = None if message is None else message.getlayer(MobileIPRRQ)
    return request is not None and packet.source == request.coaddr == stage.access_address


def nothing_through_the_gateway(
    evidence: Evidence,
    stage: Stage,
    *,
    link: list[Packet],
    legs: tuple[list[Packet], list[Packet]],
    goes_on: bool = False,
) -> Proof:
    """Mode c: once the home agent has answered, no data crosses the gateway; IKE may, to keep the VPN warm.

    `goes_on`: it had answered in the stage before, which was no other in this.
    """
    claim = "no data crosses the gateway"
    answers = {"f": is_agents_acceptance, "home": is_homes_acceptance}.get(stage.mode, is_acceptance)
    answered = next((p.at for p in link if stage.holds(p.at) and answers(evidence, stage, p)), None)
    if answered is None and goes_on:
        answered = stage.begin
    if answered is None:
        return Proof(stage.name, claim, False, "the home agent never answered on the access link")
    outside, inside = legs
    since = answered + SETTLE
    esp = sum(_is_esp(packet) for packet in outside if since <= packet.at < stage.end)
    data = sum(evidence.home_address in _ends(packet) for packet in inside if since <= packet.at < stage.end)
    direct = sum(
        _goes_its_own_way(evidence, stage, packet)
        for packet in link
        if since <= packet.at < stage.end and packet.sender == evidence.hardware_address
    )
    ways = {"f": "by the foreign agent", "home": "as they are"}
    return Proof(
        stage.name,
        claim,
        esp == data == 0 and direct > 0,
        f"{esp} ESP and {data} data packets at the gateway, "
        f"{direct} {ways.get(stage.mode, 'straight to the home agent')}",
    )


def _goes_its_own_way(evidence: Evidence, stage: Stage, packet: Packet) -> bool:
    match stage.mode:
        case "f":
            return goes_to_agent(evidence, stage, packet)
        case "home":
            return packet.source == evidence.home_address
    return is_tunnelled(evidence, stage, packet)


def _is_esp(packet: Packet) -> bool:
    if packet.protocol != PROTOCOL_UDP or 4500 not in (packet.source_port, packet.destination_port):
        return packet.protocol == 50
    # Four zero octets mark IKE, a single octet keeps a NAT's mapping (RFC 3948 section 2).
    return len(packet.udp_payload) > 4 and packet.udp_payload[:4] != bytes(4)


def _ends(packet: Packet) -> tuple[str, ...]:
    inner = packet.inner()
    ends = (packet.source, packet.destination)
    return ends if inner is None else (*ends, inner.source, inner.destination)


def only_tunnelled_in_esp(evidence: Evidence, stage: Stage, tunnel: list[Packet]) -> Proof:
    """R-12, R-20: what enters ESP is IP-in-IP between inner address and home agent, or a registration in that name."""
    counted: Counter[str] = Counter()
    for packet in tunnel:
        if stage.holds(packet.at):
            counted[_role_in_tunnel(evidence, packet)] += 1
    other = {role: count for role, count in counted.items() if role not in ("up", "down", "registration")}
    seen = f"{counted['up']} up and {counted['down']} down in IP-in-IP, {counted['registration']} for the registration"
    if other:
        seen += ", and " + ", ".join(f"{count} × {role}" for role, count in other.items())
    return Proof(
        stage.name,
        "inside ESP travels IP-in-IP from the inner address to the home agent, nothing else",
        not other and counted["up"] > 0 and counted["down"] > 0,
        seen,
    )


def _role_in_tunnel(evidence: Evidence, packet: Packet) -> str:
    inner = packet.inner()
    if packet.fragment and evidence.home_agent in (packet.source, packet.destination):
        return "up" if packet.destination == evidence.home_agent else "down"
    if packet.destination == evidence.home_agent and evidence.is_inner(packet.source or "0.0.0.0"):
        if inner is not None and inner.source == evidence.home_address:
            return "up"
        if packet.protocol == PROTOCOL_UDP and packet.destination_port == _REGISTRATION:
            return "registration"
    if packet.source == evidence.home_agent and evidence.is_inner(packet.destination or "0.0.0.0"):
        if inner is not None and inner.destination == evidence.home_address:
            return "down"
        if packet.protocol == PROTOCOL_UDP and packet.source_port == _REGISTRATION:
            return "registration"
    return packet.in_words()


def tunnelled_behind_the_gateway(evidence: Evidence, stage: Stage, gateway_inside: list[Packet]) -> Proof:
    """R-2: behind the gateway the same packets go on to the home agent, in clear only here, inside."""
    up = 0
    for packet in gateway_inside:
        inner = packet.inner() if stage.holds(packet.at) else None
        up += (
            inner is not None
            and inner.source == evidence.home_address
            and packet.destination == evidence.home_agent
            and evidence.is_inner(packet.source)
        )
    return Proof(
        stage.name,
        "behind the gateway they go on to the home agent as they are",
        up > 0,
        f"{up} packets from the inner address at the gateway's inside leg",
    )


def moved_by_mobike(evidence: Evidence, stage: Stage, link: list[Packet]) -> Proof:
    """R-11: the VPN moved by INFORMATIONAL exchanges of the IKE_SA that was there; no new one was made."""
    exchanges: Counter[tuple[int, bool]] = Counter()
    for packet in link:
        if stage.holds(packet.at) and packet.protocol == PROTOCOL_UDP and not packet.fragment:
            header = _ike(evidence, stage, packet)
            if header is not None:
                exchanges[header.exch_type, bool(int(header.flags) & _RESPONSE)] += 1
    asked, answered = exchanges[_INFORMATIONAL, False], exchanges[_INFORMATIONAL, True]
    fresh = exchanges[_IKE_SA_INIT, False]
    said = _charon_says(evidence, stage)
    return Proof(
        stage.name,
        "the VPN moves by MOBIKE",
        asked > 0 and answered > 0 and fresh == 0 and said > 0,
        f"{asked} INFORMATIONAL requests and {answered} answers at the new address, {fresh} IKE_SA_INIT; "
        f"charon's log names MOBIKE {said} times",
    )


def _ike(evidence: Evidence, stage: Stage, packet: Packet) -> IKEv2 | None:
    if {packet.source, packet.destination} != {stage.access_address, evidence.gateway}:
        return None
    octets = packet.udp_payload
    if 4500 in (packet.source_port, packet.destination_port):
        if octets[:4] != bytes(4):
            return None
        octets = octets[4:]
    return IKEv2(octets) if len(octets) >= 28 else None


def _charon_says(evidence: Evidence, stage: Stage) -> int:
    """How often charon's log names a MOBIKE update in the stage; its lines begin with the time of day, HH:MM:SS.mmm."""
    began = time.localtime(stage.begin)
    begin = began.tm_hour * 3600 + began.tm_min * 60 + began.tm_sec + stage.begin % 1
    count = 0
    for line in evidence.charon_log.read_text(encoding="utf-8", errors="replace").splitlines():
        stamp = _TIME_OF_DAY.match(line)
        if stamp is not None and _MOBIKE_WORDS.search(line):
            said = int(stamp[1]) * 3600 + int(stamp[2]) * 60 + float(stamp[3])
            count += (said - begin) % 86400 < stage.end - stage.begin
    return count


def no_registration(stage: Stage, agent: list[Packet]) -> Proof:
    """R-11: from one untrusted network to the next the binding stays, and the home agent hears nothing."""
    heard = sum(
        packet.destination_port == _REGISTRATION and packet.protocol == PROTOCOL_UDP
        for packet in agent
        if stage.holds(packet.at)
    )
    return Proof(stage.name, "no registration reaches the home agent", heard == 0, f"{heard} heard there")
