# SPDX-License-Identifier: GPL-2.0-or-later
"""The laptop's cable: pulling it out of one access network and into another, and the DHCP client that follows.

A move here is a hard one: the carrier goes, addresses and routes go, the DHCP client of the old network ends; then the
carrier is back on another network and a fresh client asks for an address, as after a walk into a foreign Wi-Fi cell.
"""

import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homeward.lab.errors import LabError, UsageError
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import ACCESS_NETWORKS, CABLE, LAPTOP, SWITCH, port_name

_DHCP: Final = "dhcp"
# The lease of another network would be asked for first, and refused.
_FORGET_LEASE: Final = (
    "sh",
    "-c",
    'rm -f /var/lib/dhcp/dhclient.leases /var/lib/dhcpcd/*.lease; exec "$@"',
    _DHCP,
)
PORT: Final = port_name(LAPTOP, CABLE)


@dataclass(frozen=True, slots=True)
class Move:
    """When a plug happened, CLOCK_MONOTONIC seconds: the old network lost, the carrier of the new one there.

    `wall` is what the wall clock, by which captures count, is ahead of it.
    """

    network: str
    pulled: float
    plugged: float
    wall: float


def dhcp_client() -> tuple[str, ...]:
    """The command line of the DHCP client that this release has; LabError when there is none."""
    if shutil.which("dhclient"):
        # Only the places that Debian's AppArmor profile for dhclient allows.
        return (
            "dhclient", "-d", "-4", "-cf", "/etc/dhcp/dhclient.conf",
            "-lf", "/var/lib/dhcp/dhclient.leases", "-pf", "/run/dhclient.pid", CABLE,
        )  # fmt: skip
    if shutil.which("dhcpcd"):
        return ("dhcpcd", "--nobackground", "--config", "/etc/dhcpcd.conf", CABLE)
    raise LabError("no DHCP client: install isc-dhcp-client or dhcpcd-base")


class Cable:
    """The laptop's cable in a running lab."""

    def __init__(self, state: LabState) -> None:
        self._state = state
        self._laptop = Host(state, LAPTOP)
        self._switch = Host(state, SWITCH)

    def plugged_into(self) -> str | None:
        """The access network that the cable is in, None when it hangs loose."""
        try:
            return (self._state.root / "plugged").read_text() or None
        except OSError:
            return None

    def unplug(self) -> float:
        """Pull the cable: carrier, addresses and DHCP client go. The moment it was out, CLOCK_MONOTONIC seconds."""
        self._switch.ip(f"link set {PORT} down nomaster")
        pulled = time.monotonic()
        self._laptop.stop(_DHCP, signal.SIGKILL)
        self._laptop.ip(f"addr flush dev {CABLE} scope global")
        self._note("")
        return pulled

    def plug(self, network: str) -> Move:
        """Move the cable into an access network and start the DHCP client; it has no address yet when this returns."""
        if network not in ACCESS_NETWORKS:
            raise UsageError(f"no access network {network!r}: {', '.join(ACCESS_NETWORKS)}")
        pulled = self.unplug()
        plugged = time.monotonic()
        self._switch.ip(f"link set {PORT} master {network} up")
        self._laptop.start(_DHCP, *_FORGET_LEASE, *dhcp_client())
        self._note(network)
        return Move(network, pulled, plugged, time.time() - time.monotonic())

    def _note(self, network: str) -> None:
        Path(self._state.root, "plugged").write_text(network)
