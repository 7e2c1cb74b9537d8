# SPDX-License-Identifier: GPL-2.0-or-later
"""How much the tunnel has carried."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrafficCounts:
    """Packets of the home address and their octets, without the tunnel's own headers."""

    sent_packets: int = 0
    sent_octets: int = 0
    received_packets: int = 0
    received_octets: int = 0
