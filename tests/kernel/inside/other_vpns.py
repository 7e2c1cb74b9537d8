# SPDX-License-Identifier: GPL-2.0-or-later
"""Tunnels between the stations that lead to the home agent: another VPN's, or our own.

Each stands as its users would set it up: what the laptop sends to the home agent goes into it, unless something
prevents it. `deliver` has a packet for the laptop come through the tunnel.
"""

from __future__ import annotations

import socket
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.kernel.inside.wireguard import FWMARK, set_wireguard
from tests.world.stations import AGENT, CARE_OF, INNER, ROUTER, FarEnd, Stations

INSIDE: Final = "10.0.0.0/24"
IF_ID: Final = 7
_ALGORITHM: Final = "aead rfc4106(gcm(aes)) 0x{} 128".format("5a" * 20)
_UP: Final = f"src {CARE_OF} dst {ROUTER}"
_DOWN: Final = f"src {ROUTER} dst {CARE_OF}"


class Tunnel:
    """A tunnel that stands. `device` is where its packets come out on the laptop, None where they have no own one."""

    device: str | None = None

    def __init__(self, stations: Stations) -> None:
        self.stations = stations

    def deliver(self, packet: bytes) -> None:
        """A whole IPv4 packet comes through the tunnel."""
        raise NotImplementedError

    def close(self) -> None:
        """What is not gone with the namespaces."""

    def _send_from_agent(self, packet: bytes, device: str | None = None) -> None:
        with self.stations.agent, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            # The kernel looks for a policy by the socket's address, not by the one in a header that is included.
            raw.bind((str(AGENT), 0))
            if device is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            raw.sendto(packet, (str(CARE_OF), 0))


def _states(more: str = "") -> list[str]:
    """ESP in tunnel mode between laptop and router, both directions."""
    return [
        f"xfrm state add {ends} proto esp spi {spi} reqid 1 mode tunnel {_ALGORITHM} {more}"
        for spi, ends in ((0x1001, _UP), (0x1002, _DOWN))
    ]


def _policy(direction: str, selector: str, ends: str, more: str = "") -> str:
    return f"xfrm policy add {selector} dir {direction} {more} tmpl {ends} proto esp reqid 1 mode tunnel"


class Policies(Tunnel):
    """IPsec by policies, as most clients make it: no device, no route; the kernel itself takes the packets."""

    def __init__(self, stations: Stations) -> None:
        super().__init__(stations)
        stations.agent.batch(*_states())
        stations.laptop.batch(
            *_states(),
            _policy("out", f"src {CARE_OF}/32 dst {INSIDE}", _UP),
            _policy("in", f"src {INSIDE} dst {CARE_OF}/32", _DOWN),
        )

    def deliver(self, packet: bytes) -> None:
        selector = f"src {INSIDE} dst {CARE_OF}/32"
        self.stations.agent.ip(_policy("out", selector, _DOWN))
        self._send_from_agent(packet)
        self.stations.agent.ip(f"xfrm policy delete {selector} dir out")


class XfrmInterface(Tunnel):
    """IPsec by a route: the policies hold for one device only. Our own VPN is one of these, with the kernel's ESP."""

    device = "ipsec0"

    def __init__(self, stations: Stations) -> None:
        super().__init__(stations)
        own, anything = f"if_id {IF_ID}", "src 0.0.0.0/0 dst 0.0.0.0/0"
        stations.agent.batch(*_states())
        stations.laptop.batch(
            f"link add ipsec0 type xfrm {own}",
            f"addr add {INNER}/32 dev ipsec0",
            "link set ipsec0 up",
            f"route add {INSIDE} dev ipsec0",
            *_states(own),
            _policy("out", anything, _UP, own),
            _policy("in", anything, _DOWN, own),
        )

    deliver = Policies.deliver


class WireGuard(Tunnel):
    """WireGuard with a route in the main table, or with the rules and the table of its own that wg-quick makes."""

    device = "wg0"

    def __init__(self, stations: Stations, *, own_table: bool) -> None:
        super().__init__(stations)
        laptop, router = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        for host, own, other, far in (
            (stations.laptop, laptop, router, ROUTER),
            (stations.agent, router, laptop, CARE_OF),
        ):
            host.batch("link add wg0 type wireguard", "link set wg0 up")
            with host:
                set_wireguard("wg0", own.private_bytes_raw(), other.public_key().public_bytes_raw(), far)
        if own_table:
            stations.laptop.ip(f"route add default dev wg0 table {FWMARK}")
            stations.laptop.ip(f"rule add not fwmark {FWMARK} table {FWMARK} pref 100")
        else:
            stations.laptop.ip(f"route add {INSIDE} dev wg0")

        self._shake_hands()

    def deliver(self, packet: bytes) -> None:
        self._send_from_agent(packet, "wg0")

    def _shake_hands(self) -> None:
        """Once, from one end: when both begin in the same moment the next try is five seconds later."""
        discard = 9
        with self.stations.udp(AGENT, discard) as opened, self.stations.laptop:
            opened.setblocking(True)
            opened.settimeout(20)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wg0")
                sender.bind((str(CARE_OF), 0))
                sender.sendto(b"hello", (str(AGENT), discard))
                opened.recv(16)


class Plain(Tunnel):
    """One of the kernel's tunnels without protection: what it brings may be from anybody."""

    device = "plain0"

    def __init__(self, stations: Stations, kind: str) -> None:
        super().__init__(stations)
        for host, ends in (
            (stations.laptop, f"local {CARE_OF} remote {ROUTER}"),
            (stations.agent, f"local {ROUTER} remote {CARE_OF}"),
        ):
            host.batch(f"link add plain0 type {kind} {ends}", "link set plain0 up")
        stations.laptop.ip(f"route add {INSIDE} dev plain0")

    def deliver(self, packet: bytes) -> None:
        self._send_from_agent(packet, "plain0")


class UserSpace(Tunnel):
    """A VPN in user space: a TUN device. Our own is one of these without the kernel's ESP."""

    device = "tun0"

    def __init__(self, stations: Stations) -> None:
        super().__init__(stations)
        self._far_end = FarEnd(stations.laptop, "tun0", INNER)
        stations.laptop.ip(f"route add {INSIDE} dev tun0")

    def deliver(self, packet: bytes) -> None:
        self._far_end.deliver(packet)

    def close(self) -> None:
        self._far_end.close()


KINDS: Final = {
    "policies": Policies,
    "xfrm-interface": XfrmInterface,
    "wireguard": lambda stations: WireGuard(stations, own_table=False),
    "wireguard-quick": lambda stations: WireGuard(stations, own_table=True),
    "ipip": lambda stations: Plain(stations, "ipip"),
    "gre": lambda stations: Plain(stations, "gre"),
    "tun": UserSpace,
}
