# SPDX-License-Identifier: GPL-2.0-or-later
"""Which links are access links, case by case: a probe over any other could be answered from inside (S3)."""

import pytest

from homeward.adapters.netlink_links.judgement import LinkFacts, judge, why_never

LOOPBACK = 0x8 | 0x1
UP = 0x1
ETHER, RAWIP, NONE, PPP, TUNNEL, IPGRE = 1, 519, 0xFFFE, 512, 768, 778

ETH0 = LinkFacts(2, "eth0", parent=True)
BR0 = LinkFacts(5, "br0", "bridge")
TUN0 = LinkFacts(6, "tun0", "tun", NONE)
BEHIND = {facts.index: facts for facts in (ETH0, BR0, TUN0)}


@pytest.mark.parametrize(
    ("facts", "routed", "lent", "expected"),
    [
        # What a laptop reaches the world by.
        (ETH0, True, True, True),
        (ETH0, False, False, True),
        (LinkFacts(3, "wlan0", parent=True), False, False, True),
        (LinkFacts(3, "usb0", parent=True), False, True, True),
        (LinkFacts(3, "eth9"), True, False, True),
        (LinkFacts(3, "wwan0", None, RAWIP, parent=True), False, False, True),
        (LinkFacts(3, "wwan0", None, NONE, parent=True), True, False, True),
        (LinkFacts(3, "wwan0", "wwan", NONE), True, False, True),
        (LinkFacts(3, "bond0", "bond"), True, False, True),
        (LinkFacts(3, "team0", "team"), False, False, True),
        (LinkFacts(3, "eth0.7", "vlan", lower=2), False, False, True),
        (LinkFacts(3, "eth0.7", "vlan", lower=9, far_lower=True), True, False, True),
        (LinkFacts(3, "macvlan0", "macvlan", lower=2), True, False, True),
        # A namespace's or a container's own cable, seen from inside.
        (LinkFacts(3, "eth0", "veth", lower=4, far_lower=True), True, False, True),
        (LinkFacts(3, "eth0", "veth", lower=4, far_lower=True), False, True, True),
        # What only looks like one.
        (LinkFacts(1, "lo", flags=LOOPBACK, hardware=772), True, False, False),
        (LinkFacts(3, "vmnet8"), False, False, False),
        (LinkFacts(3, "veth1234", "veth", lower=4, far_lower=True), False, False, False),
        (LinkFacts(3, "veth1234", "veth", lower=4, far_lower=True, master=5), True, False, False),
        (LinkFacts(3, "vetha", "veth", lower=4), True, True, False),
        (LinkFacts(3, "homeward0", "tun", NONE), True, False, False),
        (LinkFacts(3, "ipsec0", "tun", NONE), True, False, False),
        (LinkFacts(3, "tap0", "tun", ETHER), True, True, False),
        (LinkFacts(3, "wg0", "wireguard", NONE), True, False, False),
        (LinkFacts(3, "ppp0", "ppp", PPP), True, True, False),
        (LinkFacts(3, "ppp0", None, PPP), True, True, False),
        (LinkFacts(3, "ipsec1", "xfrm", NONE), True, False, False),
        (LinkFacts(3, "ip_vti0", "vti", TUNNEL), True, False, False),
        (LinkFacts(3, "tunl0", "ipip", TUNNEL), True, False, False),
        (LinkFacts(3, "gre1", "gre", IPGRE), True, False, False),
        (LinkFacts(3, "gretap1", "gretap", ETHER), True, True, False),
        (LinkFacts(3, "vxlan1", "vxlan", ETHER), True, True, False),
        (LinkFacts(3, "odd0", None, NONE), True, False, False),
        (LinkFacts(3, "dummy0", "dummy"), True, True, False),
        (LinkFacts(3, "future0", "a-kind-of-2031"), True, True, False),
        (LinkFacts(3, "docker0", "bridge"), True, False, False),
        (LinkFacts(3, "virbr0", "bridge"), False, False, False),
        (LinkFacts(2, "eth0", parent=True, master=5), True, True, False),
        (LinkFacts(3, "br0.7", "vlan", lower=5), True, True, False),
        (LinkFacts(3, "tap0.7", "vlan", lower=6), True, True, False),
        (LinkFacts(3, "eth0.7", "vlan", lower=9, far_lower=True), False, True, False),
        (LinkFacts(3, "macvlan0", "macvlan", lower=2), False, False, False),
        (LinkFacts(3, "macvlan0", "macvlan", lower=5), True, False, False),
    ],
    ids=lambda value: f"{value.name}-{value.kind}" if isinstance(value, LinkFacts) else None,
)
def test_each_kind(facts: LinkFacts, routed: bool, lent: bool, expected: bool) -> None:
    links = BEHIND | {facts.index: facts}
    access, why = judge(facts, links, routed=routed, lent=lent)
    assert access is expected, why
    assert why
    if access:
        assert why_never(facts, links) is None


def test_a_port_is_named_by_its_master() -> None:
    port = LinkFacts(7, "veth1", "veth", master=5)
    assert judge(port, BEHIND, routed=False, lent=False) == (False, "a port of br0")


def test_a_vlan_says_what_it_lies_on() -> None:
    _, why = judge(LinkFacts(3, "br0.7", "vlan", lower=5), BEHIND, routed=True, lent=True)
    assert why.startswith("a vlan on br0: a bridge")
