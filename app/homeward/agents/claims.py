# SPDX-License-Identifier: GPL-2.0-or-later
"""Who sent a request, as far as it says so, and whether that is proved (RFC 5944 section 3.8.2.1).

Everything that is answered by silence is sorted out before any digest is computed (R-94, R-193, R-195).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from ipaddress import IPv4Address

from homeward.agents.agent_events import Refused, RequestArrived
from homeward.agents.bindings import Binding
from homeward.agents.findings import Finding
from homeward.agents.ingress import Origin, TrustedNetworks
from homeward.agents.nodes import Identity, Node, NodeTable
from homeward.agents.policy import AgentPolicy, ForeignAgentPeer
from homeward.model.errors import ProfileError, WireError
from homeward.model.registration import (
    LIFETIME_DEREGISTER,
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationRequest,
    Spi,
)
from homeward.model.relay import ForeignToHome
from homeward.model.values import quick
from homeward.wire import authenticator, relay
from homeward.wire import registration as codec
from homeward.wire.decoded import Authentication, DecodedReply, DecodedRequest
from homeward.wire.extensions import ExtensionType

FOREIGN_HOME = ExtensionType.FOREIGN_HOME_AUTHENTICATION
_FOREIGN_HOME = int(FOREIGN_HOME)


class ForeignAgentProof(Enum):
    """What the request's FA-HA authentication says (RFC 5944 section 3.8.2.1, c and d)."""

    NOT_NEEDED = "no foreign agent that we know sent it, or it ends a binding"
    VALID = "a foreign agent that we know sent it on"
    MISSING = "a foreign agent that we know sent it on without proving itself"
    WRONG = "its foreign agent's authenticator does not fit the key"


@quick
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
    def authentication(self) -> Authentication:
        """By which the mobile node claims to have made it."""
        return self.decoded.authentications[0]

    @property
    def co_located(self) -> bool:
        """The D bit: the mobile node itself is to be the tunnel's other end."""
        return self.decoded.message.flags.co_located

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
        self._nodes = policy.nodes if isinstance(policy.nodes, NodeTable) else NodeTable(policy.nodes)
        self._revoked: set[str] = set()
        self._foreign_agents: dict[IPv4Address, list[ForeignAgentPeer]] = {}
        for peer in policy.foreign_agents:
            known = self._foreign_agents.setdefault(peer.address, [])
            if any(each.spi == peer.spi for each in known):
                raise ProfileError(f"two foreign agents have address {peer.address} and SPI {peer.spi}")
            known.append(peer)

    @property
    def nodes(self) -> NodeTable:
        """All nodes of the policy, those that are revoked included."""
        return self._nodes

    def node(self, identity: Identity, spi: int) -> Node | None:
        """The node that is remembered by this, with the association of that index, unless it is revoked."""
        return self._unless_revoked(self._nodes.find(identity, spi))

    def plain_node(self, home_address: int, spi: int) -> tuple[bytes, bytes, AuthenticationAlgorithm] | None:
        """Name, key and algorithm of a node about which nothing is unusual (see NodeTable.find_plain)."""
        found = self._nodes.find_plain(home_address, spi)
        if found is not None and self._revoked and found[0].decode() in self._revoked:
            return None
        return found

    def revoke(self, name: str) -> list[Node]:
        """Accept no association of the node with that name any more; the node, once for each of them."""
        known = [] if name in self._revoked else self._nodes.called(name)
        self._revoked.add(name)
        return known

    def keeps(self, binding: Binding, identity: Identity, before: ClaimReader) -> bool:
        """Whether what a binding rests on is still there: the association, and the right to the home address."""
        old, new = before.node(identity, binding.spi), self.node(identity, binding.spi)
        if old is None or new is None or not authenticator.is_same(old.association, new.association):
            return False
        return new.home_addresses is None or binding.home_address in new.home_addresses

    def revoker(self, binding: Binding, identity: Identity) -> MobilitySecurityAssociation | None:
        """The association under which it can be revoked: None where nobody understands that, or none is shared."""
        peer = binding.revocation
        if peer is None:
            return None
        if not peer.is_foreign_agent:
            node = self._nodes.find(identity, peer.spi)
            return None if node is None else node.association
        known = self.foreign_agents_at(peer.address, binding.care_of_address)
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
        origin = self._networks.origin(arrived.source, arrived.interface)
        if origin is Origin.INSIDE:
            return None
        if origin is Origin.WRONG_INTERFACE:
            text = f"{origin.value} ({arrived.interface})"
            return Refused(Finding.WRONG_INTERFACE, text, source=arrived.source)
        return Refused(Finding.WRONG_SOURCE, origin.value, source=arrived.source)

    def foreign_agents_at(
        self, source: IPv4Address, care_of_address: IPv4Address
    ) -> tuple[ForeignAgentPeer, ...]:
        """The foreign agents that may send from there; behind a listed NAT, those of that care-of address."""
        if not self._foreign_agents:
            return ()
        known = self._foreign_agents.get(source, ())
        if not known and self._networks.is_nat(source):
            known = self._foreign_agents.get(care_of_address, ())
        return tuple(known)

    def _relay(
        self, source: IPv4Address, request: RegistrationRequest, spis: tuple[Spi, ...]
    ) -> ForeignAgentPeer | None:
        """The one whose association has to prove, or has the index to prove, that it sent the request on.

        A co-located node that registers through a foreign agent behind a NAT names neither: only the index tells.
        """
        if not self._foreign_agents:
            return None
        known: Iterable[ForeignAgentPeer] = self.foreign_agents_at(source, request.care_of_address)
        hidden = request.flags.co_located and self._networks.is_nat(source)
        if not known and hidden:
            known = [each for peers in self._foreign_agents.values() for each in peers if each.spi in spis]
        named = [each for each in known if each.spi in spis]
        return next(iter((*named, *known)), None)

    def _node(self, request: RegistrationRequest, spi: Spi) -> Node | None:
        """By its home address, where it has one; else by its NAI (RFC 2794 section 2)."""
        home_address = int(request.home_address)
        node = self._nodes.find(home_address, spi) if home_address else None
        if node is None and request.nai is not None:
            node = self._nodes.find_nai(request.nai, spi)
            if node is not None and node.home_address is not None and home_address:
                return None  # it has an address of its own, and that is another one
        return self._unless_revoked(node)

    def _unless_revoked(self, node: Node | None) -> Node | None:
        return None if node is None or node.name in self._revoked else node


def _foreign_agent_spis(decoded: DecodedRequest) -> tuple[Spi, ...]:
    """A FA-HA extension before MN-HA is none: the foreign agent had nothing to do with the request yet."""
    misplaced = [Spi(0) for each in decoded.covered if each.number == _FOREIGN_HOME]
    behind = [
        Spi(int.from_bytes(each.body[:4], "big"))
        for each in decoded.unauthenticated
        if each.number == _FOREIGN_HOME
    ]
    return (*misplaced, *behind)
