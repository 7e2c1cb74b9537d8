# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured beside us, on the same laptop and cable: strongSwan alone with MOBIKE, and WireGuard."""

from __future__ import annotations

import os
import socket
import time
from ipaddress import IPv4Address
from typing import Any, Final

import vici
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from homeward.lab import keys, services
from homeward.lab.gateway import LAPTOP_IDENTITY
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import (
    AGENT,
    AGENT_ADDRESS,
    CORRESPONDENT,
    CORRESPONDENT_ADDRESS,
    GATEWAY_ADDRESS,
    GATEWAY_NAME,
    INSIDE,
    LAPTOP,
)
from tests.kernel.inside.wireguard import set_wireguard
from tests.lab.laptop import network_of

_CONF_FILE: Final = "/etc/strongswan.d/plain.conf"
# As it comes, but for what a host of the lab needs: the plugins are named, and its socket is where ours was.
_CONF: Final = """\
charon {
    load = openssl random nonce kdf kernel-netlink socket-default vici
    plugins {
        vici {
            socket = unix:///run/charon.vici
        }
    }
}
"""
_CHILD: Final = "inside"
_WG_LAPTOP: Final = IPv4Address("10.98.0.2")
_WG_NETWORK: Final = "10.98.0.0/24"


class StrongSwan:
    """charon of the distribution, and a VPN that it moves by itself. Homeward must have ended; a network is there."""

    name = "strongSwan, MOBIKE"

    def __init__(self, state: LabState) -> None:
        self._state = state
        self._laptop = Host(state, LAPTOP)

    def start(self) -> IPv4Address:
        """Set the VPN up; the laptop's inner address."""
        self._laptop.stop("charon")
        self._laptop.run(*services.ENGINE, "--tidy")
        self._laptop.run("tee", _CONF_FILE, text=_CONF)
        self._laptop.start("charon", services.CHARON, environment={"STRONGSWAN_CONF": _CONF_FILE})
        session = vici.Session(self._reach())
        owners = [GATEWAY_NAME, LAPTOP_IDENTITY]
        key = keys.read(self._state).pre_shared.reveal()
        session.load_shared({"id": "plain", "type": "IKE", "data": key, "owners": owners})
        session.load_conn({"plain": _connection()})
        for _ in session.initiate({"child": _CHILD, "ike": "plain", "timeout": "10000"}):
            pass
        (found,) = session.list_sas({"ike": "plain"})
        return IPv4Address(found["plain"]["local-vips"][0].decode())

    def stop(self) -> None:
        """End it, and the VPN with it."""
        self._laptop.stop("charon")

    def _reach(self) -> socket.socket:
        folder = os.open(self._state.run(LAPTOP), os.O_PATH | os.O_DIRECTORY)
        deadline = time.monotonic() + 20
        try:
            while True:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    connection.connect(f"/proc/self/fd/{folder}/charon.vici")
                    return connection
                except OSError:
                    connection.close()
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
        finally:
            os.close(folder)


def _connection() -> dict[str, Any]:
    return {
        "version": "2",
        "remote_addrs": [str(GATEWAY_ADDRESS)],
        "vips": ["0.0.0.0"],
        "mobike": "yes",
        "encap": "yes",  # the firewall lets nothing else pass
        "local": {"auth": "psk", "id": LAPTOP_IDENTITY},
        "remote": {"auth": "psk", "id": GATEWAY_NAME},
        "children": {_CHILD: {"remote_ts": [str(INSIDE)]}},
    }


class WireGuard:
    """The kernel's WireGuard between the laptop and the home agent's host."""

    name = "WireGuard"

    def __init__(self, state: LabState, care_of: IPv4Address) -> None:
        self._laptop, self._agent = Host(state, LAPTOP), Host(state, AGENT)
        self._correspondent = Host(state, CORRESPONDENT)
        self._care_of = care_of

    def start(self) -> IPv4Address:
        """Set both ends up; the laptop's address in the tunnel."""
        laptop, agent = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        ends = ((self._laptop, laptop, agent, AGENT_ADDRESS), (self._agent, agent, laptop, self._care_of))
        for host, own, other, far in ends:
            host.ip("link add wg0 type wireguard", "link set wg0 up")
            with network_of(host):
                set_wireguard("wg0", own.private_bytes_raw(), other.public_key().public_bytes_raw(), far)
        self._laptop.ip(f"addr add {_WG_LAPTOP}/32 dev wg0", f"route add {CORRESPONDENT_ADDRESS}/32 dev wg0")
        self._agent.ip(f"route add {_WG_NETWORK} dev wg0")
        self._correspondent.ip(f"route add {_WG_NETWORK} via {AGENT_ADDRESS}")
        return _WG_LAPTOP

    def stop(self) -> None:
        """Take it down."""
        for host in (self._laptop, self._agent):
            host.ip("link del wg0")
