# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps NATs from forgetting the UDP tunnels of a foreign agent's visitors (RFC 3519 4.9).

An echo request from the visitor's home address to its home agent goes through the tunnel when nothing else has for the
keepalive interval. When nothing comes back the NAT has forgotten, or the home agent has: only the mobile node can
register anew, so it is told that its registration is lost (RFC 3519 4.10 has no other remedy).
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from homeward.agents.offered_challenges import Entropy
from homeward.agents.visitors import Visitor
from homeward.model.errors import WireError
from homeward.model.nat_traversal import KEEPALIVE_DEFAULT, KEEPALIVE_LEAST
from homeward.wire.echo import Echo, decode_echo, encode_echo

PATIENCE: Final = 3.0
"""Seconds for which an answer is awaited before the next try."""
TRIES: Final = 3


@dataclass(slots=True)
class _Tunnel:
    visitor: Visitor
    used: float
    waiting: int = 0
    echo: Echo | None = field(default=None)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Send this packet through the visitor's tunnel."""

    packet: bytes
    visitor: Visitor


@dataclass(frozen=True, slots=True)
class TunnelLost:
    """The home agent answers nothing through this visitor's tunnel."""

    visitor: Visitor


class Keepalives:
    """The UDP tunnels in use, and when each was used last. `interval` in seconds where the home agent names none."""

    def __init__(self, entropy: Entropy, *, interval: int = KEEPALIVE_DEFAULT) -> None:
        self._interval = interval
        # Unpredictable, so that no stranger's packet passes for an answer.
        self._identifier = entropy() & 0xFFFF
        self._data = b"".join((entropy() & 0xFFFFFFFF).to_bytes(4, "big") for _ in range(4))
        self._sequence = 0
        self._tunnels: dict[IPv4Address, _Tunnel] = {}

    def admit(self, visitor: Visitor, boot: float) -> None:
        """A visitor's tunnel begins now, or goes on: the registration itself went through the NAT."""
        self._tunnels.pop(visitor.home_address, None)
        if visitor.udp:
            self._tunnels[visitor.home_address] = _Tunnel(visitor, boot)

    def expel(self, visitor: Visitor) -> None:
        """Its tunnel ends."""
        self._tunnels.pop(visitor.home_address, None)

    def used(self, visitor: Visitor, boot: float) -> None:
        """A packet of the visitor's went to the home agent."""
        tunnel = self._tunnels.get(visitor.home_address)
        if tunnel is not None and not tunnel.waiting:
            tunnel.used = boot

    def is_answer(self, packet: bytes, visitor: Visitor, boot: float) -> bool:
        """Whether a packet out of the visitor's tunnel answers our own echo; then it is not for the visitor."""
        tunnel = self._tunnels.get(visitor.home_address)
        if tunnel is None or tunnel.echo is None or packet[9] != 1:
            return False
        try:
            answers = decode_echo(packet).answers(tunnel.echo)
        except WireError:
            return False
        if answers:
            tunnel.used, tunnel.waiting = boot, 0
        return answers

    def next_deadline(self) -> float | None:
        """Boot time at which `due` has something to do."""
        return min((self._due(tunnel) for tunnel in self._tunnels.values()), default=None)

    def due(self, boot: float) -> list[Keepalive | TunnelLost]:
        """The echoes to send now, and the tunnels that are given up."""
        found: list[Keepalive | TunnelLost] = []
        for tunnel in self._tunnels.values():
            if self._due(tunnel) > boot:
                continue
            if tunnel.waiting >= TRIES:
                tunnel.used, tunnel.waiting = boot, 0
                found.append(TunnelLost(tunnel.visitor))
                continue
            self._sequence = (self._sequence + 1) & 0xFFFF
            visitor = tunnel.visitor
            tunnel.echo = Echo(
                visitor.home_address, visitor.home_agent, self._identifier, self._sequence, data=self._data
            )
            tunnel.used = boot
            tunnel.waiting += 1
            found.append(Keepalive(encode_echo(tunnel.echo), visitor))
        return found

    def _due(self, tunnel: _Tunnel) -> float:
        if tunnel.waiting:
            return tunnel.used + PATIENCE
        return tunnel.used + max(KEEPALIVE_LEAST, tunnel.visitor.keepalive or self._interval)
