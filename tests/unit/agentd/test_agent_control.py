# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket and whoever comes to it, on a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from homeward.agentd import control
from homeward.agentd.control import Answers, ControlSocket, OrderRefused
from homeward.agentd.control_client import AgentAbsent, ask, ask_for_all
from homeward.model.errors import LinkError, ProfileError, Unavailable

_OPEN_TO_ALL = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO


class Obedient:
    """Knows a few orders."""

    async def obey(self, order: str, fields: Mapping[str, Any]) -> Answers:
        match order:
            case "echo":
                return (fields,)
            case "count":
                return ({"number": number} for number in range(int(fields["to"])))
            case "refuse":
                raise OrderRefused("not today")
            case "wrong":
                raise ProfileError("agent.toml: is wrong")
            case "fail":
                raise ZeroDivisionError
            case "wait":
                await asyncio.sleep(60)
        raise OrderRefused(f"no order {order}")


@asynccontextmanager
async def listening(place: Path) -> AsyncIterator[ControlSocket]:
    made = ControlSocket(place, Obedient())
    made.start()
    try:
        yield made
    finally:
        made.stop()


async def asked(place: Path, order: str, **fields: object) -> dict[str, Any]:
    return await asyncio.to_thread(ask, place, order, **fields)


@asynccontextmanager
async def connection(place: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(str(place), limit=1 << 20)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


async def test_orders_and_answers(tmp_path: Path) -> None:
    place = tmp_path / "made" / "control"
    async with listening(place):
        assert place.stat().st_mode & 0o777 == 0o600
        assert await asked(place, "echo", word="ä\n") == {"word": "ä\n"}
        numbers = await asyncio.to_thread(
            lambda: [each["number"] for each in ask_for_all(place, "count", to=1001)]
        )
        assert numbers == list(range(1001))
        with pytest.raises(OrderRefused, match="not today"):
            await asked(place, "refuse")
        with pytest.raises(OrderRefused, match="is wrong"):
            await asked(place, "wrong")
    assert not place.exists()
    with pytest.raises(AgentAbsent, match="Is it running"):
        await asked(place, "echo")


async def test_several_orders_on_one_connection(tmp_path: Path) -> None:
    async with listening(tmp_path / "c"), connection(tmp_path / "c") as (reader, writer):
        for number in range(3):
            writer.write(json.dumps({"order": "echo", "n": number}).encode() + b"\n")
            assert json.loads(await reader.readline()) == {"ok": True, "n": number}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"status",
        b"{}",
        b"[]",
        b"null",
        b'{"order": 1}',
        b'{"order": null}',
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"order": "echo"',
        b'{"order": NaN}',
        b"\x00" * 100,
    ],
)
async def test_what_is_no_order_is_refused_and_the_next_one_is_answered(tmp_path: Path, line: bytes) -> None:
    async with listening(tmp_path / "c"), connection(tmp_path / "c") as (reader, writer):
        writer.write(line + b"\n")
        answer = json.loads(await reader.readline())
        assert answer["ok"] is False
        assert "is a line with a JSON object" in answer["error"]
        writer.write(b'{"order": "echo"}\n')
        assert json.loads(await reader.readline()) == {"ok": True}


async def test_a_fault_of_ours_ends_one_order_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(tmp_path / "c"):
        with pytest.raises(OrderRefused, match="should not have happened"):
            await asked(tmp_path / "c", "fail")
        assert "order-failed" in caplog.text
        assert await asked(tmp_path / "c", "echo") == {}


async def test_who_talks_at_length_is_cut_off(tmp_path: Path) -> None:
    async with listening(tmp_path / "c"), connection(tmp_path / "c") as (reader, writer):
        writer.write(b'{"order": "' + b"x" * (8 * control.LONGEST_ORDER))
        assert json.loads(await reader.readline())["ok"] is False
        assert await reader.read() == b""


async def test_who_is_slow_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SECONDS_TO_SPEAK", 0.1)
    async with listening(tmp_path / "c"), connection(tmp_path / "c") as (reader, writer):
        writer.write(b'{"order"')
        assert await asyncio.wait_for(reader.read(), 3) == b""


async def test_who_does_not_read_the_answer_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SECONDS_TO_SPEAK", 0.1)
    async with listening(tmp_path / "c") as listener:
        deaf = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deaf.connect(str(tmp_path / "c"))
        deaf.sendall(b'{"order": "count", "to": 1000000}\n')
        await until(lambda: listener.clients == 1)
        await until(lambda: listener.clients == 0)
        assert await asked(tmp_path / "c", "echo") == {}
        deaf.close()


async def test_a_crowd_is_kept_small_and_others_get_in_when_it_has_gone(tmp_path: Path) -> None:
    async with listening(tmp_path / "c") as listener:
        async with AsyncExitStack() as crowd:
            for _ in range(control.MOST_CLIENTS):
                await crowd.enter_async_context(connection(tmp_path / "c"))
            await until(lambda: listener.clients == control.MOST_CLIENTS)
            with pytest.raises(Unavailable, match="hung up"):
                await asked(tmp_path / "c", "echo")
        await until(lambda: listener.clients == 0)
        assert await asked(tmp_path / "c", "echo") == {}


async def test_an_order_that_takes_long_holds_nobody_up(tmp_path: Path) -> None:
    async with listening(tmp_path / "c"), connection(tmp_path / "c") as (reader, writer):
        writer.write(b'{"order": "wait"}\n')
        assert await asyncio.wait_for(asked(tmp_path / "c", "echo"), 3) == {}
        assert not reader.at_eof()


async def test_a_socket_that_a_dead_agent_left_is_replaced_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    place = tmp_path / "c"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(place))
    async with listening(place):
        assert await asked(place, "echo") == {}
        with pytest.raises(LinkError, match="another agent answers there"):
            ControlSocket(place, Obedient()).start()
        assert await asked(place, "echo") == {}


async def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("somebody's")
    with pytest.raises(LinkError, match="opening the control socket"):
        ControlSocket(tmp_path / "c", Obedient()).start()
    assert (tmp_path / "c").read_text() == "somebody's"


async def test_nobody_without_an_agent(tmp_path: Path) -> None:
    with pytest.raises(AgentAbsent, match="none"):
        ask(None, "status")
    with pytest.raises(AgentAbsent):
        ask(tmp_path / "absent", "status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_not_answered() -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="homeward-", dir="/tmp")))
        place = folder / "c"
        await stack.enter_async_context(listening(place))
        # Even if somebody opened the folder and the socket's mode.
        for each in (folder, place):
            os.chmod(each, _OPEN_TO_ALL)
        child = await asyncio.create_subprocess_exec(
            "python3",
            "-c",
            "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX)\n"
            "s.connect(sys.argv[1])\n"
            'try:\n s.sendall(b\'{"order": "echo"}\\n\'); print(s.recv(100))\n'
            "except OSError: print(b'')",
            str(place),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await child.communicate()
    assert output.strip() == b"b''"
