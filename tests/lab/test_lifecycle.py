# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab leaves nothing behind: not after `down`, not after something was killed, not on the machine while it stands."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from homeward.lab.access import Cable
from homeward.lab.build import ALL_HOSTS, Builder
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import HOSTS, LAPTOP, SWITCH, port_name

pytestmark = [pytest.mark.root, pytest.mark.lab]


def _command(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _machine() -> dict[str, str]:
    """What the lab must not touch: the machine's own links, rules, routes, ruleset, mounts and named namespaces."""
    netns = Path("/run/netns")
    return {
        "links": _command("ip", "-o", "link", "show"),
        "rules": _command("ip", "rule", "show") + _command("ip", "-6", "rule", "show"),
        "routes": _command("ip", "route", "show", "table", "all"),
        "ruleset": _command("nft", "list", "ruleset"),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "netns": " ".join(sorted(os.listdir(netns))) if netns.is_dir() else "",
        "resolver": Path("/etc/resolv.conf").read_text(),
        "sysctl": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def _namespaces_of(pids: list[int]) -> set[str]:
    found = set()
    for pid in pids:
        for kind in ("net", "mnt", "pid", "uts"):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _namespaces_in_use(since: float, until: float) -> set[str]:
    """Of the processes that began in that time (CLOCK_BOOTTIME): the kernel gives freed numbers to others."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            start = int((process / "stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf(
                "SC_CLK_TCK"
            )
            if since - 0.01 <= start <= until:
                found.update(os.readlink(entry) for entry in (process / "ns").iterdir())
        except OSError:
            continue
    return found


def _gone(state: LabState) -> None:
    assert state.processes() == []
    assert not state.root.exists()
    assert str(state.root) not in Path("/proc/self/mountinfo").read_text()


def _run(state: LabState, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _argv(state, *arguments), capture_output=True, text=True, check=False, env=_environment()
    )


def _argv(state: LabState, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "homeward.lab.main", "--state", str(state.root.parent), "--name", state.name, *arguments,
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_lab_touches_nothing_on_the_machine_and_leaves_nothing(fresh_state: LabState) -> None:
    before = _machine()
    builder, beginning = Builder(fresh_state), _now()
    assert builder.up()
    assert _machine() == before
    Cable(fresh_state).plug("ext2")
    pids = [Host(fresh_state, name).pid for name in ALL_HOSTS]
    namespaces = _namespaces_of(pids)
    assert len(namespaces) == 4 * len(ALL_HOSTS), "hosts share a namespace"
    assert not namespaces & _namespaces_of([os.getpid()])
    assert not builder.up(), "the second `up` built again"
    assert pids == [Host(fresh_state, name).pid for name in ALL_HOSTS]
    ending = _now()
    builder.down()
    _gone(fresh_state)
    assert namespaces & _namespaces_in_use(beginning, ending) == set()
    assert _machine() == before
    assert builder.down() == 0


@pytest.mark.parametrize("host", [LAPTOP, pytest.param(SWITCH, marks=pytest.mark.slow)])
def test_a_killed_host_takes_its_own_with_it_and_down_the_rest(fresh_state: LabState, host: str) -> None:
    builder, beginning = Builder(fresh_state), _now()
    builder.up()
    Cable(fresh_state).plug("trust1")
    namespaces = _namespaces_of([Host(fresh_state, name).pid for name in ALL_HOSTS])
    os.kill(Host(fresh_state, host).pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while fresh_state.alive(host):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not builder.stands()
    ending = _now()
    builder.down()
    _gone(fresh_state)
    assert namespaces & _namespaces_in_use(beginning, ending) == set()


@pytest.mark.slow
def test_up_repairs_a_lab_of_which_pieces_are_missing(fresh_state: LabState) -> None:
    builder = Builder(fresh_state)
    builder.up()
    os.kill(Host(fresh_state, "firewall").pid, signal.SIGKILL)
    time.sleep(0.1)
    assert builder.up()
    assert builder.stands()


@pytest.mark.parametrize("after", [0.12, 0.2, 0.3, 0.4, 0.5])
def test_a_killed_up_is_cleaned_up(fresh_state: LabState, after: float) -> None:
    with subprocess.Popen(_argv(fresh_state, "up"), stdout=subprocess.DEVNULL, env=_environment()) as up:
        time.sleep(after)
        up.kill()
    down = _run(fresh_state, "down")
    assert down.returncode == 0, down.stderr
    _gone(fresh_state)
    assert sorted(each.name for each in fresh_state.root.parent.iterdir()) == []


@pytest.mark.slow
def test_two_labs_stand_side_by_side(fresh_state: LabState) -> None:
    other = LabState(fresh_state.name + "b", fresh_state.root.parent)
    Builder(fresh_state).up()
    try:
        Builder(other).up()
        Builder(fresh_state).down()
        assert Builder(other).stands()
    finally:
        Builder(other).down()
    _gone(other)


@pytest.mark.slow
def test_sockets_are_reached_however_long_the_path_is(fresh_state: LabState) -> None:
    state = LabState(fresh_state.name, fresh_state.root.parent / ("d" * 90) / ("e" * 90))
    builder = Builder(state)
    builder.up()
    try:
        short = state.short()
        assert len(str(short)) < 40
        assert state.short() == short
        assert os.path.samefile(short, state.root)
        assert Host(state, LAPTOP).services()["charon"] is None
    finally:
        builder.down()
    assert not short.exists()
    assert not short.parent.exists()


def test_a_recycled_process_number_is_not_killed(fresh_state: LabState) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        folder = fresh_state.host(LAPTOP)
        folder.mkdir(parents=True)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (folder / "pid").write_text(f'{{"pid": {innocent.pid}, "start": 1, "boot": "{boot}"}}')
        assert not fresh_state.alive(LAPTOP)
        Builder(fresh_state).down()
        assert innocent.poll() is None
        innocent.kill()


def test_hosts_do_not_see_each_others_files_nor_change_the_machines(lab: LabState) -> None:
    machine = Path("/etc/hostname").read_text() if Path("/etc/hostname").exists() else ""
    laptop, agent = Host(lab, LAPTOP), Host(lab, "agent")
    for path in (
        "/etc/homeward-test",
        "/tmp/homeward-test",
        "/run/homeward-test",
        "/var/lib/dhcp/homeward-test",
    ):
        laptop.run("touch", path)
        assert agent.run("test", "-e", path, check=False).returncode == 1
        assert not Path(path).exists()
    assert laptop.run("hostname").stdout == "laptop\n"
    assert laptop.run("cat", "/etc/hostname").stdout == "laptop\n"
    assert "homeward" not in machine
    # Its own processes and its own devices only.
    first = laptop.run("cat", "/proc/1/cmdline").stdout
    assert "host_init.py" in first
    assert set(laptop.run("ls", "/sys/class/net").stdout.split()) <= {"eth0", "lo", "ipsec0", "homeward0"}


@pytest.mark.slow
def test_exec_passes_status_and_wrong_usage_is_told_apart(lab: LabState) -> None:
    assert _run(lab, "exec", "correspondent", "sh", "-c", "exit 7").returncode == 7
    assert _run(lab, "exec", "agent", "hostname").stdout == "agent\n"
    wrong_host = _run(lab, "exec", "toaster", "true")
    assert wrong_host.returncode == 2
    assert "correspondent" in wrong_host.stderr, "the message names the hosts that there are"
    assert _run(lab, "plug", "ext9").returncode == 2
    assert _run(lab, "exec", "agent").returncode == 2
    assert _run(LabState("x/y".replace("/", "-"), lab.root.parent), "status").returncode == 1
    assert _run(LabState("nothing", lab.root.parent), "plug", "ext1").returncode == 1


def test_a_service_is_watched_as_its_unit_says(lab: LabState) -> None:
    """READY=1 is heard, who is killed is started again, who ends or is stopped is not."""
    host = Host(lab, "ext1")
    say = 'import os, socket; s = socket.socket(1, 2); s.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])'

    def start(name: str, then: str) -> None:
        argv = (sys.executable, "-c", f"{say}; {then}")
        host.start(name, *argv, notify=True, revive_after=0.1)
        _eventually(lambda: host.is_ready(name) or host.services()[name] is not None)

    start("stays", "import time; time.sleep(60)")
    assert host.is_ready("stays")
    first = host.process_of("stays")
    host.signal(signal.SIGKILL, "stays")
    _eventually(lambda: host.process_of("stays") != first and host.is_ready("stays"))
    assert host.stop("stays") == -signal.SIGTERM
    start("ends", "raise SystemExit")
    second = host.process_of("ends")
    time.sleep(0.3)
    assert host.services()["stays"] == -signal.SIGTERM, "it was told to end"
    assert host.process_of("ends") == second, "it ended of its own will"
    assert not host.is_ready("ends")


def _eventually(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_port_names_are_unique_and_fit() -> None:
    names = [port_name(plan.name, leg.name) for plan in HOSTS.values() for leg in plan.legs]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15
