# SPDX-License-Identifier: GPL-2.0-or-later
"""A packet capture at every hop, taken by tcpdump in the hosts themselves."""

import shutil
import signal
import time
from pathlib import Path
from typing import Final

from homeward.lab.access import PORT, Cable
from homeward.lab.errors import LabError
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.story import Story
from homeward.lab.topology import (
    AGENT,
    CABLE,
    CORRESPONDENT,
    FIREWALL,
    GATEWAY,
    HOME,
    LAPTOP,
    SWITCH,
)
from homeward.model.names import VPN_DEVICE

HOPS: Final = (
    (LAPTOP, CABLE),
    (LAPTOP, VPN_DEVICE),
    (SWITCH, PORT),
    *((network, "uplink") for network in ("trust1", "trust2", "ext1", "ext2")),
    (FIREWALL, "outside"),
    (FIREWALL, "inside"),
    (FIREWALL, "dmz"),
    (GATEWAY, "dmz"),
    (GATEWAY, "inside"),
    (AGENT, "inside"),
    (CORRESPONDENT, "inside"),
)
"""Host and interface. The switch's end of the laptop's cable shows what really left the laptop."""

_MORE: Final = {
    "trust3": ("trust3", "uplink"),
    "nat1": ("nat1", "uplink"),
    "nat2": ("nat2", "uplink"),
    HOME: (AGENT, HOME),
}


def hops(story: Story) -> tuple[tuple[str, str], ...]:
    """Where a story is listened to: at the hops of all, and at those of the networks that only it comes through."""
    more = [hop for network in story.networks if (hop := _MORE.get(network)) is not None]
    return (*HOPS, *more)


_SNAPSHOT: Final = "256"
"""Octets of each packet: all headers, three deep, and nothing of bulk data that anybody would miss."""
_SECONDS_TO_START: Final = 20.0


class Captures:
    """The running captures of one lab."""

    def __init__(self, state: LabState, at: tuple[tuple[str, str], ...] = HOPS) -> None:
        self._state = state
        self._hops = at

    def start(self) -> None:
        """Start every capture and wait until each one listens; LabError with tcpdump's words otherwise.

        tcpdump goes on listening to an interface that is taken down, but does not begin with one: a loose cable's
        end is put up for that long, in no network.
        """
        switch, loose = Host(self._state, SWITCH), Cable(self._state).plugged_into() is None
        if loose:
            switch.ip(f"link set {PORT} up")
        self._start_all()
        if loose:
            switch.ip(f"link set {PORT} down")

    def _start_all(self) -> None:
        for name, interface in self._hops:
            (self._state.run(name) / "capture").mkdir(exist_ok=True)
            Host(self._state, name).start(
                _service(interface),
                *("tcpdump", "--interface", interface, "--no-promiscuous-mode", "-n", "-Z", "root"),
                # Unbuffered and immediate: what has been seen is in the file when the capture ends.
                *("-U", "--immediate-mode", "--buffer-size=8192", "--snapshot-length", _SNAPSHOT),
                *("-w", f"/run/capture/{interface}.pcap"),
            )
        deadline = time.monotonic() + _SECONDS_TO_START
        for name, interface in self._hops:
            log = self._state.log(name, _service(interface))
            while not (log.exists() and "listening on" in log.read_text()):
                if time.monotonic() > deadline:
                    said = log.read_text().strip() if log.exists() else "nothing"
                    raise LabError(f"no capture on {name}'s {interface}; tcpdump says: {said}")
                time.sleep(0.01)

    def stop(self) -> None:
        """End every capture that still runs."""
        for name, interface in self._hops:
            Host(self._state, name).stop(_service(interface), signal.SIGINT)

    def collect(self, folder: Path) -> None:
        """Move the captures into a folder, as HOST-INTERFACE.pcap."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, interface in self._hops:
            taken = self._state.run(name) / "capture" / f"{interface}.pcap"
            if taken.exists():
                shutil.move(taken, folder / f"{name}-{interface}.pcap")


def _service(interface: str) -> str:
    return f"tcpdump-{interface}"
