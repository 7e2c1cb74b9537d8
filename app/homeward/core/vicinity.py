# SPDX-License-Identifier: GPL-2.0-or-later
"""What the access link itself offers once it is proved trusted: the home link, or a foreign agent.

Nothing here is believed: an advertisement, or an address of the home network, is a hint to try a second registration,
which must prove itself as the first one did (R-14, R-17, R-22, R-84). What is refused, or falls silent, is left for the
co-located care-of address, which needs nobody's help.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from homeward.core.agent_discovery import AgentDiscovery, Heard, KnownAgent
from homeward.core.challenges import Challenges, ForeignKeys
from homeward.core.clock_sync import Entropy
from homeward.core.registration import AgentShare
from homeward.model.access import AgentPath, Attachment, HomePath, Link
from homeward.model.agent import AgentFlags
from homeward.model.effects import Effect, WithdrawHomeAddress
from homeward.model.encapsulation import Encapsulation
from homeward.model.inputs import AgentAdvertised
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.profile import ForeignAgentUse, Profile

LEFT_ALONE = 60.0
"""Seconds for which a foreign agent, or a home link, that refused or fell silent is not tried again; then doubled."""
LEFT_ALONE_MAX = 960.0
PAUSE_REFUSED = 1.0
"""Seconds before anything else is tried after a refusal, doubled each time: a crowd of agents is no storm (R-163)."""
PAUSE_SILENT = 20.0
"""The same after a try that may have moved the binding away for seconds."""
PAUSE_MAX = 640.0
SHORTEST_LIFETIME = 10
"""An agent that takes no registration for so many seconds is of no use: the binding would end again and again."""
CHALLENGE_TRIES = 2
"""Requests in a row that may fail for the sake of a challenge before the agent is left."""

LocalPath = AgentPath | HomePath


class Vicinity:
    """The agents of the present link, which of them is tried or used, and what each has refused."""

    def __init__(self, profile: Profile, entropy: Entropy, *, keys: ForeignKeys) -> None:
        self._profile = profile
        self.discovery = AgentDiscovery(entropy)
        self.path: LocalPath | None = None
        """What is tried or used at present."""
        self._looking: tuple[int, int] | None = None
        self._left: dict[object, float] = {}
        self._times_left: dict[object, int] = {}
        self._pause = 0.0
        self._not_before = 0.0
        self.encapsulation: Encapsulation | None = None
        """What an agent of this link made us fall back to; its unsigned word counts for no other path."""
        self._lifetimes: dict[IPv4Address, int] = {}
        self._challenges = Challenges(keys)
        self._challenged = 0

    # --- what there is ----------------------------------------------------------------------------------------------

    def look_around(self, link: Link | None, at: float) -> None:
        """This link has carrier and no address yet: agents are asked for while DHCP is at work (R-26)."""
        looking = None if link is None else (link.index, link.carrier_changes)
        if looking == self._looking:
            return
        self._looking = looking
        if link is not None:
            self.discovery.attach(link.index, link.name, IPv4Address(0), at)

    def attach(self, attachment: Attachment, carrier_changes: int | None, at: float) -> None:
        """A new stay on a link: ask for agents at once, or go on where `look_around` has begun."""
        looking, self._looking = self._looking, None
        if looking == (attachment.link_index, carrier_changes):
            self.discovery.addressed(attachment.care_of_address)
        else:
            self.discovery.attach(attachment.link_index, attachment.link_name, attachment.care_of_address, at)
        self._left.clear()
        self._times_left.clear()
        self._pause = self._not_before = 0.0
        self.encapsulation = None
        self._lifetimes.clear()
        self._challenges.forget()
        for agent in self.discovery.agents:
            self._challenges.advertised(agent.address, agent.advertisement.challenge)
        self._challenged = 0

    def heard(self, fact: AgentAdvertised, at: float) -> Heard:
        """An advertisement came in."""
        heard = self.discovery.heard(fact, at)
        if heard.agent is not None:
            self._challenges.advertised(heard.agent.address, heard.agent.advertisement.challenge)
        return heard

    def wish(self, attachment: Attachment, home_address: IPv4Address | None, at: float) -> LocalPath | None:
        """The best that this link offers now, None for the co-located care-of address."""
        if home_address is None or (at < self._not_before and self.path is None):
            return None
        home = HomePath(attachment.link_index, attachment.link_name, home_address)
        if self._is_home(attachment) and home not in self._left:
            return home
        use = self._profile.use_foreign_agents
        if use is ForeignAgentUse.NEVER:
            return None
        for agent in self._by_preference():
            if use is not ForeignAgentUse.PREFER and not agent.demands_registration:
                continue
            path = self._through(agent, attachment, home_address, use)
            if path is not None:
                return path
        return None

    def next_deadline(self) -> float | None:
        """When to solicit again, to forget an agent, or to try again what was left."""
        moments = [self.discovery.deadline, *self._left.values(), self._not_before or None]
        return min((moment for moment in moments if moment is not None), default=None)

    def deadline_passed(self, at: float) -> tuple[Effect, ...]:
        """Agents that have fallen silent are forgotten (R-121), others are asked for, what was left may be tried."""
        self._left = {what: until for what, until in self._left.items() if at < until}
        if at >= self._not_before:
            self._not_before = 0.0
        self.discovery.expired(at)
        return self.discovery.due(at)

    # --- what to say to an agent ------------------------------------------------------------------------------------

    def lifetime_at(self, path: AgentPath) -> int:
        """The longest lifetime that the agent takes (R-142, R-155)."""
        agent = self.discovery.known(path.agent)
        advertised = 0xFFFF if agent is None else agent.advertisement.registration_lifetime
        return min(advertised, self._lifetimes.get(path.agent, 0xFFFF))

    def share_with(self, path: AgentPath) -> AgentShare:
        """What the next request says to the agent itself: its challenge answered, and who we are (R-145, R-275)."""
        keys = self._challenges.keys
        association = keys.mobile_foreign(path.agent)
        challenge = self._challenges.take(path.agent) if self._challenges.demands(path.agent) else None
        server = keys.server if challenge is not None and association is None else None
        return AgentShare(association, server, challenge)

    def udp_tunnel_through(self, path: AgentPath) -> UdpTunnelRequest | None:
        """For a care-of address of our own, where the agent lets tunnels in UDP through (R-223, R-235)."""
        agent = self.discovery.known(path.agent)
        if not path.is_co_located or agent is None or AgentFlags.UDP_TUNNEL not in agent.advertisement.flags:
            return None
        return UdpTunnelRequest(through_foreign_agent=True)

    # --- what came of it --------------------------------------------------------------------------------------------

    def accepted(self, path: LocalPath, challenge: bytes | None) -> None:
        """The registration by this path stands."""
        self._challenged = 0
        self._pause = 0.0
        self._times_left.pop(self._key(path), None)
        if isinstance(path, AgentPath):
            self._challenges.returned(path.agent, challenge)
            self.discovery.registered()

    def refuse_lifetime(self, path: AgentPath, most: int) -> bool:
        """Code 69: whether a shorter lifetime is worth another request."""
        shorter = SHORTEST_LIFETIME <= most < self.lifetime_at(path)
        if shorter:
            self._lifetimes[path.agent] = most
        return shorter

    def refuse_challenge(self, path: AgentPath, challenge: bytes | None, at: float) -> bool:
        """Codes 104 to 108: whether there is a newer challenge to answer (R-276); else one is asked for."""
        self._challenges.demanded(path.agent)
        self._challenges.returned(path.agent, challenge)
        self._challenged += 1
        if not self._challenges.keys.can_answer(path.agent) or self._challenged > CHALLENGE_TRIES:
            return False
        if self._challenges.lacks_fresh_one(path.agent):
            self.discovery.ask_again(at)
            return False
        return True

    def leave(self, at: float | None = None, *, pause: float = PAUSE_REFUSED) -> tuple[Effect, ...]:
        """Go by this path no longer; with `at`, do not come back to it, nor try another one, for a while."""
        path, self.path = self.path, None
        if path is None:
            return ()
        if at is not None:
            self._leave_alone(self._key(path), at)
            self._pause = min(max(2 * self._pause, pause), PAUSE_MAX)
            self._not_before = at + self._pause
        return (WithdrawHomeAddress(path),) if isinstance(path, HomePath) else ()

    def leave_agent(self, path: AgentPath, at: float) -> None:
        """The whole agent is of no use, whichever of its care-of addresses."""
        self._leave_alone(path.agent, at)

    def _leave_alone(self, what: object, at: float) -> None:
        times = self._times_left.get(what, 0)
        self._times_left[what] = times + 1
        self._left[what] = at + min(LEFT_ALONE * 2 ** min(times, 10), LEFT_ALONE_MAX)

    # --- how --------------------------------------------------------------------------------------------------------

    def _by_preference(self) -> tuple[KnownAgent, ...]:
        """The one that serves us stays the first as long as it lives (R-123)."""
        serving = self.path.agent if isinstance(self.path, AgentPath) else None
        agents = self.discovery.foreign_agents
        return tuple(sorted(agents, key=lambda agent: agent.address != serving))

    def _through(
        self, agent: KnownAgent, attachment: Attachment, home_address: IPv4Address, use: ForeignAgentUse
    ) -> AgentPath | None:
        """The path by this agent that nothing speaks against, the one in use before all others (R-118)."""
        serves = isinstance(self.path, AgentPath) and self.path.agent == agent.address
        advertisement = agent.advertisement
        if agent.address in self._left or (advertisement.is_busy and not serves):
            return None
        if advertisement.registration_lifetime < SHORTEST_LIFETIME:
            return None
        own = attachment.care_of_address
        offered = advertisement.care_of_addresses if use is ForeignAgentUse.PREFER else (own,)
        paths = [
            AgentPath(
                attachment.link_index,
                attachment.link_name,
                own if care_of == own else home_address,
                agent.address,
                agent.hardware_address,
                care_of,
            )
            for care_of in offered
            if care_of != home_address and not care_of.is_multicast and not care_of.is_unspecified
        ]
        if self.path in paths:
            return self.path if isinstance(self.path, AgentPath) else None
        return next((path for path in paths if self._key(path) not in self._left), None)

    def _is_home(self, attachment: Attachment) -> bool:
        network = self._profile.home_agent.home_network
        if network is None:
            return False
        if attachment.care_of_address in network:
            return True
        agent = self.discovery.known(self._profile.home_agent.address)
        return agent is not None and AgentFlags.HOME_AGENT in agent.advertisement.flags

    def _key(self, path: LocalPath) -> object:
        return path if isinstance(path, HomePath) else (path.agent, path.care_of_address)
