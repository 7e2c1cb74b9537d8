# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixed names and numbers that several rooms must agree on."""

from typing import Final

HOME_DEVICE: Final = "homeward0"
"""The device that carries the home address; it outlives every link and every daemon."""

IPIP_DEVICE: Final = "homeward-ipip"
"""The kernel's device for IP-in-IP, on machines that have one; what comes in by it was agreed on by nobody."""

VPN_DEVICE: Final = "ipsec0"
"""The device into which the VPN is entered: charon's TUN device, or an XFRM interface where the kernel does ESP."""
VPN_INTERFACE: Final = 0x4857
"""Number of that XFRM interface (if_id): the VPN's policies hold for packets that pass it, and for no others."""

ROUTING_TABLE: Final = 434
"""The routing table that leads applications' traffic to the home device."""

TUNNEL_TABLE: Final = 435
"""The routing table with the one route that the kernel's own tunnel packets take, to the home agent."""

RULE_IKE: Final = 200
"""Preference of the rule that lets the IKE engine's own packets use the main table."""
RULE_DHCP: Final = 201
"""Preference of the rule that lets a DHCP client renew over the access link."""
RULE_TUNNEL: Final = 208
"""Preference of the rule that leads the kernel's own tunnel packets to TUNNEL_TABLE."""
RULE_HOME: Final = 209
"""Preference of the rule that leads everything unmarked to ROUTING_TABLE.

It stands before strongSwan's own rule (220), so that only our marked packets meet the VPN's routes.
"""

MARK_MASK: Final = 0xFFFF0000
MARK_BASE: Final = 0x48570000
MARK_IKE: Final = 0x48570001
MARK_REGISTRATION: Final = 0x48570002
MARK_TUNNEL: Final = 0x48570003
MARK_NAME_QUERY: Final = 0x48570004

FENCE_TABLE: Final = "homeward"
"""Name of our nftables tables (families inet and netdev)."""

REGISTRATION_PORT: Final = 434
"""UDP port of Mobile IPv4 registration (RFC 5944 section 3)."""

BUS_NAME: Final = "org.homeward.Daemon"
BUS_PATH: Final = "/org/homeward/Daemon1"
BUS_INTERFACE: Final = "org.homeward.Daemon1"

PROFILE_DIRECTORY: Final = "/etc/homeward/profiles.d"
STATE_DIRECTORY: Final = "/var/lib/homeward"
VICI_SOCKET: Final = "/run/charon.vici"
"""Debian's AppArmor profile lets charon create nothing but /run/charon.*."""
