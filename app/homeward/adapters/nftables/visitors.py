# SPDX-License-Identifier: GPL-2.0-or-later
"""A foreign agent's gate for its visitors' packets: whose are whose, by address and station, and which are taken.

A home address in a packet proves nothing, and neither does the station; but the pair is what the registration was made
with. So a packet from a visitor's home address goes on only in a frame from that visitor's station, and those that are
to be tunnelled get a mark, by which the kernel routes them to us. That is one look into a hash table for each packet,
however many visitors there are. Requests on port 434 are read from the packet socket and end here, so that no flood of
them fills the socket that home agents' replies come in by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from homeward.adapters.nftables.library import Nftables
from homeward.model.errors import PlanError


@dataclass(frozen=True, slots=True)
class Station:
    """One visitor: its packets come from this home address, in frames of this hardware address, on this link.

    `captured` says that what it sends is to be marked.
    """

    home_address: IPv4Address
    interface: str
    hardware_address: bytes
    captured: bool


class VisitorGate:
    """The rules of one table, named by whoever uses it; they outlive us, and a later life replaces them."""

    def __init__(self, table: str, *, mark: int) -> None:
        self._table = table
        self._mark = mark
        self._links: tuple[str, ...] = ()
        self._care_of: tuple[IPv4Address, ...] = ()
        self._stations: dict[IPv4Address, Station] = {}
        self._nft: Nftables | None = None

    def put_up(self, links: Iterable[str], care_of_addresses: Iterable[IPv4Address]) -> None:
        """Replace whatever stands by a gate for these access links, without visitors. Raises Unavailable, NotPermitted,
        PlanError.

        The kernel is kept from answering tunnel packets to `care_of_addresses`, which we take ourselves, with errors.
        """
        self._links, self._care_of = tuple(sorted(links)), tuple(care_of_addresses)
        self._stations.clear()
        self._run(self._whole())

    def admit(self, station: Station) -> None:
        """Let this visitor's packets in; replaces what was said about its home address. Raises as `put_up`."""
        before = self._stations.get(station.home_address)
        if before == station:
            return
        self._stations[station.home_address] = station
        commands = [] if before is None else self._without(before)
        self._change([*commands, *self._with(station)])

    def expel(self, home_address: IPv4Address) -> None:
        """The home address means nothing here any more. Raises as `put_up`."""
        before = self._stations.pop(home_address, None)
        if before is not None:
            self._change(self._without(before))

    def restore(self) -> None:
        """Put everything up again, in one transaction, in case somebody has flushed it. Raises as `put_up`."""
        self._run(self._whole())

    def take_down(self) -> None:
        """Remove the table, whoever's life it is from. Raises as `put_up`."""
        self._stations.clear()
        self._run(self._cleared())

    def close(self) -> None:
        """Let go of the kernel; everything stays as it is."""
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _whole(self) -> str:
        links = ", ".join(f'"{link}"' for link in self._links)
        care_of = ", ".join(str(address) for address in self._care_of)
        commands = f"""{self._cleared()}
        table inet {self._table} {{
            set homes {{ type ipv4_addr; }}
            set stations {{ type ifname . ipv4_addr . ether_addr; }}
            set captured {{ type ipv4_addr; }}
            chain arrivals {{
                type filter hook prerouting priority -160; policy accept;
                iifname != {{ {links} }} return
                ip saddr @homes iifname . ip saddr . ether saddr != @stations counter drop
                ip saddr @captured meta mark set {self._mark}
            }}
            chain own {{
                type filter hook input priority 0; policy accept;
                iifname {{ {links} }} udp dport 434 drop
            }}
            chain departures {{
                type filter hook output priority 0; policy accept;
                ip saddr {{ {care_of} }} icmp type destination-unreachable \
                    icmp code {{ prot-unreachable, port-unreachable }} @th,136,8 {{ 4, 47, 55 }} drop
            }}
        }}
        """
        return "\n".join([commands, *(line for one in self._stations.values() for line in self._with(one))])

    def _with(self, station: Station) -> list[str]:
        return [f"add {rest}" for rest in self._elements(station)]

    def _without(self, station: Station) -> list[str]:
        return [f"delete {rest}" for rest in self._elements(station)]

    def _elements(self, station: Station) -> list[str]:
        home, mac = station.home_address, station.hardware_address.hex(":")
        wanted = [
            f"element inet {self._table} homes {{ {home} }}",
            f'element inet {self._table} stations {{ "{station.interface}" . {home} . {mac} }}',
        ]
        if station.captured:
            wanted.append(f"element inet {self._table} captured {{ {home} }}")
        return wanted

    def _cleared(self) -> str:
        # Adding what may be there and then deleting it needs no `destroy`, which Debian 12 does not know.
        return f"add table inet {self._table}\ndelete table inet {self._table}\n"

    def _change(self, commands: list[str]) -> None:
        try:
            self._run("\n".join(commands))
        except PlanError:  # somebody has flushed it
            self.restore()

    def _run(self, commands: str) -> None:
        if self._nft is None:
            self._nft = Nftables("changing the gate for visitors")
        self._nft.run(commands)
