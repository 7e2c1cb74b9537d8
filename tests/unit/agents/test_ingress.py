# SPDX-License-Identifier: GPL-2.0-or-later
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.ingress import Origin, TrustedNetworks

TIA = IPv4Address("10.9.0.5")
INNER = IPv4Address("10.1.1.50")
ELSEWHERE = IPv4Address("10.1.2.60")
NAT = IPv4Address("10.1.9.9")
OUTER = IPv4Address("198.51.100.7")

NETWORKS = TrustedNetworks(
    frozenset({"inside"}), (IPv4Network("10.1.0.0/16"), IPv4Network("10.9.0.0/24")), frozenset({NAT})
)


@pytest.mark.rows("R-94")
@pytest.mark.parametrize(
    ("source", "interface", "origin"),
    [
        (INNER, "inside", Origin.INSIDE),
        (TIA, "inside", Origin.INSIDE),
        (NAT, "inside", Origin.INSIDE),
        (OUTER, "inside", Origin.WRONG_SOURCE),
        (INNER, "outside", Origin.WRONG_INTERFACE),
        (OUTER, "outside", Origin.WRONG_INTERFACE),
        (INNER, "", Origin.WRONG_INTERFACE),
        (INNER, "inside2", Origin.WRONG_INTERFACE),
        (IPv4Address("10.2.0.0"), "inside", Origin.WRONG_SOURCE),
        (IPv4Address("10.9.1.0"), "inside", Origin.WRONG_SOURCE),
        (IPv4Address("0.0.0.0"), "inside", Origin.WRONG_SOURCE),
    ],
)
def test_origin(source: IPv4Address, interface: str, origin: Origin) -> None:
    assert NETWORKS.origin(source, interface) is origin


@pytest.mark.rows("R-95")
@pytest.mark.parametrize("source", [INNER, TIA, NAT, OUTER])
@pytest.mark.parametrize("interface", ["inside", "outside"])
@pytest.mark.parametrize("care_of", [INNER, ELSEWHERE, TIA, OUTER, NAT])
def test_vouches_only_for_inside_interface_and_prefix_and_source(
    source: IPv4Address, interface: str, care_of: IPv4Address
) -> None:
    inside = interface == "inside" and source != OUTER
    wished = inside and source in (care_of, NAT)
    assert NETWORKS.vouches(source, interface, care_of_address=care_of) is wished


def test_a_nat_is_trusted_only_where_one_is_listed() -> None:
    networks = TrustedNetworks(NETWORKS.interfaces, NETWORKS.prefixes)
    assert not networks.vouches(NAT, "inside", care_of_address=INNER)


def test_a_listed_nat_outside_the_prefixes_is_no_help() -> None:
    networks = TrustedNetworks(NETWORKS.interfaces, NETWORKS.prefixes, frozenset({OUTER}))
    assert networks.origin(OUTER, "inside") is Origin.WRONG_SOURCE
    assert not networks.vouches(OUTER, "inside", care_of_address=INNER)


@pytest.mark.rows("R-93")
def test_nothing_is_trusted_by_default() -> None:
    for networks in (
        TrustedNetworks(),
        TrustedNetworks(frozenset({"inside"})),
        TrustedNetworks(prefixes=NETWORKS.prefixes),
        TrustedNetworks(nats=frozenset({NAT})),
    ):
        for source in (INNER, TIA, NAT, OUTER):
            assert networks.origin(source, "inside") is not Origin.INSIDE
            assert not networks.vouches(source, "inside", care_of_address=source)
