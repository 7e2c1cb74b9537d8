# SPDX-License-Identifier: GPL-2.0-or-later
"""Has the kernel forget every connection that it tracks, and with them what its NAT translates, as a reboot would.

Run as a program in a host (`python -I -S forget_connections.py`), standard library only; exit status 1 with the reason
when the kernel does not.
"""

import os
import socket
import struct
import sys

_NETLINK_NETFILTER = 12
_REQUEST_AND_ACKNOWLEDGE = 0x1 | 0x4
_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE; without a tuple: all


def main() -> int:
    """Ask for it and wait for the kernel's word."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(5)
        kernel.send(struct.pack("=IHHIIBBH", 20, _DELETE, _REQUEST_AND_ACKNOWLEDGE, 1, 0, 0, 0, 0))
        (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if error:
        print(f"the kernel does not forget its connections: {os.strerror(-error)}", file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
