# SPDX-License-Identifier: GPL-2.0-or-later
"""A home agent's bindings, and what follows whenever one begins, changes or ends."""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from homeward.agents.agent_events import (
    AgentEffect,
    BindingChanged,
    Change,
    Forward,
    ProxyHomeAddress,
    ReleaseHomeAddress,
    Remember,
    SendReply,
    StopForwarding,
)
from homeward.agents.bindings import Binding, BindingTable, is_with_foreign_agent
from homeward.agents.memories import remembered
from homeward.agents.nodes import Identity
from homeward.model.instant import Instant


class Ledger:
    """All bindings. Each entry says in this order what to remember, to forward, to answer for, and to log.

    `holder` says whose a home address is, `stamp` what the highest time stamp is that was accepted of somebody;
    `at_home` whether the home addresses have a link to be answered for on.
    """

    def __init__(
        self,
        holder: Callable[[IPv4Address], Identity],
        stamp: Callable[[Identity], int | None],
        *,
        at_home: bool,
    ) -> None:
        self._bindings = BindingTable()
        self._holder = holder
        self._stamp = stamp
        self._at_home = at_home

    def __len__(self) -> int:
        return len(self._bindings)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings)

    def __contains__(self, home_address: IPv4Address) -> bool:
        """Whether the home address has a binding."""
        return home_address in self._bindings

    def get(self, home_address: IPv4Address) -> Binding | None:
        """The binding of a home address, if there is one."""
        return self._bindings.get(home_address)

    def home_addresses(self) -> list[int]:
        """Those that have a binding, as numbers, in order: quick even for a hundred thousand."""
        return self._bindings.home_addresses()

    def next_expiry(self) -> float | None:
        """Boot time at which the next binding ends, None when none ever does."""
        return self._bindings.next_expiry()

    def may_end_before(self, boot: float) -> bool:
        """Whether one could end by itself before this; False is sure."""
        return self._bindings.may_end_before(boot)

    def remember(self, identity: Identity, binding: Binding | None, at: Instant) -> Remember:
        """What is known of somebody now."""
        return Remember(remembered(identity, self._stamp(identity), binding, at))

    def enter(
        self, binding: Binding, reply: SendReply, at: Instant
    ) -> tuple[tuple[AgentEffect, ...], Binding | None]:
        """A binding is made, or takes the place of another one.

        That one comes behind the effects where it was with a foreign agent that is to be told (see BindingTable.put).
        """
        change, left = self._bindings.put(binding)
        remember = self.remember(self._holder(binding.home_address), binding, at)
        # Forwarding first: when the mobile node reads the reply, its packets already have a way.
        changed = BindingChanged(change, binding)
        if change is Change.MADE:
            return (remember, *self._begin(binding), reply, changed), None
        return (remember, _forward(binding), reply, changed), left

    def may_enter_plain(self, home_address: int) -> bool:
        """Whether nobody need be told of it but the mobile node: no link at home, no foreign agent that it leaves."""
        before = self._bindings.packed(home_address)
        return not self._at_home if before is None else not is_with_foreign_agent(before)

    def enter_plain(self, home_address: int, packed: bytes, expires: float | None) -> Change:
        """A binding that is packed already (see bindings.pack_plain) is made, moved or renewed."""
        return self._bindings.put_packed(home_address, packed, expires)[0]

    def complete(self, binding: Binding, at: Instant) -> tuple[AgentEffect, ...]:
        """A half-bound tunnel has shown its port."""
        self._bindings.put(binding)
        remember = self.remember(self._holder(binding.home_address), binding, at)
        return (remember, _forward(binding), BindingChanged(Change.COMPLETED, binding))

    def restore(self, binding: Binding) -> tuple[AgentEffect, ...]:
        """A binding that stood in a former life stands again."""
        self._bindings.put(binding)
        return self._begin(binding)

    def strike(
        self, binding: Binding, change: Change, at: Instant, *, asked: bytes | None = None
    ) -> tuple[AgentEffect, ...]:
        """A binding ends before its time; `asked` are the octets of a request from the home link that ended it."""
        self._bindings.remove(binding.home_address)
        return self._end(binding, change, at, asked)

    def expire(self, at: Instant) -> tuple[AgentEffect, ...]:
        """Whatever is overdue ends, silently towards the mobile node: a reply answers a request (RFC 5944 3.8)."""
        effects: list[AgentEffect] = []
        for binding in self._bindings.expire(at.boot):
            effects += self._end(binding, Change.EXPIRED, at, None)
        return tuple(effects)

    def _begin(self, binding: Binding) -> tuple[AgentEffect, ...]:
        if not self._at_home:
            return (_forward(binding),)
        return (_forward(binding), ProxyHomeAddress(binding.home_address))

    def _end(
        self, binding: Binding, change: Change, at: Instant, asked: bytes | None
    ) -> tuple[AgentEffect, ...]:
        home_address = binding.home_address
        remember = self.remember(self._holder(home_address), None, at)
        stop, changed = StopForwarding(home_address), BindingChanged(change, binding)
        if not self._at_home:
            return (remember, stop, changed)
        return (remember, stop, ReleaseHomeAddress(home_address, asked), changed)


def _forward(binding: Binding) -> Forward:
    way = binding.way
    return Forward(
        binding.home_address,
        way.endpoint,
        encapsulation=way.encapsulation,
        reverse_tunnel=binding.reverse_tunnel,
        udp=way.udp,
        port=way.port,
        expires=binding.expires,
    )
