# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a change of connectivity, and what does not (S5, S21, R-64, R-128)."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from homeward.core.attachment import Attachments
from homeward.model.access import Link

HOME = IPv4Address("10.77.0.10")
WIRED = Link(
    2,
    "eth0",
    access=True,
    why="Ethernet",
    carrier=True,
    addresses=(IPv4Interface("10.1.1.10/24"),),
    gateway=IPv4Address("10.1.1.1"),
    metric=100,
    carrier_changes=1,
)
WIRELESS = replace(
    WIRED,
    index=3,
    name="wlan0",
    addresses=(IPv4Interface("192.168.1.5/24"),),
    gateway=IPv4Address("192.168.1.1"),
    metric=600,
)


def attached(*links: Link) -> Attachments:
    attachments = Attachments(HOME)
    assert attachments.observe(links)
    return attachments


CHANGES: dict[str, dict[str, Any]] = {
    "carrier lost": {"carrier": False},
    "carrier flapped between two looks": {"carrier_changes": 3},
    "address changed": {"addresses": (IPv4Interface("10.1.1.11/24"),)},
    "address lost": {"addresses": ()},
    "router changed": {"gateway": IPv4Address("10.1.1.254")},
    "router lost": {"gateway": None},
    "no access link any more": {"access": False},
}
NO_CHANGES: dict[str, dict[str, Any]] = {
    "metric": {"metric": 50},
    "MTU": {"mtu": 1400},
    "a second address": {"addresses": (*WIRED.addresses, IPv4Interface("10.1.1.99/24"))},
    "the router's station learnt": {"station": "02:00:00:00:00:01"},
}


@pytest.mark.rows("R-64", "R-72")
@pytest.mark.parametrize("change", CHANGES)
def test_change_of_connectivity(change: str) -> None:
    attachments = attached(WIRED)
    before = attachments.current
    assert attachments.observe((replace(WIRED, **CHANGES[change]),))
    assert attachments.current != before


@pytest.mark.parametrize("change", NO_CHANGES)
def test_no_change_of_connectivity(change: str) -> None:
    attachments = attached(WIRED)
    before = attachments.current
    assert not attachments.observe((replace(WIRED, **NO_CHANGES[change]),))
    assert attachments.current == before


@pytest.mark.rows("R-128")
def test_another_station_is_another_network_even_with_equal_addresses() -> None:
    attachments = attached(replace(WIRED, station="02:00:00:00:00:01"))
    assert attachments.observe((replace(WIRED, station="02:00:00:00:00:02"),))


def test_link_in_use_is_kept_though_a_better_one_comes() -> None:
    attachments = attached(WIRELESS)
    assert not attachments.observe((WIRELESS, WIRED))
    assert attachments.observe((WIRED,))
    assert attachments.current is not None
    assert attachments.current.link_name == "eth0"


def test_lowest_metric_is_preferred() -> None:
    assert attached(WIRELESS, WIRED).current.link_name == "eth0"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "unusable",
    [
        replace(WIRED, access=False),
        replace(WIRED, carrier=False),
        replace(WIRED, gateway=None),
        replace(WIRED, addresses=(IPv4Interface("169.254.3.4/16"),)),
        replace(WIRED, addresses=(IPv4Interface(f"{HOME}/32"),)),
    ],
    ids=["not an access link", "no carrier", "no router", "link-local", "the home address itself"],
)
def test_link_that_lends_no_care_of_address(unusable: Link) -> None:
    attachments = Attachments(HOME)
    assert not attachments.observe((unusable,))
    assert attachments.current is None


def test_serials_only_grow() -> None:
    attachments = attached(WIRED)
    seen = []
    for carrier in (False, True, False, True):
        attachments.observe((replace(WIRED, carrier=carrier),))
        if attachments.current:
            seen.append(attachments.current.serial)
    assert seen == sorted(set(seen))
    assert seen[0] > 1
