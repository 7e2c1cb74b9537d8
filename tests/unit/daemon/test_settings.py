# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles: what is read, and what each mistake is told."""

import os
import re
from importlib.resources import files
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from homeward.daemon.profile_reader import KEYS_OF
from homeward.daemon.settings import load_profiles, parse_profile, read_profile
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError
from homeward.model.profile import (
    ASSIGNED,
    ForeignAgentSettings,
    ForeignAgentUse,
    GatewaySettings,
    ReplayStyle,
    SecretReference,
    Timers,
)
from homeward.model.registration import AuthenticationAlgorithm

KEY = "scrypt:" + "0a" * 16 + ":" + "1b" * 16
PSK = "scrypt:" + "2c" * 16 + ":" + "3d" * 16
FA = "scrypt:" + "4e" * 16 + ":" + "5f" * 16
ME = frozenset({os.geteuid()})

FULL = f"""
version = 1
name = "office"
owner = "alice"

[home_agent]
address = "10.0.0.2"
home_address = "10.77.0.10"
spi = 0x100
algorithm = "hmac-sha256"
key = {{ secret = "mn-ha", fingerprint = "{KEY}" }}
nai = "laptop@example.test"
home_network = "10.77.0.0/24"
replay = "nonces"
encapsulation = "gre"

[vpn]
gateway = "gw.example.test"
local_identity = "laptop@example.test"
remote_identity = "gw.example.test"
pre_shared_key = {{ secret = "psk", fingerprint = "{PSK}" }}
remote_networks = ["10.0.0.0/8", "172.16.0.0/12"]
proposals = ["aes256gcm16-prfsha384-ecp384"]
esp_proposals = ["aes256gcm16"]

[policy]
destinations = ["10.0.0.0/8"]
keep_vpn_inside = true
nat_inside = true
force_udp = true
use_foreign_agents = "prefer"
ask_not_on = ["192.168.77.0/24"]

[[foreign_agent]]
agent = "10.1.3.1"
spi = 0x200
algorithm = "hmac-md5"
key = {{ secret = "mn-fa", fingerprint = "{FA}" }}

[[foreign_agent]]
agent = "10.1.4.1"
spi = 0x201
algorithm = "hmac-sha1"
key = {{ secret = "mn-fa-4", fingerprint = "{FA}" }}

[aaa]
spi = 2
key = {{ secret = "mn-aaa", fingerprint = "{FA}" }}

[timers]
lifetime = 600
monitor = 30
monitor_grace = 5
probe_timeout = 1.5
probe_transmissions = 3
proof_max_age = 4
vpn_retry = 1
vpn_retry_max = 30
vpn_answer = 5
keepalive = 25
"""


def replaced(old: str, new: str) -> str:
    assert FULL.count(old) == 1, old
    return FULL.replace(old, new)


def fault_of(text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, "office.toml")
    return str(caught.value)


@pytest.mark.rows("R-31", "R-69", "R-129")
def test_every_key_is_read() -> None:
    profile = parse_profile(FULL, "office.toml")
    assert (profile.name, profile.owner) == ("office", "alice")
    agent = profile.home_agent
    assert (agent.address, agent.home_address) == (IPv4Address("10.0.0.2"), IPv4Address("10.77.0.10"))
    assert (agent.spi, agent.algorithm) == (256, AuthenticationAlgorithm.HMAC_SHA256)
    assert (agent.key.reference, agent.key.fingerprint) == ("mn-ha", KEY)
    assert agent.nai == "laptop@example.test"
    gateway = profile.gateway
    assert gateway is not None
    assert gateway.host == gateway.remote_identity == "gw.example.test"
    assert gateway.local_identity == "laptop@example.test"
    assert (gateway.pre_shared_key.reference, gateway.pre_shared_key.fingerprint) == ("psk", PSK)
    assert gateway.remote_networks == (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"))
    assert gateway.proposals == ("aes256gcm16-prfsha384-ecp384",)
    assert gateway.esp_proposals == ("aes256gcm16",)
    assert profile.destinations == (IPv4Network("10.0.0.0/8"),)
    assert profile.keep_vpn_inside
    assert profile.nat_inside
    assert profile.timers == Timers(600, 30, 5, 1.5, 3, 4, 1, 30, 5, 25)


@pytest.mark.rows("R-129", "R-111")
def test_every_key_of_home_and_of_foreign_agents_is_read() -> None:
    profile = parse_profile(FULL, "office.toml")
    agent = profile.home_agent
    assert agent.home_network == IPv4Network("10.77.0.0/24")
    assert agent.replay is ReplayStyle.NONCES
    assert agent.encapsulation is Encapsulation.GRE
    assert profile.force_udp
    assert profile.use_foreign_agents is ForeignAgentUse.PREFER
    assert profile.ask_not_on == (IPv4Network("192.168.77.0/24"),)
    md5, sha1 = AuthenticationAlgorithm.HMAC_MD5, AuthenticationAlgorithm.HMAC_SHA1
    assert profile.foreign_agents == (
        ForeignAgentSettings(IPv4Address("10.1.3.1"), 0x200, algorithm=md5, key=SecretReference("mn-fa", FA)),
        ForeignAgentSettings(
            IPv4Address("10.1.4.1"), 0x201, algorithm=sha1, key=SecretReference("mn-fa-4", FA)
        ),
        ForeignAgentSettings(None, 2, algorithm=md5, key=SecretReference("mn-aaa", FA)),
    )


@pytest.mark.rows("R-129", "R-274")
def test_a_home_address_may_be_assigned() -> None:
    profile = parse_profile(
        replaced('home_address = "10.77.0.10"', 'home_address = "assigned"'), "office.toml"
    )
    assert profile.home_agent.home_address == ASSIGNED
    assert profile.home_agent.nai == "laptop@example.test"


def test_what_may_be_left_out() -> None:
    short = FULL[: FULL.index("[policy]")].replace('nai = "laptop@example.test"\n', "")
    optional = ("proposals", "home_network", "replay", "encapsulation")
    short = "\n".join(line for line in short.splitlines() if not any(key in line for key in optional))
    profile = parse_profile(short, "office.toml")
    assert profile.home_agent.nai is None
    assert profile.home_agent.home_network is None
    assert profile.home_agent.replay is ReplayStyle.TIMESTAMPS
    assert profile.home_agent.encapsulation is Encapsulation.IP_IN_IP
    assert profile.timers == Timers()
    assert profile.destinations == (IPv4Network("0.0.0.0/0"),)
    assert not profile.keep_vpn_inside
    assert not profile.force_udp
    assert (profile.foreign_agents, profile.ask_not_on) == ((), ())
    assert profile.use_foreign_agents is ForeignAgentUse.WHEN_REQUIRED
    assert profile.gateway is not None
    assert profile.gateway.proposals == GatewaySettings.__dataclass_fields__["proposals"].default
    without_vpn = short[: short.index("[vpn]")]
    assert parse_profile(without_vpn, "office.toml").gateway is None


MISTAKES = {
    # what is changed: (old, new, every pattern that the text must hold)
    "unknown key": (
        'address = "10.0.0.2"\n',
        'adress = "10.0.0.2"\n',
        [r"home_agent\.adress: unknown key; did you mean “address”"],
    ),
    "missing key": ("spi = 0x100\n", "", [r"home_agent\.spi: missing; .*256"]),
    "missing table": (
        "[home_agent]",
        "[home_agents]",
        [r"home_agent: missing", r"home_agents: unknown key; did you mean “home_agent”"],
    ),
    "in the wrong table": (
        "[policy]\n",
        "[policy]\nspi = 300\n",
        [r"policy\.spi: unknown key; did you mean “home_agent\.spi”"],
    ),
    "at the wrong depth": (
        "[policy]\n",
        '[policy]\nowner = "bob"\n',
        [r"policy\.owner: .*“owner at the top"],
    ),
    "unknown table": ("[timers]", "[timer]", [r"timer: unknown key; did you mean “timers”"]),
    "unknown timer": (
        "lifetime = 600",
        "lifetme = 600",
        [r"timers\.lifetme: unknown key; did you mean “lifetime”"],
    ),
    "unknown policy": (
        "nat_inside",
        "nat_outside",
        [r"policy\.nat_outside: unknown key; did you mean “nat_inside”"],
    ),
    "unknown in vpn": ("gateway = ", "gatewy = ", [r"vpn\.gatewy: unknown key; did you mean “gateway”"]),
    "version": ("version = 1", "version = 2", [r"version: found 2", "reads profiles of version 1"]),
    "no version": (
        "version = 1\n",
        "verson = 1\n",
        [r"version: missing", r"verson: unknown key; did you mean “version”"],
    ),
    "version as text": ("version = 1", 'version = "1"', [r"version: found “1”"]),
    "empty name": ('name = "office"', 'name = ""', [r"^office\.toml: name: found “”"]),
    "name with a path": ('name = "office"', 'name = "../x"', [r"name: found “\.\./x” is not allowed"]),
    "name of the wrong type": (
        'name = "office"',
        "name = 7",
        [r"name: found 7 is not allowed; allowed are up to 64"],
    ),
    "owner": ('owner = "alice"', 'owner = "al ice"', [r"owner: found “al ice”", "machine"]),
    "spi below 256": (
        "spi = 0x100",
        "spi = 255",
        [r"home_agent\.spi: found 255; allowed is a whole number from 256 to 4294967295"],
    ),
    "spi too large": ("spi = 0x100", "spi = 4294967296", [r"home_agent\.spi: found 4294967296"]),
    "spi as text": ("spi = 0x100", 'spi = "256"', [r"home_agent\.spi: found “256”"]),
    "spi as truth": ("spi = 0x100", "spi = true", [r"home_agent\.spi: found true"]),
    "spi as fraction": ("spi = 0x100", "spi = 256.0", [r"home_agent\.spi: found 256\.0"]),
    "no address": (
        'address = "10.0.0.2"\n',
        'address = "10.0.0.256"\n',
        [r"home_agent\.address: found “10\.0\.0\.256”"],
    ),
    "IPv6": (
        'address = "10.0.0.2"\n',
        'address = "2001:db8::1"\n',
        [r"home_agent\.address: found “2001:db8::1”; allowed is the IPv4"],
    ),
    "multicast": ('address = "10.0.0.2"\n', 'address = "224.0.0.1"\n', [r"home_agent\.address"]),
    "loopback": ('home_address = "10.77.0.10"', 'home_address = "127.0.0.1"', [r"home_agent\.home_address"]),
    "broadcast": (
        'home_address = "10.77.0.10"',
        'home_address = "255.255.255.255"',
        [r"home_agent\.home_address"],
    ),
    "an address as number": (
        'home_address = "10.77.0.10"',
        "home_address = 1",
        [r"home_agent\.home_address: found 1"],
    ),
    "algorithm": ('"hmac-sha256"', '"md5"', [r"home_agent\.algorithm: found “md5”.*hmac-md5 or hmac-sha256"]),
    "nai": ('nai = "laptop@example.test"', 'nai = "a\\u0007b"', [r"home_agent\.nai: found “a�b”"]),
    "home address of the home agent": (
        'home_address = "10.77.0.10"',
        'home_address = "10.0.0.2"',
        [r"home_agent\.home_address: found 10\.0\.0\.2, which is the home agent's own"],
    ),
    "gateway is home agent": (
        'gateway = "gw.example.test"',
        'gateway = "10.0.0.2"',
        [r"vpn\.gateway: found 10\.0\.0\.2, which is home_agent\.address"],
    ),
    "gateway is home address": (
        'gateway = "gw.example.test"',
        'gateway = "10.77.0.10"',
        [r"vpn\.gateway: .*home_agent\.home_address"],
    ),
    "gateway": (
        'gateway = "gw.example.test"',
        'gateway = "gw example"',
        [r"vpn\.gateway: found “gw example”"],
    ),
    "gateway as bad address": (
        'gateway = "gw.example.test"',
        'gateway = "1.2.3"',
        [r"vpn\.gateway: found “1\.2\.3”"],
    ),
    "identity": (
        'local_identity = "laptop@example.test"',
        'local_identity = ""',
        [r"vpn\.local_identity: found “”"],
    ),
    "networks as text": (
        '["10.0.0.0/8", "172.16.0.0/12"]',
        '"10.0.0.0/8"',
        [r"vpn\.remote_networks: found “10\.0\.0\.0/8”; allowed is a list"],
    ),
    "no networks": ('["10.0.0.0/8", "172.16.0.0/12"]', "[]", [r"vpn\.remote_networks: found an empty list"]),
    "host bits": (
        '["10.0.0.0/8", "172.16.0.0/12"]',
        '["10.0.0.1/8"]',
        [r"vpn\.remote_networks: found “10\.0\.0\.1/8” names a host.*“10\.0\.0\.0/8”"],
    ),
    "no prefix": (
        '["10.0.0.0/8", "172.16.0.0/12"]',
        '["10.0.0.0"]',
        [r"vpn\.remote_networks: found “10\.0\.0\.0”"],
    ),
    "a number in the list": ('["10.0.0.0/8", "172.16.0.0/12"]', "[10]", [r"vpn\.remote_networks: found 10"]),
    "home agent not behind the gateway": (
        '["10.0.0.0/8", "172.16.0.0/12"]',
        '["172.16.0.0/12"]',
        [r"vpn\.remote_networks: none of the prefixes holds the home agent 10\.0\.0\.2"],
    ),
    "proposal": ('["aes256gcm16"]', '["aes; rm"]', [r"vpn\.esp_proposals: found “aes; rm”"]),
    "proposals as text": ('["aes256gcm16"]', '"aes256gcm16"', [r"vpn\.esp_proposals: .*list"]),
    "no proposals": ('["aes256gcm16"]', "[]", [r"vpn\.esp_proposals: found an empty list"]),
    "flag": (
        "nat_inside = true",
        'nat_inside = "yes"',
        [r"policy\.nat_inside: found “yes”; allowed is true or false"],
    ),
    "lifetime 0": ("lifetime = 600", "lifetime = 0", [r"timers\.lifetime: found 0"]),
    "lifetime for ever": ("lifetime = 600", "lifetime = 65535", [r"timers\.lifetime: found 65535; .*65534"]),
    "probe below a second": (
        "probe_timeout = 1.5",
        "probe_timeout = 0.9",
        [r"timers\.probe_timeout: found 0\.9; .*from 1 to 60"],
    ),
    "grace longer than the watch": (
        "monitor_grace = 5",
        "monitor_grace = 30",
        [r"timers\.monitor_grace: found 30; allowed is less than timers\.monitor \(30\)"],
    ),
    "not a number": ("monitor = 30", "monitor = nan", [r"timers\.monitor: found nan"]),
    "retry upside down": (
        "vpn_retry_max = 30",
        "vpn_retry_max = 0.6",
        [r"timers\.vpn_retry_max: found 0\.6; .*vpn_retry \(1\)"],
    ),
    "table as text": ("[policy]\n", "policy_ = 1\n[policy]\n", [r"timers|policy_"]),
    "reference": ('secret = "psk"', 'secret = "mn-ha"', [r"vpn\.pre_shared_key\.secret: the same secret"]),
    "fingerprint missing": (
        f', fingerprint = "{KEY}"',
        "",
        [r"home_agent\.key\.fingerprint: missing; .*homeward profile fingerprint"],
    ),
    "unknown in secret": (
        'secret = "psk"',
        'secrt = "psk"',
        [r"vpn\.pre_shared_key\.secrt: unknown key; did you mean “secret”", r"secret: missing"],
    ),
    "home address by another word": (
        'home_address = "10.77.0.10"',
        'home_address = "dynamic"',
        [r"home_agent\.home_address: found “dynamic”; .*or \"assigned\""],
    ),
    "home network as host": (
        '"10.77.0.0/24"',
        '"10.77.0.1/24"',
        [r"home_agent\.home_network: found “10\.77\.0\.1/24” names a host"],
    ),
    "home network as list": (
        '"10.77.0.0/24"',
        '["10.77.0.0/24"]',
        [r"home_agent\.home_network: found a list"],
    ),
    "home network of one host": (
        '"10.77.0.0/24"',
        '"10.77.0.10/32"',
        [r"home_agent\.home_network: .*no two hosts"],
    ),
    "home network of others": (
        '"10.77.0.0/24"',
        '"10.78.0.0/24"',
        [r"home_agent\.home_network: found 10\.78\.0\.0/24, which does not hold the home address"],
    ),
    "home address of a network": (
        'home_address = "10.77.0.10"',
        'home_address = "10.77.0.255"',
        [r"home_agent\.home_address: found 10\.77\.0\.255, which no host of 10\.77\.0\.0/24 can have"],
    ),
    "home never asked": (
        '["192.168.77.0/24"]',
        '["192.168.77.0/24", "10.77.0.0/16"]',
        [r"policy\.ask_not_on: found 10\.77\.0\.0/16, which holds home_agent\.home_network"],
    ),
    "replay": ('"nonces"', '"random"', [r"home_agent\.replay: found “random”; .*“timestamps” or “nonces”"]),
    "replay as number": ('replay = "nonces"', "replay = 1", [r"home_agent\.replay: found 1; allowed"]),
    "encapsulation": (
        '"gre"',
        '"vxlan"',
        [r"encapsulation: found “vxlan”; .*“ip-in-ip”, “gre” or “minimal”"],
    ),
    "minimal in UDP": (
        '"gre"',
        '"minimal"',
        [r"home_agent\.encapsulation: found “minimal” .*policy\.force_udp"],
    ),
    "force": ("force_udp = true", "force_udp = 1", [r"policy\.force_udp: found 1; allowed is true or false"]),
    "use of foreign agents": (
        '"prefer"',
        '"always"',
        [r"use_foreign_agents: found “always”; .*“never”, “when-required” or “prefer”"],
    ),
    "keys that are never used": (
        '"prefer"',
        '"never"',
        [r"policy\.use_foreign_agents: found “never” together with keys for foreign agents"],
    ),
    "ask not on": ('["192.168.77.0/24"]', '"192.168.77.0/24"', [r"policy\.ask_not_on: .*allowed is a list"]),
    "one foreign agent twice": (
        'agent = "10.1.4.1"',
        'agent = "10.1.3.1"',
        [r"foreign_agent\[2\]\.agent: found 10\.1\.3\.1, which stands there already"],
    ),
    "foreign agent is home agent": (
        'agent = "10.1.4.1"',
        'agent = "10.0.0.2"',
        [r"foreign_agent\[2\]\.agent: found 10\.0\.0\.2, which is the home agent"],
    ),
    "foreign agent without a key": (
        f'key = {{ secret = "mn-fa", fingerprint = "{FA}" }}\n',
        "",
        [r"foreign_agent\[1\]\.key: missing; needed is \{ secret"],
    ),
    "foreign agent's spi": ("spi = 0x201", "spi = 200", [r"foreign_agent\[2\]\.spi: found 200; .*256"]),
    "foreign agent's unknown key": (
        'agent = "10.1.4.1"',
        'address = "10.1.4.1"',
        [r"foreign_agent\[2\]\.agent: missing", r"foreign_agent\[2\]\.address: .*“home_agent\.address”"],
    ),
    "foreign agent with the home agent's key": (
        'secret = "mn-fa"',
        'secret = "mn-ha"',
        [r"foreign_agent\[1\]\.key\.secret: the same secret as home_agent\.key\.secret"],
    ),
    "foreign agent with the gateway's key": (
        'secret = "mn-fa-4"',
        'secret = "psk"',
        [r"foreign_agent\[2\]\.key\.secret: the same secret as vpn\.pre_shared_key"],
    ),
    "server with the home agent's key": (
        'secret = "mn-aaa"',
        'secret = "mn-ha"',
        [r"aaa\.key\.secret: the same secret as home_agent"],
    ),
    "server's spi": ("spi = 2\n", "spi = 3\n", [r"aaa\.spi: found 3; allowed is 2 .*256"]),
    "server's algorithm": (
        "spi = 2\n",
        'spi = 2\nalgorithm = "hmac-md5"\n',
        [r"aaa\.algorithm: unknown key; did you mean “home_agent\.algorithm”"],
    ),
    "keepalive": ("keepalive = 25", "keepalive = 9", [r"timers\.keepalive: found 9; .*from 10 to 3600"]),
    "not TOML": ("[policy]", "[policy", [r"^office\.toml: not valid TOML: .*line"]),
}


@pytest.mark.rows("R-83", "R-106", "R-129", "R-163")
@pytest.mark.parametrize("what", MISTAKES)
def test_mistake(what: str) -> None:
    old, new, patterns = MISTAKES[what]
    text = fault_of(replaced(old, new))
    for pattern in patterns:
        assert re.search(pattern, text), f"{pattern!r} not in {text!r}"
    assert all(line.startswith("office.toml: ") for line in text.splitlines())


@pytest.mark.rows("R-129", "R-274")
def test_an_assigned_home_address_needs_somebody_to_assign_it_to() -> None:
    assigned = replaced('home_address = "10.77.0.10"', 'home_address = "assigned"')
    text = fault_of(assigned.replace('nai = "laptop@example.test"\n', ""))
    assert 'home_agent.nai: missing; with home_address = "assigned"' in text


def test_all_faults_come_at_once() -> None:
    text = fault_of(replaced("spi = 0x100", "spi = 1").replace("nat_inside = true", "nat_inside = 1"))
    assert text.count("\n") == 1
    assert "home_agent.spi" in text
    assert "policy.nat_inside" in text


PASSWORD = "correct horse battery staple"


@pytest.mark.parametrize(
    "text",
    [
        FULL.replace(f'{{ secret = "mn-ha", fingerprint = "{KEY}" }}', f'"{PASSWORD}"'),
        FULL.replace('secret = "mn-ha"', f'secret = "{PASSWORD}"'),
        FULL.replace('secret = "psk"', f'value = "{PASSWORD}"'),
        FULL.replace(f'fingerprint = "{PSK}"', f'fingerprint = "{PASSWORD}"'),
        FULL.replace(f'fingerprint = "{PSK}"', f'fingerprint = ["{PASSWORD}"]'),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(text: str) -> None:
    assert PASSWORD in text
    assert PASSWORD not in fault_of(text)


def test_the_keys_that_are_searched_for_are_the_keys_that_are_read() -> None:
    for table, keys in KEYS_OF.items():
        head = f"[{table}]" if table else 'name = "office"'
        for key in keys:
            start = FULL.index(head)
            assert re.search(rf"^{key} = ", FULL[start:] if table else FULL, re.MULTILINE), key


def test_the_example_can_be_used_as_it_is_and_with_every_line_switched_on() -> None:
    text = files("homeward.data").joinpath("profiles", "example.toml").read_text(encoding="utf-8")
    plain = parse_profile(text, "example.toml")
    assert plain.timers == Timers()
    switched_on = re.sub(r"^# (?=[a-z_]+ = |\[)", "", text, flags=re.MULTILINE)
    assert switched_on != text
    full = parse_profile(switched_on, "example.toml")
    # What stands there commented out is the default.
    assert (full.timers, full.destinations) == (plain.timers, plain.destinations)
    assert full.gateway == plain.gateway
    assert full.home_agent.nai is not None
    assert full.home_agent.home_network is not None
    assert (full.home_agent.replay, full.home_agent.encapsulation) == (
        plain.home_agent.replay,
        plain.home_agent.encapsulation,
    )
    assert (full.use_foreign_agents, full.force_udp) == (plain.use_foreign_agents, plain.force_udp)
    assert [one.agent is None for one in full.foreign_agents] == [False, True]
    for table, keys in KEYS_OF.items():
        missing = [
            key for key in keys if not re.search(rf"^(# )?(\[[a-z_.]*)?{key}( = |\])", text, re.MULTILINE)
        ]
        assert not missing, f"the example says nothing of {missing} in {table!r}"


# --- files -----------------------------------------------------------------------------------------------------------


def write(path: Path, text: str = FULL, mode: int = 0o644) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_directory_of_profiles(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    write(tmp_path / "a.toml")
    write(tmp_path / "b.toml", FULL.replace('"office"', '"travel"'))
    write(tmp_path / "c.toml")
    write(tmp_path / "d.toml", "version = 1\n")
    write(tmp_path / "notes.txt", "not a profile")
    profiles = load_profiles(tmp_path, writers=ME)
    assert sorted(profiles.usable) == ["office", "travel"]
    assert profiles.files["travel"] == str(tmp_path / "b.toml")
    assert [fault.name for fault in profiles.faults] == ["c", "d"]
    assert "a.toml has already" in profiles.faults[0].text
    assert str(tmp_path / "d.toml") in profiles.faults[1].text


def test_no_directory(tmp_path: Path) -> None:
    profiles = load_profiles(tmp_path / "none", writers=ME)
    assert not profiles.usable
    assert "create it" in profiles.faults[0].text


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_what_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "a.toml", mode=mode)
    with pytest.raises(ProfileError, match=rf"mode {mode:04o}.*chmod go-w"):
        read_profile(path, writers=ME)
    assert read_profile(path, writers=None).name == "office"


def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml")
    with pytest.raises(ProfileError, match=r"owned by user id .* chown root:root|allowed is root as owner"):
        read_profile(path, writers=frozenset({os.geteuid() + 1}))


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.toml")
    tmp_path.chmod(0o777)
    profiles = load_profiles(tmp_path, writers=ME)
    assert not profiles.usable
    assert "chmod go-w" in profiles.faults[0].text


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ProfileError, match="no regular file"):
        read_profile(tmp_path / "pipe.toml", writers=ME)
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(tmp_path / "absent.toml", writers=ME)
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ProfileError, match="not UTF-8 text at octet 11"):
        read_profile(tmp_path / "latin.toml", writers=ME)
    write(tmp_path / "large.toml", "#" * 70_000)
    with pytest.raises(ProfileError, match="larger than"):
        read_profile(tmp_path / "large.toml", writers=ME)
    write(tmp_path / "deep.toml", "x = " + "[" * 10_000)
    with pytest.raises(ProfileError, match="not valid TOML"):
        read_profile(tmp_path / "deep.toml", writers=ME)
