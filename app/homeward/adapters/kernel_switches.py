# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel settings of other people's links that we must change for a while, remembered so that they can be put back.

Everything else that we put into the kernel carries our name and is found by it. A changed setting does not, so each is
written down before it is changed. The note is of use only in the same boot and network namespace, and only
while the link is the same and nobody else has changed the setting since.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from homeward.model.errors import PlanError

FILE_NAME: Final = "kernel-switches.json"

_NET = Path("/proc/sys/net")
_ALL = "all"
_SIOCETHTOOL = 0x8946
_ETHTOOL_GGRO = 0x2B
_ETHTOOL_SGRO = 0x2C


@dataclass(frozen=True, slots=True)
class _Wish:
    """One setting: `needed` says from its value for all links and its own what it must become (None: stays)."""

    name: str
    needed: Callable[[int, int], int | None]


# Of a link's own value and that for all links the kernel takes the larger, but for accept_redirects: there, on a host,
# either one allows. What may never happen on any link, known or not, is set for all.
_EVERYWHERE: Final = (
    # Never answer ARP for the home address, nor ask in its name.
    _Wish("arp_ignore", lambda every, own: 1 if every < 1 else None),
    _Wish("arp_announce", lambda every, own: 2 if every < 2 else None),
    # No router but the one that we were given.
    _Wish("accept_redirects", lambda every, own: 0 if every else None),
)
_NO_REDIRECTS: Final = _Wish("accept_redirects", lambda every, own: 0 if own else None)
# The way back to every sender leads into the home device, so the strict check would refuse all that comes in.
_LOOSE: Final = _Wish("rp_filter", lambda every, own: 2 if max(every, own) == 1 else None)


@dataclass(frozen=True, slots=True)
class _Change:
    """A setting as it was and as we left it. `setting` is a file under /proc/sys/net, or "gro LINK"."""

    setting: str
    link: int
    before: int
    after: int


class KernelSwitches:
    """Sets and restores; `directory` is where notes survive a killed life."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE_NAME
        self._changes: dict[str, _Change] | None = None

    def set_for(self, access_links: frozenset[str], tunnels: frozenset[str]) -> None:
        """Make these links fit for us and give all others back. Raises PlanError.

        Everywhere: no ARP for the home address, no redirects. On access links: no redirects, loose reverse-path
        check, no receive merging. On tunnels: loose reverse-path check, no receive merging.
        """
        wished = {change.setting: change for change in self._wished(access_links, tunnels)}
        noted = self._noted()
        gone = [change for change in noted.values() if change.setting not in wished]
        fresh = [change for change in wished.values() if change.before != change.after]
        if not gone and not fresh:
            return
        for change in fresh:
            known = noted.get(change.setting)
            same = known is not None and known.link == change.link
            noted[change.setting] = _Change(
                change.setting, change.link, known.before if same and known else change.before, change.after
            )
        self._save()
        for change in fresh:
            _write(change.setting, change.after)
        for change in gone:
            self._restore(change)
        self._save()

    def restore(self) -> None:
        """Put back whatever is noted, from this life or one before. Raises PlanError."""
        for change in list(self._noted().values()):
            self._restore(change)
        self._changes = {}
        self._file.unlink(missing_ok=True)

    def _wished(self, access_links: frozenset[str], tunnels: frozenset[str]) -> Iterator[_Change]:
        """Every setting that we need to hold, whether or not it holds already through us."""
        indices = {link: index for link in access_links | tunnels if (index := _index(link))}
        for wish in _EVERYWHERE:
            yield from self._sysctl(_ALL, 0, wish)
        for link in sorted(access_links & indices.keys()):
            for wish in (_NO_REDIRECTS, _LOOSE):
                yield from self._sysctl(link, indices[link], wish)
            yield from self._no_merging(link, indices[link])
        for link in sorted(tunnels & indices.keys()):
            yield from self._sysctl(link, indices[link], _LOOSE)
            yield from self._no_merging(link, indices[link])

    def _no_merging(self, link: str, index: int) -> Iterator[_Change]:
        merging = _receive_merging(link)
        yield from self._change(f"gro {link}", index, merging, 0 if merging else None)

    def _sysctl(self, link: str, index: int, wish: _Wish) -> Iterator[_Change]:
        setting = f"ipv4/conf/{link}/{wish.name}"
        every, own = _read(f"ipv4/conf/{_ALL}/{wish.name}"), _read(setting)
        if every is not None and own is not None:
            yield from self._change(setting, index, own, wish.needed(every, own))

    def _change(self, setting: str, index: int, own: int, needed: int | None) -> Iterator[_Change]:
        """A change to be made, or one that we made and that still holds."""
        noted = self._noted().get(setting)
        if needed is not None:
            yield _Change(setting, index, own, needed)
        elif noted is not None and noted.link == index:
            yield _Change(setting, index, noted.after, noted.after)

    def _restore(self, change: _Change) -> None:
        same_link = change.link == 0 or _exists(change.link)
        if same_link and _read(change.setting) == change.after:
            _write(change.setting, change.before)
        self._noted().pop(change.setting, None)

    def _noted(self) -> dict[str, _Change]:
        if self._changes is None:
            self._changes = _load(self._file)
        return self._changes

    def _save(self) -> None:
        """Replace the note as a whole. No fsync: a note that a power cut could lose is worthless after it."""
        written = {"life": _life(), "changes": [asdict(change) for change in self._noted().values()]}
        draft = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(written))
            draft.replace(self._file)
        except OSError as error:
            raise PlanError(f"writing {self._file}", error.errno or 0) from error


def _index(link: str) -> int:
    """A link's index, 0 when there is none of that name. Asked for by name: a list of all links is a dump."""
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


def _exists(link: int) -> bool:
    try:
        socket.if_indextoname(link)
    except OSError:
        return False
    return True


def _load(file: Path) -> dict[str, _Change]:
    """The note of this boot and network namespace; nothing if it is another's, or cannot be read as one."""
    try:
        read = json.loads(file.read_text())
        if read["life"] != _life():
            return {}
        changes = [_Change(**entry) for entry in read["changes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {change.setting: change for change in changes}


def _life() -> str:
    """What the settings die with: this boot, this network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/thread-self/ns/net').st_ino}"


def _read(setting: str) -> int | None:
    """The present value; None where the setting, or its link, is not there."""
    if setting.startswith("gro "):
        return _receive_merging(setting.removeprefix("gro "))
    try:
        opened = os.open(_NET / setting, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(opened, 32))  # by itself: a text file takes three times the system calls
        finally:
            os.close(opened)
    except (OSError, ValueError):
        return None


def _write(setting: str, value: int) -> None:
    if setting.startswith("gro "):
        _set_receive_merging(setting.removeprefix("gro "), value)
        return
    try:
        (_NET / setting).write_text(str(value))
    except FileNotFoundError:
        return  # the link went away meanwhile, and its settings with it
    except OSError as error:
        raise PlanError(f"setting {setting} to {value}", error.errno or 0) from error


def _receive_merging(link: str) -> int:
    """Whether a link merges received packets (GRO); 0 too where it cannot say.

    Merged inside IP-in-IP, TCP segments reach a raw socket as one packet with a checksum that nobody finished, and the
    receiver throws them away (measured: 116 of 116). So merging is off on links that carry the tunnel.
    """
    return _ethtool(link, _ETHTOOL_GGRO, 0) or 0


def _set_receive_merging(link: str, value: int) -> None:
    _ethtool(link, _ETHTOOL_SGRO, value)


def _ethtool(link: str, command: int, value: int) -> int | None:
    argument = ctypes.create_string_buffer(struct.pack("=II", command, value))
    request = struct.pack("16sP16x", link.encode(), ctypes.addressof(argument))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            fcntl.ioctl(asker, _SIOCETHTOOL, request)
        except OSError:
            return None
    answer: int = struct.unpack_from("=II", argument.raw)[1]
    return answer
