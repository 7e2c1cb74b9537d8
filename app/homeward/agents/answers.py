# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration Replies as a home agent writes them (RFC 5944 section 3.8.3)."""

from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address

from homeward.agents.agent_events import Refused, SendReply
from homeward.agents.claims import Claim
from homeward.agents.policy import AgentPolicy
from homeward.agents.verdicts import Denial
from homeward.model.nat_traversal import UdpTunnelReply
from homeward.model.registration import Identification, RegistrationReply, ReplyCode
from homeward.model.relay import HomeToForeign
from homeward.model.revocation import RevocationSupport
from homeward.model.values import quick
from homeward.wire import registration as codec
from homeward.wire import relay


@quick
@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply says besides its code. `may_vouch` is whether a word about trust is possible at all."""

    home_address: IPv4Address
    identification: Identification
    _: KW_ONLY
    lifetime: int = 0
    may_vouch: bool = True
    udp_tunnel: UdpTunnelReply | None = None
    revocation_support: RevocationSupport | None = None
    to_foreign_agent: HomeToForeign | None = None


def acceptance(policy: AgentPolicy, claim: Claim, answer: Answer) -> SendReply:
    """One binding for each node: who asked for more is told so, and 1 is as much a success as 0 (R-159, R-197)."""
    if claim.request.flags.simultaneous:
        return _send(policy, claim, ReplyCode.ACCEPTED_WITHOUT_SIMULTANEOUS_BINDINGS, answer)
    return _send(policy, claim, ReplyCode.ACCEPTED, answer)


def denial(
    policy: AgentPolicy, claim: Claim, denied: Denial, answer: Answer
) -> tuple[SendReply | Refused, ...]:
    """A reply with the code, and a line for the log."""
    return (_send(policy, claim, denied.code, answer), refusal(claim, denied, told=True))


def refusal(claim: Claim, denied: Denial, *, told: bool) -> Refused:
    """The line for the log alone."""
    return Refused(
        denied.finding,
        denied.text,
        source=claim.arrived.source,
        code=denied.code if told else None,
        home_address=claim.request.home_address,
    )


def _send(policy: AgentPolicy, claim: Claim, code: ReplyCode, answer: Answer) -> SendReply:
    arrived, request = claim.arrived, claim.request
    source = arrived.source
    vouches = answer.may_vouch and policy.networks.vouches(
        source, arrived.interface, care_of_address=request.care_of_address
    )
    reply = RegistrationReply(
        code,
        answer.lifetime,
        home_address=answer.home_address,
        home_agent=policy.address,
        identification=answer.identification,
        nai=request.nai,
        trusted_networks_configured=vouches,
        udp_tunnel=answer.udp_tunnel,
        revocation_support=answer.revocation_support,
    )
    octets = codec.encode_reply(reply, claim.node.association)
    if answer.to_foreign_agent is not None or claim.relay is not None:
        octets = relay.answer_foreign_agent(
            octets,
            answer.to_foreign_agent or HomeToForeign(),
            foreign_home=None if claim.relay is None else claim.relay.association,
        )
    return SendReply(
        octets,
        source,
        port=arrived.source_port,
        source=arrived.destination if arrived.unicast else policy.address,
        interface=arrived.interface if source == request.home_address else None,
    )
