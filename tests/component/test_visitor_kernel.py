# SPDX-License-Identifier: GPL-2.0-or-later
"""What the foreign agent puts into the kernel for its visitors, and puts there again when somebody takes it away."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from homeward.adapters.netlink_routes.visitors import VisitorRoutes
from homeward.adapters.nftables.visitors import Station, VisitorGate
from tests.component.agent_network import Namespace

pytestmark = pytest.mark.root

HOME, OTHER = IPv4Address("10.77.0.10"), IPv4Address("10.77.0.11")
MAC, OTHER_MAC = bytes.fromhex("020000000010"), bytes.fromhex("020000000011")
MARK = 0x48570010
VISITOR = Station(HOME, "lan", MAC, captured=True)


@pytest.fixture
def host() -> Iterator[Namespace]:
    made = Namespace()
    made.ip("link add lan type veth peer name far")
    made.ip("link set dev lan up")
    made.ip("link set dev far up")
    made.ip("address add 10.1.3.1/24 dev lan")
    yield made
    made.close()


@pytest.fixture
def gate(host: Namespace) -> Iterator[VisitorGate]:
    with host.entered():
        made = VisitorGate("homeward-fa", mark=MARK)
        made.put_up(["lan"], [IPv4Address("10.1.3.1")])
        yield made
        made.take_down()
        made.close()


@pytest.fixture
def routes(host: Namespace) -> Iterator[VisitorRoutes]:
    with host.entered():
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"homeward-fa0", 0x1001))
        made = VisitorRoutes("homeward-fa0", mark=MARK)
        made.bring_up(mtu=1480, access=frozenset({"lan"}), uplinks=frozenset({"far"}))
        yield made
        made.take_down()
        made.close()
        os.close(device)


def elements(host: Namespace) -> str:
    return host.run("nft", "list", "table", "inet", "homeward-fa")


def test_a_visitors_station_is_let_in_changed_and_forgotten(host: Namespace, gate: VisitorGate) -> None:
    gate.admit(VISITOR)
    gate.admit(Station(OTHER, "lan", OTHER_MAC, captured=False))
    shown = elements(host)
    assert f'"lan" . {HOME} . 02:00:00:00:00:10' in shown
    assert shown.count(str(OTHER)) == 2, "let in, and not captured"
    gate.admit(Station(HOME, "lan", OTHER_MAC, captured=False))
    shown = elements(host)
    assert "02:00:00:00:00:10" not in shown
    assert shown.count(str(HOME)) == 2
    gate.expel(HOME)
    gate.expel(HOME)
    assert str(HOME) not in elements(host)


def test_what_somebody_flushed_is_put_up_again(host: Namespace, gate: VisitorGate) -> None:
    gate.admit(VISITOR)
    before = elements(host)
    host.run("nft", "flush", "ruleset")
    gate.expel(HOME)
    assert str(HOME) not in elements(host), "who was expelled meanwhile stays out"
    gate.admit(VISITOR)
    assert elements(host) == before
    host.run("nft", "flush", "ruleset")
    gate.admit(Station(OTHER, "lan", OTHER_MAC, captured=True))
    shown = elements(host)
    assert str(HOME) in shown, "everything, as soon as it is noticed"
    assert str(OTHER) in shown


def test_letting_somebody_in_takes_no_time_worth_mentioning(
    gate: VisitorGate, record_property: pytest.RecordProperty
) -> None:
    started = time.process_time()
    for n in range(50):
        gate.admit(Station(HOME + n, "lan", MAC, captured=True))
    each = (time.process_time() - started) / 50
    record_property("admit_cpu_ms", round(each * 1000, 3))
    assert each < 0.02


def test_the_way_to_a_visitor_is_put_up_again_after_its_link_was_down(
    host: Namespace, routes: VisitorRoutes
) -> None:
    routes.admit(HOME, "lan", MAC)
    assert "lladdr 02:00:00:00:00:10 PERMANENT" in host.ip("neighbour show")
    assert f"{HOME} dev lan" in host.ip("route show table 436")
    host.ip("link set dev lan down")
    routes.restore()
    host.ip("link set dev lan up")
    assert str(HOME) not in host.ip("route show table 436")
    routes.restore()
    assert f"{HOME} dev lan" in host.ip("route show table 436")
    assert "lladdr 02:00:00:00:00:10 PERMANENT" in host.ip("neighbour show")
    routes.admit(HOME, "lan", OTHER_MAC)
    assert "lladdr 02:00:00:00:00:11 PERMANENT" in host.ip("neighbour show")
    routes.expel(HOME)
    assert str(HOME) not in host.ip("neighbour show")


def test_what_matches_no_visitor_ends_at_the_device(host: Namespace, routes: VisitorRoutes) -> None:
    routes.admit(HOME, "lan", MAC)
    shown = host.ip("rule show")
    assert "from all iif homeward-fa0 lookup 436" in shown
    assert "from all iif homeward-fa0 blackhole" in shown
    assert "blackhole default" in host.ip("route show table 435"), "also without the device"
    assert str(HOME) not in host.ip("route show"), "no other traffic of the host knows of visitors"


def test_settings_of_other_peoples_links_are_put_back(host: Namespace) -> None:
    def setting(name: str) -> str:
        return host.run("cat", f"/proc/sys/net/ipv4/conf/lan/{name}").strip()

    host.setting("ipv4/conf/all/rp_filter", "1")
    before = [setting(name) for name in ("forwarding", "send_redirects", "rp_filter")]
    with host.entered():
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"homeward-fa0", 0x1001))
        made = VisitorRoutes("homeward-fa0", mark=MARK)
        made.bring_up(mtu=1480, access=frozenset({"lan"}), uplinks=frozenset({"far"}))
        assert [setting(name) for name in ("forwarding", "send_redirects", "rp_filter")] == ["1", "0", "2"]
        made.take_down()
        made.close()
        os.close(device)
    assert [setting(name) for name in ("forwarding", "send_redirects", "rp_filter")] == before
    assert IPv4Address("10.1.3.1") in _addresses(host)


def _addresses(host: Namespace) -> frozenset[IPv4Address]:
    with host.entered():
        made = VisitorRoutes("homeward-fa0", mark=MARK)
        found = made.own_addresses()
        made.close()
    return found
