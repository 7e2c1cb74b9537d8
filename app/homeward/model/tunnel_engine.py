# SPDX-License-Identifier: GPL-2.0-or-later
"""What carries the packets of a tunnel."""

from enum import Enum


class TunnelEngine(Enum):
    """The values are shown in status and metrics, and name engines in HOMEWARD_ENGINES."""

    IPIP = "ipip"
    """The kernel's own IP-in-IP device, led by a program on the route."""
    BPF = "bpf"
    """Programs on the route and at the link's ingress: tunnels in UDP."""
    TUN = "tun"
    """This process, packet by packet: every tunnel, on every machine."""
