# SPDX-License-Identifier: GPL-2.0-or-later
"""The program `homeward` as a process of its own, against a daemon that a test writes."""

import asyncio
import errno
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.bus.control import Caller
from homeward.bus.errors import NoSuchProfile, Refused, SecretRefused
from homeward.bus.messages import ProfileSummary, snapshot_from_plain
from homeward.bus.server import BusServer
from homeward.model.access import AccessMode
from homeward.model.secret import Secret
from homeward.model.status import ClientState, SecretNeeded
from tests.component.controls import ScriptedControl
from tests.world.buses import PrivateBus

PROGRAM = [sys.executable, "-P", "-m", "homeward.cli.main"]


class Daemon(ScriptedControl):
    """Connects after `delay` seconds, once it has all secrets in `wanted`."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = (
            ProfileSummary("office", "alice", "/p/office.toml", "", IPv4Address("10.77.0.10"), "gw"),
        )
        self.wanted: dict[str, bytes] = {}
        self.delay = 0.2
        self.server: BusServer | None = None
        self.waiting = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, profile: str, caller: Caller) -> None:
        await super().connect(profile, caller)
        if profile not in {summary.name for summary in self.listed}:
            raise NoSuchProfile("there is no such profile; usable are: office")
        self._go_on()

    async def reconnect(self, caller: Caller) -> None:
        await super().reconnect(caller)
        self._go_on()

    async def disconnect(self, caller: Caller) -> None:
        await super().disconnect(caller)
        self.show(state=ClientState.DISCONNECTED, mode=AccessMode.NONE)

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        octets = secret.reveal()
        if self.wanted.get(reference) != octets:
            raise SecretRefused(f"this is not the secret “{reference}”")
        await super().offer_secret(reference, secret, caller)
        if self.shown.state is ClientState.WAITING_FOR_SECRET:
            self._go_on()

    def show(self, **fields: object) -> None:
        self.change(**fields)
        assert self.server is not None
        self.server.publish()

    def _go_on(self) -> None:
        missing = tuple(
            SecretNeeded(name, f"the purpose of {name}", "alice", "scrypt:0:0")
            for name in self.wanted
            if name not in self.secrets
        )
        state = ClientState.WAITING_FOR_SECRET if missing else ClientState.DETECTING
        self.show(state=state, mode=AccessMode.NONE, profile="office", secrets_needed=missing)
        if missing:
            self.waiting.set()
        else:
            task = asyncio.get_running_loop().create_task(self._arrive())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _arrive(self) -> None:
        await asyncio.sleep(self.delay)
        self.show(state=ClientState.TRUSTED_C, mode=AccessMode.C, care_of_address=IPv4Address("10.1.1.5"))


@pytest.fixture
async def daemon(bus: PrivateBus) -> AsyncIterator[Daemon]:
    control = Daemon()
    control.server = BusServer(control, bus.address, version="1")
    await control.server.start()
    yield control
    await control.server.stop()


async def run(
    bus: PrivateBus, *words: str, fds: Sequence[int] = (), stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with the bus in the environment and no terminal."""
    result = await asyncio.to_thread(
        subprocess.run,
        [*PROGRAM, *words],
        input=stdin,
        capture_output=True,
        env=os.environ | {"HOMEWARD_BUS": bus.address},
        pass_fds=fds,
        timeout=40,
        check=False,
    )
    shown = subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
    )
    assert "Traceback" not in shown.stderr
    return shown


def descriptor_with(octets: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, octets)
    os.close(writing)
    return reading


async def test_status_in_words_and_as_json(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.show(state=ClientState.TRUSTED_C, mode=AccessMode.C, profile="office")
    said = await run(bus, "status")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("Homeward          inside, on a trusted network (mode c)\n")
    said = await run(bus, "status", "--json")
    assert snapshot_from_plain(json.loads(said.stdout)) == daemon.shown


@pytest.mark.slow
async def test_connect_returns_at_once_or_waits(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.delay = 1.0
    said = await run(bus, "connect", "office")
    assert said.returncode == 0
    assert "finding out where we are" in said.stdout
    said = await run(bus, "connect", "--wait", "20", "--json")  # the only profile
    assert said.returncode == 0
    assert json.loads(said.stdout)["mode"] == "c"
    assert [name for name, _caller in daemon.calls] == ["connect office", "connect office"]


async def test_connect_that_takes_too_long(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.delay = 30
    said = await run(bus, "connect", "--wait", "0.5")
    assert said.returncode == 1
    assert "not connected within 0.5 s: finding out where we are" in said.stderr
    assert "homeward watch" in said.stderr


async def test_disconnect_and_reconnect(bus: PrivateBus, daemon: Daemon) -> None:
    assert (await run(bus, "connect", "--wait", "20")).returncode == 0
    said = await run(bus, "disconnect")
    assert (said.returncode, said.stdout.split()[1]) == (0, "disconnected;")
    said = await run(bus, "reconnect")
    assert said.returncode == 0
    assert [name for name, _caller in daemon.calls] == ["connect office", "disconnect", "reconnect"]


async def test_secrets_from_a_descriptor(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.wanted = {"mn-ha": bytes(range(32)), "psk": "pässwörd".encode()}
    reading = descriptor_with(
        b"mn-ha=hex:" + bytes(range(32)).hex().encode() + "\npsk=text:pässwörd\n".encode()
    )
    said = await run(bus, "connect", "office", "--wait", "20", "--secrets-fd", str(reading), fds=[reading])
    os.close(reading)
    assert (said.returncode, said.stderr) == (0, "")
    assert daemon.secrets == daemon.wanted


async def test_secrets_from_standard_input(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.wanted = {"psk": b"x"}
    assert (
        await run(bus, "connect", "--wait", "20", "--secrets-fd", "0", stdin=b"psk=text:x")
    ).returncode == 0


async def test_a_wrong_secret_connects_nothing(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.wanted = {"psk": b"right"}
    said = await run(bus, "connect", "--secrets-fd", "0", stdin=b"psk=text:wrong-password")
    assert said.returncode == 1
    assert "this is not the secret “psk”" in said.stderr
    assert "wrong-password" not in said.stdout + said.stderr
    assert daemon.calls == []


@pytest.mark.slow
async def test_a_missing_secret_without_a_terminal(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.wanted = {"psk": b"right"}
    said = await run(bus, "connect")
    assert said.returncode == 1
    assert "a secret is missing (“psk” of alice)" in said.stderr
    assert "--secrets-fd" in said.stderr
    assert "homeward-tray" in said.stdout


@pytest.mark.slow
async def test_a_tray_that_supplies_the_secret_meanwhile(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.wanted = {"psk": b"right"}

    async def tray() -> None:
        await daemon.waiting.wait()
        await asyncio.sleep(0.5)
        await daemon.offer_secret("psk", Secret(b"right"), Caller(0, ":1.9", "root"))

    _, said = await asyncio.gather(tray(), run(bus, "connect", "--wait", "20"))
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["connect", "elsewhere"], 2, "there is no such profile; usable are: office"),
        (["connect", "--secrets-fd", "77"], 2, "--secrets-fd 77"),
        (["status", "--bus", "unix:path=/nowhere"], 1, "cannot be reached"),
        (["status", "--bus", "nonsense"], 1, "cannot be reached"),
        (["explode"], 2, "usage:"),
        ([], 2, "usage:"),
    ],
)
async def test_mistakes(bus: PrivateBus, daemon: Daemon, words: list[str], status: int, text: str) -> None:
    said = await run(bus, *words)
    assert said.returncode == status
    assert text in said.stderr
    assert said.stdout == ""


async def test_a_refusal(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.error = Refused("only root may; use sudo")
    for words in (["connect", "office"], ["disconnect"], ["reconnect"]):
        said = await run(bus, *words)
        assert (said.returncode, said.stderr) == (1, "homeward: only root may; use sudo\n")


@pytest.mark.slow
async def test_without_daemon(bus: PrivateBus) -> None:
    for words in (["status"], ["profiles"], ["connect"], ["disconnect"], ["reconnect"]):
        said = await run(bus, *words)
        assert said.returncode == 1
        assert "systemctl start homewardd" in said.stderr
    said = await run(bus, "watch", "--wait", "0.1", "--json")
    assert (said.returncode, said.stdout) == (0, "null\n")


@pytest.mark.slow
async def test_which_profile(bus: PrivateBus, daemon: Daemon) -> None:
    daemon.listed += (
        ProfileSummary("travel", "alice"),
        ProfileSummary("bad", problem="bad.toml: spi: found 3"),
    )
    said = await run(bus, "connect")
    assert (said.returncode, said.stdout) == (2, "")
    assert "There are office, travel" in said.stderr
    said = await run(bus, "profiles")
    assert said.returncode == 0
    assert "bad.toml: spi: found 3" in said.stdout
    said = await run(bus, "profiles", "--json")
    assert [row["name"] for row in json.loads(said.stdout)] == ["office", "travel", "bad"]
    daemon.listed = daemon.listed[2:]
    said = await run(bus, "connect")
    assert (said.returncode, said.stderr) == (2, "homeward: bad.toml: spi: found 3\n")
    daemon.listed = ()
    assert (await run(bus, "connect")).returncode == 2


async def test_watching_prints_each_change(bus: PrivateBus, daemon: Daemon) -> None:
    watching = await asyncio.create_subprocess_exec(
        *PROGRAM,
        "watch",
        "--json",
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"HOMEWARD_BUS": bus.address},
    )
    assert watching.stdout is not None
    async with asyncio.timeout(40):
        states = [json.loads(await watching.stdout.readline())["state"]]
        daemon.show(state=ClientState.OUTSIDE_MC, mode=AccessMode.MC)
        states.append(json.loads(await watching.stdout.readline())["state"])
        watching.terminate()
        await watching.communicate()
    assert states == ["disconnected", "outside-mc"]


@pytest.mark.slow
async def test_output_into_a_pipe_that_closes(bus: PrivateBus, daemon: Daemon) -> None:
    said = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", '"$@" watch --wait 2 --json | head -n 1', "sh", *PROGRAM],
        capture_output=True,
        env=os.environ | {"HOMEWARD_BUS": bus.address},
        timeout=40,
        check=False,
    )
    assert said.stdout.count(b"\n") == 1
    assert b"Traceback" not in said.stderr


# --- on a terminal ---------------------------------------------------------------------------------------------------


class Terminal:
    """The program on a pseudo-terminal of its own."""

    def __init__(self, bus: PrivateBus, *words: str) -> None:
        self.shown = ""
        self._child, self._master = pty.fork()
        if self._child == 0:
            os.environ["HOMEWARD_BUS"] = bus.address
            os.execv(PROGRAM[0], [*PROGRAM, *words])
        os.set_blocking(self._master, False)

    async def until(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._read()
            await asyncio.sleep(0.02)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def status(self) -> int:
        """Wait for its end; the exit status."""
        deadline = time.monotonic() + 20
        while True:
            self._read()
            ended, status = os.waitpid(self._child, os.WNOHANG)  # noqa: ASYNC222 - it does not wait
            if ended:
                self._read()
                os.close(self._master)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, self.shown
            await asyncio.sleep(0.02)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._master, 65536).decode()
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:  # which says that the other end is closed
                raise


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a secret is asked of its owner or of root")
async def test_a_person_is_asked_for_what_is_missing_and_again_when_it_is_wrong(
    bus: PrivateBus, daemon: Daemon
) -> None:
    daemon.wanted = {"psk": b"right secret"}
    terminal = Terminal(bus, "connect", "--wait", "20")
    await terminal.until("the purpose of psk")
    await terminal.until("“psk”")
    terminal.type("wrong secret\n")
    await terminal.until("this is not the secret “psk”")
    await asyncio.sleep(1.2)
    terminal.type("right secret\n")
    assert await terminal.status() == 0
    assert "inside, on a trusted network" in terminal.shown
    assert "secret\r" not in terminal.shown  # nothing was echoed
    assert "wrong secret" not in terminal.shown
    assert daemon.secrets == daemon.wanted


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a secret is asked of its owner or of root")
@pytest.mark.parametrize("key", ["\x03", "\x04"])
async def test_giving_up_at_the_question(bus: PrivateBus, daemon: Daemon, key: str) -> None:
    daemon.wanted = {"psk": b"right secret"}
    terminal = Terminal(bus, "connect")
    await terminal.until("“psk”")
    await asyncio.sleep(0.2)
    terminal.type(key)
    assert await terminal.status() == 1
    assert "Traceback" not in terminal.shown


async def test_profile_runs_the_tool(bus: PrivateBus, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("version = 1\nnme = 'x'\n")
    said = await run(bus, "profile", "check", str(tmp_path / "bad.toml"))
    assert said.returncode == 2
    assert "nme: unknown key; did you mean “name”" in said.stderr
    said = await run(bus, "profile", "fingerprint", "--secret-fd", "0", stdin=b"text:a long enough secret\n")
    assert said.returncode == 0
    assert said.stdout.startswith("scrypt:")
