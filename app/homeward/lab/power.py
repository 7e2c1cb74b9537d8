# SPDX-License-Identifier: GPL-2.0-or-later
"""A reboot of one of the lab's hosts: what is in memory is gone, what is on its disks stays, and it boots.

Its wires stay where they are and keep their light, and so do the captures that listen to them. The kernel is the
machine's and goes on; what it held for the host is taken away, and the host is told of another boot.
"""

import os
import secrets
import signal
import time
from typing import Final

from homeward.lab.build import configure, kernel_settings
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import HOSTS
from homeward.lab.units import ServiceManager

_SECONDS_OFF: Final = 1.0
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_CAPTURE: Final = "tcpdump-"
# Links of its own, filters, neighbours, rules, routes, the firewall, files in /run: nothing of it is on a disk. Folders
# there are named, and /tmp is left alone: what a host has to see of the machine, a checkout maybe, is mounted there.
_FORGET: Final = """
for link in $(ls /sys/class/net); do
    case " lo {legs} " in
        *" $link "*) tc qdisc del dev $link clsact 2>/dev/null; ip address flush dev $link
            for setting in /proc/sys/net/ipv4/conf/default/*; do
                cat $setting >/proc/sys/net/ipv4/conf/$link/${{setting##*/}} 2>/dev/null
            done ;;
        *) ip link delete $link 2>/dev/null ;;
    esac
done
ip route flush table all 2>/dev/null
ip rule flush
ip rule add from all lookup main pref 32766
ip rule add from all lookup default pref 32767
ip neighbour flush all nud permanent
nft flush ruleset
rm -rf /run/homeward
find /run -maxdepth 1 -type f -delete
"""


def reboot(state: LabState, name: str, manager: ServiceManager) -> None:
    """Turn the host off without a warning to anything in it, and on again; what is enabled runs when this returns."""
    host = Host(state, name)
    running = [each for each, status in host.services().items() if status is None]
    killed = [each for each in running if not each.startswith(_CAPTURE)]
    lines = {each: _command_of(host, each) for each in killed if not manager.knows(each)}
    for each in killed:
        host.stop(each, signal.SIGKILL)
    legs = " ".join(leg.name for leg in HOSTS[name].legs)
    host.run("sh", "-c", _FORGET.format(legs=legs))
    time.sleep(_SECONDS_OFF)
    host.run("tee", "/run/boot_id", text=_new_boot_id())
    host.run("mount", "--bind", "/run/boot_id", _BOOT_ID)
    for key, value in kernel_settings(name).items():
        host.run("sh", "-c", 'test ! -e "$1" || echo "$2" >"$1"', "sh", f"/proc/sys/{key}", value)
    configure(state, HOSTS[name])
    for each, argv in lines.items():
        host.start(each, *argv)
    manager.boot()


def _new_boot_id() -> str:
    digits = secrets.token_hex(16)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])) + "\n"


def _command_of(host: Host, service: str) -> list[str]:
    process = host.process_of(service)
    octets = host.run("cat", f"/proc/{process}/cmdline").stdout
    return [os.fsdecode(word) for word in octets.encode().rstrip(b"\0").split(b"\0")]
