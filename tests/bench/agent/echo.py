# SPDX-License-Identifier: GPL-2.0-or-later
"""The peer: what an agent costs at least, in Python. It checks each request's HMAC, and signs an acceptance."""

import hmac
import socket
import sys
from pathlib import Path

keys = {}
for line in Path(sys.argv[1]).read_text().splitlines():
    _, home, spi, _, key = line.split()
    keys[socket.inet_aton(home)] = bytes.fromhex(key.removeprefix("hex:"))
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
port.bind(("0.0.0.0", 434))
print("ready", flush=True)
while True:
    octets, sender = port.recvfrom(2048)
    key = keys[octets[4:8]]
    if hmac.compare_digest(hmac.digest(key, octets[:-32], "sha256"), octets[-32:]):
        reply = b"\3\0" + octets[2:12] + octets[16:24] + octets[24:30]
        port.sendto(reply + hmac.digest(key, reply, "sha256"), sender)
