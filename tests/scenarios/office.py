# SPDX-License-Identifier: GPL-2.0-or-later
"""An office with a foreign agent (trust3) and the home link itself (home), for the stories of modes f and home.

The foreign agent is a relay that can be told to be busy, to demand registration, to refuse, or to be silent; what a
real one checks is tested with the real one. An outside network with a rogue agent (ext3) advertises just as well.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.model.access import AgentPath, HomePath
from homeward.model.agent import AgentAdvertisement, AgentFlags, next_sequence
from homeward.model.effects import (
    AnnounceHomeAddress,
    Effect,
    SendRegistration,
    SendSolicitation,
    WithdrawHomeAddress,
)
from homeward.model.inputs import AgentAdvertised, DatagramReceived
from homeward.model.instant import Instant
from homeward.model.plan import AtHome, NetworkPlan, ViaAgent
from homeward.model.profile import ForeignAgentUse, Profile
from homeward.model.registration import RegistrationReply
from homeward.model.relay import ForeignToMobile
from homeward.wire import registration as codec
from homeward.wire import relay
from homeward.wire.agent_advertisement import encode_advertisement
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.internet_checksum import put
from tests.scenarios.simulation import ETHERNET, HOME_ADDRESS, HOME_AGENT, Network, World, make_profile

AGENT = IPv4Address("10.1.3.1")
OTHER_AGENT = IPv4Address("10.1.3.2")
ROGUE = IPv4Address("198.51.100.1")
HARDWARE = bytes.fromhex("020000000301")
OTHER_HARDWARE = bytes.fromhex("020000000302")
SERVES = AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL


def icmp_packet(source: IPv4Address, octets: bytes, *, ttl: int = 1) -> bytes:
    """The whole IPv4 packet around an ICMP message to all systems of the link."""
    head = bytes([0x45, 0]) + (20 + len(octets)).to_bytes(2, "big") + bytes(4) + bytes([ttl, 1, 0, 0])
    return put(head + source.packed + IPv4Address("224.0.0.1").packed, 10) + octets


@dataclass
class Agent:
    """A foreign agent of one network. `deny` maps the serial number of a request, from 1, to a code of its own."""

    address: IPv4Address = AGENT
    hardware: bytes = HARDWARE
    care_of: tuple[IPv4Address, ...] = (AGENT,)
    flags: AgentFlags = SERVES
    lifetime: int = 30
    registration_lifetime: int = 1800
    challenge: bytes | None = None
    up: bool = True
    sequence: int = -1
    deny: dict[int, int] = field(default_factory=dict)
    deny_lifetime: int = 0
    error: int | None = None
    """Added to replies of the home agent (RFC 4636)."""
    reply_challenge: bytes | None = None
    requests: list[DecodedRequest] = field(default_factory=list)

    def advertisement(self) -> AgentAdvertisement:
        self.sequence = 0 if self.sequence < 0 else next_sequence(self.sequence)
        return AgentAdvertisement(
            self.sequence,
            self.lifetime,
            registration_lifetime=self.registration_lifetime,
            flags=self.flags,
            care_of_addresses=self.care_of,
            challenge=self.challenge,
        )


class Office(World):
    """The laptop's world with agents on some of its links."""

    agents: dict[str, list[Agent]]

    def __init__(self, profile: Profile | None = None, **changes: object) -> None:
        self.agents = {"trust3": [Agent()], "ext3": [Agent(ROGUE, care_of=(ROGUE,))]}
        self.arp: list[tuple[float, Effect]] = []
        self.ttls: list[int] = []
        super().__init__(
            profile or office_profile(),
            agent_prefixes=("10.1.0.0/16", "10.9.0.0/24", "10.77.0.0/24"),
            **changes,  # type: ignore[arg-type]
        )
        for place in (
            Network("trust3", "10.1.3.0/24", inside=True, hosts=77),
            Network("home", "10.77.0.0/24", inside=True, hosts=150),
            Network("ext3", "198.51.100.0/24", inside=False),
        ):
            self.places[place.name] = place

    @property
    def agent_here(self) -> Agent:
        return self.agents["trust3"][0]

    def advertise(self, agent: Agent | None = None, *, ttl: int = 1, hardware: bytes | None = None) -> None:
        """An agent of the present link makes itself known."""
        for each in self._present() if agent is None else [agent]:
            packet = icmp_packet(each.address, encode_advertisement(each.advertisement()), ttl=ttl)
            self.feed(AgentAdvertised(ETHERNET, packet, each.hardware if hardware is None else hardware))

    def run_with_agents(self, seconds: float) -> None:
        """Time passes and the agents advertise every ten seconds."""
        for _ in range(int(seconds // 10)):
            self.run(10)
            self.advertise()
        self.run(seconds % 10)

    def by_agent(self) -> list[SendRegistration]:
        """Requests that went to a foreign agent."""
        return [effect for _, effect in self.sent if isinstance(effect.path, AgentPath)]

    def from_home(self) -> list[SendRegistration]:
        """Requests that left from the home link."""
        return [effect for _, effect in self.sent if isinstance(effect.path, HomePath)]

    # --- how this world reacts ---------------------------------------------------------------------------------------

    def _present(self) -> list[Agent]:
        name = self.place.name if self.place is not None else ""
        return [agent for agent in self.agents.get(name, []) if agent.up]

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendSolicitation():
                for agent in self._present():
                    self.later(0.002, partial(self._answer_solicitation, agent))
            case AnnounceHomeAddress() | WithdrawHomeAddress():
                self.arp.append((self.now, effect))
            case _:
                super()._carry_out(effect)

    def _answer_solicitation(self, agent: Agent) -> None:
        if agent in self._present():
            self.advertise(agent)

    def _check_never_in_the_open(self, plan: NetworkPlan) -> None:
        super()._check_never_in_the_open(plan)
        traffic = plan.traffic
        if isinstance(traffic, ViaAgent | AtHome):
            assert self.place is not None, "packets of the home address without a network"
            assert self.place.inside, f"packets of the home address in the open on {self.place.name}"

    def _route(self, effect: SendRegistration) -> None:
        place = self.place
        match effect.path:
            case AgentPath():
                if place is not None and not self.drop("request"):
                    self.later(0.001, partial(self._at_foreign_agent, effect, place))
            case HomePath(_, _, source):
                if place is not None and place.name == "home" and not self.drop("request"):
                    self.later(place.delay, partial(self._at_agent, effect, place, source))
            case _:
                super()._route(effect)

    def _at_foreign_agent(self, effect: SendRegistration, place: Network) -> None:
        path = effect.path
        assert isinstance(path, AgentPath)
        found = [
            each
            for each in self._present()
            if (each.address, each.hardware) == (path.agent, path.hardware_address)
        ]
        if place is not self.place or not found:
            return
        agent = found[0]
        decoded = codec.decode(effect.octets)
        assert isinstance(decoded, DecodedRequest)
        agent.requests.append(decoded)
        code = agent.deny.get(len(agent.requests))
        if code is not None:
            request = decoded.message
            denial = RegistrationReply(
                code,
                agent.deny_lifetime,
                home_address=request.home_address,
                home_agent=request.home_agent,
                identification=request.identification,
            )
            octets = relay.deny_request(denial, ForeignToMobile(challenge=agent.reply_challenge))
            self.later(0.001, partial(self.deliver_by_agent, effect, octets, place, agent))
            return
        source = path.care_of_address if not path.is_co_located else agent.address
        relayed = relay.through_mobile_home(decoded)
        self.later(place.delay, partial(self._relayed, replace(effect, octets=relayed), place, source, agent))

    def _relayed(self, effect: SendRegistration, place: Network, source: IPv4Address, agent: Agent) -> None:
        self.at_agent.append((self.now, str(source)))
        if not self.agent_up or not place.reaches_home_agent:
            return
        arrived = RequestArrived(
            effect.octets, source, source_port=434, destination=HOME_AGENT, interface="inside"
        )
        for answer in self.agent.handle(arrived, Instant(self.now, self.wall() + self.agent_clock_ahead)):
            if isinstance(answer, SendReply) and not self.drop("reply"):
                decoded = codec.decode(answer.octets)
                assert isinstance(decoded, DecodedReply)
                part = ForeignToMobile(error=agent.error, challenge=agent.reply_challenge)
                octets = relay.relay_reply(decoded, part)
                self.later(place.delay, partial(self.deliver_by_agent, effect, octets, place, agent))

    def deliver_by_agent(
        self, request: SendRegistration, octets: bytes, place: Network, agent: Agent
    ) -> None:
        """A reply reaches the socket that its request left from, through the agent."""
        if place is self.place and agent.up:
            self.feed(DatagramReceived(request.path, octets, agent.address, 434, ETHERNET))

    def deliver(self, request: SendRegistration, octets: bytes, place: Network | None) -> None:
        if isinstance(request.path, HomePath):
            if place is self.place:
                self.feed(DatagramReceived(request.path, octets, HOME_AGENT, 434, ETHERNET))
            return
        super().deliver(request, octets, place)


def office_profile(
    use: ForeignAgentUse = ForeignAgentUse.PREFER, *, home: bool = True, **changes: object
) -> Profile:
    """The profile of an office worker: foreign agents preferred, and a home link."""
    profile = make_profile()
    agent = replace(profile.home_agent, home_network=IPv4Network("10.77.0.0/24") if home else None)
    return replace(profile, home_agent=agent, use_foreign_agents=use, **changes)  # type: ignore[arg-type]


__all__ = ["AGENT", "HOME_ADDRESS", "Agent", "Office", "office_profile"]
