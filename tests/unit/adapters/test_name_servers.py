# SPDX-License-Identifier: GPL-2.0-or-later
"""Which servers are asked over a link, from the files that the system keeps."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.adapters.dns_gateway import name_servers

PLAIN = "etc/resolv.conf"
UPLINK = "run/systemd/resolve/resolv.conf"
RESOLVED = "run/systemd/resolve/netif/3"
NETWORKD = "run/systemd/netif/links/3"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({PLAIN: "nameserver 10.1.1.1\nnameserver 10.1.1.2\n"}, ["10.1.1.1", "10.1.1.2"]),
        (
            {PLAIN: "# nameserver 10.9.9.9\noptions edns0\nnameserver\nnameserver 10.1.1.1 # office\n"},
            ["10.1.1.1"],
        ),
        ({PLAIN: "nameserver 10.1.1.1\nnameserver 10.1.1.1\n"}, ["10.1.1.1"]),
        ({PLAIN: "nameserver 127.0.0.53\n"}, []),
        ({PLAIN: "nameserver fe80::1%3\nnameserver 10.1.1.1\n"}, ["10.1.1.1"]),
        ({PLAIN: "nameserver 127.0.0.53\n", UPLINK: "nameserver 10.1.1.1\n"}, ["10.1.1.1"]),
        (
            {UPLINK: "nameserver 10.1.1.1\n", RESOLVED: "LLMNR=yes\nSERVERS=10.2.2.2 10.2.2.3\n"},
            ["10.2.2.2", "10.2.2.3"],
        ),
        ({RESOLVED: "SERVERS=10.2.2.2:53#dns.example 2001:db8::1 10.2.2.3%3\n"}, ["10.2.2.2", "10.2.2.3"]),
        ({UPLINK: "nameserver 10.1.1.1\n", RESOLVED: "LLMNR=yes\n"}, ["10.1.1.1"]),
        ({UPLINK: "nameserver 10.1.1.1\n", NETWORKD: "DNS=10.3.3.3\nNTP=10.4.4.4\n"}, ["10.3.3.3"]),
        ({PLAIN: "\xff\xfe\nnameserver 10.1.1.1\n"}, ["10.1.1.1"]),
    ],
)
def test_the_links_own_servers_come_first(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert name_servers(tmp_path, 3) == tuple(IPv4Address(server) for server in expected)
