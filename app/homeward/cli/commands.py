# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that speak to the daemon, each from its first call to its last word."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from homeward.bus.client import DaemonClient
from homeward.bus.errors import BadProfile, DaemonAbsent, NoSuchProfile, SecretRefused
from homeward.bus.messages import snapshot_to_plain
from homeward.cli.errors import FAILED, OK, NotInTime, UsageError
from homeward.cli.picture import STATES, profile_lines, status_line, status_lines
from homeward.cli.secrets_in import ask_secrets
from homeward.model.access import AccessMode
from homeward.model.secret import Secret
from homeward.model.status import ClientState, SecretNeeded, StatusSnapshot

_TRAY_ANSWERS_WITHIN: Final = 2.0
"""Seconds that a tray gets to supply a secret from the keyring before a person is asked."""
_TRIES: Final = 3

Until = Callable[[StatusSnapshot], bool]


def now() -> float:
    """CLOCK_BOOTTIME in seconds, on which the snapshot's deadlines are."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def show_status(bus: str | None, *, as_json: bool) -> int:
    """homeward status."""
    _print(asyncio.run(_with(bus, lambda client: client.status())), as_json=as_json)
    return OK


def show_profiles(bus: str | None, *, as_json: bool) -> int:
    """homeward profiles."""
    profiles = asyncio.run(_with(bus, lambda client: client.profiles()))
    if as_json:
        print(
            json.dumps([asdict(profile) for profile in profiles], default=str, ensure_ascii=False, indent=1)
        )
    else:
        print("\n".join(profile_lines(profiles) or ["There are no profiles; the administrator adds them."]))
    return OK


def watch(bus: str | None, *, as_json: bool, seconds: float | None) -> int:
    """homeward watch: each snapshot until interrupted, or for so many seconds."""

    def show(snapshot: StatusSnapshot | None) -> None:
        if as_json:
            print(json.dumps(None if snapshot is None else snapshot_to_plain(snapshot), ensure_ascii=False))
        else:
            print(f"{time.strftime('%H:%M:%S')}  {status_line(snapshot, now())}")
        sys.stdout.flush()

    async def work(client: DaemonClient) -> None:
        await client.watch(show)
        await asyncio.sleep(seconds) if seconds is not None else await asyncio.Event().wait()

    asyncio.run(_with(bus, work))
    return OK


def disconnect(bus: str | None, *, as_json: bool) -> int:
    """homeward disconnect."""

    async def work(client: DaemonClient) -> StatusSnapshot:
        await client.disconnect()
        return await client.status()

    _print(asyncio.run(_with(bus, work)), as_json=as_json)
    return OK


def reconnect(bus: str | None, *, as_json: bool, seconds: float | None) -> int:
    """homeward reconnect."""

    async def work(client: DaemonClient) -> tuple[StatusSnapshot, bool]:
        before = (await client.status()).proof
        await client.reconnect()
        # What was proved before counts no more: wait for another verdict, not for the old one's last snapshot.
        return await _follow(client, lambda seen: is_connected(seen) and seen.proof != before, seconds or 0)

    return _conclude(*asyncio.run(_with(bus, work)), as_json=as_json, seconds=seconds)


def connect(
    bus: str | None,
    profile: str | None,
    *,
    secrets: Mapping[str, Secret],
    as_json: bool,
    seconds: float | None,
) -> int:
    """homeward connect: hand over the secrets given, connect, ask for those still missing, and wait if told to."""

    began = now()

    def left() -> float:
        return max(0.0, began + (seconds or 0.0) - now())

    async def order(client: DaemonClient) -> StatusSnapshot:
        name = profile if profile is not None else await _only_profile(client)
        if name not in await _usable_profiles(client):
            await client.connect(name)  # is refused, with the reason, before any secret is handed over
        await _offer(client, secrets)
        await client.connect(name)
        # A person is asked soon; a script that waits gives the tray all its time.
        return (
            await _follow(
                client, _goes_on, _TRAY_ANSWERS_WITHIN if can_ask() else left() or _TRAY_ANSWERS_WITHIN
            )
        )[0]

    snapshot = asyncio.run(_with(bus, order))
    for _ in range(_TRIES):
        if not _waits_for_secret(snapshot) or not can_ask():
            break
        snapshot = _ask_and_offer(bus, snapshot)
    if _waits_for_secret(snapshot):
        _print(snapshot, as_json=as_json)
        raise NotInTime(_missing(snapshot))

    async def until_connected(client: DaemonClient) -> tuple[StatusSnapshot, bool]:
        return await _follow(client, is_connected, left())

    return _conclude(*asyncio.run(_with(bus, until_connected)), as_json=as_json, seconds=seconds)


def is_connected(snapshot: StatusSnapshot) -> bool:
    """Whether the home address can be used."""
    return snapshot.mode is not AccessMode.NONE


def can_ask() -> bool:
    """Whether a person sits at the terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def _with(bus: str | None, work: Callable[[DaemonClient], Awaitable[Any]]) -> Any:
    async with DaemonClient(bus) as client:
        return await work(client)


async def _follow(client: DaemonClient, until: Until, seconds: float) -> tuple[StatusSnapshot, bool]:
    """Watch until the condition holds; the last snapshot, and whether it did. DaemonAbsent if the daemon goes."""
    latest = await client.status()
    if seconds <= 0 or until(latest):
        return latest, until(latest)
    news: asyncio.Queue[StatusSnapshot | None] = asyncio.Queue()
    await client.watch(news.put_nowait)
    try:
        async with asyncio.timeout(seconds):
            while not until(latest):
                snapshot = await news.get()
                if snapshot is None:
                    raise DaemonAbsent("homewardd went away meanwhile; see `journalctl -u homewardd`")
                latest = snapshot
    except TimeoutError:
        return latest, False
    return latest, True


async def _usable_profiles(client: DaemonClient) -> list[str]:
    return [profile.name for profile in await client.profiles() if not profile.problem]


async def _only_profile(client: DaemonClient) -> str:
    profiles = await client.profiles()
    usable = [profile.name for profile in profiles if not profile.problem]
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise UsageError(f"which profile? There are {', '.join(usable)}: `homeward connect PROFILE`")
    if profiles:
        raise BadProfile("\n".join(profile.problem for profile in profiles))
    raise NoSuchProfile("there are no profiles; the administrator adds them (see `homeward profile check`)")


async def _offer(client: DaemonClient, secrets: Mapping[str, Secret]) -> None:
    for reference, secret in secrets.items():
        await client.offer_secret(reference, secret)


def _ask_and_offer(bus: str | None, snapshot: StatusSnapshot) -> StatusSnapshot:
    """Ask outside of the event loop, so that Ctrl-C ends the question; what is refused is asked for again."""
    answers = ask_secrets(secret for secret in snapshot.secrets_needed if _is_mine(secret))

    async def hand_over(client: DaemonClient) -> StatusSnapshot:
        try:
            await _offer(client, answers)
        except SecretRefused as error:
            print(error, file=sys.stderr)
        return (await _follow(client, _goes_on, 1.0))[0]

    result: StatusSnapshot = asyncio.run(_with(bus, hand_over))
    return result


def _is_mine(secret: SecretNeeded) -> bool:
    try:
        return os.getuid() == 0 or pwd.getpwuid(os.getuid()).pw_name == secret.owner
    except KeyError:
        return False


def _goes_on(snapshot: StatusSnapshot) -> bool:
    return snapshot.state not in (ClientState.DISCONNECTED, ClientState.WAITING_FOR_SECRET)


def _waits_for_secret(snapshot: StatusSnapshot) -> bool:
    return snapshot.state is ClientState.WAITING_FOR_SECRET


def _missing(snapshot: StatusSnapshot) -> str:
    names = (
        ", ".join(f"“{secret.reference}” of {secret.owner}" for secret in snapshot.secrets_needed) or "one"
    )
    return (
        f"not connected: a secret is missing ({names}). Its owner starts homeward-tray, or runs `homeward connect` in "
        "a terminal or with --secrets-fd."
    )


def _conclude(snapshot: StatusSnapshot, reached: bool, *, as_json: bool, seconds: float | None) -> int:
    _print(snapshot, as_json=as_json)
    if seconds is None or reached:
        return OK
    state = STATES[snapshot.state].partition(";")[0]
    print(
        f"homeward: not connected within {seconds:g} s: {state}. It goes on trying; `homeward watch` shows how.",
        file=sys.stderr,
    )
    return FAILED


def _print(snapshot: StatusSnapshot, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(snapshot_to_plain(snapshot), ensure_ascii=False, indent=1))
    else:
        print("\n".join(status_lines(snapshot, now())))
