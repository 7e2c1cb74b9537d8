# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import re
import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from homeward.agentd import foreign_settings, main
from homeward.agentd.foreign_settings import ForeignSettings
from homeward.agents.foreign_rules import AccessLink, ReverseTunnelling
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError

ROOT = Path(__file__).resolve().parents[3]

TOP = """version = 1
role = "foreign"
care_of_addresses = ["10.1.3.1"]
uplink_interfaces = ["core"]
"""
ACCESS = """[[access]]
interface = "trust3"
address = "10.1.3.1/24"
"""
HOME_AGENT = """[[home_agent]]
address = "10.0.0.2"
spi = 0x300
algorithm = "hmac-sha256"
key_file = "some.key"
"""
NODE = """[[mobile_node]]
home_address = "10.77.0.10"
spi = 0x200
algorithm = "hmac-md5"
key_file = "some.key"
"""
SERVER = """[[mobile_node_aaa]]
nai = "laptop@example.test"
spi = 2
key_file = "some.key"
"""


def load(folder: Path, text: str) -> ForeignSettings:
    (folder / "some.key").write_text(bytes(range(32)).hex() + "\n")
    (folder / "some.key").chmod(0o600)
    return foreign_settings.settings_of(tomllib.loads(text), folder, owner=os.getuid())


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    read = load(tmp_path, TOP + ACCESS)
    policy = read.policy
    assert policy.care_of_addresses == (IPv4Address("10.1.3.1"),)
    assert policy.links == (AccessLink("trust3", IPv4Address("10.1.3.1"), IPv4Network("10.1.3.0/24")),)
    assert read.uplinks == {"core"}
    assert (read.advertisement_interval, read.advertise_prefixes, read.keepalive) == (10.0, True, 110)
    assert (policy.lifetime_max, policy.visitors_max, policy.pending_max) == (1800, 1000, 32)
    assert policy.encapsulations == frozenset(Encapsulation)
    assert policy.reverse_tunnelling is ReverseTunnelling.OFFERED
    assert policy.encapsulating_delivery
    assert not (policy.behind_nat)
    assert not (policy.challenge)
    assert not (policy.revocation)
    assert not (policy.registration_required)
    assert (policy.home_agents, policy.nodes, policy.servers) == ({}, {}, {})


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    more = """advertisement_interval = 3
advertise_prefixes = false
registration_required = true
lifetime_max = 300
visitors_max = 5
pending_max = 2
reverse_tunnels = "mandatory"
encapsulations = ["ip-in-ip", "gre"]
encapsulating_delivery = false
behind_nat = true
nat_is_transparent = true
keepalive = 30
challenge = true
revocation = true
home_agent_networks = ["10.0.0.0/24"]
"""
    second = NODE.replace("0x200", "0x201")
    read = load(tmp_path, TOP + more + ACCESS + HOME_AGENT + NODE + second + SERVER)
    policy = read.policy
    assert (read.advertisement_interval, read.advertise_prefixes, read.keepalive) == (3.0, False, 30)
    assert (policy.lifetime_max, policy.visitors_max, policy.pending_max) == (300, 5, 2)
    assert policy.encapsulations == {Encapsulation.IP_IN_IP, Encapsulation.GRE}
    assert policy.reverse_tunnelling is ReverseTunnelling.MANDATORY
    assert not policy.encapsulating_delivery
    assert policy.behind_nat
    assert policy.nat_is_transparent
    assert policy.challenge
    assert policy.revocation
    assert policy.registration_required
    assert policy.home_agent_networks == (IPv4Network("10.0.0.0/24"),)
    assert policy.home_agents[IPv4Address("10.0.0.2")].spi == 0x300
    assert [one.spi for one in policy.nodes[IPv4Address("10.77.0.10")]] == [0x200, 0x201]
    assert policy.servers["laptop@example.test"].spi == 2


def test_the_example_in_the_documentation_is_read(tmp_path: Path) -> None:
    """Its first tables stand before the keys that may be left out; in a file they stand behind them."""
    assert foreign_settings.__doc__ is not None
    lines = [line[4:] for line in foreign_settings.__doc__.splitlines() if line.startswith("    ")]
    first_table = next(n for n, line in enumerate(lines) if line.startswith("[[access]]"))
    blank = next(n for n, line in enumerate(lines) if line.startswith("# All of"))
    top, access, rest = lines[:first_table], lines[first_table:blank], lines[blank + 1 :]
    tables = next(n for n, line in enumerate(rest) if line.startswith("# [[home_agent]]"))
    more = [line.removeprefix("#").removeprefix(" ") for line in rest[tables:]]
    for name in ("home-agent.key", "laptop-here.key", "laptop-aaa.key"):
        (tmp_path / name).write_text("00" * 16 + "\n")
        (tmp_path / name).chmod(0o600)
    assert load(tmp_path, "\n".join([*top, *rest[:tables], *access])) == load(tmp_path, TOP + ACCESS)
    read = load(tmp_path, "\n".join([*top, *access, *more])).policy
    assert set(read.nodes) == set(read.servers) == {IPv4Address("10.77.0.10")}
    assert set(read.home_agents) == {IPv4Address("10.0.0.2")}


def test_the_packaged_example_is_read(tmp_path: Path) -> None:
    text = (ROOT / "packaging/agents/foreign.toml").read_text()
    assert load(tmp_path, text).policy.care_of_addresses == (IPv4Address("10.1.3.1"),)
    uncommented = re.sub(r"(?m)^# (?=[a-z_]+ = |\[\[)", "", text)
    with_key = uncommented.replace("home-agent.key", "some.key")
    assert load(tmp_path, with_key).policy.behind_nat
    assert load(tmp_path, with_key).policy.home_agents


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("version = 1", "version = 2", "version 2 is not known"),
        ("version = 1", "version = 1\ncare_of_adresses = []", "did you mean 'care_of_addresses'?"),
        ('care_of_addresses = ["10.1.3.1"]', "", "'care_of_addresses' is missing"),
        ('["10.1.3.1"]', "[]", "one to 62"),
        ('["10.1.3.1"]', '["224.0.0.1"]', "cannot be the end of a tunnel"),
        ('["core"]', "[]", "no home agent can be heard"),
        ('["core"]', '["trust3"]', "is an access link"),
        ('["core"]', '["homeward-fa0"]', "no link to anybody"),
        ('["core"]', '["a\\"b"]', "cannot stand in a rule"),
        (ACCESS, "access = []", "uplink"),
        ('"10.1.3.1/24"', '"10.1.3.1"', "host's address on a link"),
        ('"10.1.3.1/24"', '"10.1.3.0/24"', "host's address on a link"),
        ('"10.1.3.1/24"', '"nonsense"', "not an address with its prefix"),
        ("version = 1", "version = 1\nadvertisement_interval = 0.1", "from 1 to 600"),
        ("version = 1", 'version = 1\nencapsulations = ["ipip"]', "not known"),
        ("version = 1", 'version = 1\nencapsulations = ["gre"]', "offered by every agent"),
        ("version = 1", 'version = 1\nreverse_tunnels = "never"', "not known"),
        ("version = 1", 'version = 1\nreverse_tunnels = "refused"\nbehind_nat = true', "cannot be refused"),
        ("version = 1", "version = 1\nrevocation = true", "no [[home_agent]]"),
        ("version = 1", "version = 1\nkeepalive = 9", "from 10 to 3600"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in TOP + ACCESS
    text = (TOP + ACCESS).replace(before, after, 1)
    if after == "access = []":
        text, said = text.replace("access = []", ""), "'access' is missing"
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (ACCESS, "trust3 is there already"),
        (HOME_AGENT + HOME_AGENT, "10.0.0.2 is there already"),
        (NODE + NODE, "has SPI 512 already"),
        (NODE.replace('home_address = "10.77.0.10"', ""), "says whose key it is"),
        (NODE.replace("home_address", 'nai = "a@b"\nhome_address'), "says whose key it is"),
        (SERVER + SERVER, "is there already"),
        (SERVER.replace("spi = 2", "spi = 3"), "SPI 3 cannot be used"),
        (NODE.replace("0x200", "0x20"), "SPI 32 cannot be used"),
        (NODE.replace("some.key", "absent.key"), "cannot be opened"),
        (NODE.replace("hmac-md5", "md4"), "algorithm 'md4' is not known"),
        ("[[mobile_nodes]]\n", "did you mean"),
    ],
)
def test_mistakes_in_tables_are_named(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, TOP + ACCESS + more)
    assert said in str(caught.value)


def test_the_role_decides_who_reads_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(TOP + ACCESS)
    path.chmod(0o644)
    if os.getuid() == 0:
        assert main.main(["--config", str(path), "--check"]) == 1, (
            "the links are not there, but the file can be used"
        )
        assert f"{path} can be used" in capsys.readouterr().out
    path.write_text(TOP.replace('"foreign"', '"foreigner"') + ACCESS)
    assert main.main(["--config", str(path), "--check"]) == 2
    if os.getuid() == 0:
        assert "did you mean 'foreign'?" in capsys.readouterr().err
