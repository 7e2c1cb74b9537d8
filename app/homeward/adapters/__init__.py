# SPDX-License-Identifier: GPL-2.0-or-later
"""One outside thing per file: netlink, nftables, UDP 434, charon, the tunnel device, the system's own services."""
