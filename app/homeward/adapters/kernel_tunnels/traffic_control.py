# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs at the ingress of links, and the kernel's `ipip` device.

Numbers and layouts are Linux's: include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls,if_link,if_tunnel}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from homeward.adapters.kernel_tunnels.netlink import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    NESTED,
    Netlink,
    attribute,
    attributes,
    number,
    text,
)
from homeward.model.errors import AdapterError, PlanError, Unavailable

_NEW_LINK, _DELETE_LINK, _GET_LINK, _NEW_QDISC, _DELETE_QDISC = 16, 17, 18, 36, 37
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
_LINK: Final = struct.Struct("=BxHiII")
_CONTROL: Final = struct.Struct("=BxxxiIII")
_CLSACT: Final = 0xFFFFFFF1
_CLSACT_HANDLE: Final = 0xFFFF0000
_INGRESS: Final = 0xFFFFFFF2
_EGRESS: Final = 0xFFFFFFF3
_KIND, _OPTIONS = 1, 2
_BPF_DESCRIPTOR, _BPF_NAME, _BPF_FLAGS, _DIRECT_ACTION = 6, 7, 8, 1
_NAME, _LINK_INFO, _INFO_KIND, _INFO_DATA, _EXTERNAL = 3, 18, 1, 2, 19
_UP: Final = 1
_FILTER_HANDLE: Final = 1
_ETHERTYPE_IPV4: Final = 0x0800
_WITH_QDISC: Final = "+"
"""Ends the name of a filter whose qdisc is ours as well: so a later life knows what to remove."""


class TrafficControl:
    """Programs at links' ingress, at this priority there: by it and its name a later life knows ours again.

    Every method raises PlanError, NotPermitted or Unavailable.
    """

    def __init__(self, priority: int) -> None:
        self._priority = priority
        self._netlink = Netlink()

    def close(self) -> None:
        """Give the socket back; what stands stays."""
        self._netlink.close()

    def attach(self, link: int, program: int, name: str) -> None:
        """Have every IPv4 packet that comes in by the link with this index pass the program, in place of an earlier one
        of ours. Somebody else's filter at our place is left there: Unavailable."""
        action = f"attaching {name} to link {link}"
        ours = False
        try:
            self._netlink.ask(action, _NEW_QDISC, _qdisc(link), flags=CREATE | EXCLUSIVE)
            ours = True
        except PlanError as error:
            if error.cause != errno.EEXIST:
                raise
        standing = None if ours else self._standing(action, link)
        if standing is not None:
            if standing.removesuffix(_WITH_QDISC) != name:
                raise Unavailable(action, f"another program's filter “{standing}” has this priority")
            ours = standing.endswith(_WITH_QDISC)
        options = number(_BPF_DESCRIPTOR, program) + text(_BPF_NAME, name + _WITH_QDISC * ours)
        options += number(_BPF_FLAGS, _DIRECT_ACTION)
        described = text(_KIND, "bpf") + attribute(_OPTIONS | NESTED, options)
        self._netlink.ask(action, _NEW_FILTER, self._filter(link) + described, flags=CREATE)

    def detach(self, link: int, name: str) -> None:
        """Let the link be as it was. One that is gone, or has no program of ours, is passed over; a qdisc in which
        others have put filters meanwhile stays."""
        action = f"detaching {name} from link {link}"
        standing = self._standing(action, link)
        if standing is None or standing.removesuffix(_WITH_QDISC) != name:
            return
        self._netlink.ask_quietly(action, _DELETE_FILTER, self._filter(link) + text(_KIND, "bpf"))
        if standing.endswith(_WITH_QDISC) and not self._has_filters(action, link):
            self._netlink.ask_quietly(action, _DELETE_QDISC, _qdisc(link))

    def detach_everywhere(self, name: str, *, but: Collection[int] = ()) -> None:
        """The same for all links that there are `but` these, whoever's life attached the program."""
        for index, _ in socket.if_nameindex():
            if index not in but:
                with suppress(AdapterError):
                    self.detach(index, name)

    def is_attached(self, link: int, name: str) -> bool:
        """Whether the link has our program still."""
        standing = self._standing(f"looking at link {link}", link)
        return standing is not None and standing.removesuffix(_WITH_QDISC) == name

    # --- devices ---------------------------------------------------------------------------------------------------

    def make_ipip_device(self, name: str) -> int:
        """The index of an `ipip` device whose ends each packet brings along; taken over where it is there already.

        Raises Unavailable where the kernel has none, or another program has the one that there may be of this kind.
        """
        action = f"making the device {name}"
        data = attribute(_EXTERNAL, b"")
        info = text(_INFO_KIND, "ipip") + attribute(_INFO_DATA | NESTED, data)
        link = _LINK.pack(socket.AF_UNSPEC, 0, 0, _UP, _UP) + text(_NAME, name)
        link += attribute(_LINK_INFO | NESTED, info)
        try:
            self._netlink.ask(action, _NEW_LINK, link, flags=CREATE | EXCLUSIVE)
        except PlanError as error:
            if error.cause != errno.EEXIST:
                raise Unavailable(action, error.cause) from error
        try:
            return socket.if_nametoindex(name)
        except OSError as error:  # EEXIST was about somebody else's
            raise Unavailable(action, "another program has the kernel's device for such tunnels") from error

    def delete_device(self, name: str) -> None:
        """Remove a device of that name, if there is one and it is of the kind that we make."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return
        if self.kind_of(index) == "ipip":
            self._netlink.ask_quietly(
                f"removing the device {name}", _DELETE_LINK, _LINK.pack(0, 0, index, 0, 0)
            )

    def kind_of(self, link: int) -> str:
        """The kind of a virtual device ("xfrm", "ipip", "tun"), empty for others and where there is none."""
        asked = _LINK.pack(socket.AF_UNSPEC, 0, link, 0, 0)
        for answer in self._netlink.ask_quietly(f"looking at link {link}", _GET_LINK, asked):
            info = attributes(attributes(answer[_LINK.size :]).get(_LINK_INFO, b""))
            return info.get(_INFO_KIND, b"").partition(b"\0")[0].decode()
        return ""

    # --- parts -----------------------------------------------------------------------------------------------------

    def _standing(self, action: str, link: int) -> str | None:
        """The name of the filter at our place, None where there is none; empty for one of another kind."""
        asked = self._filter(link) + text(_KIND, "bpf")
        for answer in self._netlink.ask_quietly(action, _GET_FILTER, asked):
            options = attributes(attributes(answer[_CONTROL.size :]).get(_OPTIONS, b""))
            return options.get(_BPF_NAME, b"").partition(b"\0")[0].decode(errors="replace")
        return None

    def _has_filters(self, action: str, link: int) -> bool:
        for hook in (_INGRESS, _EGRESS):
            asked = _CONTROL.pack(socket.AF_UNSPEC, link, 0, hook, 0)
            if self._netlink.ask(action, _GET_FILTER, asked, flags=DUMP):
                return True
        return False

    def _filter(self, link: int) -> bytes:
        info = self._priority << 16 | socket.htons(_ETHERTYPE_IPV4)
        return _CONTROL.pack(socket.AF_UNSPEC, link, _FILTER_HANDLE, _INGRESS, info)


def _qdisc(link: int) -> bytes:
    return _CONTROL.pack(socket.AF_UNSPEC, link, _CLSACT_HANDLE, _CLSACT, 0) + text(_KIND, "clsact")
