# SPDX-License-Identifier: GPL-2.0-or-later
"""What each layer around a packet takes from the path MTU (RFC 2003, 2004, 2784, 3519; ESP: RFC 4303, 4106)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final, assert_never

from homeward.model.encapsulation import Encapsulation

_ESP_FRAME: Final = 20 + 4 + 4 + 8 + 16
"""Outer IPv4 header, SPI, sequence number, vector of AES-GCM, check value."""
_UDP: Final = 8
_TCP_AND_IPV4: Final = 40


class Layer(Enum):
    """One encapsulation around a packet, with AES-GCM and a check value of 16 octets where it is ESP."""

    IP_IN_IP = "IP-in-IP"
    GRE = "GRE"
    MINIMAL = "minimal encapsulation"
    UDP_TUNNEL = "IP in MIP UDP tunnel"
    GRE_UDP_TUNNEL = "GRE in MIP UDP tunnel"
    ESP = "ESP tunnel"
    ESP_IN_UDP = "ESP tunnel in UDP"


_IN_IP: Final = {
    Encapsulation.IP_IN_IP: Layer.IP_IN_IP,
    Encapsulation.GRE: Layer.GRE,
    Encapsulation.MINIMAL: Layer.MINIMAL,
}


def layer_of(encapsulation: Encapsulation, *, udp: bool) -> Layer:
    """The layer that a binding's packets travel in; in UDP whatever is not GRE goes as IP (RFC 3519 section 3.3)."""
    if not udp:
        return _IN_IP[encapsulation]
    return Layer.GRE_UDP_TUNNEL if encapsulation is Encapsulation.GRE else Layer.UDP_TUNNEL


def inner_mtu(path_mtu: int, layers: Iterable[Layer]) -> int:
    """The longest IPv4 packet that passes, unfragmented, inside these layers, the outermost named first (R-289).

    Never negative; 0 where the layers alone fill the path.
    """
    left = path_mtu
    for layer in layers:
        left = _inside(left, layer)
    return max(left, 0)


def segment_size(mtu: int) -> int:
    """The TCP maximum segment size for a device of this MTU: what is left beside both headers without options."""
    return max(mtu - _TCP_AND_IPV4, 0)


def _inside(octets: int, layer: Layer) -> int:
    match layer:
        case Layer.IP_IN_IP:
            return octets - 20
        case Layer.GRE:
            return octets - 24
        case Layer.MINIMAL:
            return octets - 12
        case Layer.UDP_TUNNEL:
            return octets - 32
        case Layer.GRE_UDP_TUNNEL:
            return octets - 36
        case Layer.ESP:
            return _inside_esp(octets)
        case Layer.ESP_IN_UDP:
            return _inside_esp(octets - _UDP)
        case _:
            assert_never(layer)


def _inside_esp(octets: int) -> int:
    # What remains is cut to whole words, of which the last two octets say how much was padded and what is inside.
    return (octets - _ESP_FRAME) // 4 * 4 - 2
