# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent's operator hands out is what the laptop takes."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from homeward.agentd.hand_out import new_key, profile_table, secret_line, write_secret
from homeward.agents.policy import Node
from homeward.bus.fingerprint import matches
from homeward.cli.secrets_in import read_secrets
from homeward.daemon.settings import parse_profile
from homeward.model.profile import ASSIGNED, ReplayStyle
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi

AGENT = IPv4Address("10.0.0.2")
TOP = 'version = 1\nname = "office"\nowner = "alice"\n\n'


def association() -> MobilitySecurityAssociation:
    return MobilitySecurityAssociation(Spi(0x101), AuthenticationAlgorithm.HMAC_SHA256, key=new_key())


@pytest.mark.parametrize(
    "node",
    [
        Node("laptop", IPv4Address("10.77.0.10"), association()),
        Node('odd"na=me\\', IPv4Address("10.77.0.10"), association(), nai='l"p\\@example.test'),
        Node(
            "roamer",
            None,
            association(),
            nai="roamer@example.test",
            home_addresses=IPv4Network("10.77.0.128/25"),
            replay=ReplayStyle.NONCES,
        ),
    ],
    ids=lambda node: node.name[:6],
)
def test_the_client_takes_both_halves(node: Node, tmp_path: Path) -> None:
    table = profile_table(node, AGENT)
    profile = parse_profile(TOP + table, "office.toml")
    agent = profile.home_agent
    assert (agent.address, agent.spi, agent.algorithm) == (AGENT, 0x101, AuthenticationAlgorithm.HMAC_SHA256)
    assert agent.home_address == (ASSIGNED if node.home_address is None else node.home_address)
    assert (agent.nai, agent.replay) == (node.nai, node.replay)

    write_secret(tmp_path / "secret", node)
    with (tmp_path / "secret").open() as file:
        secrets = read_secrets(os.dup(file.fileno()))
    assert list(secrets) == [agent.key.reference]
    assert secrets[agent.key.reference].reveal() == node.association.key.reveal()
    assert matches(secrets[agent.key.reference], agent.key.fingerprint)
    assert node.association.key.reveal().hex() not in table


def test_the_secret_is_for_its_owner_alone_and_never_overwrites(tmp_path: Path) -> None:
    node = Node("laptop", IPv4Address("10.77.0.10"), association())
    before = os.umask(0)
    try:
        write_secret(tmp_path / "secret", node)
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secret").read_text() == secret_line(node)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place in (tmp_path / "secret", tmp_path / "link"):
        with pytest.raises(FileExistsError):
            write_secret(place, node)
    assert not (tmp_path / "elsewhere").exists()


def test_keys_are_long_and_none_comes_twice() -> None:
    keys = {new_key().reveal() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}
