# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends IP packets just as they are, at a pace that nobody takes for a flood: a JSON list of hexadecimal digits."""

import json
import socket
import sys
import time


def main() -> None:
    """Read them from standard input and send each."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in map(bytes.fromhex, json.load(sys.stdin)):
            raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            time.sleep(0.02)


if __name__ == "__main__":
    main()
