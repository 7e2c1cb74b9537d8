# SPDX-License-Identifier: GPL-2.0-or-later
"""Who sent a request, as far as it says so, and whether that is proved (RFC 5944 section 3.8.2.1).

Everything that is answered by silence is sorted out before any digest is computed (R-94, R-193, R-195).
"""

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from ipaddress import IPv4Address

from homeward.agents.agent_events import Refused, RequestArrived
from homeward.agents.findings import Finding
from homeward.agents.ingress import Origin, TrustedNetworks
from homeward.agents.policy import AgentPolicy, ForeignAgentPeer, Identity, Node
from homeward.model.agent_memory import KeptBinding
from homeward.model.errors import ProfileError, WireError
from homeward.model.registration import (
    LIFETIME_DEREGISTER,
    MobilitySecurityAssociation,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.relay import ForeignToHome
from homeward.wire import authenticator, relay
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.extensions import ExtensionType

FOREIGN_HOME = ExtensionType.FOREIGN_HOME_AUTHENTICATION


class ForeignAgentProof(Enum):
    """What the request's FA-HA authentication says (RFC 5944 section 3.8.2.1, c and d)."""

    NOT_NEEDED = "no foreign agent that we know sent it, or it ends a binding"
    VALID = "a foreign agent that we know sent it on"
    MISSING = "a foreign agent that we know sent it on without proving itself"
    WRONG = "its foreign agent's authenticator does not fit the key"


@dataclass(frozen=True, slots=True)
class Claim:
    """A request whose sender names an association of ours; `proved` is asked once its digest is to be computed.

    `relay` is the foreign agent that sent it on, where we share an association with it; `part` is what a foreign agent
    tells us behind the mobile node's authenticator, worth as much as FA-HA.
    """

    arrived: RequestArrived
    decoded: DecodedRequest
    node: Node
    _: KW_ONLY
    part: ForeignToHome
    relay: ForeignAgentPeer | None
    foreign_agent_spis: tuple[Spi, ...]
    """The indices in its FA-HA extensions, in order; one that cannot be read or stands before MN-HA counts as 0."""

    @property
    def request(self) -> RegistrationRequest:
        """What the authenticator covers, proved or not."""
        return self.decoded.message

    @property
    def co_located(self) -> bool:
        """The D bit: the mobile node itself is to be the tunnel's other end."""
        return RequestFlags.DECAPSULATE_SELF in self.request.flags

    def is_proved(self) -> bool:
        """Whether the mobile node made the request."""
        return authenticator.verify(self.arrived.octets, self.decoded, self.node.association)

    def foreign_agent_proof(self) -> ForeignAgentProof:
        """Whether the foreign agent that we know sent the request on."""
        if self.relay is None:
            return ForeignAgentProof.NOT_NEEDED
        if not self.foreign_agent_spis:
            # It may prove itself neither for an end nor for an address that is not its own (RFC 5944 section 3.5.4).
            free = self.request.lifetime == LIFETIME_DEREGISTER or self.co_located
            return ForeignAgentProof.NOT_NEEDED if free else ForeignAgentProof.MISSING
        if self.foreign_agent_spis != (self.relay.spi,):
            return ForeignAgentProof.WRONG
        fits = authenticator.verify(
            self.arrived.octets, self.decoded, self.relay.association, by=FOREIGN_HOME
        )
        return ForeignAgentProof.VALID if fits else ForeignAgentProof.WRONG


class ClaimReader:
    """Knows the nodes and foreign agents of a policy. Raises ProfileError where one cannot be told from another."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._networks: TrustedNetworks = policy.networks
        self._nodes: dict[tuple[IPv4Address | str, Spi], Node] = {}
        for node in policy.nodes:
            for name in {node.home_address, node.nai} - {None}:
                assert name is not None
                key = (name, node.association.spi)
                if key in self._nodes:
                    raise ProfileError(f"two nodes have {_called(name)} and SPI {key[1]}")
                self._nodes[key] = node
        self._foreign_agents: dict[IPv4Address, list[ForeignAgentPeer]] = {}
        for peer in policy.foreign_agents:
            known = self._foreign_agents.setdefault(peer.address, [])
            if any(each.spi == peer.spi for each in known):
                raise ProfileError(f"two foreign agents have address {peer.address} and SPI {peer.spi}")
            known.append(peer)

    def node(self, identity: Identity, spi: int) -> Node | None:
        """The node of that identity which has an association with this index."""
        return self._nodes.get((identity, Spi(spi)))

    def forget(self, name: str) -> tuple[Node, ...]:
        """Accept no association of the node with that name any more; what it was."""
        gone = tuple({id(node): node for node in self._nodes.values() if node.name == name}.values())
        self._nodes = {key: node for key, node in self._nodes.items() if node.name != name}
        return gone

    def revoker(self, kept: KeptBinding, node: Node) -> MobilitySecurityAssociation | None:
        """The association under which a binding that was written down can be revoked, if we still share it."""
        peer = kept.revocation
        if peer is None or not peer.is_foreign_agent:
            return node.association
        known = self.foreign_agents_at(peer.address, kept.care_of_address)
        return next((each.association for each in known if each.spi == peer.spi), None)

    def read(self, arrived: RequestArrived) -> Claim | Refused:
        """The claim that a datagram makes, or why it is not worth an answer."""

        def silence(finding: Finding, text: str) -> Refused:
            return Refused(finding, text, source=arrived.source)

        outside = self.refuse_outsider(arrived)
        if outside is not None:
            return outside
        try:
            decoded = codec.decode(arrived.octets)
            if isinstance(decoded, DecodedReply):
                return silence(Finding.NOT_A_REQUEST, "a reply was sent to the home agent")
            part = relay.read_for_home_agent(decoded)
        except WireError as error:
            return silence(Finding.MALFORMED, str(error))
        spis = _foreign_agent_spis(decoded)
        peer = self._relay(arrived.source, decoded.message, spis)
        if spis and peer is None:
            return silence(Finding.FOREIGN_AGENT_AUTHENTICATION, "no association is shared with its sender")
        if decoded.authentication is None:
            count = len(decoded.authentications)
            return silence(
                Finding.NO_AUTHENTICATION, f"{count} MN-HA authentication extensions instead of one"
            )
        node = self._node(decoded.message, decoded.authentication.spi)
        if node is None:
            whose = f"home address {decoded.message.home_address}, SPI {decoded.authentication.spi}"
            return silence(Finding.UNKNOWN_ASSOCIATION, f"no association for {whose}")
        return Claim(arrived, decoded, node, part=part, relay=peer, foreign_agent_spis=spis)

    def refuse_outsider(self, arrived: RequestArrived) -> Refused | None:
        """Silence for whoever is not inside: nobody else learns that there is an agent."""
        match self._networks.origin(arrived.source, arrived.interface):
            case Origin.WRONG_INTERFACE as origin:
                text = f"{origin.value} ({arrived.interface})"
                return Refused(Finding.WRONG_INTERFACE, text, source=arrived.source)
            case Origin.WRONG_SOURCE as origin:
                return Refused(Finding.WRONG_SOURCE, origin.value, source=arrived.source)
            case Origin.INSIDE:
                return None

    def foreign_agents_at(
        self, source: IPv4Address, care_of_address: IPv4Address
    ) -> tuple[ForeignAgentPeer, ...]:
        """The foreign agents that may send from there; behind a listed NAT, those of that care-of address."""
        known = self._foreign_agents.get(source, ())
        if not known and source in self._networks.nats:
            known = self._foreign_agents.get(care_of_address, ())
        return tuple(known)

    def _relay(
        self, source: IPv4Address, request: RegistrationRequest, spis: tuple[Spi, ...]
    ) -> ForeignAgentPeer | None:
        """The one whose association has to prove, or has the index to prove, that it sent the request on.

        A co-located node that registers through a foreign agent behind a NAT names neither: only the index tells.
        """
        known: Iterable[ForeignAgentPeer] = self.foreign_agents_at(source, request.care_of_address)
        hidden = RequestFlags.DECAPSULATE_SELF in request.flags and source in self._networks.nats
        if not known and hidden:
            known = [each for peers in self._foreign_agents.values() for each in peers if each.spi in spis]
        named = [each for each in known if each.spi in spis]
        return next(iter((*named, *known)), None)

    def _node(self, request: RegistrationRequest, spi: Spi) -> Node | None:
        """By its home address, where it has one; else by its NAI (RFC 2794 section 2)."""
        node = None
        if not request.home_address.is_unspecified:
            node = self._nodes.get((request.home_address, spi))
        if node is None and request.nai is not None:
            node = self._nodes.get((request.nai, spi))
            fixed = None if node is None else node.home_address
            if fixed is not None and not request.home_address.is_unspecified:
                return None  # it has an address of its own, and that is another one
        return node


def _foreign_agent_spis(decoded: DecodedRequest) -> tuple[Spi, ...]:
    """A FA-HA extension before MN-HA is none: the foreign agent had nothing to do with the request yet."""
    misplaced = [Spi(0) for each in decoded.covered if each.number == FOREIGN_HOME]
    behind = [
        Spi(int.from_bytes(each.body[:4], "big"))
        for each in decoded.unauthenticated
        if each.number == FOREIGN_HOME
    ]
    return (*misplaced, *behind)


def _called(name: IPv4Address | str) -> str:
    return f"home address {name}" if isinstance(name, IPv4Address) else f"NAI {name}"
