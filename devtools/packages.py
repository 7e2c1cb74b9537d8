# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the distribution's packages a command needs, and which of them are missing."""

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from devtools import console
from devtools.machine import LOGS, Caller, debian_release


@dataclass(frozen=True, slots=True)
class Group:
    """Packages that are needed for one reason."""

    reason: str
    packages: tuple[str, ...]


PYTHON = Group("Python's virtual environments", ("python3-venv",))

# Not `charon-systemd`, `dnsmasq`: they are services. `strongswan-starter` is one too, but strongswan-charon depends
# on it: install_packages keeps it from starting. The vici plugin is in `strongswan-swanctl`, which is no service.
_LAB = (
    "strongswan-charon", "strongswan-libcharon", "strongswan-swanctl", "libcharon-extra-plugins",
    "libstrongswan-extra-plugins", "libstrongswan-standard-plugins", "dnsmasq-base", "nftables", "iproute2",
    "iputils-ping", "procps", "tcpdump", "tshark", "dbus",
)  # fmt: skip

SCREEN = Group(
    "a virtual screen with a panel, and Qt's libraries for the tray",
    (
        "xvfb", "xauth", "xfce4-panel", "gnome-keyring", "imagemagick", "fonts-dejavu-core", "libegl1", "libgl1",
        "libfontconfig1", "libxkbcommon-x11-0", "libxcb-cursor0", "libxcb-icccm4", "libxcb-keysyms1", "libxcb-image0",
        "libxcb-render-util0", "libxcb-shape0", "libxtst6",
    ),
)  # fmt: skip


KERNEL = Group("building a kernel", ("gcc", "libc6-dev", "make", "flex", "bison", "bc", "xz-utils"))


def lab(release: int) -> Group:
    """The lab's programs; the DHCP client is the one that the release prefers."""
    client = "isc-dhcp-client" if release <= 12 else "dhcpcd-base"
    return Group("the lab: VPN, DHCP, firewall, captures", (*_LAB, client))


def needed(*, with_lab: bool, with_screen: bool) -> tuple[Group, ...]:
    groups = [PYTHON]
    if with_lab:
        groups.append(lab(debian_release()))
    if with_screen:
        groups.append(SCREEN)
    return tuple(groups)


def missing(groups: Iterable[Group]) -> tuple[Group, ...]:
    """The groups reduced to what is not installed; a group that is complete is left out."""
    present = _installed()
    reduced = (Group(g.reason, tuple(p for p in g.packages if p not in present)) for g in groups)
    return tuple(group for group in reduced if group.packages)


def describe(groups: tuple[Group, ...]) -> str:
    """What will be installed and why, for the person who is asked."""
    lines = ["Packages of the distribution to be installed:"]
    for group in groups:
        lines.append(f"  for {group.reason}:")
        lines.append(f"    {' '.join(group.packages)}")
    total = _simulate(names(groups))
    lines.append(
        f"  {total}. Services among them are neither started nor enabled; what runs now is left alone."
    )
    return "\n".join(lines)


def install(groups: tuple[Group, ...], who: Caller) -> None:
    """Install, as root, in a process of its own, so that it can clean up whatever happens to us."""
    argv = [sys.executable, "-B", "-m", "devtools.install_packages", *names(groups)]
    command = who.as_root(argv)
    # The password is asked for here, where the terminal is still the person's.
    if command[0] == "sudo" and subprocess.run(["sudo", "-v"], check=False).returncode != 0:
        raise console.Failed("sudo refused: install the packages above yourself, then run this again.")
    console.watch("Installing packages", command, log=LOGS / "packages.log")


def names(groups: Iterable[Group]) -> list[str]:
    return [package for group in groups for package in group.packages]


def _installed() -> frozenset[str]:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise console.Failed(
            "This is not a Debian-like system (no dpkg): see README.md for what is needed."
        ) from error
    return frozenset(line.split(" ", 1)[1] for line in listing.splitlines() if line.startswith("installed "))


def _simulate(packages: list[str]) -> str:
    command = ["apt-get", "--simulate", "--no-install-recommends", "install", *packages]
    simulated = subprocess.run(command, capture_output=True, text=True, check=False)
    count = len(re.findall(r"^Inst ", simulated.stdout, re.MULTILINE))
    if simulated.returncode != 0 or count == 0:
        return "With them comes what they depend on"
    return f"With what they depend on: {count}"
