# SPDX-License-Identifier: GPL-2.0-only
"""What the captures must show of the home link: coming home in order, being a plain host there, leaving in order."""

from collections.abc import Iterator
from typing import Final

from homeward.diagnostics.captures import ETHERTYPE_ARP, PROTOCOL_IPIP, Packet
from homeward.diagnostics.evidence import Stage
from homeward.diagnostics.leaks import is_acceptance, is_homes_acceptance
from homeward.diagnostics.registrations import Message
from homeward.diagnostics.seen import SETTLE, Proof, Seen

_BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
_REQUEST, _REPLY = 1, 2


def prove_home(seen: Seen, stage: Stage) -> Iterator[Proof]:
    """Every claim about a stage at home."""
    yield announced_first(seen, stage)
    yield deregistered(seen, stage)
    yield no_tunnel(seen, stage)


def _asked(seen: Seen, stage: Stage) -> list[Message]:
    """The laptop's requests from the home address."""
    return [
        each
        for each in seen.said(stage)
        if each.is_request and seen.is_sent(each.packet) and each.packet.source == seen.evidence.home_address
    ]


def is_gratuitous(packet: Packet, address: str) -> bool:
    """Whether this is an ARP packet that tells everybody who has the address now (RFC 5944 section 4.6)."""
    if packet.ethertype != ETHERTYPE_ARP or packet.receiver != _BROADCAST:
        return False
    arp = packet.dissected()
    return bool(arp.psrc == arp.pdst == address and arp.hwsrc == packet.sender)


def announced_first(seen: Seen, stage: Stage) -> Proof:
    """R-190: trusted first, then ARP about the home address, and only then the deregistration."""
    home = seen.evidence.home_address
    trusted = [p.at for p in seen.on_link(stage) if is_acceptance(seen.evidence, stage, p)]
    said = [p.at for p in seen.on_link(stage) if seen.is_sent(p) and is_gratuitous(p, home)]
    asked = _asked(seen, stage)
    return Proof(
        stage.name,
        "the home address is announced by gratuitous ARP when the link is trusted, and before it is deregistered",
        bool(trusted and said and asked) and trusted[0] < said[0] < asked[0].at,
        f"{len(said)} times by ARP, "
        + (
            f"the first {(asked[0].at - said[0]) * 1000:.1f} ms before the request"
            if said and asked
            else "no request"
        ),
    )


def deregistered(seen: Seen, stage: Stage) -> Proof:
    """R-132, R-133, R-143: from the home address, straight to the home agent, for all bindings."""
    asked = _asked(seen, stage)
    wrong = [
        each
        for each in asked
        if each.lifetime != 0
        or each.care_of != seen.evidence.home_address
        or each.packet.destination != seen.evidence.home_agent
    ]
    confirmed = [
        each
        for each in seen.said(stage)
        if each.vouches and is_homes_acceptance(seen.evidence, stage, each.packet)
    ]
    return Proof(
        stage.name,
        "all bindings are given up from the home address, straight to the home agent, which confirms it with TNC",
        bool(asked and confirmed) and not wrong,
        f"{len(asked)} requests, {len(wrong)} of them wrong, {len(confirmed)} confirmed",
    )


def no_tunnel(seen: Seen, stage: Stage) -> Proof:
    """R-180: at home a plain host."""
    claim = "at home data goes as it is, and there is no tunnel"
    confirmed = (p.at for p in seen.on_link(stage) if is_homes_acceptance(seen.evidence, stage, p))
    since = next(confirmed, None)
    if since is None:
        return Proof(stage.name, claim, False, "the home agent never confirmed")
    home = seen.evidence.home_address
    up = down = tunnelled = 0
    for packet in seen.on_link(stage, since + SETTLE):
        tunnelled += packet.protocol == PROTOCOL_IPIP or packet.in_udp() is not None
        up += seen.is_sent(packet) and packet.source == home
        down += not seen.is_sent(packet) and packet.destination == home
    return Proof(
        stage.name,
        claim,
        up > 0 and down > 0 and tunnelled == 0,
        f"{up} up and {down} down as they are, {tunnelled} in a tunnel",
    )


def answers_arp(seen: Seen, stage: Stage) -> Proof:
    """R-183, R-189, R-191: at home the laptop answers for the home address by ARP, elsewhere nobody hears of it."""
    home, at_home = seen.evidence.home_address, stage.mode == "home"
    asked = answered = 0
    for packet in seen.on_link(stage):
        if packet.ethertype != ETHERTYPE_ARP:
            continue
        arp = packet.dissected()
        # The sender's own address as well: gratuitous questions ask for nothing.
        asked += not seen.is_sent(packet) and arp.op == _REQUEST and arp.pdst == home != arp.psrc
        answered += seen.is_sent(packet) and arp.op == _REPLY and arp.psrc == home
    claim = (
        "who asks for the home address by ARP is answered"
        if at_home
        else "nobody is answered who asks for it by ARP"
    )
    return Proof(
        stage.name,
        claim,
        asked > 0 and (answered >= asked if at_home else answered == 0),
        f"asked {asked} times, answered {answered} times",
    )


def taken_over(seen: Seen, stage: Stage) -> Proof:
    """RFC 5944 section 4.6: when the laptop has left, the home agent tells the home link that it has the address."""
    home = seen.evidence.home_address
    said = [
        packet
        for packet in seen.hop("agent", "home")
        if stage.holds(packet.at) and is_gratuitous(packet, home) and not seen.is_sent(packet)
    ]
    return Proof(
        stage.name,
        "on the home link the home agent takes the home address over by ARP",
        bool(said),
        f"{len(said)} times",
    )
