# SPDX-License-Identifier: GPL-2.0-or-later
"""What the IKE engine reports about the VPN, as plain values."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address


class VpnState(Enum):
    """The VPN as the user should see it."""

    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"
    MOVING = "moving"
    """The access address changed and the gateway has not yet answered from the new one."""
    WAITING = "waiting"
    """Failed; the next try is scheduled."""
    NO_ENGINE = "no-engine"
    """The IKE daemon cannot be reached."""


@dataclass(frozen=True, slots=True)
class VpnEstablished:
    """A CHILD_SA is up: the gateway has proved itself by IKE_AUTH from `local`; `inner` is the VPN-TIA."""

    local: IPv4Address
    remote: IPv4Address
    inner: IPv4Address
    mobike: bool
    behind_nat: bool


@dataclass(frozen=True, slots=True)
class VpnMoved:
    """The gateway answered MOBIKE's path probe from `local` (RFC 4555 section 3.5)."""

    local: IPv4Address
    remote: IPv4Address


@dataclass(frozen=True, slots=True)
class VpnAnswered:
    """The gateway answered an exchange that we asked for (a CHILD_SA rekey), over an unchanged path (X-24)."""

    local: IPv4Address


@dataclass(frozen=True, slots=True)
class VpnLost:
    """The SAs are gone; `cause` in words for the user."""

    cause: str


@dataclass(frozen=True, slots=True)
class VpnFailed:
    """An attempt to bring the VPN up failed; `code` is one of the health codes, `cause` in words."""

    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The IKE daemon went away or cannot be found."""

    cause: str


@dataclass(frozen=True, slots=True)
class EngineFound:
    """The IKE daemon answers; SAs that it still holds are reported separately."""

    version: str


VpnReport = VpnEstablished | VpnMoved | VpnAnswered | VpnLost | VpnFailed | EngineLost | EngineFound
