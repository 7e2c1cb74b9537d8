# SPDX-License-Identifier: GPL-2.0-or-later
"""Home addresses that the home agent gives to mobile nodes which are known by an NAI (RFC 2794, RFC 5944 section 3.6).

The same NAI gets the same address again while that is possible: it keeps what it has until somebody else needs it, and
a new life begins its search where the former one did, at a place that follows from the NAI.
"""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network

from homeward.agents.nodes import Identity, Node, NodeTable


class HomeAddresses:
    """Who has which home address. `in_use` says whether an address has a binding: then nobody else gets it.

    `agent` is the home agent's own address, which nobody gets.
    """

    def __init__(self, nodes: NodeTable, agent: IPv4Address, in_use: Callable[[IPv4Address], bool]) -> None:
        self._nodes = nodes
        self._agent = agent
        self._in_use = in_use
        self._given: dict[Identity, IPv4Address] = {}
        self._holders: dict[IPv4Address, Identity] = {}

    def adopt(self, nodes: NodeTable) -> None:
        """Go by other nodes: those that remain keep what they got, where they still may have it."""
        self._nodes = nodes
        before, self._given, self._holders = self._given, {}, {}
        for node in nodes if before else ():
            if node.identity in before:
                self.restore(node.identity, node.association.spi, before[node.identity])

    def covers(self, address: IPv4Address) -> bool:
        """Whether this is a home address, given away or not."""
        return self.covers_number(int(address))

    def covers_number(self, address: int) -> bool:
        """The same of an address as a number."""
        if address in self._nodes:
            return True
        return bool(self._nodes.pools) and any(IPv4Address(address) in pool for pool in self._nodes.pools)

    def holder(self, address: IPv4Address) -> Identity:
        """Whose home address it is: that of the node which has it, or which got it."""
        got_it = self._holders.get(address) if self._holders else None
        return int(address) if got_it is None else got_it

    def held(self, node: Node) -> IPv4Address | None:
        """The home address that the node has or got, if any."""
        return node.home_address if node.home_address is not None else self._given.get(node.identity)

    def restore(self, identity: Identity, spi: int, address: IPv4Address) -> bool:
        """A former life, or a former policy, gave the node this address: whether it may have it now."""
        if not isinstance(identity, str):
            return identity == int(address)
        node = self._nodes.find(identity, spi)
        pool = None if node is None else node.home_addresses
        if pool is None or not self._usable(address, pool):
            return False
        self._give(identity, address)
        return True

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
            return node.home_address if wish == node.home_address or wish.is_unspecified else None
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
        if address not in pool or address == self._agent or int(address) in self._nodes:
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
