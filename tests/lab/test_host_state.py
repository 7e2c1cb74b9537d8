# SPDX-License-Identifier: GPL-2.0-or-later
"""The check that the host is untouched can see a touch: each kind of change, made in a host of the test's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.host_state import HostState, changes_made_by

pytestmark = [pytest.mark.root, pytest.mark.lab]

ROOT = Path(__file__).resolve().parents[2]

# Runs in namespaces of its own, with a writable /etc/resolv.conf that is nobody else's.
PROGRAM = """
import json, socket, subprocess, sys
from tests.world.host_state import changes_made_by

held = []

def change():
    for each in sys.argv[1:]:
        if each == "listen":
            held.append(socket.create_server(("127.0.0.1", 4343)))
        elif each == "resolver":
            with open("/etc/resolv.conf", "a") as file:
                file.write("nameserver 192.0.2.53\\n")
        else:
            subprocess.run(each, shell=True, check=True)

print(json.dumps(changes_made_by(change)))
"""

PREPARE = """
set -e
mount -t tmpfs tmpfs /mnt
echo 'nameserver 192.0.2.1' > /mnt/resolv.conf
mount --bind /mnt/resolv.conf "$(readlink -f /etc/resolv.conf)"
ip link set lo up
ip route add 192.0.2.0/24 dev lo
exec "$@"
"""


def changes_after(*changes: str) -> list[str]:
    command = [
        "unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", PREPARE, "prepare",
        sys.executable, "-c", PROGRAM, *changes,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_doing_nothing_changes_nothing() -> None:
    assert changes_after() == []


CHANGES = (
    ("ip route add 198.51.100.0/24 dev lo table 434", "routes -4: came: ", "198.51.100.0/24"),
    ("ip route del 192.0.2.0/24", "routes -4: gone: ", "192.0.2.0/24"),
    ("ip -6 route add 2001:db8::/32 dev lo", "routes -6: came: ", "2001:db8::/32"),
    ("ip rule add pref 209 lookup 434", "rules -4: came: ", "209"),
    ("ip address add 10.77.0.10/32 dev lo", "addresses -4: came: ", "10.77.0.10/32"),
    ("ip link add hwtest type bridge", "links: came: ", "hwtest"),
    ("nft add table inet homeward", "nftables: came: ", "inet homeward"),
    ("echo 1 > /proc/sys/net/ipv4/ip_forward", "settings: came: ", "ip_forward"),
    ("listen", "ports: came: ", "127.0.0.1:4343"),
    ("resolver", "files: came: ", "/etc/resolv.conf"),
)


def test_each_kind_of_change_is_seen() -> None:
    """All in one go, for each look at a host costs a second."""
    seen = changes_after(*(change for change, _, _ in CHANGES))
    unseen = [
        change
        for change, told, what in CHANGES
        if not any(line.startswith(told) and what in line for line in seen)
    ]
    assert unseen == []


def test_what_a_failed_action_left_behind_is_told_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [HostState({"rules": frozenset({"220"})}), HostState({"rules": frozenset({"209", "220"})})]
    monkeypatch.setattr("tests.world.host_state.host_state", lambda: states.pop(0))

    def fail() -> None:
        raise OSError("the lab broke")

    with pytest.raises(OSError, match="the lab broke") as caught:
        changes_made_by(fail)
    assert caught.value.__notes__ == ["left behind: rules: came: 209"]
