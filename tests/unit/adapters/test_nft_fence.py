# SPDX-License-Identifier: GPL-2.0-or-later
"""The fence as text: what each setting adds, and that nothing but the named exceptions is accepted."""

import re
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.adapters.nftables.fence import FenceSetting, render, render_nothing
from homeward.adapters.nftables.fence.rules import elements, standing
from homeward.model.access import AgentPath, ClearPath, HomePath, VpnPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import PlanError
from homeward.model.plan import AtHome, Fence, Held, Traffic, Tunnelled, ViaAgent

AGENT = IPv4Address("10.0.0.2")
GATEWAY = IPv4Address("192.0.2.1")
CARE_OF = IPv4Address("198.51.100.7")
INNER = IPv4Address("10.9.0.1")
HOME = IPv4Address("10.77.0.10")

HELD = FenceSetting(
    Fence(AGENT, (GATEWAY,), ("eth0", "wlan0"), Held(), None), HOME, egress_links=("eth0", "wlan0")
)
CLEAR = replace(
    HELD, fence=replace(HELD.fence, traffic=Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1480))
)
VPN = replace(
    HELD,
    fence=replace(HELD.fence, traffic=Tunnelled(VpnPath(INNER), AGENT, 1400), vpn_inner_address=INNER),
    vpn_device="ipsec0",
)
HARDWARE = bytes.fromhex("020000000001")
FOREIGN_AGENT = IPv4Address("10.1.3.1")
BY_AGENT = AgentPath(2, "eth0", HOME, FOREIGN_AGENT, HARDWARE, FOREIGN_AGENT)
AT_HOME = HomePath(2, "eth0", HOME)


def open_for(traffic: Traffic) -> FenceSetting:
    return replace(HELD, fence=replace(HELD.fence, traffic=traffic))


IN_UDP = open_for(Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1468, udp=True))
TO_AGENT = open_for(ViaAgent(BY_AGENT, 1500))
TO_AGENT_WRAPPED = open_for(ViaAgent(BY_AGENT, 1480, encapsulating=True))
HOME_LINK = open_for(AtHome(AT_HOME, 1500))
ASKING = replace(HELD, fence=replace(HELD.fence, foreign_agent=BY_AGENT))
COMING_HOME = replace(HELD, fence=replace(HELD.fence, home_link=AT_HOME))
ALL = [HELD, CLEAR, VPN, IN_UDP, TO_AGENT, TO_AGENT_WRAPPED, HOME_LINK, ASKING, COMING_HOME]
ALL += [replace(VPN, lingering=Tunnelled(VpnPath(IPv4Address("10.9.0.2")), AGENT, 1400))]
ALL += [replace(CLEAR, lingering=setting.fence.traffic) for setting in (IN_UDP, TO_AGENT, HOME_LINK)]


def postrouting(setting: FenceSetting) -> list[str]:
    return chains(render(setting))["postrouting"]


def test_with_the_kernels_esp_what_is_about_to_be_wrapped_may_go_on_and_nothing_else() -> None:
    kernel_esp = replace(VPN, kernel_esp=True)
    (rule,) = set(postrouting(kernel_esp)) - set(postrouting(VPN))
    assert rule == (
        f"ipsec out ip daddr {{ {GATEWAY} }} meta mark 0x48570003 ip saddr {INNER} ip daddr {AGENT} "
        "ip protocol 4 accept"
    )
    assert chains(render(kernel_esp)) | {"postrouting": []} == chains(render(VPN)) | {"postrouting": []}
    for setting in (HELD, CLEAR, replace(VPN, fence=replace(VPN.fence, traffic=Held()))):
        assert render(replace(setting, kernel_esp=True)) == render(setting)


def chains(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"chain (\w+) \{\n(.*?)\n\t\}", text, re.DOTALL):
        found[name] = [line.strip() for line in body.splitlines()]
    return found


@pytest.mark.parametrize("setting", ALL)
def test_every_chain_drops_by_default(setting: FenceSetting) -> None:
    for rules in chains(render(setting)).values():
        assert rules[0].endswith("policy drop;")


@pytest.mark.parametrize("setting", ALL)
def test_the_kernels_tunnel_device_is_shut_before_anything_else_is_let_through(setting: FenceSetting) -> None:
    found = chains(render(setting))
    for chain, name in (("input", "iifname"), ("postrouting", "oifname")):
        assert found[chain][1:3] == [f'{name} "homeward0" accept', f'{name} "homeward-ipip" drop']


@pytest.mark.parametrize("setting", ALL)
def test_nothing_is_forwarded(setting: FenceSetting) -> None:
    assert len(chains(render(setting))["forward"]) == 1


@pytest.mark.parametrize("setting", ALL)
def test_whatever_leaves_by_a_foreign_link_is_marked_or_is_dhcp_or_a_solicitation(
    setting: FenceSetting,
) -> None:
    found = chains(render(setting))
    for rule in found["postrouting"][2:] + found["egress"][1:]:
        if not rule.endswith("accept") or rule.startswith("meta protocol {"):
            continue
        unmarked = rule == 'oifname "lo" accept' or rule.endswith(
            ("udp sport 68 udp dport 67 accept", "icmp type router-solicitation accept")
        )
        assert unmarked or "meta mark 0x4857000" in rule, rule


@pytest.mark.parametrize("setting", [HELD, ASKING, COMING_HOME])
def test_while_held_no_packet_of_the_home_address_passes(setting: FenceSetting) -> None:
    text = render(setting)
    assert "elements" not in text
    assert "ip protocol 4" not in text
    assert [
        rule for rule in chains(text)["postrouting"] if "0x48570003" in rule and "@leaving" not in rule
    ] == []
    assert added(setting, "egress") == [rule for rule in added(setting, "egress") if "0x48570002" in rule]


def added(setting: FenceSetting, chain: str) -> list[str]:
    """The rules of a chain that the fence of held traffic does not have."""
    held = chains(render(HELD))[chain]
    return [rule for rule in chains(render(setting))[chain] if rule not in held]


REGISTRATION = "meta mark 0x48570002"
TUNNEL = "meta mark 0x48570003"
ENDS = "ip saddr 198.51.100.7 ip daddr 10.0.0.2"
FROM_IT, TO_IT = (
    f"{way} 02:00:00:00:00:01" for way in ('iifname "eth0" ether saddr', 'oifname "eth0" ether daddr')
)
ASKED = "ip saddr 10.77.0.10 ip daddr { 10.1.3.1, 224.0.0.11 } udp dport 434"


@pytest.mark.rows("R-37", "R-229")
@pytest.mark.parametrize(
    ("setting", "comes_in", "leaves", "in_frames"),
    [
        (IN_UDP, [], [f'{TUNNEL} {ENDS} udp dport 434 oifname "eth0" accept'], []),
        (
            TO_AGENT,
            ['iifname "eth0" ether saddr 02:00:00:00:00:01 ip daddr 10.77.0.10 accept'],
            [],
            [f'oifname "eth0" ether daddr 02:00:00:00:00:01 ip saddr 10.77.0.10 {TUNNEL} accept'],
        ),
        (
            TO_AGENT_WRAPPED,
            ['iifname "eth0" ether saddr 02:00:00:00:00:01 ip daddr 10.77.0.10 accept'],
            [],
            [f"{TO_IT} ip saddr 10.77.0.10 ip daddr 10.1.3.1 ip protocol 4 {TUNNEL} accept"],
        ),
        (
            HOME_LINK,
            ['iifname "eth0" ip daddr 10.77.0.10 accept'],
            [f'{TUNNEL} ip saddr 10.77.0.10 oifname "eth0" accept'],
            [],
        ),
        (
            ASKING,
            [f"{FROM_IT} socket mark 0x48570002 ip saddr 10.1.3.1 udp sport 434 accept"],
            [],
            [f"{TO_IT} {ASKED} {REGISTRATION} accept"],
        ),
        (
            COMING_HOME,
            [],
            [f'oifname "eth0" {REGISTRATION} ip saddr 10.77.0.10 ip daddr 10.0.0.2 udp dport 434 accept'],
            [f'oifname "eth0" {REGISTRATION} arp saddr ip 10.77.0.10 accept'],
        ),
    ],
)
def test_each_way_opens_exactly_this(
    setting: FenceSetting, comes_in: list[str], leaves: list[str], in_frames: list[str]
) -> None:
    assert added(setting, "input") == comes_in
    assert added(setting, "postrouting") == leaves
    assert sorted(added(setting, "egress")) == sorted(leaves + in_frames)
    assert sets(render(setting)) == []


def test_an_agent_on_a_link_without_hardware_addresses_is_known_by_the_link() -> None:
    setting = open_for(ViaAgent(replace(BY_AGENT, hardware_address=b""), 1500))
    assert added(setting, "input") == ['iifname "eth0" ip daddr 10.77.0.10 accept']


@pytest.mark.parametrize("setting", ALL)
def test_the_home_address_registers_itself_at_home_and_by_an_agent_alone(setting: FenceSetting) -> None:
    found = chains(render(setting))
    for rule in found["postrouting"] + found["egress"]:
        if rule.startswith(REGISTRATION):
            assert rule == f"{REGISTRATION} ip saddr != 10.77.0.10 ip daddr 10.0.0.2 udp dport 434 accept"


def test_without_a_home_address_nothing_is_said_about_one() -> None:
    text = render(replace(HELD, home_address=None))
    assert "arp saddr" not in text
    assert f"{REGISTRATION} ip daddr 10.0.0.2 udp dport 434 accept" in text
    assert "None" not in text


@pytest.mark.rows("R-111")
def test_agents_may_be_asked_by_each_group_and_by_broadcast() -> None:
    rule = "ip daddr { 224.0.0.2, 224.0.0.11, 255.255.255.255 } icmp type router-solicitation accept"
    assert rule in chains(render(HELD))["egress"]


@pytest.mark.parametrize(
    ("before", "kept", "rule"),
    [
        (TO_AGENT, '"eth0" . 02:00:00:00:00:01 . 10.77.0.10 timeout 2s', "iifname . ether saddr . ip daddr"),
        (HOME_LINK, '"eth0" . 10.77.0.10 timeout 2s', "iifname . ip daddr"),
    ],
)
def test_what_is_not_in_the_sets_lingers_as_itself(before: FenceSetting, kept: str, rule: str) -> None:
    text = render(replace(CLEAR, lingering=before.fence.traffic))
    assert ("lingering_otherwise", kept) in sets(text)
    assert f"{rule} @lingering_otherwise accept" in chains(text)["input"]


def test_a_tunnel_in_udp_needs_nothing_to_linger() -> None:
    assert render(replace(CLEAR, lingering=IN_UDP.fence.traffic)) == render(CLEAR)


def test_with_the_kernels_esp_a_tunnel_in_udp_may_go_on_too() -> None:
    tunnel = Tunnelled(VpnPath(INNER), AGENT, 1388, udp=True)
    setting = replace(VPN, fence=replace(VPN.fence, traffic=tunnel))
    (rule,) = set(postrouting(replace(setting, kernel_esp=True))) - set(postrouting(setting))
    assert rule == (
        f"ipsec out ip daddr {{ {GATEWAY} }} {TUNNEL} ip saddr {INNER} ip daddr {AGENT} udp dport 434 accept"
    )


def test_a_clear_tunnel_passes_by_its_own_link_and_ends_only() -> None:
    out, back = '"eth0" . 198.51.100.7 . 10.0.0.2 . 4', '"eth0" . 10.0.0.2 . 198.51.100.7 . 4'
    assert sets(render(CLEAR)) == [("arriving", back), ("leaving", out), ("leaving", out)]
    found, leaves = chains(render(CLEAR)), "oifname . ip saddr . ip daddr . ip protocol @leaving"
    assert [rule for rule in found["input"] if "@arriving" in rule] == [
        "iifname . ip saddr . ip daddr . ip protocol @arriving accept"
    ]
    for chain in ("postrouting", "egress"):
        rules = [rule for rule in found[chain] if "@leaving" in rule]
        assert rules == [f"{TUNNEL} {leaves} accept"]


def sets(text: str) -> list[tuple[str, str]]:
    """The sets that hold something, and what."""
    return re.findall(r"set (\w+) \{\n[^}]*?elements = \{ ([^}]*) \}", text)


def test_between_clear_tunnels_and_none_nothing_differs_but_elements() -> None:
    """So a hand-over need not read the firewall."""
    other = replace(
        CLEAR,
        fence=replace(CLEAR.fence, traffic=Tunnelled(ClearPath(3, "wlan0", CARE_OF), AGENT, 1480)),
        lingering=CLEAR.fence.traffic,
    )
    assert standing(CLEAR) == standing(other) == HELD
    assert chains(render(CLEAR)) == chains(render(other)) == chains(render(HELD))
    for setting in (VPN, replace(HELD, fence=replace(HELD.fence, gateways=()))):
        assert standing(setting) not in (HELD, standing(CLEAR))


def test_minimal_encapsulation_lets_fragments_of_the_plain_kind_pass() -> None:
    path = ClearPath(2, "eth0", CARE_OF)
    minimal = Tunnelled(path, AGENT, 1480, encapsulation=Encapsulation.MINIMAL)
    held = elements(replace(CLEAR, fence=replace(CLEAR.fence, traffic=minimal)))
    assert [each.protocol for each in held.arriving] == [4, 55]
    assert [each.protocol for each in held.leaving] == [4, 55]


def test_on_the_vpn_device_only_the_home_agent_is_met() -> None:
    found = chains(render(VPN))
    for chain, word in (("postrouting", "oifname"), ("input", "iifname")):
        closed = found[chain].index(f'{word} "ipsec0" drop')
        before = found[chain][1:closed]
        assert all(
            "10.0.0.2" in rule
            or rule.split()[1] in ('"lo"', '"homeward0"')
            or rule.endswith(" drop")
            or " @" in rule
            for rule in before
        )


def test_without_gateways_there_is_no_hole_for_ike() -> None:
    text = render(replace(HELD, fence=replace(HELD.fence, gateways=())))
    assert "4500" not in text
    assert "0x48570001" not in text


def test_the_path_before_stays_open_inwards_and_closes_by_itself() -> None:
    text = render(
        replace(CLEAR, lingering=Tunnelled(ClearPath(3, "wlan0", IPv4Address("10.1.1.5")), AGENT, 1480))
    )
    assert 'elements = { "wlan0" . 10.0.0.2 . 10.1.1.5 . 4 timeout 2s }' in text
    assert "@lingering accept" in text.split("chain forward")[0]
    assert "@lingering" not in text.split("chain forward")[1]


def test_without_access_links_there_is_no_second_line() -> None:
    assert "netdev homeward {" not in render(replace(HELD, egress_links=()))


def test_the_home_address_is_never_heard_in_arp() -> None:
    rules = chains(render(HELD))["egress"]
    accept_arp = next(at for at, rule in enumerate(rules) if rule.startswith("meta protocol { arp"))
    assert rules.index("arp saddr ip 10.77.0.10 drop") < accept_arp
    assert rules.index("arp daddr ip 10.77.0.10 drop") < accept_arp


@pytest.mark.parametrize("name", ['a"b', "eth*", "two words", "back\\slash", "", "é", "x" * 16])
def test_a_name_that_means_something_else_in_a_rule_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="interface name"):
        render(
            replace(
                CLEAR, fence=replace(CLEAR.fence, traffic=Tunnelled(ClearPath(2, name, CARE_OF), AGENT, 1480))
            )
        )


@pytest.mark.parametrize("setting", ALL)
def test_one_transaction_replaces_what_stood_before(setting: FenceSetting) -> None:
    assert render(setting).startswith(render_nothing())
