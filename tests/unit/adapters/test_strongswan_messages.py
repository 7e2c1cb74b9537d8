# SPDX-License-Identifier: GPL-2.0-or-later
"""What charon is told, and what is made of its answers, without a charon."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from vici.protocol import Message, Packet, Transport

from homeward.adapters.strongswan import ViciConnection, _no_connection
from homeward.adapters.strongswan.configuration import (
    PREFIX,
    connection_message,
    new_name,
    secret_message,
)
from homeward.adapters.strongswan.devices import device_with_address
from homeward.adapters.strongswan.reports import agreed_to_mobike, associations, why_failed, why_lost
from homeward.model.errors import IkeError, NotPermitted, Unavailable
from homeward.model.names import (
    HOME_DEVICE,
    MARK_IKE,
    ROUTING_TABLE,
    VICI_SOCKET,
    VPN_DEVICE,
    VPN_INTERFACE,
)
from homeward.model.secret import Secret
from homeward.model.vpn import VpnFailed
from tests.world.vpn_worlds import SETTINGS

GATEWAY = IPv4Address("192.0.2.1")
RESOURCES = files("homeward.data") / "charon"
CONFIGURATION = (RESOURCES / "strongswan.conf").read_text(encoding="utf-8")
KERNEL_ESP = (RESOURCES / "kernel-esp.conf").read_text(encoding="utf-8")
LAUNCHER = (RESOURCES / "homeward-ike").read_text(encoding="utf-8")

# --- the static configuration -----------------------------------------------------------------------------------------


def settings_of(text: str) -> dict[str, str]:
    """`name = value` lines, whatever section they are in; the last one of a name counts."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines if "=" in line)
    }


def test_the_file_agrees_with_our_names() -> None:
    text = CONFIGURATION
    found = settings_of(text)
    assert re.findall(r"fwmark = (\S+)", text) == [f"{MARK_IKE:#x}", f"!{MARK_IKE:#x}"]
    assert found["interfaces_ignore"] == HOME_DEVICE
    assert found["ignore_routing_tables"] == str(ROUTING_TABLE)
    assert found["socket"] == f"unix://{VICI_SOCKET}"


def test_plugins_stand_in_the_order_that_works_and_none_touches_what_is_ours() -> None:
    plugins = settings_of(CONFIGURATION)["load"].split()
    assert "kdf" in plugins
    assert plugins[0] == "openssl"
    assert plugins.index("kernel-libipsec") < plugins.index("kernel-netlink")
    assert not {"resolve", "updown", "stroke", "attr"} & set(plugins)


def test_with_the_kernels_esp_one_plugin_less_and_one_device_more() -> None:
    user_space, kernel = settings_of(CONFIGURATION), settings_of(KERNEL_ESP)
    assert "include strongswan.conf" in KERNEL_ESP.splitlines()
    assert kernel == {
        "load": user_space["load"].replace("kernel-libipsec ", ""),
        "install_virtual_ip_on": VPN_DEVICE,
        "interfaces_ignore": f"{HOME_DEVICE}, {VPN_DEVICE}",
    }


def test_the_program_that_starts_charon_agrees_with_our_names() -> None:
    found = dict(re.findall(r"^(device|interface)=(\S+)$", LAUNCHER, re.MULTILINE))
    assert found == {"device": VPN_DEVICE, "interface": f"{VPN_INTERFACE:#x}"}


def test_no_log_level_shows_packets_or_keys() -> None:
    logger = CONFIGURATION.split("stderr {")[1].split("}")[0]
    levels = {name: value for name, value in settings_of(logger).items() if value.isdigit()}
    assert levels
    assert all(int(value) <= 2 for value in levels.values()), levels


# --- connection and secret --------------------------------------------------------------------------------------------


def message(*, wished: IPv4Address | None = None, kernel_esp: bool = False) -> dict[str, Any]:
    return connection_message("homeward-1", SETTINGS, GATEWAY, wished=wished, kernel_esp=kernel_esp)


def test_the_kernels_policies_hold_for_our_interface_only_and_esp_takes_the_way_of_ike() -> None:
    child = message(kernel_esp=True)["homeward-1"]["children"]["homeward"]
    more = {"if_id_in": str(VPN_INTERFACE), "if_id_out": str(VPN_INTERFACE), "set_mark_out": f"{MARK_IKE:#x}"}
    assert child == {**message()["homeward-1"]["children"]["homeward"], **more}


def test_the_connection_leaves_the_choice_of_address_to_mobike() -> None:
    [(name, connection)] = message().items()
    assert name == "homeward-1"
    assert "local_addrs" not in connection
    assert connection["version"] == "2"
    assert connection["mobike"] == "yes"
    assert connection["vips"] == ["0.0.0.0"]
    assert connection["remote_addrs"] == [str(GATEWAY)]
    assert connection["children"]["homeward"]["remote_ts"] == ["10.0.0.0/8"]


def test_the_inner_address_held_last_is_asked_for_again() -> None:
    [connection] = message(wished=IPv4Address("10.9.0.7")).values()
    assert connection["vips"] == ["10.9.0.7"]


def test_each_order_has_a_name_of_its_own() -> None:
    names = {new_name() for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith(PREFIX) for name in names)


def test_the_secret_goes_to_charon_octet_by_octet() -> None:
    key = bytes(range(256))
    message = secret_message(SETTINGS, Secret(key))
    assert message["data"] == key
    assert message["owners"] == [SETTINGS.local_identity, SETTINGS.remote_identity]


# --- what charon says -------------------------------------------------------------------------------------------------

SA = {
    "uniqueid": "7",
    "local-host": "198.51.100.10",
    "remote-host": "192.0.2.1",
    "local-vips": ["10.9.0.1"],
    "child-sas": {"homeward-3": {"state": "INSTALLED"}},
}


def test_an_association_is_read_and_other_peoples_are_left_out() -> None:
    [found] = associations({"up": "yes", "office": SA, "homeward-1": SA})
    assert (found.name, found.number, found.local, found.inner) == (
        "homeward-1",
        7,
        IPv4Address("198.51.100.10"),
        IPv4Address("10.9.0.1"),
    )
    assert found.carries
    assert not found.behind_nat


def test_an_association_that_has_no_address_yet_is_read_as_well() -> None:
    bare = {"local-host": "%any", "remote-host": "192.0.2.1", "tasks-active": ["IKE_INIT"]}
    [found] = associations({"homeward-1": bare})
    assert (found.local, found.inner, found.carries) == (IPv4Address("0.0.0.0"), None, False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tasks-passive": ["IKE_DELETE"]}, "the gateway closed"),
        ({"tasks-active": ["IKE_DELETE"]}, "another program"),
        ({"tasks-active": ["IKE_MOBIKE"]}, "no longer answers"),
        ({"tasks-active": ["CHILD_REKEY"]}, "no longer answers"),
        ({}, "no longer answers"),
    ],
)
def test_a_loss_is_told_by_what_the_association_was_doing(more: dict[str, list[str]], words: str) -> None:
    [found] = associations({"homeward-1": {**SA, **more}})
    assert words in why_lost(found)


INIT = "parsed IKE_SA_INIT response 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) ]"


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        ([INIT, "received AUTHENTICATION_FAILED notify error"], "authentication-failed", "did not accept"),
        (
            [INIT, "tried 1 shared key for 'a' - 'b', but MAC mismatched"],
            "authentication-failed",
            "may not be the gateway",
        ),
        ([INIT, "no shared key found for 'a' - 'b'"], "authentication-failed", "no pre-shared key"),
        (
            ["constraint check failed: identity 'gw.example.test' required ", "no alternative config found"],
            "authentication-failed",
            "did not prove",
        ),
        (["received NO_PROPOSAL_CHOSEN notify error"], "gateway-refused", "cipher"),
        (["received NO_PROPOSAL_CHOSEN notify error"], "gateway-refused", "IKEv2"),
        (["received INVALID_MAJOR_VERSION notify error"], "gateway-refused", "does not speak IKEv2"),
        ([INIT, "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built"], "gateway-refused", "cipher"),
        ([INIT, "received TS_UNACCEPTABLE notify, no CHILD_SA built"], "gateway-refused", "networks"),
        (
            [INIT, "received INTERNAL_ADDRESS_FAILURE notify, no CHILD_SA built"],
            "gateway-refused",
            "inner address",
        ),
        (["received INVALID_SYNTAX notify error"], "gateway-refused", "INVALID_SYNTAX"),
        (["retransmit 4 of request", "giving up after 4 retransmits"], "gateway-unreachable", "no answer"),
        ([INIT, "giving up after 4 retransmits"], "gateway-unreachable", "4500"),
        (["unable to install inbound and outbound IPsec SA (SAD) in kernel"], "engine-failed", "SAD"),
        (["something that charon 7 says"], "engine-failed", "charon 7"),
        ([], "engine-failed", "did not say"),
    ],
)
def test_a_failure_is_told_by_what_charon_logged(lines: list[str], code: str, words: str) -> None:
    failed = why_failed(lines, SETTINGS, GATEWAY)
    assert isinstance(failed, VpnFailed)
    assert failed.code == code
    assert words in failed.cause
    assert "{" not in failed.cause


def test_mobike_is_what_the_gateway_agreed_to() -> None:
    assert agreed_to_mobike([INIT, "peer supports MOBIKE"])
    assert not agreed_to_mobike([INIT, "peer supports MOBIKE, but disabled in config"])
    assert not agreed_to_mobike(["generating IKE_AUTH request 1 [ N(MOBIKE_SUP) ]"])


# --- the connection ---------------------------------------------------------------------------------------------------


def test_an_absent_charon_is_told_from_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "charon.vici"
    with pytest.raises(Unavailable, match=r"not running|not installed"):
        ViciConnection(str(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(Unavailable, match="has died"):
        ViciConnection(str(path))


def test_a_missing_right_is_named() -> None:
    error = _no_connection(VICI_SOCKET, PermissionError(13, "Permission denied"))
    assert isinstance(error, NotPermitted)
    assert "root" in str(error)


@pytest.fixture
def far_end() -> Iterator[tuple[ViciConnection, Transport]]:
    """A connection, and the end that charon would have."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")  # Linux then picks an abstract name by itself.
        listening.listen()
        name = listening.getsockname()
        connection = ViciConnection(name if isinstance(name, str) else os.fsdecode(name), timeout=5)
        accepted, _ = listening.accept()
        with closing(connection), accepted:
            yield connection, Transport(accepted)


def told(kind: int, name: str | None = None, message: dict[str, object] | None = None) -> bytes:
    head = bytes([kind]) if name is None else bytes([kind, len(name)]) + name.encode()
    return head + (Message.serialize(message) if message is not None else b"")


def answering(transport: Transport, *packets: bytes) -> threading.Thread:
    """Answers one request with these packets."""

    def answer() -> None:
        transport.receive()
        for packet in packets:
            transport.send(packet)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_no_event_is_lost_between_two_subscriptions(far_end: tuple[ViciConnection, Transport]) -> None:
    connection, transport = far_end

    def answer() -> None:
        transport.receive()
        transport.send(told(Packet.EVENT_CONFIRM))
        transport.receive()
        transport.send(told(Packet.EVENT, "ike-updown", {"up": "yes"}))
        transport.send(told(Packet.EVENT_CONFIRM))
        transport.send(told(Packet.EVENT, "child-updown", {"list": ["a", "b"]}))

    thread = threading.Thread(target=answer)
    thread.start()
    connection.subscribe("ike-updown", "child-updown")
    events = connection.events()
    assert next(events) == ("ike-updown", {"up": "yes"})
    assert next(events) == ("child-updown", {"list": ["a", "b"]})
    thread.join()


def test_an_event_that_charon_does_not_have_is_an_error(far_end: tuple[ViciConnection, Transport]) -> None:
    connection, transport = far_end
    thread = answering(transport, told(Packet.EVENT_UNKNOWN))
    with pytest.raises(IkeError, match="ike-update"):
        connection.subscribe("ike-update")
    thread.join()


def test_a_refused_command_tells_charons_words(far_end: tuple[ViciConnection, Transport]) -> None:
    connection, transport = far_end
    thread = answering(
        transport, told(Packet.CMD_RESPONSE, None, {"success": "no", "errmsg": "invalid proposal"})
    )
    with pytest.raises(IkeError, match="load-conn: invalid proposal"):
        connection.request("load-conn", {})
    thread.join()


def test_nonsense_from_the_other_end_is_a_broken_connection(
    far_end: tuple[ViciConnection, Transport],
) -> None:
    connection, transport = far_end
    thread = answering(transport, bytes([Packet.CMD_RESPONSE, Message.SECTION_START, 2, 0xFF, 0xFE]))
    with pytest.raises(Unavailable):
        connection.request("version")
    thread.join()


def test_closing_wakes_whoever_waits(far_end: tuple[ViciConnection, Transport]) -> None:
    connection, _ = far_end
    caught: list[Exception] = []

    def wait() -> None:
        try:
            next(connection.events())
        except Unavailable as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    connection.close()
    thread.join(2)
    assert not thread.is_alive()
    assert caught


# --- devices ----------------------------------------------------------------------------------------------------------


def test_the_device_with_an_address_is_found() -> None:
    assert device_with_address(IPv4Address("127.0.0.1")) == "lo"
    assert device_with_address(IPv4Address("192.0.2.77")) is None
