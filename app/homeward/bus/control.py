# SPDX-License-Identifier: GPL-2.0-or-later
"""What the D-Bus service asks of the daemon behind it, and who asked the service."""

from dataclasses import dataclass
from typing import Protocol

from homeward.bus.messages import ProfileSummary
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a call, as the bus vouches for it.

    `bus_name` is the unique name of the connection; `user_name` is the uid in words, or its digits where it has none.
    """

    uid: int
    bus_name: str
    user_name: str

    def __str__(self) -> str:
        return f"{self.user_name} (user id {self.uid})"


class Control(Protocol):
    """The daemon as the bus service sees it.

    The methods raise the types of homeward.bus.errors; any other HomewardError reaches the caller as Failed with its
    text, and anything else as Failed without a text.
    """

    async def connect(self, profile: str, caller: Caller) -> None:
        """Take the order to connect; what becomes of it shows in the snapshots."""

    async def disconnect(self, caller: Caller) -> None:
        """Disconnect and leave the machine as it was found; returns when that is done."""

    async def reconnect(self, caller: Caller) -> None:
        """Take the order to forget the verdict, to probe again and to rebuild the VPN."""

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        """Take over a secret; SecretRefused. The secret belongs to the daemon from here on."""

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        """All profiles, unusable ones with the reason."""

    def snapshot(self) -> StatusSnapshot:
        """The present snapshot; never waits."""
