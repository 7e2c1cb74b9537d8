# SPDX-License-Identifier: GPL-2.0-or-later
"""Building the enterprise from its description, and taking it down again."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from homeward.lab import keys, services
from homeward.lab.errors import LabError
from homeward.lab.host import Host
from homeward.lab.state import LabState, checkout
from homeward.lab.topology import CABLE, HOSTS, LAPTOP, NETWORKS, SWITCH, hardware_address, port_name
from homeward.lab.topology import Host as HostPlan

ALL_HOSTS: Final = (SWITCH, *HOSTS)
_INIT: Final = Path(__file__).with_name("host_init.py")
_PROGRAMS: Final = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "dnsmasq": "dnsmasq-base",
    "tcpdump": "tcpdump",
}
_HOOKS: Final = ("/etc/dhcp/dhclient-enter-hooks.d", "/etc/dhcp/dhclient-exit-hooks.d")
"""A machine's own hooks tell its own services of a lease; they have no business in the lab."""

_DHCLIENT_CONF = """\
option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
send host-name = gethostname();
request subnet-mask, broadcast-address, routers, domain-name-servers;
timeout 20;
retry 5;
"""
# Its probe for duplicate addresses takes five seconds and its random delay up to one; a laptop's network manager sets
# both aside as well.
_DHCPCD_CONF = """\
noarp
nodelay
ipv4only
option routers, domain_name_servers
nohook hostname timesyncd chrony openntpd
"""

Progress = Callable[[str], None]


def check_machine() -> None:
    """LabError, with what to do, when this machine cannot carry a lab."""
    if os.geteuid() != 0:
        raise LabError("building networks needs root: run it with sudo")
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise LabError(
            f"missing programs: apt-get install --no-install-recommends {' '.join(sorted(missing))}"
        )
    if not Path("/dev/net/tun").exists():
        raise LabError("/dev/net/tun is missing: modprobe tun")


class Builder:
    """Takes one lab up and down."""

    def __init__(self, state: LabState, progress: Progress = lambda line: None) -> None:
        self.state = state
        self._say = progress

    def stands(self) -> bool:
        """Whether every host of the lab runs."""
        return all(self.state.alive(name) for name in ALL_HOSTS)

    def up(self) -> bool:
        """Build the lab, from scratch if only pieces of it are left. False when it stood already."""
        check_machine()
        with self.state.locked():
            if self.stands():
                return False
            self._down()
            try:
                self._build()
            except BaseException:
                self._down()
                raise
        return True

    def down(self) -> int:
        """Take down whatever there is of the lab, in any condition. Says how many hosts and strays were ended."""
        if not self.state.root.exists() and not self.state.lock.exists():
            return 0
        if os.geteuid() != 0:
            raise LabError("the lab belongs to root: run it with sudo")
        with self.state.locked():
            return self._down()

    def _down(self) -> int:
        killed = self.state.kill_all()
        self.state.remove()
        return killed

    def _build(self) -> None:
        started = time.monotonic()
        self.state.root.mkdir(parents=True)
        self.state.short()
        keys.draw(self.state)
        self._hosts()
        self._say(f"{len(ALL_HOSTS)} hosts ({time.monotonic() - started:.1f} s)")
        self._switch()
        for plan in HOSTS.values():
            configure(self.state, plan)
        self._say(
            f"{len(NETWORKS)} networks, addresses, routes, firewall, NAT ({time.monotonic() - started:.1f} s)"
        )
        for line in services.start_all(self.state):
            self._say(f"{line} ({time.monotonic() - started:.1f} s)")

    # --- hosts ---

    def _hosts(self) -> None:
        running = [(name, self._start_host(name)) for name in ALL_HOSTS]
        failed = []
        for name, process in running:
            _, errors = process.communicate()
            if process.returncode:
                failed.append(f"{name}: {errors.decode(errors='replace').strip()}")
        if failed:
            raise LabError("hosts could not be made:\n" + "\n".join(failed))

    def _start_host(self, name: str) -> subprocess.Popen[bytes]:
        folder = self.state.host(name)
        for each in (folder / "run" / "lock", folder / "log"):
            each.mkdir(parents=True)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_INIT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.state.environment(),
            cwd="/",
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._spec(name)).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def _spec(self, name: str) -> dict[str, Any]:
        resolver = "# written by the DHCP client\n" if name == LAPTOP else ""
        names = f"127.0.0.1 localhost\n127.0.1.1 {name}\n"
        keep = {str(self.state.root), sys.prefix, sys.base_prefix, str(checkout() or _INIT.parents[2])}
        return {
            "name": name,
            "directory": str(self.state.host(name)),
            "keep": sorted(keep),
            "sysctl": kernel_settings(name),
            "remove": ["/etc/resolv.conf", *_HOOKS],
            "folders": ["/var/lib/dhcp", "/var/lib/dhcpcd", "/var/lib/homeward", "/var/lib/strongswan"],
            "files": [
                ("/etc/resolv.conf", 0o644, resolver),
                ("/etc/hosts", 0o644, names),
                ("/etc/hostname", 0o644, name + "\n"),
                ("/etc/dhcp/dhclient.conf", 0o644, _DHCLIENT_CONF),
                ("/etc/dhcpcd.conf", 0o644, _DHCPCD_CONF),
                *services.files(self.state, name),
            ],
        }

    # --- networks ---

    def _switch(self) -> None:
        lines = ["link set lo up"]
        for network in NETWORKS:
            lines += [
                f"link add {network} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set {network} up",
            ]
        for plan in HOSTS.values():
            pid = Host(self.state, plan.name).pid
            for leg in plan.legs:
                port = port_name(plan.name, leg.name)
                address = hardware_address(plan.name, leg.name)
                # Made between the two namespaces; never, not for a moment, in the machine's own.
                lines.append(f"link add {port} type veth peer name {leg.name} address {address} netns {pid}")
                if leg.network is not None:
                    lines.append(f"link set {port} master {leg.network} up")
        Host(self.state, SWITCH).ip(*lines)


def configure(state: LabState, plan: HostPlan) -> None:
    """Give a host its addresses, routes and firewall."""
    host = Host(state, plan.name)
    lines = ["link set lo up"]
    for leg in plan.legs:
        lines.append(f"link set {leg.name} up")
        if leg.address is not None:
            lines.append(f"addr add {leg.address} dev {leg.name}")
    for route in plan.routes:
        table = f" table {route.table}" if route.table is not None else ""
        lines.append(f"route add {route.to} via {route.via}{table}")
    lines += [f"rule add {rule}" for rule in plan.rules]
    host.ip(*lines)
    if plan.firewall:
        host.run("nft", "-f", "-", text=plan.firewall)


def kernel_settings(name: str) -> dict[str, str]:
    """What a host sets below /proc/sys when it starts."""
    plan = HOSTS.get(name)
    forwards = plan is not None and plan.forwards
    settings = {
        # Loose on the laptop, as Debian's systemd sets it; off where traffic comes and goes by different ways.
        "net/ipv4/conf/all/rp_filter": "2" if name == LAPTOP else "0",
        "net/ipv4/conf/default/rp_filter": "2" if name == LAPTOP else "0",
        "net/ipv4/ip_forward": "1" if forwards else "0",
        "net/ipv4/conf/all/send_redirects": "0",
        "net/ipv4/conf/default/send_redirects": "0",
        "net/ipv4/ping_group_range": "0 2147483647",
    }
    if name != LAPTOP:
        # The enterprise of this story speaks IPv4; the laptop keeps IPv6, as every laptop does, for the fence to hold.
        settings |= {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}
    return settings


def laptop_addresses(state: LabState) -> list[str]:
    """The laptop's IPv4 addresses on its cable."""
    answer = Host(state, LAPTOP).run("ip", "-j", "-4", "addr", "show", "dev", CABLE).stdout
    return [each["local"] for link in json.loads(answer or "[]") for each in link.get("addr_info", [])]
