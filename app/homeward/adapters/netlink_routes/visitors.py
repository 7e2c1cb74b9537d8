# SPDX-License-Identifier: GPL-2.0-or-later
"""What a foreign agent needs of the kernel's routing: visitors' packets to one device, and from it to their stations.

Marked packets (visitors' own) are led into the device. What comes out of it goes to visitors, each on its link and by a
permanent neighbour entry, so that nobody is ever asked by ARP for a home address, and to nobody else: what matches no
visitor ends here. The host's own ICMP errors take the same way, since the other one leads through the home agent. No
route of these is in the main table: other traffic of the host knows nothing of visitors.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.netlink_routes.link_settings import LinkSettings
from homeward.adapters.netlink_routes.rtnetlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Rtnetlink,
    attribute,
    index_of,
    read_attributes,
    u32,
)
from homeward.model.errors import PlanError

CAPTURE_TABLE: Final = 435
VISITOR_TABLE: Final = 436
RULE_CAPTURE: Final = 190
RULE_DELIVER: Final = 191
RULE_NOWHERE: Final = 192
RULE_ERRORS: Final = 193

_RTM_GETADDR = 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_RTM_NEWRULE, _RTM_DELRULE = 32, 33

_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_RULE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_ADDRESS: Final = struct.Struct("=BBBBi")
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 6, 15
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK, _FRA_IP_PROTO = 3, 6, 10, 15, 16, 22
_TO_TABLE, _BLACKHOLE_RULE = 1, 6
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT: Final = 0x80
_IFA_LOCAL: Final = 2
_PROTOCOL_STATIC: Final = 4
_SCOPE_LINK, _SCOPE_UNIVERSE = 253, 0
_UNICAST, _BLACKHOLE = 1, 6
_LAST_METRIC: Final = 0xFFFFFFFF
_ICMP: Final = 1


class VisitorRoutes:
    """Rules, routes and neighbours around one device, in this network namespace."""

    def __init__(self, device: str, *, mark: int) -> None:
        self._device = device
        self._mark = mark
        self._index = 0
        self._netlink = Rtnetlink()
        self._visitors: dict[IPv4Address, tuple[int, bytes]] = {}
        self._settings = LinkSettings()

    def bring_up(self, *, mtu: int, access: frozenset[str], uplinks: frozenset[str]) -> None:
        """Take the device up and lead visitors' packets by it, without visitors yet. Raises PlanError, NotPermitted.

        What a former life left is taken away first.
        """
        self._remove_all()
        self._index = index_of(self._device)
        for name, value in (("send_redirects", "0"), ("forwarding", "1"), ("accept_local", "1")):
            self._settings.put(f"ipv4/conf/{self._device}/{name}", value, keep=False)
        self._settings.put(f"ipv6/conf/{self._device}/disable_ipv6", "1", keep=False, optional=True)
        for link in sorted(access | uplinks):
            index_of(link)
            self._settings.put(f"ipv4/conf/{link}/forwarding", "1", keep=True)
        for link in sorted(access):
            # It would send visitors past us, to a router beside us that knows nothing of them.
            self._settings.put(f"ipv4/conf/{link}/send_redirects", "0", keep=True)
        for link in (self._device, *sorted(access)):
            # Home addresses are never routed to where their packets come from, which a strict check would refuse.
            self._settings.loosen(link, keep=link != self._device)
        self.set_mtu(mtu)
        self._route(_RTM_NEWROUTE, CAPTURE_TABLE, None, link=self._index)
        self._route(_RTM_NEWROUTE, CAPTURE_TABLE, None, link=None)
        mark = attribute(_FRA_FWMARK, u32(self._mark)) + attribute(_FRA_FWMASK, u32(0xFFFFFFFF))
        from_device = attribute(_FRA_IIFNAME, self._device.encode() + b"\0")
        own_icmp = attribute(_FRA_IIFNAME, b"lo\0") + attribute(_FRA_IP_PROTO, bytes([_ICMP]))
        self._rule(_RTM_NEWRULE, RULE_CAPTURE, mark, table=CAPTURE_TABLE)
        self._rule(_RTM_NEWRULE, RULE_DELIVER, from_device, table=VISITOR_TABLE)
        self._rule(_RTM_NEWRULE, RULE_NOWHERE, from_device, table=None)
        self._rule(_RTM_NEWRULE, RULE_ERRORS, own_icmp, table=VISITOR_TABLE)

    def set_mtu(self, mtu: int) -> None:
        """The longest packet that fits the tunnels; longer ones the kernel cuts, or tells their senders."""
        self._netlink.bring_up(self._device, self._index, mtu=mtu)

    def admit(self, home_address: IPv4Address, interface: str, hardware_address: bytes) -> None:
        """Lead what comes out of the device for a home address to this station. Raises PlanError, NotPermitted."""
        index = index_of(interface)
        before = self._visitors.get(home_address)
        if before == (index, hardware_address):
            return
        if before is not None and before[0] != index:
            self.expel(home_address)
        self._visitors[home_address] = index, hardware_address
        self._lead_to(home_address, index, hardware_address)

    def expel(self, home_address: IPv4Address) -> None:
        """Lead nothing to this home address any more. Raises PlanError, NotPermitted."""
        known = self._visitors.pop(home_address, None)
        if known is not None:
            self._remove_visitor(home_address, known[0])

    def restore(self) -> None:
        """Put the way to each visitor up again: it is gone where a link was down meanwhile. Raises as `admit`."""
        for home_address, (index, hardware_address) in self._visitors.items():
            self._try(self._lead_to, home_address, index, hardware_address)

    def own_addresses(self) -> frozenset[IPv4Address]:
        """All IPv4 addresses of this host."""
        found = set()
        asked = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
        for body in self._netlink.dump("reading the host's addresses", _RTM_GETADDR, asked):
            attributes = read_attributes(body[_ADDRESS.size :])
            if _IFA_LOCAL in attributes:
                found.add(IPv4Address(attributes[_IFA_LOCAL]))
        return frozenset(found)

    def take_down(self) -> None:
        """Remove all of it and the device, and give the links their settings back. Raises PlanError, NotPermitted."""
        self._remove_all()
        self._visitors.clear()
        self._settings.put_back()
        self._netlink.remove(self._device)

    def close(self) -> None:
        """Let go of the kernel; everything stays as it is."""
        self._netlink.close()

    # --- pieces ---

    def _lead_to(self, home_address: IPv4Address, link: int, hardware_address: bytes) -> None:
        self._neighbour(_RTM_NEWNEIGH, home_address, link, hardware_address)
        self._route(_RTM_NEWROUTE, VISITOR_TABLE, home_address, link=link)

    def _remove_all(self) -> None:
        for priority in (RULE_CAPTURE, RULE_DELIVER, RULE_NOWHERE, RULE_ERRORS):
            while self._try(self._rule, _RTM_DELRULE, priority, b"", table=None):
                pass
        for table, destination, link in list(self._own_routes()):
            if table == VISITOR_TABLE and destination is not None and link is not None:
                self._remove_visitor(destination, link)
        for link in (self._index or None, None):
            self._try(self._route, _RTM_DELROUTE, CAPTURE_TABLE, None, link=link)

    def _remove_visitor(self, home_address: IPv4Address, link: int) -> None:
        self._try(self._route, _RTM_DELROUTE, VISITOR_TABLE, home_address, link=link)
        self._try(self._neighbour, _RTM_DELNEIGH, home_address, link, b"")

    def _try(self, action: object, *arguments: object, **named: object) -> bool:
        """Whether it could be done; what is not there any more needs no removing."""
        try:
            action(*arguments, **named)  # type: ignore[operator]
        except PlanError as error:
            if error.cause in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.ENETDOWN):
                return False
            raise
        return True

    def _own_routes(self) -> Iterator[tuple[int, IPv4Address | None, int | None]]:
        asked = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in self._netlink.dump("reading the routes", _RTM_GETROUTE, asked):
            attributes = read_attributes(body[_ROUTE.size :])
            table = _number(attributes.get(_RTA_TABLE)) or body[4]
            if table in (CAPTURE_TABLE, VISITOR_TABLE):
                destination = attributes.get(_RTA_DST)
                link = attributes.get(_RTA_OIF)
                yield (
                    table,
                    None if destination is None else IPv4Address(destination),
                    None if link is None else _number(link),
                )

    def _route(self, kind: int, table: int, destination: IPv4Address | None, *, link: int | None) -> None:
        """A route to one address, or to all; without a link everything ends there, unless another one is there."""
        adding = kind == _RTM_NEWROUTE
        body = _ROUTE.pack(
            socket.AF_INET,
            0 if destination is None else 32,
            0,
            0,
            0,
            _PROTOCOL_STATIC,
            _SCOPE_UNIVERSE if link is None else _SCOPE_LINK,
            _BLACKHOLE if link is None else _UNICAST,
            0,
        ) + attribute(_RTA_TABLE, u32(table))
        if destination is not None:
            body += attribute(_RTA_DST, destination.packed)
        body += (
            attribute(_RTA_PRIORITY, u32(_LAST_METRIC)) if link is None else attribute(_RTA_OIF, u32(link))
        )
        verb = "adding" if adding else "removing"
        what = "everything" if destination is None else str(destination)
        self._netlink.ask(
            f"{verb} the route to {what} in table {table}",
            kind,
            body,
            flags=CREATE | REPLACE if adding else 0,
        )

    def _rule(self, kind: int, priority: int, selector: bytes, *, table: int | None) -> None:
        adding = kind == _RTM_NEWRULE
        action = 0 if not adding else _BLACKHOLE_RULE if table is None else _TO_TABLE
        body = _RULE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, action, 0) + selector
        body += attribute(_FRA_PRIORITY, u32(priority))
        if table is not None:
            body += attribute(_FRA_TABLE, u32(table))
        verb = "adding" if adding else "removing"
        self._netlink.ask(
            f"{verb} routing rule {priority}", kind, body, flags=CREATE | EXCLUSIVE if adding else 0
        )

    def _neighbour(self, kind: int, address: IPv4Address, link: int, hardware_address: bytes) -> None:
        body = _NEIGHBOUR.pack(socket.AF_INET, link, _NUD_PERMANENT, 0, 0) + attribute(
            _NDA_DST, address.packed
        )
        if hardware_address:
            body += attribute(_NDA_LLADDR, hardware_address)
        adding = kind == _RTM_NEWNEIGH
        verb = "adding" if adding else "removing"
        self._netlink.ask(
            f"{verb} the neighbour {address}", kind, body, flags=CREATE | REPLACE if adding else 0
        )


def _number(octets: bytes | None) -> int:
    return 0 if octets is None else int(struct.unpack("=I", octets)[0])
