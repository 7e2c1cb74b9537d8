# SPDX-License-Identifier: GPL-2.0-or-later
"""What the home agent holds for us, as far as its signed answers tell."""

from dataclasses import dataclass

from homeward.model.access import Path
from homeward.model.encapsulation import Encapsulation
from homeward.model.lifetime import ends_at
from homeward.model.nat_traversal import UdpTunnelReply
from homeward.model.registration import LIFETIME_INFINITE

RENEW_AT = 0.5
"""Fraction of the lifetime after which to renew: leaves room for a whole series of retransmissions (R-165)."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Home address bound to the care-of address of `path`; counted from `since`, when the request left (R-152).

    On a HomePath nothing is bound: the home agent has confirmed that the mobile node is at home.
    """

    path: Path
    lifetime: int
    since: float
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    udp_tunnel: UdpTunnelReply | None = None

    @property
    def expires(self) -> float | None:
        """When it ends, in boot seconds; None for a lifetime without end."""
        return ends_at(self.since, self.lifetime)

    @property
    def renew(self) -> float | None:
        """When to renew for the lifetime's sake."""
        return None if self.lifetime == LIFETIME_INFINITE else self.since + RENEW_AT * self.lifetime
