# SPDX-License-Identifier: GPL-2.0-or-later
"""The fence: nftables rules that let out and in what docs/security.md allows, and nothing else on any link.

Both of its lines (`rules`) are replaced in one transaction, and put back when another program touches them. Where only
the elements of their sets differ, those are exchanged (`set_elements`).
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.nftables.fence.rules import (
    LINGER,
    FenceSetting,
    can_be_named,
    elements,
    render,
    render_nothing,
    standing,
)
from homeward.adapters.nftables.fence.set_elements import SetElements
from homeward.adapters.nftables.library import Nftables
from homeward.model.errors import NotPermitted, PlanError
from homeward.model.names import FENCE_TABLE
from homeward.model.plan import Fence, Traffic

__all__ = ["LINGER", "RESTORE_PAUSE", "FenceSetting", "NftFence", "render", "render_nothing"]

RESTORE_PAUSE: Final = 1.0
"""Seconds until a fence that could not be put back is tried again."""

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 3
_XFRM = b"xfrm"


def _driver(device: str) -> bytes:
    """The driver of a device, for virtual ones their kind; empty where the kernel does not say."""
    argument = ctypes.create_string_buffer(struct.pack("=I", _ETHTOOL_GDRVINFO), 196)
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(argument))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            fcntl.ioctl(asker, _SIOCETHTOOL, request)
        except OSError:
            return b""
    return argument.raw[4:36].partition(b"\0")[0]


_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NFNLGRP_NFTABLES = 7
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWTABLE = 0
_NLMSG = struct.Struct("=IHHII")


class NftFence:
    """Puts the fence up, takes it down, and puts it back when somebody else touches it."""

    def __init__(self) -> None:
        self.on_tampered: Callable[[str], None] = lambda what: None
        """Called with words when another program changed the fence, after it was put back, or could not be."""
        self._nft: Nftables | None = None
        self._sets: SetElements | None = None
        self._watch: socket.socket | None = None
        self._setting: FenceSetting | None = None
        self._links: tuple[tuple[int, str], ...] = ()
        self._own_port = 0
        self._again: asyncio.Handle | None = None

    def put_up(
        self,
        fence: Fence,
        home_address: IPv4Address | None,
        *,
        vpn_device: str | None = None,
        lingering: Traffic | None = None,
    ) -> None:
        """Replace whatever stands by this fence, in one transaction; FenceSetting says what the parameters mean.

        The links for the second line are those that exist at this moment. Nothing is done if the same already stands.
        Raises PlanError, NotPermitted, Unavailable.
        """
        kernel_esp = vpn_device is not None and _driver(vpn_device) == _XFRM
        setting = FenceSetting(fence, home_address, vpn_device, kernel_esp, lingering)
        for last_try in (False, True):
            wanted, links = _with_links(setting)
            if wanted == self._setting and links == self._links and self._again is None:
                return
            try:
                if not self._exchange(wanted, links):
                    self._run(render(wanted))
            except PlanError:
                # A link that went away since it was listed is no reason to stand open.
                if last_try:
                    raise
            else:
                self._setting, self._links = wanted, links
                return

    def _exchange(self, wanted: FenceSetting, links: tuple[tuple[int, str], ...]) -> bool:
        """Change the elements alone, where nothing else differs and everything stands; whether that was enough."""
        now = self._setting
        if now is None or links != self._links or self._watch is None or standing(now) != standing(wanted):
            return False
        self._look()  # what others did before is judged by the setting before
        if self._again is not None:
            return False
        try:
            if self._sets is None:
                self._sets = SetElements()
            self._sets.exchange(elements(wanted), second_line=bool(wanted.egress_links))
        except (OSError, PlanError, NotPermitted):
            return False  # somebody flushed it in this moment: the whole fence is due, and says what is wrong
        self._put_back_if_touched(list(self._news()))
        return True

    def take_down(self) -> None:
        """Remove the fence, whoever's life it is from."""
        self._setting, self._links = None, ()
        self._run(render_nothing())

    def close(self) -> None:
        """Stop watching; the fence stays as it is."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()
            self._watch = None
        if self._nft is not None:
            self._nft.close()
            self._nft = None
        if self._sets is not None:
            self._sets.close()
            self._sets = None

    def _run(self, commands: str) -> None:
        if self._nft is None:
            self._nft = Nftables("putting up the fence")
            self._watch = _open_watch()
            asyncio.get_running_loop().add_reader(self._watch, self._look)
        assert self._watch is not None
        self._look()  # what others did before is judged by the setting before
        self._nft.run(commands)
        # The kernel has queued the news of our own change by now; its sender is how we tell it from others' changes.
        news = list(self._news())
        self._own_port = next((port for kind, port in news if kind == _NFT_MSG_NEWTABLE), self._own_port)
        self._put_back_if_touched(news)

    def _look(self) -> None:
        """Put the fence back if somebody else changed or removed it."""
        if self._touched(list(self._news())):
            self._put_back()

    def _touched(self, news: list[tuple[int, int]]) -> bool:
        """Whether others had their hands in it."""
        own = {self._own_port, self._sets.port} if self._sets is not None else {self._own_port}
        return any(port not in own for _, port in news)

    def _put_back_if_touched(self, news: list[tuple[int, int]]) -> None:
        """News that came together with our own change's may be of before it or of after it: better once too often."""
        if self._touched(news):
            self._put_back_soon(0.0)

    def _put_back_soon(self, pause: float) -> None:
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(pause, self._put_back)

    def _put_back(self) -> None:
        self._again = None
        if self._setting is None or self._nft is None:
            return
        self._setting, self._links = _with_links(replace(self._setting, lingering=None))
        try:
            self._nft.run(render(self._setting))
        except (PlanError, NotPermitted) as error:
            self._put_back_soon(RESTORE_PAUSE)
            self.on_tampered(f"another program changed the firewall, and it could not be put back: {error}")
            return
        self._put_back_if_touched(list(self._news()))
        self.on_tampered("another program changed the firewall; it was put back")

    def _news(self) -> Iterator[tuple[int, int]]:
        """What happened to our tables since the last look: kind of message, and its sender (0 where news were lost)."""
        assert self._watch is not None
        while True:
            try:
                octets = self._watch.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more happened than fits; assume the worst
                yield -1, 0
                continue
            yield from _about_our_tables(octets)


def _with_links(setting: FenceSetting) -> tuple[FenceSetting, tuple[tuple[int, str], ...]]:
    """The setting for those of its access links that exist at this moment, and these links."""
    known = {name for name in setting.fence.access_links if can_be_named(name)}
    links = tuple((index, name) for name in sorted(known) if (index := _index(name)))
    return replace(setting, egress_links=tuple(sorted(name for _, name in links))), links


def _index(link: str) -> int:
    """A link's index, 0 when there is none of that name. Asked for by name: a list of all links is a dump."""
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


def _open_watch() -> socket.socket:
    watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
    watch.bind((0, 0))
    watch.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
    return watch


def _about_our_tables(octets: bytes) -> Iterator[tuple[int, int]]:
    """The messages of one netlink datagram that name our tables. In all of them attribute 1 is the table's name."""
    name = FENCE_TABLE.encode() + b"\0"
    at = 0
    while at + _NLMSG.size + 4 <= len(octets):
        length, kind, _, _, port = _NLMSG.unpack_from(octets, at)
        if length < _NLMSG.size:
            return
        body = octets[at + _NLMSG.size + 4 : at + length]
        if kind >> 8 == _NFNL_SUBSYS_NFTABLES and _attribute(body, 1) == name:
            yield kind & 0xFF, port
        at += (length + 3) & ~3


def _attribute(body: bytes, wanted: int) -> bytes | None:
    at = 0
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            return None
        if kind & 0x3FFF == wanted:
            return body[at + 4 : at + length]
        at += (length + 3) & ~3
    return None
