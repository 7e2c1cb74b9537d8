# SPDX-License-Identifier: GPL-2.0-or-later
"""Home addresses that the home agent gives to mobile nodes which are known by an NAI (RFC 2794, RFC 5944 section 3.6).

The same NAI gets the same address again while that is possible: it keeps what it has until somebody else needs it, and
a new life begins its search where the former one did, at a place that follows from the NAI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from homeward.agents.policy import AgentPolicy, Identity, Node


class HomeAddresses:
    """Who has which home address. `in_use` says whether an address has a binding: then nobody else gets it."""

    def __init__(self, policy: AgentPolicy, in_use: Callable[[IPv4Address], bool]) -> None:
        fixed = {node.home_address for node in policy.nodes if node.home_address is not None}
        self._fixed = frozenset(fixed)
        self._pools = frozenset(node.home_addresses for node in policy.nodes if node.home_addresses)
        self._never = self._fixed | {policy.address}
        self._in_use = in_use
        self._given: dict[Identity, IPv4Address] = {}
        self._holders: dict[IPv4Address, Identity] = {}

    def covers(self, address: IPv4Address) -> bool:
        """Whether this is a home address, given away or not."""
        return address in self._fixed or any(address in pool for pool in self._pools)

    def prefixes(self) -> tuple[IPv4Network, ...]:
        """All home addresses there can be."""
        return tuple(sorted({*map(IPv4Network, self._fixed), *self._pools}))

    def holder(self, address: IPv4Address) -> Identity:
        """Whose home address it is: that of the node which has it, or which got it."""
        return self._holders.get(address, address)

    def held(self, node: Node) -> IPv4Address | None:
        """The home address that the node has or got, if any."""
        return node.home_address if node.home_address is not None else self._given.get(node.identity)

    def restore(self, node: Node, address: IPv4Address) -> None:
        """A former life, or a former policy, gave the node this address."""
        if node.home_addresses is not None and self._usable(address, node.home_addresses):
            self._give(node.identity, address)

    def inherit(self, before: HomeAddresses, nodes: Iterable[Node]) -> None:
        """What these nodes got under another policy is still theirs, where this one allows it."""
        for node in nodes:
            address = before._given.get(node.identity)
            if address is not None:
                self.restore(node, address)

    def expected(self, node: Node, wish: IPv4Address) -> IPv4Address:
        """What a reply names while nobody has proved anything: nothing is given away by it."""
        if not wish.is_unspecified or node.home_addresses is None:
            return node.home_address if wish.is_unspecified and node.home_address is not None else wish
        known = self._given.get(node.identity)
        return known if known is not None else next(self._candidates(node, node.home_addresses), wish)

    def give(self, node: Node, wish: IPv4Address) -> IPv4Address | None:
        """The node's home address; None if it may not have the one that it wishes, or if none is left (wish 0.0.0.0).

        Only for a node that has proved who it is.
        """
        if node.home_addresses is None:
            return node.home_address if wish.is_unspecified or wish == node.home_address else None
        if wish.is_unspecified:
            return self._given.get(node.identity) or self._search(node, node.home_addresses)
        return wish if self._take(node, node.home_addresses, wish) else None

    def _take(self, node: Node, pool: IPv4Network, wish: IPv4Address) -> bool:
        """Whether the node may keep using an address that an earlier life of ours may have given it."""
        holder = self._holders.get(wish)
        if holder is not None:
            return holder == node.identity
        if not self._usable(wish, pool):
            return False
        before = self._given.get(node.identity)
        if before is not None and self._in_use(before):
            return False
        self._give(node.identity, wish)
        return True

    def _search(self, node: Node, pool: IPv4Network) -> IPv4Address | None:
        found = next(self._candidates(node, pool), None)
        if found is None:
            # Dictionaries keep their order: whoever got an address first, and does not use it, loses it first.
            idle = (each for each in self._holders if each in pool and not self._in_use(each))
            found = next(idle, None)
        if found is not None:
            self._give(node.identity, found)
        return found

    def _candidates(self, node: Node, pool: IPv4Network) -> Iterator[IPv4Address]:
        size = pool.num_addresses
        start = _scattered(node.nai or node.name) % size
        for step in range(size):
            address = pool[(start + step) % size]
            if address not in self._holders and self._usable(address, pool):
                yield address

    def _usable(self, address: IPv4Address, pool: IPv4Network) -> bool:
        if address not in pool or address in self._never:
            return False
        ends = (pool.network_address, pool.broadcast_address)
        return pool.prefixlen > 30 or address not in ends  # the pool may be the whole of a link's prefix

    def _give(self, identity: Identity, address: IPv4Address) -> None:
        before = self._given.pop(identity, None)
        if before is not None:
            del self._holders[before]
        loser = self._holders.pop(address, None)
        if loser is not None:
            del self._given[loser]
        self._given[identity] = address
        self._holders[address] = identity


def _scattered(text: str) -> int:
    """A number that follows from a text and is another one for nearly any other text (FNV-1a; it keeps no secret)."""
    number = 0x811C9DC5
    for octet in text.encode():
        number = (number ^ octet) * 0x01000193 & 0xFFFFFFFF
    return number
