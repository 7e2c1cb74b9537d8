# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import base64
import os
import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from homeward.agentd import settings
from homeward.agentd.key_file import read_key
from homeward.agentd.settings import AgentSettings
from homeward.agents.policy import ReverseTunnels
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError
from homeward.model.registration import AuthenticationAlgorithm

KEY = bytes(range(32))

TOP = """version = 1
address = "10.0.0.2"
inside_interfaces = ["inside"]
trusted_prefixes = ["10.1.0.0/16", "10.9.0.0/24"]
"""
NODE = """[[node]]
name = "laptop"
home_address = "10.77.0.10"
spi = 0x100
algorithm = "hmac-sha256"
key_file = "laptop.key"
"""


def write(folder: Path, text: str, *, key: str = KEY.hex(), mode: int = 0o600) -> Path:
    (folder / "laptop.key").write_text(key + "\n")
    (folder / "laptop.key").chmod(mode)
    path = folder / "agent.toml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def load(folder: Path, text: str, **changes: object) -> AgentSettings:
    return settings.load(write(folder, text, **changes), owner=os.getuid())  # type: ignore[arg-type]


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    read = load(tmp_path, TOP + NODE)
    policy = read.policy
    assert policy.address == IPv4Address("10.0.0.2")
    assert policy.networks.interfaces == {"inside"}
    assert policy.networks.prefixes == (IPv4Network("10.1.0.0/16"), IPv4Network("10.9.0.0/24"))
    assert policy.networks.nats == frozenset()
    assert (policy.lifetime_max, policy.timestamp_tolerance) == (1800, 7.0)
    assert policy.answer_failed_authentication is False
    assert read.home_network is None
    (node,) = policy.nodes
    assert (node.name, node.home_address) == ("laptop", IPv4Address("10.77.0.10"))
    assert node.association.spi == 256
    assert node.association.algorithm is AuthenticationAlgorithm.HMAC_SHA256
    assert node.association.key.reveal() == KEY


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    more = """inside_nats = ["10.1.9.9"]
lifetime_max = 65535
timestamp_tolerance = 4.5
answer_failed_authentication = true
home_network = "10.77.0.0/24"
"""
    more += """encapsulations = ["ip-in-ip", "gre"]
reverse_tunnel = "mandatory"
nat_max_lifetime = 120
nat_keepalive = 25
allow_forced_udp = false
revocation = false
segment_mtu = 0
control = "/run/agent.control"
"""
    second = NODE.replace("0x100", "0x101").replace("hmac-sha256", "hmac-md5") + 'replay = "nonces"\n'
    third = NODE.replace(
        'home_address = "10.77.0.10"', 'home_addresses = "10.77.0.64/26"\nnai = "r@example.test"'
    )
    foreign = """[[foreign_agent]]
address = "10.1.3.1"
spi = 0x200
algorithm = "hmac-sha256"
key_file = "laptop.key"
[[path]]
prefix = "10.9.0.0/24"
mtu = 1426
"""
    read = load(tmp_path, TOP + more + NODE + second + third + foreign)
    assert read.policy.networks.nats == {IPv4Address("10.1.9.9")}
    assert (read.policy.lifetime_max, read.policy.timestamp_tolerance) == (65535, 4.5)
    assert read.policy.answer_failed_authentication is True
    assert read.home_network == IPv4Network("10.77.0.0/24")
    assert [node.association.spi for node in read.policy.nodes] == [256, 257, 256]
    assert [node.replay.value for node in read.policy.nodes] == ["timestamps", "nonces", "timestamps"]
    assert read.policy.nodes[2].identity == "r@example.test"
    assert read.policy.nodes[2].home_addresses == IPv4Network("10.77.0.64/26")
    assert [peer.address for peer in read.policy.foreign_agents] == [IPv4Address("10.1.3.1")]
    assert read.policy.encapsulations == {Encapsulation.IP_IN_IP, Encapsulation.GRE}
    assert read.policy.reverse_tunnels is ReverseTunnels.MANDATORY
    assert (read.policy.nat_max_lifetime, read.policy.nat_keepalive) == (120, 25)
    assert (read.policy.allow_forced_udp, read.policy.revocation) == (False, False)
    assert read.path_mtus == ((IPv4Network("10.9.0.0/24"), 1426),)
    assert (read.segment_mtu, read.control) == (0, Path("/run/agent.control"))


@pytest.mark.rows("R-203")
def test_a_home_link_is_an_inside_interface(tmp_path: Path) -> None:
    inside = TOP.replace('["inside"]', '["inside", "home"]')
    assert load(tmp_path, inside + 'home_link = "home"\n' + NODE).policy.home_link == "home"
    for wrong, said in (
        (TOP + 'home_link = "home"\n', "not in inside_interfaces"),
        (inside + 'home_link = "home"\nhome_network = "10.77.0.0/24"\n', "without a link"),
    ):
        with pytest.raises(ProfileError, match=said):
            load(tmp_path, wrong + NODE)


FOREIGN = """[[foreign_agent]]
address = "10.1.3.1"
spi = 0x200
algorithm = "hmac-sha256"
key_file = "laptop.key"
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TOP + 'encapsulations = ["gre"]\n' + NODE, "ip-in-ip is always offered"),
        (TOP + 'encapsulations = ["ipip"]\n' + NODE, "did you mean 'ip-in-ip'"),
        (TOP + 'reverse_tunnel = "must"\n' + NODE, "reverse_tunnel: 'must' is not known"),
        (TOP + "nat_keepalive = 9\n" + NODE, "from 10 to 65535"),
        (TOP + "segment_mtu = 500\n" + NODE, "from 576 to 65535"),
        (TOP + "segment_mtu = false\n" + NODE, "from 576 to 65535"),
        (TOP + 'control = "here"\n' + NODE, "absolute path"),
        (TOP + f'control = "/{"x" * 107}"\n' + NODE, "absolute path"),
        (TOP + NODE + 'replay = "nonce"\n', "number 1: replay: 'nonce' is not known; did you mean 'nonces'"),
        (TOP + NODE + 'home_addresses = "10.77.0.64/26"\n', "number 1: one of the keys"),
        (TOP + NODE.replace('home_address = "10.77.0.10"\n', ""), "number 1: one of the keys"),
        (TOP + NODE.replace("home_address =", "home_addresses ="), "number 1: the key 'nai' is missing"),
        (TOP + NODE + f'nai = "{"x" * 256}"\n', "longer than 255 octets"),
        (
            TOP + NODE.replace('address = "10.77.0.10"', 'addresses = "10.0.0.0/8"\nnai = "a"'),
            "too large, /16 is the most",
        ),
        (TOP + NODE + FOREIGN + FOREIGN, "number 2: address 10.1.3.1 has SPI 512 already"),
        (TOP + NODE + FOREIGN.replace("spi", "spy"), "in [[foreign_agent]] the key 'spy' is not known"),
        (TOP + NODE + '[[path]]\nprefix = "10.9.0.0/24"\nmtu = 68\n', "[[path]] number 1: mtu: must be"),
        (
            TOP + NODE + 'nai = "a"\n' + NODE.replace("10.77.0.10", "10.77.0.11") + 'nai = "a"\n',
            "number 2: NAI a has SPI 256 already",
        ),
    ],
)
def test_mistakes_in_the_rest_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)


def test_the_example_in_the_documentation_is_read(tmp_path: Path) -> None:
    assert settings.__doc__ is not None
    lines = [line[4:] for line in settings.__doc__.splitlines() if line.startswith("    ")]
    example = "\n".join(lines).replace("# control", "control")
    for name in ("roamer.key", "foreign.key"):
        (tmp_path / name).write_text(KEY.hex())
        (tmp_path / name).chmod(0o600)
    for more in ('home_network = "10.77.0.0/24"', ""):
        read = load(tmp_path, example.replace("[[node]]", f"{more}\n[[node]]", 1))
        assert [node.name for node in read.policy.nodes] == ["laptop", "roamer"]
        assert read.control == Path("/run/homeward/agent.control")
        # What it says may be left out has the value that holds then.
        plain = load(tmp_path, TOP + NODE)
        assert replace(
            read.policy, nodes=plain.policy.nodes, foreign_agents=(), networks=plain.policy.networks
        ) == replace(plain.policy)
        assert read.segment_mtu == plain.segment_mtu


@pytest.mark.parametrize("everything", [False, True])
def test_the_example_in_packaging_is_read(tmp_path: Path, everything: bool) -> None:
    text = (Path(__file__).resolve().parents[3] / "packaging/agents/home.toml").read_text()
    if everything:  # what is commented out can be said, too
        text = re.sub(r"^# (\[\[?\w+\]\]?|\w+ = .*)$", r"\1", text, flags=re.MULTILINE)
    for name in ("printer.key", "trust3.key", "nodes"):
        (tmp_path / name).write_text("" if name == "nodes" else KEY.hex())
        (tmp_path / name).chmod(0o600)
    read = load(tmp_path, text)
    assert read.policy.home_link == "home"
    assert len(read.policy.nodes) == int(everything)
    assert read.nodes_file == tmp_path / "nodes"
    assert len(read.policy.foreign_agents) == len(read.path_mtus) == int(everything)


@pytest.mark.rows("R-93")
def test_an_empty_list_of_trusted_prefixes_is_allowed_and_trusts_nobody(tmp_path: Path) -> None:
    read = load(tmp_path, TOP.replace('"10.1.0.0/16", "10.9.0.0/24"', "") + NODE)
    assert read.policy.networks.prefixes == ()


@pytest.mark.rows("R-106")
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("version = 1", "version = 2", "version 2 is not known"),
        ("version = 1", "version = true", "whole number"),
        ("version = 1\n", "", "'version' is missing"),
        ("trusted_prefixes", "trusted_prefix", "did you mean 'trusted_prefixes'"),
        ("inside_interfaces", "interfaces", "did you mean 'inside_interfaces'"),
        ("version = 1", "version = 1\nlifetime = 3", "did you mean 'lifetime_max'"),
        ("version = 1", "version = 1\nqqq = 3", "known are version, address"),
        (
            "key_file",
            "keyfile",
            "number 1: in [[node]] the key 'keyfile' is not known; did you mean 'key_file'",
        ),
        ("spi = 0x100", "", "number 1: the key 'spi' is missing"),
        ("0x100", "255", "SPI 255 cannot be used"),
        ("0x100", '"256"', "whole number"),
        ("0x100", "0x100000000", "whole number"),
        ("hmac-sha256", "hmac-sha265", "did you mean 'hmac-sha256'"),
        ("10.77.0.10", "10.77.0", "'10.77.0' is not an IPv4 address"),
        ("10.77.0.10", "2001:db8::1", "is not an IPv4 address"),
        ("10.1.0.0/16", "10.1.0.1/16", "is not an IPv4 prefix"),
        ("10.1.0.0/16", "0.0.0.0/0", "whole Internet"),
        ('["inside"]', '"inside"', "must be a list"),
        ('["inside"]', '["homeward-ha0"]', "can never be inside"),
        ('["inside"]', '["an interface name"]', "not the name of a network interface"),
        ('["inside"]', '["../../x"]', "not the name of a network interface"),
        ("version = 1", 'version = 1\ninside_nats = ["192.0.2.1"]', "lies in no trusted prefix"),
        ("version = 1", "version = 1\nlifetime_max = 0", "from 1 to 65535"),
        ("version = 1", "version = 1\ntimestamp_tolerance = 3", "above 3"),
        ("version = 1", "version = 1\ntimestamp_tolerance = nan", "above 3"),
        ("version = 1", "version = 1\ntimestamp_tolerance = inf", "not be above 300"),
        ("version = 1", 'version = 1\nanswer_failed_authentication = "no"', "true or false"),
        ('"laptop"', '""', "not empty"),
        ('"laptop"', '"a\\u001bb"', "not empty and prints"),
        ("laptop.key", "absent.key", "cannot be opened"),
        ("[[node]]", "[node]", "must be a list"),
        ("version = 1", "version = = 1", "is not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in TOP + NODE
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, (TOP + NODE).replace(before, after, 1))
    assert said in str(caught.value)
    assert str(tmp_path / "agent.toml") in str(caught.value)


def test_the_same_association_twice(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"number 2: home address 10\.77\.0\.10 has SPI 256 already"):
        load(tmp_path, TOP + NODE + NODE)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        settings.load(tmp_path / "absent.toml")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, TOP + NODE)
    path.chmod(mode)
    with pytest.raises(ProfileError, match="only root may write it"):
        settings.load(path, owner=os.getuid())


# --- keys ---


@pytest.mark.parametrize(
    "line",
    [
        KEY.hex(),
        KEY.hex().upper(),
        "hex:" + KEY.hex(),
        base64.b64encode(KEY).decode(),
        "base64:" + base64.b64encode(KEY).decode(),
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_forms_of_a_key(tmp_path: Path, line: str, end: str) -> None:
    path = tmp_path / "key"
    path.write_text(line + end)
    path.chmod(0o400)
    assert read_key(path, owner=os.getuid()).reveal() == KEY


@pytest.mark.parametrize(
    "line",
    [
        "hex:SECRETSECRET",
        "text:SECRETSECRETSECRET",
        "SECRET SECRET SECRET",
        "SECRETSECRETSECRET\nSECRETSECRETSECRET",
        "SECRETé",
        "SECRETS" + "=" * 5000,
        KEY.hex()[:-1],
    ],
)
def test_what_is_no_key_is_never_quoted(tmp_path: Path, line: str) -> None:
    path = tmp_path / "key"
    path.write_text(line)
    path.chmod(0o600)
    with pytest.raises(ProfileError) as caught:
        read_key(path, owner=os.getuid())
    assert "must hold one line" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert KEY.hex()[:8] not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("line", ["", "0011", "hex:"])
def test_short_keys_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ProfileError, match=r"number 1: the key of SPI 256 has \d octets"):
        load(tmp_path, TOP + NODE, key=line)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o660])
def test_a_key_that_others_may_get_at(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ProfileError, match="chmod 600"):
        load(tmp_path, TOP + NODE, mode=mode)


def test_a_key_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY.hex())
    path.chmod(0o600)
    with pytest.raises(ProfileError, match=r"it must belong to user \d+"):
        read_key(path, owner=os.getuid() + 1)


def test_a_key_behind_a_symbolic_link_or_in_no_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY.hex())
    (tmp_path / "link").symlink_to("key")
    with pytest.raises(ProfileError, match="cannot be opened"):
        read_key(tmp_path / "link", owner=os.getuid())
    with pytest.raises(ProfileError, match="not a regular file"):
        read_key(tmp_path, owner=os.getuid())
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ProfileError, match="not a regular file"):
        read_key(tmp_path / "pipe", owner=os.getuid())
