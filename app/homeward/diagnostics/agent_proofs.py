# SPDX-License-Identifier: GPL-2.0-only
"""What the captures must show of mode f: a foreign agent that is asked late, addressed rightly, and left in time."""

from collections.abc import Iterator
from typing import Final

from homeward.diagnostics.captures import PROTOCOL_ICMP, PROTOCOL_IPIP, Packet
from homeward.diagnostics.evidence import Stage
from homeward.diagnostics.leaks import goes_to_agent, is_acceptance, is_agents_acceptance
from homeward.diagnostics.registrations import D_BIT, T_BIT, UDP_TUNNEL_REQUEST, Message, messages
from homeward.diagnostics.seen import SETTLE, Proof, Seen

_TTL: Final = 255
_ROUTER_ADVERTISEMENT: Final = 9
_REDIRECT: Final = 5
_LATE: Final = 2.0
"""Seconds that leaving an agent may take after its advertisement has run out: one request, and its repetition."""


def prove_agent(seen: Seen, stage: Stage) -> Iterator[Proof]:
    """Every claim about a stage in mode f."""
    yield asked_after_proof(seen, stage)
    yield addressed_rightly(seen, stage)
    if stage.moved:
        yield address_first(seen, stage)
    yield by_the_agents_hands(seen, stage)
    yield tunnelled_by_the_agent(seen, stage)
    if "RedirectToNobody" in stage.incidents:
        yield redirect_is_ignored(seen, stage)


def _asked(seen: Seen, stage: Stage) -> list[Message]:
    """The laptop's requests to the agent."""
    return [
        each
        for each in seen.said(stage)
        if each.is_request and seen.is_sent(each.packet) and each.packet.destination == stage.agent_address
    ]


def _accepted(seen: Seen, stage: Stage) -> float | None:
    """When the agent first passed on that its care-of address is accepted."""
    found = (each.at for each in seen.on_link(stage) if is_agents_acceptance(seen.evidence, stage, each))
    return next(found, None)


def asked_after_proof(seen: Seen, stage: Stage) -> Proof:
    """R-14, R-17: the agent's care-of address only by a second registration, after a direct one proved the network."""
    claim = "the foreign agent is asked only after the network has proved itself, and proves itself again"
    asked = _asked(seen, stage)
    proofs = [
        each.at
        for each in messages(seen.in_stay(stage))
        if each.accepts and each.vouches and is_acceptance(seen.evidence, stage, each.packet)
    ]
    passed_on = [
        each
        for each in seen.said(stage)
        if each.vouches and is_agents_acceptance(seen.evidence, stage, each.packet)
    ]
    holds = bool(asked and proofs and passed_on) and proofs[0] < asked[0].at < passed_on[0].at
    ahead = f"{(asked[0].at - proofs[0]) * 1000:.0f} ms" if asked and proofs else "never"
    return Proof(
        stage.name,
        claim,
        holds,
        f"asked {ahead} after the first proof, {len(passed_on)} signed answers with TNC by the agent",
    )


def addressed_rightly(seen: Seen, stage: Stage) -> Proof:
    """R-132 to R-135, R-223: from the home address, to the agent and its very MAC; D=0, T=1, TTL 255, no 144."""
    claim = "requests go from the home address to the agent's own hardware address, with D=0, T=1 and TTL 255"
    asked = _asked(seen, stage)
    wrong = [each for each in asked if not _is_right(seen, stage, each)]
    return Proof(
        stage.name,
        claim,
        bool(asked) and not wrong,
        f"{len(asked)} requests" + (f", {len(wrong)} of them wrong: {wrong[0]}" if wrong else ", all right"),
    )


def _is_right(seen: Seen, stage: Stage, message: Message) -> bool:
    packet = message.packet
    return (
        packet.source == message.home_address == seen.evidence.home_address
        and message.home_agent == seen.evidence.home_agent
        and packet.receiver == stage.agent_hardware_address
        and packet.ttl == _TTL
        and not message.flags & D_BIT
        and bool(message.flags & T_BIT)
        and message.care_of != stage.access_address
        and UDP_TUNNEL_REQUEST not in message.extensions
    )


def address_first(seen: Seen, stage: Stage) -> Proof:
    """R-15: an address of the link by DHCP, also where a foreign agent offers its own."""
    asked = _asked(seen, stage)
    dhcp = [
        p.at
        for p in seen.on_link(stage)
        if seen.is_sent(p) and (p.source_port, p.destination_port) == (68, 67)
    ]
    return Proof(
        stage.name,
        "DHCP is asked for an address before the agent is asked for its",
        bool(asked and dhcp) and dhcp[0] < asked[0].at,
        f"{len(dhcp)} DHCP messages",
    )


def by_the_agents_hands(seen: Seen, stage: Stage) -> Proof:
    """RFC 3024 section 5.1: packets of the home address as they are, to and from the agent, and in no tunnel."""
    claim = "data goes as it is by the agent's hands, in no tunnel of the laptop's"
    accepted = _accepted(seen, stage)
    if accepted is None:
        return Proof(stage.name, claim, False, "the agent never passed on an acceptance")
    home = seen.evidence.home_address
    up = down = tunnelled = elsewhere = 0
    for packet in seen.on_link(stage, accepted + SETTLE):
        if seen.is_sent(packet):
            up += goes_to_agent(seen.evidence, stage, packet)
            elsewhere += packet.source == home and packet.receiver != stage.agent_hardware_address
            tunnelled += _is_tunnel(packet)
        else:
            down += packet.destination == home and packet.sender == stage.agent_hardware_address
    return Proof(
        stage.name,
        claim,
        up > 0 and down > 0 and tunnelled == elsewhere == 0,
        f"{up} up, {down} down, {tunnelled} in a tunnel, {elsewhere} to somebody else",
    )


def _is_tunnel(packet: Packet) -> bool:
    return packet.protocol == PROTOCOL_IPIP or packet.in_udp() is not None


def tunnelled_by_the_agent(seen: Seen, stage: Stage) -> Proof:
    """The other half: between the two agents it travels in the tunnel that was agreed, both ways."""
    kind = "in UDP" if stage.nat else "IP-in-IP"
    claim = f"between the agents it travels in a tunnel, {kind}"
    asked, accepted = _asked(seen, stage), _accepted(seen, stage)
    if not asked or accepted is None:
        return Proof(stage.name, claim, False, "the agent never passed on an acceptance")
    end, agent = stage.nat or asked[-1].care_of, seen.evidence.home_agent
    up = down = other = 0
    for packet in seen.hop("agent", "inside"):
        if not accepted + SETTLE <= packet.at < stage.end or {packet.source, packet.destination} != {
            end,
            agent,
        }:
            continue
        inner = packet.in_udp() if stage.nat else packet.inner()
        if inner is None:
            other += packet.protocol == PROTOCOL_IPIP or packet.in_udp() is not None
            continue
        up += inner.source == seen.evidence.home_address
        down += inner.destination == seen.evidence.home_address
    return Proof(
        stage.name,
        claim,
        up > 0 and down > 0 and other == 0,
        f"{up} up and {down} down between {end} and {agent}, {other} in another one",
    )


def redirect_is_ignored(seen: Seen, stage: Stage) -> Proof:
    """R-124: what the agent says by ICMP of a better router makes nobody register with another agent."""
    own = seen.evidence.hardware_address
    redirects = [
        packet.at
        for packet in seen.on_link(stage)
        if packet.protocol == PROTOCOL_ICMP
        and packet.octets[packet.payload] == _REDIRECT
        and packet.receiver == own
    ]
    since = redirects[0] if redirects else stage.begin
    other = [
        packet
        for packet in seen.on_link(stage, since)
        if packet.sender == own
        and packet.source == seen.evidence.home_address
        and packet.receiver != stage.agent_hardware_address
    ]
    elsewhere = [
        each
        for each in seen.said(stage)
        if each.is_request
        and each.at >= since
        and each.packet.destination not in (stage.agent_address, seen.evidence.home_agent)
    ]
    return Proof(
        stage.name,
        "an ICMP Redirect of the agent's changes nothing",
        bool(redirects) and not other and not elsewhere,
        f"{len(redirects)} redirects, {len(elsewhere)} requests to somebody else, {len(other)} packets",
    )


def left_in_time(seen: Seen, stage: Stage) -> Proof:
    """R-121: an agent that has died is left when its last advertisement runs out, for an address of one's own."""
    claim = "the dead agent is left within the lifetime of its last advertisement"
    heard = [
        packet
        for packet in seen.in_stay(stage)
        if packet.protocol == PROTOCOL_ICMP
        and packet.octets[packet.payload] == _ROUTER_ADVERTISEMENT
        and packet.sender == stage.agent_hardware_address
    ]
    accepted = next((p.at for p in seen.on_link(stage) if is_acceptance(seen.evidence, stage, p)), None)
    if not heard or accepted is None:
        return Proof(
            stage.name, claim, False, f"{len(heard)} advertisements, and no address of its own accepted"
        )
    last = heard[-1]
    lifetime = int.from_bytes(last.octets[last.payload + 6 : last.payload + 8], "big")
    return Proof(
        stage.name,
        claim,
        accepted - last.at <= lifetime + _LATE,
        f"its own address accepted {accepted - last.at:.1f} s after the last advertisement, good for {lifetime} s",
    )
