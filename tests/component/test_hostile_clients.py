# SPDX-License-Identifier: GPL-2.0-or-later
"""What another local user can do to the daemon: be refused, be counted, and nothing else."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dbus_fast import DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from homeward.adapters.system_bus_logind import LogindSessions
from homeward.bus.bounded import PatientBus
from homeward.bus.client import DaemonClient
from homeward.bus.connection import leave_bus, open_bus
from homeward.bus.control import Caller
from homeward.bus.errors import HomewardError, Refused
from homeward.bus.messages import ProfileSummary
from homeward.bus.names import BUS_INTERFACE, BUS_NAME, BUS_PATH
from homeward.daemon.guard import GuardedControl, summarise
from homeward.daemon.permissions import Permissions
from homeward.daemon.secret_store import FOREIGN_SECRET, SecretStore
from homeward.daemon.settings import Profiles
from homeward.model.health import Severity
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot
from tests.component.controls import ScriptedControl, serving
from tests.unit.daemon.parts import KEY, profile
from tests.world.buses import OtherUser, PrivateBus
from tests.world.logind import PlayedLogind, Seated

pytestmark = pytest.mark.root

BIN = 2
"""A user id that is neither root's nor the second user's: Debian's user bin."""


class Keeper(ScriptedControl):
    """A Control with a real secret store, whose alarms stand in the status."""

    def __init__(self, profiles: Profiles) -> None:
        super().__init__()
        self.known = profiles
        self.store = SecretStore(time.monotonic)

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        try:
            await self.store.offer(reference, secret, caller, profiles=self.known.usable.values())
        finally:
            self.change(health=self.store.health)

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        return summarise(self.known)


@asynccontextmanager
async def guarded_daemon(bus: PrivateBus, keeper: Keeper) -> AsyncIterator[None]:
    """The daemon's whole front: service, guard, logind's answers, secret store."""
    sessions = LogindSessions(bus.address)
    guard = GuardedControl(keeper, Permissions(sessions), lambda: keeper.known)
    async with serving(guard, bus.address):
        yield
    await sessions.close()


def profiles(owner: str) -> Profiles:
    return Profiles({"office": profile(owner=owner)}, {"office": "/p/office.toml"})


async def try_everything(address: str) -> dict[str, str]:
    """What each call answers to this user: "done", or error and text."""
    answers: dict[str, str] = {}
    async with DaemonClient(address) as client:
        calls: dict[str, Callable[[], Any]] = {
            "status": client.status,
            "profiles": client.profiles,
            "connect": lambda: client.connect("office"),
            "disconnect": client.disconnect,
            "reconnect": client.reconnect,
            "offer": lambda: client.offer_secret("mn-ha", Secret(KEY)),
        }
        for name, run in calls.items():
            try:
                await run()
            except HomewardError as error:
                answers[name] = f"{type(error).__name__}: {error}"
            else:
                answers[name] = "done"
    return answers


async def test_a_second_user_may_read_and_nothing_else(bus: PrivateBus, other_user: OtherUser) -> None:
    keeper, logind = Keeper(profiles("bin")), PlayedLogind(bus.address)
    await logind.start(Seated(BIN))
    async with guarded_daemon(bus, keeper):
        answers = await other_user.run(try_everything, bus.address)
        assert answers["status"] == answers["profiles"] == "done"
        for act in ("connect", "disconnect", "reconnect"):
            assert answers[act].startswith(
                f"Refused: nobody (user id {other_user.uid}) may not {act}: only root and"
            )
            assert "that is bin" in answers[act]
        assert answers["offer"].startswith("SecretRefused: nobody (user id ")
        assert keeper.calls == []
        # Never trusted, and the reason is shown to everybody.
        async with DaemonClient(bus.address) as root:
            (alarm,) = (await root.status()).health
        assert (alarm.code, alarm.severity) == (FOREIGN_SECRET, Severity.ALARM)
        assert f"nobody (user id {other_user.uid}) offered the secret “mn-ha”" in alarm.text
        assert len(keeper.store.needed(profile(owner="bin"))) == 2
    await logind.stop()


async def test_whoever_sits_at_the_machine_may_and_no_longer_when_somebody_else_does(
    bus: PrivateBus, other_user: OtherUser
) -> None:
    keeper, logind = Keeper(profiles("nobody")), PlayedLogind(bus.address)
    await logind.start(Seated(BIN, active=False), Seated(other_user.uid))
    async with guarded_daemon(bus, keeper):
        assert set((await other_user.run(try_everything, bus.address)).values()) == {"done"}
        assert [name for name, _caller in keeper.calls] == ["connect office", "disconnect", "reconnect"]
        assert {(caller.uid, caller.user_name) for _name, caller in keeper.calls} == {
            (other_user.uid, "nobody")
        }
        logind.seat(Seated(BIN), Seated(other_user.uid, active=False))
        answers = await other_user.run(try_everything, bus.address)
        assert answers["connect"].startswith("Refused")
        assert answers["offer"] == "done"  # the profile is still this user's
    await logind.stop()


@pytest.mark.parametrize(
    "session", [{"remote": True}, {"active": False}, {"seat": ""}, {"kind": "greeter"}, {"kind": "manager"}]
)
async def test_sessions_that_do_not_count(
    bus: PrivateBus, other_user: OtherUser, session: dict[str, Any]
) -> None:
    keeper, logind = Keeper(profiles("nobody")), PlayedLogind(bus.address)
    await logind.start(Seated(other_user.uid, **session))
    async with guarded_daemon(bus, keeper):
        answers = await other_user.run(try_everything, bus.address)
        assert "nobody is logged in at the machine itself" in answers["disconnect"]
    await logind.stop()


async def test_without_logind_only_root(bus: PrivateBus, other_user: OtherUser) -> None:
    keeper = Keeper(profiles("nobody"))
    async with guarded_daemon(bus, keeper):
        answers = await other_user.run(try_everything, bus.address)
        assert "only root may while systemd-logind cannot say" in answers["reconnect"]
        async with DaemonClient(bus.address) as root:
            await root.reconnect()
    assert [caller.uid for _name, caller in keeper.calls] == [0]


async def take_the_name(address: str) -> str:
    connection = await open_bus(address, PatientBus)
    try:
        return str(await connection.request_name(BUS_NAME))
    except DBusError as error:
        return error.type
    finally:
        await leave_bus(connection)


async def test_only_root_may_be_the_daemon(bus: PrivateBus, other_user: OtherUser) -> None:
    assert await other_user.run(take_the_name, bus.address) == "org.freedesktop.DBus.Error.AccessDenied"


# --- overload --------------------------------------------------------------------------------------------------------


class _Pulse:
    """The longest time for which this process's event loop did not turn, and the CPU time that passed."""

    async def __aenter__(self) -> "_Pulse":
        self.longest = 0.0
        self._cpu = time.process_time()
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cpu = time.process_time() - self._cpu
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - began - 0.01)


def _method(member: str, signature: str = "", *body: object) -> Message:
    return Message(
        destination=BUS_NAME,
        path=BUS_PATH,
        interface=BUS_INTERFACE,
        member=member,
        signature=signature,
        body=list(body),
    )


async def send_huge(address: str, count: int) -> list[str]:
    connection = await open_bus(address, PatientBus)
    numbers = [7] * 2_000_000
    answers = [await connection.call(_method("Connect", "ai", numbers)) for _ in range(count)]
    await leave_bus(connection)
    return [str(answer.error_name) for answer in answers]


async def test_huge_messages_cost_little_and_are_answered(bus: PrivateBus, other_user: OtherUser) -> None:
    async with serving(ScriptedControl(), bus.address), _Pulse() as pulse:
        answers = await other_user.run(send_huge, bus.address, 5)
    assert answers == ["org.freedesktop.DBus.Error.LimitsExceeded"] * 5
    # Unpacking them would take 5 × 0.5 s of CPU time at the least.
    assert pulse.cpu < 0.8


async def flood(address: str, connections: int, calls: int) -> dict[str, int]:
    """Call without a pause; how the calls ended, "silence" for those that got no answer."""
    buses = [await open_bus(address, PatientBus) for _ in range(connections)]
    counts: dict[str, int] = {}

    async def one(connection: MessageBus) -> None:
        for _ in range(calls // 50):
            burst = [asyncio.create_task(connection.call(_method("GetStatus"))) for _ in range(50)]
            done, pending = await asyncio.wait(burst, timeout=0.2)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for task in done:
                reply = task.result()
                key = reply.error_name or "answered"
                counts[key] = counts.get(key, 0) + 1
            counts["silence"] = counts.get("silence", 0) + len(pending)

    await asyncio.gather(*(one(connection) for connection in buses))
    for connection in buses:
        await leave_bus(connection)
    return counts


async def test_a_flood_is_answered_for_a_while_and_nobody_else_waits(
    bus: PrivateBus, other_user: OtherUser
) -> None:
    control = ScriptedControl()
    async with serving(control, bus.address), DaemonClient(bus.address) as root, _Pulse() as pulse:
        flooding = asyncio.create_task(other_user.run(flood, bus.address, 4, 1000))
        waits = []
        while not flooding.done():
            began = time.monotonic()
            assert (await root.status()).revision == 1
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.02)
        counts = flooding.result()
    assert isinstance(counts, dict), counts
    assert counts["answered"] > 0
    assert counts.get("org.freedesktop.DBus.Error.LimitsExceeded", 0) > 0
    # All from one user: the bursts that the first calls of each connection get, and then what the rate allows.
    assert counts["answered"] < 3000
    assert counts["silence"] > 0
    assert max(waits) < 1.0
    assert pulse.longest < 0.5


async def read_nothing(address: str, calls: int) -> str:
    """Subscribe, ask and never read, on a raw socket; until killed."""
    path = address.removeprefix("unix:path=")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.connect(path)
        raw.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        assert raw.recv(100).startswith(b"OK")
        raw.sendall(b"BEGIN\r\n")
        driver = {
            "destination": "org.freedesktop.DBus",
            "path": "/org/freedesktop/DBus",
            "interface": "org.freedesktop.DBus",
        }
        messages = [
            Message(**driver, member="Hello", serial=1),
            Message(**driver, member="AddMatch", signature="s", body=["type='signal'"], serial=2),
            *(_method("GetStatus") for _ in range(calls)),
        ]
        for serial, message in enumerate(messages, start=1):
            message.serial = serial
            raw.sendall(bytes(message._marshall(False)))
        await asyncio.sleep(30)
    return "never killed"


async def test_a_slow_reader_harms_nobody(bus: PrivateBus, other_user: OtherUser) -> None:
    control, seen = ScriptedControl(), list[StatusSnapshot | None]()
    async with serving(control, bus.address) as server, DaemonClient(bus.address) as root:
        await root.watch(seen.append)
        other_user.start(read_nothing, bus.address, 100)
        await asyncio.sleep(0.3)
        for _ in range(200):
            control.change(vpn_cause="x" * 4000)
            server.publish()
            await asyncio.sleep(0.005)
            began = time.monotonic()
            assert (await root.status()).revision == control.shown.revision
            assert time.monotonic() - began < 1.0
        await asyncio.sleep(0.1)
        assert seen[-1] == control.shown


async def test_a_connection_that_slow_readers_have_silenced_is_replaced(other_user: OtherUser) -> None:
    # The bus stops reading from a sender of whom it holds this much unread; a real one allows 127 MiB.
    small = PrivateBus({"max_incoming_bytes": 200_000, "max_outgoing_bytes": 100_000_000})
    small.start()
    try:
        control = ScriptedControl()
        control.change(vpn_cause="x" * 4000)
        async with serving(control, small.address, longest_silence=0.5) as server:
            other_user.start(read_nothing, small.address, 100)
            await asyncio.sleep(0.3)
            silenced_at = server._bus
            for _ in range(400):  # signals that the other user has asked for and does not read
                if server._bus is not silenced_at:
                    break  # the next connection would be silenced in its turn
                control.change()
                assert server._interface is None or server._interface._signal() is None
                server._count()
                await asyncio.sleep(0.002)
            deadline = time.monotonic() + 10
            while server._bus is silenced_at or server._bus is None:
                assert time.monotonic() < deadline, "the connection was not replaced"
                await asyncio.sleep(0.05)
            async with DaemonClient(small.address) as root:
                assert (await root.status()).revision == control.shown.revision
    finally:
        small.remove()


# --- messages that are legal and odd ---------------------------------------------------------------------------------


async def send_odd(address: str) -> list[str]:
    """Messages that a bus passes on or not; what became of them."""
    connection = await open_bus(address, PatientBus)
    nested = Variant("i", 1)
    for _ in range(61):
        nested = Variant("v", nested)
    answers = []
    for message in (
        _method("Connect", "v", nested),
        _method("Connect", "a" * 31 + "y", _nested_list(31)),
        _method("Connect", "(" * 31 + "y" + ")" * 31, _nested_list(31, 1)),
        Message(destination=BUS_NAME, path=BUS_PATH, member="Disconnect"),  # no interface
        Message(
            destination=BUS_NAME,
            path="/",
            interface="org.freedesktop.DBus.ObjectManager",
            member="GetManagedObjects",
        ),
    ):
        try:
            async with asyncio.timeout(5):
                answers.append(str((await connection.call(message)).error_name))
        except (TimeoutError, OSError, EOFError) as error:
            answers.append(repr(error))
    signal = Message(
        message_type=MessageType.SIGNAL,
        destination=BUS_NAME,
        path=BUS_PATH,
        interface=BUS_INTERFACE,
        member="Odd",
    )
    await connection.send(signal)
    await leave_bus(connection)
    answers.append(await send_unknown_type(address))
    return answers


def _nested_list(depth: int, innermost: object = None) -> Any:
    value: Any = innermost if innermost is not None else b"x"
    for _ in range(depth if innermost is not None else depth - 1):
        value = [value]
    return value


async def send_unknown_type(address: str) -> str:
    """A message of type 9: dbus-fast would close its connection, so the bus must not pass it on."""
    connection = await open_bus(address, PatientBus)
    message = _method("GetStatus")
    message.serial = 77
    octets = bytearray(message._marshall(False))
    octets[1] = 9
    assert connection._sock is not None
    connection._sock.send(bytes(octets))
    await asyncio.sleep(0.3)
    state = "connected" if connection.connected else "disconnected"
    await leave_bus(connection)
    return state


async def test_odd_messages_do_not_break_the_daemons_connection(
    bus: PrivateBus, other_user: OtherUser
) -> None:
    control = ScriptedControl()
    async with serving(control, bus.address) as server:
        before = server._bus
        for _ in range(2):
            answers = await other_user.run(send_odd, bus.address)
            assert isinstance(answers, list), answers
        assert control.calls == []
        async with DaemonClient(bus.address) as root:
            assert (await root.status()).revision == 1
        assert server._bus is before, answers


async def test_refused_calls_are_typed_for_the_second_user_too(
    bus: PrivateBus, other_user: OtherUser
) -> None:
    control = ScriptedControl()
    control.error = Refused("no")
    async with serving(control, bus.address):
        answers = await other_user.run(try_everything, bus.address)
    assert answers["reconnect"] == "Refused: no"
