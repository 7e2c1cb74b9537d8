# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import threading
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.agentd.nodes_editor import editing
from homeward.agentd.nodes_file import read_nodes
from homeward.agents.policy import Node
from homeward.model.errors import ProfileError
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi
from homeward.model.secret import Secret

KEY = "hex:" + bytes(range(32)).hex()
TEXT = f"""# Our nodes. Ask Bob before you change anything.
zebra   10.77.0.30   0x100   hmac-sha256   {KEY}   # the oldest

laptop	10.77.0.10 0x100  hmac-sha256 {KEY} nai=laptop@example.test   # Alice's
ant 10.77.0.5 0x100 hmac-sha256 {KEY}"""
UID = os.getuid()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "nodes"
    made.write_text(TEXT)
    made.chmod(0o600)
    return made


def association(spi: int) -> MobilitySecurityAssociation:
    return MobilitySecurityAssociation(Spi(spi), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(bytes(32)))


def node(name: str = "new", address: str = "10.77.0.40", spi: int = 0x100) -> Node:
    return Node(name, IPv4Address(address), association(spi))


def test_a_new_node_comes_last_and_everything_else_stays(path: Path) -> None:
    with editing(path, owner=UID) as editor:
        editor.add(node())
        editor.write()
    lines = path.read_text().split("\n")
    assert lines[:5] == TEXT.split("\n")
    assert lines[5] == f"new 10.77.0.40 0x100 hmac-sha256 hex:{bytes(32).hex()}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_another_key_stands_below_the_first(path: Path) -> None:
    (laptop,) = [each for each in read_nodes(path, owner=UID) if each.name == "laptop"]
    with editing(path, owner=UID) as editor:
        editor.add(replace(laptop, association=association(0x101)))
        editor.write()
    lines = path.read_text().split("\n")
    assert lines[4].startswith("laptop 10.77.0.10 0x101 hmac-sha256 hex:0000")
    assert lines[4].endswith(" nai=laptop@example.test")
    assert lines[5].startswith("ant ")


def test_a_retired_key_is_marked_in_front_of_the_comment(path: Path) -> None:
    for _ in range(2):
        with editing(path, owner=UID) as editor:
            assert editor.retire("laptop", 0x100)
            assert not editor.retire("laptop", 0x101)
            editor.write()
    expected = TEXT.replace("nai=laptop@example.test   #", "nai=laptop@example.test retired   #")
    assert path.read_text() == expected + "\n"


def test_what_is_revoked_leaves_a_note_without_the_key(path: Path) -> None:
    with editing(path, owner=UID) as editor:
        assert editor.remove("laptop", None) == 1
        assert editor.remove("laptop", None) == 0
        editor.write()
    lines = path.read_text().split("\n")
    assert lines[3].startswith("# revoked 2")
    assert lines[3].endswith(": laptop SPI 0x100")
    assert [each.name for each in read_nodes(path, owner=UID)] == ["zebra", "ant"]
    with editing(path, owner=UID) as editor:
        assert editor.highest_spi("laptop") == 0x100, "its number is not given to another key"
        assert editor.highest_spi("nobody") is None


def test_the_line_that_a_dash_looks_up_to_may_go(path: Path) -> None:
    path.write_text(
        f"a 10.77.0.128/25 0x100 hmac-sha256 {KEY} nai=a@b replay=nonces # first\n"
        f"a - 0x101 hmac-sha256 {KEY} retired # second\na - 0x102 hmac-sha256 {KEY}\n"
    )
    before = tuple(read_nodes(path, owner=UID))
    with editing(path, owner=UID) as editor:
        assert editor.remove("a", 0x100) == 1
        editor.write()
    after = read_nodes(path, owner=UID)
    assert [(each.nai, each.replay, each.home_addresses, each.retired) for each in after] == [
        (each.nai, each.replay, each.home_addresses, each.retired) for each in before[1:]
    ]
    assert "# second" in path.read_text()


def test_it_can_be_put_back(path: Path) -> None:
    with editing(path, owner=UID) as editor:
        editor.remove("laptop", None)
        editor.write()
        editor.put_back()
    assert path.read_text() == TEXT


def test_what_would_be_wrong_is_never_written(path: Path) -> None:
    with editing(path, owner=UID) as editor:
        editor.add(node("other", "10.77.0.10"))
        with pytest.raises(ProfileError, match="belongs to 'laptop' already"):
            editor.write()
    assert path.read_text() == TEXT


def test_an_empty_file_gets_its_first_node(path: Path) -> None:
    path.write_text("")
    with editing(path, owner=UID) as editor:
        editor.add(node())
        editor.write()
    assert path.read_text().count("\n") == 1


def test_nobody_else_edits_meanwhile(path: Path) -> None:
    order: list[str] = []

    def other() -> None:
        with editing(path, owner=UID) as editor:
            order.append("second")
            editor.add(node("second", "10.77.0.42"))
            editor.write()

    with editing(path, owner=UID) as editor:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        order.append("first")
        editor.add(node("first", "10.77.0.41"))
        editor.write()
    thread.join()
    assert order == ["first", "second"]
    assert [each.name for each in read_nodes(path, owner=UID)][-2:] == ["first", "second"]


def test_a_credential_is_not_edited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    with (
        pytest.raises(ProfileError, match="edit the file that LoadCredential= names"),
        editing(path, owner=UID),
    ):
        pass
