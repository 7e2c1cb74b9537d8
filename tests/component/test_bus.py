# SPDX-License-Identifier: GPL-2.0-or-later
"""Service and client over a real private bus: calls, errors, watching, and both ends finding each other again."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest
from dbus_fast import Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

from homeward.bus.bounded import PatientBus
from homeward.bus.client import DaemonClient
from homeward.bus.connection import leave_bus, open_bus
from homeward.bus.control import Caller
from homeward.bus.errors import (
    BadProfile,
    BusUnreachable,
    DaemonAbsent,
    Failed,
    NoSuchProfile,
    Refused,
    SecretRefused,
    ServiceError,
)
from homeward.bus.messages import ProfileSummary
from homeward.bus.names import BUS_INTERFACE, BUS_NAME, BUS_PATH
from homeward.bus.server import BusServer
from homeward.model.access import AccessMode
from homeward.model.errors import LinkError, Unavailable
from homeward.model.secret import Secret
from homeward.model.status import ClientState, StatusSnapshot
from tests.component.controls import ScriptedControl, serving
from tests.world.buses import PrivateBus

SECRET = b"\xffa secret that must not be seen anywhere"


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not happened"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def plain_connection(address: str):  # type: ignore[no-untyped-def]
    connection = await open_bus(address, PatientBus)
    try:
        yield connection
    finally:
        await leave_bus(connection)


def call(
    member: str,
    signature: str = "",
    *body: object,
    interface: str | None = BUS_INTERFACE,
    path: str = BUS_PATH,
) -> Message:
    return Message(
        destination=BUS_NAME,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=list(body),
    )


async def test_every_call_arrives(bus: PrivateBus) -> None:
    control = ScriptedControl()
    control.listed = (ProfileSummary("a", "alice"), ProfileSummary("b", problem="bad"))
    async with serving(control, bus.address), DaemonClient(bus.address) as client:
        await client.connect("office")
        await client.disconnect()
        await client.reconnect()
        await client.offer_secret("mn-ha", Secret(SECRET))
        assert [name for name, _caller in control.calls] == [
            "connect office",
            "disconnect",
            "reconnect",
            "offer mn-ha",
        ]
        assert len({caller.bus_name for _name, caller in control.calls}) == 1
        assert control.secrets == {"mn-ha": SECRET}
        assert await client.profiles() == control.listed
        assert await client.status() == control.shown
        assert await client.version() == "1.2.3"


@pytest.mark.parametrize("kind", [Refused, NoSuchProfile, BadProfile, SecretRefused, Failed])
async def test_errors_keep_their_type_and_text(bus: PrivateBus, kind: type[ServiceError]) -> None:
    control = ScriptedControl()
    control.error = kind("what to do next: “this”\n and\0that")
    async with serving(control, bus.address), DaemonClient(bus.address) as client:
        with pytest.raises(kind) as caught:
            await client.connect("office")
        assert type(caught.value) is kind
        assert str(caught.value) == "what to do next: “this”\n and\N{REPLACEMENT CHARACTER}that"


async def test_other_errors_fail_with_a_text_for_the_user(
    bus: PrivateBus, caplog: pytest.LogCaptureFixture
) -> None:
    control = ScriptedControl()
    async with serving(control, bus.address), DaemonClient(bus.address) as client:
        control.error = LinkError("open the device", "it is gone")
        with pytest.raises(Failed, match=r"could not reconnect: open the device: it is gone"):
            await client.reconnect()
        assert not caplog.records
        control.error = RuntimeError("internal detail")
        with pytest.raises(Failed, match="journalctl") as caught:
            await client.reconnect()
        assert "internal detail" not in str(caught.value)
        assert "internal detail" in caplog.text


async def test_1500_concurrent_calls_each_under_its_own_caller(bus: PrivateBus) -> None:
    class Echo(ScriptedControl):
        async def connect(self, profile: str, caller: Caller) -> None:
            await asyncio.sleep(0.001)
            raise Refused(f"{profile} {caller.bus_name}")

    async with serving(Echo(), bus.address):
        # A system bus lets a connection wait for 128 answers at a time.
        connections = [await open_bus(bus.address, PatientBus) for _ in range(12)]

        async def one(connection: MessageBus, number: int) -> bool:
            reply = await connection.call(call("Connect", "s", str(number)))
            return reply.body == [f"{number} {connection.unique_name}"]

        right = await asyncio.gather(*(one(each, number) for number in range(125) for each in connections))
        for connection in connections:
            await leave_bus(connection)
    assert right.count(True) == 1500


async def test_watching(bus: PrivateBus) -> None:
    control, seen = ScriptedControl(), list[StatusSnapshot | None]()
    server = BusServer(control, bus.address, version="1")
    async with DaemonClient(bus.address) as client:
        await client.watch(seen.append)
        assert seen == [None]
        await server.start()
        await until(lambda: seen[-1] == control.shown)
        control.change(state=ClientState.TRUSTED_C, mode=AccessMode.C)
        server.publish()
        await until(lambda: seen[-1] == control.shown)
        await server.stop()
        await until(lambda: seen[-1] is None)
        # A new life of the daemon counts its revisions from the beginning.
        control.shown = StatusSnapshot(revision=0, state=ClientState.NO_NETWORK)
        async with serving(control, bus.address):
            await until(lambda: seen[-1] == control.shown)


async def test_a_burst_of_changes_is_told_in_few_signals_and_the_last_one_arrives(bus: PrivateBus) -> None:
    control, seen = ScriptedControl(), list[StatusSnapshot | None]()
    async with serving(control, bus.address) as server, DaemonClient(bus.address) as client:
        await client.watch(seen.append)
        for _ in range(500):
            control.change()
            server.publish()
            await asyncio.sleep(0)
        await until(lambda: seen[-1] == control.shown)
        assert len(seen) < 100
        revisions = [snapshot.revision for snapshot in seen if snapshot is not None]
        assert revisions == sorted(set(revisions))


async def test_more_to_say_than_the_socket_takes_at_once(bus: PrivateBus) -> None:
    control, seen = ScriptedControl(), list[StatusSnapshot | None]()
    async with serving(control, bus.address) as server, DaemonClient(bus.address) as client:
        await client.watch(seen.append)
        before = server._bus
        bus.pause()
        for _ in range(500):
            control.change(vpn_cause="x" * 4000)
            assert server._interface is not None
            server._interface._signal()  # without a pause between two
        await asyncio.sleep(0.1)
        bus.resume()
        await until(lambda: seen[-1] == control.shown)
        assert len(seen) == 501
        assert server._bus is before


async def test_a_bus_that_restarts_is_joined_again_by_both_ends(bus: PrivateBus) -> None:
    control, seen = ScriptedControl(), list[StatusSnapshot | None]()
    async with serving(control, bus.address) as server, DaemonClient(bus.address) as client:
        await client.watch(seen.append)
        assert seen == [control.shown]
        bus.stop()
        await until(lambda: seen[-1] is None)
        with pytest.raises(BusUnreachable):
            await client.status()
        bus.start()
        await until(lambda: seen[-1] == control.shown)
        control.change()
        server.publish()
        await until(lambda: seen[-1] == control.shown)


async def test_a_signal_from_somebody_else_is_not_believed(bus: PrivateBus) -> None:
    control, seen = ScriptedControl(), list[StatusSnapshot | None]()
    async with (
        serving(control, bus.address),
        DaemonClient(bus.address) as client,
        plain_connection(bus.address) as liar,
    ):
        await client.watch(seen.append)
        lie = {"Status": Variant("a{sv}", {"revision": Variant("x", 99), "state": Variant("s", "trusted-c")})}
        assert client._bus is not None
        for destination in (None, client._bus.unique_name):
            await liar.send(
                Message(
                    message_type=MessageType.SIGNAL,
                    destination=destination,
                    path=BUS_PATH,
                    interface="org.freedesktop.DBus.Properties",
                    member="PropertiesChanged",
                    signature="sa{sv}as",
                    body=[BUS_INTERFACE, lie, []],
                )
            )
        await client.status()
        await asyncio.sleep(0.1)
        assert seen == [control.shown]


async def test_without_daemon_and_without_bus(bus: PrivateBus) -> None:
    async with DaemonClient(bus.address) as client:
        with pytest.raises(DaemonAbsent, match="systemctl start homewardd"):
            await client.status()
    bus.stop()
    with pytest.raises(BusUnreachable, match="--bus"):
        await DaemonClient(bus.address).open()
    with pytest.raises(BusUnreachable, match="--bus"):
        await DaemonClient("nonsense").open()


async def test_a_daemon_that_hangs(bus: PrivateBus) -> None:
    class Hanging(ScriptedControl):
        async def reconnect(self, caller: Caller) -> None:
            await asyncio.Event().wait()

    async with serving(Hanging(), bus.address), DaemonClient(bus.address, call_timeout=0.2) as client:
        with pytest.raises(DaemonAbsent, match=r"has not answered for 0\.2 seconds"):
            await client.reconnect()


async def test_only_one_daemon(bus: PrivateBus) -> None:
    async with serving(ScriptedControl(), bus.address):
        with pytest.raises(Unavailable, match="another homewardd"):
            await BusServer(ScriptedControl(), bus.address, version="1").start()


async def test_the_bus_address_may_come_from_the_environment(
    bus: PrivateBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEWARD_BUS", bus.address)
    async with serving(ScriptedControl(), bus.address), DaemonClient() as client:
        assert (await client.status()).revision == 1


WRONG_CALLS = {
    "wrong type": (call("Connect", "i", 7), "UnknownMethod"),
    "too many arguments": (call("Disconnect", "s", "x"), "UnknownMethod"),
    "too few arguments": (call("OfferSecret", "s", "x"), "UnknownMethod"),
    "unknown method": (call("Explode"), "UnknownMethod"),
    "unknown path": (call("GetStatus", path="/elsewhere"), "UnknownMethod"),
    "empty name": (call("Connect", "s", ""), "InvalidArgs"),
    "long name": (call("Connect", "s", "x" * 129), "InvalidArgs"),
    "unprintable name": (call("Connect", "s", "a\nb"), "InvalidArgs"),
    "empty secret": (call("OfferSecret", "say", "x", b""), "InvalidArgs"),
    "long secret": (call("OfferSecret", "say", "x", b"x" * 4097), "InvalidArgs"),
    "oversize": (call("OfferSecret", "say", "x", b"x" * 70_000), "LimitsExceeded"),
    "setting the status": (
        call(
            "Set",
            "ssv",
            BUS_INTERFACE,
            "Status",
            Variant("a{sv}", {}),
            interface="org.freedesktop.DBus.Properties",
        ),
        "PropertyReadOnly",
    ),
    "unknown property": (
        call("Get", "ss", BUS_INTERFACE, "Secrets", interface="org.freedesktop.DBus.Properties"),
        "UnknownProperty",
    ),
}


@pytest.mark.parametrize("what", WRONG_CALLS)
async def test_wrong_calls_are_answered_and_reach_nobody(
    bus: PrivateBus, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    message, error = WRONG_CALLS[what]
    control = ScriptedControl()
    async with serving(control, bus.address), plain_connection(bus.address) as connection:
        message.serial = 0
        reply = await connection.call(message)
        assert reply.message_type is MessageType.ERROR
        assert reply.error_name == f"org.freedesktop.DBus.Error.{error}"
        assert control.calls == []
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_call_without_reply_is_carried_out_and_its_failure_fills_no_log(
    bus: PrivateBus, caplog: pytest.LogCaptureFixture
) -> None:
    control = ScriptedControl()
    control.error = Refused("no")
    async with serving(control, bus.address), plain_connection(bus.address) as connection:
        message = call("Connect", "s", "office")
        message.flags = MessageFlag.NO_REPLY_EXPECTED
        await connection.send(message)
        await until(lambda: len(control.calls) == 1)
        await asyncio.sleep(0.05)
        assert not caplog.records


async def test_no_secret_in_logs_or_status(bus: PrivateBus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    control = ScriptedControl()
    async with serving(control, bus.address), DaemonClient(bus.address) as client:
        await client.offer_secret("mn-ha", Secret(SECRET))
        control.error = RuntimeError("boom")
        with pytest.raises(Failed) as caught:
            await client.offer_secret("mn-ha", Secret(SECRET))
        shown = caplog.text + str(caught.value) + repr(await client.status())
    assert "boom" in caplog.text
    for form in (SECRET.hex(), repr(SECRET), "a secret that must not"):
        assert form not in shown
