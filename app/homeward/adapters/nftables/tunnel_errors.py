# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the kernel from answering tunnel packets that we take ourselves with "port unreachable".

A raw socket gets its copy of each IP-in-IP packet. But where the kernel's own tunnels are loaded (`ipip`, `sit`,
IPComp, `ip_gre`) and none of them wants the packet, the kernel also tells the sender that nobody did: for each packet,
as often as its rate limit lets it (measured). The sender's raw socket then fails with ECONNREFUSED. Such errors are
dropped on their way out, those about tunnel packets to our address and no others.
"""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import NotPermitted, PlanError, Unavailable

_SECONDS: Final = 10.0
# The quoted packet begins 8 octets into the ICMP message; octet 9 of it is its protocol.
_QUOTES_A_TUNNEL: Final = f"@th,{(8 + 9) * 8},8 {{ 4, 47, 55 }}"


class TunnelErrors:
    """The rule of one table, named by whoever uses it; it outlives us, and a later life replaces it."""

    def __init__(self, table: str) -> None:
        self._table = table

    def silence(self, address: IPv4Address) -> None:
        """Let no such error leave from this address. Raises Unavailable without nft, NotPermitted, PlanError."""
        _run(
            f"""{self._cleared()}
            table inet {self._table} {{
                chain output {{
                    type filter hook output priority filter; policy accept;
                    ip saddr {address} icmp type destination-unreachable \
                        icmp code {{ prot-unreachable, port-unreachable }} {_QUOTES_A_TUNNEL} drop
                }}
            }}
            """
        )

    def restore(self) -> None:
        """Take the rule away, whoever's life it is from. Raises as `silence`."""
        _run(self._cleared())

    def _cleared(self) -> str:
        # Adding what may be there and then deleting it needs no `destroy`, which Debian 12 does not know.
        return f"add table inet {self._table}\ndelete table inet {self._table}\n"


def _run(commands: str) -> None:
    action = "silencing errors about tunnel packets"
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=commands, text=True, capture_output=True, check=False, timeout=_SECONDS
        )
    except FileNotFoundError as error:
        raise Unavailable(action, "there is no program nft (package nftables)") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PlanError(action, str(error)) from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        first = said[0] if said else f"nft ended with status {done.returncode}"
        raise NotPermitted(action, first) if "Operation not permitted" in first else PlanError(action, first)
