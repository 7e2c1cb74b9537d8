# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that carries plans out is killed at every step: what stays is a deliberate block; a new life undoes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scapy.layers.l2 import ARP, Ether

from homeward.adapters import kernel_switches
from homeward.adapters.kernel_switches import FILE_NAME, KernelSwitches
from homeward.adapters.kernel_tunnels import ALIVE
from homeward.model.plan import EMPTY_PLAN
from tests.world.namespaces import Namespace, cable
from tests.world.plan_holder import STEPS, plans, the_plan
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, ROUTER, Stations, TunnelEnd, eventually, take

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def stations() -> AsyncIterator[Stations]:
    with Stations() as made:
        # A machine with opinions of its own, which must be found again.
        made.laptop.sysctl("ipv4/conf/all/rp_filter", "1")
        made.laptop.sysctl("ipv4/conf/eth0/rp_filter", "1")
        made.laptop.run("nft", "add table inet theirs; add chain inet theirs keep")
        made.laptop.ip("rule add pref 300 to 192.0.2.0/24 lookup main")
        yield made


def traces(laptop: Namespace) -> dict[str, str]:
    """All that a plan could leave behind."""
    found = {
        "links": _without_counters(laptop.run("ip", "-j", "link")),
        "addresses": laptop.run("ip", "-4", "-br", "address"),
        "rules": laptop.run("ip", "rule") + laptop.run("ip", "-6", "rule"),
        "routes": laptop.run("ip", "-4", "route", "show", "table", "all"),
        "routes6": _without_eth0(laptop.run("ip", "-6", "route", "show", "table", "all")),
        "nftables": laptop.run("nft", "-s", "list", "ruleset"),
        "queues": laptop.run("tc", "qdisc", "show")
        + laptop.run("tc", "filter", "show", "dev", "eth0", "ingress"),
    }
    for file in sorted(Path("/proc/sys/net/ipv4/conf").glob("*/*")):
        with contextlib.suppress(PermissionError):
            found[str(file)] = file.read_text()
    return found


def _without_counters(links: str) -> str:
    return json.dumps(
        [{key: value for key, value in link.items() if key != "qlen"} for link in json.loads(links)]
    )


def _without_eth0(routes: str) -> str:
    """IPv6 is still finding itself on the new cable when a test begins."""
    return "\n".join(line for line in routes.splitlines() if "dev eth0" not in line)


class Life:
    """A process that holds a plan."""

    def __init__(self, state: Path, step: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.world.plan_holder", str(state), "eth0", step],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}"},
            stdout=subprocess.PIPE,
            text=True,
        )

    async def ready(self) -> None:
        assert self._process.stdout is not None
        said = await asyncio.to_thread(self._process.stdout.readline)
        assert said == "ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._end()

    async def killed_itself(self) -> None:
        code = await asyncio.to_thread(self._process.wait, 20)
        assert code == -9
        self._end()

    def _end(self) -> None:
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


async def test_a_killed_life_leaves_a_block_and_no_error(stations: Stations, tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.ready()
    loop = asyncio.get_running_loop()
    with (
        stations.listen() as wire,
        TunnelEnd(stations) as end,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client,
    ):
        application.connect((str(PEER), 9))
        application.send(b"while it lives")
        await eventually(end.came)
        life.kill()
        wire.heard()
        connecting = asyncio.create_task(loop.sock_connect(client, (str(PEER), 80)))
        for _ in range(50):
            application.send(b"after its death")
            await asyncio.sleep(0.005)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as direct, contextlib.suppress(PermissionError):
            direct.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            direct.sendto(b"past it", (str(PEER), 9))
        assert not connecting.done()
        assert application.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert [frame for frame in wire.heard() if Ether(frame).type != 0x0806] == []
        assert "homeward0" in stations.laptop.ip("link")
        assert "homeward" in stations.laptop.run("nft", "list", "tables")

        # The next life takes over, and what the application sends next arrives.
        later = plans(tmp_path)
        await later.apply(the_plan("eth0"))
        application.send(b"in the next life")
        assert (await eventually(end.came)).endswith(b"in the next life")
        await asyncio.wait_for(_first_syn(end), 5)
        connecting.cancel()
        await later.close()


@pytest.mark.slow
@pytest.mark.rows("R-64")
async def test_what_the_kernel_carries_ends_with_the_life_that_watched_over_it(
    stations: Stations, tmp_path: Path
) -> None:
    """Within three seconds; from then on applications see delay and no error, as with any other tunnel."""
    life = Life(tmp_path, "udp")
    with (
        stations.udp(AGENT, 434) as agent,
        stations.listen() as wire,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application,
    ):
        await life.ready()
        application.connect((str(PEER), 9))
        application.send(b"while it lives")
        await eventually(lambda: (came := take(agent)) and came.octets.endswith(b"while it lives"))
        life.kill()
        await asyncio.sleep(ALIVE + 0.05)
        wire.heard()
        for _ in range(20):
            application.send(b"after its death")
        await asyncio.sleep(0.05)
        assert application.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert [frame for frame in wire.heard() if Ether(frame).type != 0x0806] == []


async def _first_syn(end: TunnelEnd) -> bytes:
    return await eventually(lambda: (came := end.came()) and came[29] == 6 and came, 5)


@pytest.mark.parametrize(
    "step",
    ["", "udp", "fence", *(pytest.param(step, marks=pytest.mark.slow) for step in STEPS if step != "fence")],
)
async def test_a_new_life_finds_and_undoes_everything(stations: Stations, tmp_path: Path, step: str) -> None:
    before = traces(stations.laptop)
    life = Life(tmp_path, step)
    if step not in ("", "udp"):
        await life.killed_itself()
    else:
        await life.ready()
        life.kill()
    assert traces(stations.laptop) != before or step == "fence"
    later = plans(tmp_path)
    await later.apply(EMPTY_PLAN)
    await later.close()
    after = traces(stations.laptop)
    assert {key: value for key, value in after.items() if before.get(key) != value} == {}
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
async def test_two_lives_at_once_are_refused(stations: Stations, tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.ready()
    other = plans(tmp_path)
    with pytest.raises(Exception, match=r"homeward0.*EBUSY"):
        await other.apply(the_plan("eth0"))
    await other.close()
    life.kill()


# --- settings of other people's links ---------------------------------------------------------------------------------


def test_a_setting_that_somebody_changed_since_is_left_to_them(stations: Stations, tmp_path: Path) -> None:
    switches = KernelSwitches(tmp_path)
    switches.set_for(frozenset({"eth0"}), frozenset())
    assert stations.laptop.sysctl("ipv4/conf/eth0/rp_filter") == "2"
    stations.laptop.sysctl("ipv4/conf/eth0/rp_filter", "0")
    KernelSwitches(tmp_path).restore()
    assert stations.laptop.sysctl("ipv4/conf/eth0/rp_filter") == "0"
    assert stations.laptop.sysctl("ipv4/conf/eth0/accept_redirects") == "1"


def test_a_link_that_took_over_the_name_is_not_touched(stations: Stations, tmp_path: Path) -> None:
    KernelSwitches(tmp_path).set_for(frozenset({"eth0"}), frozenset())
    stations.laptop.ip("link del eth0")
    cable(stations.laptop, "eth0", stations.agent, "lan0")
    stations.laptop.sysctl("ipv4/conf/eth0/rp_filter", "2")
    KernelSwitches(tmp_path).restore()
    assert stations.laptop.sysctl("ipv4/conf/eth0/rp_filter") == "2"


def test_a_link_that_is_no_access_link_any_more_gets_its_settings_back(
    stations: Stations, tmp_path: Path
) -> None:
    switches = KernelSwitches(tmp_path)
    switches.set_for(frozenset({"eth0"}), frozenset())
    switches.set_for(frozenset(), frozenset())
    assert stations.laptop.sysctl("ipv4/conf/eth0/rp_filter") == "1"
    assert stations.laptop.sysctl("ipv4/conf/all/arp_ignore") == "1"
    switches.set_for(frozenset({"eth0"}), frozenset())
    switches.set_for(frozenset({"eth0"}), frozenset())
    assert stations.laptop.sysctl("ipv4/conf/eth0/rp_filter") == "2"
    switches.restore()
    assert stations.laptop.sysctl("ipv4/conf/eth0/rp_filter") == "1"
    assert stations.laptop.sysctl("ipv4/conf/all/arp_ignore") == "0"


def test_stricter_settings_than_ours_stay(stations: Stations, tmp_path: Path) -> None:
    stations.laptop.sysctl("ipv4/conf/all/arp_ignore", "2")
    stations.laptop.sysctl("ipv4/conf/eth0/rp_filter", "2")
    KernelSwitches(tmp_path).set_for(frozenset({"eth0"}), frozenset())
    assert stations.laptop.sysctl("ipv4/conf/all/arp_ignore") == "2"
    assert "rp_filter" not in (tmp_path / FILE_NAME).read_text()


@pytest.mark.parametrize(
    "note", ["", "{", "[]", '{"life": "another boot 1", "changes": [{}]}', '{"life": null}']
)
def test_a_note_of_another_boot_or_none_at_all_is_not_acted_upon(
    stations: Stations, tmp_path: Path, note: str
) -> None:
    (tmp_path / FILE_NAME).write_text(note)
    KernelSwitches(tmp_path).restore()
    assert not (tmp_path / FILE_NAME).exists()


def test_receive_merging_is_switched_off_and_on_again(stations: Stations, tmp_path: Path) -> None:
    kernel_switches._set_receive_merging("eth0", 1)
    assert kernel_switches._receive_merging("eth0") == 1
    KernelSwitches(tmp_path).set_for(frozenset({"eth0"}), frozenset())
    assert kernel_switches._receive_merging("eth0") == 0
    KernelSwitches(tmp_path).restore()
    assert kernel_switches._receive_merging("eth0") == 1


# --- ARP for the home address (R-183, R-189, R-191) -------------------------------------------------------------------


def answers(stations: Stations, device: str) -> bool:
    """Whether the laptop answers ARP for its home address by a link."""
    with stations.agent, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as asker:
        asker.bind((device, 0x0806))
        asker.settimeout(0.2)
        mine = asker.getsockname()[4].hex(":")
        question = ARP(op=1, hwsrc=mine, psrc=str(ROUTER), pdst=str(HOME))
        asker.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=mine) / question))
        try:
            while True:
                frame = Ether(asker.recv(2000))
                if ARP in frame and frame[ARP].psrc == str(HOME):
                    return True
        except TimeoutError:
            return False


@pytest.mark.rows("R-183", "R-191")
async def test_no_link_known_or_not_answers_arp_for_the_home_address(
    stations: Stations, tmp_path: Path
) -> None:
    stations.laptop.ip("link add homeward1 type bridge")
    stations.laptop.ip(f"addr add {HOME}/32 dev homeward1")
    stations.laptop.ip("link set homeward1 up")
    assert answers(stations, "lan0"), "the check must see an answer where nothing forbids it"
    stations.laptop.ip("link del homeward1")
    made = plans(tmp_path)
    await made.apply(the_plan("eth0"))
    assert not answers(stations, "lan0")
    cable(stations.laptop, "usb0", stations.agent, "lan1")
    stations.agent.ip(f"addr add {AGENT}/32 dev lan1")
    stations.laptop.ip(f"addr add {CARE_OF}/32 dev usb0")
    assert not answers(stations, "lan1")
    await made.apply(EMPTY_PLAN)
    await made.close()
