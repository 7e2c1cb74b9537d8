# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain requests that can be granted, straight on: nearly all that a home agent with many nodes is asked.

What is granted here, HomeAgent grants in the same way and with the same answer; a property test gives every request to
an agent with this and to one without. Whatever is unusual about a request or its sender, and whatever would be
denied, is left to HomeAgent, which begins anew: nothing has been said or remembered then. The order of the checks is
the same, so nobody learns more here either.
"""

from collections.abc import Callable

from homeward.agents.agent_events import PlainGrant, RequestArrived
from homeward.agents.bindings import pack_plain
from homeward.agents.claims import ClaimReader
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.ledger import Ledger
from homeward.agents.memories import name_of
from homeward.agents.policy import AgentPolicy, ReverseTunnels
from homeward.agents.replay import ReplayGuard
from homeward.agents.tunnel_records import plain_record
from homeward.agents.wishes import can_be_an_end
from homeward.model.instant import Instant
from homeward.model.lifetime import ends_at
from homeward.model.memory_records import record_plain
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
        ledger: Ledger,
        *,
        is_home: Callable[[int], bool],
    ) -> None:
        self._policy = policy
        self._networks: TrustedNetworks = policy.networks
        self._reader = reader
        self._stamps = stamps
        self._ledger = ledger
        self._is_home = is_home
        self._agent = int(policy.address)
        self._plain_flags = (_D_T, _D) if policy.reverse_tunnels is ReverseTunnels.OFFERED else ()

    def grant(self, arrived: RequestArrived, at: Instant) -> PlainGrant | None:
        """What follows from a request, which is in force by now; None where it is not granted here."""
        policy, source = self._policy, int(arrived.source)
        if not self._networks.is_inside(source, arrived.interface):
            return None
        asked = plain_registration.read(arrived.octets)
        if (
            asked is None
            or asked.care_of_address != source
            or not self._is_wish_plain(arrived, asked)
            or self._reader.foreign_agents_at(arrived.source, arrived.source)
        ):
            return None
        who = asked.home_address
        found = self._reader.plain_node(who, asked.spi)
        if found is None or not self._ledger.may_enter_plain(who):
            return None
        node, key, algorithm = found
        if not plain_registration.is_proved(arrived.octets, asked, key, algorithm):
            return None
        stamp = self._stamps.accept_fresh(who, asked.identification, by=asked, at=at)
        if stamp is None:
            return None
        lifetime, announced, peer = min(asked.lifetime, policy.lifetime_max), None, None
        if asked.revocable is not None and policy.revocation:
            announced = seconds(at.wall)
            peer = (REGISTRATION_PORT, announced, asked.revocable)
        care_of_address, reverse_tunnel = asked.care_of_address, asked.flags == _D_T
        expires = ends_at(at.boot, lifetime)
        binding = pack_plain(
            care_of_address,
            node=node,
            spi=asked.spi,
            identification=asked.identification,
            lifetime=lifetime,
            since=at.boot,
            reverse_tunnel=reverse_tunnel,
            peer=peer,
        )
        memory = record_plain(
            name_of(who),
            who,
            care_of_address,
            stamp=stamp,
            node=node,
            spi=asked.spi,
            identification=asked.identification,
            lifetime=lifetime,
            since_wall=at.wall,
            reverse_tunnel=reverse_tunnel,
            peer=peer,
        )
        tunnel = plain_record(care_of_address, reverse_tunnel=reverse_tunnel, expires=expires)
        change = self._ledger.enter_plain(who, binding, expires)
        octets = plain_registration.accept(asked, key, algorithm, lifetime=lifetime, revocable=announced)
        return PlainGrant(who, change, binding, memory, tunnel, octets, arrived)

    def _is_wish_plain(self, arrived: RequestArrived, asked: PlainRequest) -> bool:
        care_of_address = asked.care_of_address
        return (
            arrived.unicast
            and asked.home_agent == self._agent
            and asked.flags in self._plain_flags
            and asked.lifetime != LIFETIME_DEREGISTER
            and care_of_address != asked.home_address
            and care_of_address != self._agent
            and can_be_an_end(care_of_address)
            and not self._is_home(care_of_address)
        )
