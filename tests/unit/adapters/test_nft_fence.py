# SPDX-License-Identifier: GPL-2.0-or-later
"""The fence as text: what each setting adds, and that nothing but the named exceptions is accepted."""

import re
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.adapters.nft_fence import FenceSetting, render, render_nothing
from homeward.adapters.nft_fence.rules import elements, standing
from homeward.model.access import ClearPath, VpnPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import PlanError
from homeward.model.plan import Fence, Held, Tunnelled

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
ALL = [HELD, CLEAR, VPN, replace(VPN, lingering=Tunnelled(VpnPath(IPv4Address("10.9.0.2")), AGENT, 1400))]


def postrouting(setting: FenceSetting) -> list[str]:
    return chains(render(setting))["postrouting"]


def test_with_the_kernels_esp_what_is_about_to_be_wrapped_may_go_on_and_nothing_else() -> None:
    kernel_esp = replace(VPN, kernel_esp=True)
    (rule,) = set(postrouting(kernel_esp)) - set(postrouting(VPN))
    assert rule == (
        f"ipsec out ip daddr {{ {GATEWAY} }} ip saddr {INNER} ip daddr {AGENT} "
        "ip protocol 4 meta mark 0x48570003 accept"
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
def test_nothing_is_forwarded(setting: FenceSetting) -> None:
    assert len(chains(render(setting))["forward"]) == 1


@pytest.mark.parametrize("setting", ALL)
def test_whatever_leaves_by_a_foreign_link_is_marked_or_is_dhcp_or_a_solicitation(
    setting: FenceSetting,
) -> None:
    found = chains(render(setting))
    for rule in found["postrouting"][2:] + found["egress"][4:]:
        if not rule.endswith("accept") or rule.startswith("meta protocol {"):
            continue
        unmarked = rule.endswith(("udp sport 68 udp dport 67 accept", "icmp type router-solicitation accept"))
        assert unmarked or "meta mark 0x4857000" in rule, rule


def test_while_held_no_tunnelled_packet_passes() -> None:
    assert "elements" not in render(HELD)
    assert "ip protocol 4" not in render(HELD)


def test_a_clear_tunnel_passes_by_its_own_link_and_ends_only() -> None:
    out, back = '"eth0" . 198.51.100.7 . 10.0.0.2 . 4', '"eth0" . 10.0.0.2 . 198.51.100.7 . 4'
    assert sets(render(CLEAR)) == [("arriving", back), ("leaving", out), ("leaving", out)]
    found, leaves = chains(render(CLEAR)), "oifname . ip saddr . ip daddr . ip protocol @leaving"
    assert [rule for rule in found["input"] if "@arriving" in rule] == [
        "iifname . ip saddr . ip daddr . ip protocol @arriving accept"
    ]
    for chain in ("postrouting", "egress"):
        rules = [rule for rule in found[chain] if "@leaving" in rule]
        assert rules == [f"{leaves} meta mark 0x48570003 accept"]


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
            "10.0.0.2" in rule or '"lo"' in rule or rule == "meta nfproto ipv6 drop" or " @" in rule
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
