# SPDX-License-Identifier: GPL-2.0-or-later
"""How packets of the home address travel between the ends of a Mobile IP tunnel."""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Final


class Encapsulation(Enum):
    """The three that RFC 5944 knows; which one a binding has is asked for by the M and G flags."""

    IP_IN_IP = "ip-in-ip"
    """RFC 2003: the one that every agent offers."""
    GRE = "gre"
    """RFC 2784, asked for by the G flag."""
    MINIMAL = "minimal"
    """RFC 2004, asked for by the M flag; fragments cannot take it (R-290)."""

    @cached_property
    def protocol(self) -> int:
        """IANA's protocol number in the outer header."""
        return _PROTOCOLS[self]


_PROTOCOLS: Final = {Encapsulation.IP_IN_IP: 4, Encapsulation.GRE: 47, Encapsulation.MINIMAL: 55}
