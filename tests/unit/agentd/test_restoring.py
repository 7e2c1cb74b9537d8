# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from homeward.agentd import archive, restoring
from homeward.agentd.archive import BadBackup, Kept
from homeward.agentd.nodes_file import nodes_of
from homeward.agentd.restoring import ASIDE, NothingToUndo

OLD, NEW = "hex:" + "11" * 32, "hex:" + "22" * 32
NOTE = "# revoked 2026-11-23T10:00:00Z: {} SPI {:#x}"


def kept(path: Path, text: str = "x", what: str = "key", mode: int = 0o600) -> Kept:
    return Kept(path, mode, what, text.encode())


def test_what_is_in_the_way_goes_aside_and_comes_back(tmp_path: Path) -> None:
    record = tmp_path / "state" / restoring.RECORD
    there, absent = tmp_path / "there", tmp_path / "folder" / "absent"
    there.write_text("before")
    there.chmod(0o640)
    assert restoring.put([kept(there, "one"), kept(absent, "two", mode=0o644)], record) == [there]
    assert (there.read_text(), absent.read_text()) == ("one", "two")
    assert (there.stat().st_mode & 0o777, absent.stat().st_mode & 0o777) == (0o600, 0o644)
    assert restoring.take_back(record) == [there]
    assert (there.read_text(), there.stat().st_mode & 0o777) == ("before", 0o640)
    assert not absent.exists()
    with pytest.raises(NothingToUndo):
        restoring.take_back(record)


def test_a_second_restore_can_be_undone_to_the_first(tmp_path: Path) -> None:
    record, file = tmp_path / restoring.RECORD, tmp_path / "file"
    file.write_text("zero")
    restoring.put([kept(file, "one")], record)
    restoring.put([kept(file, "two")], record)
    restoring.take_back(record)
    assert file.read_text() == "one"
    assert not file.with_name("file" + ASIDE).exists()


def test_a_restore_that_cannot_be_finished_is_taken_back(tmp_path: Path) -> None:
    record, file = tmp_path / restoring.RECORD, tmp_path / "file"
    file.write_text("before")
    (tmp_path / "no-folder").write_text("")
    with pytest.raises(OSError):
        restoring.put([kept(file, "one"), kept(tmp_path / "no-folder" / "x")], record)
    assert file.read_text() == "before"


def test_the_old_store_s_own_files_do_not_stay_beside_the_new_one(tmp_path: Path) -> None:
    record, store = tmp_path / restoring.RECORD, tmp_path / "agent.sqlite"
    for name in ("", "-wal", "-shm"):
        store.with_name(store.name + name).write_text(f"old{name}")
    restoring.put([kept(store, "new", what="store")], record)
    assert sorted(each.name for each in tmp_path.glob("agent.sqlite*") if ASIDE not in each.name) == [
        "agent.sqlite"
    ]
    restoring.take_back(record)
    assert store.with_name(store.name + "-wal").read_text() == "old-wal"


def line(name: str, spi: int, key: str = OLD, more: str = "") -> str:
    return f"{name} 10.77.0.{spi - 0x100 + len(name)} {spi:#x} hmac-sha256 {key} {more}".rstrip()


def test_what_was_revoked_since_stays_away(tmp_path: Path) -> None:
    backup = kept(
        tmp_path / "nodes", "\n".join(["# ours", line("a", 0x100), line("bb", 0x100), line("ccc", 0x100)])
    )
    present = "\n".join(
        [NOTE.format("a", 0x100), line("bb", 0x100, more="retired"), NOTE.format("gone", 0x104)]
    )
    changed, named = restoring.without_gone_keys(backup, present.encode())
    assert named == ["a SPI 0x100"]
    nodes = list(nodes_of(changed.octets, "nodes"))
    assert [(node.name, node.retired) for node in nodes] == [("bb", True), ("ccc", False)]
    text = changed.octets.decode()
    assert text.startswith("# ours\n")
    assert NOTE.format("a", 0x100) in text, "the next restore must know it too"
    again, _ = restoring.without_gone_keys(backup, changed.octets)
    assert "a 10." not in again.octets.decode()


def test_a_number_that_was_given_away_again_counts_for_the_key_that_has_it_now(tmp_path: Path) -> None:
    present = f"{NOTE.format('a', 0x100)}\n{line('a', 0x100, NEW)}\n".encode()
    assert restoring.without_gone_keys(kept(tmp_path / "n", line("a", 0x100, OLD)), present)[1] == [
        "a SPI 0x100"
    ]
    assert restoring.without_gone_keys(kept(tmp_path / "n", line("a", 0x100, NEW)), present)[1] == []


def test_a_backup_holds_what_was_put_in(tmp_path: Path) -> None:
    files = [
        kept(Path("/etc/homeward/agent.toml"), "a = 1", "configuration", 0o644),
        kept(Path("/x/s"), "db", "store"),
    ]
    archive.write(tmp_path / "b", files)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    found, made = archive.read(tmp_path / "b")
    assert found == files
    assert made > 1.7e9
    with pytest.raises(FileExistsError):
        archive.write(tmp_path / "b", files)


def forged(place: Path, manifest: object, *, member: str = "files/0", kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(place, "w") as tar:
        for name, octets in (("manifest.json", json.dumps(manifest).encode()), (member, b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(octets)
            if name == member:
                info.type, info.linkname = kind, "/etc/shadow"
                info.size = len(octets) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(octets))
    place.chmod(0o600)
    return place


def manifest(path: str = "/x", member: str = "files/0", **changes: object) -> dict[str, object]:
    files = {member: {"path": path, "mode": 0o600, "what": "key"}}
    return {"format": 1, "made": 1, "version": "0", "files": files, **changes}


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        (manifest("relative"), tarfile.REGTYPE, "is no place for a file"),
        (manifest("/a/../etc/shadow"), tarfile.REGTYPE, "is no place for a file"),
        (manifest(member="files/1"), tarfile.REGTYPE, "is no backup"),
        (manifest(format=2), tarfile.REGTYPE, "is of format 2"),
        (manifest(files=[]), tarfile.REGTYPE, "is no backup"),
        (manifest(made="x"), tarfile.REGTYPE, "is no backup"),
        ([], tarfile.REGTYPE, "is no backup"),
        (manifest(), tarfile.SYMTYPE, "is no file"),
        (manifest(), tarfile.FIFOTYPE, "is no file"),
    ],
)
def test_a_forged_backup_is_refused(tmp_path: Path, told: object, kind: bytes, said: str) -> None:
    with pytest.raises(BadBackup, match=said):
        archive.read(forged(tmp_path / "b", told, kind=kind))


def test_a_backup_that_others_can_write_is_refused(tmp_path: Path) -> None:
    place = forged(tmp_path / "b", manifest())
    archive.read(place)
    os.chmod(place, 0o620)
    with pytest.raises(BadBackup, match="somebody else may have written it"):
        archive.read(place)
