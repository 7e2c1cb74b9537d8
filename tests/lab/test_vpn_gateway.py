# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's VPN by itself, the laptop's charon told by hand what homewardd would tell it.

It connects from outside, through a NAT, carries data to the inside, and moves with the laptop by MOBIKE.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import vici

from homeward.lab.gateway import ESP_PROPOSALS, IKE_PROPOSALS, LAPTOP_IDENTITY
from homeward.lab.host import Host
from homeward.lab.keys import read
from homeward.lab.services import kernel_does_esp
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT_ADDRESS, GATEWAY_ADDRESS, GATEWAY_NAME, INNER_NETWORK, INSIDE, LAPTOP
from homeward.model.names import VPN_DEVICE, VPN_INTERFACE

pytestmark = [pytest.mark.root, pytest.mark.lab]

_CHILD = {"remote_ts": [str(INSIDE)], "esp_proposals": list(ESP_PROPOSALS)}
_CONNECTION = {
    "by-hand": {
        "version": "2",
        "remote_addrs": [str(GATEWAY_ADDRESS)],
        "mobike": "yes",
        "encap": "yes",
        "vips": ["0.0.0.0"],
        "proposals": list(IKE_PROPOSALS),
        "local": {"auth": "psk", "id": LAPTOP_IDENTITY},
        "remote": {"auth": "psk", "id": GATEWAY_NAME},
    }
}


@contextlib.contextmanager
def _session(lab: LabState) -> Iterator[vici.Session]:
    folder = os.open(lab.run(LAPTOP), os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(f"/proc/self/fd/{folder}/charon.vici")
        os.close(folder)
        yield vici.Session(connection)


def _inner_address(lab: LabState) -> str | None:
    links = json.loads(Host(lab, LAPTOP).run("ip", "-j", "-4", "addr").stdout)
    found = [each["local"] for link in links for each in link["addr_info"]]
    return next((each for each in found if each.startswith(str(INNER_NETWORK[0])[:-1])), None)


def _connection() -> dict[str, Any]:
    """By policies alone it would not do where the kernel does ESP: the inner address is on the XFRM interface."""
    tied = {"if_id_in": str(VPN_INTERFACE), "if_id_out": str(VPN_INTERFACE)} if kernel_does_esp() else {}
    return {name: {**text, "children": {"inside": {**_CHILD, **tied}}} for name, text in _CONNECTION.items()}


def _reaches_inside(lab: LabState) -> bool:
    argv = ("ping", "-c1", "-W1", "-I", VPN_DEVICE, str(AGENT_ADDRESS))
    return Host(lab, LAPTOP).run(*argv, check=False).returncode == 0


@pytest.mark.rows("R-28", "R-49", "R-91")
def test_the_vpn_connects_behind_nat_and_moves_by_mobike(lab: LabState, move: Callable[[str], str]) -> None:
    move("ext2")
    with _session(lab) as session:
        key = read(lab).pre_shared.reveal()
        session.load_shared({"id": "by-hand", "type": "IKE", "data": key, "owners": [GATEWAY_NAME]})
        session.load_conn(_connection())
        list(session.initiate({"child": "inside", "timeout": "8000"}))
        inner = _inner_address(lab)
        assert inner is not None
        assert _reaches_inside(lab)

        address = move("ext1")
        deadline = time.monotonic() + 10
        while not _reaches_inside(lab):
            assert time.monotonic() < deadline, "the VPN did not move"
        assert _inner_address(lab) == inner
        (association,) = list(session.list_sas())
        assert association["by-hand"]["local-host"].decode() == address
        list(session.terminate({"ike": "by-hand", "timeout": "3000"}))
