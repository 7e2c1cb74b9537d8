# SPDX-License-Identifier: GPL-2.0-or-later
"""What charon is told over vici: our connection and secret as messages.

All our connections are named `homeward-` and a random number, one for each order to connect, so that an event or a
line of a log belongs to exactly one order, whatever overtakes what.
"""

import secrets
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any, Final

from homeward.model.names import MARK_IKE, VPN_INTERFACE
from homeward.model.profile import GatewaySettings
from homeward.model.secret import Secret

PREFIX: Final = "homeward-"
CHILD: Final = "homeward"
"""Name of the one CHILD_SA of each of our connections."""
KEY_ID: Final = "homeward"
"""Identifier of our pre-shared key in charon; loading another one under it replaces it."""

_ANY: Final = IPv4Address("0.0.0.0")


_ON_OUR_INTERFACE: Final = {
    "if_id_in": str(VPN_INTERFACE),
    "if_id_out": str(VPN_INTERFACE),
    # What the kernel has wrapped up is the engine's own: it takes the route of IKE's packets, and the fence knows it.
    "set_mark_out": f"{MARK_IKE:#x}",
}


def new_name() -> str:
    """A name for one order to connect."""
    return PREFIX + secrets.token_hex(4)


def connection_message(
    name: str,
    settings: GatewaySettings,
    gateway: IPv4Address,
    *,
    wished: IPv4Address | None,
    kernel_esp: bool,
) -> dict[str, Any]:
    """The connection for vici's load-conn; `wished` is the inner address to ask for, the last one held (R-271).

    No local address is named: charon takes the one that the kernel's route for its mark prefers, and MOBIKE may then
    move it freely. With `kernel_esp` the kernel's policies are tied to our XFRM interface.
    """
    child = {
        **(_ON_OUR_INTERFACE if kernel_esp else {}),
        "remote_ts": _texts(settings.remote_networks),
        "esp_proposals": list(settings.esp_proposals),
        "start_action": "none",
        "close_action": "none",
        "dpd_action": "clear",
    }
    connection = {
        "version": "2",
        "remote_addrs": [str(gateway)],
        "vips": [str(wished or _ANY)],
        "mobike": "yes",
        # ESP in UDP always: user-space ESP has no other form, and the gateway's firewall lets nothing else pass.
        "encap": "yes",
        "fragmentation": "yes",
        # An answer, or a failure that is reported: trying again is the daemon's decision.
        "keyingtries": "1",
        "dpd_delay": "30s",
        "proposals": list(settings.proposals),
        "local": {"auth": "psk", "id": settings.local_identity},
        "remote": {"auth": "psk", "id": settings.remote_identity},
        "children": {CHILD: child},
    }
    return {name: connection}


def secret_message(settings: GatewaySettings, secret: Secret) -> dict[str, Any]:
    """The pre-shared key for vici's load-shared. It holds the octets in clear: build, send and drop."""
    return {
        "id": KEY_ID,
        "type": "IKE",
        "data": secret.reveal(),
        "owners": [settings.local_identity, settings.remote_identity],
    }


def _texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]
