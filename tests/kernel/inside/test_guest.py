# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests beside this one rely on: a kernel of our own, and in it what the host's may lack."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world.namespaces import Namespace, namespaces

ALGORITHM = "aead rfc4106(gcm(aes)) 0x{} 128".format("11" * 20)


@pytest.fixture
def host() -> Iterator[Namespace]:
    with namespaces(1) as (made,):
        yield made


def test_we_are_root_of_another_kernel() -> None:
    assert os.geteuid() == 0
    assert os.uname().nodename == "guest"
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize(
    "kind", ["ipip local 192.0.2.1 remote 192.0.2.2", "xfrm if_id 1", "wireguard", "dummy"]
)
def test_the_kernel_has_tunnels(host: Namespace, kind: str) -> None:
    host.ip(f"link add tunnel type {kind}")


def test_the_kernel_has_esp(host: Namespace) -> None:
    host.ip(f"xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 1 mode tunnel {ALGORITHM}")


def test_the_kernel_has_every_family_of_nftables(host: Namespace) -> None:
    host.ip("link add link0 type dummy")
    rules = """
        table inet t {
            chain c {
                type filter hook postrouting priority 300; ipsec out ip daddr 192.0.2.1 accept
            }
        }
        table netdev t {
            chain c {
                type filter hook egress device "link0" priority 0; policy drop
            }
        }
    """
    with host:
        host.run("nft", "-f", "-", stdin=rules)


@pytest.mark.virtual_clock
@pytest.mark.timeout(7200)
def test_an_hour_passes_at_once() -> None:
    began = time.monotonic()
    subprocess.run(["sleep", "3600"], check=True)
    assert time.monotonic() - began == pytest.approx(3600, abs=0.1)
