# SPDX-License-Identifier: GPL-2.0-or-later
"""What the home device has carried, dropped and refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TunnelCounters:
    """Packets that this process has carried since the device was attached, for status and tests.

    Those that went past the device by the shortcut are counted there: `TunnelDevice.traffic` has both.
    """

    sent: int = 0
    sent_octets: int = 0
    received: int = 0
    received_octets: int = 0
    led_back: int = 0
    led_back_octets: int = 0
    """Counted where the shortcut is, and again here: they found no way past the device, and came back into it."""
    dropped: int = 0
    """Waited, and were pushed out of the full queue by younger ones."""
    refused_out: int = 0
    """Not from the home address, to a group of receivers, or too long for the path."""
    refused_in: int = 0
    """Not from the home agent, not for the home address, not by the right link, malformed, or traffic was held."""
