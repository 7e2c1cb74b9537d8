# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.nodes import Node, NodeTable
from homeward.model.errors import ProfileError
from homeward.model.profile import ReplayStyle
from homeward.model.registration import AuthenticationAlgorithm, Spi
from homeward.wire.authenticator import is_same
from tests.unit.agents.scene import HOME, OLD_SA, OTHER_HOME, OTHER_SA, SA

POOL = IPv4Network("10.77.0.64/29")
NODES = (
    Node("laptop", HOME, SA),
    Node("laptop", HOME, OLD_SA, retired=True),
    Node("jörg's", OTHER_HOME, OTHER_SA, nai="jörg@example.test", replay=ReplayStyle.NONCES),
    Node("roamer", None, SA, nai="roamer@example.test", home_addresses=POOL),
    Node("roamer", None, OLD_SA, nai="roamer@example.test", home_addresses=POOL, retired=True),
    *(
        Node(each.value, IPv4Address(1000 + at), replace(SA, algorithm=each), nai="all@example.test" * 8)
        for at, each in enumerate([AuthenticationAlgorithm.HMAC_SHA1])
    ),
    *(
        Node(each.value, IPv4Address(2000 + at), replace(SA, algorithm=each))
        for at, each in enumerate(AuthenticationAlgorithm)
    ),
)


def is_equal(one: Node | None, other: Node) -> bool:
    """Keys are no values, and equal to nothing."""
    return (
        one is not None
        and is_same(one.association, other.association)
        and replace(one, association=other.association) == other
    )


def test_what_goes_in_comes_out() -> None:
    table = NodeTable(NODES)
    assert len(table) == len(NODES)
    assert all(map(is_equal, table, NODES))
    for node in NODES:
        assert is_equal(table.find(node.identity, node.association.spi), node)
        assert table.has(node.identity, node.association.spi)
        assert node.identity in table
        if node.nai is not None:
            assert is_equal(table.find_nai(node.nai, node.association.spi), node)
    assert table.pools == {POOL}
    assert table.need_entropy


def test_what_is_not_there_is_not_found() -> None:
    table = NodeTable(NODES)
    for identity in (int(HOME) + 100, "nobody@example.test", "jörg@example.test"):
        assert table.find(identity, SA.spi) is None
        assert not table.has(identity, SA.spi)
        assert identity not in table
    assert table.find(int(HOME), Spi(0x999)) is None
    assert table.find_nai("nobody@example.test", SA.spi) is None
    assert not NodeTable(NODES[:2]).need_entropy


def test_by_name() -> None:
    table = NodeTable(NODES)
    assert [node.association.spi for node in table.called("laptop")] == [SA.spi, OLD_SA.spi]
    assert [node.identity for node in table.called("roamer")] == ["roamer@example.test"] * 2
    assert table.called("lap") == table.called("example") == []


def test_plain_nodes_have_an_address_and_time_stamps_and_are_not_retired() -> None:
    table = NodeTable(NODES)
    assert table.find_plain(int(HOME), SA.spi) == (b"laptop", SA.key.reveal(), SA.algorithm)
    assert table.find_plain(int(HOME), OLD_SA.spi) is None
    assert table.find_plain(int(OTHER_HOME), OTHER_SA.spi) is None
    assert table.find_plain(1000, SA.spi) is not None
    assert table.find_plain(1, SA.spi) is None


@pytest.mark.parametrize(
    ("twin", "words"),
    [
        (Node("x", HOME, SA), f"home address {HOME} and SPI 256"),
        (Node("x", IPv4Address(9), OTHER_SA, nai="jörg@example.test"), "NAI jörg@example.test and SPI 256"),
        (Node("x", IPv4Address(9), SA, nai="roamer@example.test"), "NAI roamer@example.test and SPI 256"),
        (Node("x", None, OTHER_SA, nai="jörg@example.test", home_addresses=POOL), "NAI jörg@example.test"),
    ],
)
def test_two_that_cannot_be_told_apart(twin: Node, words: str) -> None:
    with pytest.raises(ProfileError, match=f"two nodes have {words}"):
        NodeTable((*NODES, twin))


def test_a_name_that_reads_as_an_address_could_be_taken_for_one() -> None:
    with pytest.raises(ProfileError, match="reads as an address"):
        NodeTable([Node("x", None, SA, nai="10.77.0.10", home_addresses=POOL)])
    assert NodeTable([Node("x", HOME, SA, nai="10.77.0.10")]).find(int(HOME), SA.spi) is not None


def test_it_shows_and_gives_away_no_keys() -> None:
    table = NodeTable(NODES)
    assert repr(table) == f"NodeTable({len(NODES)} associations)"
    for spread in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="holds keys"):
            spread(table)  # type: ignore[operator]
