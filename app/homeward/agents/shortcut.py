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
from homeward.agents.wishes import can_be_an_end
from homeward.model.agent_memory import RevocationPeer
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.registration import LIFETIME_DEREGISTER, RequestFlags
from homeward.wire import plain_registration
from homeward.wire.identification import seconds
from homeward.wire.plain_registration import PlainRequest

_D = int(RequestFlags.DECAPSULATE_SELF)
_D_T = int(RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL)


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
        self._plain_flags = (_D_T, _D) if policy.reverse_tunnels is ReverseTunnels.OFFERED else ()

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
        found = self._reader.plain_node(asked.home_address, asked.spi)
        if found is None:
            return None
        name, key, algorithm = found
        if not plain_registration.is_proved(arrived.octets, asked, key, algorithm):
            return None
        who, identification = asked.home_address, asked.identification
        if self._stamps.judge(who, identification, by=asked, at=at) is not Freshness.FRESH:
            return None
        if not self._is_wish_plain(arrived, asked):
            return None
        lifetime = min(asked.lifetime, policy.lifetime_max)
        heard, announced, peer = asked.revocable if policy.revocation else None, None, None
        if heard is not None:
            announced = seconds(at.wall)
            peer = RevocationPeer(
                source,
                REGISTRATION_PORT,
                asked.spi,
                is_foreign_agent=False,
                announced=announced,
                heard=heard,
                inform=False,
            )
        binding = Binding(
            IPv4Address(who),
            source,
            node=name,
            spi=asked.spi,
            identification=identification,
            lifetime=lifetime,
            since=at.boot,
            reverse_tunnel=asked.flags == _D_T,
            co_located=True,
            way=Way(source),
            revocation=peer,
        )
        octets = plain_registration.accept(asked, key, algorithm, lifetime=lifetime, revocable=announced)
        self._stamps.accept(who, identification, by=asked, at=at)
        return binding, SendReply(octets, source, port=arrived.source_port, source=arrived.destination)

    def _is_wish_plain(self, arrived: RequestArrived, asked: PlainRequest) -> bool:
        care_of_address = asked.care_of_address
        return (
            arrived.unicast
            and asked.home_agent == self._agent
            and asked.flags in self._plain_flags
            and asked.lifetime != LIFETIME_DEREGISTER
            and care_of_address == int(arrived.source)
            and care_of_address not in (asked.home_address, self._agent)
            and can_be_an_end(care_of_address)
            and not self._is_home(arrived.source)
        )
