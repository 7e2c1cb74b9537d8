# SPDX-License-Identifier: GPL-2.0-or-later
"""In no state does anything get out that docs/security.md does not allow there, whatever applications try, root's too.

The first test proves that the check can see a leak: each attempt, on a machine without a fence.
"""

import time

import pytest

from homeward.lab.state import LabState
from homeward.model.access import AccessMode
from homeward.model.status import ClientState
from tests.lab.enterprise import dropping
from tests.lab.laptop import HASTY, PATIENT, Laptop, Status, eventually, reason
from tests.lab.leak_attempts import ATTEMPTS, nothing_gets_out, recognised, try_to_leak
from tests.lab.wiretap import HELD, Allowed, Tap, leaks

pytestmark = [pytest.mark.root, pytest.mark.lab]
SHARES_LAB = True


@pytest.fixture(scope="module", autouse=True)
def profiles(lab: LabState, status: Status) -> None:
    Laptop(lab, status).write_profile("patient", more=PATIENT)
    Laptop(lab, status).write_profile("hasty", more=HASTY)


def test_the_check_sees_every_leak_that_there_is(laptop: Laptop, tap: Tap) -> None:
    """Disconnected, the machine is as without Homeward, and every attempt comes out and is recognised as a leak."""
    address = laptop.plug("trust1")
    seen: set[str] = set()

    def all_seen() -> bool:
        try_to_leak(laptop, address)
        time.sleep(0.2)
        frames = tap.heard()
        seen.update(recognised(frames))
        assert len(leaks(frames, HELD)) > len(ATTEMPTS) // 2
        return seen == set(ATTEMPTS)

    eventually(all_seen, f"never seen: {set(ATTEMPTS) - seen}")


def test_nothing_leaks_while_it_is_not_known_where_we_are(laptop: Laptop, lab: LabState, tap: Tap) -> None:
    with dropping(lab, "ext1", "forward", "meta l4proto udp"):
        address = laptop.plug("ext1")
        assert laptop.connect("patient", wait=0.3).status == 1
        laptop.status.until(lambda now: now.state is ClientState.DETECTING, "detecting")
        nothing_gets_out(laptop, tap, address)


def test_nothing_leaks_outside(laptop: Laptop, tap: Tap) -> None:
    """Neither on the link nor, past the home agent, into the VPN."""
    address = laptop.plug("ext1")
    assert laptop.connect().status == 0
    with Tap(laptop.host, "ipsec0") as inside:
        nothing_gets_out(laptop, tap, address)
        nothing_gets_out(laptop, tap, laptop.inner_address())
        assert not [frame for frame in inside.carried() if b"homeward-leak" in frame]


def test_nothing_leaks_inside(laptop: Laptop, tap: Tap) -> None:
    """Inside, data leaves in clear, by the tunnel; nothing does beside it."""
    address = laptop.plug("trust1")
    assert laptop.connect().status == 0
    nothing_gets_out(laptop, tap, address, allowed=Allowed(AccessMode.C, address))


def test_nothing_leaks_without_a_network(laptop: Laptop, lab: LabState, tap: Tap) -> None:
    """The cable is in, and DHCP has not answered yet: only its questions leave."""
    address = laptop.plug("ext1")
    with dropping(lab, "ext2", "input", "udp dport 67"):
        laptop.plug_without_address("ext2")
        assert laptop.connect("hasty", wait=0.3).status == 1
        laptop.status.until(lambda now: reason(now, "no-address"), "no address is missed")
        nothing_gets_out(laptop, tap, address)


def test_nothing_leaks_when_blocked(laptop: Laptop, tap: Tap) -> None:
    address = laptop.plug("ext1")
    laptop.kill("charon")
    assert laptop.connect("hasty", wait=0.3).status == 1
    laptop.status.until(lambda now: now.state is ClientState.BLOCKED, "blocked")
    nothing_gets_out(laptop, tap, address)
    laptop.start_charon()


@pytest.mark.parametrize("network", ["trust1", "ext1"])
def test_a_flushed_ruleset_is_put_back_and_told(laptop: Laptop, tap: Tap, network: str) -> None:
    address = laptop.plug(network)
    assert laptop.connect().status == 0
    laptop.host.run("nft", "flush ruleset")
    told = laptop.status.until(lambda now: reason(now, "fence-restored"), "it is told")
    assert "another program changed the firewall; it was put back" in reason(told, "fence-restored")
    assert laptop.blocks()
    nothing_gets_out(laptop, tap, address, allowed=Allowed(told.mode, address))
    assert "Find out which program changes the firewall" in laptop.homeward("status").out


def test_a_deleted_home_device_is_made_anew_and_told(laptop: Laptop, tap: Tap) -> None:
    address = laptop.plug("ext1")
    assert laptop.connect().status == 0
    laptop.host.ip("link del homeward0")
    laptop.status.until(lambda now: reason(now, "device-restored"), "it is told")
    assert laptop.blocks()
    laptop.status.until(lambda now: now.mode is AccessMode.MC, "through the VPN again")
    nothing_gets_out(laptop, tap, address)
    assert "Find out which program deletes network devices" in laptop.homeward("status").out
