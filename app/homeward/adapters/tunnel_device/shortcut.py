# SPDX-License-Identifier: GPL-2.0-or-later
"""A way for packets past the TUN device, as the device knows one: what is unusual comes to it all the same."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol

from homeward.model.plan import Tunnelled
from homeward.model.tunnel_engine import TunnelEngine


class Shortcut(Protocol):
    """The kernel's fast path, as kernel_tunnels offers it. Nothing of it raises or waits."""

    on_ready: Callable[[], None]

    @property
    def program(self) -> int: ...
    @property
    def may_lead(self) -> bool: ...
    @property
    def leads(self) -> bool: ...
    @property
    def engine(self) -> TunnelEngine: ...
    def attach(self, device: int) -> None: ...
    def detach(self) -> None: ...
    def clear_away(self) -> None: ...
    def prepare(self, home_address: IPv4Address, traffic: Tunnelled, *, link: int, port: int) -> None: ...
    def abandon(self) -> None: ...
    def give_up(self, why: str) -> None: ...
    def hold(self) -> None: ...
    def admit(self) -> None: ...
    def lead(self, room: int) -> None: ...
    def counted(self) -> tuple[int, int, int, int]: ...


class NoShortcut:
    """Every packet comes to the device."""

    program, may_lead, leads, engine = -1, False, False, TunnelEngine.TUN

    def __init__(self) -> None:
        self.on_ready: Callable[[], None] = lambda: None

    def attach(self, device: int) -> None:
        """There is nothing to be made ready."""

    def prepare(self, home_address: IPv4Address, traffic: Tunnelled, *, link: int, port: int) -> None:
        """It cannot be carried."""

    def give_up(self, why: str) -> None:
        """There was none."""

    def lead(self, room: int) -> None:
        """Nothing is."""

    def counted(self) -> tuple[int, int, int, int]:
        """Nothing was."""
        return 0, 0, 0, 0

    detach = clear_away = abandon = hold = admit = lambda self: None
