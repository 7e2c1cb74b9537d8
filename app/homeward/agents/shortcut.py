# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain requests that can be granted, straight on: nearly all that a home agent with many nodes is asked.

What is granted here, HomeAgent grants in the same way and with the same answer; a property test gives every request to
an agent with this and to one without. Whatever is unusual about a request or its sender, and whatever would be
denied, is left to HomeAgent, which begins anew: nothing has been said or remembered then. The order of the checks is
the same, so nobody learns more here either.
"""

from collections.abc import Callable
from ipaddress import IPv4Address

from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.agents.bindings import Binding, Way
from homeward.agents.claims import ClaimReader
from homeward.agents.policy import AgentPolicy, ReverseTunnels
from homeward.agents.replay import Freshness, ReplayGuard
from homeward.agents.wishes import judge_end
from homeward.model.agent_memory import RevocationPeer
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.profile import ReplayStyle
from homeward.model.registration import LIFETIME_DEREGISTER, RequestFlags
from homeward.wire import authenticator, plain_registration
from homeward.wire.identification import seconds

_FLAGS = (
    RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL,
    RequestFlags.DECAPSULATE_SELF,
)


class Shortcut:
    """Grants plain requests by a policy; `is_home` tells addresses of ours."""

    def __init__(
        self,
        policy: AgentPolicy,
        reader: ClaimReader,
        stamps: ReplayGuard,
        *,
        is_home: Callable[[IPv4Address], bool],
    ) -> None:
        self._policy = policy
        self._reader = reader
        self._stamps = stamps
        self._is_home = is_home
        self._agent = int(policy.address)
        self._plain_flags = _FLAGS if policy.reverse_tunnels is ReverseTunnels.OFFERED else ()

    def grant(self, arrived: RequestArrived, at: Instant) -> tuple[Binding, SendReply] | None:
        """The binding that a request makes, and the answer; None where it is not granted here.

        Its time stamp is accepted by this.
        """
        policy, source = self._policy, arrived.source
        if self._reader.refuse_outsider(arrived) is not None:
            return None
        asked = plain_registration.read(arrived.octets)
        if asked is None or self._reader.foreign_agents_at(source, source):
            return None
        claimed, care_of_address = asked.authentication, int(source)
        node = self._reader.node(asked.home_address, claimed.spi)
        if node is None or node.retired or node.replay is not ReplayStyle.TIMESTAMPS:
            return None
        if node.home_address is None or not authenticator.fits(arrived.octets, claimed, node.association):
            return None
        fresh = self._stamps.judge(asked.home_address, asked.identification, by=claimed, at=at)
        if (
            fresh is not Freshness.FRESH
            or not arrived.unicast
            or asked.home_agent != self._agent
            or asked.flags not in self._plain_flags
            or asked.lifetime == LIFETIME_DEREGISTER
            or asked.care_of_address != care_of_address
            or judge_end(source, node.home_address, policy, self._is_home) is not None
        ):
            return None
        revocable = None if asked.revocable is None or not policy.revocation else seconds(at.wall)
        lifetime = min(asked.lifetime, policy.lifetime_max)
        binding = Binding(
            node.home_address,
            source,
            node=node.name,
            spi=claimed.spi,
            identification=asked.identification,
            lifetime=lifetime,
            since=at.boot,
            reverse_tunnel=asked.flags.reverse_tunnel,
            co_located=True,
            way=Way(source),
            revocation=None
            if revocable is None or asked.revocable is None
            else RevocationPeer(
                source,
                REGISTRATION_PORT,
                claimed.spi,
                is_foreign_agent=False,
                announced=revocable,
                heard=asked.revocable,
                inform=False,
            ),
        )
        octets = plain_registration.write_acceptance(asked, lifetime, node.association, revocable=revocable)
        self._stamps.accept(asked.home_address, asked.identification, by=claimed, at=at)
        reply = SendReply(octets, source, port=arrived.source_port, source=arrived.destination)
        return binding, reply
