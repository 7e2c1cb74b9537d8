# SPDX-License-Identifier: GPL-2.0-or-later
"""The VPN gateway's connection, address pool and key, handed to its charon over vici."""

import os
import socket
import time
from typing import Any, Final

import vici

from homeward.lab.errors import LabError
from homeward.lab.keys import read
from homeward.lab.state import LabState
from homeward.lab.topology import GATEWAY, GATEWAY_ADDRESS, GATEWAY_NAME, INNER_NETWORK, INSIDE

LAPTOP_IDENTITY: Final = "laptop@example.test"
IKE_PROPOSALS: Final = ("aes128gcm16-prfsha256-curve25519", "default")
ESP_PROPOSALS: Final = ("aes128gcm16", "default")
_SECONDS_TO_START: Final = 20.0

_CONNECTION: Final[dict[str, Any]] = {
    "lab": {
        "version": "2",
        "local_addrs": [str(GATEWAY_ADDRESS)],
        "mobike": "yes",
        # A laptop that starts anew replaces its old IKE_SA and keeps its inner address.
        "unique": "replace",
        "proposals": list(IKE_PROPOSALS),
        "pools": ["inner"],
        "local": {"auth": "psk", "id": GATEWAY_NAME},
        "remote": {"auth": "psk", "id": LAPTOP_IDENTITY},
        "children": {"inside": {"local_ts": [str(INSIDE)], "esp_proposals": list(ESP_PROPOSALS)}},
    }
}


def configure(state: LabState) -> None:
    """Wait for the gateway's charon and load everything it needs; LabError with charon's own words if it refuses."""
    connection = _connect(state)
    try:
        session = vici.Session(connection)
        session.load_pool({"inner": {"addrs": str(INNER_NETWORK)}})
        owners = [GATEWAY_NAME, LAPTOP_IDENTITY]
        key = read(state).pre_shared.reveal()
        session.load_shared({"id": "lab", "type": "IKE", "data": key, "owners": owners})
        session.load_conn(_CONNECTION)
    except (vici.exception.CommandException, OSError) as error:
        raise LabError(f"the gateway's charon refuses its configuration: {error}") from error
    finally:
        connection.close()


def _connect(state: LabState) -> socket.socket:
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(state.run(GATEWAY), os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{folder}/charon.vici")
            return connection
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                log = state.log(GATEWAY, "charon")
                raise LabError(f"the gateway's charon does not answer ({error}); its log is {log}") from error
            time.sleep(0.02)
        finally:
            os.close(folder)
