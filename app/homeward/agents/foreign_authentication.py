# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mobile node has to prove to a foreign agent: MN-FA, MN-AAA and the answer to a challenge (RFC 4721 3.2).

There is no RADIUS here: a mobile node that is to be checked as a server would check it has its key in our own
configuration, and whoever has none is refused where challenges are demanded.
"""

from homeward.agents.foreign_events import ForeignFinding
from homeward.agents.foreign_rules import ForeignDenial, ForeignPolicy
from homeward.agents.offered_challenges import NodeKey, OfferedChallenges, Verdict
from homeward.model.registration import MobilitySecurityAssociation, ReplyCode
from homeward.model.relay import MobileToForeign
from homeward.wire import authenticator, relay
from homeward.wire.decoded import DecodedRequest


def association_of(
    policy: ForeignPolicy, node: NodeKey, decoded: DecodedRequest
) -> MobilitySecurityAssociation | None:
    """The MN-FA association that replies to this request are signed with: the one that it names, else the first."""
    associations = policy.nodes.get(node, ())
    named = decoded.authentication_by(relay.MOBILE_FOREIGN)
    for one in associations:
        if named is not None and one.spi == named.spi:
            return one
    return associations[0] if associations else None


def judge_sender(
    decoded: DecodedRequest,
    part: MobileToForeign,
    node: NodeKey,
    *,
    policy: ForeignPolicy,
    challenges: OfferedChallenges | None,
    answered_before: bytes | None,
) -> ForeignDenial | None:
    """The first proof that is missing or wrong. `answered_before` is the challenge in a request of this station's that
    still waits: answering it again is a retransmission (RFC 4721 section 3.2)."""
    association = association_of(policy, node, decoded)
    if association is not None and not authenticator.verify(
        decoded.octets, decoded, association, by=relay.MOBILE_FOREIGN
    ):
        code = ReplyCode.FOREIGN_AGENT_MOBILE_NODE_FAILED_AUTHENTICATION
        text = "no valid MN-FA authentication, which we share a key for"
        return ForeignDenial(code, ForeignFinding.WRONG_AUTHENTICATOR, text)
    wants_server = relay.server_spi(decoded) is not None
    demanded = challenges is not None and association is None
    if part.challenge is None and demanded:
        code = ReplyCode.FOREIGN_AGENT_MISSING_CHALLENGE
        return ForeignDenial(code, ForeignFinding.CHALLENGE, "no challenge is answered")
    if part.challenge is not None and not wants_server and association is None:
        text = "a challenge is answered without MN-AAA or MN-FA authentication"
        return ForeignDenial(None, ForeignFinding.CHALLENGE_UNPROVED, text)
    server = policy.servers.get(node)
    proved = server is not None and relay.verify_for_server(decoded.octets, decoded, server)
    if wants_server and not proved and (server is not None or demanded):
        code = ReplyCode.FOREIGN_AGENT_MOBILE_NODE_AAA_FAILED
        text = "no key for it" if server is None else "the MN-AAA authenticator does not fit the key"
        return ForeignDenial(code, ForeignFinding.SERVER_AUTHENTICATION, text)
    if part.challenge is None or challenges is None or part.challenge == answered_before:
        return None
    match challenges.judge(node, part.challenge):
        case Verdict.UNKNOWN:
            code = ReplyCode.FOREIGN_AGENT_UNKNOWN_CHALLENGE
            return ForeignDenial(code, ForeignFinding.CHALLENGE, "a challenge that was not offered lately")
        case Verdict.STALE:
            code = ReplyCode.FOREIGN_AGENT_STALE_CHALLENGE
            return ForeignDenial(code, ForeignFinding.CHALLENGE, "a challenge that it has answered before")
        case Verdict.FRESH:
            return None
