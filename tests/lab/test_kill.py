# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of homewardd and of charon, in every state: nothing leaks, applications see delay, and the next life goes on.

One TCP connection each way lives through it, byte-exact. What ends in order leaves the laptop as it was found, and what
was killed altogether leaves nothing on the machine.
"""

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homeward.lab.applications import Applications
from homeward.lab.build import ALL_HOSTS, Builder
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import CORRESPONDENT, HOME_ADDRESS, LAPTOP
from homeward.model.access import AccessMode
from homeward.model.status import ClientState
from homeward.model.vpn import VpnState
from tests.lab.enterprise import dropping
from tests.lab.laptop import Laptop, Status, address_of, differences, eventually
from tests.lab.leak_attempts import nothing_gets_out
from tests.lab.wiretap import HELD, Allowed, Tap, leaks
from tests.world.host_state import changes_made_by

pytestmark = [pytest.mark.root, pytest.mark.lab]


EACH_SECOND = """
cd /proc/sys/net/ipv4
test ! -w tcp_rto_max_ms || { echo 1000 > tcp_rto_max_ms; echo 100 > tcp_retries2; }
"""
"""Where the kernel can be told so, TCP tries again each second and a hundred times: its pauses would grow otherwise."""


@contextmanager
def transfer(lab: LabState) -> Iterator[Applications]:
    """TCP each way and datagrams every 5 ms, from the home address; at the end every octet is there, and no error."""
    for host in (LAPTOP, CORRESPONDENT):
        Host(lab, host).run("sh", "-c", EACH_SECOND)
    applications = Applications(lab, HOME_ADDRESS)
    try:
        applications.start_tcp()
        applications.start_udp()
        yield applications
        finish(lab, applications)
    finally:
        for host, role in itertools.product((LAPTOP, CORRESPONDENT), ("tcp-client", "tcp-server", "udp")):
            Host(lab, host).stop(role, signal.SIGKILL)


def finish(lab: LabState, applications: Applications) -> None:
    """End the applications in order and look at what they have to say."""
    goes_on(lab)
    applications.stop_udp()
    refused = {departure.errno for departure in applications.departures("up")} - {0}
    assert not refused, f"sending failed with {[os.strerror(number) for number in refused]}"
    ended = applications.finish_tcp(seconds=30)
    assert ended.errors == ()
    assert ended.sha256_equal
    assert min(ended.up_bytes, ended.down_bytes) > 0


def goes_on(lab: LabState) -> None:
    """The same connections bring more than they have brought so far, each to its receiver."""
    before = arrived(lab)
    eventually(lambda: all(map(int.__gt__, arrived(lab), before)), "the connections do not go on")


def arrived(lab: LabState) -> tuple[int, int]:
    """Octets of TCP up at the correspondent and down at the laptop."""
    return _progress(lab, CORRESPONDENT, "tcp-server")["up"], _progress(lab, LAPTOP, "tcp-client")["down"]


def _progress(lab: LabState, host: str, role: str) -> dict[str, int]:
    # The last line may be half written, and the first one not yet there.
    whole = (lab.run(host) / "traffic" / role).read_text().rpartition("\n")[0]
    last = whole.rpartition("\n")[2]
    return dict(json.loads(last)) if last else {"up": 0, "down": 0}


def stays_shut(laptop: Laptop, tap: Tap, applications: Applications) -> None:
    """The block stands, whatever applications try; what they send from the home address is lost without an error."""
    begin = time.monotonic()

    def go_on_sending() -> None:
        eventually(
            lambda: [each for each in applications.departures("up") if each.sent > begin + 0.3],
            "the datagrams go on being sent",
        )

    nothing_gets_out(laptop, tap, laptop.address(), meanwhile=go_on_sending)
    assert laptop.blocks()


def kill_and_restart(laptop: Laptop, tap: Tap, applications: Applications, *, so_far: Allowed) -> None:
    """homewardd dies, and the block stands; it comes back, and waits shut for its secrets.

    `so_far` is what might leave until its death.
    """
    laptop.kill("homewardd")
    assert leaks(tap.heard(), so_far) == []
    stays_shut(laptop, tap, applications)
    laptop.start_daemon()
    waiting = laptop.status.until(lambda now: now.state is ClientState.WAITING_FOR_SECRET, "waits")
    assert waiting.blocked is not None
    assert waiting.blocked.fence_holds
    assert len(waiting.secrets_needed) == 2
    assert leaks(tap.heard(), HELD) == []
    stays_shut(laptop, tap, applications)


@pytest.mark.slow
def test_one_connection_lives_through_the_daemons_deaths(laptop: Laptop, lab: LabState, tap: Tap) -> None:
    """From the first connection to the last, every frame that leaves is one that its state allows."""
    inside = Allowed(AccessMode.C, laptop.plug("trust1"))
    assert laptop.connect().status == 0
    tap.heard()
    with transfer(lab) as applications:
        # Inside, while data leaves in clear.
        kill_and_restart(laptop, tap, applications, so_far=inside)
        assert laptop.connect().status == 0
        laptop.status.until(lambda now: now.mode is AccessMode.C, "inside again")
        goes_on(lab)

        # Outside, while it is not yet known where this is.
        with dropping(lab, "ext1", "forward", "meta l4proto udp"):
            laptop.plug("ext1")
            laptop.status.until(lambda now: now.state is ClientState.DETECTING, "detecting")
            kill_and_restart(laptop, tap, applications, so_far=inside)
        assert laptop.connect().status == 0
        laptop.status.until(lambda now: now.mode is AccessMode.MC, "outside")
        goes_on(lab)

        # Outside, through the VPN, which outlives the daemon.
        kill_and_restart(laptop, tap, applications, so_far=HELD)
        mark = laptop.status.mark()
        assert laptop.connect().status == 0
        laptop.status.until(lambda now: now.mode is AccessMode.MC, "through the VPN again")
        assert VpnState.CONNECTING not in {each.vpn for each in laptop.status.since(mark)}
        goes_on(lab)
        assert leaks(tap.heard(), HELD) == []


@pytest.mark.slow
def test_one_connection_lives_through_charons_death(laptop: Laptop, lab: LabState, tap: Tap) -> None:
    laptop.plug("ext1")
    assert laptop.connect().status == 0
    tap.heard()
    with transfer(lab) as applications:
        laptop.kill("charon")
        blocked = laptop.status.until(lambda now: now.blocked, "charon is missed")
        assert blocked.blocked is not None
        assert blocked.blocked.fence_holds
        assert blocked.mode is AccessMode.NONE
        assert leaks(tap.heard(), HELD) == []
        stays_shut(laptop, tap, applications)
        laptop.start_charon()
        laptop.status.until(lambda now: now.mode is AccessMode.MC, "through the VPN again")
        goes_on(lab)
        assert leaks(tap.heard(), HELD) == []


@pytest.mark.parametrize("network", ["trust1", "ext1"])
def test_sigterm_leaves_the_laptop_as_it_was_found(laptop: Laptop, network: str) -> None:
    laptop.plug(network)
    before = laptop.network()
    assert laptop.connect().status == 0
    assert differences(before, laptop.network()) != []
    laptop.kill("homewardd", signal.SIGTERM)
    assert differences(before, laptop.network()) == []
    laptop.start_daemon()
    assert differences(before, laptop.network()) == []


def test_sigterm_to_a_daemon_that_waits_for_its_secrets_ends_the_vpn_of_the_life_before(
    laptop: Laptop,
) -> None:
    laptop.plug("ext1")
    before = laptop.network()
    assert laptop.connect().status == 0
    laptop.kill("homewardd")
    laptop.start_daemon()
    laptop.kill("homewardd", signal.SIGTERM)
    assert differences(before, laptop.network()) == []


def test_sigusr1_leaves_the_block_for_the_next_life(laptop: Laptop) -> None:
    laptop.plug("ext1")
    assert laptop.connect().status == 0
    laptop.kill("homewardd", signal.SIGUSR1)
    assert laptop.blocks()
    laptop.start_daemon()
    laptop.status.until(lambda now: now.state is ClientState.WAITING_FOR_SECRET, "waits")
    assert laptop.connect().status == 0


def test_cleanup_after_a_kill_leaves_the_laptop_as_it_was_found(laptop: Laptop) -> None:
    laptop.plug("ext1")
    before = laptop.network()
    assert laptop.connect().status == 0
    laptop.kill("homewardd")
    assert laptop.blocks()
    for _ in range(2):
        done = laptop.host.run(sys.executable, "-m", "homeward.daemon.main", "--cleanup")
        assert done.stderr == ""
        assert differences(before, laptop.network()) == []
    laptop.start_daemon()
    assert laptop.status.now is not None
    assert laptop.status.now.state is ClientState.DISCONNECTED


@pytest.mark.slow
def test_a_second_daemon_gives_up_and_harms_nobody(laptop: Laptop, lab: LabState) -> None:
    laptop.plug("trust1")
    assert laptop.connect().status == 0
    with transfer(lab):
        before, mark = laptop.network(), laptop.status.mark()
        second = laptop.host.run(sys.executable, "-m", "homeward.daemon.main", check=False)
        assert second.returncode == 1
        assert "another homewardd" in second.stderr
        assert differences(before, laptop.network()) == []
        assert {each.state for each in laptop.status.since(mark)} == {ClientState.TRUSTED_C}


@pytest.mark.slow
def test_after_kill_9_of_everything_down_leaves_nothing(fresh_state: LabState) -> None:
    """In the middle of traffic through the VPN every process of the laptop and the agents dies at once."""

    def live_and_die() -> None:
        Builder(fresh_state).up()
        with Status(address_of(fresh_state)) as status:
            laptop = Laptop(fresh_state, status)
            laptop.plug("ext1")
            assert laptop.connect().status == 0
            Applications(fresh_state, HOME_ADDRESS).start_tcp()
        for name in ALL_HOSTS:
            host = Host(fresh_state, name)
            for service, ended in host.services().items():
                if ended is None:
                    host.stop(service, signal.SIGKILL)
        assert laptop.blocks()
        held = [os.open(f"/proc/{Host(fresh_state, name).pid}/ns/net", os.O_RDONLY) for name in ALL_HOSTS]
        try:
            Builder(fresh_state).down()
            assert _users_of(held) == []
        finally:
            for descriptor in held:
                os.close(descriptor)

    assert changes_made_by(live_and_die) == []
    assert fresh_state.processes() == []
    assert not fresh_state.root.exists()
    assert str(fresh_state.root) not in Path("/proc/self/mountinfo").read_text()


def _users_of(namespaces: list[int]) -> list[str]:
    """The processes that are in one of these namespaces, which are held open so that none is mistaken for another."""
    wanted = {os.fstat(descriptor).st_ino for descriptor in namespaces}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns" / "net").stat().st_ino in wanted:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
