# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a path's MTU: a table computed apart from this code, and ESP counted out octet by octet."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import TunnelKind
from homeward.model.overhead import Layer, inner_mtu, layer_of, segment_size
from homeward.wire import gre, ip_in_ip, minimal_encapsulation, udp_packets
from tests.unit.wire.test_ip_in_ip import packet

ESP, NAT_ESP, IPIP, UDP = Layer.ESP, Layer.ESP_IN_UDP, Layer.IP_IN_IP, Layer.UDP_TUNNEL
PATHS = (1500, 1492, 1420, 1280)
TABLE = [
    ("c, IP-in-IP", [IPIP], (1480, 1472, 1400, 1260)),
    ("c, behind NAT", [UDP], (1468, 1460, 1388, 1248)),
    ("c, GRE", [Layer.GRE], (1476, 1468, 1396, 1256)),
    ("c, GRE behind NAT", [Layer.GRE_UDP_TUNNEL], (1464, 1456, 1384, 1244)),
    ("c, minimal encapsulation", [Layer.MINIMAL], (1488, 1480, 1408, 1268)),
    ("f, on the mobile node's link", [], (1500, 1492, 1420, 1280)),
    ("mc, no NAT", [ESP, IPIP], (1426, 1418, 1346, 1206)),
    ("mc, ESP in UDP", [NAT_ESP, IPIP], (1418, 1410, 1338, 1198)),
    ("mc, the inner address behind NAT", [ESP, UDP], (1414, 1406, 1334, 1194)),
    ("mc, both", [NAT_ESP, UDP], (1406, 1398, 1326, 1186)),
    ("VPN alone", [ESP], (1446, 1438, 1366, 1226)),
    ("VPN alone, in UDP", [NAT_ESP], (1438, 1430, 1358, 1218)),
    ("RFC 5265 cvc", [IPIP, ESP, IPIP], (1406, 1398, 1326, 1186)),
    ("RFC 5265 cvc, outer layer in UDP", [UDP, ESP, IPIP], (1394, 1386, 1314, 1174)),
    ("RFC 5265 cvc, outer layer and ESP in UDP", [UDP, NAT_ESP, IPIP], (1386, 1378, 1306, 1166)),
    ("RFC 5265 cvc, all in UDP", [UDP, NAT_ESP, UDP], (1374, 1366, 1294, 1154)),
]


@pytest.mark.rows("R-289")
@pytest.mark.parametrize(("layers", "longest"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(layers: list[Layer], longest: tuple[int, ...]) -> None:
    assert tuple(inner_mtu(path, layers) for path in PATHS) == longest


@given(st.integers(100, 65535), st.sampled_from([ESP, NAT_ESP]))
def test_esp_counted_out(path: int, layer: Layer) -> None:
    def on_the_wire(inner: int) -> int:
        padding = -(inner + 2) % 4
        udp = 8 if layer is NAT_ESP else 0
        return 20 + udp + 4 + 4 + 8 + inner + padding + 2 + 16

    longest = inner_mtu(path, [layer])
    assert on_the_wire(longest) <= path < on_the_wire(longest + 1)


@pytest.mark.rows("R-289")
@pytest.mark.parametrize(("mtu", "segment"), [(1480, 1440), (1426, 1386), (40, 0), (0, 0)])
def test_segments_leave_room_for_both_headers(mtu: int, segment: int) -> None:
    assert segment_size(mtu) == segment


@pytest.mark.parametrize("layer", list(Layer))
def test_a_path_that_carries_nothing(layer: Layer) -> None:
    assert inner_mtu(0, [layer]) == 0


ENDS = IPv4Address("198.51.100.7"), IPv4Address("10.0.0.2")
CODECS = {
    Encapsulation.IP_IN_IP: ip_in_ip.encapsulate,
    Encapsulation.GRE: gre.encapsulate,
    Encapsulation.MINIMAL: minimal_encapsulation.encapsulate,
}


@pytest.mark.parametrize("encapsulation", list(Encapsulation))
def test_a_layer_takes_what_its_codec_adds(encapsulation: Encapsulation) -> None:
    long = CODECS[encapsulation](packet(), *ENDS)
    assert inner_mtu(len(long), [layer_of(encapsulation, udp=False)]) == len(packet())


@pytest.mark.parametrize("encapsulation", [Encapsulation.IP_IN_IP, Encapsulation.GRE])
def test_a_layer_in_udp_takes_what_its_codec_adds(encapsulation: Encapsulation) -> None:
    ends = [(address, 434) for address in ENDS]
    long = udp_packets.encapsulate(packet(), *ends, kind=TunnelKind(encapsulation.protocol))
    assert inner_mtu(len(long), [layer_of(encapsulation, udp=True)]) == len(packet())
