# SPDX-License-Identifier: GPL-2.0-or-later
"""NAT traversal for Mobile IP: what is asked, what is answered, and what travels in the tunnel (RFC 3519)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import IntEnum
from typing import Final

from homeward.model.fields import require_field

KEEPALIVE_DEFAULT: Final = 110
"""Seconds between keepalives where the home agent names none (RFC 3519 4.9)."""
KEEPALIVE_LEAST: Final = 10
"""Seconds below which the interval is never shortened (RFC 3519 4.10)."""

_FIRST_DECLINE: Final = 64


class TunnelKind(IntEnum):
    """What a UDP tunnel carries, by IP protocol number (RFC 3519 3.1.4)."""

    AS_FLAGGED = 0
    """In a request only: follow the M and G flags, IP-in-IP where neither is set."""
    IP_IN_IP = 4
    GRE = 47
    MINIMAL = 55


class UdpTunnelCode(IntEnum):
    """The reply codes that RFC 3519 3.2.1 names; 0 to 63 assent, the rest decline."""

    WILL_TUNNEL = 0
    DECLINED = 64


@dataclass(frozen=True, slots=True)
class UdpTunnelRequest:
    """The sender can tunnel in UDP if the home agent sees a NAT (RFC 3519 3.1).

    ``force`` wants the tunnel without a NAT too; ``through_foreign_agent`` says that a foreign agent demanded to be
    registered through (its R bit). ``kind`` stays a plain number: what it does not know, an agent answers with 142.
    """

    _: KW_ONLY
    force: bool = False
    through_foreign_agent: bool = False
    kind: int = TunnelKind.AS_FLAGGED

    def __post_init__(self) -> None:
        require_field("encapsulation", self.kind, bits=8)


@dataclass(frozen=True, slots=True)
class UdpTunnelReply:
    """Whether the home agent tunnels this binding in UDP (RFC 3519 3.2).

    ``keepalive`` in seconds; 0 leaves it to the mobile node's own setting.
    """

    code: int = UdpTunnelCode.WILL_TUNNEL
    _: KW_ONLY
    forced: bool = False
    keepalive: int = 0

    def __post_init__(self) -> None:
        require_field("UDP tunnel reply code", self.code, bits=8)
        require_field("keepalive interval", self.keepalive, bits=16)

    @property
    def will_tunnel(self) -> bool:
        """Whether all data of the binding goes through UDP from now on."""
        return self.code < _FIRST_DECLINE


@dataclass(frozen=True, slots=True)
class TunnelData:
    """One MIP Tunnel Data message (RFC 3519 3.3), its payload not yet looked into.

    ``kind`` is a plain number, to be held against what the binding agreed on: anything else is dropped.
    """

    kind: int
    payload: bytes

    def __post_init__(self) -> None:
        require_field("next header", self.kind, bits=8)
