# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import secrets
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from homeward.agentd import settings
from homeward.agentd.nodes_file import check_nodes, nodes_of, read_nodes
from homeward.model.errors import ProfileError
from homeward.model.profile import ReplayStyle
from homeward.model.registration import AuthenticationAlgorithm

KEY = "hex:" + bytes(range(32)).hex()
OTHER = "hex:" + bytes(range(16)).hex()

GOOD = f"""# who            where            SPI    algorithm    key
laptop 10.77.0.10 0x100 hmac-sha256 {KEY}   # Alice's, room 12

laptop	-	257	hmac-md5	{OTHER}	retired
roamer 10.77.0.128/25 0x102 hmac-sha256 base64:AAECAwQFBgcICQoLDA0ODw== nai=roamer@example.test replay=nonces
roamer - 0x103 hmac-sha256 {KEY}
"""


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "nodes"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_what_can_be_said(tmp_path: Path) -> None:
    laptop, second, roamer, other = tuple(read_nodes(write(tmp_path, GOOD), owner=os.getuid()))
    assert (laptop.name, laptop.home_address, int(laptop.association.spi)) == (
        "laptop",
        IPv4Address("10.77.0.10"),
        256,
    )
    assert laptop.association.key.reveal() == bytes(range(32))
    assert (second.home_address, int(second.association.spi), second.retired) == (
        laptop.home_address,
        257,
        True,
    )
    assert second.association.algorithm is AuthenticationAlgorithm.HMAC_MD5
    assert not laptop.retired
    assert roamer.home_addresses == IPv4Network("10.77.0.128/25")
    assert (roamer.nai, roamer.replay) == ("roamer@example.test", ReplayStyle.NONCES)
    assert (other.nai, other.replay, other.home_addresses) == (
        roamer.nai,
        roamer.replay,
        roamer.home_addresses,
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody yet", "   # nor here\n"])
def test_nobody(text: str) -> None:
    assert tuple(nodes_of(text.encode(), "nodes")) == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"laptop 10.77.0.10 0x100 {KEY}", "4 words instead of NAME"),
        (f"laptop 10.77.0.300 0x100 hmac-sha256 {KEY}", "is not an IPv4 address"),
        (f"laptop 10.77.10 0x100 hmac-sha256 {KEY}", "is not an IPv4 address"),
        (f"laptop 10.77.0.010 0x100 hmac-sha256 {KEY}", "is not an IPv4 address"),
        (f"laptop 10.77.0.10/24 0x100 hmac-sha256 {KEY} nai=a", "is not an IPv4 prefix"),
        (f"laptop 10.0.0.0/8 0x100 hmac-sha256 {KEY} nai=a", "too large"),
        (f"laptop 10.77.0.0/25 0x100 hmac-sha256 {KEY}", "nai=… is missing"),
        (f"laptop - 0x100 hmac-sha256 {KEY}", "no line of 'laptop' above"),
        (f"laptop 10.77.0.10 ten hmac-sha256 {KEY}", "SPI 'ten' is not a number"),
        (f"laptop 10.77.0.10 0x10 hmac-sha256 {KEY}", "SPI 16 cannot be used"),
        (f"laptop 10.77.0.10 0x100 hmac-sha265 {KEY}", "did you mean 'hmac-sha256'"),
        ("laptop 10.77.0.10 0x100 hmac-sha256 hex:0011", "has 2 octets, at least 16"),
        (f"laptop 10.77.0.10 0x100 hmac-sha256 {KEY} retierd", "did you mean 'retired'"),
        (f"laptop 10.77.0.10 0x100 hmac-sha256 {KEY} nia=a", "did you mean 'nai'"),
        (f"laptop 10.77.0.10 0x100 hmac-sha256 {KEY} replay=stamps", "replay 'stamps' is not known"),
    ],
)
def test_mistakes_are_named_with_their_line(line: str, said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        check_nodes(f"# first\n{line}\n".encode(), "nodes file x")
    assert str(caught.value).startswith("nodes file x, line 2: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (f"laptop 10.77.0.11 0x101 hmac-sha256 {KEY}", "is there already, with another address"),
        (f"laptop 10.77.0.10 0x101 hmac-sha256 {KEY} nai=a", "is there already, with another address, NAI"),
        (f"laptop - 0x101 hmac-sha256 {KEY} nai=a", "has another NAI"),
        (f"other 10.77.0.10 0x101 hmac-sha256 {KEY}", "10.77.0.10 belongs to 'laptop' already"),
    ],
)
def test_a_name_is_one_node_and_a_node_has_one_name(second: str, said: str) -> None:
    first = f"laptop 10.77.0.10 0x100 hmac-sha256 {KEY}\n"
    with pytest.raises(ProfileError, match=r"line 2: .*" + said.replace(".", r"\.")):
        check_nodes((first + second).encode(), "nodes")


@pytest.mark.parametrize(
    "line",
    [
        "laptop 10.77.0.10 0x100 hmac-sha256 s3cretkey-of-mine",
        "laptop 10.77.0.10 0x100 hmac-sha256 hex:s3cretkey",
        f"laptop 10.77.0.10 0x100 hmac-sha256 {KEY[:40]} s3cretkey-of-mine",
        f"laptop 10.77.0.10 0x100 hmac-sha256 {KEY[:40]} {KEY[4:]}",
        "s3cretkey 10.77.0.10",
    ],
)
def test_no_error_quotes_a_key(line: str) -> None:
    with pytest.raises(ProfileError) as caught:
        check_nodes(line.encode(), "nodes")
    assert "s3cret" not in str(caught.value)
    assert KEY[4:20] not in str(caught.value)


def test_octets_that_are_no_text() -> None:
    with pytest.raises(ProfileError, match="not text in UTF-8"):
        check_nodes(b"laptop \xff\xfe", "nodes")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ProfileError, match="others may get at it; chmod 600 helps"):
        read_nodes(write(tmp_path, GOOD, mode), owner=os.getuid())


def test_a_link_and_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write(tmp_path, GOOD))
    with pytest.raises(ProfileError, match="cannot be opened"):
        read_nodes(tmp_path / "link", owner=os.getuid())
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ProfileError, match="is not a regular file"):
        read_nodes(tmp_path / "pipe", owner=os.getuid())


TOP = """version = 1
address = "10.0.0.2"
inside_interfaces = ["inside"]
trusted_prefixes = ["10.1.0.0/16"]
"""


def configuration(folder: Path, more: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(TOP + more)
    path.chmod(0o644)
    return path


def test_both_kinds_of_nodes_are_served_together(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    node = '[[node]]\nname = "x"\nhome_address = "10.77.0.{}"\nspi = 0x100\n'
    node += 'algorithm = "hmac-sha256"\nkey_file = "key"\n'
    read = settings.load(
        configuration(tmp_path, 'nodes_file = "nodes"\n' + node.format(9)), owner=os.getuid()
    )
    assert [each.name for each in read.policy.nodes] == ["x", "laptop", "laptop", "roamer", "roamer"]
    with pytest.raises(ProfileError, match=r"two nodes have home address 10\.77\.0\.10 and SPI 256"):
        settings.load(configuration(tmp_path, 'nodes_file = "nodes"\n' + node.format(10)), owner=os.getuid())


def test_credentials_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configuration(tmp_path, 'nodes_file = "credential:nodes"\n')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "absent"))
    with pytest.raises(ProfileError, match="LoadCredential=nodes:FILE"):
        settings.load(path, owner=os.getuid())
    (tmp_path / "credentials").mkdir()
    write(tmp_path / "credentials", GOOD, 0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert len(settings.load(path, owner=os.getuid()).policy.nodes) == 4
    with pytest.raises(ProfileError, match="comes the name that LoadCredential= gives it"):
        settings.load(configuration(tmp_path, 'nodes_file = "credential:../nodes"\n'), owner=os.getuid())


@pytest.mark.slow
def test_a_hundred_thousand_are_read_quickly(tmp_path: Path) -> None:
    lines = (
        f"n{i} 10.{80 + (i >> 16)}.{i >> 8 & 255}.{i & 255} 0x100 hmac-sha256 hex:{secrets.token_hex(32)}\n"
        for i in range(100_000)
    )
    path = write(tmp_path, "".join(lines))
    best = 60.0
    for _ in range(3):
        begun = time.perf_counter()
        assert sum(1 for _ in read_nodes(path, owner=os.getuid())) == 100_000
        best = min(best, time.perf_counter() - begun)
    assert best <= 1.5, f"{best:.2f} s"
