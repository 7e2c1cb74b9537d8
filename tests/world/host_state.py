# SPDX-License-Identifier: GPL-2.0-or-later
"""The host, as far as Homeward's lab could have changed it: taken before and after, and compared in words.

What is looked at: systemd's units, listening ports, links, addresses, routes, rules, the nftables ruleset, IPsec
policies, named network namespaces, the resolver's file, forwarding, and the files that Debian's packages of charon and
of the DHCP clients would write for themselves.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

WATCHED_FILES = (
    Path("/etc/resolv.conf"),
    Path("/etc/strongswan.conf"),
    Path("/etc/strongswan.d"),
    Path("/etc/swanctl"),
    Path("/etc/ipsec.conf"),
    Path("/etc/ipsec.secrets"),
    Path("/etc/dhcp"),
    Path("/var/lib/dhcp"),
    Path("/var/lib/misc/dnsmasq.leases"),
    Path("/run/charon.pid"),
    Path("/run/charon.vici"),
    Path("/run/homeward"),
    Path("/var/lib/homeward"),
    Path("/etc/homeward"),
    Path("/run/netns"),
    Path("/usr/sbin/policy-rc.d"),
)
WATCHED_SETTINGS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
)

_VOLATILE = re.compile(
    r'"(?:expires|valid_life_time|preferred_life_time|cache)"\s*:\s*(?:\d+|\[[^]]*\])\s*,?'
)


@dataclass(frozen=True, slots=True)
class HostState:
    """Each aspect of the host as a set of lines, so that what came and what went can be named."""

    aspects: dict[str, frozenset[str]]

    def differences(self, after: "HostState") -> list[str]:
        """What `after` has and this has not, and the other way round, one line each; empty when nothing changed."""
        found = []
        for aspect in sorted(self.aspects.keys() | after.aspects.keys()):
            old, new = self.aspects.get(aspect, frozenset()), after.aspects.get(aspect, frozenset())
            found += [f"{aspect}: gone: {line}" for line in sorted(old - new)]
            found += [f"{aspect}: came: {line}" for line in sorted(new - old)]
        return found


def host_state() -> HostState:
    """Look at the host now. Raises CalledProcessError where the kernel does not answer."""
    aspects = {
        "units": _units(),
        "ports": _lines(
            ["ss", "--no-header", "--numeric", "--listening", "--tcp", "--udp", "--raw"], _listener
        ),
        "nftables": _ruleset(),
        "ipsec policies": _lines(["ip", "xfrm", "policy"]),
        "namespaces": _lines(["ip", "netns", "list"]),
        "settings": frozenset(_setting(name) for name in WATCHED_SETTINGS),
        "files": frozenset(line for path in WATCHED_FILES for line in _file(path)),
    }
    for family in ("-4", "-6"):
        aspects[f"rules {family}"] = _records(["ip", "-json", family, "rule", "show"])
        aspects[f"routes {family}"] = _records(["ip", "-json", family, "route", "show", "table", "all"])
        aspects[f"addresses {family}"] = _lines(["ip", "-brief", family, "address", "show"])
    aspects["links"] = frozenset(link["ifname"] for link in json.loads(_run(["ip", "-json", "link", "show"])))
    return HostState(aspects)


def changes_made_by(action: Callable[[], object]) -> list[str]:
    """Run `action` and say what of the host is different afterwards, also when the action fails.

    An exception of the action's is raised again with what it left behind as a note.
    """
    before = host_state()
    try:
        action()
    except Exception as error:
        for line in before.differences(host_state()):
            error.add_note(f"left behind: {line}")
        raise
    return before.differences(host_state())


def _run(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _lines(argv: Sequence[str], shorten: Callable[[str], str] = str.strip) -> frozenset[str]:
    return frozenset(shorten(line) for line in _run(argv).splitlines() if line.strip())


def _listener(line: str) -> str:
    """Protocol and local address: queues and peers change by themselves."""
    fields = line.split()
    return f"{fields[0]} {fields[4]}"


def _records(argv: Sequence[str]) -> frozenset[str]:
    """One line for each object of an answer in JSON, without what counts down."""
    answer = _run(argv).strip() or "[]"
    return frozenset(_VOLATILE.sub("", json.dumps(record, sort_keys=True)) for record in json.loads(answer))


def _ruleset() -> frozenset[str]:
    """Every line of the ruleset with the place that it stands in, counters left out."""
    if shutil.which("nft") is None:
        return frozenset({"nft is not installed"})
    place: list[str] = []
    found = set()
    for line in _run(["nft", "--stateless", "list", "ruleset"]).splitlines():
        text = line.strip()
        if text == "}":
            place.pop()
        elif text:
            found.add(" / ".join([*place, text]))
            if text.endswith("{"):
                place.append(text.removesuffix(" {"))
    return frozenset(found)


def _units() -> frozenset[str]:
    """Units that are up or failed, and those that are enabled; a host without systemd has none."""
    if shutil.which("systemctl") is None:
        return frozenset({"no systemd"})
    listings = (
        ["systemctl", "list-units", "--type=service,socket,timer", "--no-legend", "--plain", "--no-pager"],
        ["systemctl", "list-unit-files", "--no-legend", "--no-pager"],
    )
    found = set()
    for argv in listings:
        answer = subprocess.run(argv, capture_output=True, text=True, check=False)
        found |= {" ".join(line.split()[:3]) for line in answer.stdout.splitlines() if line.strip()}
    return frozenset(found)


def _setting(name: str) -> str:
    try:
        value = Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
    except OSError:
        value = "not there"
    return f"{name} = {value}"


def _file(path: Path) -> list[str]:
    """A file with its digest, a link with its target, a folder with everything below it; nothing if it is not there."""
    if path.is_symlink():
        return [f"{path} -> {os.readlink(path)}"]
    if path.is_dir():
        return [f"{path}/", *(line for entry in sorted(path.iterdir()) for line in _file(entry))]
    if path.is_file():
        return [f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}"]
    return [f"{path} (special)"] if path.exists() else []
